# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What the peer, which is not asked, reaches beside the site: nothing. The controller, which is, sends the same, and it arrives."""

from __future__ import annotations

import base64
import os
import pickle
import socket
import struct
import subprocess
import time

import pytest

STACK = os.environ.get("MOLECULE_HOST", "metricstack-closed")
PEER = f"{STACK}-peer"
ADDRESS = "10.213.78.10"
# Sends a text over UDP, or over TCP if it can connect; prints what became of it.
SEND = """
import base64, socket, sys
kind, address, port, text = sys.argv[1:]
data = base64.b64decode(text)
try:
    if kind == "udp":
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(data, (address, int(port)))
    else:
        with socket.create_connection((address, int(port)), timeout=3) as connection:
            connection.sendall(data)
            connection.settimeout(2)
            print("answer", connection.recv(1000))
    print("sent")
except OSError as error:
    print(type(error).__name__)
"""
CLOSED = {
    "carbon's line receiver": 2103,
    "carbon's pickle receiver": 2004,
    "the pickle receiver behind the relay": 2104,
    "carbonlink": 7002,
    "carbon's manhole": 7222,
    "StatsD's management": 8126,
    "memcached": 11211,
    "a store": 8081,
    "PostgreSQL": 5432,
    "SSH": 22,
}


def on_stack(*command):
    return subprocess.run(["docker", "exec", STACK, *command], check=True, capture_output=True, text=True).stdout


def from_peer(kind, port, data):
    command = ["docker", "exec", PEER, "python3", "-c", SEND, kind, ADDRESS, str(port), base64.b64encode(data).decode()]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def from_controller(kind, port, data):
    if kind == "udp":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(data, (ADDRESS, port))
    else:
        with socket.create_connection((ADDRESS, port), timeout=3) as sender:
            sender.sendall(data)


def series(name):
    """Return the files of a series, by a part of its name."""
    return on_stack("find", "/var/lib/graphite/whisper", "-path", f"*{name}*", "-name", "*.wsp").split()


@pytest.mark.parametrize("port", CLOSED.values(), ids=CLOSED)
def test_a_port_is_not_reached(port):
    assert from_peer("tcp", port, b"stats\r\n") == ["ConnectionRefusedError"]


def test_what_listens_to_the_network_is_what_the_documentation_says():
    listening = {line.split()[4] for line in on_stack("ss", "-Hltun").splitlines()}
    # Docker's resolver is among those of loopback.
    ports = {address.rpartition(":")[2] for address in listening if not address.startswith(("127.", "[::1]"))}
    assert ports == {"80", "443", "2003", "8125"}


def test_who_is_not_asked_sends_nothing_and_who_is_sends(wait_until):
    now = int(time.time())
    payload = pickle.dumps([("hostile.pickle", (now, 1))], protocol=2)
    relay = from_peer("tcp", 2003, f"hostile.tcp 1 {now}\n".encode())
    assert relay == ["TimeoutError"], "the relay answers the peer"
    assert from_peer("tcp", 2003, struct.pack("!L", len(payload)) + payload) == ["TimeoutError"]
    from_peer("udp", 2003, f"hostile.udp 1 {now}\n".encode())
    for packet in (b"hostile.statsd:1|c", b"constructor:1|ms", b"__proto__:1|ms", b"\0" * 1400, b"hostile:" + b"9" * 60000 + b"|c"):
        from_peer("udp", 8125, packet)
    before = on_stack("systemctl", "show", "--property=MainPID,NRestarts", "statsd", "carbon-relay")
    from_controller("tcp", 2003, f"friend.tcp 1 {now}\n".encode())
    from_controller("udp", 8125, b"friend.statsd:1|c")
    wait_until(lambda: series("/friend/tcp"), timeout=30, message="the relay takes no points of the controller")
    wait_until(lambda: series("/friend/statsd"), timeout=60, message="StatsD takes no metrics of the controller")
    # What the peer has sent earlier would be there by now.
    assert series("hostile") == series("constructor") == []
    assert on_stack("systemctl", "show", "--property=MainPID,NRestarts", "statsd", "carbon-relay") == before
    assert "no allowed sender: 10.213.78.20" in on_stack("journalctl", "--no-pager", "--unit", "statsd")


def test_the_relay_takes_no_pickle_from_who_is_asked_either(wait_until):
    """It reads lines; a pickle is none."""
    now = int(time.time())
    payload = pickle.dumps([("friend.pickle", (now, 1))], protocol=2)
    from_controller("tcp", 2003, struct.pack("!L", len(payload)) + payload + f"\nfriend.after 1 {now}\n".encode())
    wait_until(lambda: series("/friend/after"), timeout=30, message="the relay takes no points after a pickle")
    assert series("pickle") == []
