# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The points of two whisper files of one series in one of them, while carbon writes to it.

Which points: those of both files. Where both have a value in the finest archive, that of the file that is written to stays. A value of
a coarser archive is computed anew where points are added below it that are all still kept there; otherwise, both values count as far
as that can be (the larger maximum, the smaller minimum, the larger sum), and else that of the file that is written to stays.

How no point is lost: the file is changed in its place under a lease that keeps carbon waiting in ``open``, the coarser archives before
the finer ones: a merge that is killed has not yet added a point whose coarser values are missing, and the next one adds it.

Source of the format: ``whisper.py`` of whisper 1.1.10. This file is private to the collection.
"""

from __future__ import annotations

import array
import hashlib
import os
import struct
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import POINT_BYTES, Archive
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import Header, read_header
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.library import whisper
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.reshape import WhisperContent, known_points, reshape
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import Entry, lease, read_all

_POINT = struct.Struct("!Ld")
# Bytes that are written with their neighbours rather than by a call of their own.
_GAP = 64 * POINT_BYTES
# Two hosts look at a file at different times: what is about to leave an archive is not compared.
_MARGIN_SECONDS = 3600


class Content(NamedTuple):
    """A whole whisper file in memory."""

    data: bytes
    header: Header


class Change(NamedTuple):
    """What a merge writes: ``parts`` in this order, each at an offset. ``points`` is the number of points that are new."""

    parts: list[tuple[int, bytes]]
    points: int


def presence(descriptor: int, header: Header, until: int) -> str:
    """Return a digest of the times at which an open file has points before ``until``.

    Two files with the same digest have nothing to give to each other but values at the same times.
    """
    digest = hashlib.blake2b(digest_size=8)
    for archive, offset in zip(header.archives, header.offsets):
        body = os.pread(descriptor, archive.points * POINT_BYTES, offset)
        words = array.array("I")
        # An archive that was never written to, as in most sparse files.
        if body.strip(b"\0"):
            words.frombytes(body[: len(body) // POINT_BYTES * POINT_BYTES])
            if sys.byteorder == "little":
                words.byteswap()
        oldest = until - archive.seconds + min(_MARGIN_SECONDS, archive.seconds // 4)
        newest = until - archive.seconds_per_point
        digest.update(repr(archive).encode())
        digest.update(array.array("I", sorted(when for when in words[::3] if oldest < when <= newest)).tobytes())
    return digest.hexdigest()


def merge_into(series: Entry, other: Content, until: int | None = None) -> int:
    """Give the points of ``other`` to the file of a series; return how many are new.

    ``until`` leaves out points of ``other`` that are not older than this, such as those of a file that is being written to.
    Raises ``OSError``, ``NotWhisperError`` and ``LeaseError``; the file is then whole and has the points that it had.
    """
    # The lease is for the only one who has the file open.
    descriptor = series.open(os.O_RDWR)
    try:
        header = read_header(descriptor)
        before = read_all(descriptor)
        now = int(time.time())
        change = merged(Content(before, header), other, now, until)
        if not change.parts:
            return 0
        with lease(descriptor, exclusive=True):
            current = read_all(descriptor)
            if current != before:
                change = merged(Content(current, header), other, now, until)
            for offset, part in change.parts:
                _write(descriptor, part, offset)
        return change.points
    finally:
        os.close(descriptor)


def merged(live: Content, other: Content, now: int, until: int | None = None) -> Change:
    """Return what is to be written to ``live`` so that it has the points of ``other`` as well."""
    method, factor = live.header.aggregation_method, live.header.xfilesfactor
    theirs = _points_of_other(live, other, now)
    changes: list[dict[int, float]] = []
    finer: dict[int, float] = {}
    for index, archive in enumerate(live.header.archives):
        step = archive.seconds_per_point
        mine = _points(live, index, now)
        given = theirs[index] if until is None else {when: value for when, value in theirs[index].items() if when + step <= until}
        new = {when: value for when, value in given.items() if when not in mine}
        if index:
            below = live.header.archives[index - 1]
            kept_since = now - below.seconds
            for when, value in given.items():
                if when <= kept_since and when in mine and mine[when] != value:
                    new[when] = _combined(method, mine[when], value)
            for begin in {when - when % step for when in changes[-1]}:
                group = [finer.get(when) for when in range(begin, begin + step, below.seconds_per_point)]
                known = [value for value in group if value is not None]
                is_known = begin in mine or begin in new
                if len(known) >= factor * len(group) and (begin > kept_since or not is_known):
                    new[begin] = whisper.aggregate(method, known, group)
        # Points ahead of the clock have the places of those that are about to leave.
        turn = archive.seconds
        new = {
            when: value
            for when, value in new.items()
            if mine.get(when) != value and when + turn not in mine and when - turn not in mine and now - turn < when
        }
        changes.append(new)
        finer = {**mine, **new}
    parts: list[tuple[int, bytes]] = []
    for index in reversed(range(len(changes))):
        parts += _parts(live, index, changes[index])
    return Change(parts, sum(1 for when in changes[0] if when in theirs[0]))


def _points_of_other(live: Content, other: Content, now: int) -> list[dict[int, float]]:
    archives = live.header.archives
    if other.header.archives == archives:
        return [_points(other, index, now) for index in range(len(archives))]
    points: list[dict[int, float]] = [{} for _archive in archives]
    old = WhisperContent(*other)
    for layer in reshape(old, archives, live.header.xfilesfactor, live.header.aggregation_method, now):
        points[layer.archive].update(known_points(layer.series))
    return points


def _points(content: Content, index: int, now: int) -> dict[int, float]:
    """Return the points of an archive that whisper would find, by their times, and those ahead of the clock."""
    archive, offset = content.header.archives[index], content.header.offsets[index]
    body = content.data[offset : offset + archive.points * POINT_BYTES]
    if not body.strip(b"\0"):
        return {}
    step, places = archive.seconds_per_point, archive.points
    oldest, newest = now - archive.seconds, now + content.header.archives[0].seconds
    base = _POINT.unpack_from(body)[0]
    return {
        when: value
        for place, (when, value) in enumerate(_POINT.iter_unpack(body))
        if oldest < when <= newest and when % step == 0 and (when - base) // step % places == place
    }


def _combined(method: str, mine: float, theirs: float) -> float:
    """Return one value for an interval of whose points two files had each a part, which are gone."""
    if method in ("max", "min", "absmax", "absmin"):
        return whisper.aggregate(method, [mine, theirs], [mine, theirs])
    if method == "sum":
        # Of replicas, both have nearly the same points, so that these are not added twice.
        return max(mine, theirs, key=abs)
    return mine


def _parts(live: Content, index: int, changes: dict[int, float]) -> Iterator[tuple[int, bytes]]:
    """Yield what gives an archive the changed points, neighbours together, from its beginning on."""
    if not changes:
        return
    archive, offset = live.header.archives[index], live.header.offsets[index]
    # An archive without a first point has no other.
    base = _POINT.unpack_from(live.data, offset)[0] or min(changes)
    by_place = sorted((_place(archive, base, when), when) for when in changes)
    begin, part = 0, bytearray()
    for place, when in by_place:
        position = offset + place * POINT_BYTES
        if part and position - begin - len(part) > _GAP:
            yield begin, bytes(part)
            part = bytearray()
        if part:
            part += live.data[begin + len(part) : position]
        else:
            begin = position
        part += _POINT.pack(when, changes[when])
    yield begin, bytes(part)


def _place(archive: Archive, base: int, when: int) -> int:
    return (when - base) // archive.seconds_per_point % archive.points


def _write(descriptor: int, content: bytes, position: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, position)
        content, position = content[written:], position + written
