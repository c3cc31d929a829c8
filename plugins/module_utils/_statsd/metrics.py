# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Sends metrics to StatsD by UDP. This file is private to the collection.

Source of the format: ``docs/metric_types.md`` of StatsD 0.9.0; a datagram holds lines ``NAME:VALUE|TYPE``.
"""

from __future__ import annotations

import socket


def send(address: str, port: int, lines: list[str]) -> None:
    """Send the lines in one datagram, so that no flush comes between two of them. Raises ``OSError``."""
    family, kind, _protocol, _name, target = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as sender:
        sender.sendto("\n".join(lines).encode(), target)
