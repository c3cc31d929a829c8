# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What StatsD has counted outlives its restart, its stop, and the absence of carbon."""

from __future__ import annotations

import pytest
from conftest import PYTHON, values

# Sends a counter a thousand times a second, and prints how many packets were sent. Over loopback, a packet for which there is no socket is
# refused at once, or else before the next one, which ends the program.
LOAD = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.connect(("127.0.0.1", 8125))
    sent = 0
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        sender.send(b"%s:1|c" % sys.argv[1].encode())
        sent += 1
        time.sleep(0.001)
print(sent)
"""


@pytest.fixture
def count(render):
    """Return the points of a counter's series that are not empty."""
    return lambda name: [value for series in render(f"stats.counters.{name}.count") for value in values(series) if value]


@pytest.fixture
def start_statsd(host, wait_until):
    """Start StatsD, or restart it, and return when it listens."""

    def start(command="start"):
        assert host.run(f"systemctl {command} statsd").rc == 0
        wait_until(lambda: host.run("ss -Hlun sport = :8125").stdout)

    return start


def test_five_restarts_under_load_lose_and_repeat_nothing(host, start_statsd, count, counter_comes_back):
    name = f"restart.load_{host.check_output('date +%s')}"
    unit, output = "restart-load", "/run/restart-load.out"
    load = host.run("systemd-run --unit %s --property StandardOutput=file:%s %s -c %s %s 20", unit, output, PYTHON, LOAD, name)
    assert load.rc == 0, load.stderr
    for pause in (1.1, 2.7, 0.1, 3.3, 4.9):
        assert host.run(f"sleep {pause}; systemctl restart statsd").rc == 0
    host.run(f"while systemctl is-active {unit}; do sleep 0.2; done")
    sent = int(host.file(output).content_string)
    host.run(f"rm {output}")
    # The points of a flush are there together.
    counter_comes_back(f"{name}_after")
    assert sent > 1000
    assert sum(count(name)) == sent
    # Without a restart, the socket is closed.
    assert host.run("systemctl stop statsd && ss -Hlun sport = :8125").stdout == ""
    start_statsd()


def test_what_statsd_holds_when_it_is_stopped_is_shown(host, statsd_send, start_statsd, count, counter_comes_back, wait_until):
    name = f"stop.held_{host.check_output('date +%s')}"
    statsd_send(f"{name}:3|c", f"{name}:4|c")
    assert host.run("systemctl stop statsd").rc == 0
    wait_until(lambda: count(name) == [7], message="what StatsD has held is not shown")
    host.run("sleep 10")
    start_statsd()
    counter_comes_back(f"{name}_after")
    assert count(name) == [7]


def test_flushes_that_nobody_takes_are_sent_later(host, statsd_send, start_statsd, count, relay_stopped, counter_comes_back):
    name = f"away.counted_{host.check_output('date +%s')}"
    with relay_stopped():
        for value in (1, 2, 3):
            statsd_send(f"{name}:{value}|c")
            host.run("sleep 10")
        start_statsd("restart")
        statsd_send(f"{name}:4|c")
        log = host.run("journalctl --unit statsd --since -1min --grep 'does not take a flush'").stdout
    counter_comes_back(f"{name}_after")
    assert count(name) == [1, 2, 3, 4]
    # Once for each process.
    assert log.count("does not take") in (1, 2), log
