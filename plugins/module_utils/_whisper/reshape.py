# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Whisper files in memory: what they are, and the same points in other archives.

Everything that is read from or written to a file's content goes through the ``whisper`` library. It reads from the finest
archive that covers a time and writes to that one and the coarser ones; an archive is addressed alone by taking it out
into a file that has no other. This file is private to the collection.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import tempfile
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import Archive
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import Header, read_header
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.library import whisper

# The library joins the points of a run one by one, which costs the square of their number.
_RUN = 200


class Series(NamedTuple):
    """The points of one archive: ``values[i]`` at ``start + i * step``; ``None`` where there is none."""

    start: int
    step: int
    values: list


class Layer(NamedTuple):
    """Points that go into archive number ``archive``, over those of the layers before."""

    archive: int
    series: Series


class _Content(io.BytesIO):
    name = "content"  # for the library's errors


def same_factor(one: float, other: float) -> bool:
    """Return whether two factors are the same in a file, which keeps them as a 32-bit number."""
    return struct.pack("f", one) == struct.pack("f", other)


@functools.lru_cache(maxsize=128)
def _empty_header(archives: tuple[Archive, ...], xfilesfactor: float, aggregation_method: str) -> bytes:
    """Return the first bytes of a new file, up to its first point."""
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "new.wsp")
        whisper.create(path, [tuple(archive) for archive in archives], xfilesfactor, aggregation_method, sparse=True)
        with open(path, "rb") as stream:
            return os.pread(stream.fileno(), read_header(stream.fileno()).offsets[0], 0)


class WhisperContent:
    """The content of a whole whisper file, and what its header says."""

    def __init__(self, content: bytes, header: Header) -> None:
        self._content = content
        self.header = header

    def points(self, index: int, now: int, seconds: int) -> Series:
        """Return what archive ``index`` holds of the last ``seconds`` before ``now``."""
        begin = now - min(seconds, self.header.archives[index].seconds)
        (start, _end, step), values = whisper.file_fetch(self._take_out(index), begin, now, now=now)
        return Series(start, step, values)

    def is_empty(self, index: int) -> bool:
        """Return whether archive ``index`` has never been written to."""
        return not self._body(index).strip(b"\0")

    def _body(self, index: int) -> bytes:
        offset = self.header.offsets[index]
        return self._content[offset : offset + self.header.archives[index].points * whisper.pointSize]

    def _take_out(self, index: int) -> _Content:
        return _Content(_empty_header((self.header.archives[index],), 0.0, "average") + self._body(index))


def compose(archives: tuple[Archive, ...], xfilesfactor: float, aggregation_method: str, layers: list[Layer], now: int) -> bytes:
    """Return the content of a file with these archives, which hold the points of ``layers``."""
    content = [_empty_header(archives, xfilesfactor, aggregation_method)]
    for index, archive in enumerate(archives):
        prefix = _empty_header((archive,), 0.0, "average")
        view = _Content(prefix + bytes(archive.points * whisper.pointSize))
        for layer in layers:
            if layer.archive == index:
                write_points(view, known_points(layer.series), now)
        content.append(view.getvalue()[len(prefix) :])
    return b"".join(content)


def known_points(series: Series) -> list[tuple[int, float]]:
    """Return the points of a series that have a value, oldest first."""
    times = range(series.start, series.start + len(series.values) * series.step, series.step)
    return [(time, value) for time, value in zip(times, series.values) if value is not None]


def write_points(stream, points: list[tuple[int, float]], now: int) -> None:
    """Write points, oldest first, to an open whisper file as carbon would: to the finest archive that covers them."""
    for begin in range(0, len(points), _RUN):
        whisper.file_update_many(stream, points[begin : begin + _RUN][::-1], now=now)


def reshape(old: WhisperContent, archives: tuple[Archive, ...], xfilesfactor: float, aggregation_method: str, now: int) -> list[Layer]:
    """Return what ``archives`` hold of the points of ``old``, each at the best resolution available.

    A point of an old archive goes where it fits as it is. Where no old archive has the resolution, points of a finer
    one are aggregated, as carbon would have done: if the share ``xfilesfactor`` of them is there, and any number in the
    finest archive that covers the time, so that none gets lost. Where only a coarser one has points, each stands at the
    beginning of its interval.
    """
    covered = max(archive.seconds for archive in archives)
    sources = [old.points(index, now, covered) for index in range(len(old.header.archives)) if not old.is_empty(index)]
    layers = []
    finer_seconds = 0
    for index, archive in enumerate(archives):
        layers.append(Layer(index, _fill(archive, sources, now, now - finer_seconds, xfilesfactor, aggregation_method)))
        finer_seconds = archive.seconds
    # A sender's clock may be ahead of this host's; the finest archive has room for one turn.
    ahead = min(archives[0].seconds, old.header.archives[0].seconds)
    future = _fill(archives[0], [old.points(0, now + ahead, ahead)], now + ahead, now + ahead, 0.0, aggregation_method)
    if any(value is not None for value in future.values):
        layers.append(Layer(0, future))
    return layers


def _fill(archive: Archive, sources: list[Series], now: int, finest_until: int, xfilesfactor: float, method: str) -> Series:
    step = archive.seconds_per_point
    start = (now - archive.seconds) // step * step + step
    values: list = [None] * archive.points
    leftovers: list[tuple[int, float]] = []
    begins = [(source.step, source.start) for source in sources]
    sources = [_since(source, start) for source in sources]
    for source in sources:
        if source.step == step:
            first = (source.start - start) // step
            fitting = source.values[max(-first, 0) :]
            values[max(first, 0) : max(first, 0) + len(fitting)] = fitting
    for source in sources:
        if source.step < step:
            cut_group, first, groups = _groups(source, step)
            first_slot = (first - start) // step
            cut_known = [value for value in cut_group if value is not None]
            if cut_known and first_slot > 0:
                leftovers.append((first_slot - 1, whisper.aggregate(method, cut_known, cut_group)))
            for slot, group in enumerate(groups, first_slot):
                if values[slot] is not None:
                    continue
                if None not in group:
                    values[slot] = whisper.aggregate(method, group, group)
                    continue
                known = [value for value in group if value is not None]
                if known and (len(known) >= xfilesfactor * len(group) or start + slot * step <= finest_until):
                    values[slot] = whisper.aggregate(method, known, group)
    for source in sources:
        if source.step > step:
            # Of such an interval, the finer source has the rest only.
            cut = {begin // source.step * source.step for finer, begin in begins if finer < source.step and begin % source.step}
            for time, value in known_points(source):
                slot = (time - start) // step
                if slot < 0 or values[slot] is not None:
                    continue
                known = [item for item in values[slot : slot + source.step // step] if item is not None]
                if not known:
                    values[slot] = value
                elif time in cut:
                    values[slot] = value - sum(known) if method == "sum" else value
    for slot, value in leftovers:
        if values[slot] is None:
            values[slot] = value
    return Series(start, step, values)


def _since(source: Series, start: int) -> Series:
    skipped = max((start - source.start) // source.step, 0)
    return Series(source.start + skipped * source.step, source.step, source.values[skipped:])


def _groups(source: Series, step: int) -> tuple[list, int, Iterable[Sequence]]:
    """Return the points of an interval of ``step`` that begins before the source does, where the next one begins, and the
    points of each interval from there on.
    """
    first = -(-source.start // step) * step
    begin = -((source.start - first) // source.step)
    size, rest = divmod(step, source.step)
    values = source.values[begin:]
    if not rest:
        # The last interval may not be over.
        return source.values[:begin], first, zip(*[iter(values + [None] * (-len(values) % size))] * size)
    start = source.start + begin * source.step
    ends = [-((start - time) // source.step) for time in range(first, start + len(values) * source.step + step, step)]
    return source.values[:begin], first, [values[one:other] for one, other in zip(ends, ends[1:]) if one < len(values)]
