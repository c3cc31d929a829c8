# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""StatsD as it is published, in real Node.js, with the preload that keeps it alive."""

from __future__ import annotations

import re
import socket
import struct
import time

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


# Each with a word of the reason.
BAD_LINES = {
    "m:1|c|@+0.5": "rate",  # the public report statsd#470 has this one and the next three
    "m:1|ms|@ 0.1": "rate",
    "m:1|c|@Infinity": "rate",
    "m:1|g|@ ": "rate",
    "m:1|c|@0": "rate",
    "m:1|c|@0x1": "rate",
    "m:1|c|@1.5": "rate",
    "m:1|c|@1e-300": "rate",
    f"m:1|c|@0.{'0' * 310}1": "rate",
    f"m:1|ms|@0.{'0' * 310}1": "rate",
    "m:1e300|c|@1e-50": "rate",
    "m:1|c|@0,5": "rate",
    "m:1|c|T1656581400": "field",
    "m:1|c|": "field",
    "m": "value",
    "m:|c": "value",
    "m:Infinity|g": "value",
    "m:1e999|c": "value",
    "m:0x10|c": "value",
    "m:1,5|g": "value",
    "m: |c": "value",
    "m:-1|ms": "value",
    "m:|s": "value",
    "m:250|h": "type",
    "m:1": "type",
    "m:1:2:3|ms": "type",
    "http://m:80/m:1|c": "type",
    "m:1|c:2|x": "type",
    "метрика:1|c": "name",
    "größe.m:1|c": "name",
    "m\udcff:1|c": "name",
    "(((:1|c": "name",
    ":1|c": "name",
    "m..m:1|c": "name",
    "m.:1|c": "name",
    f"{'m' * 252}:1|g": "name",
    f"{'m.' * 1800}m:1|c": "name",
    "m:1|c|#env:prod": "tags",
    "m;env=prod:1|c": "tags",
    "m,env=prod:1|c": "tags",
    "m#env=prod:1|c": "tags",
    "m[env=prod]:1|c": "tags",
    "m|#env:1|c": "name",
    "m:http://x|s": "type",
    "_e{1,1}:5|c": "name",
}


def test_lines_that_statsd_cannot_take_are_bad_lines_and_their_neighbours_count(statsd):
    one = statsd()
    for number, line in enumerate(BAD_LINES, 1):
        one.send(f"before:1|c\n{line}\nafter.m:1|c", line)
        assert one.counts("statsd.bad_lines_seen", 2 * number), (line, one.log.read_text())
    assert one.counts("before", len(BAD_LINES))
    assert one.counts("after.m", len(BAD_LINES))
    assert set(one.metrics("counters")) == {
        *(f"statsd.{name}" for name in ("bad_lines_seen", "packets_received", "metrics_received")),
        "before",
        "after.m",
    }
    assert one.metrics("gauges") == one.metrics("timers") == {}


def test_each_reason_is_logged_once(statsd):
    one = statsd()
    for line in BAD_LINES:
        one.send(*[line] * 3)
    assert one.counts("statsd.bad_lines_seen", 3 * len(BAD_LINES))
    logged = re.findall(r"Bad line.*", one.log.read_text())
    assert len(logged) == len(set(logged))
    assert {re.match(r"Bad line, refused_(\w+): ", line).group(1) for line in logged} == set(BAD_LINES.values())


def test_what_differs_from_one_line_to_the_next_makes_no_reasons_of_its_own(statsd):
    """DogStatsD's timestamps and events would soon be the hundred reasons that are logged in a day."""
    one = statsd()
    one.send(*(f"m:1|c|T{number}" for number in range(9)), *(f"_e{{{number},1}}:x|y" for number in range(9)))
    one.send(*(f"_sc|check{number}|0" for number in range(9)), *(f"_sc|check{number}|0|#a:b" for number in range(9)))
    assert one.counts("statsd.bad_lines_seen", 36)
    assert len(re.findall("Bad line", one.log.read_text())) == 3


def test_scientific_notation_is_a_number(statsd):
    one = statsd()
    one.send("small:1|c|@1e-05", "large:2.5E3|c|@5e-1", "gauge:1e3|g", "gauge:-1e2|g")
    assert one.counts("large", 5000)
    assert one.metrics("counters")["small"] == pytest.approx(100000)
    assert one.metrics("gauges") == {"gauge": 900}


def test_what_clients_add_is_understood(statsd):
    """Line ends of Windows, several values in one line, and where a container says that it runs."""
    one = statsd()
    one.send("crlf:1|c\r\ncrlf:2|c\r\n", "packed:1|c:2|c|@0.5:3|c", "origin:1|c|@0.5|c:in-83628|e:it-false", "__proto:1|c")
    assert one.counts("crlf", 3)
    assert one.counts("packed", 8)
    assert one.counts("origin", 2)
    assert one.counts("__proto", 1)
    assert one.counts("statsd.bad_lines_seen", 0)


def after_flushes(receiver, number):
    """Wait until StatsD has flushed so many times more, however slow the machine is. The last series of a flush tells."""
    receiver.wait_for("stats.statsd.numStats", number=len(receiver.values("stats.statsd.numStats")) + number)


def once_idle(receiver, name, number=1):
    """Wait until a metric has been sent so many times, and is not sent any more."""
    receiver.wait_for(name, number=number)
    after_flushes(receiver, 2)


def test_nothing_infinite_reaches_graphite(statsd, receiver, flushing):
    one = statsd(**flushing())
    one.send("sum:1e308|c\nsum:1e308|c\ngood:7|c", "timer:1e200|ms", "level:1e308|g\nlevel:+1e308|g", "plain:5|g")
    one.ask("delcounters statsd.packets_received")
    one.send("good:1|c")
    receiver.wait_for("stats.counters.good.count", "stats.gauges.plain")
    after_flushes(receiver, 3)  # of the flushes that follow, the values must be numbers as well
    for name, value, _timestamp in receiver.sent:
        assert value not in ("NaN", "Infinity", "-Infinity", "undefined"), (name, value)
    assert sum(receiver.values("stats.counters.good.count")) == 8
    assert receiver.values("stats.timers.timer.upper")[0] == 1e200
    assert receiver.values("stats.timers.timer.sum_squares") == []
    assert receiver.values("stats.gauges.level") == []
    assert 1e308 not in receiver.values("stats.counters.sum.count")
    assert 'Not sent: "sum" is Infinity a second' in one.log.read_text()
    assert 'Not sent: "timer.sum_squares" is Infinity' in one.log.read_text()


@pytest.mark.parametrize(
    "line",
    [
        "m:" + "1" * 60000 + "x|c",
        "m:1|c|@" + "1" * 60000 + "x",
        "m:" + "1|c:" * 14000 + "1|c",
        "m:1|c" + "|c:x" * 14000,
        "m" + "#" * 60000 + ":1|c",
        "m" + ",a" * 30000 + ":1|c",
        "m\n" * 30000,
    ],
    ids=["value", "rate", "values", "fields", "tags of Librato", "tags of Telegraf", "lines"],
)
def test_no_packet_keeps_the_process_busy(statsd, line):
    one = statsd()
    one.send("m:1|c")
    assert one.counts("m", 1)
    before = one.processor_seconds()
    one.send(line, "after:1|c")
    assert one.counts("after", 1)
    assert one.processor_seconds() - before < 0.5


def test_counters_that_are_named_like_those_of_statsd_go_when_they_are_idle(statsd, receiver, flushing):
    one = statsd(**flushing(deleteIdleStats=True))
    one.send("h1.packets_received:1|c")
    once_idle(receiver, "stats.counters.h1.packets_received.count")
    assert receiver.values("stats.counters.h1.packets_received.count") == [1]
    assert {"statsd.packets_received", "statsd.bad_lines_seen"} <= set(one.metrics("counters"))


def test_deltas_are_repeated_as_they_were_sent(statsd, receiver, flushing, monkeypatch):
    monkeypatch.setenv("STATSD_GAUGE_LIFETIME", "60")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(10)
        settings = flushing(deleteIdleStats=True, repeater=[{"host": "127.0.0.1", "port": other.getsockname()[1]}])
        one = statsd(**{**settings, "backends": ["./backends/graphite", "./backends/repeater"]})
        one.send("level:5|g")
        assert other.recv(1000) == b"level:5|g"
        once_idle(receiver, "stats.gauges.level")
        one.send("level:-10|g")
        assert other.recv(1000) == b"level:-10|g"
        once_idle(receiver, "stats.gauges.level", number=2)
    assert receiver.values("stats.gauges.level") == [5, -5]


def test_no_sender_fills_the_log(statsd):
    one = statsd()
    one.send(*(f"m:1.{number}.0|c" for number in range(150)), "m:1|nonsense")
    assert one.counts("statsd.bad_lines_seen", 151)
    log = one.log.read_text()
    assert len(re.findall(r"refused_value: \"1\.\d+\.0\" is not a number", log)) == 100
    assert log.count("refused_value: more than 100 reasons") == 1
    assert log.count("refused_type") == 1


TAGGED = {
    "m:1|c|#env:prod,b:x": "m;b=x;env=prod",
    "m:2|c|#b:x,env:prod": "m;b=x;env=prod",
    "m;env=prod:4|c|#b:x|c:in-1": "m;b=x;env=prod",
    "m:8|c|#url:http://x y": "m;url=http--x_y",
    "m:16|c|#": "m",
    "m:32|c|#b:x,env:prod,env:prod": "m;b=x;env=prod",
    "m,env=prod,b=x:64|c": "m;b=x;env=prod",
}
BAD_TAGS = ["prod", "env:", ":prod", "name:x", "env:a,env:b", "größe:1", "env:größe", f"env:{'v' * 192}", f"{'k' * 192}:1"]


def test_tags_have_one_order_and_those_that_graphite_does_not_know_are_bad_lines(statsd, monkeypatch):
    monkeypatch.setenv("STATSD_TAGS", "1")
    one = statsd()
    one.send(*TAGGED, *(f"bad:1|c|#{tag}" for tag in BAD_TAGS), "m;x:1|c", "m;:1|c", f"{'m' * 151}:1|c|#env:x")
    assert one.counts("statsd.bad_lines_seen", len(BAD_TAGS) + 3)
    counted = {name: value for name, value in one.metrics("counters").items() if not name.startswith("statsd.")}
    assert counted == {"m;b=x;env=prod": 103, "m;url=http--x_y": 8, "m": 16}


@pytest.mark.parametrize(
    ("lines", "level"),
    [
        ("level:0|g\nlevel:-10|g", -10),  # how a gauge becomes negative, says StatsD
        ("level:5|g:+1|g", 6),
        ("level:+1|g\nother:+1|g\nlevel:+1|g", 44),
        ("level:+1|g\nlevel:7|g", 7),
    ],
)
def test_lines_of_one_packet_change_an_idle_gauge_one_after_the_other(statsd, receiver, flushing, monkeypatch, lines, level):
    monkeypatch.setenv("STATSD_GAUGE_LIFETIME", "60")
    one = statsd(**flushing(deleteIdleStats=True))
    one.send("level:42|g")
    once_idle(receiver, "stats.gauges.level")
    one.send(lines)
    once_idle(receiver, "stats.gauges.level", number=2)
    assert receiver.values("stats.gauges.level")[1:] == [level]


def test_names_that_are_one_series_are_counted_together(statsd, receiver, flushing):
    one = statsd(**flushing(keyNameSanitize=False))
    one.send("a b:5|c\na_b:3|c\na  b:2|c|@0.5")
    receiver.wait_for("stats.counters.a_b.count", timeout=15)
    assert receiver.values("stats.counters.a_b.count")[0] == 12


@pytest.mark.parametrize("settings", [{"deleteIdleStats": True}, {"deleteIdleStats": False}])
def test_a_gauge_that_the_management_interface_deletes_is_forgotten(statsd, receiver, flushing, monkeypatch, settings):
    monkeypatch.setenv("STATSD_GAUGE_LIFETIME", "60")
    one = statsd(**flushing(keyNameSanitize=False, **settings))
    one.send("open files:10|g", "door.a:10|g", "stays!:10|g")
    once_idle(receiver, "stats.gauges.stays")
    one.ask("delgauges door.*")
    with socket.create_connection(("127.0.0.1", one.management_port)) as management:
        management.sendall(b"delgauges open files")  # "open" and "files", which are none
    one.send("open files:+1|g\ndoor.a:+1|g\nstays!:+1|g")
    deadline = time.monotonic() + 15
    while 11 not in receiver.values("stats.gauges.open_files"):
        assert time.monotonic() < deadline, receiver.sent
        time.sleep(0.1)
    after_flushes(receiver, 1)
    assert [receiver.values(f"stats.gauges.{name}")[-1] for name in ("open_files", "door.a", "stays")] == [11, 1, 11]


@pytest.mark.parametrize(("lifetime", "level"), [("60", [13, -2]), ("1", [3, -15])])
def test_deltas_of_an_idle_gauge_have_their_base_until_its_lifetime_ends(statsd, receiver, flushing, monkeypatch, lifetime, level):
    monkeypatch.setenv("STATSD_GAUGE_LIFETIME", lifetime)
    one = statsd(**flushing(deleteIdleStats=True))

    gauge = "stats.gauges.open_files"
    one.send("open files:10|g")
    for number, deltas in enumerate(("+5|g\nopen files:-2|g", "-15|g"), 1):
        receiver.wait_for(gauge, number=number)
        assert receiver.values(gauge) == [10, *level[: number - 1]]
        after_flushes(receiver, 3)  # in which an idle gauge is not sent
        one.send(f"open files:{deltas}")
    receiver.wait_for(gauge, number=3)
    assert receiver.values(gauge) == [10, *level]


def test_packets_are_repeated_as_they_were_taken(statsd):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(10)
        address = [{"host": "127.0.0.1", "port": other.getsockname()[1]}]
        one = statsd(backends=["./backends/repeater"], repeater=address)
        one.send("good:1|c\ngood:2|c")
        assert other.recv(1000) == b"good:1|c\ngood:2|c"
        one.send("good:3|c\r\nbad:1|c|@0")
        assert other.recv(1000) == b"good:3|c\nrefused:|refused"
        assert one.counts("good", 6)
        two = statsd("tcp", backends=["./backends/repeater"], repeater=address)
        with socket.create_connection(("127.0.0.1", two.port)) as stream:
            stream.sendall("users:größe|s\n".encode())
            assert other.recv(1000).decode() == "users:größe|s\n"


def test_members_of_sets_are_counted(statsd, receiver, flushing):
    one = statsd(**flushing(deleteIdleStats=True))
    one.send("users:__proto__|s\nusers:constructor|s\nusers:a b|s\nusers:a b|s\nusers:1|s")
    receiver.wait_for("stats.sets.users.count")
    assert receiver.values("stats.sets.users.count") == [4]


def hangs_up_on(stream, data, pause):
    """Send data again and again; return whether the other side closes the connection."""
    for _number in range(300):
        try:
            stream.sendall(data)
        except OSError:
            return True
        time.sleep(pause)
    return False


def test_a_stream_without_lines_is_closed_and_counted(statsd):
    one = statsd("tcp")
    with socket.create_connection(("127.0.0.1", one.port)) as stream:
        stream.sendall("größe:1|c\ngood:1|c\n".encode())
        stream.sendall(b"unfinished:1|c")
    assert one.counts("statsd.bad_lines_seen", 2)
    with socket.create_connection(("127.0.0.1", one.port)) as stream:
        stream.sendall(b"sent:1|c\nunfinished:1|c")
        assert one.counts("sent", 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets the connection
    assert one.counts("statsd.bad_lines_seen", 3)
    with socket.create_connection(("127.0.0.1", one.port)) as stream:
        assert hangs_up_on(stream, b"x" * 65536, 0.01)
    assert one.counts("statsd.bad_lines_seen", 4)
    assert one.counts("good", 1)
    assert {name for name in one.metrics("counters") if not name.startswith("statsd.")} == {"good", "sent"}


def test_management_that_nobody_reads_does_not_fill_the_memory(statsd):
    one = statsd()
    for start in range(0, 20000, 500):
        one.send("\n".join(f"gauge.number.{number}:1|g" for number in range(start, start + 500)))
    with socket.create_connection(("127.0.0.1", one.management_port)) as management:
        assert hangs_up_on(management, b"gauges\n", 0.05)
        assert one.ask("health") == "health: up\n"


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
