# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What is in a backup, and how a tree that carbon writes to gets into it whole.

An archive holds ``whisper/``, ``database/copy``, ``configuration/`` with paths as on the host, and at its very end
``manifest.json``. This file is private to the collection.
"""

from __future__ import annotations

import collections
import errno
import grp
import io
import itertools
import json
import os
import pwd
import re
import resource
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.link import CarbonLink, CarbonLinkError
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import POINT_BYTES
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper import tree
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import (
    Header,
    NotWhisperError,
    newest_time,
    read_header,
)

WHISPER = "whisper"
DATABASE = "database/copy"
CONFIGURATION = "configuration"
MANIFEST = "manifest.json"

# Metrics that carbon is asked for at once.
BATCH = 200
# Carbon takes points out of its cache and writes them a moment later: a file that is read no earlier than this many
# seconds after the cache holds every point that was not in the answer. The moment is as long as carbon waits for its
# MAX_UPDATES_PER_SECOND.
LAG = 1.0
# Batches that wait meanwhile, each with its files open.
WAITING = 8


class Opened(NamedTuple):
    """A whisper file of a batch."""

    descriptor: int
    path: str
    metric: str | None
    directories: list[tuple[str, os.stat_result]]  # those above it that no file before was in


def newest_point(content: bytes, header: Header) -> int:
    """Return the time of the newest point in the finest archive of a whisper file, 0 if there is none."""
    begin = header.offsets[0]
    return newest_time(content[begin : begin + header.archives[0].points * POINT_BYTES])


def with_points(whisper: Any, content: bytes, points: list[tuple[int, float]]) -> bytes:
    """Return the content of a whisper file as carbon would leave it after writing the points.

    Raises ``NotWhisperError`` for a file that the library cannot write to.
    """
    copy = _Copy(content)
    # In the order that whisper's update_many makes for itself: the newest first.
    try:
        whisper.file_update_many(copy, sorted(points, key=lambda point: point[0], reverse=True))
    except Exception as error:  # whatever whisper raises for a file that another program has written
        raise NotWhisperError(str(error)) from error
    return copy.getvalue()


class _Copy(io.BytesIO):
    name = "the copy"  # by which whisper calls a file that it refuses


class Stream:
    """Writes a backup as a tar stream. Memory is that of a few batches, whatever the number of files."""

    def __init__(self, target: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=target, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20, errors="surrogateescape")  # noqa: SIM115  # close() closes it
        self._names: dict[tuple[str, int], str] = {}

    def close(self) -> None:
        self._tar.close()

    def add(self, name: str, content: bytes, status: os.stat_result | None = None) -> None:
        item = self._item(name, status)
        item.size = len(content)
        self._put(item, io.BytesIO(content))

    def add_open_file(self, name: str, source: IO[bytes], status: os.stat_result | None = None) -> None:
        item = self._item(name, status)
        item.size = os.fstat(source.fileno()).st_size
        source.seek(0)
        self._put(item, source)

    def add_directory(self, name: str, status: os.stat_result) -> None:
        item = self._item(name, status)
        item.type = tarfile.DIRTYPE
        self._put(item)

    def add_configuration(self, path: str) -> None:
        """Add a file, a link, or a directory with what is in it, if it is there."""
        status = os.lstat(path)
        name = CONFIGURATION + path
        if os.path.islink(path):
            item = self._item(name, status)
            item.type, item.linkname = tarfile.SYMTYPE, os.readlink(path)
            self._put(item)
        elif os.path.isdir(path):
            self.add_directory(name, status)
            for child in sorted(os.listdir(path)):
                self.add_configuration(os.path.join(path, child))
        elif stat.S_ISREG(status.st_mode):
            with open(path, "rb") as source:
                self.add(name, source.read(), status)

    def _item(self, name: str, status: os.stat_result | None) -> tarfile.TarInfo:
        item = tarfile.TarInfo(name)
        item.mtime, item.mode = int(time.time()), 0o600
        if status is not None:
            item.mtime, item.mode = int(status.st_mtime), status.st_mode & 0o7777
            item.uid, item.gid = status.st_uid, status.st_gid
        item.uname = self._name("user", item.uid, lambda number: pwd.getpwuid(number).pw_name)
        item.gname = self._name("group", item.gid, lambda number: grp.getgrgid(number).gr_name)
        return item

    def _name(self, kind: str, number: int, lookup: Callable[[int], str]) -> str:
        if (kind, number) not in self._names:
            try:
                self._names[kind, number] = lookup(number)
            except KeyError:
                self._names[kind, number] = ""
        return self._names[kind, number]

    def _put(self, item: tarfile.TarInfo, source: IO[bytes] | None = None) -> None:
        self._tar.addfile(item, source)
        self._tar.members.clear()  # type: ignore[attr-defined]  # which tarfile keeps for readers


class WhisperCopy:
    """Copies the tree below ``top`` into a stream, each file with the points that carbon holds for it."""

    def __init__(self, top: int, links: list[CarbonLink], whisper: Any, leases: bool = True) -> None:
        self._top = top
        self._links = links
        self._whisper = whisper
        self._leases = leases
        self.asked = [link.name for link in links]
        self.silent: dict[str, str] = {}
        self.figures = {"files": 0, "bytes": 0, "newest": 0, "completed": 0, "points": 0}
        self.damaged: list[str] = []
        self.skipped: list[str] = []

    def write(self, stream: Stream) -> None:
        """Raises ``LeaseError``."""
        stream.add_directory(WHISPER, os.fstat(self._top))
        waiting: collections.deque[tuple[float, list[Opened], dict]] = collections.deque()
        # As many as may be open, beside those of the walk itself.
        most = max(1, min(WAITING, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // BATCH - 2))
        try:
            for batch in self._batches():
                # First the cache, then the files: a point is in the one or in the other.
                answers = self._ask([item.metric for item in batch if item.metric])
                waiting.append((time.monotonic(), batch, answers))
                while waiting and (len(waiting) >= most or time.monotonic() - waiting[0][0] >= LAG):
                    self._write_batch(stream, waiting)
            while waiting:
                self._write_batch(stream, waiting)
        finally:
            for item in itertools.chain.from_iterable(batch for _asked, batch, _answers in waiting):
                os.close(item.descriptor)

    def _batches(self) -> Iterator[list[Opened]]:
        batch: list[Opened] = []
        try:
            for opened in self._files():
                batch.append(opened)
                if len(batch) == BATCH:
                    yield batch
                    batch = []
            if batch:
                yield batch
                batch = []
        finally:
            for item in batch:
                os.close(item.descriptor)

    def _files(self) -> Iterator[Opened]:
        above: list[str] = []
        for entry in tree.walk(self._top):
            if not entry.name.endswith(tree.SUFFIX):
                self._note(self.skipped, entry.path)
                continue
            try:
                descriptor = entry.open()
            except OSError as error:
                # A link, a socket, or it has gone; what cannot be read otherwise must not be left out in silence.
                if error.errno not in (errno.ELOOP, errno.ENXIO, errno.ENOENT):
                    raise
                self._note(self.skipped, entry.path)
                continue
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                self._note(self.skipped, entry.path)
                continue
            parts = entry.path.split("/")[:-1]
            known = sum(1 for _pair in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(above, parts)))
            above = parts
            directories = [
                ("/".join(parts[: depth + 1]), os.stat("/".join([".", *[".."] * (len(parts) - depth - 1)]), dir_fd=entry.directory))
                for depth in range(known, len(parts))
            ]
            yield Opened(descriptor, entry.path, entry.metric, directories)

    def _ask(self, metrics: list[str]) -> dict[str, list[tuple[int, float]]]:
        answers: dict[str, list[tuple[int, float]]] = {}
        for link in [link for link in self._links if link.name not in self.silent]:
            try:
                for metric, points in link.cached(metrics).items():
                    answers.setdefault(metric, []).extend(points)
            except CarbonLinkError as error:
                self.silent[link.name] = str(error)
        return answers

    def _write_batch(self, stream: Stream, waiting: collections.deque) -> None:
        asked, batch, answers = waiting[0]
        if self._links:
            time.sleep(max(0.0, LAG - (time.monotonic() - asked)))
        while batch:
            item = batch[0]
            for path, status in item.directories:
                stream.add_directory(f"{WHISPER}/{path}", status)
            status = os.fstat(item.descriptor)
            content = self._read(item)
            stream.add(f"{WHISPER}/{item.path}", self._completed(item, content, answers.get(item.metric or "")), status)
            os.close(item.descriptor)
            del batch[0]
        waiting.popleft()

    def _read(self, item: Opened) -> bytes:
        if not self._leases:
            return tree.read_all(item.descriptor)
        try:
            with tree.lease(item.descriptor):
                return tree.read_all(item.descriptor)
        except tree.LeaseTimeoutError as error:
            raise tree.LeaseTimeoutError(f"{tree.printable(item.path)}: {error}") from error

    def _completed(self, item: Opened, content: bytes, points: list[tuple[int, float]] | None) -> bytes:
        try:
            newest = newest_point(content, read_header(item.descriptor))
            if points:
                content = with_points(self._whisper, content, points)
                newest = max(newest, *(when for when, _value in points))
                self.figures["completed"] += 1
                self.figures["points"] += len(points)
            self.figures["newest"] = max(self.figures["newest"], newest)
        except NotWhisperError:
            self._note(self.damaged, item.path)  # it is kept as it is
        self.figures["files"] += 1
        self.figures["bytes"] += len(content)
        return content

    @staticmethod
    def _note(names: list[str], path: str) -> None:
        if len(names) < 20:
            names.append(tree.printable(path))


def newer_series(top: int, since: float, own: list[re.Pattern]) -> Iterator[str]:
    """Yield the paths of the files in a tree that have a point newer than ``since``, without those that match ``own``."""
    for entry in tree.walk(top):
        if not entry.name.endswith(tree.SUFFIX) or any(pattern.search(entry.metric or entry.path) for pattern in own):
            continue
        try:
            descriptor = entry.open()
        except OSError:
            continue
        try:
            status = os.fstat(descriptor)
            # What was not written since has no point since.
            if stat.S_ISREG(status.st_mode) and status.st_mtime >= since and _may_be_newer(descriptor, since):
                yield tree.printable(entry.path)
        finally:
            os.close(descriptor)


def _may_be_newer(descriptor: int, since: float) -> bool:
    try:
        header = read_header(descriptor)
        return newest_time(os.pread(descriptor, header.archives[0].points * POINT_BYTES, header.offsets[0])) > since
    except NotWhisperError:
        return True


def manifest_bytes(manifest: dict) -> bytes:
    return (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
