# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Each role alone does what it is for, does it once, and goes without a trace of itself in the way of the next one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# What a role tells of itself: a program that ends with 0 if the role does what it is for, on the host and in the Python of the host.
ASK = """
import socket, sys, time

def listen(port):
    server = socket.create_server(("127.0.0.1", port))
    server.settimeout(30)
    return server

def say(port, text, kind=socket.SOCK_STREAM):
    client = socket.socket(socket.AF_INET, kind)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    client.sendall(text)
    return client

def hear(server, words):
    peer, _address = server.accept()
    peer.settimeout(30)
    text = b""
    while words not in text:
        text += peer.recv(65536) or sys.exit("ended after " + repr(text))

def get(port, path):
    client = say(port, b"GET " + path + b" HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
    text = b""
    while part := client.recv(65536):
        text += part
    return text

"""
PURPOSE = {
    "memcached": 'sys.exit(not say(11211, b"version\\r\\n").recv(100).startswith(b"VERSION"))',
    "carbon_relay": 'caches = listen(2103); say(2003, b"alone.relayed 7 %d\\n" % time.time()); hear(caches, b"alone.relayed 7")',
    "carbon_cache": """
import pathlib
say(2003, b"alone.stored 7 %d\\n" % time.time()).close()
series = pathlib.Path("/var/lib/graphite/whisper/alone/stored.wsp")
for _ in range(100):
    if series.exists(): sys.exit()
    time.sleep(0.3)
sys.exit("no series")
""",
    "statsd": 'carbon = listen(2003); say(8125, b"alone:7|g", socket.SOCK_DGRAM); hear(carbon, b"stats.gauges.alone 7")',
    "go_runtime_metrics": 'sys.exit(b" 200 " not in get(8000, b"/"))',
    "apache_wsgi": 'sys.exit(b"hello from mod_wsgi" not in get(80, b"/"))',
    # Any server of WSGI applications takes the script that the role writes.
    "graphite_web": """
import io, wsgiref.util
script = {"__file__": "/etc/graphite/graphite.wsgi"}
sys.path.insert(0, "/etc/graphite")
exec(open("/etc/graphite/graphite.wsgi").read(), script)
request = {"PATH_INFO": "/version/", "wsgi.input": io.BytesIO(), "REMOTE_ADDR": "127.0.0.1"}
wsgiref.util.setup_testing_defaults(request)
answers = []
b"".join(script["application"](request, lambda status, headers: answers.append(status)))
sys.exit(answers[0] != "200 OK")
""",
}
VARIABLES = {
    "apache_wsgi": {
        "apache_wsgi_sites": [
            {"name": "hello", "wsgi_script": "/srv/hello.wsgi", "user": "nobody", "group": "nogroup", "home": "/"},
        ],
        # Debian's site answers before those whose names come later.
        "apache_wsgi_disable_default_site": True,
    },
    # The role's default; the inventory of the tests has four.
    "go_runtime_metrics": {"go_runtime_metrics_instances": [{"version": "1.24", "port": 8000}]},
}
HELLO = "application = lambda e, answer: (answer('200 OK', []), [b'hello from mod_wsgi'])[1]"


@pytest.fixture
def run_role(run_ansible):
    """Run the playbook of a role; return what has changed, as a number, and the output."""

    def run(role, *flags, fails=False, **variables):
        variables = json.dumps({**VARIABLES.get(role, {}), **variables})
        status, output, errors = run_ansible("ansible-playbook", ROOT / "examples" / "one_role" / f"{role}.yml", "-e", variables, *flags)
        assert (status != 0) == fails, output + errors
        return int(re.search(r"changed=(\d+)", output)[1]), output + errors

    return run


@pytest.mark.parametrize("role", PURPOSE)
def test_a_role_does_what_it_is_for_once_and_goes(host, run_role, run_python, role):
    if role == "apache_wsgi":
        host.run(f'echo "{HELLO}" > /srv/hello.wsgi')
    assert run_role(role, "--check")[0] > 0
    assert run_role(role)[0] > 0
    changed, output = run_role(role)
    assert changed == 0, output
    run_python(ASK + PURPOSE[role], user="_graphite" if role == "graphite_web" else "root")
    if role == "carbon_relay":
        changed, output = run_role("carbon_cache", fails=True)
        assert changed == 0
        assert re.search(r"has port 2003, but (carbon-c-)?relay, process \d+, unit carbon-relay.service holds", output), output
    assert run_role(role, **{f"{role}_state": "absent"})[0] > 0
    assert host.run("ss -Hltu sport = :2003 or sport = :8125 or sport = :11211 or sport = :80 or sport = :8000").stdout == ""


def test_the_virtual_environment_has_carbon_and_graphite_web(host, run_role):
    assert run_role("graphite_venv")[0] > 0
    changed, output = run_role("graphite_venv")
    assert changed == 0, output
    assert host.run("/opt/graphite/venv/bin/python -c 'import carbon.service, graphite, whisper'").rc == 0
    assert run_role("graphite_venv", graphite_venv_state="absent")[0] > 0
    assert not host.file("/opt/graphite").exists
