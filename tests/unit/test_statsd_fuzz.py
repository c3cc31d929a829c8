# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""StatsD under noise, in real Node.js: it stays, valid lines between the noise count exactly, and mean what its documentation says.

``STATSD_FUZZ_SECONDS`` says how long the noise lasts (default: 10), ``STATSD_FUZZ_SEED`` where it begins (default: the time).
"""

from __future__ import annotations

import math
import os
import random
import socket
import statistics
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("STATSD_FUZZ_SECONDS", "10"))
SEED = int(os.environ.get("STATSD_FUZZ_SEED", time.time_ns()))
# In milliseconds. A flush resets the counts.
AFTER_THE_NOISE = int(SECONDS + 300) * 1000
# A batch fits into the receive buffer, or the queue of connections; the next one waits until StatsD has taken it.
BATCH = 100
RECEIVE_QUEUES = Path("/proc/net/udp")
NAMES = ["a", "a.b", "größe", "constructor", "__proto__", "a b/c", "a..b", ".", "", "a;t=v", "a;t", "x" * 300, "-", "%d"]
VALUES = ["1", "-1", "+1", "0.5", "1e5", "1e999", "Infinity", "NaN", "", " ", "0x1", "1,5", "--1", "1" * 400, "__proto__", "null"]
TYPES = ["c", "g", "ms", "s", "h", "m", "", " ", "C", "c ", "constructor", "\r"]
FIELDS = ["", "|@0.1", "|@1e-05", "|@0", "|@+0.5", "|@ 0.1", "|@Infinity", "|@ ", "|@", "|@@", "|#a:b", "|#", "|c:x", "|T1", "||", "|@.|#;"]
SEPARATORS = ["\n", "\n", "\n", "\r\n", "\n\n", "\0", ":"]
COMMANDS = ["stats", "counters", "delcounters", "delgauges", "deltimers", "health", "config", "up", "*", ".*", "constructor", "a"]


def line_of(chance):
    """Return a line of the grammar, each part of which may be wrong."""
    values = [chance.choice(VALUES) + "|" + chance.choice(TYPES) + chance.choice(FIELDS) for _number in range(chance.choice([1, 1, 1, 2]))]
    return ":".join([chance.choice(NAMES), *values]).encode()


def mutated(line, chance):
    """Return the line with some bytes changed, left out or repeated."""
    line = bytearray(line)
    for _number in range(chance.randrange(4)):
        place = chance.randrange(len(line) + 1)
        line[place : place + chance.randrange(3)] = chance.choice([b"", chance.randbytes(1), b":", b"|", b"@", b"#", b"\xff", line[place:]])
    return bytes(line)


def noise(chance):
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(200))
    return b"".join(mutated(line_of(chance), chance) + chance.choice(SEPARATORS).encode() for _number in range(chance.randrange(1, 8)))


def has_read_all(port, timeout):
    """Wait until no packet is left in the queue of a UDP port of 127.0.0.1, or nobody listens there (proc_net_udp(5))."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        lines = [line.split() for line in RECEIVE_QUEUES.read_text().splitlines()]
        if all(line[1] != f"0100007F:{port:04X}" or line[4].endswith(":00000000") for line in lines):
            return True
        time.sleep(0.001)
    return False


def test_no_bytes_end_the_process_and_valid_lines_count_exactly(statsd):
    one, chance = statsd(flushInterval=AFTER_THE_NOISE), random.Random(SEED)
    sent = valid = 0
    began = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", one.port))
        while time.monotonic() < began + SECONDS and one.process.poll() is None:
            packets = []
            for _number in range(BATCH):
                packet = noise(chance)
                if chance.random() < 0.5:
                    packet = b"fuzz.valid:1|c\n" + packet + b"\nfuzz.valid:1|c|@0.5"
                    valid += 3
                packets.append(packet)
            assert has_read_all(one.port, timeout=30), f"seed {SEED}, after {sent} packets: {one.log.read_text()[-2000:]}"
            with suppress(ConnectionRefusedError):  # it has just ended
                for packet in packets:
                    sender.send(packet)
            sent += BATCH
    assert one.counts("statsd.packets_received", sent, timeout=60), f"seed {SEED}, after {sent} packets: {one.log.read_text()[-2000:]}"
    assert one.process.poll() is None
    assert one.metrics("counters")["fuzz.valid"] == valid, f"seed {SEED}"
    for kind in ("counters", "gauges", "timers"):
        for name, value in one.metrics(kind).items():
            values = value["values"] if kind == "timers" else [value]
            assert all(item is not None and math.isfinite(item) for item in values), f"seed {SEED}: {name} is {value}"
    print(f"{sent} packets in {time.monotonic() - began:.0f} s, {valid} values in valid lines, each counted")


def test_no_bytes_on_a_stream_or_to_the_management_end_the_process(statsd):
    one, chance = statsd("tcp", flushInterval=AFTER_THE_NOISE), random.Random(SEED)
    deadline = time.monotonic() + min(SECONDS, 60)
    valid = 0
    while time.monotonic() < deadline:
        for _connection in range(BATCH):
            with socket.create_connection(("127.0.0.1", one.port)) as stream:
                for _number in range(chance.randrange(20)):
                    stream.sendall(noise(chance) + b"\nfuzz.valid:1|c\n")
                    valid += 1
            with socket.create_connection(("127.0.0.1", one.management_port)) as management:
                management.sendall(chance.choice([" ".join(chance.choices(COMMANDS, k=3)).encode(), chance.randbytes(50), b"quit"]))
        assert one.process.poll() is None, f"seed {SEED}: {one.log.read_text()[-2000:]}"
        assert one.counts("fuzz.valid", valid, timeout=30), f"seed {SEED}, after {valid} valid lines"


class Model:
    """What the documentation of StatsD 0.9.0 says that lines come to (docs/metric_types.md)."""

    def __init__(self):
        self.counters, self.gauges = defaultdict(float), {}
        self.timers, self.timer_counts, self.sets = defaultdict(list), defaultdict(float), defaultdict(set)

    def take(self, name, value, kind, rate=1.0):
        if kind == "c":
            self.counters[name] += float(value) / rate
        elif kind == "ms":
            self.timers[name].append(float(value))
            self.timer_counts[name] += 1 / rate
        elif kind == "s":
            self.sets[name].add(value)
        else:
            self.gauges[name] = float(value) + (self.gauges.get(name, 0) if value[0] in "+-" else 0)

    def series(self, seconds, percent):
        """Return the series of a flush, with their values."""
        series = {f"stats.gauges.{name}": value for name, value in self.gauges.items()}
        for name, count in self.counters.items():
            series.update({f"stats.counters.{name}.count": count, f"stats.counters.{name}.rate": count / seconds})
        series.update({f"stats.sets.{name}.count": len(members) for name, members in self.sets.items()})
        for name, values in self.timers.items():
            values.sort()
            within = values[: math.floor(percent / 100 * len(values) + 0.5)] if len(values) > 1 else values
            count = self.timer_counts[name]
            parts = {"count": count, "count_ps": count / seconds, "lower": values[0], "upper": values[-1], "sum": sum(values)}
            parts.update(mean=statistics.fmean(values), median=statistics.median(values), std=statistics.pstdev(values))
            parts["sum_squares"] = sum(value * value for value in values)
            if within:
                parts.update({f"count_{percent}": len(within), f"upper_{percent}": within[-1], f"sum_{percent}": sum(within)})
                parts[f"mean_{percent}"] = statistics.fmean(within)
                parts[f"sum_squares_{percent}"] = sum(value * value for value in within)
            series.update({f"stats.timers.{name}.{part}": value for part, value in parts.items()})
        return series


def test_ten_thousand_lines_mean_what_the_documentation_says(statsd, receiver, flushing):
    chance, model, lines = random.Random(SEED), Model(), []
    for _number in range(10000):
        name = ".".join(chance.choices(["shop", "Pay-1", "a_b", "0", "x"], k=chance.randrange(1, 4)))
        kind = chance.choice(["c", "g", "ms", "s"])
        number = chance.choice([str(chance.randrange(1000)), f"{chance.uniform(0, 99):.3f}", f"{chance.uniform(0, 9):e}"])
        sign = chance.choice(["", "", "+", "-"]) if kind in "cg" else ""
        rate = chance.choice([None, None, "0.1", "0.50", "1", "2.5e-01"]) if kind in ("c", "ms") else None
        lines.append(f"{kind}.{name}:{sign}{number}|{kind}" + (f"|@{rate}" if rate else ""))
        model.take(f"{kind}.{name}", sign + number, kind, float(rate or 1))
    one = statsd("tcp", **flushing(flushInterval=6000))
    # A flush, before the next of which there is time.
    receiver.wait_for("stats.counters.statsd.packets_received.count", timeout=30)
    receiver.sent.clear()
    with socket.create_connection(("127.0.0.1", one.port)) as stream:
        stream.sendall("".join(f"{line}\n" for line in lines).encode())
    expected = model.series(6, 90)
    receiver.wait_for(*expected, timeout=30)
    found = {name: receiver.values(name)[0] for name in {name for name, *_rest in receiver.sent}}
    assert {name: found[name] for name in expected} == {name: pytest.approx(value, rel=1e-6, abs=1e-6) for name, value in expected.items()}
    own = ("stats.counters.statsd.", "stats.gauges.statsd.", "stats.statsd.")
    assert {name for name in found if not name.startswith(own)} == set(expected)
