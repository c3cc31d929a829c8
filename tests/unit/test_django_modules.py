# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""graphite_migrate, graphite_database_move and graphite_user, run as Ansible runs them, on a real Django project of two migrations."""

from __future__ import annotations

import getpass
import shutil
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
MODELS = """
from django.db import models
class Thing(models.Model):
    name = models.TextField()
class Proxy(Thing):
    class Meta:
        proxy = True
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

# Of several steps, the last of which finds no room.
GROWING = """
from django.db import migrations
class Migration(migrations.Migration):
    atomic = False
    dependencies = [("things", "0001_initial")]
    operations = [
        migrations.RunSQL("CREATE TABLE things_large (content)"),
        migrations.RunSQL("INSERT INTO things_large VALUES (zeroblob(100000))"),
        migrations.RunSQL("INSERT INTO things_large VALUES (zeroblob(10000000))"),
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
        (self.migrations.parent / "models.py").write_text(MODELS)
        self.settings = root / "local_settings.py"
        self.use(self.database)
        (self.migrations / "0001_initial.py").write_text(FIRST)

    def module(self, module, /, *flags, **arguments):
        arguments = {
            "python": sys.executable,
            "python_path": [str(self.root)],
            "settings": "application.settings",
            "run_as": getpass.getuser(),
            **arguments,
        }
        return self.run_module(module, *flags, **arguments)

    def sql(self, statement, database=None):
        with closing(sqlite3.connect(database or self.database)) as connection:
            rows = connection.execute(statement).fetchall()
            connection.commit()
            return rows

    def use(self, database):
        self.settings.write_text(
            f"SECRET_KEY = 'x'\nDATABASES = {{'default': {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': {str(database)!r}}}}}\n"
        )


class Moving:
    """A project and a second place for its database."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.other = project.root / "other" / "project.db"
        self.other.parent.mkdir()

    def __getattr__(self, name):
        return getattr(self._project, name)

    def move(self, *flags, to=None):
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(to or self.other)}
        return self.module("graphite_database_move", *flags, database=database)


@pytest.fixture
def project(tmp_path, run_module):
    return Project(tmp_path, run_module)


@pytest.fixture(scope="session")
def migrated_database(made_once, run_module):
    """Return a database with all tables, which the modules have made once; tests take copies."""

    def make(directory):
        assert Project(directory, run_module).module("graphite_migrate")["changed"]

    return made_once("migrated-project", make) / "data" / "project.db"


@pytest.fixture(scope="session")
def database_with_a_user(made_once, run_module, migrated_database):
    def make(directory):
        project = Project(directory, run_module)
        shutil.copyfile(migrated_database, project.database)
        assert project.module("graphite_user", name="alice", password="first-word")["changed"]

    return made_once("project-with-a-user", make) / "data" / "project.db"


@pytest.fixture
def migrated(project, migrated_database):
    shutil.copyfile(migrated_database, project.database)
    return project


@pytest.fixture
def moving(project, database_with_a_user):
    shutil.copyfile(database_with_a_user, project.database)
    project.sql("UPDATE auth_user SET id = 7")
    project.sql("INSERT INTO auth_user_user_permissions (user_id, permission_id) SELECT 7, max(id) FROM auth_permission")
    project.sql("INSERT INTO things_thing (name) VALUES ('first')")
    return Moving(project)


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
    assert created["users"] == [
        {"name": "alice", "state": "present", "email": "a@example.org", "superuser": True, "staff": True, "active": True}
    ]
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


def test_a_password_may_be_given_as_its_hash(migrated):
    """Django's own, of the test's password."""
    migrated.module("graphite_user", name="alice", password="first-word")
    ((stored,),) = migrated.sql("SELECT password FROM auth_user")
    bob = {"name": "bob", "password_hash": stored}
    assert migrated.module("graphite_user", **bob)["changed"]
    assert migrated.sql("SELECT password FROM auth_user WHERE username = 'bob'") == [(stored,)]
    assert not migrated.module("graphite_user", **bob)["changed"]
    assert not migrated.module("graphite_user", name="bob", password="first-word")["changed"]
    migrated.module("graphite_user", name="bob", password="second-word")
    changed = migrated.module("graphite_user", **bob)
    assert changed["changed"]
    assert stored not in str(changed)


def test_what_is_no_hash_is_refused(migrated):
    assert "pbkdf2_sha256$" in migrated.module("graphite_user", name="alice", password_hash="$6$salt$hash")["msg"]
    assert migrated.sql("SELECT * FROM auth_user") == []


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


def test_everything_moves_to_another_database(moving):
    checked = moving.move("--check")
    assert checked["changed"]
    assert checked["target"]["rows"]["auth.user"] == 1
    assert not moving.other.exists()
    before = moving.database.read_bytes()
    moved = moving.move()
    assert moved["changed"]
    assert moved["target"]["rows"] == moved["source"]["rows"]
    assert "auth.user_user_permissions" in moved["target"]["rows"]
    assert str(moving.other) in moved["shown_diff"]
    assert moving.database.read_bytes() == before
    for table in ("auth_user", "auth_permission", "auth_user_user_permissions", "django_content_type", "things_thing"):
        assert moving.sql(f"SELECT * FROM {table} ORDER BY id", moving.other) == moving.sql(f"SELECT * FROM {table} ORDER BY id")
    moving.use(moving.other)
    assert not moving.module("graphite_migrate")["changed"]
    moving.module("graphite_user", name="bob", password="second-word")
    assert moving.sql("SELECT id FROM auth_user WHERE username = 'bob'", moving.other) == [(8,)]
    assert not moving.move()["changed"]


def test_the_way_back_sets_aside_what_was_left_behind(moving):
    moving.move()
    moving.use(moving.other)
    moving.sql("INSERT INTO things_thing (name) VALUES ('later')", moving.other)
    back = moving.move(to=moving.database)
    assert back["changed"]
    assert moving.sql("SELECT name FROM things_thing ORDER BY id") == [("first",), ("later",)]
    assert moving.sql("SELECT name FROM things_thing", back["aside"]) == [("first",)]
    assert moving.sql("SELECT name FROM things_thing ORDER BY id", moving.other) == [("first",), ("later",)]


def test_content_of_its_own_is_neither_overwritten_nor_shown(moving):
    moving.move()
    moving.sql("UPDATE things_thing SET name = 'its own'", moving.other)
    for flags in ((), ("--check",)):
        refused = moving.move(*flags)
        assert refused["kind"] == "content"
        assert "things.thing 1" in refused["msg"]
        assert "graphite_web_database_move" in refused["msg"]
    assert moving.sql("SELECT name FROM things_thing", moving.other) == [("its own",)]


def test_what_a_run_that_ended_before_the_settings_has_left_is_replaced(moving):
    moving.move()
    moving.sql("UPDATE things_thing SET name = 'changed meanwhile'")
    assert moving.move()["changed"]
    assert moving.sql("SELECT name FROM things_thing", moving.other) == [("changed meanwhile",)]


def test_without_content_there_is_nothing_to_move(migrated):
    moving = Moving(migrated)
    assert not moving.move()["changed"]
    assert not moving.other.exists()


def test_a_database_that_lacks_migrations_or_is_newer_is_not_moved(moving):
    (moving.migrations / "0002_size.py").write_text(SECOND)
    pending = moving.move()
    assert pending["kind"] == "pending"
    assert "things.0002_size" in pending["msg"]
    (moving.migrations / "0002_size.py").unlink()
    moving.sql("INSERT INTO django_migrations (app, name, applied) VALUES ('things', '0009_future', '2030-01-01')")
    assert moving.move()["kind"] == "newer_database"
    moving.sql("DELETE FROM django_migrations WHERE name = '0009_future'")
    moving.move()
    moving.sql("INSERT INTO django_migrations (app, name, applied) VALUES ('things', '0009_future', '2030-01-01')", moving.other)
    newer = moving.move()
    assert newer["kind"] == "newer_database"
    assert str(moving.other) in newer["msg"]


def test_a_move_that_fails_in_the_middle_leaves_nothing(moving):
    moving.sql("INSERT INTO auth_user_groups (user_id, group_id) VALUES (7, 99)")  # a group that is not there
    failed = moving.move()
    assert failed["kind"] == "move"
    assert "auth_user_groups" in failed["msg"]
    assert list(moving.other.parent.iterdir()) == []
    moving.sql("DELETE FROM auth_user_groups")
    assert moving.move()["changed"]


def test_a_full_disk_leaves_both_databases_as_they_were(moving, file_system):
    file_system(moving.other.parent, "size=64k")
    failed = moving.move()
    assert "full" in failed["msg"]
    assert list(moving.other.parent.iterdir()) == []
    assert moving.sql("SELECT name FROM things_thing") == [("first",)]


def test_a_full_disk_leaves_a_database_as_it_was_before_its_migration(migrated, file_system):
    migrated.sql("INSERT INTO things_thing (name) VALUES ('kept')")
    content = migrated.database.read_bytes()
    file_system(migrated.database.parent, f"size={len(content) * 3}")
    migrated.database.write_bytes(content)
    (migrated.migrations / "0002_size.py").write_text(GROWING)
    failed = migrated.module("graphite_migrate")
    assert "full" in failed["msg"]
    assert "put back" in failed["msg"]
    assert migrated.sql("SELECT name FROM things_thing") == [("kept",)]
    assert migrated.sql("SELECT name FROM sqlite_master WHERE name = 'things_large'") == []
    (migrated.migrations / "0002_size.py").write_text(SECOND)
    healed = migrated.module("graphite_migrate")
    assert healed["applied"] == ["things.0002_size"], healed


def test_a_password_of_a_database_is_not_shown(moving):
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(moving.other), "PASSWORD": "hid den"}
    result = moving.module("graphite_database_move", "-vvv", database=database)
    assert result["changed"]
    assert "hid den" not in str(result)


def test_a_backend_that_is_not_there_is_named(moving):
    arguments = {"database": {"ENGINE": "nowhere.backend", "NAME": "x"}}
    assert "nowhere" in moving.module("graphite_database_move", **arguments)["msg"]
    assert moving.module("graphite_database_move", "--check", **arguments)["changed"]


def test_several_users_are_written_together_or_not_at_all(migrated):
    users = [{"name": "alice", "password": "first-word"}, {"name": "bob", "password": "second-word", "superuser": True}]
    refused = migrated.module("graphite_user", users=[*users, {"name": "carol"}])
    assert "carol" in refused["msg"]
    assert migrated.sql("SELECT * FROM auth_user") == []
    created = migrated.module("graphite_user", users=users)
    assert [user["superuser"] for user in created["users"]] == [False, True]
    assert "word" not in created["shown_diff"].replace("password", "")
    result = migrated.module("graphite_user", users=[users[0], {"name": "bob", "state": "absent"}])
    assert result["changed"]
    assert migrated.sql("SELECT username FROM auth_user") == [("alice",)]


def test_schema_and_users_are_brought_in_one_call(project):
    users = [{"name": "alice", "password": "first-word"}]
    checked = project.module("graphite_database", "--check", users=users)
    assert checked["changed"], checked
    assert "things.0001_initial" in checked["pending"]
    assert list(project.database.parent.iterdir()) == []
    first = project.module("graphite_database", users=users)
    assert first["applied"] == first["pending"] == checked["pending"], first
    assert project.sql("SELECT username FROM auth_user") == [("alice",)]
    assert not project.module("graphite_database", users=users)["changed"]
