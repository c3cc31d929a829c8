# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What has to run inside the application: in its Python, with its settings, as its user.

``_django.py`` runs the source of this file as a program. The request comes as JSON on standard input, the reply goes as
JSON to standard output; whatever the application prints meanwhile goes to standard error. Works with Django 3.2 to 5.2.
This file is private to the collection.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib
import inspect
import itertools
import json
import logging
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import closing, suppress
from urllib.parse import urlencode

# What SQLite keeps beside a database.
_BESIDE = ("-journal", "-wal", "-shm")
# Everything that pg_dump takes from there, so that nothing is left that the copy lacks.
_DROP_TABLES = """
SET client_min_messages = warning;
DO $$
DECLARE item record;
BEGIN
  FOR item IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tableowner = current_user LOOP
    EXECUTE format('DROP TABLE %I CASCADE', item.tablename);
  END LOOP;
END $$
"""
# Models with rows that the application makes by itself.
_INCIDENTAL = {"contenttypes.contenttype", "auth.permission", "sessions.session", "account.profile"}
# Makes an account for those who are not logged in, whenever it needs one.
_OWN_USER = "default"
# An entry among the migrations, of an application that Django does not know and passes over: its name tells what the content of
# a database was when it had been moved there.
_MOVED = "metricstack.graphite.moved"


class RefusalError(Exception):
    """A state in which nothing may be done; ``kind`` tells the caller which one."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def load_application(local_settings: str, target: dict | None = None) -> None:
    """Load Django with the application's settings, and with nothing less than ``local_settings``.

    ``target`` is a database besides those of the settings.
    """
    try:
        import django
        from django.conf import settings
    except ImportError as error:
        raise RefusalError("not_installed", f"Django cannot be imported: {error}") from error
    try:
        importlib.import_module(os.environ["DJANGO_SETTINGS_MODULE"].partition(".")[0])
    except ModuleNotFoundError as error:
        raise RefusalError("not_installed", f"the application cannot be imported: {error}") from error
    try:
        settings.DATABASES  # noqa: B018  # the access imports the settings
        # Graphite-web only prints a line when they cannot be imported, and goes on with the wrong database.
        importlib.import_module(local_settings)
        if target is not None:
            settings.DATABASES["target"] = target
        django.setup()
    except Exception as error:
        raise RefusalError(
            "settings",
            f"the settings do not import: {type(error).__name__}: {error}. {_innermost(error, local_settings)}",
        ) from error


def _innermost(error: BaseException, name: str) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"See {error.filename}, line {error.lineno}."
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(f"{name}.py")]
    return f"See {frames[-1].filename}, line {frames[-1].lineno}." if frames else ""


def sqlite_path(connection) -> str | None:
    """Return the path of the database file, or ``None`` if the engine is not SQLite with a file."""
    name = str(connection.settings_dict["NAME"])
    return name if connection.vendor == "sqlite" and ":memory:" not in name and "mode=memory" not in name else None


def has_content(path: str | None) -> bool:
    """Tell whether there is a database to read; asking SQLite itself would create an empty file."""
    return path is None or (os.path.exists(path) and os.path.getsize(path) > 0)


def pending_migrations(connection) -> list[str]:
    """Return the migrations that the database lacks, in the order in which they apply, as ``app.name``."""
    from django.db.migrations.loader import MigrationLoader

    loader = MigrationLoader(connection if has_content(sqlite_path(connection)) else None)
    _refuse_newer_database(loader)
    pending: list[tuple[str, str]] = []
    for leaf in sorted(loader.graph.leaf_nodes()):
        pending += [node for node in loader.graph.forwards_plan(leaf) if node not in loader.applied_migrations and node not in pending]
    return [".".join(node) for node in pending]


def _refuse_newer_database(loader) -> None:
    known = set(loader.disk_migrations)
    for migration in loader.disk_migrations.values():
        known.update(migration.replaces)
    unknown = sorted(".".join(node) for node in set(loader.applied_migrations) - known if node[0] in loader.migrated_apps)
    if unknown:
        raise RefusalError(
            "newer_database",
            "the database is newer than the installed application, which does not know its migrations"
            f" {', '.join(unknown)}. Install the release that wrote it, or restore an older copy of the database.",
        )


def apply_migrations(connection, applied: list[str], faked: list[str], completed: dict[str, list[str]]) -> None:
    """Apply what is pending, and add what was done to the lists."""
    from django.core.management import call_command
    from django.core.management.commands import migrate as command

    class AdoptingExecutor(command.MigrationExecutor):
        def detect_soft_applied(self, project_state, migration):
            follows = any(app == migration.app_label for app, _name in migration.dependencies)
            if migration.initial is False or (migration.initial is None and follows):
                return False, project_state
            after = migration.mutate_state(project_state)
            made = complete_tables(self.connection, migration, after, self.loader.project_state())
            if made:
                completed[f"{migration.app_label}.{migration.name}"] = made
            return made is not None, after if made is not None else project_state

    class RecordingCommand(command.Command):
        def migration_progress_callback(self, action, migration=None, fake=False):
            if action == "apply_success":
                (faked if fake else applied).append(f"{migration.app_label}.{migration.name}")

    # --fake-initial adopts tables that an older release made without a record of it, but only if it made all of them.
    command.MigrationExecutor = AdoptingExecutor
    call_command(
        RecordingCommand(),
        database=connection.alias,
        interactive=False,
        fake_initial=True,
        run_syncdb=True,
        verbosity=0,
        skip_checks=True,
    )


def migrate(connection, backup_directory: str | None) -> dict:
    """Apply what is pending. An SQLite file is copied aside before and put back if a migration fails."""
    applied: list[str] = []
    faked: list[str] = []
    completed: dict[str, list[str]] = {}
    path = sqlite_path(connection)
    existed = has_content(path)
    try:
        backup = back_up(path, backup_directory) if path and existed else None
    except (OSError, sqlite3.Error) as error:
        raise RefusalError(
            "migration", f"the database could not be copied aside: {error}. Nothing was changed; make room or give another directory."
        ) from error
    try:
        apply_migrations(connection, applied, faked, completed)
    except Exception as error:
        connection.close()
        words = str(error) if isinstance(error, RefusalError) else f"{type(error).__name__}: {error}"
        outcome = "The database was left as far as it came; the next run goes on from there."
        if path and backup:
            outcome = put_back(backup, path)
        elif path:
            if os.path.exists(path):
                os.unlink(path)
            outcome = "The unfinished database was removed."
        raise RefusalError("migration", f"migrating failed after {applied or 'nothing'}: {words}. {outcome}") from error
    return {"applied": applied, "faked": faked, "completed": completed, "backup_file": backup}


def complete_tables(connection, migration, after, last) -> list[str] | None:
    """Make what is missing where an initial migration's tables are there in part; no row is dropped or changed.

    ``after`` is Django's state after the migration, ``last`` the one after all of them. Returns what was made, or ``None`` if
    the migration has to be applied.
    """
    from django.db.migrations import operations

    touched = {
        getattr(operation, "model_name_lower", "") or operation.name_lower
        for operation in migration.operations
        if isinstance(operation, (operations.CreateModel, operations.AddField))
    }
    models = [after.apps.get_model(migration.app_label, name) for name in sorted(touched) if (migration.app_label, name) in after.models]
    models = [model for model in models if model._meta.managed and not model._meta.proxy and not model._meta.swapped]
    tables = _columns_by_table(connection)
    present = [model for model in models if model._meta.db_table in tables]
    if not present:
        return None
    judged = (
        operations.CreateModel,
        operations.AddField,
        operations.AlterField,
        operations.AlterUniqueTogether,
        operations.AddIndex,
        operations.AddConstraint,
        operations.AlterModelOptions,
        operations.AlterModelManagers,
    )
    new_models = [model for model in models if model not in present]
    new_models += [
        field.remote_field.through
        for model in present
        for field in model._meta.local_many_to_many
        if field.remote_field.through._meta.auto_created and field.remote_field.through._meta.db_table not in tables
    ]
    new_fields = [(model, field) for model in present for field in _missing_fields(connection, model, tables[model._meta.db_table], last)]
    if not (new_models or new_fields):
        return []
    for operation in migration.operations:
        if not isinstance(operation, judged):
            raise RefusalError(
                "migration",
                f"{migration.app_label}.{migration.name} also has the operation {type(operation).__name__}, of which nobody can"
                " tell whether it was done",
            )
    with connection.schema_editor(atomic=migration.atomic) as editor:
        for model in new_models:
            editor.create_model(model)
        for model, field in new_fields:
            editor.add_field(model, field)
    made = [f"table {model._meta.db_table}" for model in new_models]
    return made + [f"column {model._meta.db_table}.{field.column}" for model, field in new_fields]


def _columns_by_table(connection) -> dict[str, list]:
    introspection = connection.introspection
    with connection.cursor() as cursor:
        return {table: introspection.get_table_description(cursor, table) for table in introspection.table_names(cursor)}


def _missing_fields(connection, model, columns: list, last) -> list:
    """Return the fields that the table of ``model`` has no column for; refuse those that could not be added without a loss."""
    try:
        today = {field.column for field in last.apps.get_model(model._meta.label)._meta.local_concrete_fields}
    except LookupError:
        today = set()
    table = model._meta.db_table
    there = {column.name for column in columns}
    # A column that a later migration removes is missing from a database that has lost its history, not its schema.
    fields = [field for field in model._meta.local_concrete_fields if field.column not in there and field.column in today]
    foreign = sorted(there - {field.column for field in model._meta.local_concrete_fields})
    if fields and foreign:
        # SQLite's way to add a column is a new table of the known columns.
        raise RefusalError(
            "migration",
            f"table {table} lacks {fields[0].column}, and has {', '.join(foreign)}, which the application does not know",
        )
    filled = bool(fields) and model._default_manager.using(connection.alias).only("pk").exists()
    for field in fields:
        if field.primary_key:
            raise RefusalError("migration", f"table {table} has no {field.column}, which is its key")
        if filled and not (field.null or field.has_default() or (field.blank and field.empty_strings_allowed)):
            raise RefusalError("migration", f"table {table} has rows without {field.column}, for which there is no default")
    return fields


def back_up(path: str, directory: str | None) -> str:
    """Copy the SQLite database at ``path`` to a new file beside it, or in ``directory``; return the file's path."""
    backup = os.path.join(directory or os.path.dirname(path), f"{os.path.basename(path)}.{_stamp()}")
    try:
        copy_database(path, backup)
    except BaseException:
        if os.path.exists(backup):
            os.unlink(backup)
        raise
    return backup


def _stamp() -> str:
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
        for suffix in _BESIDE:
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
            (words,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        words = str(error)
    if words != "ok":
        raise RefusalError("database", f"the database is damaged: {words}")


def dump(connection, descriptor: int) -> dict:
    """Write a consistent copy of the database to an open file, and return what is in it."""
    path = sqlite_path(connection)
    if path:
        # A name that the next run uses again: a run that is killed leaves one copy and not one more.
        copy = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.copy")
        try:
            _remove(copy)
            copy_database(path, copy)
            refuse_damage(copy)
            with open(copy, "rb") as source, open(descriptor, "wb", closefd=False) as target:
                shutil.copyfileobj(source, target)
        except (OSError, sqlite3.Error) as error:
            raise RefusalError("database", f"the database could not be copied: {error}") from error
        finally:
            _remove(copy)
    else:
        _postgresql(connection, ["pg_dump", "--format=custom"], stdout=descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        _postgresql(None, ["pg_restore", "--list"], stdin=descriptor, stdout=subprocess.DEVNULL)
    return {"vendor": connection.vendor, **read_names(connection)}


def load(connection, descriptor: int) -> dict:
    """Put the copy of a database from an open file in the place of the database; return where an SQLite file went."""
    path = sqlite_path(connection)
    os.lseek(descriptor, 0, os.SEEK_SET)
    if not path:
        with tempfile.TemporaryFile() as script:
            words = ["pg_restore", "--clean", "--if-exists", "--no-owner", "--no-privileges", "--file=-"]
            _postgresql(None, words, stdin=descriptor, stdout=script)
            script.seek(0)
            # By one transaction: all of it and nothing else, or the database stays as it is.
            words = [
                "psql",
                "--no-psqlrc",
                "--quiet",
                "--single-transaction",
                "--set=ON_ERROR_STOP=1",
                f"--command={_DROP_TABLES}",
                "--file=-",
            ]
            _postgresql(connection, words, stdin=script, stdout=subprocess.DEVNULL)
        return {"aside": None}
    incoming = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.incoming")
    try:
        with open(descriptor, "rb", closefd=False) as source, open(incoming, "wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        refuse_damage(incoming)
        _refuse_newer_file(connection, incoming)
        return {"aside": put_in_place(incoming, path, "before-restore")}
    except OSError as error:
        raise RefusalError("database", f"the database could not be put in place: {error}") from error
    finally:
        _remove(incoming)


def put_in_place(incoming: str, path: str, occasion: str) -> str | None:
    """Give an SQLite database its place; return where that went which was there."""
    aside = f"{path}.{occasion}-{_stamp()}"
    existed = os.path.exists(path)
    # The files beside the database belong to its content; those that another one finds, it takes for its own.
    for suffix in ("", *_BESIDE):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    os.rename(incoming, path)
    return aside if existed else None


def _refuse_newer_file(connection, incoming: str) -> None:
    path = connection.settings_dict["NAME"]
    connection.close()
    try:
        connection.settings_dict["NAME"] = incoming
        pending_migrations(connection)
    finally:
        connection.close()
        connection.settings_dict["NAME"] = path


def target_connection():
    """Return the connection of the other database. Refuses a backend that is not there."""
    from django.core.exceptions import ImproperlyConfigured
    from django.db import connections

    try:
        return connections["target"]
    except ImproperlyConfigured as error:
        raise RefusalError("not_installed", str(error).partition("\n")[0]) from error


def survey(source, target) -> dict:
    """Return what a move from one database to another would find, and whether it is ``needed``.

    Refuses what must not be moved, or could not be.
    """
    from django.db.utils import DatabaseError

    reply: dict = {"needed": False, "source": _address(source), "target": _address(target), "source_rows": {}, "target_rows": {}}
    there = _told(target)
    try:
        if target.vendor != "sqlite":
            target.ensure_connection()
        same = _same_database(source, target)
    except DatabaseError as error:
        raise RefusalError("unreachable", f"{there} cannot be used: {str(error).strip()}") from error
    if same:
        return reply
    try:
        reply["target_rows"] = count_rows(target)
        if reply["target_rows"]:
            pending_migrations(target)
    except DatabaseError as error:
        raise RefusalError("unreachable", f"{there} cannot be read: {error}") from error
    except RefusalError as refusal:
        raise RefusalError(refusal.kind, f"{there}: {refusal}") from refusal
    reply["source_rows"] = count_rows(source)
    if not _own_rows(source, reply["source_rows"]):
        return reply
    for connection in (source, target):
        if connection.vendor not in ("sqlite", "postgresql"):
            raise RefusalError("engine", f"{_told(connection)} is of the kind '{connection.vendor}', which content is not moved from or to")
    pending = pending_migrations(source)
    if pending:
        raise RefusalError(
            "pending", f"{_told(source)}, the one in use, lacks migrations ({', '.join(pending)}); bring it up to date before it is moved"
        )
    _refuse_content(source, target, reply["target_rows"])
    return {**reply, "needed": True}


def move(source, target) -> dict:
    """Bring all that is in one database to another, or nothing; return what a survey does, and where an SQLite file went."""
    from django.db import transaction

    reply = survey(source, target)
    if not reply["needed"]:
        return {**reply, "aside": None}
    path = sqlite_path(target)
    incoming = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.incoming") if path else None
    aside = None
    try:
        if path and incoming:
            target.close()
            _remove(incoming)
            target.settings_dict["NAME"] = incoming
            apply_migrations(target, [], [], {})
        with transaction.atomic(using=source.alias):
            if source.vendor == "postgresql":
                _execute(source, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            with transaction.atomic(using=target.alias):
                if not path:
                    # Another host may be about to do the same.
                    _execute(target, "SELECT pg_advisory_xact_lock(hashtext(%s))", [_MOVED])
                    _refuse_content(source, target, count_rows(target))
                    apply_migrations(target, [], [], {})
                _copy_rows(source, target)
        if path and incoming:
            target.close()
            refuse_damage(incoming)
            with open(incoming, "rb") as stream:
                os.fsync(stream.fileno())
            aside = put_in_place(incoming, path, "before-move")
            _remove(_note_path(path))
    except Exception as error:
        if isinstance(error, RefusalError) and error.kind == "content":
            raise
        words = str(error) if isinstance(error, RefusalError) else f"{type(error).__name__}: {str(error).strip()}"
        raise RefusalError(
            "move", f"moving to {_told(target)} failed: {words}. It has nothing of it, and {_told(source)} is as it was and in use."
        ) from error
    finally:
        if path and incoming:
            target.close()
            target.settings_dict["NAME"] = path
            _remove(incoming)
    _leave_note(source, target)
    return {**reply, "target_rows": count_rows(target), "aside": aside}


def stored_models() -> list:
    """Return the models that have a table of their own, those of many-to-many relations included."""
    from django.apps import apps

    return [model for model in apps.get_models(include_auto_created=True) if model._meta.managed and not model._meta.proxy]


def count_rows(connection) -> dict[str, int]:
    """Return the number of rows of each model that has a table."""
    if not has_content(sqlite_path(connection)):
        return {}
    tables = set(connection.introspection.table_names())
    return {
        model._meta.label_lower: model._base_manager.using(connection.alias).count()
        for model in stored_models()
        if model._meta.db_table in tables
    }


def _own_rows(connection, rows: dict[str, int]) -> int:
    """Return how many of the rows are there because somebody has put them there."""
    from django.contrib.auth import get_user_model

    number = sum(count for model, count in rows.items() if model not in _INCIDENTAL)
    user = get_user_model()
    if rows.get(user._meta.label_lower):
        number -= user._base_manager.using(connection.alias).filter(**{user.USERNAME_FIELD: _OWN_USER}).count()
    return number


def _refuse_content(source, target, rows: dict[str, int]) -> None:
    if not _own_rows(target, rows) or _is_copy(source, target):
        return
    path = sqlite_path(target)
    if path and os.path.exists(_note_path(path)):
        return  # it is set aside
    content = ", ".join(f"{model} {count}" for model, count in rows.items() if count and model not in _INCIDENTAL)
    raise RefusalError("content", f"{_told(target)} has content of its own ({content}), and so has {_told(source)}, the one in use")


def _is_copy(source, target) -> bool:
    """Tell whether the target holds nothing but what a run that ended early has moved there from the same source."""
    from django.db.migrations.recorder import MigrationRecorder

    recorder = MigrationRecorder(target)
    if not recorder.has_table():
        return False
    names = {name for app, name in recorder.applied_migrations() if app == _MOVED}
    return bool(names) and names == {_fingerprint(source, target)}


def _fingerprint(source, target) -> str:
    """Return a text for what the target has got from the source; it changes with each row."""
    digest = hashlib.sha256(json.dumps([platform.node(), _address(source)]).encode())
    tables = set(target.introspection.table_names())
    for model in stored_models():
        if model._meta.db_table in tables:
            digest.update(model._meta.label_lower.encode())
            for row in _rows(model, target):
                digest.update(repr(row).encode())
    return digest.hexdigest()


def _rows(model, connection):
    names = [field.attname for field in _fields(model)]
    return model._base_manager.using(connection.alias).order_by("pk").values_list(*names).iterator(chunk_size=1000)


def _fields(model) -> list:
    return [field for field in model._meta.local_concrete_fields if not getattr(field, "generated", False)]


def _copy_rows(source, target) -> None:
    """Make the rows of the target those of the source, with their keys, in the transaction that is open."""
    from django.core.management.color import no_style
    from django.db.migrations.recorder import MigrationRecorder
    from django.db.models.query import QuerySet

    models = stored_models()
    for model in models:  # in any order: the references are looked at in the end
        _execute(target, f"DELETE FROM {target.ops.quote_name(model._meta.db_table)}")
    for model in models:
        fields = _fields(model)
        names = [field.attname for field in fields]
        size = max(target.ops.bulk_batch_size(fields, range(500)), 1)
        rows = _rows(model, source)
        try:
            while batch := [model(**dict(zip(names, row))) for row in itertools.islice(rows, size)]:
                # As it is stored, whatever the fields do before they are saved.
                QuerySet(model, using=target.alias)._insert(batch, fields, raw=True, using=target.alias)
        except Exception as error:
            raise RefusalError("move", f"{model._meta.label_lower}: {type(error).__name__}: {str(error).strip()}") from error
    for statement in target.ops.sequence_reset_sql(no_style(), models):
        _execute(target, statement)
    target.check_constraints()
    before, after = count_rows(source), count_rows(target)
    if before != after:
        different = [model for model in before if before[model] != after.get(model)]
        raise RefusalError("move", f"the numbers of rows differ after the copy, those of {', '.join(different)}")
    recorder = MigrationRecorder(target)
    recorder.migration_qs.filter(app=_MOVED).delete()
    recorder.record_applied(_MOVED, _fingerprint(source, target))


def _execute(connection, statement: str, parameters: list | None = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def _same_database(source, target) -> bool:
    if source.vendor != target.vendor:
        return False
    here, there = sqlite_path(source), sqlite_path(target)
    if here and there:
        return os.path.realpath(here) == os.path.realpath(there)
    if _address(source) == _address(target) or source.vendor != "postgresql":
        return _address(source) == _address(target)
    # The same server has several names.
    identities = []
    for connection in (source, target):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_postmaster_start_time(), current_database(), current_schema()")
            identities.append(cursor.fetchone())
    return identities[0] == identities[1]


def _address(connection) -> dict[str, str]:
    return {key.lower(): str(connection.settings_dict[key]) for key in ("ENGINE", "NAME", "HOST", "PORT")}


def _told(connection) -> str:
    address = _address(connection)
    place = f"{address['host']}:{address['port']}".strip(":")
    return f"the database {address['name']}" + (f" on {place}" if place else "")


def _note_path(path: str) -> str:
    return f"{path}.moved"


def _leave_note(source, target) -> None:
    """Tell the next run that an SQLite file has had its content moved elsewhere, so that it may be set aside."""
    path = sqlite_path(source)
    if path:
        with suppress(OSError), open(_note_path(path), "w", encoding="utf-8") as note:  # without it, the way back is refused
            note.write(f"Moved to {_told(target)} on {datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')}.\n")


def read_names(connection) -> dict[str, list[str]]:
    """Return the names of the users and of the dashboards."""
    from django.contrib.auth import get_user_model
    from graphite.dashboard.models import Dashboard

    if not has_content(sqlite_path(connection)):
        return {"users": [], "dashboards": []}
    return {
        "users": sorted(get_user_model().objects.values_list("username", flat=True)),
        "dashboards": sorted(Dashboard.objects.values_list("name", flat=True)),
    }


def _remove(path: str) -> None:
    for suffix in ("", "-journal"):
        if os.path.lexists(path + suffix):
            os.unlink(path + suffix)


def _postgresql(connection, words: list[str], **streams) -> None:
    """Run one of PostgreSQL's programs on the database, as Django's own shell would be; the password is in the environment."""
    arguments: list[str] = []
    environment = dict(os.environ)
    if connection is not None:
        if connection.vendor != "postgresql":
            raise RefusalError(
                "engine", f"a database of the kind '{connection.vendor}' is not known to these modules; copy it with its own tools"
            )
        (_psql, *arguments), more = connection.client.settings_to_cmd_args_env(connection.settings_dict, [])
        environment.update(more or {})
    try:
        process = subprocess.run([*words, *arguments], env=environment, stderr=subprocess.PIPE, check=False, **streams)
    except FileNotFoundError as error:
        raise RefusalError("database", f"{words[0]} is not there; install postgresql-client") from error
    if process.returncode != 0:
        raise RefusalError("database", f"{words[0]}: {process.stderr.decode('utf-8', 'replace').strip()[-2000:]}")


def read_user(name: str, password: str | None) -> dict | None:
    """Return the state of a user, or ``None``. ``password_matches`` is ``None`` without a password to compare."""
    from django.contrib.auth import get_user_model
    from django.contrib.auth.hashers import check_password

    user = get_user_model().objects.filter(username=name).first()
    if user is None:
        return None
    return {
        "email": user.email,
        "superuser": user.is_superuser,
        "staff": user.is_staff,
        "active": user.is_active,
        # Not user.check_password(), which may store the password anew.
        "password_matches": None if password is None else check_password(password, user.password),
    }


def write_user(name: str, wanted: dict | None, password: str | None) -> None:
    """Give the user the state ``wanted``; ``None`` deletes the user."""
    from django.contrib.auth import get_user_model
    from django.db import transaction

    users = get_user_model().objects
    with transaction.atomic():
        if wanted is None:
            users.filter(username=name).delete()
            return
        user = users.filter(username=name).first() or users.model(username=name)
        user.email = wanted["email"]
        user.is_superuser = wanted["superuser"]
        user.is_staff = wanted["staff"]
        user.is_active = wanted["active"]
        if password is not None:
            user.set_password(password)
        user.save()


def read_dashboards(names: list[str]) -> dict[str, str]:
    """Return the states of those of the dashboards that there are, as they are stored, by name."""
    from graphite.dashboard.models import Dashboard

    return dict(Dashboard.objects.filter(name__in=names).values_list("name", "state"))


def write_dashboards(dashboards: list[dict]) -> None:
    """Give each dashboard its ``state`` and leave its owners alone; ``None`` deletes it. All are written, or none."""
    from django.db import transaction
    from graphite.dashboard.models import Dashboard

    with transaction.atomic():
        for dashboard in dashboards:
            name, state = dashboard["name"], dashboard["state"]
            if state is None:
                Dashboard.objects.filter(name=name).delete()
            elif not Dashboard.objects.filter(name=name).update(state=state):
                Dashboard.objects.create(name=name, state=state)


def check_dashboards(dashboards: list[dict]) -> dict:
    """Have graphite-web judge the targets of ``graphs``, the parameters of requests for them; touch neither disk nor network.

    Returns what a request would fail with as ``refused``, and what graphite-web calls wrong and would try nevertheless as
    ``doubtful``; both are lists of a dashboard's name, a target and graphite-web's words.
    """
    from django.conf import settings
    from django.http import HttpRequest, QueryDict
    from graphite import storage
    from graphite.render import evaluator
    from graphite.render.views import parseOptions

    logging.disable()  # graphite-web's own log is for what its users ask
    storage.STORE.finders = []
    evaluator.SeriesFunction = _without_computing(evaluator.SeriesFunction)
    as_set = settings.ENFORCE_INPUT_VALIDATION
    refused: dict[tuple[str, str], str] = {}
    doubtful: dict[tuple[str, str], str] = {}
    for name, graph in ((dashboard["name"], graph) for dashboard in dashboards for graph in dashboard["graphs"]):
        request = HttpRequest()
        request.GET = QueryDict(urlencode(graph, doseq=True))
        try:
            options = parseOptions(request)[1]
        except Exception as error:  # renderView, too, calls any of them a wrong parameter
            refused.update(((name, target), str(error)) for target in graph["target"])
            continue
        for target in graph["target"]:
            if options["graphType"] == "pie" and ":" in target:
                continue  # a label and a number, no expression
            settings.ENFORCE_INPUT_VALIDATION = True
            words = _complaint(target, options)
            if words is None:
                continue
            settings.ENFORCE_INPUT_VALIDATION = as_set
            (doubtful if _complaint(target, options) is None else refused)[name, target] = words
    return {
        kind: [(*place, words) for place, words in complaints.items()]
        for kind, complaints in (("refused", refused), ("doubtful", doubtful))
    }


def _complaint(target: str, options: dict) -> str | None:
    """Return what graphite-web says against a target, or ``None``."""
    from graphite.errors import InputParameterError
    from graphite.render import evaluator, grammar_unsafe
    from pyparsing import ParseBaseException

    try:
        evaluator.evaluateTarget({**options, "data": [], "prefetched": {}}, target)
        # Graphite-web ignores what comes after the first expression, and shows something else than was written.
        grammar_unsafe.grammar.parseString(target, parseAll=True)
    except InputParameterError as error:
        return str(error.args[0] if error.args else error)
    except ParseBaseException as error:
        words = str(error)
        # Where the whole grammar is expected, one release of pyparsing names all of it, and another nothing.
        return words if words.startswith("Expected") and len(words) < 200 else "found " + words.rpartition("found ")[2]
    except TypeError as error:
        return str(error)
    except Exception:
        return None  # not about the target
    return None


def _without_computing(find_function):
    """Return a ``SeriesFunction`` whose functions only look at how they are called: without series, they fail in ways of their own."""

    def find(name):
        function = find_function(name)

        def idle(*args, **kwargs):
            try:
                signature = inspect.signature(function, follow_wrapped=False)
            except ValueError:  # not written in Python
                return []
            signature.bind(*args, **kwargs)
            return []

        if hasattr(function, "params"):
            idle.params = function.params  # type: ignore[attr-defined]
        return idle

    return find


def answer(request: dict) -> dict:
    """Do what the request asks for and return the reply."""
    load_application(request["local_settings"], request.get("target"))
    from django.db import connections
    from django.db.utils import DatabaseError

    connection = connections[request.get("database", "default")]
    try:
        if request["action"] == "pending":
            return {"pending": pending_migrations(connection), "database": str(connection.settings_dict["NAME"])}
        if request["action"] == "migrate":
            return migrate(connection, request["backup_directory"])
        if request["action"] == "survey":
            return survey(connection, target_connection())
        if request["action"] == "move":
            return move(connection, target_connection())
        if request["action"] == "check_dashboards":
            return check_dashboards(request["dashboards"])
        if request["action"] == "load":
            return load(connection, request["descriptor"])
        if request["action"] == "read_names":
            return {"vendor": connection.vendor, **read_names(connection)}
        if not has_content(sqlite_path(connection)):
            raise RefusalError("no_schema", "the database has no tables yet; run metricstack.graphite.graphite_migrate before.")
        if request["action"] == "dump":
            return dump(connection, request["descriptor"])
        if request["action"] == "read_user":
            return {"user": read_user(request["name"], request["password"])}
        if request["action"] == "write_user":
            write_user(request["name"], request["wanted"], request["password"])
            return {}
        if request["action"] == "read_dashboards":
            return {"stored": read_dashboards(request["names"])}
        verdict = check_dashboards(request["dashboards"])
        if not verdict["refused"]:
            write_dashboards(request["dashboards"])
        return verdict
    except DatabaseError as error:
        missing = "no such table" in str(error) or "does not exist" in str(error)
        raise RefusalError("no_schema" if missing else "database", f"{type(error).__name__}: {error}") from error
    except PermissionError as error:
        raise RefusalError("permission", f"{error}. Give the file to the application's user.") from error
    finally:
        connections.close_all()


def main() -> None:
    reply_stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        reply = answer(json.load(sys.stdin))
    except RefusalError as refusal:
        reply = {"refusal": refusal.kind, "message": str(refusal)}
    json.dump(reply, reply_stream)
    reply_stream.close()


if __name__ == "__main__":
    main()
