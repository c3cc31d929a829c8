# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A manually set up host keeps its data and loses harmful configuration; a foreign process on a port is reported."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

import pytest
from conftest import values

DATABASE = "/var/lib/graphite/graphite.db"
SQL = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall())"
OLD = "stats.gauges.go.demo.mem.gc.pause"


@pytest.fixture
def read_back(render, old_points):
    """Return what graphite-web gives for the time of the old points."""

    def read():
        (series,) = render(OLD, **{"from": min(old_points) - 60, "until": max(old_points)})
        return {time: value for value, time in series["datapoints"] if value is not None}

    return read


def test_the_points_are_there(old_points, read_back):
    assert len(old_points) > 50
    found = read_back()
    assert {time: found.get(time) for time in old_points} == old_points


def test_fresh_points_come_back(statsd_send, render, wait_until, counter_comes_back):
    counter_comes_back("adopted")
    statsd_send("go.demo.mem.gc.pause:4711|g")
    wait_until(lambda: 4711 in values(render(OLD)[0]), timeout=90, message="a series of before gets no points")


@pytest.fixture
def login(http_get):
    """Log in as the superuser of 2017; return the cookie."""

    def as_root():
        data = urlencode({"username": "root", "password": "gopher-2017"}).encode()
        status, headers, _body = http_get("/account/login", data=data)
        assert status == 302
        return headers["Set-Cookie"].partition(";")[0]

    return as_root


# In this order: with the first login, Django stores the password with more iterations, which ends the other sessions.
def test_nobody_was_logged_out_and_the_superuser_logs_in(host, http_get, login):
    for cookie in (lambda: f"sessionid={host.file('/root/session').content_string.strip()}", login):
        status, _headers, body = http_get("/account/edit", headers={"Cookie": cookie()})
        assert (status, b"root" in body) == (200, True)
    assert http_get("/account/edit")[0] == 302


def test_dashboard_event_saved_graph_and_short_link_are_there(http_get, login):
    state = json.loads(http_get(f"/dashboard/load/{quote('Go runtime 2017')}")[2])["state"]
    assert state["graphs"][0][1]["title"] == "GC pause 运行时"
    (event,) = json.loads(http_get("/events/get_data?from=00:00_20170701&until=00:00_20170801&tags=go+deployment")[2])
    assert (event["what"], event["data"]) == ("go1.9beta2", "server-go19beta2 replaces server-go183")
    assert "gc_pause" in http_get("/browser/mygraph?path=", headers={"Cookie": login()})[2].decode()
    assert http_get("/S/B")[1]["Location"].endswith("target=stats.gauges.go.*.mem.gc.pause")


def test_the_database_has_the_schema_of_today(host, run_python):
    tables = run_python(SQL, DATABASE, "SELECT name FROM sqlite_master WHERE name LIKE 'dashboard_template%'")
    assert "dashboard_template_owners" in tables
    (copy,) = host.run(f"ls {DATABASE}.*").stdout.split()
    assert run_python(SQL, copy, "SELECT count(*) FROM sqlite_master WHERE name = 'dashboard_template'").strip() == "[(0,)]"


def test_harmful_manual_configuration_is_reverted(host):
    users = host.run("ps -eo user:20,args | grep -E 'apache2 -k|wsgi:|carbon-cache|statsd ' | grep -v grep").stdout
    assert "www-data" in users
    assert [line.split()[1] for line in users.splitlines() if line.startswith("root ")] == ["/usr/sbin/apache2"]
    assert host.run("grep -c _graphite /etc/apache2/envvars").stdout.strip() == "0"
    assert host.run("ls /etc/apache2/sites-enabled").stdout.split() == ["graphite.conf"]
    assert host.run("find /var/lib/graphite /var/log/graphite ! -user _graphite").stdout == ""
    listening = host.run("ss -Hltun").stdout
    assert not [
        line
        for line in listening.splitlines()
        if line.split()[4].rpartition(":")[2] in ("2003", "2004", "2103", "7002", "8125", "8126") and "127.0.0.1:" not in line
    ]
    assert host.file("/etc/graphite/secret_key").content_string == "hand-made-2017-k3y-of-the-host-with-fifty-characters\n"
    for path in ("/etc/carbon/storage-schemas.conf", "/etc/graphite/local_settings.py", "/etc/apache2/envvars"):
        assert host.run(f"ls {path}.*~").rc == 0, path


@pytest.mark.parametrize(
    ("port", "kind", "words"),
    [(8126, "tcp", "statsd_management_port has port 8126"), (2003, "tcp", "carbon_relay_port has port 2003")],
)
def test_a_stranger_on_a_port_is_named_before_the_first_change(host, playbook, port, kind, words):
    unit = "statsd" if port == 8126 else "carbon-relay"
    program = f'import socket, time; s = socket.create_server(("127.0.0.1", {port})); time.sleep(300)'
    host.run(f"systemctl stop {unit}; nohup python3 -c '{program}' > /dev/null 2>&1 < /dev/null & sleep 1")
    try:
        status, output = playbook("site.yml")
        assert status != 0
        assert f"{words}, but python3, process" in output
        assert "changed=0" in output
    finally:
        host.run(f"pkill -f 'create_server.*{port}'; systemctl start {unit}")


def test_reshaping_keeps_the_points(host, playbook, old_points, read_back):
    status, output = playbook("carbon.yml", variables={"carbon_cache_existing_data": "reshape"})
    assert status == 0, output
    info = host.run(f"whisper-info --json /var/lib/graphite/whisper/{OLD.replace('.', '/')}.wsp").stdout
    assert "'secondsPerPoint': 10" in info.replace('"', "'")
    found = read_back()
    assert set(old_points.values()) <= set(found.values())
