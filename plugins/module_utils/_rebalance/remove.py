# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Removes the copies of series that are at home elsewhere, once every home has exactly what is in them.

How no point is lost: under a lease that keeps carbon waiting in ``open``, the file is compared with what the homes have recorded and
renamed to ``.NAME.moving``. It gets its name back if another process is waiting. Only a second later, when a process that had looked up
the name before has opened it, the file is compared again and removed. If carbon has created a file of that name meanwhile, both are
merged. The name on disk shows the next run what a killed run has left to finish. This file is private to the collection.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from typing import NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import NotWhisperError, read_header
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.merge import Content, merge_into
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.retention import REPLACED
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import (
    Entry,
    LeaseError,
    LeaseTimeoutError,
    entry_of,
    exists,
    lease,
    read_all,
    somebody_waits,
)

MOVING = ".moving"
# A process that had looked up a file's name before it was renamed has opened it by then.
GRACE_SECONDS = 1.0
# Readers have a file open for a moment; the next pass takes a file that somebody has for longer.
LEASE_SECONDS = 1.0


class Stray(NamedTuple):
    """A file that is at home elsewhere, in the state that all homes have merged."""

    path: str
    mtime_ns: int
    size: int

    def is_state_of(self, status: os.stat_result) -> bool:
        return (status.st_mtime_ns, status.st_size) == (self.mtime_ns, self.size)


def remove(top: int, strays: list[Stray], use_leases: bool = True) -> Counter[str]:
    """Remove those of the strays that are still in their state; return how many are ``removed`` and how many have ``stayed``."""
    counts: Counter[str] = Counter()
    taken = []
    for stray in strays:
        try:
            with entry_of(top, stray.path) as entry:
                (taken.append(stray) if _take(entry, stray, use_leases) else counts.update(stayed=1))
        except FileNotFoundError:
            counts["vanished"] += 1
        except (OSError, LeaseError):
            counts["stayed"] += 1
    if taken:
        time.sleep(GRACE_SECONDS)
    for stray in taken:
        try:
            with entry_of(top, stray.path) as entry:
                counts["removed" if _finish(entry, stray, use_leases) else "stayed"] += 1
        except (OSError, LeaseError, NotWhisperError):
            counts["stayed"] += 1
    return counts


def recover(top: int, path: str) -> None:
    """Give the file ``.NAME.moving`` its name back, or its points to the file that has the name by now.

    Raises ``OSError``, ``LeaseError`` and ``NotWhisperError``.
    """
    folder, name = os.path.split(path)
    plain = name[1 : -len(MOVING)]
    with entry_of(top, path) as entry:
        _give_back(Entry(entry.directory, plain, os.path.join(folder, plain)))


def _second(entry: Entry) -> str:
    return f".{entry.name}{MOVING}"


def _alone(descriptor: int, use_leases: bool) -> contextlib.AbstractContextManager:
    return lease(descriptor, exclusive=True, timeout=LEASE_SECONDS) if use_leases else contextlib.nullcontext()


def _take(entry: Entry, stray: Stray, use_leases: bool) -> bool:
    descriptor = entry.open()
    try:
        with _alone(descriptor, use_leases):
            # With a predecessor, of a rewriting that was killed, it has not all of its points yet.
            if not stray.is_state_of(os.fstat(descriptor)) or exists(f".{entry.name}{REPLACED}", entry.directory):
                return False
            _rename(entry.directory, entry.name, _second(entry))
            if use_leases and somebody_waits(descriptor, exclusive=True):
                _rename(entry.directory, _second(entry), entry.name)
                return False
            return True
    finally:
        os.close(descriptor)


def _finish(entry: Entry, stray: Stray, use_leases: bool) -> bool:
    descriptor = Entry(entry.directory, _second(entry), entry.path).open()
    try:
        try:
            with _alone(descriptor, use_leases):
                if stray.is_state_of(os.fstat(descriptor)):
                    os.unlink(_second(entry), dir_fd=entry.directory)
                    return True
        except LeaseTimeoutError:
            pass
    finally:
        os.close(descriptor)
    _give_back(entry)
    return False


def _give_back(entry: Entry) -> None:
    second = _second(entry)
    try:
        _rename(entry.directory, second, entry.name)
        return
    except FileExistsError:
        pass
    descriptor = Entry(entry.directory, second, entry.path).open()
    try:
        with lease(descriptor):
            content = Content(read_all(descriptor), read_header(descriptor))
    finally:
        os.close(descriptor)
    merge_into(entry, content)
    os.unlink(second, dir_fd=entry.directory)


def _rename(directory: int, old: str, new: str) -> None:
    """Rename, but over nothing."""
    try:
        os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        # It is the same file if a run was killed before it removed the old name.
        names = [os.stat(name, dir_fd=directory, follow_symlinks=False) for name in (old, new)]
        if not os.path.samestat(*names):
            raise
    os.unlink(old, dir_fd=directory)
