# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Series that have received no point for a long time: found, and removed or moved to an archive.

How no point is lost: a file is renamed to ``.NAME.pruned`` under a lease that keeps carbon waiting in ``open``, and gets its
name back if another process is waiting. Only a second later, when a process that had looked up the name before has opened it, the
file is checked again and removed. The name on disk shows the next run what a killed run has left to finish.

Also a program of its own, ``python3 -m PACKAGE._whisper_prune``, for hosts without Ansible; that is why its imports are
relative, and why it needs nothing but its neighbours. This file is private to the collection.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import itertools
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator

from .._carbon.retention import RetentionError, parse_duration
from .header import NotWhisperError, newest_time, read_header
from .library import whisper
from .tree import (
    NAMED,
    SUFFIX,
    Entry,
    LeaseError,
    LeaseTimeoutError,
    TreeBusyError,
    is_too_long,
    lease,
    locked,
    metric_name,
    open_tree,
    printable,
    somebody_waits,
    walk,
)

TAKEN = ".pruned"
# A process that had looked up a file's name before it was renamed has opened it by then.
GRACE_SECONDS = 1.0
# Readers have a file open for a moment; who has it for longer may have a reason.
LEASE_SECONDS = 1.0
# A multiple of the 12 bytes of a point.
_CHUNK = 12 << 16


class PruneError(Exception):
    """Why nothing, or no more, was pruned; ``result`` is what is known by then."""

    def __init__(self, message: str, result: dict | None = None) -> None:
        super().__init__(message)
        self.result = result or {}


class _KeptError(Exception):
    """Why a file that cannot be read is kept."""


class Tally:
    """What goes."""

    def __init__(self) -> None:
        self.pruned = 0
        self.bytes = 0
        self.directories = 0
        self.restored = 0
        self.busy = 0
        self.metrics: list[str] = []

    def add(self, entry: Entry, status: os.stat_result) -> None:
        self.pruned += 1
        # What has a second name does not free anything.
        self.bytes += status.st_blocks * 512 if status.st_nlink == 1 else 0
        if len(self.metrics) < NAMED:
            self.metrics.append(printable(metric_name(entry.path) or entry.path))


class Archive:
    """The directory that series are moved to. Entries in it may belong to other users, so it is traversed by descriptor."""

    def __init__(self, top: int) -> None:
        self._top = top

    def store(self, entry: Entry, name: str, descriptor: int) -> None:
        """Give the open file ``entry`` its place in the archive, under ``name`` or, if that is taken, with a suffix."""
        with self._folder(entry) as folder:
            try:
                _link_beside(entry.directory, entry.name, folder, name)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                copy = f".{name}{TAKEN}"
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(copy, dir_fd=folder)
                try:
                    _copy(descriptor, copy, folder)
                    _link_beside(folder, copy, folder, name)
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(copy, dir_fd=folder)
                os.fsync(folder)

    @contextlib.contextmanager
    def _folder(self, entry: Entry) -> Iterator[int]:
        folder = os.dup(self._top)
        try:
            for part in entry.path.split("/")[:-1]:
                new = False
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=folder)
                    new = True
                child = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                os.close(folder)
                folder = child
                if new:
                    _give(folder, os.fstat(entry.directory))
            yield folder
        finally:
            os.close(folder)


class Pruner:
    """One run over a tree: a survey, and unless it is only a check, two passes that act."""

    def __init__(self, top: int, unused_for: int, now: float, archive: Archive | None = None, carbon_stopped: bool = False) -> None:
        self._top = top
        self._unused_for = unused_for
        self._now = now
        self._archive = archive
        self._carbon_stopped = carbon_stopped
        self._failure: str | None = None
        self._taken = 0
        # Directories on the way to the present one in which something stays, and in which something went.
        self._staying: set[str] = set()
        self._emptied: set[str] = set()
        self.series = 0
        self.links = 0
        self.corrupt = 0
        self.corrupt_files: list[dict[str, str]] = []
        self.found = Tally()
        self.done = Tally()

    def survey(self) -> None:
        """Find what is unused. Changes nothing."""

        def leave(_directory: Entry) -> bool:
            self.found.directories += 1
            return True

        self._pass(self._survey, leave)

    def act(self) -> None:
        """Remove what is unused, or move it to the archive; finish what a run that was killed has begun.

        Raises ``PruneError`` if the archive does not take a file.
        """
        for entry in walk(self._top, unreadable=lambda _directory: None):
            with contextlib.suppress(OSError, _KeptError):  # already reported by the survey
                self._take(entry)
        if self._taken and not self._carbon_stopped:
            time.sleep(GRACE_SECONDS)

        def leave(directory: Entry) -> bool:
            try:
                os.rmdir(directory.name, dir_fd=directory.directory)
            except OSError:
                return False
            self.done.directories += 1
            return True

        self._pass(self._finish, leave)
        if self._failure is not None:
            raise PruneError(self._failure, self.result(self.done))

    def result(self, tally: Tally) -> dict:
        """Return what was found, and in ``tally`` what goes, as plain data of bounded size."""
        return {
            **vars(tally),
            "metrics": sorted(tally.metrics),
            "series": self.series,
            "links": self.links,
            "corrupt": self.corrupt,
            "corrupt_files": self.corrupt_files,
        }

    def _pass(self, visit: Callable[[Entry], bool], leave: Callable[[Entry], bool]) -> None:
        def after(directory: Entry) -> None:
            parent = os.path.dirname(directory.path)
            goes = (
                directory.path not in self._staying
                and not _is_foreign(directory)
                and (directory.path in self._emptied or self._is_old(directory))
                and leave(directory)
            )
            self._staying.discard(directory.path)
            self._emptied.discard(directory.path)
            (self._emptied if goes else self._staying).add(parent)

        def unreadable(directory: Entry) -> None:
            self._staying.add(os.path.dirname(directory.path))
            if visit == self._survey and not _is_foreign(directory):
                self._keep(directory, "the directory must not be read")

        for entry in walk(self._top, after, unreadable):
            try:
                goes = visit(entry)
            except FileNotFoundError:
                continue
            except (OSError, _KeptError) as error:
                self._keep(entry, getattr(error, "strerror", None) or str(error))
                goes = False
            (self._emptied if goes else self._staying).add(os.path.dirname(entry.path))

    def _survey(self, entry: Entry) -> bool:
        status = os.stat(entry.name, dir_fd=entry.directory, follow_symlinks=False)
        self.links += stat.S_ISLNK(status.st_mode)
        series = _series(entry)
        if series is None or not stat.S_ISREG(status.st_mode):
            return False
        self.series += 1
        if is_too_long(f".{series.name}{TAKEN}"):
            raise _KeptError("its name is too long to be given a second one")
        try:
            with self._unused(entry) as (_descriptor, unused):
                if unused is not None:
                    self.found.add(series, unused)
                    return True
        except LeaseTimeoutError:
            self.found.busy += 1
        self.found.restored += series != entry
        return False

    def _take(self, entry: Entry) -> None:
        if _series(entry) != entry:
            return
        taken = f".{entry.name}{TAKEN}"
        try:
            with self._unused(entry) as (descriptor, unused):
                if unused is None:
                    return
                _rename(entry.directory, entry.name, taken)
                if not self._carbon_stopped and somebody_waits(descriptor, exclusive=True):
                    _rename(entry.directory, taken, entry.name)
                    self.done.busy += 1
                else:
                    self._taken += 1
        except LeaseTimeoutError:
            self.done.busy += 1

    def _finish(self, entry: Entry) -> bool:
        series = _series(entry)
        if series is None or series == entry:
            return False
        try:
            if self._failure is None:
                with self._unused(entry) as (descriptor, unused):
                    if unused is not None and self._dispose(entry, series, descriptor):
                        self.done.add(series, unused)
                        return True
        except LeaseTimeoutError:
            self.done.busy += 1
        except _KeptError:
            pass  # already reported by the survey
        try:
            _rename(entry.directory, entry.name, series.name)
        except FileExistsError as error:
            raise _KeptError(f"it was on its way out, and is kept, but {series.name} is there again; move one of them") from error
        self.done.restored += 1
        return False

    def _dispose(self, entry: Entry, series: Entry, descriptor: int) -> bool:
        if self._archive is not None:
            try:
                self._archive.store(entry, series.name, descriptor)
            except OSError as error:
                self._failure = f"archive_directory does not take {printable(series.path)}: {error.strerror}"
                return False
        os.unlink(entry.name, dir_fd=entry.directory)
        return True

    @contextlib.contextmanager
    def _unused(self, entry: Entry) -> Iterator[tuple[int, os.stat_result | None]]:
        """Give the file, which no other process can open inside of the block, and its status if it is unused."""
        status = os.stat(entry.name, dir_fd=entry.directory, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or status.st_mtime > self._now - self._unused_for:
            yield -1, None
            return
        descriptor = entry.open()
        try:
            with self._alone(descriptor):
                status = os.fstat(descriptor)
                yield descriptor, status if is_unused(descriptor, status, self._unused_for, self._now) else None
        finally:
            os.close(descriptor)

    def _alone(self, descriptor: int) -> contextlib.AbstractContextManager:
        if self._carbon_stopped:
            return contextlib.nullcontext()
        if os.geteuid() not in (0, os.fstat(descriptor).st_uid):
            raise _KeptError("it belongs to another user, so that it is unknown whether it is written to")
        return lease(descriptor, exclusive=True, timeout=LEASE_SECONDS)

    def _is_old(self, directory: Entry) -> bool:
        try:
            status = os.stat(directory.name, dir_fd=directory.directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return status.st_mtime <= self._now - self._unused_for

    def _keep(self, entry: Entry, reason: str) -> None:
        self.corrupt += 1
        if len(self.corrupt_files) < NAMED:
            self.corrupt_files.append({"path": printable(entry.path), "reason": reason})


def prune(
    directory: str,
    unused_for: str,
    archive_directory: str | None = None,
    max_share: float = 0.5,
    carbon_stopped: bool = False,
    check: bool = False,
) -> dict:
    """Remove the series below ``directory`` that have received no point for ``unused_for``, or move them to an archive.

    Raises ``PruneError``, also if more than ``max_share`` of all series would go.
    """
    if whisper is None:
        raise PruneError(f"{sys.executable} lacks the library whisper; install the package python3-whisper")
    try:
        seconds = parse_duration(unused_for)
    except RetentionError as error:
        raise PruneError(f"unused_for: {error}") from error
    if not 0 < max_share <= 1:
        raise PruneError(f"max_share is {max_share}; give a share of all series, more than 0 and at most 1")
    if archive_directory is not None and _overlap(directory, archive_directory):
        raise PruneError(f"archive_directory is {archive_directory}, which overlaps with {directory}; give one of its own")
    with contextlib.ExitStack() as stack:
        try:
            top = open_tree(directory)
            stack.callback(os.close, top)
            archive = None
            if archive_directory is not None and not check:
                place = open_tree(archive_directory)
                stack.callback(os.close, place)
                archive = Archive(place)
        except OSError as error:
            raise PruneError(f"{error.filename}: {error.strerror}; name a directory that is there") from error
        pruner = Pruner(top, seconds, time.time(), archive, carbon_stopped)
        try:
            if not check:
                stack.enter_context(locked(top))
            pruner.survey()
            if pruner.found.pruned > max_share * pruner.series:
                raise PruneError(
                    f"{pruner.found.pruned} of {pruner.series} series have received no point for {unused_for}, which is more than"
                    f" max_share ({max_share:g}): nothing was pruned. See whether the senders and the clock are right, and raise"
                    " max_share if they are",
                    pruner.result(pruner.found),
                )
            if check or not (pruner.found.pruned or pruner.found.directories or pruner.found.restored):
                return pruner.result(pruner.found)
            pruner.act()
        except TreeBusyError as error:
            raise PruneError(f"another run is at work on {directory}; wait until it has ended") from error
        except LeaseError as error:
            raise PruneError(
                f"{directory}: {error}, so that it is unknown whether carbon is writing to a file; stop carbon, and state this with"
                " carbon_stopped"
            ) from error
        except OSError as error:
            raise PruneError(f"{directory}: {error.strerror}", pruner.result(pruner.done)) from error
        return pruner.result(pruner.done)


def is_unused(descriptor: int, status: os.stat_result, unused_for: int, now: float) -> bool:
    """Return whether an open file has received no point for ``unused_for`` seconds, and not for its finest archive's time.

    Raises ``_KeptError`` if it is no whisper file.
    """
    if status.st_mtime > now - unused_for:
        return False
    try:
        header = read_header(descriptor)
    except NotWhisperError as error:
        raise _KeptError(str(error)) from error
    limit = now - max(unused_for, min(header.archives).seconds)
    return status.st_mtime <= limit and all(
        _newest(descriptor, offset, offset + archive.points * whisper.pointSize) <= limit
        for offset, archive in zip(header.offsets, header.archives)
    )


def _newest(descriptor: int, position: int, end: int) -> int:
    newest = 0
    while position < end:
        part = os.pread(descriptor, min(_CHUNK, end - position), position)
        part = part[: len(part) // whisper.pointSize * whisper.pointSize]
        if not part:
            raise _KeptError("it is truncated")
        newest = max(newest, newest_time(part))
        position += len(part)
    return newest


def _series(entry: Entry) -> Entry | None:
    """Return the series that a name belongs to: itself, or where it was before it was taken; ``None`` if to none."""
    folder = os.path.dirname(entry.path)
    name = entry.name
    if name.startswith(".") and name.endswith(SUFFIX + TAKEN):
        name = name[1 : -len(TAKEN)]
    if "/." in f"/{folder}/{name}" or not name.endswith(SUFFIX):
        return None
    return Entry(entry.directory, name, os.path.join(folder, name))


def _is_foreign(directory: Entry) -> bool:
    return directory.name.startswith(".") or directory.name == "lost+found"


def _rename(directory: int, old: str, new: str) -> None:
    """Rename, but over nothing."""
    _link(directory, old, directory, new)
    os.unlink(old, dir_fd=directory)


def _link(source: int, old: str, target: int, new: str) -> None:
    """Give a file one more name. Raises ``FileExistsError`` if another file has it."""
    try:
        os.link(old, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        # It is the same file if a run was killed before it removed the old name.
        names = ((old, source), (new, target))
        if not os.path.samestat(*(os.stat(name, dir_fd=directory, follow_symlinks=False) for name, directory in names)):
            raise


def _link_beside(source: int, old: str, target: int, new: str) -> None:
    """Give a file one more name: ``new``, or the first of ``new.1`` and so on that is free."""
    for number in itertools.count():
        with contextlib.suppress(FileExistsError):
            _link(source, old, target, f"{new}.{number}" if number else new)
            return


def _copy(descriptor: int, name: str, folder: int) -> None:
    status = os.fstat(descriptor)
    target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    with os.fdopen(target, "wb", buffering=0) as stream:
        position = 0
        while True:
            part = os.pread(descriptor, _CHUNK, position)
            if not part:
                break
            position += stream.write(part)
        _give(target, status)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(target)


def _give(descriptor: int, like: os.stat_result) -> None:
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (like.st_uid, like.st_gid):
        os.fchown(descriptor, like.st_uid, like.st_gid)
    os.fchmod(descriptor, like.st_mode & 0o777)


def _overlap(one: str, other: str) -> bool:
    paths = [os.path.realpath(one), os.path.realpath(other)]
    return os.path.commonpath(paths) in paths


def main() -> int:
    parser = argparse.ArgumentParser(description="Remove whisper files that have received no point for a given time.")
    parser.add_argument("directory", help="top of the tree")
    parser.add_argument("unused_for", help="the time, such as 90d")
    parser.add_argument("--archive-directory", help="move the files there instead")
    parser.add_argument("--max-share", type=float, default=0.5, help="do nothing if more than this share of all series would go")
    parser.add_argument("--check", action="store_true", help="only say what would go")
    arguments = parser.parse_args()
    try:
        result = prune(**vars(arguments))
    except PruneError as error:
        print(error, file=sys.stderr)  # pylint: disable=ansible-bad-function  # a program of its own, as below
        return 1
    print(  # pylint: disable=ansible-bad-function
        "{0} {pruned} of {series} series ({bytes} bytes) and {directories} directories;"
        " kept {busy} in use and {corrupt} that cannot be read".format("Would prune" if arguments.check else "Pruned", **result)
    )
    for kept in result["corrupt_files"]:
        print(f"{kept['path']}: {kept['reason']}")  # pylint: disable=ansible-bad-function
    return 0


if __name__ == "__main__":
    sys.exit(main())  # pylint: disable=ansible-bad-function
