# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a whisper file says about itself. This file is private to the collection.

Source of the format: ``__readHeader`` of whisper 1.1.10. The library itself is not needed.
Imported without its collection by programs on the host; that is why its imports are relative.
"""

from __future__ import annotations

import array
import os
import struct
import sys
from typing import NamedTuple

from .._carbon.retention import ARCHIVE_BYTES, HEADER_BYTES, POINT_BYTES, Archive, RetentionError, check_archives, whisper_size

# More than anybody has a use for.
_MOST_ARCHIVES = 1000
# The aggregation method, the longest retention in seconds, xFilesFactor and the number of archives.
_METADATA = struct.Struct("!2LfL")
# The offset of the first point, the seconds between two points and the number of points.
_ARCHIVE = struct.Struct("!3L")
_METHODS = ("average", "sum", "last", "max", "min", "avg_zero", "absmax", "absmin")


class NotWhisperError(Exception):
    """The content is not that of a whole whisper file; the message says why."""


class Header(NamedTuple):
    """The header of a whisper file; ``archives`` are finest first."""

    archives: tuple[Archive, ...]
    offsets: tuple[int, ...]
    xfilesfactor: float
    aggregation_method: str

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return whisper_size(list(self.archives))


def read_header(descriptor: int) -> Header:
    """Return the header of an open file.

    Raises ``NotWhisperError`` for one that ``whisper.create`` does not write, and for a file that is shorter than it says;
    ``OSError`` for a file that cannot be read.
    """
    size = os.fstat(descriptor).st_size
    if size == 0:
        raise NotWhisperError("it is empty")
    first_bytes = os.pread(descriptor, HEADER_BYTES, 0)
    number = int.from_bytes(first_bytes[-4:], "big")
    if len(first_bytes) < HEADER_BYTES or not 0 < number <= _MOST_ARCHIVES:
        raise NotWhisperError("it has no valid whisper header")
    method, longest, factor, _number = _METADATA.unpack(first_bytes)
    described = os.pread(descriptor, number * ARCHIVE_BYTES, HEADER_BYTES)
    if len(described) < number * ARCHIVE_BYTES or not 0 < method <= len(_METHODS):
        raise NotWhisperError("it has no valid whisper header")
    items = list(_ARCHIVE.iter_unpack(described))
    archives = tuple(Archive(seconds, points) for _offset, seconds, points in items)
    header = Header(archives, tuple(offset for offset, _seconds, _points in items), factor, _METHODS[method - 1])
    end = HEADER_BYTES + number * ARCHIVE_BYTES
    for archive, offset in zip(archives, header.offsets):
        if offset != end or archive.seconds_per_point == 0:
            raise NotWhisperError("it has no valid whisper header")
        end += archive.points * POINT_BYTES
    try:
        check_archives(list(archives))
    except RetentionError as error:
        raise NotWhisperError("it has no valid whisper header") from error
    if longest != max(archive.seconds for archive in archives):
        raise NotWhisperError("it has no valid whisper header")
    if size < header.size:
        raise NotWhisperError(f"it is truncated: {size} of {header.size} bytes")
    return header


def newest_time(points: bytes) -> int:
    """Return the time of the newest of whole points of an archive, 0 if there is none.

    The library's own functions do not give points that are ahead of the clock.
    """
    # A point is a time and a value: one and two times four bytes, most significant first.
    words = array.array("I")
    words.frombytes(points)
    if sys.byteorder == "little":
        words.byteswap()
    return max(words[::3], default=0)
