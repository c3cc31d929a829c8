# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a host keeps for the moving of series: lists for other hosts, a journal, progress. This file is private to the collection.

Below the state directory:

``journal.sqlite``       what this host has merged, for as long as the host lives
``out/PASS/to/STORE/``   what this host has for each other store, one file of lines for each process that has looked
``out/PASS/merged/``     what this host has merged of each other store
``own/``                 the strays of this host, and what it has of its own series
``in/STORE/``            what other stores have written for this one
``lock``                 is locked by the process that works, and has its number

A list has a JSON array a line, the path of a file first.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterable, Iterator
from typing import IO, Any

RUN_DIRECTORY = "/run/graphite-rebalance"
PROGRESS = "progress.json"
# A directory beside the tree, or in it if the tree is a file system of its own, for files on their way.
STAGING = ".rebalance"


class RebalanceError(Exception):
    """Why nothing, or no more, was moved. What was done is done, and the next run goes on."""


class State:
    """The state directory of a host."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)

    def make(self, *parts: str) -> str:
        """Return a directory below the state directory, which is there and that everybody may read."""
        path = self.path(*parts)
        os.makedirs(path, mode=0o755, exist_ok=True)
        return path

    def renew(self, *parts: str) -> str:
        """Return a directory below the state directory, which is empty."""
        shutil.rmtree(self.path(*parts), ignore_errors=True)
        return self.make(*parts)

    def clear(self) -> None:
        """Remove everything but the journal."""
        for name in ("out", "own", "in"):
            shutil.rmtree(self.path(name), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path("work.sqlite"))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only process that works on this host; one that an earlier playbook has left is ended. Raises ``RebalanceError``."""
        self.make()
        with open(self.path("lock"), "a+", encoding="ascii") as lock:
            deadline = time.monotonic() + 60
            while not _lock(lock):
                if time.monotonic() > deadline:
                    raise RebalanceError(f"the process {_holder(lock)} moves series and does not end; end it")
                _end(lock, signal.SIGTERM if time.monotonic() < deadline - 30 else signal.SIGKILL)
                time.sleep(0.5)
            # So that the next run can end it with the processes that it starts. The first of a session has a group of its own.
            with contextlib.suppress(PermissionError):
                os.setpgid(0, 0)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield
            finally:
                lock.truncate(0)

    def is_locked(self) -> bool:
        """Return whether a process works on this host."""
        try:
            with open(self.path("lock"), encoding="ascii") as lock:
                return not _lock(lock)
        except FileNotFoundError:
            return False


def _lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: IO[str]) -> int:
    lock.seek(0)
    text = lock.read()
    return int(text) if text.isdigit() else 0


def _end(lock: IO[str], number: int) -> None:
    holder = _holder(lock)
    # The group of the process that holds the lock: with the processes that it has started.
    if holder > 1:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(holder, number)


class Journal:
    """What this host has merged: for each store and path, the time and the size of the file that was merged, and the file it is in."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS merged (source TEXT, path TEXT, mtime_ns INTEGER, size INTEGER, file TEXT,"
            " PRIMARY KEY (source, path)) WITHOUT ROWID"
        )

    def close(self) -> None:
        self._connection.close()

    def state(self, source: str, path: str) -> tuple[int, int, str] | None:
        """Return time and size of what was merged last, and the identity of the file it is in, or ``None``."""
        query = "SELECT mtime_ns, size, file FROM merged WHERE source = ? AND path = ?"
        return self._connection.execute(query, (source, as_text(path))).fetchone()

    def record(self, source: str, rows: Iterable[tuple[str, int, int, str]]) -> None:
        """Record path, time and size of what was merged from a store, and the file it is in, all or nothing."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT OR REPLACE INTO merged VALUES (?, ?, ?, ?, ?)", [(source, as_text(path), *row) for path, *row in rows]
            )


class Table:
    """Rows that are only needed until the end of a pass, on the disk. The first column is a path."""

    def __init__(self, path: str, columns: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA synchronous = OFF")
        self.connection.execute("PRAGMA journal_mode = MEMORY")
        self.connection.execute(f"CREATE TABLE IF NOT EXISTS rows ({columns})")

    def fill(self, rows: Iterable[tuple]) -> None:
        self.connection.execute("BEGIN")
        width = len(self.connection.execute("SELECT * FROM rows LIMIT 0").description)
        marks = ", ".join("?" * width)
        self.connection.executemany(f"INSERT OR REPLACE INTO rows VALUES ({marks})", rows)
        self.connection.execute("COMMIT")

    def close(self) -> None:
        self.connection.close()


def as_text(path: str) -> str:
    """Return a path in a form that every encoding takes, also if the path itself is not valid UTF-8."""
    return json.dumps(path)


def as_path(text: str) -> str:
    """Return the path of which ``as_text`` has made a text."""
    return json.loads(text)


def write_line(stream: IO[str], *items: Any) -> None:
    stream.write(json.dumps(items, separators=(",", ":")) + "\n")


def read_lines(directory: str) -> Iterator[list]:
    """Yield the lines of all lists in a directory.

    Raises ``RebalanceError`` for a path that no file of a tree of whisper files has: another host has written it.
    """
    if not os.path.isdir(directory):
        return
    for name in sorted(os.listdir(directory)):
        with open(os.path.join(directory, name), encoding="ascii") as stream:
            for line in stream:
                try:
                    items = json.loads(line)
                except ValueError as error:
                    raise RebalanceError(f"{directory}/{name} is not a list of files: {error}") from error
                if not isinstance(items, list) or not items or not _is_series(items[0]):
                    raise RebalanceError(f"{directory}/{name} names a file that is no whisper file: {line[:200]!r}")
                yield items


def _is_series(path: object) -> bool:
    if not isinstance(path, str) or not path.endswith(".wsp") or "\0" in path:
        return False
    return all(part and not part.startswith(".") for part in path.split("/"))


class Progress:
    """Tells whoever watches what is done, at most once a second."""

    def __init__(self, phase: str, directory: str = RUN_DIRECTORY) -> None:
        self._directory = directory
        self._phase = phase
        self._told = 0.0

    def tell(self, text: str, done: bool = False) -> None:
        if not done and time.monotonic() - self._told < 1:
            return
        self._told = time.monotonic()
        os.makedirs(self._directory, mode=0o755, exist_ok=True)
        path = os.path.join(self._directory, PROGRESS)
        with open(f"{path}.new", "w", encoding="utf-8") as stream:
            json.dump({"phase": self._phase, "text": text, "ended": done}, stream)
        os.replace(f"{path}.new", path)
