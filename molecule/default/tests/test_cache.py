# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Answers from memcached: given again, never too old, never those of another question, and never missed."""

from __future__ import annotations

import json
import statistics
import time
from urllib.parse import urlencode

import pytest

# The finest step of the scenario's storage rules, in seconds.
STEP = 10
STATISTICS = """
import socket
with socket.create_connection(("127.0.0.1", 11211)) as memcached:
    memcached.sendall(b"stats\\r\\nquit\\r\\n")
    print(memcached.makefile().read())
"""


@pytest.fixture
def hits(run_python):
    """Return how many answers memcached has given since its start, or another of its counters."""

    def count(name="get_hits"):
        lines = [line.split() for line in run_python(STATISTICS).splitlines()]
        return next(int(line[2]) for line in lines if line[1:2] == [name])

    return count


@pytest.fixture
def store(run_python):
    """Send points to carbon."""

    def send(*points):
        text = "".join(f"{name} {value} {when}\n" for name, value, when in points)
        run_python("import socket,sys; c=socket.create_connection(('127.0.0.1',2003)); c.sendall(sys.argv[1].encode()); c.close()", text)

    return send


@pytest.fixture
def ask(http_get):
    """Ask the render API as a browser does; return the body."""

    def body(target, **parameters):
        status, _headers, content = http_get("/render?" + urlencode({"target": target, "format": "json", "from": "-5min", **parameters}))
        assert status == 200, content
        return content.decode()

    return body


def series(*names):
    """Return names of series that no other test and no earlier run has used."""
    stem = f"stats.cache_test.{time.time_ns()}"
    return [f"{stem}.{name}" for name in names]


def test_an_answer_is_given_again(ask, hits):
    before = hits()
    question = {"_": 1, "unique": time.time_ns()}
    assert len({ask("carbon.agents.*.cpuUsage", **question) for _number in range(5)}) == 1
    # At least one of five requests within the same lifetime falls between two others.
    assert hits() - before >= 3


def test_connections_to_memcached_stay(ask, hits):
    counts = []
    for _round in range(2):
        for _number in range(40):
            ask("carbon.agents.*.cpuUsage")
        counts.append(hits("total_connections"))
    # One is the second look at the counters; threads that had no request before have new ones.
    assert counts[1] - counts[0] < 20


def test_a_new_point_is_shown_within_the_step_although_answers_are_kept(ask, store, hits):
    """The same question all the time, as of a dashboard that many people look at."""
    (name,) = series("fresh")
    # The seconds from storing a point to the beginning of a request whose answer does not show it.
    hidden, before = [], hits()
    for value in range(1, 4):
        ask(name)
        store((name, value, int(time.time())))
        stored = began = time.monotonic()
        while f"[{value}.0," not in ask(name):
            hidden.append(began - stored)
            assert hidden[-1] <= STEP + 0.5, f"{name} is not shown {STEP} s after it has been stored"
            time.sleep(0.2)
            began = time.monotonic()
    print(f"hidden for up to {max(hidden):.1f} s")
    assert hits() - before >= len(hidden) / 2 > 10


def test_an_answer_is_not_computed_from_series_that_another_answer_has_kept(ask, store):
    """They would be as old as both lifetimes together."""
    (name,) = series("sum")
    now = int(time.time())
    question = {"from": now - 300, "until": now + 120}
    store((name, 1, now - 60))
    time.sleep(1)
    assert "[1.0," in ask(name, **question)
    store((name, 2, now - 30))
    time.sleep(2)
    assert "2.0" in ask(name, **question, format="raw")


def test_questions_that_differ_by_seconds_or_by_variables_have_answers_of_their_own(ask, store):
    one, two = series("one", "two")
    minute = int(time.time()) // 60 * 60 - 180
    store(*((name, value, minute + 10 * number) for name, value in ((one, 1), (two, 2)) for number in range(6)))
    time.sleep(2)
    spans = [json.loads(ask(one, **{"from": minute - 120, "until": minute + second}))[0]["datapoints"] for second in (15, 55)]
    assert len(spans[1]) == len(spans[0]) + 4
    stem = one.rpartition(".")[0]
    template = [json.loads(ask(f"template({one.replace('.one', '.$which')})", **{"template[which]": which})) for which in ("one", "absent")]
    assert [len(answer) for answer in template] == [1, 0]
    assert template[0][0]["target"].startswith(stem)


def seconds_of(function):
    began = time.monotonic()
    function()
    return time.monotonic() - began


@pytest.mark.parametrize("signal", ["TERM", "STOP"])
def test_without_memcached_each_request_is_answered_in_time(ask, host, playbook, wait_until, hits, signal):
    """TERM: the unit is stopped. STOP: the process accepts connections, and does not answer."""
    unit, target = "graphite-memcached.service", "carbon.agents.*.cpuUsage"
    away, back = (
        ("systemctl stop", "systemctl start") if signal == "TERM" else ("systemctl kill --signal=STOP", "systemctl kill --signal=CONT")
    )
    assert host.run(f"{away} {unit}").rc == 0
    try:
        # By turns, because the machine is busy with other tests.
        pairs = [(seconds_of(lambda: ask(target, noCache=1)), seconds_of(lambda: ask(target))) for _number in range(80)]
        _status, output = playbook("doctor.yml")
    finally:
        assert host.run(f"{back} {unit}").rc == 0
        wait_until(lambda: ":11211 " in host.run("ss -Hltn").stdout)
    for way, seconds in zip(("without asking memcached", f"memcached has got {signal}"), zip(*pairs)):
        print(f"{way}: median {1000 * statistics.median(seconds):.0f} ms, max {1000 * max(seconds):.0f} ms")
    usual, taken = zip(*pairs)
    assert statistics.median(with_memcached - without for without, with_memcached in pairs) < 0.05
    # One of ten requests at most waits, and the machine's own pauses are in both.
    assert statistics.quantiles(taken, n=10)[-1] < statistics.quantiles(usual, n=10)[-1] + 0.3
    assert "WARNING memcached" in output
    # 10 to 20 s later, it is used again.
    before = hits()
    wait_until(lambda: ask(target) and hits() > before, timeout=40)
