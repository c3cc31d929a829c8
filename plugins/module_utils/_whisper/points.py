# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Points of a whisper file, read without the library. This file is private to the collection.

Source of the format: ``whisper.py`` of whisper 1.1.10. An archive is a ring of points, a time and a value each; the first of them,
the base, says which place a time has.
"""

from __future__ import annotations

import os
import struct

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import POINT_BYTES
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import Header

_TIME = struct.Struct("!L")
_POINT = struct.Struct("!Ld")


def read_archive(descriptor: int, header: Header, index: int, begin: int, end: int) -> list[tuple[int, float]]:
    """Return the points of one archive from ``begin`` to ``end``, both included, oldest first.

    Points are given as they stand in the file, also those that are older than the retention or ahead of the clock.
    """
    archive, offset = header.archives[index], header.offsets[index]
    step = archive.seconds_per_point
    base = int.from_bytes(os.pread(descriptor, _TIME.size, offset), "big")
    begin = max(begin // step * step, 0)
    wanted = min((end - begin) // step + 1, archive.points)
    if base == 0 or wanted <= 0:
        return []
    first = (begin - base) // step % archive.points
    data = os.pread(descriptor, min(wanted, archive.points - first) * POINT_BYTES, offset + first * POINT_BYTES)
    if first + wanted > archive.points:
        data += os.pread(descriptor, (first + wanted - archive.points) * POINT_BYTES, offset)
    whole = data[: len(data) // POINT_BYTES * POINT_BYTES]
    return sorted((when, value) for when, value in _POINT.iter_unpack(whole) if begin <= when <= end and when > 0)


def read_points(descriptor: int, header: Header, begin: int, now: int) -> list[tuple[int, float]]:
    """Return the points from ``begin`` until ``now``, oldest first, each at the finest resolution that is kept of its time."""
    points: list[tuple[int, float]] = []
    covered = now
    for index, archive in enumerate(header.archives):
        # What a finer archive has of an interval is not counted again.
        until = covered - archive.seconds_per_point if index else now
        covered = max(begin, now - archive.seconds)
        points = read_archive(descriptor, header, index, covered, until) + points
        if covered <= begin:
            break
    return points
