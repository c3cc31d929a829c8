# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Whose points and metrics are taken, once the ports are open to the network: the test sends from outside of the host."""

from __future__ import annotations

import socket
import time

import pytest
from conftest import values

OPEN = {"carbon_cache_bind_address": "0.0.0.0", "statsd_address": "0.0.0.0"}


@pytest.fixture
def open_to(playbook):
    """Let networks send; afterwards, the host alone may."""

    def run(*networks):
        allowed = {f"{role}_allowed_senders": list(networks) for role in ("carbon_relay", "statsd")}
        status, output = playbook("site.yml", {**OPEN, **allowed})
        assert status == 0, output

    yield run
    status, output = playbook("site.yml")
    assert status == 0, output


def test_who_is_not_asked_sends_nothing(host, open_to, address, render, wait_until):
    def send(name):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(f"{name}:1|c".encode(), (address(), 8125))
        with socket.create_connection((address(), 2003), timeout=3) as relay:
            relay.sendall(f"senders.{name} 1 {int(time.time())}\n".encode())

    open_to("192.0.2.0/24")
    with pytest.raises(TimeoutError):
        send("stranger")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.connect((address(), 8125))
        own_address = own.getsockname()[0]
    wait_until(lambda: f"no allowed sender: {own_address}" in host.run("journalctl --unit statsd --no-pager").stdout)
    open_to(own_address)
    send("friend")
    wait_until(lambda: values(render("senders.friend")[0]) == [1] if render("senders.friend") else False)
    wait_until(lambda: render("removeEmptySeries(stats.counters.friend.count)"), timeout=40)
    assert render("senders.stranger") == render("removeEmptySeries(stats.counters.stranger.count)") == []
