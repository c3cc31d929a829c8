# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What carbon-c-relay tells of itself, in series that it sends to carbon as it sends others.

Its counters grow from its start on. Source of the names: ``collector.c`` of carbon-c-relay 3.7.3. This file is private to the collection.
"""

from __future__ import annotations

import socket

from ansible_collections.metricstack.graphite.plugins.module_utils._health.carbon import HISTORY, Loss, check_loss
from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import ONGOING_SECONDS, Limits, Report, counted
from ansible_collections.metricstack.graphite.plugins.module_utils._health.history import History

UNIT = "carbon-relay.service"
STORE_UNIT = "carbon-store-relay.service"
LOSSES = (
    Loss(
        "relay_drops",
        "metricsDropped",
        "dropped points {count}, because a queue was full",
        "See why a destination was away or slow for so long (the relay's journal names it), or raise carbon_relay_queue_size.",
    ),
    Loss(
        "relay_discards",
        "metricsDiscarded",
        "left out lines {count}, because they have no value or are too long",
        "Correct the sender; docs/metrics.md has the format.",
        can_be_critical=False,
    ),
)


def check_relays(report: Report, limits: Limits, relay: dict, history: History, now: int) -> None:
    """Report the losses of the relay on this host, or of all whose series are on this host, and queues that fill up."""
    for prefix in relay["statistics_prefixes"]:
        if prefix.endswith(".*"):
            for name in history.names_below(prefix[:-2]):
                _check_relay(report, limits, relay, f"{prefix[:-1]}{name}", f"The relay {name}", history, now)
        else:
            name = socket.gethostname().replace(".", "_")
            unit = STORE_UNIT if ".store_relays." in prefix else UNIT
            _check_relay(report, limits, relay, prefix.replace("\\.1", name), unit, history, now)


def _check_relay(report: Report, limits: Limits, relay: dict, prefix: str, unit: str, history: History, now: int) -> None:
    for loss in LOSSES:
        counts = _increases(history.points(f"{prefix}.{loss.metric}", now - HISTORY))
        check_loss(report, limits, loss, [(when, count) for when, count in counts if count > 0], unit, now)
    _check_queues(report, limits, relay, unit, history.points(f"{prefix}.metricsQueued", now - limits.recent), now)


def _increases(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return what each point of a counter adds to the one before; a counter that is less than before has begun anew."""
    return [(when, count - before if count >= before else count) for (_earlier, before), (when, count) in zip([(0, 0.0), *points], points)]


def _check_queues(report: Report, limits: Limits, relay: dict, unit: str, queued: list[tuple[int, float]], now: int) -> None:
    limit = limits.cache_share * relay["queue_size"]
    if not queued or queued[-1][0] < now - ONGOING_SECONDS or queued[-1][1] < limit:
        return
    report.warn(
        "relay_queue_fills",
        queued[-1][0],
        queued[-1][1],
        f"{counted(queued[-1][1], 'point')} wait in the queues of {unit.replace('The', 'the')}, of which each takes"
        f" {relay['queue_size']}; a full queue drops points. See why a destination is away or slow (journalctl names it), or"
        " raise carbon_relay_queue_size.",
    )
