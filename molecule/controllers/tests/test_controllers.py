# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What the controllers are, and what they have said of their runs."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

testinfra_hosts = ["ansible://controllers"]

ROOT = Path(__file__).resolve().parents[3]
TARGET = "metrics.example.org"
RECAP = re.compile(rf"{TARGET}\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")


@pytest.fixture
def as_operator(host):
    """Run a command as the user of the controller; return its exit status and its output."""

    def run(command):
        result = host.run("runuser --login operator --command %s", command)
        return result.rc, result.stdout + result.stderr

    return run


@pytest.fixture
def log(host):
    """Return what Ansible has logged of all runs."""
    return host.file("/home/operator/ansible.log").content_string


def test_the_controllers_have_both_ends_of_the_supported_range(host, as_operator):
    supported = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())["requires_ansible"]
    _status, output = as_operator("venv/bin/python -c 'from importlib.metadata import version; print(version(\"ansible-core\"))'")
    installed = Version(output.strip())
    assert installed in SpecifierSet(supported)
    if "-oldest-" in host.backend.host:
        assert f">={installed}" == supported
    else:
        assert installed >= Version(version("ansible-core"))
        assert as_operator("venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 12))'") == (0, "")


def test_the_controllers_have_nothing_but_ansible_core_and_the_artefact(as_operator):
    status, output = as_operator("venv/bin/ansible-galaxy collection list --format yaml")
    assert status == 0, output
    collections = {name for path in yaml.safe_load(output).values() for name in path}
    # Part of ansible-core from 2.18 on.
    assert collections - {"ansible._protomatter"} == {"metricstack.graphite"}
    assert as_operator("command -v docker npm")[1] == ""
    assert as_operator("test -e /var/run/docker.sock")[0] == 1
    assert as_operator("sudo --non-interactive true")[0] != 0


def test_sudo_asks_the_targets_user_for_a_password(as_operator):
    status, output = as_operator(f"ssh ubuntu@{TARGET} 'id --user --name; sudo --reset-timestamp; sudo --non-interactive true'")
    assert status != 0
    assert output.startswith("ubuntu\n")
    assert "password" in output


def test_every_run_ends_well_and_the_second_changes_nothing(log):
    recaps = [tuple(map(int, numbers)) for numbers in RECAP.findall(log)]
    check, first, second, _verify = (changed for changed, _unreachable, _failed in recaps)
    assert [failures for _changed, *failures in recaps] == [[0, 0]] * 4
    assert check > 0
    assert first > 0
    assert second == 0


def test_no_run_uses_what_ansible_deprecates(log):
    assert re.findall(r".*(?:DEPRECATION WARNING|Traceback).*", log) == []
