# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""meta/runtime.yml says which controllers are supported; whatever else says so agrees with it."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(ROOT.glob("roles/*/meta/main.yml"))


def load(path):
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def supported():
    return load(ROOT / "meta" / "runtime.yml")["requires_ansible"]


@pytest.fixture(scope="module")
def oldest(supported):
    """Return the oldest minor release; the scenario "controllers" tests it and whatever is the newest."""
    (release,) = re.fullmatch(r">=(\d+\.\d+)\.0", supported).groups()
    return release


def test_the_readme_names_the_supported_range(oldest):
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"The controller needs ansible-core {oldest} or later" in readme
    assert set(re.findall(r"ansible-core (\d+\.\d+)", readme)) == {oldest}


@pytest.mark.parametrize("path", ROLES, ids=lambda path: path.parents[1].name)
def test_roles_name_the_oldest_release(path, oldest):
    assert load(path)["galaxy_info"]["min_ansible_version"] == oldest


def test_the_development_environment_is_within_the_supported_range(supported):
    assert version("ansible-core") in SpecifierSet(supported)


def test_the_scenario_takes_its_releases_from_the_supported_range():
    variables = {path.stem: load(path) for path in (ROOT / "molecule" / "controllers" / "inventory" / "group_vars").glob("*.yml")}
    assert "meta/runtime.yml" in variables["all"]["controllers_range"]
    for release in ("oldest", "newest"):
        requirement = variables[release]["controllers_ansible_core"]
        assert "controllers_range" in requirement
        assert not re.search(r"\d", requirement)
