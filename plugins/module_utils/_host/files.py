# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Files that have their content, owner and mode at once. This file is private to the collection."""

from __future__ import annotations

import os


def replace_file(path: str, content: str, uid: int, gid: int, mode: int) -> None:
    """Give a file a content, an owner and a mode at once."""
    incoming = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
    if os.path.lexists(incoming):
        os.unlink(incoming)  # of a run that was killed
    descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content.encode("utf-8", "surrogateescape"))
            stream.flush()
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(incoming, path)
    except BaseException:
        os.unlink(incoming)
        raise


def is_written(path: str, content: str, uid: int, gid: int | None, mode: int) -> bool:
    """Return whether a file has a content, an owner and a mode; any group if ``gid`` is ``None``."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            status = os.fstat(stream.fileno())
            is_owned = status.st_uid == uid and gid in (None, status.st_gid)
            return is_owned and status.st_mode & 0o777 == mode and stream.read() == content
    except OSError:
        return False
