# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What every role promises: argument specs that say what the defaults are, and READMEs that say what the specs are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
PYTHON_TYPES = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "list": list,
    "dict": dict,
    "path": str,
    "raw": object,
}

pytestmark = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text()) or {}


def specs(role: Path) -> dict:
    return load(role / "meta" / "argument_specs.yml")["argument_specs"]


def every_option(options: dict, path: str = ""):
    for name, option in options.items():
        yield f"{path}{name}", option
        yield from every_option(option.get("options", {}), f"{path}{name}.")


def test_specs_equal_the_defaults(role):
    defaults = load(role / "defaults" / "main.yml")
    options = specs(role)["main"]["options"]
    assert {name: option["default"] for name, option in options.items() if "default" in option} == defaults
    for name, value in defaults.items():
        templated = isinstance(value, str) and "{{" in value
        assert templated or isinstance(value, PYTHON_TYPES[options[name]["type"]]), name
        assert isinstance(value, bool) == (options[name]["type"] == "bool") or templated or options[name]["type"] == "raw", name


def test_every_option_is_typed_described_and_prefixed(role):
    for path, option in every_option(specs(role)["main"]["options"]):
        assert option.get("type") in PYTHON_TYPES, path
        assert option.get("description"), path
        assert option["type"] != "list" or option.get("elements"), path
    assert all(name.startswith(f"{role.name}_") for name in specs(role)["main"]["options"])


def test_validation_alone_judges_the_same_variables(role):
    assert specs(role)["validate"]["options"] == specs(role)["main"]["options"]


def test_constants_are_private_to_the_role(role):
    names = set(load(role / "vars" / "main.yml"))
    assert all(name.startswith(f"__{role.name}_") for name in names), names


def test_tasks_are_included_by_name(role):
    """In ansible-core 2.16, a template whose value depends on the host cannot name a file that imports others."""
    for path in (role / "tasks").glob("*.yml"):
        assert not re.search(r"include_tasks: .*{{", path.read_text()), path.name
