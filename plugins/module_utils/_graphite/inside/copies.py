# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Write a consistent copy of the database, and put one in its place."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile

from . import schema, sqlite
from .postgresql import DROP_TABLES, run_program
from .protocol import Kind, RefusalError


def dump(connection, descriptor: int) -> dict:
    """Write a consistent copy of the database to an open file, and return what is in it."""
    schema.refuse_without_tables(connection)
    path = sqlite.sqlite_path(connection)
    if path:
        # A name that the next run uses again: a run that is killed leaves one copy and not one more.
        copy = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.copy")
        try:
            sqlite.remove(copy)
            sqlite.copy_database(path, copy)
            sqlite.refuse_damage(copy)
            with open(copy, "rb") as source, open(descriptor, "wb", closefd=False) as target:
                shutil.copyfileobj(source, target)
        except (OSError, sqlite3.Error) as error:
            raise RefusalError(Kind.DATABASE, f"the database could not be copied: {error}") from error
        finally:
            sqlite.remove(copy)
    else:
        run_program(connection, ["pg_dump", "--format=custom"], stdout=descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        run_program(None, ["pg_restore", "--list"], stdin=descriptor, stdout=subprocess.DEVNULL)
    return read_names(connection)


def load(connection, descriptor: int) -> dict:
    """Put the copy of a database from an open file in the place of the database; return where an SQLite file went."""
    path = sqlite.sqlite_path(connection)
    os.lseek(descriptor, 0, os.SEEK_SET)
    if not path:
        with tempfile.TemporaryFile() as script:
            command = ["pg_restore", "--clean", "--if-exists", "--no-owner", "--no-privileges", "--file=-"]
            run_program(None, command, stdin=descriptor, stdout=script)
            script.seek(0)
            # By one transaction: all of it and nothing else, or the database stays as it is.
            command = [
                "psql",
                "--no-psqlrc",
                "--quiet",
                "--single-transaction",
                "--set=ON_ERROR_STOP=1",
                f"--command={DROP_TABLES}",
                "--file=-",
            ]
            run_program(connection, command, stdin=script, stdout=subprocess.DEVNULL)
        return {"aside": None}
    incoming = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.incoming")
    try:
        with open(descriptor, "rb", closefd=False) as source, open(incoming, "wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        sqlite.refuse_damage(incoming)
        _refuse_newer_file(connection, incoming)
        return {"aside": sqlite.put_in_place(incoming, path, "before-restore")}
    except OSError as error:
        raise RefusalError(Kind.DATABASE, f"the database could not be put in place: {error}") from error
    finally:
        sqlite.remove(incoming)


def _refuse_newer_file(connection, incoming: str) -> None:
    path = connection.settings_dict["NAME"]
    connection.close()
    try:
        connection.settings_dict["NAME"] = incoming
        schema.pending_migrations(connection)
    finally:
        connection.close()
        connection.settings_dict["NAME"] = path


def read_names(connection) -> dict:
    """Return the names of the users and of the dashboards, and the vendor of the database."""
    from django.contrib.auth import get_user_model
    from graphite.dashboard.models import Dashboard

    if not sqlite.has_content(sqlite.sqlite_path(connection)):
        return {"vendor": connection.vendor, "users": [], "dashboards": []}
    return {
        "vendor": connection.vendor,
        "users": sorted(get_user_model().objects.values_list("username", flat=True)),
        "dashboards": sorted(Dashboard.objects.values_list("name", flat=True)),
    }
