# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""From SQLite to PostgreSQL and back with all that users have made, and databases that cannot be used."""

from __future__ import annotations

import json
import shlex
from urllib.parse import quote, urlencode

import pages
import pytest

SQLITE = "/var/lib/graphite/graphite.db"
SETTINGS = "/etc/graphite/local_settings.py"
ALICE = ("alice", "through 'thick' and \"thin\"")
PAGE = "docs/database.md"
PASSWORD = "over 'the' \"wire\""
SERVER = {**pages.variables(PAGE, "database.yml")["graphite_web_database"], "password": PASSWORD, "host": "127.0.0.1"}
POSTGRESQL = {"graphite_web_database": SERVER}
# Ends the session that makes the table of events, whoever it is.
GONE = """
CREATE FUNCTION gone() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = 'public.events_event') THEN
    PERFORM pg_terminate_backend(pg_backend_pid());
  END IF;
END $$;
CREATE EVENT TRIGGER gone ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION gone();
"""


@pytest.fixture
def psql(host):
    """Run SQL as the administrator of the database server."""

    def run(statements, database="graphite"):
        command = ["runuser", "-u", "postgres", "--", "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statements]
        result = host.run(f"cd / && {shlex.join(command)}")
        assert result.rc == 0, result.stderr
        return result.stdout.strip()

    return run


@pytest.fixture
def empty(psql):
    """Make the database on the server anew."""

    def make():
        psql("DROP DATABASE IF EXISTS graphite WITH (FORCE)", "postgres")
        psql("CREATE DATABASE graphite OWNER graphite", "postgres")

    return make


@pytest.fixture
def save(http_get):
    """Save a dashboard as a browser does."""

    def dashboard(name, cookie):
        state = {"name": name, "graphs": [], "defaultGraphParams": {"from": "-1hours", "until": "now"}}
        data = urlencode({"state": json.dumps(state)}).encode()
        reply = http_get(f"/dashboard/save/{quote(name)}", headers={"Cookie": cookie}, data=data)
        assert json.loads(reply[2]) == {"success": True}

    return dashboard


@pytest.fixture
def content(http_get, login):
    """Return what the site shows to one who logs in with the old password."""

    def read():
        cookie = login(*ALICE)
        assert "sessionid=" in cookie
        return {
            "dashboards": sorted(item["name"] for item in json.loads(http_get("/dashboard/find/?query=")[2])["dashboards"]),
            "events": [event["what"] for event in json.loads(http_get("/events/get_data")[2])],
            "graphs": [item["text"] for item in json.loads(http_get("/browser/mygraph/?path=", headers={"Cookie": cookie})[2])],
        }

    return read


@pytest.fixture
def as_documented(documented):
    """Do what the page says; the database server is on the same host."""

    def do(name):
        output = documented(PAGE, name, instead={"db.example.org": "127.0.0.1"}, variables={"vault_graphite_database_password": PASSWORD})
        assert PASSWORD not in output
        return " ".join(output.split())

    return do


@pytest.fixture
def run(playbook):
    """Run graphite-web's playbook; return its exit status and its output on one line."""

    def graphite_web(variables, name="graphite_web.yml", check=False):
        status, output = playbook(name, variables, check=check)
        assert SERVER["password"] not in output
        return status, " ".join(output.split())

    return graphite_web


def state(host):
    return host.run(f"sha256sum /etc/graphite/* {SQLITE}; systemctl show --property MainPID --value apache2").stdout


def test_everything_comes_along_to_postgresql(host, http_get, login, save, content, run, as_documented, run_module, psql):
    assert run_module("graphite_user", name=ALICE[0], password=ALICE[1], superuser=True)["changed"]
    cookie = login(*ALICE)
    save("hers", cookie)
    event = json.dumps({"what": "deployed 运行时", "tags": ["shop"], "data": "1"}).encode()
    assert http_get("/events/", {"Cookie": cookie}, event)[0] == 200
    query = urlencode({"action": "save", "graphName": "saved", "url": "/render?target=a.b"})
    assert http_get(f"/composer/mygraph/?{query}", headers={"Cookie": cookie})[0] == 200
    before = content()
    assert "hers" in before["dashboards"]
    assert before["events"] == ["deployed 运行时"]
    assert before["graphs"] == ["saved"]
    as_it_was = state(host)
    sqlite = host.file(SQLITE).sha256sum
    status, output = run(POSTGRESQL, check=True)
    assert status == 0, output
    assert "Would copy" in output
    assert psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "0"
    assert state(host) == as_it_was
    output = as_documented("move")
    assert output.index("Would copy") < output.index("Copied")
    assert host.file(SQLITE).sha256sum == sqlite
    # A login from before is one still.
    assert json.loads(http_get("/browser/mygraph/?path=", headers={"Cookie": cookie})[2])[0]["text"] == "saved"
    assert content() == before
    assert host.file(SQLITE).sha256sum == sqlite
    status, output = run(POSTGRESQL, "site.yml")
    assert status == 0, output
    assert "changed=0" in output
    assert "Copied" not in output
    status, output = run(POSTGRESQL, "verify.yml")
    assert status == 0, output


def test_everything_comes_back_with_what_was_made_meanwhile(host, login, save, content, run, as_documented, psql):
    save("made meanwhile", login(*ALICE))  # with a key that follows the copied ones
    before = content()
    rows = psql("SELECT count(*) FROM dashboard_dashboard")
    assert "Copied" in as_documented("back")
    assert content() == before
    assert "made meanwhile" in before["dashboards"]
    assert host.run(f"ls {SQLITE}.before-move-*").rc == 0
    assert psql("SELECT count(*) FROM dashboard_dashboard") == rows
    status, output = run({})
    assert status == 0, output
    assert "changed=0" in output


@pytest.mark.parametrize("check", [True, False])
def test_content_on_both_sides_is_kept_apart(host, content, run, check):
    before, as_it_was = content(), state(host)
    status, output = run(POSTGRESQL, check=check)
    assert status != 0
    assert "has content of its own" in output
    assert "graphite_web_database_move" in output
    assert "changed=0" in output
    content()
    assert before == content()
    assert state(host).splitlines()[:-2] == as_it_was.splitlines()[:-2]


BAD = {
    "password": ({"password": "wrong"}, "password authentication failed"),
    "host": ({"host": "127.0.0.1", "port": 1}, "refused"),
    "name": ({"name": "nowhere"}, "does not exist"),
    "file": ({"engine": "django.db.backends.sqlite3", "name": "/etc/hostname"}, "not a database"),
}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(("bad", "words"), BAD.values(), ids=BAD.keys())
def test_a_database_that_cannot_be_used_is_refused_before_a_change(host, http_get, run, bad, words, check):
    as_it_was = state(host)
    status, output = run({"graphite_web_database": {**SERVER, **bad}}, check=check)
    assert status != 0
    assert words in output
    assert "graphite_web_database" in output
    assert "changed=0" in output
    assert state(host) == as_it_was
    assert http_get("/version/")[0] == 200


@pytest.mark.parametrize("check", [True, False])
def test_a_user_who_may_not_create_tables_is_refused_before_a_change(host, run, psql, empty, check):
    psql("DROP DATABASE IF EXISTS graphite WITH (FORCE)", "postgres")
    psql("CREATE DATABASE graphite", "postgres")
    psql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as PostgreSQL 15 and later do
    as_it_was = state(host)
    status, output = run(POSTGRESQL, check=check)
    assert status != 0
    assert "GRANT USAGE, CREATE ON SCHEMA public TO graphite;" in output
    assert "changed=0" in output
    assert state(host) == as_it_was
    empty()


def test_a_server_that_goes_away_in_the_middle(host, content, run, psql, empty):
    empty()
    psql(GONE)
    before, as_it_was = content(), host.file(SETTINGS).sha256sum
    status, output = run(POSTGRESQL)
    assert status != 0
    assert "moving to the database graphite on 127.0.0.1 failed" in output
    assert "is as it was and in use" in output
    assert host.file(SETTINGS).sha256sum == as_it_was
    assert psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "0"
    assert content() == before
    psql("DROP FUNCTION gone CASCADE")
    status, output = run(POSTGRESQL)
    assert status == 0, output
    assert content() == before


def test_a_wrong_new_password_never_arrives(host, content, run):
    """The database stays the same, so that nothing is to be moved."""
    as_it_was = host.file(SETTINGS).sha256sum
    status, output = run({"graphite_web_database": {**SERVER, "password": "wrong"}})
    assert status != 0
    assert "graphite_web_database" in output
    assert "password authentication failed" in output
    assert host.file(SETTINGS).sha256sum == as_it_was
    content()


def test_a_newer_database_is_refused_before_the_settings_change(host, content, run, psql):
    psql("INSERT INTO django_migrations (app, name, applied) VALUES ('dashboard', '0099_future', now())")
    as_it_was = host.file(SETTINGS).sha256sum
    status, output = run({**POSTGRESQL, "graphite_web_settings": {"DOCUMENTATION_URL": "http://docs.example.org/"}})
    assert status != 0
    assert "dashboard.0099_future" in output
    assert host.file(SETTINGS).sha256sum == as_it_was
    content()
    psql("DELETE FROM django_migrations WHERE name = '0099_future'")


def test_a_backup_brings_an_emptied_database_back(host, content, run, psql, login, save):
    before = content()
    status, output = run(POSTGRESQL, "backup.yml")
    assert status == 0, output
    psql("DROP OWNED BY graphite; ALTER SCHEMA public OWNER TO pg_database_owner")
    psql("SET ROLE graphite; CREATE TABLE later (id integer); INSERT INTO later VALUES (1)")
    status, output = run({**POSTGRESQL, "graphite_restore_force": True}, "restore.yml")
    assert status == 0, output
    assert content() == before
    assert psql("SELECT count(*) FROM pg_tables WHERE tablename = 'later'") == "0"
    assert host.run("ls /var/backups/graphite/database.before-restore-*").rc == 0
    save("after the restore", login(*ALICE))
