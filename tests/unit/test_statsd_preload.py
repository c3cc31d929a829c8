# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""StatsD as it is published, in real Node.js, with the preload that keeps it alive."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import time

import pytest

DEADLY_NAMES = ["constructor", "__proto__", "toString", "hasOwnProperty", "va&lueOf"]
SIMULATED_NODE_23 = "delete require('util').log;"


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class StatsD:
    def __init__(self, release, directory, server, requires):
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
        }
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
            with socket.create_connection(("127.0.0.1", self.management_port), timeout=5) as management:
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
    (statsd_release / "node23.js").write_text(SIMULATED_NODE_23)
    started = []

    def start(server="udp", requires=("preload.js",)):
        started.append(StatsD(statsd_release, tmp_path, server, requires))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.mark.parametrize("name", DEADLY_NAMES)
@pytest.mark.parametrize("kind", ["c", "g", "ms", "s"])
def test_no_name_ends_the_process(statsd, name, kind):
    one = statsd()
    one.send(f"{name}:1|{kind}", f"before:1|c\n{name}:2|{kind}\nafter:1|c", f"{name}:1|{kind}|#tag:x", name)
    assert one.counts("after", 1), one.log.read_text()
    assert one.counts("before", 1)
    assert "refused_name" in one.log.read_text()


def test_good_packets_pass_as_they_are(statsd):
    one = statsd()
    one.send("a.b-c:2|c|@0.5", "x y/z:3|c\nq:1|ms\n", "construct:1|c")
    assert one.counts("a.b-c", 4)
    assert one.counts("x_y-z", 3)
    assert one.counts("construct", 1)
    assert "Bad line" not in one.log.read_text()


def test_a_reset_connection_does_not_end_the_process(statsd):
    one = statsd("tcp")
    for _ in range(5):
        stream = socket.create_connection(("127.0.0.1", one.port))
        stream.sendall(b"tcp.before:1|c\n" * 2000)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()
    with socket.create_connection(("127.0.0.1", one.port)) as stream:
        stream.sendall(b"tcp.after:1|c\n")
        assert one.counts("tcp.after", 1), one.log.read_text()


def test_a_node_without_util_log_works(statsd):
    one = statsd(requires=("node23.js", "preload.js"))
    one.send("alive:1|c")
    assert one.counts("alive", 1), one.log.read_text()


@pytest.mark.parametrize(("requires", "packet"), [((), "constructor:1|ms"), (("node23.js",), "nonsense")], ids=["name", "node 23"])
def test_without_the_preload_it_ends(statsd, requires, packet):
    one = statsd(requires=requires)
    one.send(packet)
    assert one.process.wait(timeout=10) != 0
