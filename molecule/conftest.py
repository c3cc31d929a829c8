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
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pages
import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
UNITS = ("carbon-cache@a", "carbon-relay", "statsd", "graphite-memcached", "apache2")
# Of the user admin, in the inventory.
PASSWORD = "correct horse 'battery' \"staple\""
VENV = os.environ.get("MOLECULE_INSTALL_METHOD") == "venv"
# Playbooks and modules reach the host as a user over SSH, who becomes root by sudo.
SSH = os.environ.get("MOLECULE_CONNECTION") == "ssh"
# The interpreter that has whisper and graphite-web.
PYTHON = "/opt/graphite/venv/bin/python" if VENV else "/usr/bin/python3"
MODULE_DEFAULTS = {f"metricstack.graphite.graphite_{name}": {"python": PYTHON} for name in ("backup", "dashboard", "migrate", "user")}


def values(series):
    """Return the values of a series of the render API, without the gaps."""
    return [value for value, _time in series["datapoints"] if value is not None]


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


@pytest.fixture(scope="session")
def playwright():
    """Start Playwright, which a process can do only once at a time, for the browsers of all files."""
    with sync_playwright() as started:
        yield started


@pytest.fixture
def address(host):
    """Return the address of the host as others see it; a reboot may change it."""
    return lambda: host.run("hostname -I").stdout.split()[0]


@pytest.fixture
def site_port():
    """Return the port of the site; scenarios that have another one replace this fixture."""
    return 80


@pytest.fixture
def http_get(address, site_port):
    """Ask the site from outside of the host; return status, headers and body. Redirects are not followed."""

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_args):
            return None

    def get(path, headers=None, data=None):
        request = urllib.request.Request(
            f"http://{address()}:{site_port}{path}", data=data, headers={"Host": "localhost", **(headers or {})}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)
        try:
            with opener.open(request, timeout=30) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    return get


@pytest.fixture
def login(http_get):
    """Log a user in as the dashboard's page does; return the cookie of the session, or an empty text."""

    def cookie(name, password):
        data = urlencode({"username": name, "password": password}).encode()
        return http_get("/dashboard/login", data=data)[1].get("Set-Cookie", "").partition(";")[0]

    return cookie


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
def statsd_send(run_python):
    """Send packets to StatsD from the host itself."""

    def send(*packets):
        run_python("import socket,sys; s=socket.socket(2,2); [s.sendto(p.encode(),('127.0.0.1',8125)) for p in sys.argv[1:]]", *packets)

    return send


@pytest.fixture
def counter_comes_back(statsd_send, render, wait_until):
    """Send a counter and wait until graphite-web gives it back; return its series."""

    def proof(name):
        statsd_send(f"{name}:7|c")
        return wait_until(
            lambda: render(f"removeEmptySeries(stats.counters.{name}.count)"), timeout=40, message=f"{name} did not come back"
        )[0]

    return proof


@pytest.fixture
def reboot(host, wait_until):
    """Restart the host, and return once it listens on every port on which it listened before."""

    def listening():
        lines = host.check_output("ss -Hltun").splitlines()
        return {(protocol, local.rpartition(":")[2]) for protocol, _state, _received, _sent, local, *_peer in map(str.split, lines)}

    def run():
        before = listening()
        subprocess.run(["docker", "restart", "--timeout", "60", host.backend.get_hostname()], check=True, capture_output=True)
        wait_until(lambda: host.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"), timeout=60)
        wait_until(lambda: before <= listening(), message=f"not all of {before} are open")

    return run


@pytest.fixture
def whisper_info(host):
    """Return what whisper's own program says of a series."""
    program = "/opt/graphite/venv/bin/whisper-info.py" if VENV else "whisper-info"
    return lambda metric: host.run(f"{program} /var/lib/graphite/whisper/{metric.replace('.', '/')}.wsp").stdout


@pytest.fixture
def run_python(host):
    """Run a program on the host, as root or as another user; return what it prints."""

    def run(program, *arguments, user="root"):
        result = host.run(shlex.join(["runuser", "-u", user, "--", PYTHON, "-c", program, *arguments]))
        assert result.rc == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture
def unit_stopped(host, wait_until):
    """Keep a unit stopped inside of a with statement, and wait for its port afterwards."""

    @contextmanager
    def stopped(unit, port):
        try:
            assert host.run("systemctl stop %s", unit).rc == 0
            yield
        finally:
            assert host.run("systemctl start %s", unit).rc == 0
            wait_until(lambda: f":{port} " in host.run("ss -Hltn").stdout)

    return stopped


@pytest.fixture
def carbon_stopped(unit_stopped):
    """Keep carbon stopped inside of a with statement."""
    return partial(unit_stopped, "carbon-cache@a", 2103)


@pytest.fixture
def relay_stopped(unit_stopped):
    """Keep the relay stopped inside of a with statement, so that nobody takes what StatsD sends."""
    return partial(unit_stopped, "carbon-relay", 2003)


@pytest.fixture(scope="session")
def inventories():
    """Return the options of Ansible that name the scenario's inventory."""
    # A scenario's own comes last, so that its variables win.
    candidates = [ROOT / "molecule" / "shared" / "inventory", Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory"]
    if SSH:
        candidates.insert(1, ROOT / "molecule" / "shared" / "ssh")
    return [f"--inventory={path}" for path in candidates if path.is_dir()]


@pytest.fixture(scope="session")
def environment():
    """Return the environment in which Ansible finds the collection."""
    return {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "0",
    }


@pytest.fixture(scope="session")
def run_ansible(inventories, environment):
    """Run a command of Ansible with the scenario's inventory; return its exit status, its output and its errors."""

    def run(command, *arguments, **variables):
        command = [command, *inventories, "--diff", *arguments]
        result = subprocess.run(command, cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout, result.stderr

    return run


@pytest.fixture
def documented(host, inventories, environment, tmp_path):
    """Do what a block of a page says, as a reader does; return what its commands print.

    Some texts of a page are others in a test, such as the names of hosts: the host is a container, its inventory that of the scenario.
    ``instead`` has those of one page; each has to be there. ``variables`` are those that the reader's inventory or vault has. ``fails``
    says that the last command has to fail. The files of the page are in the directory in which the commands are run.
    """
    desk = tmp_path / "desk"

    def run(page, name, instead=None, variables=None, fails=False):
        container = host.backend.get_hostname()
        text = pages.block(page, name).text
        more = ["--extra-vars", json.dumps(variables)] if variables else []
        given = shlex.join([*inventories, *more])
        texts = {
            **(instead or {}),
            "-i metrics.example.org, -u ubuntu": given,
            "-i hosts.yml": given,
            "metrics.example.org": container,
        }
        everything = "".join(block.text for block in pages.blocks(page))
        assert [old for old in instead or {} if old not in everything] == []

        def in_a_test(text):
            for old, new in texts.items():
                text = text.replace(old, new)
            return text

        desk.mkdir(exist_ok=True)
        for block in pages.blocks(page):
            if "." in block.name:
                (desk / block.name).write_text(in_a_test(block.text))
        found = [pages.Command(command.host, in_a_test(command.text)) for command in pages.commands(text)]
        assert found, f"{name} of {page} has no command"
        printed = []
        for number, command in enumerate(found, 1):
            if command.host:
                result = host.run("bash -euo pipefail -c %s", command.text)
                status, output = result.rc, result.stdout + result.stderr
            else:
                shell = ["bash", "-euo", "pipefail", "-c", command.text]
                process = subprocess.run(shell, cwd=desk, env=environment, capture_output=True, text=True, check=False)
                status, output = process.returncode, process.stdout + process.stderr
            assert (status != 0) == (fails and number == len(found)), f"{command.text}\n{output[-8000:]}"
            printed.append(output)
        return "".join(printed)

    return run


@pytest.fixture
def playbook(run_ansible):
    """Run a playbook against the host; return its exit status and its output."""

    def run(playbook, variables=None, check=False):
        options = ["-e", json.dumps(variables or {})] + (["--check"] if check else [])
        status, output, errors = run_ansible("ansible-playbook", ROOT / "playbooks" / playbook, *options)
        return status, output + errors

    return run


@pytest.fixture
def old_points(host):
    """Return the points that prepare.yml has found in a file of an installation of somebody else, by time."""
    lines = [line.split() for line in host.file("/root/points").content_string.splitlines()]
    return {int(time): float(value) for time, value in lines if value != "None"}


@pytest.fixture
def run_module(run_ansible):
    """Run a module of the collection on the host; return its result."""

    def run(module, *flags, **arguments):
        options = [*flags, "--become", "-m", f"metricstack.graphite.{module}", *(["-a", json.dumps(arguments)] if arguments else [])]
        # Another host of the scenario is somebody else.
        options.insert(0, os.environ.get("MOLECULE_HOST", "all"))
        _status, output, errors = run_ansible("ansible", *options, ANSIBLE_CALLBACK_RESULT_FORMAT="json")
        _diff, arrow, answer = output.partition(" => ")
        assert arrow, errors
        return json.loads(answer)

    return run


@pytest.fixture(autouse=True)
def journals(request, host):
    """Show what the services have to say when a test fails."""
    failed_before = request.session.testsfailed
    yield
    if request.session.testsfailed > failed_before:
        for unit in UNITS:
            print(host.run(f"journalctl --no-pager --lines 10 --unit {unit}").stdout)
