# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""One walk through the whisper files: series that have stopped, rules that match none, points ahead of the clock.

The walk takes a name and the times of each file, and opens the few files that these make suspicious. It ends after a time that is
given, so that a tree of any size is affordable. This file is private to the collection.
"""

from __future__ import annotations

import os
import random
import re
import time
from typing import NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import swallows
from ansible_collections.metricstack.graphite.plugins.module_utils._health.disk import Tree
from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import (
    DAY,
    HOUR,
    Limits,
    Report,
    counted,
    iso_time,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import Header, NotWhisperError, read_header
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.points import read_archive
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import (
    SUFFIX,
    Entry,
    LeaseError,
    open_series,
    printable,
    walk,
)

# A series was steady if it had points in the hours before it stopped, and no pause of more than a sixth of them. It has stopped if it
# is silent for three times its longest pause: even points that come by chance leave such a pause once in some thousand times.
_STEADY_SECONDS, _STEADY_POINTS, _LONGEST_PAUSE, _SILENT_PAUSES = 3 * HOUR, 10, 1 / 6, 3
# What stood still at this time a week ago, or else yesterday, pauses as usual: a shop is closed at night and on Sunday.
_USUAL_PAUSES = (7 * DAY, DAY)
_GROUPS, _EXAMPLES = 5, 3
# Of the series that are written to, enough to notice each sender of a thousandth of them.
_SAMPLE = 2000
# A sender whose clock shows local time is ahead by up to 14 hours.
_AHEAD_SECONDS = 2 * DAY
# A new rule has not been needed yet.
_RULE_AGE = DAY


class _Stopped(NamedTuple):
    metric: str
    last: int


class Survey:
    """A walk through the tree, and what was found on it."""

    def __init__(self, top: int, rules: list[dict], now: int, limits: Limits) -> None:
        self._top = top
        self._now = now
        self._limits = limits
        self._deadline = time.monotonic() + limits.tree
        self._patterns = [(rule, re.compile(rule["pattern"])) for rule in rules]
        self._unmatched = list(range(len(rules)))
        # For a rule that has matched nothing, the earlier rule that has taken what it would match.
        self._taken: dict[int, str] = {}
        self._unnamed = 0
        self._unreadable = 0
        self._unreadable_path = ""
        self._written = 0
        self._recent = 0
        self._sample: list[str] = []
        self._random = random.Random(now)
        self._stopped: list[_Stopped] = []
        self.series = 0
        self.bytes = 0
        self.directories = 0
        self.complete = False

    @property
    def tree(self) -> Tree:
        return Tree(self.series, self.directories, self.bytes)

    def run(self) -> None:
        """Walk until the end of the tree or of the time."""

        def leave(_directory: Entry) -> None:
            self.directories += 1

        for entry in walk(self._top, after=leave, unreadable=self._miss):
            if time.monotonic() > self._deadline:
                return
            if entry.name.endswith(SUFFIX) and not entry.is_foreign:
                self._visit(entry)
        self.complete = True

    def report(self, report: Report, rules_changed_at: float) -> None:
        """Report what was found; ``rules_changed_at`` is when the storage rules were last modified."""
        if not self.complete:
            reason = (
                f"the tree is too large: {counted(self.series, 'series', 'series')} were looked at in {self._limits.tree} s. Raise"
                " doctor_tree_seconds to look at all of them."
            )
            report.skip("stopped_series", reason)
            report.skip("unused_rule", reason)
        if self._unreadable:
            report.skip(
                "series",
                f"{counted(self._unreadable, 'name')} in the tree cannot be read, such as {printable(self._unreadable_path)}; losses that"
                " carbon and StatsD have recorded there were not looked at either. Let doctor.yml become root.",
            )
        self._report_stopped(report)
        self._report_ahead(report)
        if self.complete and self.series and not self._unreadable and rules_changed_at < self._now - _RULE_AGE:
            self._report_unused_rules(report, rules_changed_at)

    def _visit(self, entry: Entry) -> None:
        try:
            status = os.stat(entry.name, dir_fd=entry.directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError:
            self._miss(entry)
            return
        self.series += 1
        self.bytes += status.st_blocks * 512
        if self._unmatched:
            self._match(entry.metric)
        age = self._now - status.st_mtime
        if age <= self._limits.recent:
            self._recent += 1
        if self._limits.stopped <= age <= self._limits.recent:
            self._look_for_stop(entry)
        elif age < HOUR:
            self._add_to_sample(entry.path)

    def _miss(self, entry: Entry) -> None:
        self._unreadable += 1
        self._unreadable_path = entry.path

    def _match(self, metric: str | None) -> None:
        if metric is None:
            self._unnamed += 1
            return
        for index, (rule, pattern) in enumerate(self._patterns):
            if pattern.search(metric):
                if index in self._unmatched:
                    self._unmatched.remove(index)
                for later in self._unmatched:
                    if later > index and later not in self._taken and self._patterns[later][1].search(metric):
                        self._taken[later] = rule["name"]
                return

    def _add_to_sample(self, path: str) -> None:
        """Keep each of the paths with the same probability (Vitter's algorithm R)."""
        self._written += 1
        if len(self._sample) < _SAMPLE:
            self._sample.append(path)
            return
        place = self._random.randrange(self._written)
        if place < _SAMPLE:
            self._sample[place] = path

    def _look_for_stop(self, entry: Entry) -> None:
        try:
            descriptor = entry.open()
        except (OSError, LeaseError):
            return
        try:
            last = self._stopped_at(descriptor, read_header(descriptor))
        except (OSError, NotWhisperError):
            return
        finally:
            os.close(descriptor)
        if last is not None:
            self._stopped.append(_Stopped(printable(entry.metric or entry.path), last))

    def _stopped_at(self, descriptor: int, header: Header) -> int | None:
        """Return the time of the last point of a series that was steady and has stopped, without being used to; else ``None``."""
        finest = header.archives[0]
        step = finest.seconds_per_point
        span = min(max(_STEADY_SECONDS, _STEADY_POINTS * step), finest.seconds)
        points = read_archive(descriptor, header, 0, self._now - self._limits.recent - span, self._now + _AHEAD_SECONDS)
        if not points:
            return None
        last = points[-1][0]
        times = [last - span, *(when for when, _value in points if when > last - span)]
        pause = max(later - earlier for earlier, later in zip(times, times[1:]))
        if len(times) <= min(_STEADY_POINTS, finest.points) or pause > max(_LONGEST_PAUSE * span, step):
            return None
        if not max(self._limits.stopped, _SILENT_PAUSES * pause) <= self._now - last <= self._limits.recent:
            return None
        return None if self._pauses_as_usual(descriptor, header) else last

    def _pauses_as_usual(self, descriptor: int, header: Header) -> bool:
        for ago in _USUAL_PAUSES:
            then = self._now - ago
            index = next((i for i, archive in enumerate(header.archives) if archive.seconds >= ago + HOUR), None)
            if index is None:
                continue
            points = read_archive(descriptor, header, index, then - DAY, then + HOUR // 2)
            if points:
                # A coarse archive has its points at the beginning of their intervals.
                margin = max(HOUR // 2, header.archives[index].seconds_per_point)
                return points[-1][0] < then - margin
        return False

    def _report_stopped(self, report: Report) -> None:
        if not self._stopped:
            return
        groups: dict[str, list[_Stopped]] = {}
        for stopped in self._stopped:
            groups.setdefault(_group(stopped.metric), []).append(stopped)
        add = report.critical if len(self._stopped) >= self._recent / 2 else report.warn
        remedy = (
            "Look whether their sender runs and reaches StatsD or carbon. If it is gone for good, the finding ends within"
            f" {counted(self._limits.recent // HOUR, 'hour')}, and carbon_cache_prune removes the series."
        )
        ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
        for name, members in ordered[:_GROUPS]:
            since = min(member.last for member in members)
            examples = ", ".join(sorted(member.metric for member in members)[:_EXAMPLES])
            add(
                "stopped_series",
                since,
                len(members),
                f"{counted(len(members), 'series', 'series')} of {name} had points until {iso_time(since)}, and have none since: {examples}"
                f"{' and others' if len(members) > _EXAMPLES else ''}. {remedy}",
            )
        rest = [member for _name, members in ordered[_GROUPS:] for member in members]
        if rest:
            add(
                "stopped_series",
                min(member.last for member in rest),
                len(rest),
                f"{counted(len(rest), 'series', 'series')} of {counted(len(ordered) - _GROUPS, 'other sender')} have stopped as well, such"
                f" as {rest[0].metric}. {remedy}",
            )

    def _report_ahead(self, report: Report) -> None:
        ahead: list[tuple[str, int]] = []
        looked_at = 0
        for path in self._sample:
            if time.monotonic() > self._deadline + self._limits.tree / 2:
                report.skip("future_points", f"{looked_at} of {len(self._sample)} series were looked at in {self._limits.tree} s.")
                break
            looked_at += 1
            newest = self._newest_ahead(path)
            if newest is not None:
                ahead.append((printable(Entry(-1, "", path).metric or path), newest))
        if not ahead:
            return
        metric, newest = max(ahead, key=lambda item: (item[1], item[0]))
        report.warn(
            "future_points",
            None,
            len(ahead),
            f"{len(ahead)} of {counted(looked_at, 'series', 'series')} that were looked at have points ahead of the clock, such as {metric}"
            f" at {iso_time(newest)}. They overwrite older points, and graphs do not show them. Set the clock of the sender (chrony), or"
            " let it send times in seconds and UTC; the points stay until their time comes.",
        )

    def _newest_ahead(self, path: str) -> int | None:
        begin = self._now + self._limits.clock
        try:
            descriptor = open_series(self._top, path)
        except (OSError, LeaseError):
            return None
        try:
            points = read_archive(descriptor, read_header(descriptor), 0, begin, begin + _AHEAD_SECONDS)
        except (OSError, NotWhisperError):
            return None
        finally:
            os.close(descriptor)
        # An interval that has begun is not ahead.
        return next((when for when, _value in reversed(points) if when > begin), None)

    def _report_unused_rules(self, report: Report, since: float) -> None:
        if self._unnamed:
            report.skip("unused_rule", f"{counted(self._unnamed, 'file')} of tagged series have hashes for names.")
            return
        for index in self._unmatched:
            rule = self._patterns[index][0]
            # A rule for the rest is not needed while others match.
            if swallows(rule["pattern"], ".*"):
                continue
            taken = self._taken.get(index)
            reason = f"; what it would match is taken by the earlier rule '{taken}'" if taken else ""
            report.warn(
                "unused_rule",
                since,
                0,
                f"The rule '{rule['name']}' ({rule['pattern']}) of storage-schemas.conf matches none of"
                f" {counted(self.series, 'series', 'series')}{reason}. Correct its pattern or its place in carbon_cache_storage_schemas, or"
                " remove it; its series have the retentions of another rule.",
            )


def _group(metric: str) -> str:
    """Return the beginning of a name that tells its sender, such as ``stats.counters.shop``."""
    nodes = metric.partition(";")[0].split(".")
    return ".".join(nodes[: max(1, min(3, len(nodes) - 1))])
