# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Copy, check and replace the file of an SQLite database."""

from __future__ import annotations

import datetime
import os
import sqlite3
import time
from contextlib import closing

from .protocol import Kind, RefusalError

# What SQLite keeps beside a database.
BESIDE = ("-journal", "-wal", "-shm")


def sqlite_path(connection) -> str | None:
    """Return the path of the database file, or ``None`` if the engine is not SQLite with a file."""
    name = str(connection.settings_dict["NAME"])
    return name if connection.vendor == "sqlite" and ":memory:" not in name and "mode=memory" not in name else None


def has_content(path: str | None) -> bool:
    """Return whether there is a database to read; asking SQLite itself would create an empty file."""
    return path is None or (os.path.exists(path) and os.path.getsize(path) > 0)


def back_up(path: str, directory: str | None) -> str:
    """Copy the SQLite database at ``path`` to a new file beside it, or in ``directory``; return the file's path."""
    backup = os.path.join(directory or os.path.dirname(path), f"{os.path.basename(path)}.{stamp()}")
    try:
        copy_database(path, backup)
    except BaseException:
        if os.path.exists(backup):
            os.unlink(backup)
        raise
    return backup


def stamp() -> str:
    """Return the time as a part of a file name."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


def put_back(backup: str, path: str) -> str:
    """Restore the database at ``path`` from its copy; return a sentence about how that went."""
    try:
        copy_database(backup, path)
        return f"The database was put back as it was before; its copy is {backup}."
    except (OSError, sqlite3.Error) as error:
        cause = error
    try:
        # A full disk has room for a rename. What is beside the database belongs to its content.
        for suffix in BESIDE:
            if os.path.exists(path + suffix):
                os.unlink(path + suffix)
        os.replace(backup, path)
    except OSError:
        return f"The database could not be put back ({cause}); its copy from before is {backup}."
    return "The database was put back as it was before."


def copy_database(source: str, target: str) -> None:
    """Copy with SQLite's online backup, which is consistent while others read and write either file."""
    deadline = time.monotonic() + 60

    def give_up(_status: int, _remaining: int, _total: int) -> None:
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("the database is locked for longer than 60 s")

    with closing(sqlite3.connect(source, timeout=60)) as old, closing(sqlite3.connect(target, timeout=60)) as new:
        old.backup(new, progress=give_up)


def refuse_damage(path: str) -> None:
    """Refuse a file that is not a whole SQLite database."""
    try:
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            (message,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        message = str(error)
    if message != "ok":
        raise RefusalError(Kind.DATABASE, f"the database is damaged: {message}")


def put_in_place(incoming: str, path: str, occasion: str) -> str | None:
    """Put an SQLite database in place; return where the one before was moved to, or ``None``."""
    moved = f"{path}.{occasion}-{stamp()}"
    existed = os.path.exists(path)
    # The files beside the database belong to its content; those that another one finds, it takes for its own.
    for suffix in ("", *BESIDE):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, moved + suffix)
    os.rename(incoming, path)
    return moved if existed else None


def remove(path: str) -> None:
    """Remove a database that is unfinished, if it is there."""
    for suffix in ("", "-journal"):
        if os.path.lexists(path + suffix):
            os.unlink(path + suffix)
