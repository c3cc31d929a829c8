# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""graphite_settings and graphite_settings_info on a real Django project: what is refused leaves nothing, what is right heals."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import django
import pytest

USER = "nobody" if os.geteuid() == 0 else None
# An interpreter that every user can run, with the Django of the tests.
PYTHON = "/usr/bin/python3"
DJANGO = str(Path(django.__file__).parents[1])
SETTINGS = """
import local_settings
globals().update(local_settings.__dict__)
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
ROOT_URLCONF = "local_urls"
"""
HEAD = "# This file belongs to Ansible\n"
WSGI = "import os\nfrom django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"


class Host:
    """An application that is installed in a directory, run as a user who is not root."""

    def __init__(self, root, run_module):
        self.run_module = run_module
        self.configuration = root / "etc"
        self.data = root / "data"
        for directory in (root / "application", self.configuration, self.data):
            directory.mkdir()
        # pytest's own directories are root's alone.
        for directory in (root, *list(root.parents)[:3]):
            directory.chmod(0o755)
        self.data.chmod(0o777)
        (root / "application" / "__init__.py").touch()
        (root / "application" / "settings.py").write_text(SETTINGS)
        self.root = root
        self.path = self.configuration / "local_settings.py"
        self.key = self.configuration / "secret_key"
        self.urls = self.configuration / "local_urls.py"
        self.script = self.configuration / "application.wsgi"
        self.obsolete = self.configuration / "obsolete"

    def content(self, more="", database="graphite.db"):
        return (
            f"{HEAD}from pathlib import Path\nSECRET_KEY = Path({str(self.key)!r}).read_text().strip()\n"
            f"DATABASES = {{'default': {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': {str(self.data / database)!r}}}}}\n{more}"
        )

    def module(self, name, *flags, content=None, urls="urlpatterns = []\n", script=WSGI, **arguments):
        return self.run_module(
            name,
            *flags,
            python=PYTHON,
            python_path=[str(self.configuration), str(self.root), DJANGO],
            settings="application.settings",
            run_as=USER,
            path=str(self.path),
            content=self.content() if content is None else content,
            secret_key_file=str(self.key),
            files=[
                {"path": str(self.urls), "content": urls},
                {"path": str(self.script), "content": script},
                {"path": str(self.obsolete), "state": "absent"},
            ],
            wsgi_script=str(self.script),
            **arguments,
        )

    def write(self, *flags, **arguments):
        return self.module("graphite_settings", *flags, **arguments)

    @property
    def state(self):
        return {path.name: path.read_bytes() for path in self.configuration.iterdir()}


@pytest.fixture
def site(tmp_path, run_module):
    if USER is None:
        pytest.skip("needs root, who can become another user")
    return Host(tmp_path, run_module)


@pytest.fixture
def private_tmpdir(tmp_path, monkeypatch):
    """As libpam-tmpdir leaves root's: nobody else can enter it."""
    directory = tmp_path / "private"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(directory))


def test_settings_are_written_once_for_the_application_alone(site):
    checked = site.write("--check")
    assert checked["changed"], checked
    assert checked["tested"]
    assert site.state == {}
    first = site.write()
    assert first["secret_key"] == "generated", first
    assert set(site.state) == {"local_settings.py", "secret_key", "local_urls.py", "application.wsgi"}
    assert stat.S_IMODE(site.path.stat().st_mode) == stat.S_IMODE(site.key.stat().st_mode) == 0o400
    assert site.path.owner() == site.key.owner() == USER
    key = site.key.read_text()
    assert len(key.strip()) == 64
    second = site.write()
    assert not second["changed"], second
    assert second["secret_key"] == "kept"
    assert key.strip() not in str(first)
    assert site.key.read_text() == key


def test_a_file_that_is_not_to_be_there_is_removed_with_the_settings(site):
    assert site.write()["changed"]
    site.obsolete.write_text("a job\n")
    checked = site.write("--check")
    assert checked["changed_paths"] == [str(site.obsolete)], checked
    assert site.obsolete.exists()
    assert site.write()["changed_paths"] == [str(site.obsolete)]
    assert not site.obsolete.exists()
    assert not site.write()["changed"]


@pytest.mark.parametrize("flags", [(), ("--check",)])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": "import nowhere\n"}, "local_settings.py, line 5"),
        ({"more": "MIDDLEWARE = ['nowhere.Middleware']\n"}, "nowhere"),
        ({"more": "x = (\n"}, "local_settings.py, line 5"),
        ({"urls": "import nowhere\n"}, "local_urls.py, line 1"),
    ],
    ids=["import", "WSGI", "syntax", "URL patterns"],
)
def test_broken_settings_leave_nothing_and_the_corrected_ones_heal(site, private_tmpdir, flags, change, message):
    assert site.write()["changed"]
    before = site.state
    content, urls = site.content(change.get("more", "")), change.get("urls", "urlpatterns = []\n")
    refused = site.write(*flags, content=content, urls=urls)
    assert message in refused["msg"], refused
    assert refused["kind"] == "settings"
    assert site.state == before
    healed = site.write(*flags, content=site.content("DEBUG = False\n"))
    assert healed["changed"], healed
    if not flags:
        assert "DEBUG = False" in site.path.read_text()
        assert healed["backup_file"].startswith(str(site.path))


def test_what_is_refused_on_a_new_host_leaves_no_key(site):
    assert site.write(content=site.content("import nowhere\n"))["kind"] == "settings"
    assert site.state == {}


def test_a_newer_database_and_one_that_does_not_answer_are_refused(site):
    with closing(sqlite3.connect(site.data / "newer.db")) as connection:
        connection.execute("CREATE TABLE django_migrations (id integer PRIMARY KEY, app text, name text, applied text)")
        connection.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('auth', '9999_future', '2030-01-01')")
        connection.commit()
    (site.data / "newer.db").chmod(0o666)
    (site.data / "text.db").write_text("not a database of SQLite\n" * 100)
    (site.data / "text.db").chmod(0o666)
    assert site.write(content=site.content(database="newer.db"))["kind"] == "newer_database"
    assert site.write(content=site.content(database="text.db"))["kind"] == "database"
    assert site.state == {}
    examined = site.module("graphite_settings_info", content=site.content(database="newer.db"))
    assert "9999_future" in examined["problems"][0], examined


def test_unchanged_settings_that_do_not_load_any_more_are_found(site):
    assert site.write()["changed"]
    (site.root / "application" / "settings.py").write_text("import nowhere\n")
    refused = site.write()
    assert "is as it should be" in refused["msg"], refused


def test_a_strong_key_of_manually_edited_settings_goes_on_and_a_weak_one_does_not(site):
    strong = "k3y-of-a-host-that-is-long-enough"
    for key, origin in ((strong, "adopted"), ("UNSAFE_DEFAULT", "generated")):
        site.key.unlink(missing_ok=True)
        site.path.unlink(missing_ok=True)
        manual = site.content().replace(HEAD, "").replace("SECRET_KEY = Path", f"SECRET_KEY = {key!r}\nPATH = Path")
        site.path.write_text(manual)
        examined = site.module("graphite_settings_info")
        assert examined["manual"]
        assert examined["weak_secret_key"] == (origin == "generated")
        assert not examined["database_changes"]
        assert strong not in str(examined)
        result = site.write()
        assert result["secret_key"] == origin, result
        assert strong not in str(result)
        assert (site.key.read_text().strip() == strong) == (origin == "adopted")
        with open(result["backup_file"]) as copy:
            assert copy.read() == manual


def test_the_examination_finds_settings_that_would_be_refused_and_changes_nothing(site):
    assert site.write()["changed"]
    before = site.state
    examined = site.module("graphite_settings_info", content=site.content("MIDDLEWARE = ['nowhere.Middleware']\n"))
    assert "nowhere" in examined["problems"][0], examined
    assert site.module("graphite_settings_info", content=site.content("DEBUG = False\n"))["problems"] == []
    missing = site.module("graphite_settings_info", content=site.content("import nowhere\n"), imports=["module_to_be_installed"])
    assert missing["problems"] == []
    assert site.state == before


def test_a_driver_that_is_to_be_installed_is_no_problem_of_the_settings(site):
    driver = "from django.core.exceptions import ImproperlyConfigured\nraise ImproperlyConfigured('Error loading MySQLdb module.')\n"
    assert site.module("graphite_settings_info", content=site.content(driver))["problems"] == []
    assert site.write(content=site.content(driver))["kind"] == "not_installed"
    assert site.state == {}


def test_a_host_without_the_application_would_get_it(site):
    checked = site.run_module("graphite_settings", "--check", python="/nowhere/python", content="x = 1\n", path=str(site.path))
    assert checked["changed"], checked
    assert not checked["tested"]


@pytest.mark.parametrize(("name", "message"), [("etc", "is a directory"), ("application/settings.py", "not a database of SQLite")])
def test_a_path_that_cannot_be_a_database_is_a_problem(site, name, message):
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(site.root / name)}
    assert message in site.module("graphite_settings_info", database=database)["problems"][0]


def test_another_database_in_manually_edited_settings_has_to_be_described(site):
    site.path.write_text(site.content(database="other.db").replace(HEAD, ""))
    examined = site.module("graphite_settings_info")
    assert "other.db" in examined["problems"][0], examined
    assert examined["database_changes"]
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(site.data / "graphite.db")}
    assert site.module("graphite_settings_info", database=database)["problems"] == []
