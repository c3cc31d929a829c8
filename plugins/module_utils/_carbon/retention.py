# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Retention strings, such as ``10s:6h,1min:6d,10min:1800d``: the one place where they are understood.

Source of the format: ``whisper.parseRetentionDef`` and ``whisper.validateArchiveList`` of whisper 1.1.10, which is
more generous than carbon (carbon takes the units ``s m h d w y`` only). This file is private to the collection.
"""

from __future__ import annotations

import re
from typing import NamedTuple

UNIT_SECONDS = {
    "seconds": 1,
    "minutes": 60,
    "hours": 3600,
    "days": 86400,
    "weeks": 7 * 86400,
    "years": 365 * 86400,
}
# whisper.metadataSize, whisper.archiveInfoSize and whisper.pointSize.
HEADER_BYTES, ARCHIVE_BYTES, POINT_BYTES = 16, 12, 12
_QUANTITY = re.compile(r"(\d+)([a-z]*)\Z")


class RetentionError(ValueError):
    """A retention string that whisper would refuse; the message says which part and what to write instead."""


class Archive(NamedTuple):
    """One archive of a whisper file: ``points`` points that are ``seconds_per_point`` seconds apart."""

    seconds_per_point: int
    points: int

    @property
    def seconds(self) -> int:
        """The time that the archive covers, in seconds."""
        return self.seconds_per_point * self.points


def parse_retentions(text: str) -> list[Archive]:
    """Return the archives of a retention string, finest first.

    A definition is ``precision:duration`` or ``precision:points``. A quantity is a number of seconds (of points on
    the right side), or a number with a unit: any beginning of seconds, minutes, hours, days, weeks or years.

    Raises ``RetentionError`` for what does not parse and for archives that whisper refuses to keep in one file.
    """
    archives = sorted(_parse_definition(definition.strip()) for definition in str(text).split(","))
    check_archives(archives)
    return archives


def check_archives(archives: list[Archive]) -> None:
    """Raise ``RetentionError`` for archives, finest first, that whisper refuses to keep in one file."""
    for fine, coarse in zip(archives, archives[1:]):
        _check_neighbours(fine, coarse)


def format_retentions(archives: list[Archive]) -> str:
    """Return the retention string of ``archives`` in the units that every release of carbon accepts."""
    return ",".join(f"{_in_unit(archive.seconds_per_point)}:{_in_unit(archive.seconds)}" for archive in archives)


def whisper_size(archives: list[Archive]) -> int:
    """Return the bytes of the file that whisper makes for ``archives``: one series takes one file, of that size from the start.

    The layout is that of ``whisper.create``: a header, a description of each archive, and every point of every archive.
    """
    return HEADER_BYTES + sum(ARCHIVE_BYTES + POINT_BYTES * archive.points for archive in archives)


def parse_duration(text: str) -> int:
    """Return the seconds of a duration in the units of retention strings, such as ``90d``.

    Raises ``RetentionError`` for what does not parse, for 0, and for a number without a unit.
    """
    seconds, unit = _parse_quantity(str(text), str(text))
    if not unit or seconds == 0:
        raise RetentionError(f"'{text}' is no duration; give a number of at least 1 with a unit, such as 90d")
    return seconds


def _parse_definition(definition: str) -> Archive:
    precision_text, colon, extent_text = definition.partition(":")
    if not colon:
        raise RetentionError(f"'{definition}' is not of the form precision:duration, such as 10s:6h")
    precision, _unit = _parse_quantity(precision_text, definition)
    extent, unit = _parse_quantity(extent_text, definition)
    if precision == 0:
        raise RetentionError(f"'{definition}' has a precision of 0; write at least 1s")
    points = extent // precision if unit else extent
    if points == 0:
        raise RetentionError(f"'{definition}' holds no point; let the duration be at least the precision")
    return Archive(precision, points)


def _parse_quantity(text: str, definition: str) -> tuple[int, str]:
    match = _QUANTITY.match(text.strip())
    if match is None:
        raise RetentionError(f"'{definition}' contains '{text}', which is not a number with a unit, such as 10s or 6h")
    number, unit = match.groups()
    for name, seconds in UNIT_SECONDS.items():
        if unit and name.startswith(unit):
            return int(number) * seconds, unit
    if unit:
        raise RetentionError(f"'{definition}' has the unknown unit '{unit}'; write one of s, m, h, d, w, y")
    return int(number), unit


def _check_neighbours(fine: Archive, coarse: Archive) -> None:
    pair = f"'{format_retentions([fine])}' and '{format_retentions([coarse])}'"
    if fine.seconds_per_point == coarse.seconds_per_point:
        raise RetentionError(f"{pair} have the same precision; keep one of them")
    if coarse.seconds_per_point % fine.seconds_per_point:
        raise RetentionError(f"{pair} do not divide: {coarse.seconds_per_point}s is not a multiple of {fine.seconds_per_point}s")
    if coarse.seconds <= fine.seconds:
        raise RetentionError(f"{pair}: the coarser archive must cover more time than the finer one")
    consolidated = coarse.seconds_per_point // fine.seconds_per_point
    if fine.points < consolidated:
        raise RetentionError(
            f"{pair}: one point of the coarser archive needs {consolidated} points of the finer one, which has {fine.points}"
        )


def _in_unit(seconds: int) -> str:
    name, factor = next(item for item in reversed(list(UNIT_SECONDS.items())) if seconds % item[1] == 0)
    return f"{seconds // factor}{name[0]}"
