# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A tree of whisper files that carbon may be writing to.

Carbon opens a file for each write and closes it at once, without a lock. The kernel's leases (``fcntl(2)``,
``F_SETLEASE``) show whether another process has a file open and block ``open`` meanwhile; every kind of local
file system has them. Names in the tree belong to carbon's user, who may put links anywhere, so that everything here
goes by the descriptor of a directory and follows none. This file is private to the collection.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

TREE_ARGUMENT_SPEC = {
    "directory": {"type": "path", "default": "/var/lib/graphite/whisper"},
    "carbon_stopped": {"type": "bool", "default": False},
}
SUFFIX = ".wsp"
# Seconds without a write after which no process can still be creating a file.
SETTLED_SECONDS = 60
# How many names of a kind the modules report.
NAMED = 100


class LeaseError(Exception):
    """The file system has no leases, so that writers cannot be detected; or a process did not stop writing."""


class LeaseTimeoutError(LeaseError):
    """A process did not stop writing."""


class TreeBusyError(Exception):
    """Another run is at work on the tree."""


class Entry(NamedTuple):
    """A name in the tree. ``directory`` is a descriptor that is open until the next entry is asked for."""

    directory: int
    name: str
    path: str  # relative to the top

    @property
    def metric(self) -> str | None:
        """The name of the series, ``None`` if the file's name is a hash that cannot be turned back."""
        return metric_name(self.path)

    @property
    def is_foreign(self) -> bool:
        """Whether it is in a directory that is not carbon's: a hidden one, or the file system's own."""
        return "/." in f"/{os.path.dirname(self.path)}" or self.path.startswith("lost+found/")

    def open(self, flags: int = os.O_RDONLY) -> int:
        """Return a descriptor of the file; wait for whoever has a lease on it.

        Raises ``OSError``, also for a link, and ``LeaseTimeoutError`` after 60 s.
        """
        deadline = time.monotonic() + 60
        while True:
            try:
                # At once, since a pipe without a writer would not open otherwise.
                return os.open(self.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.directory)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise LeaseTimeoutError(f"another process has held a lease on {printable(self.path)} for 60 s") from error
            time.sleep(0.01)


def metric_name(path: str) -> str | None:
    """Return the name of the series in the file ``path``, relative to the top of the tree.

    Source: ``TaggedSeries.encode`` of ``carbon/util.py``, carbon 1.1.10.
    """
    stem = path[: -len(SUFFIX)]
    if not stem.startswith("_tagged/"):
        return stem.replace("/", ".")
    name = stem.split("/", 3)[-1]
    return name.replace("_DOT_", ".") if ";" in name else None


def is_too_long(name: str) -> bool:
    """Return whether a name, such as the second one of a file, is longer than file systems take."""
    return len(os.fsencode(name)) > 255


def exists(name: str, directory: int) -> bool:
    """Return whether a directory has a name, be it a link that leads nowhere."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def printable(path: str) -> str:
    """Return a path as text that every tool can show, even if it is not valid UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def open_tree(directory: str) -> int:
    """Return a descriptor of the top of a tree. The top may be a link; what is below may not. Raises ``OSError``.

    A walk takes two descriptors for each level, and a sender makes levels with dots: allows the process as many as it may have.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_series(top: int, path: str) -> int:
    """Return a descriptor of the file ``path``, relative to the top of a tree. Raises as ``Entry.open``."""
    with entry_of(top, path) as entry:
        return entry.open()


@contextlib.contextmanager
def entry_of(top: int, path: str) -> Iterator[Entry]:
    """Give the name ``path`` of a tree, with its directory open. Raises ``OSError``, also for a link on the way."""
    *folders, name = path.split("/")
    directory = os.dup(top)
    try:
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            os.close(directory)
            directory = below
        yield Entry(directory, name, path)
    finally:
        os.close(directory)


@contextlib.contextmanager
def locked(top: int, timeout: float = 0.0) -> Iterator[None]:
    """Keep other runs off the tree. Raises ``TreeBusyError`` if one is at work for ``timeout`` seconds more."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(top, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise TreeBusyError from error
        time.sleep(0.5)
    try:
        yield
    finally:
        fcntl.flock(top, fcntl.LOCK_UN)


def walk(top: int, after: Callable[[Entry], None] | None = None, unreadable: Callable[[Entry], None] | None = None) -> Iterator[Entry]:
    """Yield every name in the tree that is not a directory, links among them, in the file system's order.

    ``after``, if given, is called with each directory that is done, ``unreadable`` with each that cannot be read, be it for
    its mode or because it is too deep for the number of files that may be open; without it, that raises ``OSError``. What
    vanishes meanwhile is passed over. Memory does not grow with the number of names.
    """
    # A descriptor of its own: one that is duplicated or inherited has the same place in the list.
    stack = [_Level(None, os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top), "")]
    try:
        while stack:
            level = stack[-1]
            item = level.next()
            if item is None:
                stack.pop().close()
                if level.own is not None and after is not None:
                    after(level.own)
                continue
            entry = Entry(level.directory, item.name, level.prefix + item.name)
            if not item.is_dir(follow_symlinks=False):
                yield entry
                continue
            try:
                stack.append(_Level.below(entry))
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                if error.errno in (errno.EACCES, errno.EMFILE) and unreadable is not None:
                    unreadable(entry)
                    continue
                raise
    finally:
        for level in stack:
            level.close()


class _Level:
    """A directory on the way to the one that is being read."""

    def __init__(self, own: Entry | None, directory: int, prefix: str) -> None:
        self.own, self.directory, self.prefix = own, directory, prefix
        try:
            self._scan = os.scandir(directory)
        except OSError:
            os.close(directory)
            raise

    @classmethod
    def below(cls, entry: Entry) -> _Level:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return cls(entry, os.open(entry.name, flags, dir_fd=entry.directory), f"{entry.path}/")

    def next(self) -> os.DirEntry | None:
        return next(self._scan, None)

    def close(self) -> None:
        self._scan.close()
        os.close(self.directory)


def read_all(descriptor: int) -> bytes:
    """Return the content of a file from its beginning, wherever the descriptor stands."""
    parts: list[bytes] = []
    position = 0
    while True:
        part = os.pread(descriptor, 1 << 22, position)
        if not part:
            return b"".join(parts)
        parts.append(part)
        position += len(part)


@contextlib.contextmanager
def lease(descriptor: int, exclusive: bool = False, timeout: float = 60.0) -> Iterator[None]:
    """Keep everybody else from writing to an open file, and with ``exclusive`` from opening it at all.

    Whoever wants to waits in ``open`` until the end of the block, for at most 45 s (``lease-break-time``); so does this
    process, if it opens the file again. A descriptor for reading is needed, with ``exclusive`` the only one. Waits for
    those who have the file open already.

    Raises ``PermissionError`` for the file of another user, ``LeaseTimeoutError`` after ``timeout`` seconds, and
    ``LeaseError`` at once where there are no leases.
    """
    deadline = time.monotonic() + timeout
    pause = 0.0005
    while not _take_lease(descriptor, fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK):
        if time.monotonic() > deadline:
            raise LeaseTimeoutError(f"another process has kept the file open for {timeout:.0f} s")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    try:
        yield
    finally:
        try:
            _set_lease(descriptor, fcntl.F_UNLCK)
        except BlockingIOError as error:
            raise LeaseError("the kernel has taken the lease back: it was held for too long") from error


def refuse_without_leases(descriptor: int) -> None:
    """Raise ``LeaseError`` if no lease on an open file is possible. Does not wait for those who write to it."""
    if _take_lease(descriptor, fcntl.F_RDLCK):
        _set_lease(descriptor, fcntl.F_UNLCK)


def somebody_waits(descriptor: int, exclusive: bool = False) -> bool:
    """Return, inside of ``lease``, whether another process is waiting to open the file."""
    return fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != (fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK)


def _take_lease(descriptor: int, kind: int) -> bool:
    """Return whether the lease was granted, or another process prevents it."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # by which the kernel signals that another process is waiting
    try:
        _set_lease(descriptor, kind)
    except BlockingIOError:
        return False
    except PermissionError:
        raise  # this file belongs to another user; that says nothing about the others
    except OSError as error:
        raise LeaseError(f"the file system gives no lease: {error.strerror}") from error
    return True


def _set_lease(descriptor: int, kind: int) -> None:
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, kind)
    except PermissionError:
        # Without CAP_LEASE, as in many containers, a lease is for the file's owner.
        own = os.geteuid()
        os.seteuid(os.fstat(descriptor).st_uid)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, kind)
        finally:
            os.seteuid(own)
