# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What the workflows of the forge run on is what the documentation calls supported."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
JOBS = WORKFLOWS["tests"]["jobs"]
# They make hosts from Debian's mirror, which the forge's machines do not know.
NEED_THE_MIRROR = {"controllers", "go"}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading of docs/releases.md."""
    (section,) = re.findall(rf"(?ms)^## {heading}$(.*?)(?=^## |\Z)", (ROOT / "docs" / "releases.md").read_text())
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return table[2:]


def test_sanity_and_units_run_on_each_supported_ansible_core():
    supported = [row[0] for row in rows("Supported controllers")]
    assert supported == sorted(supported, key=lambda release: [int(number) for number in release.split(".")])
    assert yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())["requires_ansible"] == f">={supported[0]}.0"
    for job in ("sanity", "units"):
        assert JOBS[job]["strategy"]["matrix"] == {"ansible-core": supported}


def test_each_supported_ansible_core_ignores_the_same_in_sanity():
    """A release of ansible-test reads a file of its own, and warns about what is ignored in vain."""
    files = {path.stem.removeprefix("ignore-"): path.read_text() for path in (ROOT / "tests" / "sanity").glob("ignore-*.txt")}
    assert set(files) == {row[0] for row in rows("Supported controllers")}
    assert len(set(files.values())) == 1


def test_the_default_scenario_runs_on_the_image_of_each_released_distribution():
    names = [re.match(r"(Debian|Ubuntu) ([\d.]+)(?=$| and)(?: and ([\d.]+))?", row[0]) for row in rows("Supported releases")]
    images = {f"{name[1].lower()}:{release}" for name in names if name for release in name.groups()[1:] if release}
    assert set(JOBS["scenarios"]["strategy"]["matrix"]["image"]) == images
    assert len(images) == 5


def test_every_scenario_that_an_image_is_enough_for_is_run():
    matrix = JOBS["scenarios"]["strategy"]["matrix"]
    run = {*matrix["scenario"], *(row["scenario"] for row in matrix["include"])}
    assert {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")} == run | NEED_THE_MIRROR
    assert {row["image"] for row in matrix["include"]} <= set(matrix["image"])


def test_a_release_waits_for_all_tests():
    jobs = WORKFLOWS["release"]["jobs"]
    assert jobs["tests"]["uses"] == "./.github/workflows/tests.yml"
    assert jobs["release"]["needs"] == "tests"
    assert "workflow_call" in WORKFLOWS["tests"]["on"]
