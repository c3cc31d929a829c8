# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What the collection says about itself is what it holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULES = {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}
FILTERS = {path.stem for path in (ROOT / "plugins" / "filter").glob("*.yml")}


def load(path: str):
    return yaml.safe_load((ROOT / path).read_text())


def test_the_changelog_names_every_module_and_filter():
    releases = load("changelogs/changelog.yaml")["releases"].values()
    assert {module["name"] for release in releases for module in release.get("modules", [])} == MODULES
    assert {plugin["name"] for release in releases for plugin in release.get("plugins", {}).get("filter", [])} == FILTERS


def test_modules_with_the_same_options_share_their_defaults():
    groups = {name: set(modules) for name, modules in load("meta/runtime.yml")["action_groups"].items()}
    sources = {name: (ROOT / "plugins" / "modules" / f"{name}.py").read_text() for name in MODULES}
    assert groups == {
        "graphite": {name for name in MODULES if name.startswith("graphite_")},
        "graphite_web_api": {name for name in MODULES if "WEB_API_ARGUMENT_SPEC" in sources[name]},
        "statsd": {name for name in MODULES if name.startswith("statsd_")},
    }


@pytest.mark.parametrize("path", ["README.md", *(f"roles/{role.parent.name}/README.md" for role in ROOT.glob("roles/*/README.md"))])
def test_links_lead_somewhere(path):
    text = (ROOT / path).read_text()
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert [target for target in targets if not ((ROOT / path).parent / target).exists()] == []
