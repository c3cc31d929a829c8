# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What an examination of a host's health has found, and by which limits. This file is private to the collection."""

from __future__ import annotations

import time
from typing import NamedTuple

MINUTE, HOUR, DAY = 60, 3600, 86400
# A loss that is older than this is over: carbon reports itself once a minute, StatsD more often.
ONGOING_SECONDS = 15 * MINUTE
# Nobody may look at a warning before a weekend is over.
WEEKEND_DAYS = 3


class Limits(NamedTuple):
    """The options of the module graphite_health_info that say what is a finding; times are in seconds."""

    recent: int
    stopped: int
    disk_days: int
    certificate_days: int
    cache_share: float
    clock: int
    tree: int


class Finding(NamedTuple):
    """A sign of loss. ``since`` is a Unix time, or ``None`` if it cannot be known; ``value`` is what was measured."""

    check: str
    severity: str
    since: float | None
    value: float | int | str
    message: str

    def as_data(self) -> dict:
        """Return the finding as the module returns it."""
        since = None if self.since is None else iso_time(self.since)
        return {"check": self.check, "severity": self.severity, "since": since, "value": self.value, "message": self.message}


class Report:
    """Findings, and what could not be looked at."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.skipped: list[dict[str, str]] = []

    def critical(self, check: str, since: float | None, value: float | int | str, message: str) -> None:
        self.findings.append(Finding(check, "critical", since, value, message))

    def warn(self, check: str, since: float | None, value: float | int | str, message: str) -> None:
        self.findings.append(Finding(check, "warning", since, value, message))

    def skip(self, check: str, reason: str) -> None:
        self.skipped.append({"check": check, "reason": reason})


def iso_time(when: float) -> str:
    """Return a Unix time as ISO 8601 writes it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def counted(number: float, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: "1 point", "1 200 points"."""
    return f"{number:,.0f} {noun if number == 1 else plural or noun + 's'}".replace(",", " ")


def episode_start(times: list[int], pause: int) -> int:
    """Return when the last episode among ``times``, which are sorted, has begun: none of its pauses is longer than ``pause``."""
    start = times[-1]
    for when in reversed(times):
        if start - when > pause:
            break
        start = when
    return start
