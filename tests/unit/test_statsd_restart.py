# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What StatsD holds outlives its stop, its restart, and the absence of carbon: real Node.js, whisper's own arithmetic."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import whisper
from conftest import Receiver, free_port

# Longer than any test.
NEVER = 600000
STATISTICS = "stats.statsd.graphiteStats"


@pytest.fixture
def state(tmp_path, monkeypatch):
    """Return the file in which a StatsD leaves to the next what it holds."""
    directory = tmp_path / "state"
    directory.mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(directory))
    return directory / "held.json"


@pytest.fixture
def on_port():
    """Start receivers on the ports of others that have been closed."""
    started = []

    def start(*arguments):
        started.append(Receiver(*arguments))
        return started[-1]

    yield start
    for one in started:
        with suppress(OSError):
            one.close()


@contextmanager
def halted(process):
    """Let the process not run, while what is sent to it waits in the kernel."""
    process.send_signal(signal.SIGSTOP)
    yield
    process.send_signal(signal.SIGCONT)


def times(receiver, name):
    return [int(timestamp) for series, _value, timestamp in receiver.sent if series == name]


def graphite(one):
    """Return what the management interface says of the backend for Graphite."""
    return {name: int(value) for name, value in re.findall(r"^graphite\.(\w+): (-?\d+)$", one.ask("stats"), re.MULTILINE)}


def wait_until(condition, timeout=20):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Stored:
    """What whisper keeps of a series, with one point for each flush interval; each point is written as carbon writes it."""

    def __init__(self, directory, receiver, name, seconds):
        self.points = [(int(timestamp), float(value)) for series, value, timestamp in receiver.sent if series == name]
        path = str(directory / f"{name}.wsp")
        if os.path.exists(path):
            os.unlink(path)
        whisper.create(path, [(seconds, 1000)])
        for point in self.points:
            whisper.update_many(path, [point])
        begin = min(timestamp for timestamp, _value in self.points) - seconds
        (_start, _end, _step), values = whisper.fetch(path, begin, begin + 900 * seconds, now=begin + 901 * seconds)
        self.values = [value for value in values if value is not None]


MIXED = ["m:1|c", "m:2|c|@0.5", "m:10|ms", "m:30|ms|@0.5", "m:7|g", "m:a|s", "m:b|s"]
MIXED_SERIES = {
    "stats.counters.m.count": 5,
    "stats.counters.m.rate": 5 / (NEVER / 1000),
    "stats.timers.m.count": 3,
    "stats.timers.m.upper": 30,
    "stats.gauges.m": 7,
    "stats.sets.m.count": 2,
}


@pytest.mark.parametrize("server", ["udp", "tcp"])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_what_is_held_and_what_has_arrived_are_flushed_at_a_stop(statsd, receiver, flushing, server, sign):
    one = statsd(server, **flushing(flushInterval=NEVER, deleteIdleStats=True))
    if server == "udp":
        one.send(*MIXED)
        with halted(one.process):
            one.send(*["burst:1|c"] * 200)
            one.process.send_signal(sign)
    else:
        with socket.create_connection(("127.0.0.1", one.port)) as stream:
            stream.sendall("\n".join([*MIXED, ""]).encode())
            assert one.counts("m", 5)
            with halted(one.process), socket.create_connection(("127.0.0.1", one.port)) as other:
                stream.sendall(b"burst:1|c\n" * 100)
                other.sendall(b"burst:1|c\n" * 100 + b"unfinished:1|c")
                one.process.send_signal(sign)
    assert one.process.wait(timeout=10) == 0
    assert {name: receiver.values(name) for name in MIXED_SERIES} == {name: [value] for name, value in MIXED_SERIES.items()}
    assert receiver.values("stats.counters.burst.count") == [200]
    assert receiver.values("stats.gauges.statsd.timestamp_lag") in ([], [0])


def test_packets_that_are_not_refused_during_the_stop_count(statsd, receiver, flushing):
    one = statsd(**flushing(flushInterval=NEVER))
    taken = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", one.port))
        # Over loopback, the refusal is there when the packet has been sent.
        while not sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            sender.send(b"m:1|c")
            taken += 1
            if taken == 100:
                one.process.send_signal(signal.SIGTERM)
            time.sleep(0.0001)
    assert one.process.wait(timeout=10) == 0
    assert receiver.values("stats.counters.m.count") == [taken - 1]


SECONDS = 4


def test_restarts_neither_lose_nor_repeat_what_is_counted(statsd, receiver, flushing, state, tmp_path):
    """Several within one step of the archive, and across its end."""
    settings = flushing(flushInterval=SECONDS * 1000, deleteIdleStats=True)
    sent = 0
    for away, pause in [(0, SECONDS + 1), *((0, pause) for pause in (0, 0.5, 0, 1.5, 1, 0.2)), (SECONDS + 0.5, SECONDS - 1), (0, 0.5)]:
        time.sleep(away)
        one = statsd(**settings)
        one.send("m:1|c\nm:5|ms\nm:7|ms|@0.5", *["m:1|c"] * 9, f"m:{sent}|s\nm:all|s")
        sent += 10
        time.sleep(pause)
        assert one.stop() == 0
    counts = Stored(tmp_path, receiver, "stats.counters.m.count", SECONDS)
    assert sum(counts.values) == sent
    # Otherwise, the test would not show anything.
    assert len(counts.points) >= 9
    assert 3 <= len(counts.values) < len(counts.points)
    assert sum(Stored(tmp_path, receiver, "stats.counters.m.rate", SECONDS).values) == pytest.approx(sent / SECONDS)
    assert sum(Stored(tmp_path, receiver, "stats.timers.m.count", SECONDS).values) == pytest.approx(sent * 0.3)
    members = Stored(tmp_path, receiver, "stats.sets.m.count", SECONDS).values
    assert sum(members) == sent / 10 + len(members)
    moments = times(receiver, "stats.counters.m.count")
    assert moments == sorted(moments)
    assert len({moment % SECONDS for moment in moments}) == 1


def test_a_statsd_that_comes_back_later_begins_anew(statsd, receiver, flushing, state, tmp_path):
    settings = flushing(flushInterval=1000, deleteIdleStats=True)
    one = statsd(**settings)
    one.send("m:3|c")
    assert one.counts("m", 3)
    assert one.stop() == 0
    assert state.exists()
    time.sleep(1.1)
    two = statsd(**settings)
    two.send("m:4|c")
    receiver.wait_for("stats.counters.m.count", number=3)
    assert not state.exists(), "what has been taken up would be taken up again after a crash"
    assert two.stop() == 0
    assert Stored(tmp_path, receiver, "stats.counters.m.count", 1).values == [3, 4]


def test_with_another_interval_counting_begins_anew(statsd, receiver, flushing, state):
    for seconds in (6, 3):
        one = statsd(**flushing(flushInterval=seconds * 1000, deleteIdleStats=True))
        one.send("m:1|c")
        assert one.counts("m", 1)
        assert one.stop() == 0
    assert set(receiver.values("stats.counters.m.count")) == {1}


def test_backends_that_add_up_what_is_flushed_are_told_nothing_twice(statsd, receiver, flushing, state, tmp_path):
    settings = {**flushing(flushInterval=SECONDS * 1000, deleteIdleStats=True), "backends": ["./backends/console", "./backends/graphite"]}
    for _number in range(4):
        one = statsd(**settings)
        one.send("m:1|c")
        assert one.counts("m", 1)
        assert one.stop() == 0
    # The flush of a stop is sent once more at the start.
    assert set(receiver.values("stats.counters.m.count")) == {1}
    assert Stored(tmp_path, receiver, "stats.counters.m.count", SECONDS).values == [1] * 4


@pytest.mark.parametrize(
    ("deletion", "idle"),
    [
        ({"deleteIdleStats": True}, True),
        ({"deleteIdleStats": True, "gaugesMaxTTL": 60}, False),
        ({"deleteIdleStats": False}, False),
    ],
    ids=["deleted", "deleted later", "sent"],
)
def test_gauges_have_their_values_after_a_restart(statsd, receiver, flushing, state, monkeypatch, deletion, idle):
    monkeypatch.setenv("STATSD_GAUGE_LIFETIME", "60")
    settings = flushing(**deletion)
    one = statsd(**settings)
    one.send("old:-10.5|g", "level:1e21|g\nempty:0|g")
    receiver.wait_for("stats.gauges.old")
    receiver.wait_for("stats.statsd.numStats", number=len(receiver.values("stats.statsd.numStats")) + 2)
    one.send("new:3|g")
    assert one.stop() == 0
    receiver.sent.clear()
    two = statsd(**settings)
    two.send("old:-1|g", "new:+1|g", "level:-1e20|g")
    receiver.wait_for("stats.gauges.old", "stats.gauges.new", "stats.gauges.level")
    receiver.wait_for("stats.statsd.numStats", number=len(receiver.values("stats.statsd.numStats")) + 3)
    assert receiver.values("stats.gauges.old")[-1] == -11.5
    assert receiver.values("stats.gauges.new")[-1] == 4
    assert receiver.values("stats.gauges.level")[-1] == 9e20
    # An idle one is sent where the configuration says so.
    flushed = len(receiver.values("stats.statsd.numStats"))
    assert len(receiver.values("stats.gauges.old")) == (1 if idle else flushed)
    assert receiver.values("stats.gauges.empty") == ([] if idle else [0] * flushed)
    # What was given back is nothing that has been received, apart from the flush of the stop.
    assert sum(receiver.values("stats.counters.statsd.metrics_received.count")) <= 5


def test_a_late_flush_has_the_time_at_which_it_was_due(statsd, receiver, flushing):
    one = statsd(**flushing(flushInterval=3000))
    name = "stats.statsd.numStats"
    receiver.wait_for(name)
    one.send("m:1|c")
    with halted(one.process):
        time.sleep(4.3)
    receiver.wait_for(f"{STATISTICS}.last_flush", number=3)
    begin = times(receiver, name)[0]
    assert times(receiver, name)[1:] in ([begin + 3, begin + 6], [begin + 3, begin + 9])
    assert sum(receiver.values("stats.counters.m.count")) == 1
    # The halt began up to a second after the flush before.
    lags = [(int(when) - begin, float(lag)) for series, lag, when in receiver.sent if series == "stats.gauges.statsd.timestamp_lag"]
    assert lags[0] in [(3, 1), (3, 2)]
    for statistic in ("last_flush", "last_exception", "flush_time", "flush_length"):
        assert times(receiver, f"{STATISTICS}.{statistic}") == times(receiver, name)


@pytest.mark.parametrize("protocol", ["text", "pickle"])
def test_what_carbon_does_not_take_is_sent_when_it_is_back(statsd, receiver, flushing, on_port, protocol):
    receiver.close()
    own = {"graphiteProtocol": protocol, "graphitePicklePort": receiver.port}
    one = statsd(**flushing(deleteIdleStats=True, **own))
    for value in (1, 2, 3):
        before = graphite(one)["unsent_flushes"]
        one.send(f"m:{value}|c")
        wait_until(lambda before=before: graphite(one)["unsent_flushes"] > before)
    statistics = graphite(one)
    assert statistics["last_exception"] < statistics["last_flush"]  # seconds ago
    assert statistics["unsent_bytes"] > 0
    back = on_port(receiver.port, protocol == "pickle")
    wait_until(lambda: graphite(one)["unsent_flushes"] == 0)
    one.send("m:4|c")
    back.wait_for("stats.counters.m.count", number=4)
    assert back.values("stats.counters.m.count") == [1, 2, 3, 4]
    moments = times(back, "stats.statsd.numStats")
    assert moments == sorted(set(moments))
    assert moments[-1] - moments[0] == len(moments) - 1, "a flush is missing"
    assert times(back, f"{STATISTICS}.flush_length")[: len(moments) - 1] == moments[:-1]
    statistics = graphite(one)
    assert statistics["last_flush"] < statistics["last_exception"] < 60
    assert statistics["dropped_flushes"] == 0
    wait_until(lambda: graphite(one)["unsent_bytes"] == 0)
    # The same in the series, where the backend would have each flush for sent.
    exceptions = back.values(f"{STATISTICS}.last_exception")
    assert exceptions[0] == 0 < exceptions[2]
    assert len(set(back.values(f"{STATISTICS}.last_flush")[:3])) == 1
    log = one.log.read_text()
    assert len(re.findall("does not take a flush", log)) == len(re.findall("has taken all flushes", log)) == 1


def test_another_carbon_takes_what_the_first_one_does_not(statsd, receiver, flushing, on_port):
    first = receiver.port
    receiver.close()
    with socket.create_server(("127.0.0.1", 0)) as unused:
        second = unused.getsockname()[1]
    alternatives = [{"host": "127.0.0.1", "port": 1}, {"host": "127.0.0.1", "port": second}]
    other = on_port(second)
    one = statsd(**flushing(deleteIdleStats=True, graphiteAlternatives=alternatives))
    one.send("m:1|c")
    other.wait_for("stats.counters.m.count")
    # It stays with the one that takes flushes, until that one goes.
    back = on_port(first)
    one.send("m:2|c")
    other.wait_for("stats.counters.m.count", number=2)
    assert back.values("stats.counters.m.count") == []
    other.close()
    one.send("m:3|c")
    back.wait_for("stats.counters.m.count")
    assert (other.values("stats.counters.m.count"), back.values("stats.counters.m.count")[-1]) == ([1, 2], 3)
    wait_until(lambda: graphite(one)["unsent_flushes"] == 0)


@contextmanager
def mute(port):
    """A carbon that hangs: the kernel takes connections for it."""
    with socket.create_server(("127.0.0.1", port)):
        yield


@contextmanager
def ending_early(port, end):
    """A carbon that ends the first two connections within their data."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(10)
        yield
        for _number in range(2):
            with server.accept()[0] as stream:
                stream.recv(50)
                end(stream)


def resetting(port):
    """A carbon that breaks each connection within its data."""
    return ending_early(port, lambda stream: stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)))


def hanging_up(port):
    """A carbon that stops: what the kernel has taken for it is lost, and the connection is closed in order."""

    def end(stream):
        time.sleep(0.1)
        stream.shutdown(socket.SHUT_RDWR)

    return ending_early(port, end)


@pytest.mark.parametrize("carbon", [mute, resetting, hanging_up])
def test_a_flush_is_sent_when_carbon_has_read_it(statsd, receiver, flushing, on_port, carbon):
    receiver.close()
    with carbon(receiver.port):
        one = statsd("tcp", **flushing(deleteIdleStats=True, flushInterval=4000 if carbon is hanging_up else 1000))
        with socket.create_connection(("127.0.0.1", one.port)) as stream:
            stream.sendall(b"m:3|c\n" + b"".join(b"%s.%d:1|g\n" % (b"x" * 200, number) for number in range(5000)))
        if carbon is mute:
            wait_until(lambda: graphite(one)["last_exception"] < 60)
    wait_until(lambda: graphite(one)["last_exception"] < 60)
    assert graphite(one)["unsent_flushes"] > 0
    back = on_port(receiver.port)
    back.wait_for("stats.counters.m.count")
    wait_until(lambda: graphite(one)["unsent_flushes"] == 0)
    assert set(back.values("stats.counters.m.count")) == {3}
    moments = sorted(set(times(back, "stats.statsd.numStats")))
    assert {later - earlier for earlier, later in zip(moments, moments[1:])} <= {4 if carbon is hanging_up else 1}, "a flush is missing"
    assert len({name for name, _value, _timestamp in back.sent if "xxx" in name}) == 5000


def test_the_last_flush_is_when_it_was_sent(statsd, receiver, flushing, on_port):
    """And not when carbon has closed the connection, here three seconds later."""
    receiver.close()
    with socket.create_server(("127.0.0.1", receiver.port)) as server:
        one = statsd(**flushing(flushInterval=5000))
        server.settimeout(10)
        sent = []
        for _number in range(2):
            with server.accept()[0] as stream, stream.makefile() as lines:
                sent.append({name: (int(float(value)), int(when)) for name, value, when in map(str.split, lines)})
                time.sleep(3)
        wait_until(lambda: graphite(one)["last_flush"] < 5)
        assert graphite(one)["last_flush"] >= 3
    (_value, first), (last_flush, second) = (flush[f"{STATISTICS}.last_flush"] for flush in sent)
    assert second == first + 5
    assert first <= last_flush <= first + 1


def test_what_waits_for_carbon_has_a_limit_and_what_goes_beyond_is_counted(statsd, receiver, flushing, on_port):
    receiver.close()
    limit = 4000
    one = statsd(**flushing(graphiteMaxUnsentBytes=limit))
    wait_until(lambda: graphite(one)["dropped_flushes"] >= 2)
    statistics = graphite(one)
    assert 0 < statistics["unsent_bytes"] <= limit
    assert statistics["last_dropped"] <= 2
    back = on_port(receiver.port)
    wait_until(lambda: graphite(one)["unsent_flushes"] == 0)
    one.send("m:1|c")
    back.wait_for("stats.counters.m.count")
    moments = times(back, "stats.statsd.numStats")
    assert len(moments) > statistics["unsent_flushes"] - 1
    assert moments[-1] - moments[0] == len(moments) - 1, "not the oldest have been dropped"
    assert one.log.read_text().count("the oldest flushes are dropped") == 1


@pytest.mark.parametrize("protocol", ["text", "pickle"])
def test_what_carbon_has_not_taken_outlives_a_restart(statsd, receiver, flushing, on_port, state, tmp_path, protocol):
    own = {"graphiteProtocol": protocol, "graphitePicklePort": receiver.port}
    receiver.close()
    one = statsd(**flushing(deleteIdleStats=True, **own))
    one.send("m:1|c")
    wait_until(lambda: graphite(one)["unsent_flushes"] == 2)
    one.send("m:2|c")
    began = time.monotonic()
    assert one.stop() == 0
    assert time.monotonic() - began < 3
    two = statsd(**flushing(deleteIdleStats=True, **own))
    two.send("m:4|c")
    back = on_port(receiver.port, protocol == "pickle")
    back.wait_for("stats.statsd.numStats", number=3)
    wait_until(lambda: graphite(two)["unsent_flushes"] == 0)
    assert two.stop() == 0
    assert sum(Stored(tmp_path, back, "stats.counters.m.count", 1).values) == 7
    moments = times(back, "stats.statsd.numStats")
    assert moments == sorted(moments)


def test_the_flush_of_a_stop_is_sent_again_in_case_that_carbon_has_stopped_as_well(statsd, receiver, flushing, state):
    settings = flushing(deleteIdleStats=True)
    one = statsd(**settings)
    one.send("m:1|c")
    assert one.counts("m", 1)
    assert one.stop() == 0
    receiver.wait_for("stats.counters.m.count")
    lost = list(receiver.sent)
    receiver.sent.clear()
    statsd(**settings)
    receiver.wait_for("stats.counters.m.count")
    wait_until(lambda: all(point in receiver.sent for point in lost))


def test_a_carbon_that_hangs_delays_the_stop_for_seconds(statsd, receiver, flushing, state):
    receiver.close()
    with mute(receiver.port):
        one = statsd(**flushing(flushInterval=NEVER))
        one.send("m:3|c")
        assert one.counts("m", 3)
        assert one.stop(timeout=12) == 0
    (kept,) = json.loads(state.read_text())["unsent"]["backends/graphite.js"]
    assert "stats.counters.m.count 3 " in kept


GOOD_STATE = json.dumps(
    {
        "version": 1,
        "timestamp": 1795836555,
        "interval": NEVER,
        "idle_gauges": [["a b", 1.5, 1795836555000]],
        "unsent": {"backends/graphite.js": ["m 1 1"]},
        "counters": {"m": 1, "infinite": None},
        "timers": {"m": [1, 2]},
        "timer_counters": {"m": 2.5},
        "sets": {"m": ["__proto__"]},
        "gauges": {"__proto": -1},
    }
)


def broken_states():
    good = json.loads(GOOD_STATE)
    changes = {
        "another version": {"version": 2},
        "no time": {"timestamp": "now"},
        "a property of objects": {"counters": {"constructor": 1}},
        "a line of its own": {"counters": {"m 1 1\nn": 1}},
        "a text": {"counters": {"m": "1"}},
        "a list": {"gauges": [1]},
        "nothing": {"sets": None},
        "a timer of texts": {"timers": {"m": ["1"]}, "timer_counters": {"m": 1}},
        "a timer without its counter": {"timers": {"n": [1]}},
        "members that are no texts": {"sets": {"m": [1]}},
        "an idle gauge without a time": {"idle_gauges": [["m", 1]]},
        "unsent numbers": {"unsent": {"backends/graphite.js": [1]}},
    }
    texts = {name: json.dumps({**good, **change}) for name, change in changes.items()}
    return {
        **texts,
        "empty": "",
        "cut": GOOD_STATE[:-20],
        "null": "null",
        "deep": "[" * 100000,
        "zeros": "\0" * 100,
        "proto": '{"__proto__": 1}',
    }


def test_a_broken_state_does_not_keep_statsd_from_its_work(statsd, receiver, flushing, state):
    state.write_text(broken_states()["cut"])
    one = statsd(**flushing(flushInterval=NEVER, deleteIdleStats=True))
    one.send("m:1|c")
    assert one.counts("m", 1), one.log.read_text()
    assert "cannot be read from" in one.log.read_text()
    assert one.stop() == 0
    assert receiver.values("stats.counters.m.count") == [1]
    assert state.with_suffix(".json.broken").read_text() == broken_states()["cut"]


READ = """
const fs = require('fs');
require('util').log = () => {};
const { readState } = require('./state_file');
const read = [];
for (const [name, text] of JSON.parse(fs.readFileSync(0))) {
  fs.writeFileSync(process.env.STATE_DIRECTORY + '/held.json', text);
  if (readState() !== undefined) read.push(name);
}
console.log(JSON.stringify(read));
"""


def test_whatever_a_state_has_wrong_it_is_not_read(statsd_release, state):
    states = json.dumps([*broken_states().items(), ("good", GOOD_STATE)])
    command = ["node", "--eval", READ]
    read = subprocess.run(command, input=states, cwd=statsd_release, check=True, capture_output=True, text=True).stdout
    assert json.loads(read) == ["good"]


def test_a_stop_right_after_the_first_start_does_not_postpone_the_flush(statsd, receiver, flushing, state):
    """The time of the flush is rounded up, and may then be more than an interval away."""
    time.sleep((0.55 - time.time()) % 1)
    flushed = int(time.time()) + 1 + NEVER // 1000
    state.write_text(json.dumps({**json.loads(GOOD_STATE), "timestamp": flushed, "unsent": {}}))
    one = statsd(**flushing(flushInterval=NEVER, deleteIdleStats=True))
    one.send("m:1|c")
    assert one.counts("m", 1), one.log.read_text()
    assert one.stop() == 0
    assert receiver.values("stats.counters.m.count") == [2]
    assert times(receiver, "stats.counters.m.count") == [flushed]


def make_zeros(path):
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, make_zeros, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_no_state(statsd, receiver, flushing, state, make):
    make(state)
    one = statsd(**flushing(flushInterval=NEVER))
    one.send("m:1|c")
    assert one.counts("m", 1), one.log.read_text()
    assert one.stop() == 0
    assert receiver.values("stats.counters.m.count") == [1]


def test_what_cannot_be_left_behind_is_told(statsd, receiver, flushing, state):
    receiver.close()
    one = statsd(**flushing(flushInterval=NEVER))
    state.with_suffix(".json.new").mkdir()
    assert one.stop() == 0
    assert "1 flushes that carbon has not taken are lost" in one.log.read_text()


BACKEND = """
const events = [];
exports.init = (_startup, _config, emitter) => {
  emitter.on('packet', (packet) => events.push(String(packet)));
  return true;
};
exports.stop = (done) => setTimeout(() => { require('fs').writeFileSync(__filename + '.ended', events.join()); done(); }, 100);
"""


def test_a_backend_with_an_end_of_its_own_is_waited_for(statsd, tmp_path):
    """As that of the repeater over TCP, which has connections on which packets wait."""
    backend = tmp_path / "own.js"
    backend.write_text(BACKEND)
    one = statsd(backends=[str(backend)])
    with halted(one.process):
        one.send("m:1|c")
        one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(timeout=10) == 0
    assert backend.with_name("own.js.ended").read_text() == "m:1|c"


# Becomes a program that has the open files as 3, 4 and so on, as systemd starts it.
LISTEN = """
import fcntl, os, sys
descriptors, *command = sys.argv[1:]
copies = [fcntl.fcntl(int(descriptor), fcntl.F_DUPFD_CLOEXEC, 100) for descriptor in descriptors.split()]
os.closerange(3, 100)
for number, copy in enumerate(copies):
    os.dup2(copy, 3 + number, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(command[0], command)
"""


class Service:
    """What systemd does for a service that has FileDescriptorStoreMax= and NotifyAccess=all: sd_notify(3), sd_listen_fds(3)."""

    def __init__(self, path):
        self.kept = {}
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(path))
        self._path = str(path)
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self):
        while True:
            message, descriptors, _flags, _address = socket.recv_fds(self._notified, 4096, 8)
            fields = dict(line.split("=", 1) for line in message.decode().splitlines())
            if "FDSTORE" in fields:
                assert fields["FDPOLL"] == "0"
                (self.kept[fields["FDNAME"]],) = descriptors
            elif "FDSTOREREMOVE" in fields:
                os.close(self.kept.pop(fields["FDNAME"]))
            else:
                assert fields == {"BARRIER": "1"}
                os.close(descriptors[0])

    def popen(self, command, **options):
        names, descriptors = ":".join(self.kept), list(self.kept.values())
        environment = {**os.environ, "NOTIFY_SOCKET": self._path, "LISTEN_FDNAMES": names, "LISTEN_FDS": str(len(descriptors))}
        listen = [sys.executable, "-c", LISTEN, " ".join(map(str, descriptors))]
        return subprocess.Popen([*listen, *command], env=environment, pass_fds=descriptors, **options)


def is_free(family, kind, *address):
    with socket.socket(family, kind) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        with suppress(OSError):
            one.bind(address)
            return True
    return False


def test_what_arrives_while_statsd_restarts_counts(statsd, receiver, flushing, state, tmp_path, monkeypatch):
    service = Service(tmp_path / "notify")
    udp, tcp = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
    servers = [
        {"server": "./servers/udp", "address": "127.0.0.1", "port": udp},
        {"server": "./servers/udp", "address": "::1", "address_ipv6": True, "port": udp},
        {"server": "./servers/tcp", "address": "127.0.0.1", "port": tcp},
        {"server": "./servers/tcp", "address": "::1", "port": tcp},
    ]
    settings = flushing(flushInterval=NEVER, deleteIdleStats=True)

    def send_udp(address, number):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect((address, udp))
            for _number in range(number):
                sender.send(b"udp:1|c")

    def send(number):
        for address in ("127.0.0.1", "::1"):
            send_udp(address, number)
            with socket.create_connection((address, tcp)) as stream:
                stream.sendall(b"tcp:1|c\n" * number)

    monkeypatch.setenv("STATSD_RECEIVE_BUFFER_BYTES", "50000")
    one = statsd(popen=service.popen, servers=servers, **settings)
    wait_until(lambda: len(service.kept) == 4)
    assert "_handle" not in one.log.read_text()
    for _number in range(2):
        send(10)
        assert one.stop() == 0
        send(100)
        one = statsd(popen=service.popen, servers=servers, **settings)
        assert one.counts("udp", 200), one.log.read_text()
        assert one.counts("tcp", 200)
        assert one.log.read_text().count("UDP receive buffer: 50000 bytes") == 2
    assert one.stop() == 0
    for name in ("udp", "tcp"):
        assert receiver.values(f"stats.counters.{name}.count")[-1] == 440
    # What the configuration does not have any more is given up, before it is in the way.
    others = [{**servers[0], "address": "0.0.0.0"}, servers[2]]
    two = statsd(popen=service.popen, servers=others, **settings)
    send_udp("127.0.0.1", 1)
    assert two.counts("udp", 1), two.log.read_text()
    wait_until(lambda: sorted(service.kept) == [f"tcp 127.0.0.1 {tcp}", f"udp4 0.0.0.0 {udp}"])
    wait_until(lambda: is_free(socket.AF_INET6, socket.SOCK_DGRAM, "::1", udp))
    wait_until(lambda: is_free(socket.AF_INET6, socket.SOCK_STREAM, "::1", tcp))
    assert two.stop() == 0


def test_a_socket_that_is_not_kept_is_told(statsd, tmp_path):
    service = Service(tmp_path / "notify")
    (tmp_path / "notify").unlink()
    one = statsd(popen=service.popen)
    one.send("m:1|c")
    assert one.counts("m", 1)
    wait_until(lambda: "systemd does not keep the socket udp4 127.0.0.1" in one.log.read_text())
    assert one.stop() == 0


def test_the_program_that_has_a_socket_kept_leaves_it_as_statsd_needs_it(tmp_path):
    """Node.js 24.21 makes it blocking for both of them when the program starts."""
    service = Service(tmp_path / "notify")
    program = Path(__file__).resolve().parents[2] / "roles" / "statsd" / "files" / "keep_socket.py"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as shared:
        assert os.get_blocking(shared.fileno())
        command = f"exec {sys.executable} {program} keep name 3<&{shared.fileno()}"
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        subprocess.run(["bash", "-c", command], env=environment, pass_fds=[shared.fileno()], check=True)
        assert list(service.kept) == ["name"]
        assert not os.get_blocking(shared.fileno())


FLUSH = """
const { performance } = require('perf_hooks');
const { Flushes } = require('./flushes');
const [start, steps] = JSON.parse(process.argv[1]);
let [clock, uptime, delay] = [start, 0, NaN];
Date.now = () => clock;
performance.now = () => uptime;
const flushes = new Flushes();
const plan = () => flushes.plan((_flush, left) => { delay = left; }, () => {}, 10000);
flushes.configure(10000, true);
plan();
const flushed = steps.map(([late, set]) => {
  uptime += delay + late;
  clock += delay + late + set;
  const metrics = { counters: {}, timers: {}, timer_counters: {}, sets: {}, gauges: { lag: NaN } };
  flushes.prepare(metrics, { timestamp_lag: 'lag' });
  plan();
  return [flushes.timestamp, metrics.gauges.lag, 'm' in metrics.counters];
});
console.log(JSON.stringify(flushed));
"""
IN_TIME = (0, 0)


@pytest.fixture
def flushed(statsd_release, state):
    """Return the timestamps, in seconds, and the lags of flushes that are late by some milliseconds, while the clock is set by some.

    They are due every ten seconds. ``takes_up`` is whether the first one has what the last StatsD has held.
    """

    def run(start, steps, left=None):
        if left:
            state.write_text(json.dumps({**json.loads(GOOD_STATE), "sets": {}, **left}))
        command = ["node", "--eval", FLUSH, json.dumps([start, steps])]
        printed = subprocess.run(command, cwd=statsd_release, check=True, capture_output=True, text=True).stdout
        flushes = json.loads(printed.splitlines()[-1])
        return {"times": [flush[0] for flush in flushes], "lags": [flush[1] for flush in flushes], "takes_up": flushes[0][2]}

    return run


def test_flushes_are_due_at_equal_distances_however_late_they_are(flushed):
    late = [0, 3400, -1, 4600, 12000, 37000, 0]
    run = flushed(1000000, [(milliseconds, 0) for milliseconds in late])
    assert run["times"] == [1010, 1020, 1030, 1040, 1050, 1070, 1110]
    assert run["lags"] == [0, 3, 0, 5, 12, 37, 0]


@pytest.mark.parametrize(
    ("change", "times"),
    [
        # Points that have been sent are not replaced.
        (-7, [1010, 1020, 1030]),
        (-55, [1010, 1020, 1030]),
        (-3600, [1010, -2580, -2570]),
        (7, [1010, 1020, 1030]),
        (86400, [1010, 87420, 87430]),
        (86404.999, [1010, 87420, 87430]),
    ],
)
def test_a_clock_that_is_set_makes_no_flush_late(flushed, change, times):
    run = flushed(1000000, [IN_TIME, (0, 1000 * change), IN_TIME])
    assert run == {"times": times, "lags": [0, 0, 0], "takes_up": False}


@pytest.mark.parametrize(
    ("start", "left", "times", "takes_up"),
    [
        (1000.2, {"timestamp": 1003}, [1003, 1013], True),
        (993, {"timestamp": 1003}, [1003, 1013], True),
        # The time of the stop's flush has passed.
        (1003, {"timestamp": 1003}, [1013, 1023], False),
        (1012.999, {"timestamp": 1003}, [1013, 1023], False),
        (90000.5, {"timestamp": 1003}, [90003, 90013], False),
        # The clock has been set back meanwhile.
        (992, {"timestamp": 1003}, [1013, 1023], False),
        (500.5, {"timestamp": 1003}, [503, 513], False),
        # Of another interval.
        (1000.2, {"timestamp": 1015, "interval": 20000}, [1020, 1030], False),
        (1000.2, {"timestamp": 1003, "interval": 5000}, [1010, 1020], False),
    ],
)
def test_after_a_restart_flushes_go_on_as_before_and_none_is_replaced(flushed, start, left, times, takes_up):
    run = flushed(int(start * 1000), [IN_TIME, IN_TIME], {"interval": 10000, **left})
    assert run == {"times": times, "lags": [0, 0], "takes_up": takes_up}
