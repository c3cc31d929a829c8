# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Datagrams that the kernel has dropped because a socket's buffer was full. This file is private to the collection.

Source of the format: ``udp4_format_sock`` of ``net/ipv4/udp.c`` and ``__ip6_dgram_sock_seq_show`` of ``net/ipv6/datagram.c``
of Linux; the columns are those of proc(5).
"""

from __future__ import annotations

import os
from typing import NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import Report, counted
from ansible_collections.metricstack.graphite.plugins.module_utils._host.services import active_since, processes_of

_TABLES = ("net/udp", "net/udp6")
_REMEDIES = {
    "statsd": (
        "Raise statsd_receive_buffer_bytes (net.core.rmem_max must allow it; the journal of statsd says what the socket got), let senders"
        " sample (|@0.1) or send several lines in a packet, or spread them over several StatsD."
    ),
    "carbon-cache": "Send over TCP, which waits instead of dropping (ENABLE_UDP_LISTENER in carbon_cache_settings), or to StatsD.",
}


class UdpSocket(NamedTuple):
    """A row of the kernel's tables of UDP sockets."""

    port: int
    inode: int
    drops: int


def parse_table(text: str) -> list[UdpSocket]:
    """Return the sockets in the text of ``/proc/net/udp`` or ``/proc/net/udp6``. The last column counts drops, since Linux 2.6.27."""
    sockets = []
    for line in text.splitlines()[1:]:
        columns = line.split()
        if len(columns) >= 13:
            sockets.append(UdpSocket(int(columns[1].rpartition(":")[2], 16), int(columns[9]), int(columns[12])))
    return sockets


def read_drops(units: list[str], proc: str = "/proc") -> dict[str, dict[UdpSocket, int]]:
    """Return the UDP sockets of each unit, with a count of 0 drops in the key and the drops as the value."""
    sockets = {socket.inode: socket for table in _TABLES for socket in parse_table(_read(f"{proc}/{table}"))}
    return {
        unit: {
            sockets[inode]._replace(drops=0): sockets[inode].drops
            for pid in processes_of(unit, proc)
            for inode in _socket_inodes(pid, proc)
            if inode in sockets
        }
        for unit in units
    }


def check_drops(
    report: Report,
    states: dict[str, dict[str, str]],
    before: dict[str, dict[UdpSocket, int]],
    after: dict[str, dict[UdpSocket, int]],
) -> None:
    """Report sockets that have dropped datagrams; ``before`` and ``after`` are two looks at them, which tell a loss that goes on.

    ``states`` are those of the units, as far as systemd tells them. Nothing records when a socket was opened that systemd keeps while
    the unit restarts.
    """
    for unit, sockets in after.items():
        state = states.get(unit, {})
        is_kept = int(state.get("NFileDescriptorStore") or 0) > 0
        since = None if is_kept else active_since(state)
        begin = "it was opened, which was at the last start that was no restart" if is_kept else "the unit started"
        for socket, drops in sockets.items():
            if not drops:
                continue
            lately = drops - before.get(unit, {}).get(socket, drops)
            add = report.critical if lately else report.warn
            when = f", {counted(lately, 'packet')} of them during this examination" if lately else ""
            remedy = _REMEDIES.get(unit.partition("@")[0].partition(".")[0], "")
            add(
                "udp_drops",
                since,
                drops,
                f"The kernel has dropped {counted(drops, 'packet')} to UDP port {socket.port} of {unit} since {begin}{when}: the buffer"
                f" was full. {remedy}",
            )


def _read(path: str) -> str:
    try:
        with open(path) as stream:
            return stream.read()
    except FileNotFoundError:  # a kernel without IPv6
        return ""


def _socket_inodes(pid: int, proc: str) -> list[int]:
    found = []
    try:
        names = os.listdir(f"{proc}/{pid}/fd")
    except OSError:  # it has just ended
        return []
    for name in names:
        try:
            target = os.readlink(f"{proc}/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.append(int(target[len("socket:[") : -1]))
    return found
