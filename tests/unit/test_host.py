# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a host lacks is found out before anything is changed on it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apt, imports

# As an interpreter that never had the modules.
WITHOUT = "import sys\nfor name in {names!r}: sys.modules.setdefault(name)\n"


@pytest.fixture
def examine(tmp_path):
    """Import a module of this content as the program on the host does; return its answer."""

    def run(content):
        (tmp_path / "application.py").write_text(content)
        command = [sys.executable, "-B", imports.__file__, "application"]
        environment = {"PYTHONPATH": str(tmp_path)}
        return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()[-1])

    return run


def test_all_that_is_missing_and_known_is_found_at_once(examine):
    lacking = WITHOUT.format(names=["six", "six.moves", "imp"])
    assert examine(f"{lacking}from six.moves import queue\nimport imp\nclass Found(queue.Queue): pass\n") == {
        "missing": ["six", "imp"],
        "error": "",
    }


def test_what_no_package_brings_back_is_an_error_with_its_place(examine):
    answer = examine("import nowhere_to_be_found\n")
    assert answer["missing"] == []
    assert "application.py" in answer["error"]
    assert "nowhere_to_be_found" in answer["error"]


def test_an_application_that_fails_otherwise_is_an_error(examine):
    assert "ZeroDivisionError" in examine("1 / 0\n")["error"]


def test_what_prints_while_it_is_imported_is_understood(examine):
    assert examine("print('hello')\n") == {"missing": [], "error": ""}


def test_a_cure_that_did_not_help_is_said(run_module, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "application.py").write_text(WITHOUT.format(names=["imp"]) + "import imp\n")
    result = run_module("python_imports", python=str(python), modules=["application"], cured=True)
    assert "application" in result["msg"]
    assert "no module imp" in result["msg"]


def test_every_feature_that_is_missing_is_in_one_message(run_module):
    """This machine has no systemd, and no archive has the package."""
    if Path("/run/systemd/system").exists():
        pytest.fail("this test runs where systemd does not; it is the feature that is missing")
    result = run_module("host_requirements", packages=["no-such-package-anywhere"], advice="Take another.")
    assert len(result["problems"]) == 2
    assert "systemd" in result["msg"]
    assert "no-such-package-anywhere" in result["msg"]
    assert "Take another." in result["msg"]


@pytest.mark.parametrize(
    ("lines", "half"),
    [
        ("whole installed ok\n", {}),
        ("gone config-files ok\n", {}),
        ("waiting triggers-awaited ok\n", {}),
        ("half unpacked ok\n", {"half": "unpacked"}),
        ("broken installed reinstreq\n", {"broken": "reinstreq"}),
        ("two installed ok\ntwo half-configured ok\n", {"two": "half-configured"}),
        ("two half-configured ok\ntwo installed ok\n", {"two": "half-configured"}),
    ],
)
def test_half_installed_packages_are_told_from_whole_ones(monkeypatch, lines, half):
    monkeypatch.setattr(apt, "_run", lambda _command: lines)
    assert apt.half_installed(apt.read_states()) == half


def test_what_is_refused_by_apt_is_told_with_its_reasons():
    with pytest.raises(apt.PackageError, match="no-such-package-anywhere"):
        apt.plan("install", "no-such-package-anywhere")


def test_packages_that_were_there_before_stay(run_module, tmp_path):
    result = run_module("removable_packages", role="statsd", packages=["bash", "not-installed-anywhere"], record=str(tmp_path / "none"))
    assert result["packages"] == []
    assert result["kept"] == {"bash": "was there before"}


def test_packages_that_another_role_needs_stay(run_module, tmp_path):
    record = tmp_path / "record"
    record.write_text("statsd bash\ncarbon_cache bash\n")
    result = run_module("removable_packages", role="statsd", packages=["bash"], record=str(record))
    assert result["kept"] == {"bash": "another role needs it"}
