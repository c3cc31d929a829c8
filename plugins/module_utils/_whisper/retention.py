# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Rewrites the whisper files of a tree according to the storage rules while carbon writes to them.

How no point is lost: a file's successor is made beside it (``.NAME.reshaping``), the file gets a second name
(``.NAME.replaced``), and the successor is renamed over the first. Carbon may have opened the old file before that and write
to it after; so, a second later, a read lease on it ensures that no process has it open for writing any more, and what has
changed in it since it was read is written to the successor, under a lease that keeps carbon waiting. Only then the second
name goes. Both names survive a kill and show the next run what is left to finish. This file is private to the collection.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import Archive, format_retentions, whisper_size
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import SeriesShape, StorageRules
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import (
    Header,
    NotWhisperError,
    read_header,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.library import whisper
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.reshape import (
    Layer,
    WhisperContent,
    compose,
    known_points,
    reshape,
    same_factor,
    write_points,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import (
    NAMED,
    SETTLED_SECONDS,
    SUFFIX,
    Entry,
    LeaseError,
    LeaseTimeoutError,
    exists,
    is_too_long,
    lease,
    printable,
    read_all,
    refuse_without_leases,
)

RESHAPING = ".reshaping"
REPLACED = ".replaced"
# A process that had looked up a file's name before it was renamed over has opened it by then.
GRACE_SECONDS = 1.0
# What is remembered of files that wait for that, per process.
PENDING_BYTES = 64 << 20
PENDING_FILES = 200
# The kernel's clock for files ticks every 1 to 10 ms: a later write may leave the same time.
_TICK_NS = 20_000_000
_BLOCK = 4096
FULL = (errno.ENOSPC, errno.EDQUOT)


class NoRoomError(Exception):
    """The disk is full. What was begun is as it was; what was done is done."""


class Report:
    """What was found and done; a plain sum, so that those of several processes add up."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.rules: dict[str, Counter[str]] = {}
        self.found: dict[str, Counter[str]] = {}
        self.devices: dict[str, Counter[str]] = {}
        self.names: dict[str, list[dict[str, str]]] = {}

    def name(self, kind: str, path: str, reason: str) -> None:
        """Count a path that something is wrong with, and remember the first ones."""
        self.counts[kind] += 1
        if len(self.names.setdefault(kind, [])) < NAMED:
            self.names[kind].append({"path": printable(path), "reason": reason})

    def add(self, other: dict) -> None:
        """Add what ``as_data`` has returned in another process."""
        self.counts.update(other["counts"])
        for own, theirs in ((self.rules, other["rules"]), (self.found, other["found"])):
            for key, counts in theirs.items():
                own.setdefault(key, Counter()).update(counts)
        for key, counts in other["devices"].items():
            mine = self.devices.setdefault(key, Counter())
            extremes = {"largest": max(mine["largest"], counts["largest"]), "available": counts["available"]}
            mine.update(counts)
            mine["largest"], mine["available"] = extremes["largest"], extremes["available"]
        for kind, names in other["names"].items():
            self.names[kind] = (self.names.get(kind, []) + names)[:NAMED]

    def as_data(self) -> dict:
        """Return all of it as plain data."""
        return {name: getattr(self, name) for name in ("counts", "rules", "found", "devices", "names")}


class Work(NamedTuple):
    """What one run is asked for."""

    rules: StorageRules
    carbon_stopped: bool
    set_aside: str | None  # the suffix that a corrupt file gets


class _Pending(NamedTuple):
    """A file that has been replaced, and that another process may still be writing to."""

    entry: Entry  # with a descriptor of its own
    old: int
    status: os.stat_result
    read_at_ns: int
    snapshot: bytes
    header: Header
    since: float


class Surveyor:
    """Finds what differs from the rules; changes nothing."""

    def __init__(self, work: Work, report: Report) -> None:
        self._work = work
        self._report = report

    def survey(self, entry: Entry) -> None:
        """Take one name of the tree into the report."""
        report = self._report
        report.counts["names"] += 1
        if entry.name.startswith("."):
            series = _series_of(entry)
            # A file with both second names is one that was interrupted.
            alone = entry.name.endswith(REPLACED) or not exists(f"{entry.name[: -len(RESHAPING)]}{REPLACED}", entry.directory)
            report.counts["interrupted"] += series is not None and alone
            return
        with self.opened(entry) as opened:
            if opened is None:
                return
            _descriptor, status, header, shape = opened  # pylint: disable=unpacking-non-sequence  # it is None only before
            rule = report.rules.setdefault(shape.rule, Counter())
            size = whisper_size(list(shape.archives))
            rule["series"] += 1
            rule["bytes"] += status.st_size
            rule["bytes_after"] += size
            if header.archives != shape.archives:
                rule["reshape"] += 1
                report.found.setdefault(shape.rule, Counter())[format_retentions(list(header.archives))] += 1
                report.counts["growing"] += size > status.st_size
                self._count_room(entry, status, size)
            elif labels_differ(header, shape):
                rule["relabel"] += 1

    @contextlib.contextmanager
    def opened(self, entry: Entry) -> Iterator[tuple[int, os.stat_result, Header, SeriesShape] | None]:
        """Open a name of the tree; give what it is and what it should be, ``None`` if that is unknown.

        The report says why, if it is a whisper file by its name.
        """
        if not entry.name.endswith(SUFFIX) or entry.is_foreign:
            yield None
            return
        try:
            descriptor = entry.open()
        except OSError as error:
            if error.errno == errno.ELOOP:
                self._report.counts["links"] += 1
            elif error.errno == errno.ENOENT:
                self._report.counts["vanished"] += 1
            else:
                self._report.name("unreadable", entry.path, str(error.strerror))
            yield None
            return
        except LeaseTimeoutError as error:
            self._report.name("unreadable", entry.path, str(error))
            yield None
            return
        try:
            try:
                opened = self._inspect(entry, descriptor)
            except OSError as error:
                self._report.name("unreadable", entry.path, str(error.strerror))
                opened = None
            yield opened
        finally:
            os.close(descriptor)

    def _inspect(self, entry: Entry, descriptor: int) -> tuple[int, os.stat_result, Header, SeriesShape] | None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        try:
            header = read_header(descriptor)
        except NotWhisperError as error:
            if time.time() - status.st_mtime < SETTLED_SECONDS:
                self._report.counts["in_creation"] += 1
            else:
                self.corrupt(entry, str(error))
            return None
        metric = entry.metric
        if metric is None:
            self._report.counts["unnamed"] += 1
            return None
        if is_too_long(f".{entry.name}{RESHAPING}"):
            self._report.name("unreadable", entry.path, "its name is too long to be given a second one")
            return None
        return descriptor, status, header, self._work.rules.shape(metric)

    def corrupt(self, entry: Entry, reason: str) -> None:
        """Deal with a file that is no whisper file."""
        self._report.name("corrupt", entry.path, reason)

    def _count_room(self, entry: Entry, status: os.stat_result, size: int) -> None:
        device = self._report.devices.setdefault(str(status.st_dev), Counter())
        if not device:
            room = os.fstatvfs(entry.directory)
            device["available"] = room.f_bavail * room.f_frsize
        # A sparse file, or one that the file system compresses, takes the same share of its new size.
        used = min(status.st_blocks * 512, status.st_size)
        room_after = -(-size * used // max(status.st_size, 1))
        device["growth"] += room_after - used
        device["new"] += room_after
        device["largest"] = max(device["largest"], room_after)


class Reshaper(Surveyor):
    """Rewrites files according to the rules, one at a time; call ``settle`` at the end."""

    def __init__(self, work: Work, report: Report) -> None:
        super().__init__(work, report)
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0

    def rewrite(self, entry: Entry, growing: bool) -> None:
        """Rewrite one file of the tree according to the rules if that makes it larger (``growing``), or if it does not.

        Raises ``NoRoomError``, and ``LeaseError`` where the file system has none; what is wrong with one file only is
        in the report.
        """
        try:
            self._rewrite(entry, growing)
        except FileNotFoundError:
            self._report.counts["vanished"] += 1
        except OSError as error:
            if error.errno in FULL:
                raise NoRoomError(error.strerror) from error
            self._report.name("failed", entry.path, str(error.strerror))
        except (whisper.WhisperException, struct.error) as error:
            self._report.name("failed", entry.path, f"whisper does not read it: {error}")
        while self._pending and (self._is_too_much() or self._pending[0].since + GRACE_SECONDS <= time.monotonic()):
            self._settle_one()

    def _rewrite(self, entry: Entry, growing: bool) -> None:
        if entry.name.startswith("."):
            series = None if growing else _series_of(entry)
            if series is not None and series.path not in {pending.entry.path for pending in self._pending}:
                self._recover(series)
            return
        with self.opened(entry) as opened:
            if opened is None:
                return
            descriptor, status, header, shape = opened  # pylint: disable=unpacking-non-sequence
            if header.archives != shape.archives:
                if (whisper_size(list(shape.archives)) > status.st_size) == growing:
                    self._replace(entry, descriptor, header, shape)
            elif labels_differ(header, shape) and not growing:
                whisper.setAggregationMethod(f"/proc/self/fd/{descriptor}", shape.aggregation_method, shape.xfilesfactor)
                # It has received no point; one that comes just now sets the time again with the next.
                os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
                self._report.counts["relabelled"] += 1

    def corrupt(self, entry: Entry, reason: str) -> None:
        super().corrupt(entry, reason)
        if self._work.set_aside:
            os.rename(entry.name, entry.name + self._work.set_aside, src_dir_fd=entry.directory, dst_dir_fd=entry.directory)
            self._report.counts["set_aside"] += 1

    def settle(self) -> None:
        """Finish what waits for its writers. Raises ``NoRoomError`` when all that could be finished is."""
        full = None
        while self._pending:
            try:
                self._settle_one()
            except NoRoomError as error:
                full = error
        if full is not None:
            raise full

    def _is_too_much(self) -> bool:
        return self._pending_bytes > PENDING_BYTES or len(self._pending) > PENDING_FILES

    def _replace(self, entry: Entry, descriptor: int, header: Header, shape: SeriesShape) -> None:
        successor, second = f".{entry.name}{RESHAPING}", f".{entry.name}{REPLACED}"
        at = {"src_dir_fd": entry.directory, "dst_dir_fd": entry.directory}
        if exists(second, entry.directory):
            self._recover(entry)
            return
        if not self._work.carbon_stopped:
            refuse_without_leases(descriptor)
        read_at = time.time_ns()
        status = os.fstat(descriptor)
        snapshot = read_all(descriptor)
        now = int(time.time())
        target = (shape.archives, shape.xfilesfactor, shape.aggregation_method)
        _write_successor(entry, compose(*target, reshape(WhisperContent(snapshot, header), *target, now), now), status)
        try:
            os.link(entry.name, second, follow_symlinks=False, **at)
            if os.stat(second, dir_fd=entry.directory, follow_symlinks=False).st_ino != status.st_ino:
                # Another process has replaced the file meanwhile; the next run examines the new file.
                os.unlink(second, dir_fd=entry.directory)
                raise FileNotFoundError(errno.ENOENT, "replaced by another process")
            os.rename(successor, entry.name, **at)
        except OSError:
            os.unlink(successor, dir_fd=entry.directory)
            raise
        self._report.counts["reshaped"] += 1
        own = Entry(os.dup(entry.directory), entry.name, entry.path)
        self._pending.append(_Pending(own, os.dup(descriptor), status, read_at, snapshot, header, time.monotonic()))
        self._pending_bytes += len(snapshot)

    def _settle_one(self) -> None:
        pending = self._pending.popleft()
        self._pending_bytes -= len(pending.snapshot)
        try:
            time.sleep(max(pending.since + GRACE_SECONDS - time.monotonic(), 0))
            with self._finishing(pending.entry, pending.old):
                after = os.fstat(pending.old).st_mtime_ns
                if after != pending.status.st_mtime_ns or after > pending.read_at_ns - _TICK_NS:
                    final = read_all(pending.old)
                    if final != pending.snapshot:
                        self._carry_over(pending.entry, pending.old, final, pending.header, pending.snapshot)
        finally:
            os.close(pending.old)
            os.close(pending.entry.directory)

    def _recover(self, series: Entry) -> None:
        """Finish what a run that was killed has begun with a file."""
        begun = _remove(f".{series.name}{RESHAPING}", series.directory)
        try:
            old = Entry(series.directory, f".{series.name}{REPLACED}", series.path).open()
        except FileNotFoundError:
            self._report.counts["recovered"] += begun
            return
        self._report.counts["recovered"] += 1
        try:
            with self._finishing(series, old):
                new = os.stat(series.name, dir_fd=series.directory, follow_symlinks=False)
                if os.fstat(old).st_ino != new.st_ino:
                    self._carry_over(series, old, read_all(old), read_header(old), None)
        finally:
            os.close(old)

    @contextlib.contextmanager
    def _finishing(self, series: Entry, old: int) -> Iterator[None]:
        """Keep writers from the file that has been replaced, which goes at the end of the block; if it fails, the next run's."""
        second = f".{series.name}{REPLACED}"
        try:
            with self._without_writers(old):
                yield
            os.unlink(second, dir_fd=series.directory)
        except FileNotFoundError:
            # The name was never free; so the series was removed since.
            self._report.counts["vanished"] += 1
            _remove(second, series.directory)
        except (LeaseError, NotWhisperError, whisper.WhisperException, struct.error) as error:
            self._report.name("unsettled", series.path, str(error))
        except OSError as error:
            if error.errno in FULL:
                raise NoRoomError(error.strerror) from error
            self._report.name("unsettled", series.path, str(error.strerror))

    def _without_writers(self, descriptor: int, exclusive: bool = False) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self._work.carbon_stopped else lease(descriptor, exclusive)

    def _carry_over(self, series: Entry, old: int, final: bytes, header: Header, snapshot: bytes | None) -> None:
        """Write to a file what its predecessor has got since it was read; what carbon has written there since stays.

        Without the snapshot that it was made from, the file's own time decides: it is the predecessor's at that moment,
        until carbon writes to it.
        """
        descriptor = series.open(os.O_RDWR)
        with os.fdopen(descriptor, "r+b", buffering=0) as stream:
            new_header = read_header(descriptor)
            with self._without_writers(descriptor, exclusive=True):
                current_content = WhisperContent(read_all(descriptor), new_header)
                now = int(time.time())
                target = (new_header.archives, new_header.xfilesfactor, new_header.aggregation_method)
                after = _finest(reshape(WhisperContent(final, header), *target, now), target[0], now)
                before = {}
                if snapshot is not None:
                    before = _finest(reshape(WhisperContent(snapshot, header), *target, now), target[0], now)
                current = _finest(reshape(current_content, *target, now), target[0], now)
                untouched = snapshot is None and os.fstat(descriptor).st_mtime_ns < os.fstat(old).st_mtime_ns
                points = [
                    (moment, value)
                    for moment, value in sorted(after.items())
                    if value != before.get(moment) and (current.get(moment) in (None, before.get(moment)) or untouched)
                ]
                write_points(stream, points, now)
                self._report.counts["carried_over"] += len(points)


def labels_differ(header: Header, shape: SeriesShape) -> bool:
    """Return whether the aggregation of a file is another than the rules give."""
    return header.aggregation_method != shape.aggregation_method or not same_factor(header.xfilesfactor, shape.xfilesfactor)


def _series_of(entry: Entry) -> Entry | None:
    """Return the series that a second name belongs to, ``None`` if it is not one of this module's."""
    for suffix in (RESHAPING, REPLACED):
        if entry.name.endswith(SUFFIX + suffix):
            name = entry.name[1 : -len(suffix)]
            return Entry(entry.directory, name, entry.path[: -len(entry.name)] + name)
    return None


def series_path(entry: Entry) -> str:
    """Return the path of the series that a name of the tree belongs to."""
    return (_series_of(entry) or entry).path


def _remove(name: str, directory: int) -> bool:
    """Remove a name; return whether it was there."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def _finest(layers: list[Layer], archives: tuple[Archive, ...], now: int) -> dict[int, float]:
    """Return each point as the finest archive that covers its time has it."""
    points: dict[int, float] = {}
    for layer in sorted(layers, key=lambda layer: layer.archive, reverse=True):
        finer_seconds = archives[layer.archive - 1].seconds if layer.archive else None
        for moment, value in known_points(layer.series):
            if finer_seconds is None or moment <= now - finer_seconds:
                points[moment] = value
    return points


def _write_successor(entry: Entry, content: bytes, status: os.stat_result) -> None:
    """Write the file that will take the place of ``entry``, with the attributes of its ``status``, to the disk."""
    name = f".{entry.name}{RESHAPING}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    _remove(name, entry.directory)
    descriptor = os.open(name, flags, 0o600, dir_fd=entry.directory)
    try:
        if status.st_blocks * 512 < status.st_size:
            os.ftruncate(descriptor, len(content))
            for begin in range(0, len(content), _BLOCK):
                block = content[begin : begin + _BLOCK]
                if block.strip(b"\0"):
                    _write_all(descriptor, block, begin)
        else:
            _write_all(descriptor, content, 0)
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fdatasync(descriptor)
    except OSError:
        os.unlink(name, dir_fd=entry.directory)
        raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes, position: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, position)
        content, position = content[written:], position + written
