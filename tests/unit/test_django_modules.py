# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""graphite_migrate and graphite_user, run as Ansible runs them, on a real Django project of two migrations."""

from __future__ import annotations

import getpass
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

SETTINGS = """
import local_settings
globals().update(local_settings.__dict__)
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "application.things"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
"""
FIRST = """
from django.db import migrations, models
class Migration(migrations.Migration):
    initial = True
    operations = [migrations.CreateModel("Thing", [("id", models.AutoField(primary_key=True)), ("name", models.TextField())])]
"""
SECOND = """
from django.db import migrations, models
class Migration(migrations.Migration):
    dependencies = [("things", "0001_initial")]
    operations = [migrations.AddField("Thing", "size", models.IntegerField(default=1))]
"""
WIDER_FIRST = """
from django.db import migrations, models
class Migration(migrations.Migration):
    initial = True
    dependencies = [("auth", "0001_initial")]
    operations = [
        migrations.CreateModel("Thing", [
            ("id", models.AutoField(primary_key=True)),
            ("name", models.TextField()),
            ("size", models.IntegerField(default=1)),
            ("owners", models.ManyToManyField("auth.User")),
        ]),
        migrations.CreateModel("Template", [("name", models.CharField(max_length=9, primary_key=True))]),
        migrations.AddField("Template", "thing", models.ForeignKey("things.Thing", models.CASCADE)),
        MORE
    ]
"""
FAILING = """
from django.db import migrations
class Migration(migrations.Migration):
    atomic = False
    dependencies = [("things", "0001_initial")]
    operations = [
        migrations.RunSQL("UPDATE things_thing SET name = 'half done'"),
        migrations.RunSQL("ALTER TABLE nowhere ADD COLUMN size"),
    ]
"""


class Project:
    def __init__(self, root: Path, run_module) -> None:
        self.root = root
        self.run_module = run_module
        self.database = root / "data" / "project.db"
        self.database.parent.mkdir()
        self.migrations = root / "application" / "things" / "migrations"
        self.migrations.mkdir(parents=True)
        for package in (self.migrations, self.migrations.parent, self.migrations.parent.parent):
            (package / "__init__.py").touch()
        (root / "application" / "settings.py").write_text(SETTINGS)
        self.settings = root / "local_settings.py"
        self.settings.write_text(
            f"SECRET_KEY = 'x'\nDATABASES = {{'default': {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': {str(self.database)!r}}}}}\n"
        )
        (self.migrations / "0001_initial.py").write_text(FIRST)

    def module(self, module, /, *flags, **arguments):
        arguments = {
            "python": sys.executable,
            "python_path": [str(self.root)],
            "settings": "application.settings",
            "user": getpass.getuser(),
            **arguments,
        }
        return self.run_module(module, *flags, **arguments)

    def sql(self, statement):
        with closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.execute(statement).fetchall()


@pytest.fixture
def project(tmp_path, run_module):
    return Project(tmp_path, run_module)


@pytest.fixture
def migrated(project):
    assert project.module("graphite_migrate")["changed"]
    return project


def test_check_mode_lists_what_is_pending_and_creates_nothing(project):
    result = project.module("graphite_migrate", "--check")
    assert result["changed"]
    assert "things.0001_initial" in result["pending"]
    assert "auth.0001_initial" in result["pending"]
    assert result["applied"] == []
    assert list(project.database.parent.iterdir()) == []


def test_what_is_pending_is_applied_once(migrated):
    second = migrated.module("graphite_migrate")
    assert not second["changed"]
    assert second["pending"] == []
    (migrated.migrations / "0002_size.py").write_text(SECOND)
    third = migrated.module("graphite_migrate")
    assert third["applied"] == third["pending"] == ["things.0002_size"]
    with closing(sqlite3.connect(third["backup_file"])) as copy:
        assert "size" not in [column[1] for column in copy.execute("PRAGMA table_info(things_thing)")]


def test_a_failed_migration_leaves_the_old_database_and_is_tried_again(migrated):
    migrated.sql("INSERT INTO things_thing (name) VALUES ('kept')")
    (migrated.migrations / "0002_size.py").write_text(FAILING)
    failed = migrated.module("graphite_migrate")
    assert "nowhere" in failed["msg"]
    assert "put back" in failed["msg"]
    assert migrated.sql("SELECT name FROM things_thing") == [("kept",)]
    (migrated.migrations / "0002_size.py").write_text(SECOND)
    assert migrated.module("graphite_migrate")["applied"] == ["things.0002_size"]
    assert migrated.sql("SELECT name, size FROM things_thing") == [("kept", 1)]


def test_a_failed_first_migration_leaves_no_database(project):
    (project.migrations / "0002_size.py").write_text(FAILING)
    assert "removed" in project.module("graphite_migrate")["msg"]
    assert not project.database.exists()


def test_tables_without_a_history_are_adopted(migrated):
    migrated.sql("INSERT INTO things_thing (name) VALUES ('kept')")
    migrated.sql("DROP TABLE django_migrations")
    result = migrated.module("graphite_migrate")
    assert "things.0001_initial" in result["faked"]
    assert migrated.sql("SELECT name FROM things_thing") == [("kept",)]
    assert not migrated.module("graphite_migrate")["changed"]


@pytest.fixture
def older(migrated):
    """A database that a release without migrations made, which knew one table with two columns."""
    migrated.sql("DROP TABLE things_thing")
    migrated.sql("CREATE TABLE things_thing (id integer PRIMARY KEY AUTOINCREMENT, name text NOT NULL)")
    migrated.sql("INSERT INTO things_thing (name) VALUES ('kept')")
    migrated.sql("DELETE FROM django_migrations WHERE app = 'things'")
    (migrated.migrations / "0001_initial.py").write_text(WIDER_FIRST.replace("MORE", ""))
    return migrated


def test_tables_that_are_there_in_part_are_completed(older):
    result = older.module("graphite_migrate")
    assert result["faked"] == ["things.0001_initial"]
    assert result["completed"] == {
        "things.0001_initial": ["table things_template", "table things_thing_owners", "column things_thing.size"]
    }
    assert older.sql("SELECT name, size FROM things_thing") == [("kept", 1)]
    indexed = {table for (table,) in older.sql("SELECT tbl_name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")}
    assert {"things_template", "things_thing_owners"} <= indexed
    with closing(sqlite3.connect(result["backup_file"])) as copy:
        assert copy.execute("SELECT * FROM things_thing").fetchall() == [(1, "kept")]
    assert not older.module("graphite_migrate")["changed"]


@pytest.mark.parametrize(
    ("statement", "operation", "words"),
    [
        ("ALTER TABLE things_thing ADD COLUMN colour text", "", "colour"),
        ("ALTER TABLE things_thing RENAME COLUMN id TO number", "", "id"),
        ("SELECT 1", "migrations.AddField('Thing', 'weight', models.IntegerField()),", "weight"),
        ("SELECT 1", "migrations.RunSQL('SELECT 1'),", "RunSQL"),
    ],
)
def test_tables_that_cannot_be_completed_are_refused_and_stay(older, statement, operation, words):
    older.sql(statement)
    (older.migrations / "0001_initial.py").write_text(WIDER_FIRST.replace("MORE", operation))
    before = list(older.sql("SELECT sql FROM sqlite_master ORDER BY name"))
    result = older.module("graphite_migrate")
    assert result["kind"] == "migration"
    assert words in result["msg"]
    assert "put back" in result["msg"]
    assert older.sql("SELECT sql FROM sqlite_master ORDER BY name") == before
    assert older.sql("SELECT name FROM things_thing") == [("kept",)]


def test_a_newer_database_is_not_touched(migrated):
    migrated.sql("INSERT INTO django_migrations (app, name, applied) VALUES ('things', '0009_future', '2030-01-01')")
    before = migrated.database.read_bytes()
    result = migrated.module("graphite_migrate")
    assert result["kind"] == "newer_database"
    assert "things.0009_future" in result["msg"]
    assert migrated.database.read_bytes() == before


@pytest.mark.parametrize("settings", ["SECRET_KEY = (", "import nowhere", "DATABASES = DATABASE"])
def test_settings_that_do_not_import_are_refused(project, settings):
    project.settings.write_text(settings)
    result = project.module("graphite_migrate")
    assert result["kind"] == "settings"
    assert f"{project.settings}, line 1" in result["msg"]
    assert list(project.database.parent.iterdir()) == []


def test_settings_that_are_not_there_are_refused(project):
    assert "local_elsewhere" in project.module("graphite_migrate", local_settings="local_elsewhere")["msg"]


def test_a_user_is_created_once_and_changed_only_where_it_differs(migrated):
    alice = {"name": "alice", "password": "pass 'word' \"1\"", "email": "a@example.org", "superuser": True}
    checked = migrated.module("graphite_user", "--check", **alice)
    assert checked["changed"]
    assert migrated.sql("SELECT username FROM auth_user") == []
    created = migrated.module("graphite_user", **alice)
    assert created["changed"]
    assert created["user"] == {"email": "a@example.org", "superuser": True, "staff": True, "active": True}
    (stored,) = migrated.sql("SELECT password FROM auth_user")
    assert not migrated.module("graphite_user", **alice)["changed"]
    assert migrated.sql("SELECT password FROM auth_user") == [stored]
    changed = migrated.module("graphite_user", name="alice", superuser=True, staff=False)
    assert changed["changed"]
    assert migrated.sql("SELECT password, email, is_staff FROM auth_user") == [(*stored, "a@example.org", 0)]


def test_a_password_that_differs_is_a_change_unless_only_new_users_get_one(migrated):
    migrated.module("graphite_user", name="alice", password="first-word")
    assert not migrated.module("graphite_user", name="alice", password="second-word", update_password="on_create")["changed"]
    assert migrated.module("graphite_user", name="alice", password="second-word")["changed"]
    assert not migrated.module("graphite_user", name="alice", password="second-word")["changed"]


def test_a_user_goes(migrated):
    migrated.module("graphite_user", name="alice", password="first-word")
    assert migrated.module("graphite_user", name="alice", state="absent")["changed"]
    assert migrated.sql("SELECT * FROM auth_user") == []
    assert not migrated.module("graphite_user", name="alice", state="absent")["changed"]


def test_a_new_user_needs_a_password(migrated):
    assert "password" in migrated.module("graphite_user", name="alice")["msg"]


def test_a_user_needs_tables(project):
    result = project.module("graphite_user", name="alice", password="first-word")
    assert result["kind"] == "no_schema"
    assert not project.database.exists()


def test_a_host_without_graphite_web_would_get_a_dashboard(project):
    arguments = {"name": "shop", "graphs": [{"targets": ["stats.a"]}], "python": "/nowhere/python"}
    checked = project.module("graphite_dashboard", "--check", **arguments)
    assert checked["changed"]
    assert checked["dashboards"][0]["graphs"][0]["targets"] == ["stats.a"]
    assert project.module("graphite_dashboard", **arguments)["kind"] == "not_installed"
