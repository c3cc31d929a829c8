# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""When the file system of the whisper files will be full.

A whisper file has its full size from its first point on, so that it is new series alone that take space. Carbon counts the files that
it creates (``creates``), which is the only record of growth that a host has. The rate is the median of days, or of hours, so that
the series of an installation or of a new application are not taken for a trend. This file is private to the collection.
"""

from __future__ import annotations

import os
import statistics
from typing import NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import (
    DAY,
    HOUR,
    WEEKEND_DAYS,
    Limits,
    Report,
    counted,
)

# A new application of some ten timers makes as many series at once.
_LEAST_ROOM = 100
# The median of fewer is a matter of chance.
_FEWEST_SLOTS = 3
# What fills within a day is found by hours, before there are days.
_SPANS = ((DAY, 7, "days"), (HOUR, 6, "hours"))


class Tree(NamedTuple):
    """What the whisper files take; as much of the tree as was looked at."""

    series: int
    directories: int
    bytes: int


class Room(NamedTuple):
    """What is free of a kind, and what a new series takes of it."""

    kind: str
    free: int
    per_series: float
    text: str


class Rate(NamedTuple):
    """New series a day, by the median of ``slots`` days or hours."""

    per_day: float
    slots: int
    unit: str


def rates(creates: list[tuple[int, float]], now: int) -> list[Rate]:
    """Return the rate by days and the rate by hours, as far as ``creates``, counts by their times, reaches."""
    found = []
    for length, most, unit in _SPANS:
        slots = min(most, (now - creates[0][0]) // length) if creates else 0
        if slots >= _FEWEST_SLOTS:
            sums = [0.0] * slots
            for when, count in creates:
                slot = (now - when) // length
                if 0 <= slot < slots:
                    sums[slot] += count
            found.append(Rate(statistics.median(sums) * DAY / length, slots, unit))
    return found


def check_disk(report: Report, limits: Limits, directory: str, tree: Tree, creates: list[tuple[int, float]], now: int) -> None:
    """Report a file system without room for new series, or one that will have none soon."""
    if not tree.series:
        return
    found = rates(creates, now)
    if not found:
        report.skip("disk_growth", "carbon has recorded new series for less than three hours; there is no growth to extrapolate yet.")
    for room in _rooms(os.statvfs(directory), tree):
        _check_room(report, limits, directory, room, found)


def _rooms(status: os.statvfs_result, tree: Tree) -> list[Room]:
    per_series = tree.bytes / tree.series
    free = status.f_bavail * status.f_frsize
    rooms = [Room("disk", free, per_series, f"{free / 2**20:,.0f} MiB left, of which a series takes {per_series / 1024:,.0f} KiB")]
    # Some file systems, such as Btrfs, make inodes as they need them, and tell 0.
    if status.f_files:
        rooms.append(Room("inodes", status.f_favail, 1 + tree.directories / tree.series, f"{counted(status.f_favail, 'inode')} left"))
    return rooms


def _check_room(report: Report, limits: Limits, directory: str, room: Room, found: list[Rate]) -> None:
    series = int(room.free // room.per_series) if room.per_series else 0
    where = f"The file system of {directory} has {room.text}, room for {counted(series, 'more series', 'more series')}"
    remedy = (
        "Enlarge the file system, shorten the retentions in carbon_cache_storage_schemas (carbon_cache_existing_data: reshape), or remove"
        " unused series (carbon_cache_prune)."
    )
    if series < _LEAST_ROOM:
        report.critical(room.kind, None, room.free, f"{where}; carbon drops the points of those that find none. {remedy}")
        return
    for rate in found:
        days = series / rate.per_day if rate.per_day else float("inf")
        horizon = limits.disk_days if rate.unit == "days" else 1
        if days > horizon:
            continue
        add = report.critical if days <= WEEKEND_DAYS else report.warn
        add(
            room.kind,
            None,
            round(days, 1),
            f"{where}. At {counted(rate.per_day, 'new series', 'new series')} a day, the median of the last {rate.slots} {rate.unit}, it is"
            f" full in {days:.1f} days. {remedy}",
        )
        return
