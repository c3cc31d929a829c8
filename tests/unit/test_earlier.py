# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What an installation in the layout of the source has, and whether it can be adopted."""

from __future__ import annotations

import sqlite3

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._host import earlier

NO_MARKER = "/nonexistent/adopted"
DATABASES = 'DATABASES = {{"default": {{"ENGINE": "django.db.backends.{}", "NAME": "{}"}}}}\n'


@pytest.fixture
def installation(tmp_path):
    """Lay out an installation with the given files; return its directory and what is found in it."""

    def lay_out(files=(), settings="", whisper_directory="/var/lib/graphite/whisper"):
        directory = tmp_path / "graphite"
        (directory / "storage" / "whisper").mkdir(parents=True)
        (directory / "webapp" / "graphite").mkdir(parents=True)
        for name in files:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text("content")
        if settings:
            (directory / "webapp" / "graphite" / "local_settings.py").write_text(settings)
        apache = tmp_path / "apache2" / "sites-enabled"
        apache.mkdir(parents=True)
        (apache.parent / "apache2.conf").write_text("IncludeOptional sites-enabled/*.conf\n")
        (apache / "old.conf").write_text(f"<VirtualHost *:80>\nWSGIScriptAlias / {directory}/conf/graphite.wsgi\n</VirtualHost>\n")
        return str(directory), lambda: earlier.describe(str(directory), whisper_directory, str(apache.parent))

    return lay_out


def test_what_would_be_left_behind_is_named(installation):
    directory, look = installation(["storage/whisper/a/b.wsp", "storage/whisper/c.wsp", "storage/graphite.db", "conf/carbon.conf"])
    (problem,) = earlier.problems(look(), "stack_adopt")
    for words in (
        f"2 series in {directory}/storage/whisper",
        f"users, dashboards and events in {directory}/storage/graphite.db",
        "sites-enabled/old.conf of Apache",
        f"settings in {directory}/conf/carbon.conf",
        f"Set stack_adopt to {directory}",
    ):
        assert words in problem


def test_directories_that_an_installer_left_empty_are_no_installation(tmp_path):
    (tmp_path / "storage" / "whisper").mkdir(parents=True)
    assert earlier.problems(earlier.describe(str(tmp_path), "/var/lib/graphite/whisper", str(tmp_path)), "stack_adopt") == []


def test_series_in_use_are_not_told(installation, tmp_path):
    _directory, look = installation(["storage/whisper/a.wsp"], whisper_directory=str(tmp_path / "graphite/storage/whisper"))
    assert look()["series"] == ""


@pytest.mark.parametrize("path", ["/opt/graphite/storage/graphite.db", "/nonexistent/graphite.db"])
def test_the_database_of_a_volume_has_another_path_in_the_settings(installation, path):
    directory, look = installation(["storage/graphite.db"], DATABASES.format("sqlite3", path))
    assert look()["database"] == f"{directory}/storage/graphite.db"


def test_a_database_server_is_to_be_named_and_used_as_it_is(installation):
    _directory, look = installation(["storage/graphite.db"], DATABASES.format("postgresql", "graphite"))
    (problem,) = earlier.adoption_problems(look(), "stack_adopt", "/var/lib/graphite/graphite.db", NO_MARKER)
    assert "django.db.backends.postgresql, graphite. Describe that database in graphite_web_database" in problem
    assert earlier.adoption_problems(look(), "stack_adopt", "", NO_MARKER) == []


def test_an_sqlite_database_that_no_server_would_get_is_named(installation):
    directory, look = installation(["storage/graphite.db"])
    (problem,) = earlier.adoption_problems(look(), "stack_adopt", "", NO_MARKER)
    assert f"{directory}/storage/graphite.db, and graphite_web_database names a server. Run without" in problem
    assert earlier.adoption_problems(look(), "stack_adopt", None, NO_MARKER) == []


def test_a_database_that_is_there_already_is_not_mixed_with_the_earlier_one(installation, tmp_path):
    directory, look = installation(["storage/graphite.db"])
    target, marker = tmp_path / "graphite.db", tmp_path / "adopted"
    assert earlier.adoption_problems(look(), "stack_adopt", str(target), str(marker)) == []
    target.write_text("of today")
    (problem,) = earlier.adoption_problems(look(), "stack_adopt", str(target), str(marker))
    assert f"Move {target} away" in problem
    marker.write_text("/srv/other/storage/graphite.db\n")
    assert earlier.adoption_problems(look(), "stack_adopt", str(target), str(marker)) == [problem]
    marker.write_text(f"{directory}/storage/graphite.db\n")
    assert earlier.adoption_problems(look(), "stack_adopt", str(target), str(marker)) == []


def test_a_directory_without_series_is_refused(tmp_path):
    (problem,) = earlier.adoption_problems(earlier.describe(str(tmp_path), "/x", str(tmp_path)), "stack_adopt", None, NO_MARKER)
    assert "in which there is no storage/whisper" in problem


def test_a_directory_that_is_not_there_is_refused(run_module):
    wanted = {"directory": "/opt/graphit", "variable": "stack_adopt", "policy": "adopt", "whisper_directory": "/x"}
    component = {"component": "earlier installation", "earlier_installations": [wanted]}
    assert "stack_adopt is /opt/graphit, in which" in " ".join(run_module("host_requirements_info", components=[component])["problems"])


def test_a_database_is_copied_once(run_module, tmp_path):
    source, path = tmp_path / "old.db", tmp_path / "new.db"
    with sqlite3.connect(source) as connection:
        connection.execute("CREATE TABLE people (name)")
        connection.execute("INSERT INTO people VALUES ('olga')")
    arguments = {"source": str(source), "path": str(path), "owner": "root", "marker": str(tmp_path / "adopted")}
    assert run_module("sqlite_copy", "--check", **arguments)["changed"]
    assert not path.exists()
    assert run_module("sqlite_copy", **arguments)["changed"]
    assert sqlite3.connect(path).execute("SELECT name FROM people").fetchall() == [("olga",)]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adopted", "new.db", "old.db"]
    path.rename(tmp_path / "moved.db")
    assert not run_module("sqlite_copy", **arguments)["changed"]
    assert not path.exists()


def test_a_database_that_is_there_or_damaged_ends_the_copy(run_module, tmp_path):
    source, path = tmp_path / "old.db", tmp_path / "new.db"
    source.write_text("no database at all, and longer than a header of a hundred bytes is, which SQLite reads first of all: " * 2)
    arguments = {"source": str(source), "path": str(path), "owner": "root", "marker": str(tmp_path / "adopted")}
    assert "could not be copied" in run_module("sqlite_copy", **arguments)["msg"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["old.db"]
    path.write_text("somebody else's")
    assert "exists already" in run_module("sqlite_copy", **arguments)["msg"]
    assert path.read_text() == "somebody else's"
