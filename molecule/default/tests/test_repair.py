# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Damage, mistakes and failures: what must not change does not, and the next run heals the rest."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from conftest import PYTHON, VENV

DATABASE = "/var/lib/graphite/graphite.db"
SQL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print([row for statement in sys.argv[2:] for row in connection.execute(statement)])
connection.commit()
"""


@pytest.fixture
def sql(run_python):
    return lambda *statements: run_python(SQL, DATABASE, *statements, user="_graphite")


@pytest.fixture
def healed(playbook, counter_comes_back):
    """Run site.yml as users do, and test the stack."""

    def heal(name, check_first=False):
        if check_first:
            status, output = playbook("site.yml", check=True)
            assert status == 0, output
            assert "changed=0" not in output
        status, output = playbook("site.yml")
        assert status == 0, output
        counter_comes_back(f"healed.{name}")
        return output

    return heal


def fingerprint(host, *paths):
    return host.run(f"sha256sum {' '.join(paths)}; stat --format '%n %U %a' {' '.join(paths)}").stdout


def test_files_that_root_has_left_go_back(host, healed):
    host.run(f"chown root:root {DATABASE}; touch /var/log/graphite/info.log; mkdir -m 700 /var/lib/graphite/whisper/stats/by_root")
    assert "changed=0" not in healed("ownership", check_first=True)
    assert host.run("find /var/lib/graphite /var/log/graphite ! -user _graphite").stdout == ""


def test_links_of_the_application_give_nothing_away(host, healed, playbook):
    """The user of the application owns the directories that root walks."""
    link, second = (f"/var/lib/graphite/whisper/stats/{name}" for name in ("link", "second"))
    host.run(f"ln -s /etc {link}; touch /var/lib/victim; ln /var/lib/victim {second}")
    # Carbon's sandbox does not let it write there, so that points would be lost.
    status, output = playbook("site.yml")
    assert status != 0
    assert f"{link}, in carbon_cache_whisper_directory, is a symbolic link to /etc" in " ".join(output.split())
    host.run(f"rm {link}")
    healed("links")
    assert host.run("stat --format %U /etc /var/lib/victim").stdout.split() == ["root", "root"]
    host.run(f"rm {second} /var/lib/victim")


REMOVED = "/etc/carbon /etc/statsd /var/log/carbon /var/log/graphite"


def test_what_was_removed_comes_back_and_processes_that_are_older_than_their_packages_are_replaced(host, healed):
    def processes():
        services = (f"systemctl show --property MainPID --value {unit}" for unit in ("carbon-cache@a", "statsd"))
        return [host.run(command).stdout.split() for command in (*services, "pgrep -u _graphite apache2")]

    before = processes()
    assert all(before), before
    replaced = "python3*-minimal.list" if VENV else "python3-whisper.list graphite-web.list"
    assert host.run(f"cd /var/lib/dpkg/info && touch --no-create nodejs.list {replaced}").rc == 0
    attributes = host.run(f"stat --format '%n %U %G %a' {REMOVED}").stdout
    host.run(f"rm -r {REMOVED}")
    # As a run leaves them that ends before its last task.
    host.run("mkdir /opt/statsd/0123456789ab /opt/statsd/source")
    assert "changed=0" not in healed("packages", check_first=True)
    assert host.run(f"stat --format '%n %U %G %a' {REMOVED}").stdout == attributes
    assert len(host.file("/opt/statsd").listdir()) == 1
    after = processes()
    assert not any(set(old) & set(new) for old, new in zip(before, after)), (before, after)
    assert all(after), after
    assert "changed=0" in healed("packages")


def test_the_secret_key_stays_and_no_secret_is_shown(host, playbook):
    before = fingerprint(host, "/etc/graphite/secret_key")
    status, output = playbook("graphite_web.yml", {"graphite_web_settings": {"EMAIL_HOST_PASSWORD": "not to be seen"}})
    assert status == 0, output
    assert "not to be seen" not in output
    assert fingerprint(host, "/etc/graphite/secret_key") == before
    assert "not to be seen" in host.run("cat /etc/graphite/local_settings.py").stdout
    status, output = playbook("graphite_web.yml")
    assert status == 0, output
    assert "not to be seen" not in output
    assert "not to be seen" not in host.run("cat /etc/graphite/local_settings.py").stdout


def test_settings_that_do_not_load_never_arrive(host, playbook, http_get):
    before = fingerprint(host, "/etc/graphite/local_settings.py")
    status, output = playbook("graphite_web.yml", {"graphite_web_settings": {"LOGGING": {"version": 7}}})
    assert status != 0
    assert "Unsupported version: 7" in output
    assert fingerprint(host, "/etc/graphite/local_settings.py") == before
    assert http_get("/version/")[0] == 200


def test_an_unrelated_site_and_a_broken_directive(host, playbook, http_get, wait_until):
    site = "/etc/apache2/sites-available/an-other.conf"  # read before graphite's
    host.run(f"printf '<VirtualHost *:80>\\nServerName other.example\\nRedirect 410 /\\n</VirtualHost>\\n' > {site}; a2ensite an-other")
    before = fingerprint(host, site, "/etc/apache2/sites-available/graphite.conf")
    status, output = playbook("graphite_web.yml", {"graphite_web_extra_directives": ["NoSuchDirective On"]})
    assert status != 0
    assert "NoSuchDirective" in output
    assert fingerprint(host, site, "/etc/apache2/sites-available/graphite.conf") == before
    status, output = playbook("graphite_web.yml")
    assert status == 0, output
    assert fingerprint(host, site, "/etc/apache2/sites-available/graphite.conf") == before
    assert http_get("/", headers={"Host": "other.example"})[0] == 410
    host.run(f"a2dissite an-other; rm {site}; systemctl reload apache2")
    wait_until(lambda: http_get("/version/")[0] == 200)  # what Apache still handed to the processes before the reload gets a 503


def test_sites_move_together_and_get_their_modules_back(host, playbook, run_python):
    ask = """
import sys, urllib.request
answer = urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}/version/", headers={"Host": sys.argv[2]}))
print(ascii((answer.read(), answer.headers["X-Team"].encode("latin1").decode())))
"""
    script = "def application(environ, start):\n    start('200 OK', [])\n    return [b'own']\n"
    host.run(f"mkdir /srv/own; printf '%s' {shlex.quote(script)} > /srv/own/own.wsgi")
    team = "größe \U0001f680"
    own = {"name": "own", "server_name": "own.example", "wsgi_script": "/srv/own/own.wsgi", "user": "www-data", "group": "www-data"}
    own["extra_directives"] = [f'Header set X-Team "{team}"']

    def configure(graphite_port, directives=(), **options):
        variables = {"graphite_web_extra_directives": list(directives), "graphite_web_port": graphite_port}
        sites = {"apache_wsgi_sites": "{{ [graphite_web_site | default({}), own_site] }}", "own_site": {**own, **options}}
        status, output = playbook("graphite_web.yml", {**variables, **sites})
        assert status == 0, output

    # On one port, from which one of them moves, and which they then exchange.
    for port, own_port in ((8098, 8098), (8099, 8098), (8098, 8099)):
        configure(port, own["extra_directives"], port=own_port)
        assert team in run_python(ask, str(port), "localhost").encode().decode("unicode-escape")
        assert run_python(ask, str(own_port), "own.example").startswith("(b'own'")
        host.run("a2dismod --force alias wsgi")
    configure(80, state="absent")
    host.run("rm -r /srv/own")


def test_a_port_that_another_service_has_is_refused(host, playbook, http_get):
    assert host.run("systemd-run --unit squatter python3 -m http.server 8099").rc == 0
    status, output = playbook("graphite_web.yml", {"graphite_web_port": 8099})
    assert host.run("systemctl stop squatter").rc == 0
    assert status != 0
    assert "squatter.service" in output
    assert http_get("/version/")[0] == 200


@pytest.mark.parametrize("check", [True, False])
def test_more_series_than_there_is_room_for_are_refused_before_a_change(host, playbook, check):
    before = fingerprint(host, "/etc/carbon/carbon.conf")
    variables = {"carbon_cache_expected_series": {"stats": 1000000000}, "carbon_cache_settings": {"MAX_CACHE_SIZE": 1000}}
    status, output = playbook("site.yml", variables, check=check)
    assert status != 0
    assert "changed=0" in output
    output = " ".join(output.split())
    assert re.search(r"needs [\d ]{6,}(\.\d+)? GiB \(rule stats: 1 000 000 000 x [\d ]+ KiB\)", output), output
    assert re.search(r"the file system of /var/lib/graphite/whisper has [\d ]+\.\d+ GiB", output), output
    assert fingerprint(host, "/etc/carbon/carbon.conf") == before


def test_files_that_are_there_count_as_room_for_those_to_come(host, playbook):
    """28 KiB each, on a file system of 64 MiB."""
    assert host.run("mkdir /mnt/small && mount -t tmpfs -o size=64M tmpfs /mnt/small").rc == 0
    variables = {"carbon_cache_whisper_directory": "/mnt/small/graphite/whisper"}

    def fits(series):
        return playbook("carbon.yml", {**variables, "carbon_cache_expected_series": {"load_test": series}}, check=True)

    status, output = fits(2000)  # neither the directory nor its parent is there
    assert status == 0, output
    host.run("mkdir -p /mnt/small/graphite/whisper; fallocate -l 40M /mnt/small/graphite/whisper/series.wsp")
    status, output = fits(2000)
    assert status == 0, output
    status, output = fits(3000)
    assert status != 0
    assert "has 0.06 GiB (0.02 GiB free and 0.04 GiB of whisper files)" in " ".join(output.split())
    assert host.run("umount /mnt/small && rmdir /mnt/small").rc == 0


def test_a_package_that_cannot_be_installed_is_named(host, playbook, http_get):
    preferences = "/etc/apt/preferences.d/refused"
    host.run(f"printf 'Package: python3-mysqldb\\nPin: release *\\nPin-Priority: -1\\n' > {preferences}")
    before = fingerprint(host, "/etc/graphite/local_settings.py")
    status, output = playbook("graphite_web.yml", {"graphite_web_database": {"engine": "django.db.backends.mysql", "name": "graphite"}})
    host.run(f"rm {preferences}")
    assert status != 0
    # In the virtual environment, there is no driver to install.
    assert ("graphite_web_install_method" if VENV else "python3-mysqldb") in output
    assert fingerprint(host, "/etc/graphite/local_settings.py") == before
    assert http_get("/version/")[0] == 200


def test_a_failed_migration_changes_nothing_and_the_next_run_tries_again(host, playbook, sql, healed, http_get):
    forget = "DELETE FROM django_migrations WHERE app = 'dashboard'"
    sql("ALTER TABLE dashboard_template RENAME TO template_aside", forget)
    users = sql("SELECT * FROM auth_user")
    status, output = playbook("graphite_web.yml")
    assert status != 0
    assert "already exists" in output
    assert "put back" in output
    assert sql("SELECT * FROM auth_user") == users
    assert http_get("/version/")[0] == 200
    sql("ALTER TABLE template_aside RENAME TO dashboard_template")
    healed("migration")
    assert sql("SELECT * FROM auth_user") == users
    assert "dashboard" in sql("SELECT app FROM django_migrations")
    host.run(f"rm {DATABASE}.*")


OLD_DATABASE = """
import os, sqlite3, sys
sys.path[:0] = ["/etc/graphite"]
os.environ.update(DJANGO_SETTINGS_MODULE="graphite.settings", GRAPHITE_SETTINGS_MODULE="local_settings")
import local_settings
local_settings.DATABASES["default"]["NAME"] = sys.argv[1]
import django
django.setup()
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
for app, name in sorted(MigrationLoader(None).disk_migrations):
    if name.startswith("0001"):
        call_command("migrate", app, name, verbosity=0)
with connection.cursor() as cursor:
    cursor.execute("INSERT INTO auth_user VALUES (1, 'x', '2014-02-03', 1, 'legacy', '', '', '', 1, 1, '2014-02-03')")
    cursor.execute("DROP TABLE django_migrations")
"""


def test_a_database_from_before_migrations_is_adopted(host, playbook, run_python):
    old = "/var/lib/graphite/old.db"
    run_python(OLD_DATABASE, old, user="_graphite")
    as_it_is = {"graphite_web_database_move": False}  # both databases have users
    status, output = playbook("graphite_web.yml", {"graphite_web_database": {"name": old}, **as_it_is})
    assert status == 0, output
    assert "('legacy',)" in run_python(SQL, old, "SELECT username FROM auth_user", user="_graphite")
    assert "0012_alter_user_first_name_max_length" in run_python(SQL, old, "SELECT name FROM django_migrations", user="_graphite")
    assert playbook("graphite_web.yml", as_it_is)[0] == 0
    host.run(f"rm {old}*")


def test_settings_that_fall_back_are_not_migrated(host, playbook, tmp_path):
    task = {
        "name": "Migrate",
        "metricstack.graphite.graphite_migrate": {"local_settings": "settings_elsewhere", "python": PYTHON},
        "become": True,
    }
    path = tmp_path / "migrate.yml"
    path.write_text(
        json.dumps([{"name": "Migrate with settings that are not there", "hosts": "all", "gather_facts": False, "tasks": [task]}])
    )
    status, output = playbook(path)
    assert status != 0
    assert "settings_elsewhere" in output


def test_a_unit_that_systemd_has_not_read_is_read(host, playbook):
    """A run that ended between writing a unit and telling systemd."""
    unit = "/etc/systemd/system/statsd.service"
    host.run(
        f"sed -i s/^RestartSec=1/RestartSec=9/ {unit}; systemctl daemon-reload; sleep 1.1; sed -i s/^RestartSec=9/RestartSec=1/ {unit}"
    )
    assert "9s" in host.run("systemctl show --property RestartUSec statsd").stdout
    status, output = playbook("statsd.yml")
    assert status == 0, output
    assert "9s" not in host.run("systemctl show --property RestartUSec statsd").stdout


def test_a_service_that_missed_its_configuration_gets_it(host, playbook, counter_comes_back):
    """A run that ended between writing a file and restarting the service."""
    config = "/etc/statsd/config.js"
    host.run(f"sed -i s/10000/20000/ {config}; sleep 1.1; systemctl restart statsd; sleep 2; sed -i s/20000/10000/ {config}")
    status, output = playbook("statsd.yml")
    assert status == 0, output
    # The difference is shown between the name and the result of a task.
    assert re.search(r"Run StatsD with its current configuration\] \*+\n(?:(?!TASK).*\n)*?changed", output), output
    counter_comes_back("healed.restart")
