# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What StatsD tells of itself: at its management interface, and in series of its own. This file is private to the collection.

Source: ``stats.js`` and ``backends/graphite.js`` of StatsD 0.9.0, and ``roles/statsd/files/carbon_queue.js``, which keeps the flushes that
carbon does not take and says how many they are. Another StatsD loses such a flush, and does not say so; its series have a hole.
"""

from __future__ import annotations

from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import (
    HOUR,
    MINUTE,
    ONGOING_SECONDS,
    Limits,
    Report,
    counted,
    episode_start,
    iso_time,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._health.history import History
from ansible_collections.metricstack.graphite.plugins.module_utils._statsd.management import Management, ManagementError

_HISTORY = 7 * 24 * HOUR
# A restart of StatsD or carbon takes seconds, and a reboot of the host a minute.
_SHORTEST_HOLE = 2 * MINUTE
# What a single late flush has counted is in the next one; a process that is late again and again is too slow for its packets.
_FEWEST_LATE = 3


def check_management(report: Report, limits: Limits, statsd: dict, now: float) -> dict | None:
    """Report a StatsD that does not answer or does not reach carbon; return its statistics."""
    try:
        with Management(statsd["management_address"], statsd["management_port"], timeout=10) as management:
            health, stats = management.health, management.stats()
    except ManagementError as error:
        report.critical(
            "statsd_management",
            None,
            "unreachable",
            f"StatsD does not answer: {error} A StatsD that hangs loses every packet. Restart statsd.",
        )
        return None
    if health != "up":
        report.warn(
            "statsd_health",
            None,
            health,
            f"StatsD's health is '{health}', which somebody has set at its management interface. Send 'health up' to"
            f" {statsd['management_address']}, port {statsd['management_port']}, or restart statsd.",
        )
    graphite = stats.get("graphite")
    if isinstance(graphite, dict):
        _check_backend(report, limits, graphite, int(stats["uptime"]), statsd["flush_seconds"], now)
    return stats


def _check_backend(report: Report, limits: Limits, graphite: dict, uptime: int, flush_seconds: int, now: float) -> None:
    """StatsD tells how many seconds ago an event was, and counts from 1970 on for an event that has never been."""
    overdue = 2 * flush_seconds + 5
    if uptime > overdue and graphite["last_flush"] > overdue:
        since = now - graphite["last_flush"]
        report.critical(
            "statsd_flush",
            since,
            graphite["last_flush"],
            f"StatsD has sent nothing to carbon since {iso_time(since)}; {_kept(graphite)} Look whether carbon runs, and whether"
            " statsd_graphite_host and statsd_graphite_port lead to it.",
        )
    # What a later flush follows has been sent with it.
    elif graphite["last_exception"] <= min(limits.recent, uptime) and graphite["last_exception"] < graphite["last_flush"]:
        since = now - graphite["last_exception"]
        report.warn(
            "statsd_exception",
            since,
            graphite["last_exception"],
            f"Carbon has not taken a flush of StatsD at {iso_time(since)}, and none since; {_kept(graphite)} Look whether carbon runs, and"
            " whether statsd_graphite_host and statsd_graphite_port lead to it; journalctl --unit statsd has the reason.",
        )
    if graphite.get("dropped_flushes") and graphite["last_dropped"] <= min(limits.recent, uptime):
        since = now - graphite["last_dropped"]
        add = report.critical if graphite["last_dropped"] < ONGOING_SECONDS else report.warn
        add(
            "statsd_dropped",
            since,
            graphite["dropped_flushes"],
            f"StatsD has dropped {counted(graphite['dropped_flushes'], 'flush', 'flushes')} that carbon had not taken, most recently at"
            f" {iso_time(since)}. Raise graphiteMaxUnsentBytes in statsd_config if carbon may be away for as long.",
        )


def _kept(graphite: dict) -> str:
    """Return what becomes of the flushes that carbon does not take."""
    if "unsent_flushes" not in graphite:
        return "every flush since then is lost."
    return (
        f"{counted(graphite['unsent_flushes'], 'flush', 'flushes')} of {graphite['unsent_bytes']} bytes wait for it, and beyond"
        " graphiteMaxUnsentBytes in statsd_config (64 MiB), the oldest are dropped."
    )


def check_series(report: Report, limits: Limits, statsd: dict, history: History, now: int) -> None:
    """Report bad lines, late flushes and missing flushes of one StatsD, from its own series."""
    lags = history.points(statsd["timestamp_lag"], now - limits.recent)
    bad_lines = history.points(statsd["bad_lines"], now - _HISTORY) if statsd["bad_lines"] else []
    _check_bad_lines(report, limits, statsd, bad_lines, now)
    _check_lag(report, statsd, lags)
    # The first flush after a start has no lag.
    flushes = [when for when, _value in bad_lines or lags]
    _check_holes(report, statsd, [when for when in flushes if when >= now - limits.recent])


def _check_bad_lines(report: Report, limits: Limits, statsd: dict, points: list[tuple[int, float]], now: int) -> None:
    bad = [(when, value) for when, value in points if value > 0]
    recent = sum(value for when, value in bad if when >= now - limits.recent)
    if not recent:
        return
    times = [when for when, _value in bad]
    report.warn(
        "bad_lines",
        episode_start(times, limits.recent),
        recent,
        f"StatsD on {statsd['host']} has refused {counted(recent, 'line')} in the last {limits.recent // HOUR} h, most recently at"
        f" {iso_time(times[-1])}. There, journalctl --unit statsd --grep 'Bad line' has the reasons, and docs/metrics.md what to send"
        " instead.",
    )


def _check_lag(report: Report, statsd: dict, lags: list[tuple[int, float]]) -> None:
    """A flush keeps the time at which it was due. Without the role's preload, one that is late by half an interval may replace another."""
    late = [(when, lag) for when, lag in lags if lag >= statsd["flush_seconds"] / 2]
    if len(late) < _FEWEST_LATE:
        return
    worst = max(lag for _when, lag in late)
    report.warn(
        "statsd_lag",
        late[0][0],
        worst,
        f"{counted(len(late), 'flush', 'flushes')} of StatsD on {statsd['host']} came late, by up to {worst:.0f} s, most recently at"
        f" {iso_time(late[-1][0])}: the process was too busy, or was stopped, and drops packets meanwhile. Let its senders sample (|@0.1),"
        " spread them over several StatsD, or give the host more processors.",
    )


def _check_holes(report: Report, statsd: dict, times: list[int]) -> None:
    longest = max(_SHORTEST_HOLE, 3 * statsd["flush_seconds"])
    spacings = [0, *(later - earlier for earlier, later in zip(times, times[1:])), 0]
    # Older points are further apart, as their archive has them, and at its end by up to twice as much.
    holes = [
        (times[index - 1], times[index])
        for index in range(1, len(times))
        if spacings[index] > longest + 2 * max(spacings[index - 1], spacings[index + 1])
    ]
    if not holes:
        return
    seconds = sum(end - begin for begin, end in holes)
    begin, end = holes[-1]
    report.warn(
        "statsd_holes",
        holes[0][0],
        seconds,
        f"Carbon has no point of StatsD on {statsd['host']} for {seconds // MINUTE} minutes, most recently from {iso_time(begin)} until"
        f" {iso_time(end)}: StatsD or carbon did not run, or the connection failed, and what StatsD has not kept is lost. journalctl"
        " --unit statsd --unit 'carbon-cache@*' has what happened then.",
    )
