# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Logins of others than graphite-web's own users, asked from outside: an LDAP directory, and a proxy that names who has logged in.

The directory is on the peer. Only the address of the proxy there is trusted.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from conftest import PASSWORD
from outside import reach

STACK = os.environ.get("MOLECULE_HOST", "metricstack-closed")
PEER = f"{STACK}-peer"
PROXY = "10.213.78.21"
SECRET = "looks 'users' up"
EVENT = json.dumps({"what": "a test of logins", "tags": "logins"})


def run(*command, timeout=120):
    return subprocess.run(command, capture_output=True, check=False, timeout=timeout)


def on_peer(*command):
    done = run("docker", "exec", PEER, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def change(ldif):
    """Change the directory."""
    done = subprocess.run(
        ["docker", "exec", "-i", PEER, "ldapmodify", "-Q", "-Y", "EXTERNAL", "-H", "ldapi:///"],
        input=ldif.encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Site:
    """The site as it is seen from the controller, or from the peer."""

    def __init__(self, address, prefix=(), own=()):
        self.url, options = reach(address)
        self.command = (*prefix, "curl", "--silent", "--show-error", "--include", "--max-time", "60", *own, *options)

    def ask(self, path, *options):
        """Return status, headers and body."""
        done = run(*self.command, *options, self.url + path)
        assert done.returncode == 0, done.stderr
        head, _blank, body = done.stdout.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        return int(lines[0].split()[1]), {name.lower(): value for name, _colon, value in (line.partition(": ") for line in lines[1:])}, body

    def login(self, name, password):
        """Fill in the form; return the cookie of the session, or an empty text."""
        fields = [f"username={name}", f"password={password}", "nextPage=/dashboard"]
        options = [option for field in fields for option in ("--data-urlencode", field)]
        status, headers, _body = self.ask("/account/login", *options)
        assert status in (200, 302)
        return headers.get("set-cookie", "").partition(";")[0] if status == 302 else ""

    def post_event(self, *options):
        """Post an event, which needs a login; return the status."""
        return self.ask("/events/", "--data", EVENT, *options)[0]

    def answers_of_all_processes(self, *options, number=16):
        """Post events; return the statuses. One process answers requests one after the other as long as it can, so that these overlap."""
        with ThreadPoolExecutor(8) as pool:
            return set(pool.map(lambda _number: self.post_event(*options), range(number)))


def basic(name, password):
    return ("--user", f"{name}:{password}")


def cookie(value):
    return ("--header", f"Cookie: {value}")


@pytest.fixture
def site(address):
    return Site(address())


@pytest.fixture
def proxy(address):
    return Site(address(), ("docker", "exec", PEER), ("--interface", PROXY))


@contextmanager
def directory_stopped(*signal):
    """Keep the directory away inside of a with statement: stopped, or there and silent."""
    on_peer("systemctl", *(signal or ("stop",)), "slapd")
    try:
        yield
    finally:
        on_peer("systemctl", *(("kill", "--signal", "CONT") if signal else ("start",)), "slapd")


@pytest.fixture
def directory(site, wait_until):
    """Wait until the directory is asked again, after it was away."""
    wait_until(lambda: site.login("ada", "of ada"), timeout=90, message="ada cannot log in")


def test_a_user_of_the_directory_has_the_rights_of_the_groups(site, directory):
    expected = {"ada": (200, 403), "bob": (403, 403), "dora": (200, 200)}
    for name, statuses in expected.items():
        session = cookie(site.login(name, f"of {name}"))
        assert (site.ask("/admin/", *session)[0], site.ask("/admin/auth/user/", *session)[0]) == statuses, name
        assert site.post_event(*session) == 200
    assert b"ada@example.org" in site.ask("/admin/auth/user/?q=ada", *cookie(site.login("dora", "of dora")))[2]


def test_a_program_logs_in_as_a_user_of_the_directory(site, directory):
    assert site.post_event(*basic("bob", "of bob")) == 200
    assert site.post_event(*basic("bob", "of ada")) == 401


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("*", "of bob"),
        ("b*", "of bob"),
        ("bob)(uid=*", "of bob"),
        ("admin)(uid=*", "of another admin"),
        ("*)(objectClass=*", "of bob"),
        ("x)(|(uid=bob)", "of bob"),
        ("bob\\2a", "of bob"),
        (" bob", "of bob"),
        ("bob ", "of bob"),
        ("\uff42\uff4f\uff42", "of bob"),
        ("uid=bob,ou=people,dc=example,dc=org", "of bob"),
        ("bob", ""),
        ("bob", "*"),
        ("carol", "of carol"),
        ("nobody", "of bob"),
    ],
)
def test_nobody_else_logs_in(site, directory, name, password):
    """Among them carol, who is not in the group, and patterns, which graphite-web's own client of LDAP puts into its filter."""
    assert site.login(name, password) == ""
    assert site.post_event(*basic(name, password)) == 401


@pytest.mark.parametrize("name", ["admin", "Admin", "ADMIN"])
def test_a_user_of_graphite_web_is_nobody_of_the_directory(site, directory, name):
    assert site.login(name, "of another admin") == ""
    assert site.post_event(*basic(name, "of another admin")) == 401
    assert site.login("admin", PASSWORD)


@pytest.mark.parametrize("signal", [(), ("kill", "--signal", "STOP")], ids=["stopped", "silent"])
def test_others_do_not_wait_for_a_directory_that_is_away(site, directory, signal):
    with directory_stopped(*signal), ThreadPoolExecutor(12) as pool:
        logins = [pool.submit(site.login, "bob", f"wrong {number}") for number in range(12)]
        began = time.monotonic()
        assert site.login("admin", PASSWORD)
        assert site.post_event(*basic("admin", PASSWORD)) == 200
        assert time.monotonic() - began < 20
        assert {login.result() for login in logins} == {""}
        began = time.monotonic()
        assert site.login("bob", "of bob") == ""
        assert time.monotonic() - began < 10


def test_the_directory_is_not_asked_for_ever_about_wrong_passwords(site, directory):
    """Ten a minute for each of the processes."""
    began = on_peer("date", "+%Y-%m-%d %H:%M:%S").strip()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda number: site.login("dora", f"wrong {number}"), range(40))) == {""}
    log = on_peer("journalctl", "--unit", "slapd", "--since", began, "--output", "cat")
    assert 0 < log.count('BIND dn="uid=dora,ou=people,dc=example,dc=org" method=128') <= 20


def test_who_leaves_the_directory_is_out_after_a_minute(site, directory, wait_until):
    bob = "uid=bob,ou=people,dc=example,dc=org"
    session = cookie(site.login("bob", "of bob"))
    password = basic("bob", "of bob")
    assert (site.post_event(*session), site.post_event(*password)) == (200, 200)
    change(f"dn: cn=graphite,ou=groups,dc=example,dc=org\nchangetype: modify\ndelete: member\nmember: {bob}\n")
    try:
        assert site.login("bob", "of bob") == ""
        # Each process knows for itself.
        wait_until(lambda: site.answers_of_all_processes(*session) == {401}, timeout=90, message="bob is still in")
        wait_until(lambda: site.post_event(*password) == 401, timeout=90, message="the password of bob still counts")
        # After ten passwords in a minute that are not right, a process would not ask about bob any more.
        assert site.answers_of_all_processes(*password, number=4) == {401}
    finally:
        change(f"dn: cn=graphite,ou=groups,dc=example,dc=org\nchangetype: modify\nadd: member\nmember: {bob}\n")
    # A process that has found bob out looks again after five seconds, and goes on with what it knew until the directory has answered.
    time.sleep(6)
    wait_until(lambda: site.answers_of_all_processes(*session) == {200}, timeout=30, message="bob is not in again")


def test_a_user_who_is_no_superuser_saves_a_dashboard(site, directory):
    """As the rules say, which give dashboards to all users."""
    login = site.login("bob", "of bob")
    assert login
    session = cookie(login)
    status, _headers, body = site.ask("/dashboard/save/of-bob", "--data-urlencode", 'state={"name": "of-bob", "graphs": []}', *session)
    assert (status, json.loads(body)) == (200, {"success": True})
    assert json.loads(site.ask("/dashboard/delete/of-bob", *session)[2]) == {"success": True}


def test_the_proxy_says_who_has_logged_in(site, proxy):
    for name in ("frank", "FRANK"):  # who is one user
        status, headers, _body = proxy.ask("/events/", "--data", EVENT, "--header", f"X-Remote-User: {name}")
        assert status == 200
        # Each request has the name, and none leaves a session that would live on without it.
        assert "sessionid" not in headers.get("set-cookie", "")
    dora = cookie(site.login("dora", "of dora"))
    assert site.ask("/admin/auth/user/?q=frank", *dora)[2].lower().count(b">frank<") == 1
    # The other logins stay.
    assert site.post_event(*basic("admin", PASSWORD)) == 200


@pytest.mark.parametrize(
    "header", ["X-Remote-User", "x-remote-user", "X_Remote_User", "X-Remote_User", "X_REMOTE_USER", "Remote-User", "Remote_User"]
)
def test_nobody_else_says_who_has_logged_in(site, header):
    assert site.post_event("--header", f"{header}: admin") == 401
    assert site.post_event("--header", f"{header}: admin", "--header", "X-Forwarded-For: 127.0.0.1") == 401


@pytest.mark.parametrize("headers", [["frank, admin"], ["frank", "admin"], ["a b"], [""], ["<b>"]])
def test_what_is_no_name_is_nobody(proxy, headers):
    assert proxy.post_event(*[option for value in headers for option in ("--header", f"X-Remote-User: {value}")]) == 401


def test_the_password_of_the_directory_is_in_one_file_that_graphite_web_alone_reads(host):
    found = host.run("grep -rlsF %s /etc /opt /root /run /srv /tmp /var", SECRET.replace("'", "\\'")).stdout.splitlines()
    found += host.run("grep -rlsF %s /etc /opt /root /run /srv /tmp /var", SECRET).stdout.splitlines()
    assert found
    for path in found:
        assert path.startswith("/etc/graphite/local_settings.py")
        assert (host.file(path).user, host.file(path).mode) == ("_graphite", 0o400)


DIRECTORY = {
    "ca_certificate": "/etc/ssl/directory.pem",
    "bind_dn": "cn=reader,dc=example,dc=org",
    "bind_password": SECRET,
    "user_base": "ou=people,dc=example,dc=org",
    "user_filter": "(uid=%(user)s)",
    "group_base": "ou=groups,dc=example,dc=org",
    "required_group": "cn=graphite,ou=groups,dc=example,dc=org",
    "staff_group": "",
    "superuser_group": "",
    "start_tls": False,
    "timeout": 3,
}


@pytest.mark.parametrize(
    ("scheme", "changed", "problem"),
    [
        ("ldaps", {}, None),
        ("ldap", {"start_tls": True}, None),
        ("ldaps", {"bind_password": "wrong"}, "refuses bind_dn 'cn=reader,dc=example,dc=org'"),
        ("ldaps", {"ca_certificate": "/etc/ssl/certs/ca-certificates.crt"}, "does not speak TLS as graphite-web needs it"),
        ("ldap", {"start_tls": True, "ca_certificate": "/etc/ssl/certs/ca-certificates.crt"}, "does not speak TLS"),
        ("ldaps", {"ca_certificate": "/etc/ssl/no-such-file"}, "ca_certificate is /etc/ssl/no-such-file, which is not there"),
        ("ldaps", {"user_base": "ou=persons,dc=example,dc=org"}, "user_base is 'ou=persons,dc=example,dc=org'"),
        ("ldaps", {"required_group": "cn=x,ou=groups,dc=example,dc=org"}, "required_group is 'cn=x,"),
        ("ldaps", {"user_filter": "(uid=%(user)s)("}, "user_filter is"),
    ],
)
def test_a_directory_that_would_let_nobody_in_is_found_out_before(run_module, scheme, changed, problem):
    directory = {**DIRECTORY, "uri": f"{scheme}://{on_peer('hostname', '-I').split()[0]}", **changed}
    result = run_module("graphite_settings_info", content="# of a test\n", directory=directory)
    found = [each for each in result["problems"] if each.startswith("graphite_web_auth: ldap")]
    assert len(found) == (problem is not None), result
    assert SECRET not in json.dumps(result)
    if problem:
        assert problem in found[0]


def test_a_directory_that_is_away_is_a_warning(run_ansible):
    arguments = {"content": "# of a test\n", "directory": {**DIRECTORY, "uri": "ldaps://127.0.0.1:6399"}}
    _status, output, errors = run_ansible(
        "ansible", STACK, "-m", "metricstack.graphite.graphite_settings_info", "-a", json.dumps(arguments)
    )
    assert "ldaps://127.0.0.1:6399 cannot be reached" in errors + output
    assert "problems" in output
    assert "does not speak" not in output
