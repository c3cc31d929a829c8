# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What becomes of a local_settings.py that somebody has written by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles" / "graphite_web" / "files" / "settings_by_hand.py"
SQLITE = "{'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': '/a.db', 'HOST': ''}}"
NEW = f"# This file belongs to Ansible\nSECRET_KEY = read()\nTIME_ZONE = 'UTC'\nDEBUG = False\nDATABASES = {SQLITE}\n"
KEY = "k3y-of-a-host-that-is-long-enough"


@pytest.fixture
def judge(tmp_path):
    def run(content):
        path = tmp_path / "local_settings.py"
        if content is not None:
            path.write_text(content)
        process = subprocess.run([sys.executable, PROGRAM, path], input=NEW, capture_output=True, text=True, check=True)
        return json.loads(process.stdout)

    return run


@pytest.mark.parametrize("content", [None, "", NEW, NEW.replace("UTC", "Asia/Shanghai")])
def test_what_nobody_has_written_is_not_by_hand(judge, content):
    assert not judge(content)["by_hand"]


def test_settings_that_change_are_named_and_their_values_are_not(judge):
    result = judge(f"TIME_ZONE = 'Asia/Shanghai'\nDEBUG = False\nMORE = open('/etc/shadow')\nSECRET_KEY = {KEY!r}\nDATABASES = {SQLITE}\n")
    assert result["lost"] == ["MORE", "TIME_ZONE"]
    assert result["secret_key"] == KEY
    assert result["database"] is None
    assert "Shanghai" not in json.dumps(result)


@pytest.mark.parametrize("key", ["UNSAFE_DEFAULT", "short", "please-change-me-please-change-me"])
def test_a_key_that_others_know_is_not_kept(judge, key):
    result = judge(f"SECRET_KEY = {key!r}\n")
    assert (result["secret_key"], result["secret_key_is_known"]) == (None, True)


def test_another_database_is_said(judge):
    assert judge(f"DATABASES = {SQLITE.replace('/a.db', '/b.db')}\n")["database"] == "django.db.backends.sqlite3, /b.db"


def test_what_is_no_python_is_said(judge):
    result = judge("SECRET_KEY = (\n")
    assert result["by_hand"]
    assert not result["readable"]
