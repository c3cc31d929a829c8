# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""statsd_probe and statsd_send against a real StatsD."""

from __future__ import annotations

import socket


def test_a_statsd_that_counts_is_found_to_work_and_keeps_nothing(statsd, run_module):
    server = statsd()
    assert run_module("statsd_probe", port=server.management_port, udp_port=server.port, name="probe")["attempts"] == 1
    assert "probe" not in server.ask("counters")


def test_a_statsd_that_flushes_all_the_time_is_found_to_work(statsd, run_module):
    server = statsd(flushInterval=100, deleteIdleStats=True)
    assert run_module("statsd_probe", port=server.management_port, udp_port=server.port, name="probe")["attempts"] >= 1


def test_a_statsd_that_listens_elsewhere_is_named(statsd, run_module):
    server = statsd()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        port = stranger.getsockname()[1]
        refused = run_module("statsd_probe", port=server.management_port, udp_port=port, name="probe")
    assert f"UDP port {port}" in refused["msg"]
    assert "statsd_port" in refused["msg"]


def test_check_mode_sends_nothing(statsd, run_module):
    server = statsd()
    assert run_module("statsd_probe", "--check", port=server.management_port, udp_port=server.port)["attempts"] == 0
    run_module("statsd_send", "--check", port=server.port, lines=["shop.requests:1|c"])
    assert "messages" in server.ask("stats")
    assert "shop.requests" not in server.ask("counters")


def test_lines_arrive_in_one_datagram(statsd, run_module):
    server = statsd()
    assert run_module("statsd_send", port=server.port, lines=["shop.requests:2|c", "shop.requests:3|c", "shop.workers:8|g"])["changed"]
    assert server.counts("shop.requests", 5)
    assert "'shop.workers': 8" in server.ask("gauges")
    assert "'statsd.packets_received': 1" in server.ask("counters")
