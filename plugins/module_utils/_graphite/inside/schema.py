# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Upgrade the database to the schema of the installed release."""

from __future__ import annotations

import os
import sqlite3

from . import sqlite
from .protocol import Kind, RefusalError


def pending_migrations(connection) -> list[str]:
    """Return the migrations that the database lacks, in the order in which they apply, as ``app.name``."""
    from django.db.migrations.loader import MigrationLoader

    loader = MigrationLoader(connection if sqlite.has_content(sqlite.sqlite_path(connection)) else None)
    _refuse_newer_database(loader)
    pending: list[tuple[str, str]] = []
    for leaf in sorted(loader.graph.leaf_nodes()):
        pending += [node for node in loader.graph.forwards_plan(leaf) if node not in loader.applied_migrations and node not in pending]
    return [".".join(node) for node in pending]


def report_pending(connection) -> dict:
    """Return the migrations that the database lacks, and the name of the database."""
    return {"pending": pending_migrations(connection), "database": str(connection.settings_dict["NAME"])}


def refuse_without_tables(connection) -> None:
    """Refuse an SQLite database that is not there yet; opening it would create an empty file."""
    if not sqlite.has_content(sqlite.sqlite_path(connection)):
        raise RefusalError(Kind.NO_SCHEMA, "the database has no tables yet; run metricstack.graphite.graphite_migrate before.")


def _refuse_newer_database(loader) -> None:
    known = set(loader.disk_migrations)
    for migration in loader.disk_migrations.values():
        known.update(migration.replaces)
    unknown = sorted(".".join(node) for node in set(loader.applied_migrations) - known if node[0] in loader.migrated_apps)
    if unknown:
        raise RefusalError(
            Kind.NEWER_DATABASE,
            "the database is newer than the installed application, which does not know its migrations"
            f" {', '.join(unknown)}. Install the release that wrote it, or restore an older copy of the database.",
        )


def migrate(connection, backup_directory: str | None) -> dict:
    """Apply what is pending. An SQLite file is copied before, and restored if a migration fails."""
    applied: list[str] = []
    faked: list[str] = []
    completed: dict[str, list[str]] = {}
    path = sqlite.sqlite_path(connection)
    existed = sqlite.has_content(path)
    try:
        backup = sqlite.back_up(path, backup_directory) if path and existed else None
    except (OSError, sqlite3.Error) as error:
        raise RefusalError(
            Kind.MIGRATION, f"the database could not be copied: {error}. Nothing was changed; make room or give another directory."
        ) from error
    try:
        apply_migrations(connection, applied, faked, completed)
    except Exception as error:
        connection.close()
        message = str(error) if isinstance(error, RefusalError) else f"{type(error).__name__}: {error}"
        outcome = "The database was left as far as it came; the next run goes on from there."
        if path and backup:
            outcome = sqlite.put_back(backup, path)
        elif path:
            if os.path.exists(path):
                os.unlink(path)
            outcome = "The unfinished database was removed."
        raise RefusalError(Kind.MIGRATION, f"migrating failed after {applied or 'nothing'}: {message}. {outcome}") from error
    return {"applied": applied, "faked": faked, "completed": completed, "backup_file": backup}


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
    executor, command.MigrationExecutor = command.MigrationExecutor, AdoptingExecutor
    try:
        call_command(
            RecordingCommand(),
            database=connection.alias,
            interactive=False,
            fake_initial=True,
            run_syncdb=True,
            verbosity=0,
            skip_checks=True,
        )
    finally:
        command.MigrationExecutor = executor


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
    known = (
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
        if not isinstance(operation, known):
            raise RefusalError(
                Kind.MIGRATION,
                f"{migration.app_label}.{migration.name} also has the operation {type(operation).__name__}, for which it is unknown"
                " whether it was done",
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
            Kind.MIGRATION,
            f"table {table} lacks {fields[0].column}, and has {', '.join(foreign)}, which the application does not know",
        )
    filled = bool(fields) and model._default_manager.using(connection.alias).only("pk").exists()
    for field in fields:
        if field.primary_key:
            raise RefusalError(Kind.MIGRATION, f"table {table} has no {field.column}, which is its key")
        if filled and not (field.null or field.has_default() or (field.blank and field.empty_strings_allowed)):
            raise RefusalError(Kind.MIGRATION, f"table {table} has rows without {field.column}, for which there is no default")
    return fields
