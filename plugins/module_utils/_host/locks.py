# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Which process holds a lock of apt or dpkg. This file is private to the collection.

They are record locks of fcntl(2), so that the kernel names the holder without a lock being taken.
"""

from __future__ import annotations

import fcntl
import struct
import time

PATHS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")
# struct flock: l_type, l_whence, l_start, l_len, l_pid; padded at the end as the compiler does.
_FLOCK = "hhqqi0q"


def holder(path: str) -> int | None:
    """Return the id of the process that holds a lock on the file, 0 if it is in another namespace, or ``None``."""
    try:
        with open(path, "rb") as stream:
            answer = fcntl.fcntl(stream, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0))
    except (FileNotFoundError, PermissionError):
        return None
    kind, _whence, _start, _length, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else pid


def describe(pid: int) -> str:
    """Return a process by its command and its id, such as ``/usr/bin/unattended-upgrade (process 123)``."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            command = stream.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        command = ""
    return f"{command[:120] or 'another process'} (process {pid})" if pid else "a process of another namespace"


def wait(timeout: float, paths: tuple[str, ...] = PATHS, interval: float = 0.5) -> tuple[list[str], bool]:
    """Wait until no process holds a lock on any of the files, for ``timeout`` seconds at most.

    Returns the holders that were waited for, in the order in which they were seen, and whether the locks are free.
    """
    deadline = time.monotonic() + timeout
    seen: dict[int, str] = {}
    while True:
        held = next((pid for pid in map(holder, paths) if pid is not None), None)
        if held is None:
            return list(seen.values()), True
        # The last one is the one that is in the way at the end.
        seen[held] = seen.pop(held, "") or describe(held)
        if time.monotonic() >= deadline:
            return list(seen.values()), False
        time.sleep(interval)
