# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a whisper file says about itself. This file is private to the collection.

Imported without its collection by programs on the host; that is why its imports are relative.
"""

from __future__ import annotations

import array
import errno
import os
import sys
from typing import NamedTuple

from .._carbon.retention import ARCHIVE_BYTES, HEADER_BYTES, POINT_BYTES, Archive, whisper_size
from .library import whisper

# More than anybody has a use for.
_MOST_ARCHIVES = 1000


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
    """Return the header of an open file, whose place for reading moves.

    Raises ``NotWhisperError`` for one that ``whisper.create`` does not write, and for a file that is shorter than it says;
    ``OSError`` for a file that cannot be read.
    """
    if whisper is None:
        raise NotWhisperError("the whisper library, which is needed to read it, is missing")
    size = os.fstat(descriptor).st_size
    if size == 0:
        raise NotWhisperError("it is empty")
    # The library would believe any number of archives, and make room for them.
    first_bytes = os.pread(descriptor, HEADER_BYTES, 0)
    number = int.from_bytes(first_bytes[-4:], "big")
    if len(first_bytes) < HEADER_BYTES or not 0 < number <= _MOST_ARCHIVES:
        raise NotWhisperError("it has no valid whisper header")
    try:
        info = whisper.info(os.dup(descriptor))
        if info is None:
            raise OSError(errno.EIO, "cannot be read")
        archives = tuple(Archive(archive["secondsPerPoint"], archive["points"]) for archive in info["archives"])
        whisper.validateArchiveList(list(archives))
    except (whisper.WhisperException, ZeroDivisionError) as error:
        raise NotWhisperError("it has no valid whisper header") from error
    header = Header(archives, tuple(archive["offset"] for archive in info["archives"]), info["xFilesFactor"], info["aggregationMethod"])
    end = HEADER_BYTES + number * ARCHIVE_BYTES
    for archive, offset in zip(archives, header.offsets):
        if offset != end:
            raise NotWhisperError("it has no valid whisper header")
        end += archive.points * POINT_BYTES
    if list(archives) != sorted(archives) or info["maxRetention"] != max(archive.seconds for archive in archives):
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
