# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A host goes to the next release of Debian as its release notes say, and site.yml upgrades the stack. In this order."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from conftest import PASSWORD, UNITS, values

DAY = 86400
# Seconds ago of the first and the last point, and between two points: one stretch for each archive of the rule.
AGES = [(3000, 600, 60), (20 * DAY, 20 * DAY - 6000, 300), (100 * DAY, 100 * DAY - 36000, 3600)]
SEND = """
import socket, sys
carbon = socket.create_connection(("127.0.0.1", 2003))
carbon.sendall("".join(line + "\\n" for line in sys.argv[1:]).encode())
carbon.close()
"""
FETCH = """
import json, sys, time, whisper
print(json.dumps([value for value in whisper.fetch(sys.argv[1], time.time() - 600)[1] if value is not None]))
"""
ROWS = """
import json, sqlite3, sys
connection = sqlite3.connect("file:/var/lib/graphite/graphite.db?mode=ro", uri=True)
print(json.dumps([connection.execute(statement).fetchall() for statement in sys.argv[1:]]))
"""
TABLES = (
    "SELECT username, password, is_superuser FROM auth_user ORDER BY id",
    "SELECT name, state FROM dashboard_dashboard ORDER BY name",
    'SELECT what, "when", data, tags FROM events_event ORDER BY id',
)
PAGE = "docs/release_upgrade.md"
# As an upgrade leaves it that is interrupted.
INTERRUPTION = """
apt-get clean
apt-get -y install --reinstall --download-only graphite-web
dpkg --unpack /var/cache/apt/archives/graphite-web_*.deb
"""


@pytest.fixture(scope="module")
def kept():
    """State that tests pass on to later tests."""
    return SimpleNamespace()


@pytest.fixture
def snapshot(host, render, run_python):
    """Return everything that must be the same afterwards."""

    def take(began):
        spans = [(began - first - 300, began - last) for first, last, _step in AGES]
        return {
            "old points": [render("upgrade.old", **{"from": since, "until": until}) for since, until in spans],
            "points of StatsD": render("stats.counters.upgrade.before.count", **{"from": began - 600, "until": began}),
            "rows": json.loads(run_python(ROWS, *TABLES)),
            "secret key": host.run("sha256sum /etc/graphite/secret_key").stdout,
        }

    return take


@pytest.fixture
def last_on_disk(host):
    """Return the last value of a series as its file has it."""

    def last(path):
        result = host.run(shlex.join(["python3", "-c", FETCH, f"/var/lib/graphite/whisper/{path}.wsp"]))
        return (json.loads(result.stdout) or [None])[-1] if result.rc == 0 else None  # there need not be a file yet

    return last


def test_there_is_something_to_lose(kept, host, run_module, run_python, counter_comes_back, http_get, snapshot, wait_until):
    now = int(host.run("date +%s").stdout)
    run_python(SEND, *(f"upgrade.old {age} {now - age}" for first, last, step in AGES for age in range(first, last, -step)))
    event = run_module("graphite_event", what="Before the upgrade “前”", tags=["upgrade"], data="by 'me'")
    assert event["changed"], event
    counter_comes_back("upgrade.before")
    login = urlencode({"username": "admin", "password": PASSWORD, "nextPage": "/dashboard"}).encode()
    status, headers, _body = http_get("/account/login", data=login)
    assert status == 302
    kept.login = login
    kept.cookie = {"Cookie": headers["Set-Cookie"].partition(";")[0]}
    kept.began = int(host.run("date +%s").stdout)
    kept.before = snapshot(kept.began)
    for (series,), (first, last, step) in zip(kept.before["old points"], AGES):
        assert len(values(series)) >= (first - last) // step - 1
    assert all(kept.before["rows"])


def test_a_host_between_the_releases_is_not_touched(host, playbook, documented):
    documented(PAGE, "backup")
    documented(PAGE, "minimal")
    result = host.run(INTERRUPTION)
    assert result.rc == 0, result.stdout[-2000:] + result.stderr
    status, output = playbook("site.yml")
    assert status != 0
    assert "graphite-web (unpacked). Run: dpkg --configure -a" in " ".join(output.split()), output
    assert "changed=0" in output, output


def test_apt_upgrades_the_release_without_a_question(host, documented):
    documented(PAGE, "continue")
    documented(PAGE, "full")
    assert host.run("dpkg --audit").stdout == ""
    assert host.file("/etc/os-release").contains("VERSION_CODENAME=trixie")


def test_carbon_collects_between_the_upgrade_and_the_next_run(host, reboot, run_python, last_on_disk, wait_until, statsd_send):
    def collects(name):
        now = int(host.run("date +%s").stdout)
        run_python(SEND, f"upgrade.{name} 7 {now}")
        wait_until(lambda: last_on_disk(f"upgrade/{name}") == 7, message=f"{name} is not on disk")
        statsd_send(f"upgrade.{name}:7|c")
        wait_until(lambda: last_on_disk(f"stats/counters/upgrade/{name}/count") is not None, timeout=40)

    collects("upgraded")
    reboot()
    collects("rebooted")


def test_site_yml_brings_the_stack_after_it(documented, run_module):
    documented(PAGE, "site")
    # The two releases have the same migrations.
    migrated = run_module("graphite_migrate", "--check", run_as="_graphite", python_path=["/etc/graphite"])
    assert migrated["pending"] == [], migrated


def test_nothing_is_lost(kept, snapshot, http_get, counter_comes_back):
    assert snapshot(kept.began) == kept.before
    assert http_get("/admin/", headers=kept.cookie)[0] == 200
    assert http_get("/account/login", data=kept.login)[0] == 302
    counter_comes_back("upgrade.after")


def test_a_second_run_changes_nothing(playbook):
    status, output = playbook("site.yml")
    assert status == 0, output
    assert "changed=0" in output, output


def test_a_database_of_a_newer_release_is_not_touched(playbook, host, run_python):
    """As after a step back to older packages."""
    execute = "import sqlite3, sys; c = sqlite3.connect('/var/lib/graphite/graphite.db'); c.execute(sys.argv[1]); c.commit()"
    run_python(execute, "INSERT INTO django_migrations (app, name, applied) VALUES ('dashboard', '0009_future', '2030-01-01')")
    before = host.run("sha256sum /var/lib/graphite/graphite.db*").stdout
    status, output = playbook("site.yml")
    assert status != 0
    assert "dashboard.0009_future" in output, output
    assert host.run("sha256sum /var/lib/graphite/graphite.db*").stdout == before
    run_python(execute, "DELETE FROM django_migrations WHERE name = '0009_future'")


def test_the_upgraded_stack_survives_a_reboot(host, reboot, counter_comes_back):
    reboot()
    assert all(host.run(f"systemctl is-active {unit}").rc == 0 for unit in UNITS)
    counter_comes_back("upgrade.rebooted_again")
