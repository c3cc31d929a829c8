# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The front door of the host under test: what goes in as a packet and comes out over HTTP."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import pytest

ROOT = Path(__file__).resolve().parents[3]
UNITS = ("carbon-cache@a", "statsd", "apache2")


@pytest.fixture(scope="session")
def wait_until():
    """Call ``condition`` until it returns something true, and return that; fail after ``timeout`` seconds."""

    def wait(condition, timeout=30, interval=0.5, message="the condition did not come true"):
        deadline = time.monotonic() + timeout
        while True:
            result = condition()
            if result:
                return result
            assert time.monotonic() < deadline, f"{message} within {timeout} s"
            time.sleep(interval)

    return wait


@pytest.fixture
def address(host):
    """The address of the host as others see it."""
    return host.run("hostname -I || ip -4 -o addr show eth0 | sed 's/.*inet //; s#/.*##'").stdout.split()[0]


@pytest.fixture
def http_get(address):
    """Fetch a path of the site from outside of the host; return status, headers and body."""

    def get(path, headers=None, data=None):
        request = urllib.request.Request(f"http://{address}{path}", data=data, headers=headers or {})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    return get


@pytest.fixture
def render(http_get):
    """Return the series that graphite-web gives for a target."""

    def series(target, **parameters):
        query = urlencode({"target": target, "format": "json", "noCache": 1, "from": "-5min", **parameters})
        status, _headers, body = http_get(f"/render?{query}")
        assert status == 200, body
        return json.loads(body)

    return series


@pytest.fixture
def statsd_send(host):
    """Send packets to StatsD from the host itself."""

    def send(*packets):
        program = "import socket,sys; s=socket.socket(2,2); [s.sendto(p.encode(),('127.0.0.1',8125)) for p in sys.argv[1:]]"
        assert host.run(shlex.join(["python3", "-c", program, *packets])).rc == 0

    return send


@pytest.fixture
def playbook():
    """Run a playbook against the host; return its exit status and its output."""

    def run(path, variables=None, check=False):
        command = ["ansible-playbook", "-i", ROOT / "molecule" / "shared" / "inventory", "--diff", ROOT / path]
        command += ["-e", json.dumps(variables or {})] + (["--check"] if check else [])
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout + result.stderr

    return run


@pytest.fixture(autouse=True)
def journals(request, host):
    """Show what the services have to say when a test fails."""
    failed_before = request.session.testsfailed
    yield
    if request.session.testsfailed > failed_before:
        for unit in UNITS:
            print(host.run(f"journalctl --no-pager --lines 30 --unit {unit}").stdout)
