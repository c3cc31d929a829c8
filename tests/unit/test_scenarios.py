# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Molecule calls a scenario without tests a success, so nobody may add one."""

from __future__ import annotations

from pathlib import Path

import pytest

SCENARIOS = sorted((Path(__file__).resolve().parents[2] / "molecule").glob("*/molecule.yml"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.parent.name)
def test_every_scenario_has_tests_and_runs_them(scenario):
    assert any("\ndef test_" in path.read_text() for path in scenario.parent.glob("tests/test_*.py"))
    assert "    - verify\n" in scenario.read_text()
    assert "    - idempotence\n" in scenario.read_text()
