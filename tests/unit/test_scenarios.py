# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Molecule calls a scenario without tests a success, so nobody may add one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted((ROOT / "molecule").glob("*/molecule.yml"))


def rows(kind):
    (words,) = re.findall(rf"(?m)^{kind}_rows=\((.*)\)$", (ROOT / "script" / "test").read_text())
    return [tuple(word.split(":")) for word in words.split()]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.parent.name)
def test_every_scenario_has_tests_and_runs_them(scenario):
    assert any("\ndef test_" in path.read_text() for path in scenario.parent.glob("tests/test_*.py"))
    assert "    - verify\n" in scenario.read_text()
    # Tests that run playbooks themselves run them twice.
    assert "    - idempotence\n" in scenario.read_text() or "    - converge\n" not in scenario.read_text()


def test_tests_that_a_scenario_borrows_are_there():
    borrowed = 0
    for scenario in SCENARIOS:
        for pattern in yaml.safe_load(scenario.read_text()).get("verifier", {}).get("additional_files_or_dirs", []):
            assert list((scenario.parent / "tests").glob(pattern)), f"{scenario} names {pattern}, and Molecule would say nothing"
            borrowed += 1
    assert borrowed


def test_every_scenario_is_run():
    assert {scenario for scenario, _suite in rows("main") + rows("other")} == {path.parent.name for path in SCENARIOS}


def test_every_suite_that_is_defined_is_run():
    suites = yaml.safe_load((ROOT / "molecule" / "shared" / "vars" / "suites.yml").read_text())["shared_suites"]
    assert set(suites) <= {suite for scenario, suite in rows("main") + rows("other") if scenario == "default"}
