# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A host of somebody else attacks the stack: nothing gets through, nothing ends, and who is asked in still comes in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import time
from collections import Counter
from urllib.parse import urlencode

import pytest
from conftest import PASSWORD, ROOT
from hostile import CASES, EVENT, FORM, NAME, TRAP, TRAP_URL, Case, get, post

STACK = os.environ.get("MOLECULE_HOST", "metricstack-closed")
PEER = f"{STACK}-peer"
ADDRESS = "10.213.78.10"
AUTHORITY = "/etc/test-authority/root.pem"
PROGRAM = (ROOT / "molecule" / "closed" / "files" / "attack.py").read_text()
UNITS = ("apache2", "carbon-relay", "carbon-cache@a", "statsd", "graphite-memcached")
USERS = {"alice": "the password of alice", "admin": PASSWORD}
# What no answer may hold, whatever was asked.
LEAKS = (
    b"Access-Control-Allow",
    b"Traceback (most recent call last)",
    b"dist-packages",
    b"root:x:0:0",
    b"SECRET_KEY",
    b"Django Version",
    b"pbkdf2_sha256",
)
# Tables that change when somebody logs in, or is asked for a login.
LOGIN_TABLES = ("django_session", "auth_user", "account_profile")
DATABASE = """
import hashlib, json, sqlite3, sys
connection = sqlite3.connect("file:/var/lib/graphite/graphite.db?mode=ro", uri=True)
tables = [name for name, in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
content = {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in tables if name not in sys.argv[1:]}
content["users"] = connection.execute("SELECT username, password, is_staff, is_superuser, is_active FROM auth_user").fetchall()
print(json.dumps(content))
"""


# Begins as many requests as it is told, over TLS, and sends as many bytes more of each a second.
SLOW = """
import socket, ssl, sys, time
address, authority, number, rate, begin = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
context.check_hostname = False
held = [context.wrap_socket(socket.create_connection((address, 443)), server_hostname="graphite.test.example") for _ in range(int(number))]
for one in held:
    one.sendall(begin.encode())
print("held", flush=True)
for _ in range(40):
    for one in held:
        try:
            one.sendall(b"a" * int(rate))
        except OSError:
            pass  # the server has enough of it
    time.sleep(1)
"""


def on_stack(*command):
    return subprocess.run(["docker", "exec", STACK, *command], check=True, capture_output=True, text=True).stdout


def attack(cases, secrets=None):
    """Send the requests of cases from the peer; return the answers by name, and who has connected to its trap."""

    def encode(part):
        for name, value in (secrets or {}).items():
            part = part.replace(f"@{name}@".encode(), value.encode())
        return base64.b64encode(part).decode()

    keys = ("name", "port", "tls", "server_name", "pause", "timeout")
    attacks = [{key: getattr(one, key) for key in keys} | {"parts": [encode(part) for part in one.parts]} for one in cases]
    work = {"address": ADDRESS, "authority": AUTHORITY, "trap": TRAP, "attacks": attacks}
    command = ["docker", "exec", "-i", PEER, "python3", "-c", PROGRAM]
    result = json.loads(subprocess.run(command, input=json.dumps(work), check=True, capture_output=True, text=True).stdout)
    for answer in result["answers"].values():
        answer["data"] = base64.b64decode(answer["data"])
    return result["answers"], result["trapped"]


def statuses(data):
    """Return the statuses of the answers on one connection."""
    return [int(found) for found in re.findall(rb"(?:^|\r\n\r\n|\n)HTTP/1\.[01] (\d{3}) ", data)]


def ask(raw):
    """Send one request; return its status and all of its answer."""
    answers, _trapped = attack([Case("one", (raw,))])
    data = answers["one"]["data"]
    return (statuses(data) or [0])[0], data


def log_in(user):
    _status, data = ask(post("/account/login", body=urlencode({"username": user, "password": USERS[user]}).encode()))
    return re.search(rb"sessionid=(\w+)", data)[1].decode()


def processes():
    """Return the main process of each service, how often systemd has started it again, and the processes of graphite-web."""
    names = ("Id", "MainPID", "NRestarts")
    shown = on_stack("systemctl", "show", f"--property={','.join(names)}", *UNITS).split("\n\n")
    workers = on_stack("ps", "-C", "apache2", "-o", "pid=,user=").splitlines()
    return sorted(shown), sorted(line for line in workers if "_graphite" in line)


def content():
    """Return what the database and the whisper files hold."""
    database = json.loads(on_stack("runuser", "-u", "_graphite", "--", "python3", "-c", DATABASE, *LOGIN_TABLES))
    # Carbon makes series about itself whenever it likes.
    files = on_stack(
        "find", "/var/lib/graphite/whisper", "/etc/graphite", "/var/www", "-not", "-path", "*/carbon/*", "-not", "-path", "*/stats*"
    )
    return database, files


def host_token(key):
    now = int(time.time())
    return f"{now}.{hmac.new(key.encode(), f'graphite_access {now}'.encode(), hashlib.sha256).hexdigest()}"


@pytest.fixture(scope="module")
def siege():
    """Attack the stack once with everything; return what was before, what came back, and what was afterwards."""
    alice, admin, ended = log_in("alice"), log_in("admin"), log_in("alice")
    ask(get("/account/logout", f"Cookie: sessionid={ended}"))
    query = urlencode({"action": "save", "graphName": "trap", "url": TRAP_URL})
    assert ask(get(f"/composer/mygraph?{query}", f"Cookie: sessionid={alice}"))[0] == 200
    tagged = post("/tags/tagSeries", f"Cookie: sessionid={alice}", body=b"path=kept;a=b")
    assert ask(tagged)[0] == 200
    secrets = {"alice": alice, "admin": admin, "ended": ended, "host-token-of-another-key": host_token("of somebody else")}
    began = on_stack("date", "+%F %T").strip()
    before = processes(), content()
    answers, trapped = attack(CASES, secrets)
    (ROOT / "artifacts").mkdir(exist_ok=True)
    lines = [f"{name}: {statuses(one['data'])} {one['error']} {one['seconds']:.1f} s\n" for name, one in answers.items()]
    (ROOT / "artifacts" / "hostile.txt").write_text("".join(lines))
    return {"before": before, "after": (processes(), content()), "answers": answers, "trapped": trapped, "began": began}


def test_cases_have_names_of_their_own():
    assert [name for name, count in Counter(one.name for one in CASES).items() if count > 1] == []
    assert len(CASES) >= 60


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_a_hostile_request_does_not_get_through(siege, one):
    answer = siege["answers"][one.name]
    data, found = answer["data"], statuses(answer["data"])
    assert (found or [0])[0] in one.statuses, data[:2000]
    assert len(found) <= one.answers, f"{found}: a request was smuggled"
    assert found or answer["is_closed"] or answer["error"], "the connection stays open, and nobody answers"
    for text in (*LEAKS, *one.without):
        assert text not in data, (text, data[:2000])


def test_nothing_has_ended(siege):
    assert siege["before"][0] == siege["after"][0]
    journal = on_stack("journalctl", "--no-pager", "--since", siege["began"])
    assert not re.search(r"(?i)segfault|core dump|hostile-pickle|main process exited|oom-kill", journal)
    # Apache writes there what becomes of its processes.
    log = on_stack("tail", "--quiet", "--lines=100000", "/var/log/apache2/error.log", "/var/log/apache2/graphite_error.log")
    assert not re.search(r"(?i)segmentation fault|Aborted|Deadlock|exit signal", log)


def test_nothing_has_changed(siege):
    (database, files), (database_now, files_now) = siege["before"][1], siege["after"][1]
    assert {name for name in database if database[name] != database_now[name]} == set()
    assert files == files_now


def test_the_stack_has_asked_nobody(siege):
    assert siege["trapped"] == []
    assert on_stack("find", "/tmp", "/var/tmp", "-name", "*hostile*") == ""


def test_the_page_cannot_be_framed(siege):
    head = siege["answers"]["clickjacking"]["data"].partition(b"\r\n\r\n")[0].lower()
    for line in (
        b"x-frame-options: sameorigin",
        b"frame-ancestors 'self'",
        b"x-content-type-options: nosniff",
        b"strict-transport-security: max-age=31536000",
    ):
        assert line in head


@pytest.mark.usefixtures("siege")
def test_who_is_asked_in_still_comes_in():
    alice = f"Cookie: sessionid={log_in('alice')}"
    assert ask(get("/render?target=carbon.agents.*.cpuUsage&format=json", alice))[1].count(b'"datapoints"') >= 1
    for authorization in ("Bearer of-the-grafana-of-this-scenario", "Basic " + base64.b64encode(b"alice:the password of alice").decode()):
        status, data = ask(get("/metrics/find?query=carbon.*", f"Authorization: {authorization}"))
        assert (status, b"carbon.agents" in data) == (200, True)
    # On the host itself, as the programs of the collection do.
    key = on_stack("cat", "/etc/graphite/secret_key").strip()
    assert ask(get("/metrics/find?query=carbon.*", f"Authorization: Bearer {host_token(key)}"))[0] == 200
    assert ask(get("/render?target=carbon.agents.*.cpuUsage&format=png", alice))[1].partition(b"\r\n\r\n")[2].startswith(b"\x89PNG")
    own = ("Content-Type: application/json", f"Origin: https://{NAME}", "Sec-Fetch-Site: same-origin", alice)
    event = get("/events/", *own, body=EVENT).replace(b"GET", b"POST", 1)
    assert ask(event)[0] == 200


BODY = f"POST /account/login HTTP/1.1\r\nHost: {NAME}\r\n{FORM}\r\nContent-Length: 900000\r\n\r\n"


@pytest.mark.usefixtures("siege")
@pytest.mark.parametrize(("clients", "rate", "begin", "seconds"), [(50, 0, f"GET / HTTP/1.1\r\nHost: {NAME}\r\n", 10), (8, 700, BODY, 25)])
def test_slow_clients_keep_nobody_out(clients, rate, begin, seconds):
    command = ["docker", "exec", "-i", PEER, "python3", "-c", SLOW, ADDRESS, AUTHORITY, str(clients), str(rate), begin]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as slow:
        assert slow.stdout.readline() == "held\n"
        time.sleep(2)
        answers, _trapped = attack([Case("one", (get("/account/login"),), timeout=60)])
        slow.kill()
    assert statuses(answers["one"]["data"]) == [200]
    assert answers["one"]["seconds"] < seconds
