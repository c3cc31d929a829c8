# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Copy everything in one database to another."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import os
import platform
from contextlib import suppress

from . import accounts, schema, sqlite
from .protocol import Kind, RefusalError

# Models with rows that the application makes by itself.
_INCIDENTAL = {"contenttypes.contenttype", "auth.permission", "sessions.session", "account.profile"}
# An entry among the migrations, of an application that Django does not know and passes over: its name identifies what the content of
# a database was when it had been moved there.
_MOVED = "metricstack.graphite.moved"


def _target_connection():
    """Return the connection of the other database. Refuses a backend that is not there."""
    from django.core.exceptions import ImproperlyConfigured
    from django.db import connections

    try:
        return connections["target"]
    except ImproperlyConfigured as error:
        raise RefusalError(Kind.NOT_INSTALLED, str(error).partition("\n")[0]) from error


def survey(source) -> dict:
    """Return what a move from one database to another would find, and whether it is ``needed``.

    Refuses what must not be moved, or could not be.
    """
    from django.db.utils import DatabaseError

    target = _target_connection()
    reply: dict = {"needed": False, "source": _address(source), "target": _address(target), "source_rows": {}, "target_rows": {}}
    there = _describe(target)
    try:
        if target.vendor != "sqlite":
            target.ensure_connection()
        same = _same_database(source, target)
    except DatabaseError as error:
        raise RefusalError(Kind.UNREACHABLE, f"{there} cannot be used: {str(error).strip()}") from error
    if same:
        return reply
    try:
        reply["target_rows"] = count_rows(target)
        if reply["target_rows"]:
            schema.pending_migrations(target)
    except DatabaseError as error:
        raise RefusalError(Kind.UNREACHABLE, f"{there} cannot be read: {error}") from error
    except RefusalError as refusal:
        raise RefusalError(refusal.kind, f"{there}: {refusal}") from refusal
    reply["source_rows"] = count_rows(source)
    if not _own_rows(source, reply["source_rows"]):
        return reply
    for connection in (source, target):
        if connection.vendor not in ("sqlite", "postgresql"):
            raise RefusalError(
                Kind.ENGINE, f"{_describe(connection)} is of the kind '{connection.vendor}', which content is not moved from or to"
            )
    pending = schema.pending_migrations(source)
    if pending:
        raise RefusalError(
            Kind.PENDING,
            f"{_describe(source)}, the one in use, lacks migrations ({', '.join(pending)}); apply them before its content is moved",
        )
    _refuse_content(source, target, reply["target_rows"])
    return {**reply, "needed": True}


def move(source) -> dict:
    """Copy all that is in one database to another, or nothing; return what a survey does, and where an SQLite file was moved to."""
    from django.db import transaction

    target = _target_connection()
    reply = survey(source)
    if not reply["needed"]:
        return {**reply, "aside": None}
    path = sqlite.sqlite_path(target)
    incoming = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.incoming") if path else None
    aside = None
    try:
        if path and incoming:
            target.close()
            sqlite.remove(incoming)
            target.settings_dict["NAME"] = incoming
            schema.apply_migrations(target, [], [], {})
        with transaction.atomic(using=source.alias):
            if source.vendor == "postgresql":
                _execute(source, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            with transaction.atomic(using=target.alias):
                if not path:
                    # Another host may be about to do the same.
                    _execute(target, "SELECT pg_advisory_xact_lock(hashtext(%s))", [_MOVED])
                    _refuse_content(source, target, count_rows(target))
                    schema.apply_migrations(target, [], [], {})
                _copy_rows(source, target)
        if path and incoming:
            target.close()
            sqlite.refuse_damage(incoming)
            with open(incoming, "rb") as stream:
                os.fsync(stream.fileno())
            aside = sqlite.put_in_place(incoming, path, "before-move")
            sqlite.remove(_note_path(path))
    except Exception as error:
        if isinstance(error, RefusalError) and error.kind is Kind.CONTENT:
            raise
        message = str(error) if isinstance(error, RefusalError) else f"{type(error).__name__}: {str(error).strip()}"
        raise RefusalError(
            Kind.MOVE,
            f"moving to {_describe(target)} failed: {message}. It has nothing of it, and {_describe(source)} is as it was and in use.",
        ) from error
    finally:
        if path and incoming:
            target.close()
            target.settings_dict["NAME"] = path
            sqlite.remove(incoming)
    _leave_note(source, target)
    return {**reply, "target_rows": count_rows(target), "aside": aside}


def stored_models() -> list:
    """Return the models that have a table of their own, those of many-to-many relations included."""
    from django.apps import apps

    return [model for model in apps.get_models(include_auto_created=True) if model._meta.managed and not model._meta.proxy]


def count_rows(connection) -> dict[str, int]:
    """Return the number of rows of each model that has a table."""
    if not sqlite.has_content(sqlite.sqlite_path(connection)):
        return {}
    tables = set(connection.introspection.table_names())
    return {
        model._meta.label_lower: model._base_manager.using(connection.alias).count()
        for model in stored_models()
        if model._meta.db_table in tables
    }


def _own_rows(connection, rows: dict[str, int]) -> int:
    """Return how many of the rows were created by users."""
    from django.contrib.auth import get_user_model

    number = sum(count for model, count in rows.items() if model not in _INCIDENTAL)
    user = get_user_model()
    if rows.get(user._meta.label_lower):
        number -= user._base_manager.using(connection.alias).filter(**{user.USERNAME_FIELD: accounts.GRAPHITE_WEB_USER}).count()
    return number


def _refuse_content(source, target, rows: dict[str, int]) -> None:
    if not _own_rows(target, rows) or _is_copy(source, target):
        return
    path = sqlite.sqlite_path(target)
    if path and os.path.exists(_note_path(path)):
        return  # the move keeps it as a backup copy
    content = ", ".join(f"{model} {count}" for model, count in rows.items() if count and model not in _INCIDENTAL)
    raise RefusalError(
        Kind.CONTENT, f"{_describe(target)} has content of its own ({content}), and so has {_describe(source)}, the one in use"
    )


def _is_copy(source, target) -> bool:
    """Return whether the target holds nothing but rows that an interrupted run has copied from the same source."""
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
            raise RefusalError(Kind.MOVE, f"{model._meta.label_lower}: {type(error).__name__}: {str(error).strip()}") from error
    for statement in target.ops.sequence_reset_sql(no_style(), models):
        _execute(target, statement)
    target.check_constraints()
    before, after = count_rows(source), count_rows(target)
    if before != after:
        different = [model for model in before if before[model] != after.get(model)]
        raise RefusalError(Kind.MOVE, f"the numbers of rows differ after the copy, those of {', '.join(different)}")
    recorder = MigrationRecorder(target)
    recorder.migration_qs.filter(app=_MOVED).delete()
    recorder.record_applied(_MOVED, _fingerprint(source, target))


def _execute(connection, statement: str, parameters: list | None = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def _same_database(source, target) -> bool:
    if source.vendor != target.vendor:
        return False
    here, there = sqlite.sqlite_path(source), sqlite.sqlite_path(target)
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


def _describe(connection) -> str:
    address = _address(connection)
    server = f"{address['host']}:{address['port']}".strip(":")
    return f"the database {address['name']}" + (f" on {server}" if server else "")


def _note_path(path: str) -> str:
    return f"{path}.moved"


def _leave_note(source, target) -> None:
    """Record for the next run that the content of an SQLite file was moved elsewhere, so that the file may be replaced."""
    path = sqlite.sqlite_path(source)
    if path:
        with suppress(OSError), open(_note_path(path), "w", encoding="utf-8") as note:  # without it, the way back is refused
            note.write(f"Moved to {_describe(target)} on {datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')}.\n")
