# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What memcached tells of itself. This file is private to the collection.

Source: ``doc/protocol.txt`` of memcached 1.6.18. Nothing is lost without memcached, so that every finding is a warning.
"""

from __future__ import annotations

import socket

from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import Report, counted

_TIMEOUT_SECONDS = 2.0
_COUNTERS = ("uptime", "get_hits", "get_misses", "evictions", "cmd_set", "bytes", "limit_maxbytes")
# Answers live for seconds: where one of a hundred goes before its time, memory is short.
_EVICTED_SHARE = 0.01


def check_memcached(report: Report, servers: list[str]) -> dict[str, dict[str, int]]:
    """Report servers that do not answer or are short of memory; return the statistics of the others."""
    found = {}
    for server in servers:
        try:
            statistics = found[server] = read_statistics(server)
        except (OSError, ValueError) as error:
            report.warn(
                "memcached",
                None,
                "unreachable",
                f"graphite-web's memcached at {server} does not answer ({error}), so that each answer is computed anew. On its host,"
                " journalctl --unit graphite-memcached has the reason; site.yml starts it.",
            )
            continue
        if statistics["evictions"] > _EVICTED_SHARE * statistics["cmd_set"]:
            report.warn(
                "memcached_evictions",
                None,
                statistics["evictions"],
                f"The memcached at {server} has removed {counted(statistics['evictions'], 'answer')} before their time since its start,"
                f" of {statistics['cmd_set']} that it has stored in {statistics['limit_maxbytes'] >> 20} MiB. Raise"
                " memcached_memory_megabytes.",
            )
    return found


def read_statistics(server: str) -> dict[str, int]:
    """Return the counters of the memcached at ``ADDRESS:PORT``. Raises ``OSError`` or ``ValueError`` if it does not tell them."""
    address, _colon, port = server.rpartition(":")
    with socket.create_connection((address.strip("[]"), int(port)), timeout=_TIMEOUT_SECONDS) as connection:
        connection.sendall(b"stats\r\n")
        answer = b""
        while not answer.endswith(b"END\r\n"):
            part = connection.recv(65536)
            if not part:
                raise ValueError("its answer has no end")
            answer += part
    lines = [line.split() for line in answer.decode("ascii", "replace").splitlines()]
    told = {parts[1]: parts[2] for parts in lines if len(parts) == 3 and parts[0] == "STAT"}
    missing = [name for name in _COUNTERS if not told.get(name, "").isdigit()]
    if missing:
        raise ValueError(f"its answer lacks {', '.join(missing)}")
    return {name: int(told[name]) for name in _COUNTERS}
