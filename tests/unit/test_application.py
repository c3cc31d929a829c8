# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""How the program inside graphite-web is started, and how it answers."""

from __future__ import annotations

import getpass
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.application import Application, ApplicationError
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside import program
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.inside.protocol import Kind

SETTINGS = "from local_settings import *\nINSTALLED_APPS = ['django.contrib.auth', 'django.contrib.contenttypes']\n"


@pytest.fixture
def module(tmp_path):
    """What an Application needs of an AnsibleModule: its parameters."""
    package = tmp_path / "application"
    package.mkdir()
    (package / "__init__.py").touch()
    # Each start leaves a line.
    (package / "settings.py").write_text(f"print('start', file=open({str(tmp_path / 'starts')!r}, 'a'))\n{SETTINGS}")
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "project.db")}
    (tmp_path / "local_settings.py").write_text(f"SECRET_KEY = 'x'\nDATABASES = {{'default': {database!r}}}\n")
    parameters = {
        "python": sys.executable,
        "python_path": [str(tmp_path)],
        "settings": "application.settings",
        "local_settings": "local_settings",
        "run_as": getpass.getuser(),
    }
    return SimpleNamespace(params=parameters)


def test_one_start_answers_all_requests(module, tmp_path):
    with Application(module) as application:
        assert "auth.0001_initial" in application.ask("pending")["pending"]
        with pytest.raises(ApplicationError) as refused:
            application.ask("read_users", passwords={"alice": None})
        assert refused.value.kind is Kind.NO_SCHEMA
        assert application.ask("migrate", backup_directory=None)["applied"]
        assert application.ask("pending")["pending"] == []
        wanted = {"email": "", "superuser": False, "staff": False, "active": True}
        application.ask("write_users", users=[{"name": "alice", "wanted": wanted, "password": "first-word"}])
        assert application.ask("read_users", passwords={"alice": "first-word"})["alice"]["password_matches"] is True
    assert (tmp_path / "starts").read_text() == "start\n"


def test_each_server_of_the_caches_is_asked(module, tmp_path, memcached):
    """A busy host may take longer for its answer than the application waits for one."""
    memcached.delay = 0.3
    with socket.socket() as closed, (tmp_path / "local_settings.py").open("a") as settings:
        closed.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{closed.getsockname()[1]}"
        options = {"ignore_exc": True, "connect_timeout": 0.1, "timeout": 0.1}
        backend = {"BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache", "OPTIONS": options}
        caches = {
            "default": {**backend, "LOCATION": [memcached.name, away]},
            "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
            "wrong": {"BACKEND": "nowhere.Cache"},
        }
        settings.write(f"CACHES = {caches!r}\n")
        settings.flush()
        with Application(module) as application:
            refused, wrong = application.ask("check_caches")["unreachable"]
    assert refused.startswith(f"{away} does not answer: ConnectionRefusedError")
    assert wrong.startswith("The cache 'wrong' cannot be used: InvalidCacheBackendError")
    assert memcached.store == {}


def test_neither_the_program_nor_a_request_is_on_the_command_line(module):
    with Application(module) as application:
        application.ask("pending")
        command = Path(f"/proc/{application._process.pid}/cmdline").read_bytes()
    assert len(command) < 1000
    assert b"migrations" not in command


def test_nothing_starts_without_a_request(module, tmp_path):
    with Application(module):
        pass
    assert not (tmp_path / "starts").exists()


def test_an_application_that_cannot_be_loaded_refuses_each_request_alike(module, tmp_path):
    (tmp_path / "local_settings.py").write_text("import nowhere\n")
    with Application(module) as application:
        for _request in range(2):
            with pytest.raises(ApplicationError) as refused:
                application.ask("pending")
            assert refused.value.kind is Kind.SETTINGS
            assert "local_settings.py, line 1" in str(refused.value)
    assert (tmp_path / "starts").read_text() == "start\n"


def test_an_application_that_ends_is_a_crash_with_its_output(module, tmp_path):
    (tmp_path / "local_settings.py").write_text("import os, sys\nprint('out of order', file=sys.stderr, flush=True)\nos._exit(7)\n")
    with Application(module) as application, pytest.raises(ApplicationError, match="ended with 7: out of order") as refused:
        application.ask("pending")
    assert refused.value.kind is Kind.CRASH


def test_each_kind_of_request_has_a_function():
    assert all(callable(function) for function in program.ACTIONS.values())
