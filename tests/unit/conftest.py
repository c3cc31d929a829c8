# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations

import json
import os
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIMULATED_NODE_23 = "delete require('util').log;"


@pytest.fixture(scope="session")
def run_module():
    """Run a module of the collection on this machine as Ansible does; return its result, with the diff as a user sees it."""

    def run(module: str, /, *flags: str, **arguments: object) -> dict:
        result = subprocess.run(
            ["ansible", "localhost", "--diff", *flags, "-m", f"metricstack.graphite.{module}", "-a", json.dumps(arguments)],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if "password" in arguments:
            assert str(arguments["password"]) not in result.stdout + result.stderr
        diff, _arrow, answer = result.stdout.partition(" => ")
        return {**json.loads(answer), "shown_diff": diff}

    return run


@pytest.fixture
def file_system():
    """Make a directory a file system of its own until the end of the test, with the options of tmpfs; return it."""
    mounted = []

    def mount(directory: Path, options: str) -> Path:
        directory.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
        mounted.append(directory)
        return directory

    yield mount
    for directory in mounted:
        subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture(scope="session")
def statsd_release(tmp_path_factory):
    """Return a directory with what the role statsd installs, built as it builds it."""
    files = ROOT / "roles" / "statsd" / "files"
    directory = tmp_path_factory.mktemp("statsd")
    archive = directory / "statsd.tar.gz"
    subprocess.run(["sh", files / "build.sh", files, archive], check=True, capture_output=True, timeout=120)
    with tarfile.open(archive) as tar:
        tar.extractall(directory)
    return directory


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class StatsD:
    """StatsD as it is published, in real Node.js."""

    def __init__(self, release, directory, server, requires, settings):
        self.port = free_port(socket.SOCK_STREAM if server == "tcp" else socket.SOCK_DGRAM)
        self.management_port = free_port(socket.SOCK_STREAM)
        config = {
            "address": "127.0.0.1",
            "mgmt_address": "127.0.0.1",
            "port": self.port,
            "mgmt_port": self.management_port,
            "servers": [{"server": f"./servers/{server}", "address": "127.0.0.1", "port": self.port}],
            "backends": [],
            "flushInterval": 60000,
            **settings,
        }
        self._management = (config["mgmt_address"], self.management_port)
        (directory / "config.js").write_text(json.dumps(config))
        self.log = directory / "log"
        command = ["node", *[f"--require=./{file}" for file in requires], "node_modules/statsd/stats.js", directory / "config.js"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=release, stdout=log, stderr=log)
        for _ in range(100):
            if self.process.poll() is not None or self.ask("health"):
                break
            time.sleep(0.1)

    def ask(self, command):
        """Return the answer of the management interface, or an empty text if nobody answers."""
        try:
            with socket.create_connection(self._management, timeout=5) as management:
                management.sendall(command.encode())
                answer = b""
                while not answer.endswith(b"\n\n") and not (command == "health" and b"\n" in answer):
                    received = management.recv(65536)
                    if not received:
                        break
                    answer += received
                return answer.decode()
        except OSError:
            return ""

    def send(self, *packets):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for packet in packets:
                sender.sendto(packet.encode(), ("127.0.0.1", self.port))

    def counts(self, name, value):
        """Wait until the counter has the value."""
        for _ in range(50):
            if f"{name}: {value}" in self.ask("counters").replace("'", ""):
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.1)
        return False


@pytest.fixture
def statsd(statsd_release, tmp_path):
    """Start a StatsD, with what ``node --require`` loads before it."""
    (statsd_release / "node23.js").write_text(SIMULATED_NODE_23)
    started = []

    def start(server="udp", requires=("preload.js",), **settings):
        started.append(StatsD(statsd_release, tmp_path, server, requires, settings))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
