# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""StatsD as it is published, in real Node.js, with the preload that keeps it alive."""

from __future__ import annotations

import socket
import struct

import pytest

DEADLY_NAMES = ["constructor", "__proto__", "toString", "hasOwnProperty", "va&lueOf"]


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
    for _number in range(5):
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
