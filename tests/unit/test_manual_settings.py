# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What becomes of a local_settings.py that somebody has edited."""

from __future__ import annotations

import sys

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite import manual_settings

SQLITE = "{'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': '/a.db', 'HOST': ''}}"
OLD_HEAD = "# This file belongs to Ansible (role metricstack.graphite.graphite_web); a change by hand is lost with the next run."
HEAD = "# This file is managed by Ansible (role metricstack.graphite.graphite_web); the next run overwrites manual changes."
NEW = f"{HEAD}\nSECRET_KEY = read()\nTIME_ZONE = 'UTC'\nDEBUG = False\nDATABASES = {SQLITE}\n"
KEY = "k3y-of-a-host-that-is-long-enough"


def examine(content):
    return manual_settings.examine("/etc/graphite/local_settings.py", content, NEW, sys.executable)


# The second content begins as release 1.0.0 wrote it.
@pytest.mark.parametrize(
    "content",
    [
        "",
        NEW.replace(
            HEAD, "# This file belongs to Ansible (role metricstack.graphite.graphite_web); a change by hand is lost with the next run."
        ),
        NEW,
        NEW.replace("UTC", "Asia/Shanghai"),
    ],
)
def test_what_nobody_has_edited_is_not_manual(content):
    assert not examine(content).manual


def test_settings_that_change_are_named_and_their_values_are_not():
    result = examine(
        f"TIME_ZONE = 'Asia/Shanghai'\nDEBUG = False\nMORE = open('/etc/shadow')\nSECRET_KEY = {KEY!r}\nDATABASES = {SQLITE}\n"
    )
    assert result.lost == ["MORE", "TIME_ZONE"]
    assert result.secret_key == KEY
    assert result.database is None
    assert KEY not in repr(result)


@pytest.mark.parametrize("key", ["UNSAFE_DEFAULT", "short", "please-change-me-please-change-me"])
def test_a_key_that_others_know_is_not_kept(key):
    result = examine(f"SECRET_KEY = {key!r}\n")
    assert (result.secret_key, result.weak_secret_key) == (None, True)


def test_another_database_is_named():
    other = f"DATABASES = {SQLITE.replace('/a.db', '/b.db')}\n"
    assert examine(other).database == "django.db.backends.sqlite3, /b.db"
    assert not manual_settings.same_database(other, NEW)
    assert manual_settings.same_database(f"DATABASES = {SQLITE}\n", NEW)


@pytest.mark.parametrize("content", ["DATABASES = read()\n", "SECRET_KEY = (\n"])
def test_a_database_that_cannot_be_told_may_be_another(content):
    assert not manual_settings.same_database(content, NEW)


def test_what_is_no_python_is_reported():
    result = examine("SECRET_KEY = (\n")
    assert result.manual
    assert not result.readable
