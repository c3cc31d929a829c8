# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What carbon-cache tells of itself, once a minute, in series of its own.

Source of the names: ``carbon/instrumentation.py``, ``carbon/writer.py`` and ``carbon/cache.py`` of carbon 1.1.10, and
``sitecustomize.py`` of the role carbon_cache. This file is private to the collection.
"""

from __future__ import annotations

import configparser
import itertools
import math
import socket
from typing import NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import (
    DAY,
    MINUTE,
    ONGOING_SECONDS,
    Limits,
    Report,
    counted,
    episode_start,
    iso_time,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._health.history import History

HISTORY = 30 * DAY
# Carbon's report about itself begins with cache.size; cache.overflow is its tenth point or a later one. A cache with less room drops
# the count of what it drops.
_POINTS_UNTIL_OVERFLOW = 10
# A cache that has started needs a minute for its first report.
_START_SECONDS = 5 * MINUTE


class Loss(NamedTuple):
    """A counter of carbon, or of its relay, of which every count is a loss.

    ``can_be_critical`` says whether the loss is the fault of the host: anybody can send what carbon cannot store.
    """

    check: str
    metric: str
    what: str
    remedy: str
    can_be_critical: bool = True


LOSSES = (
    Loss(
        "dropped_creates",
        "droppedCreates",
        "dropped the points of new series {count}, because more series than MAX_CREATES_PER_MINUTE were new",
        "Set MAX_CREATES_PER_MINUTE in carbon_cache_settings to inf, or find the sender that makes new names all the time.",
    ),
    Loss(
        "cache_overflow",
        "cache.overflow",
        "dropped points at least {count}, because its cache was full",
        "Raise MAX_UPDATES_PER_SECOND or MAX_CACHE_SIZE in carbon_cache_settings, add an instance to carbon_cache_instances, or use a"
        " faster disk.",
    ),
    Loss(
        "write_errors",
        "errors",
        "failed to write to whisper files {count}, and dropped the points",
        "journalctl --unit {unit} --grep 'Error (creating|writing)' names the files and the reasons, such as a full disk"
        " or an owner other than carbon's.",
    ),
    Loss(
        "invalid_points",
        "invalidPoints",
        "left out points {count}, because it cannot store them",
        "journalctl --unit {unit} --grep 'Not stored' has the points and the reasons, and docs/metrics.md what to send instead.",
        can_be_critical=False,
    ),
)


def check_loss(report: Report, limits: Limits, loss: Loss, losses: list[tuple[int, float]], unit: str, now: int) -> None:
    """Report what ``unit`` has lost recently; ``losses`` are the counts, with their times and sorted by these."""
    recent = sum(value for when, value in losses if when >= now - limits.recent)
    if not recent:
        return
    times = [when for when, _value in losses]
    add = report.critical if loss.can_be_critical and times[-1] >= now - ONGOING_SECONDS else report.warn
    what = loss.what.format(count=counted(recent, "time"))
    remedy = loss.remedy.format(unit=unit.rsplit(".", 1)[0])
    last = f"in the last {limits.recent // 3600} h, most recently at {iso_time(times[-1])}"
    add(loss.check, episode_start(times, limits.recent), recent, f"{unit} {what}, {last}. {remedy}")


class Settings(NamedTuple):
    """What the checks need to know of carbon.conf."""

    max_cache_size: float
    metric_interval: float


class _Parser(configparser.ConfigParser):
    """A parser that leaves the case of the settings' names as it is."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def read_settings(text: str, instance: str) -> Settings:
    """Return the settings of an instance. Raises ``ValueError`` for a text that carbon could not read."""
    parser = _Parser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(str(error).splitlines()[0]) from error
    values: dict[str, str] = {}
    for section in ("cache", f"cache:{instance}"):
        if parser.has_section(section):
            values.update(parser.items(section))
    # The defaults of carbon/conf.py.
    return Settings(float(values.get("MAX_CACHE_SIZE", "inf")), float(values.get("CARBON_METRIC_INTERVAL", "60")))


class Instance:
    """One carbon-cache, as its own series show it."""

    def __init__(self, name: str, prefix: str, settings: Settings, history: History, now: int) -> None:
        self.name = name
        self._agent = f"{prefix}.agents.{socket.gethostname().replace('.', '_')}-{name}"
        self._settings = settings
        self._history = history
        self._now = now

    @property
    def unit(self) -> str:
        return f"carbon-cache@{self.name}.service"

    def points(self, metric: str, seconds: int = HISTORY) -> list[tuple[int, float]]:
        """Return the points of one of its metrics in the last ``seconds``."""
        return self._history.points(f"{self._agent}.{metric}", self._now - seconds)

    def check(self, report: Report, limits: Limits, running_since: float | None) -> None:
        """Report its losses, a cache that fills, and silence of an instance that runs, since ``running_since`` as far as is known."""
        if self._settings.metric_interval <= 0:
            report.skip(
                "carbon", f"CARBON_METRIC_INTERVAL of {self.unit} is 0, so that carbon does not report what it drops. Remove the setting."
            )
            return
        for loss in LOSSES:
            self._check_loss(report, limits, loss)
        self._check_cache(report, limits)
        if running_since is not None and running_since < self._now - _START_SECONDS:
            self._check_silence(report, running_since)

    def _check_loss(self, report: Report, limits: Limits, loss: Loss) -> None:
        check_loss(report, limits, loss, self._losses(loss.metric), self.unit, self._now)

    def _losses(self, metric: str) -> list[tuple[int, float]]:
        counts = dict(self.points(metric))
        full = self._settings.max_cache_size - _POINTS_UNTIL_OVERFLOW
        if metric == "cache.overflow" and full > 0:
            counts.update({when: 1.0 for when, size in self.points("cache.size") if size > full and when not in counts})
        return sorted((when, count) for when, count in counts.items() if count > 0)

    def _check_cache(self, report: Report, limits: Limits) -> None:
        limit = limits.cache_share * self._settings.max_cache_size
        sizes = self.points("cache.size", limits.recent)
        if not 0 < limit < math.inf or not sizes or sizes[-1][0] < self._now - ONGOING_SECONDS or sizes[-1][1] < limit:
            return
        # Since the cache was last below the limit.
        since = [when for when, _size in itertools.takewhile(lambda point: point[1] >= limit, reversed(sizes))][-1]
        size = sizes[-1][1]
        report.warn(
            "cache_fills",
            since,
            size,
            f"The cache of {self.unit} holds {counted(size, 'point')}, {size / self._settings.max_cache_size:.0%} of MAX_CACHE_SIZE; a full"
            " cache drops points. Raise MAX_UPDATES_PER_SECOND or MAX_CACHE_SIZE in carbon_cache_settings, add an instance to"
            " carbon_cache_instances, or use a faster disk.",
        )

    def _check_silence(self, report: Report, running_since: float) -> None:
        """Carbon writes its own series as it writes those of others. The first of a report is the last that a full cache drops."""
        reports = self.points("cache.size")
        last = reports[-1][0] if reports else running_since
        if last >= self._now - max(_START_SECONDS, 3 * self._settings.metric_interval):
            return
        report.critical(
            "carbon_silent",
            last,
            int(self._now - last),
            f"{self.unit} runs, and has stored nothing of its own metrics since {iso_time(last)}, so that it probably stores nothing at"
            f" all. journalctl --unit {self.unit} has the reason, such as a full disk, a full cache, or a directory that carbon may not"
            " write to.",
        )
