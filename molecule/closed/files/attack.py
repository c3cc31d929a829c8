# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Sends raw requests to the stack from another host, as they stand, and prints what comes back.

Reads ``{"address", "authority", "trap", "attacks": [{"name", "port", "tls", "server_name", "parts", "pause", "timeout"}]}`` as JSON from
standard input; ``parts`` are in Base64 and are sent one after the other, with a pause before each but the first. Prints ``{"answers":
{NAME: {"data", "error", "is_closed", "seconds"}}, "trapped": [ADDRESS]}``: who has connected to the port ``trap`` of this host meanwhile.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

LARGEST_ANSWER = 4_000_000


def attack(address, authority, one):
    began, data, error, is_closed = time.monotonic(), b"", "", False
    try:
        connection = socket.create_connection((address, one["port"]), timeout=one["timeout"])
        if one["tls"]:
            context = ssl.create_default_context(cafile=authority)
            context.check_hostname = False  # of another name, or of none; whose certificate it is, other tests find out
            connection = context.wrap_socket(connection, server_hostname=one["server_name"] or None)
        with connection:
            data, is_closed = talk(connection, one)
    except OSError as reason:
        error = f"{type(reason).__name__}: {reason}"
    return {
        "data": base64.b64encode(data).decode(),
        "error": error,
        "is_closed": is_closed,
        "seconds": time.monotonic() - began,
    }


def talk(connection, one):
    """Return what the other side says, and whether it has ended the connection by itself."""
    data = b""
    try:
        for number, part in enumerate(one["parts"]):
            time.sleep(one["pause"] if number else 0)
            connection.sendall(base64.b64decode(part))
    except OSError:
        pass  # it has heard enough, and may have said so
    deadline = time.monotonic() + one["timeout"]
    while len(data) < LARGEST_ANSWER:
        try:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            more = connection.recv(65536)
        except TimeoutError:
            return data, False
        except OSError:
            return data, True
        if not more:
            return data, True
        data += more
    return data, False


def trap(port, trapped):
    """Note who connects to this host: the stack has no reason to."""
    listener = socket.create_server(("", port))

    def listen():
        while True:
            connection, peer = listener.accept()
            trapped.append(peer[0])
            connection.close()

    threading.Thread(target=listen, daemon=True).start()


def main():
    work, trapped = json.load(sys.stdin), []
    trap(work["trap"], trapped)
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda one: attack(work["address"], work["authority"], one), work["attacks"])
        found = {one["name"]: answer for one, answer in zip(work["attacks"], answers)}
    json.dump({"answers": found, "trapped": trapped}, sys.stdout)


main()
