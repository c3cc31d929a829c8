# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The description of an option says what happens, not what the option is called."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Words that say nothing by themselves.
EMPTY = set(re.findall(r"\w+", "a an and are as be by for from if in is it its name of on or that the they this to which with whether"))


def words(text: str) -> set[str]:
    """Return the words of a text, without the endings that make other forms of them."""
    return {re.sub(r"(ies|ed|ing|s|e)$", "", word) for word in re.findall(r"[a-z]+", text.lower()) if word not in EMPTY}


def options(given: dict | None, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Return the names of options, and of those within them, with their descriptions."""
    for name, option in (given or {}).items():
        description = option.get("description", "")
        yield f"{prefix}{name}", description if isinstance(description, str) else " ".join(description)
        yield from options(option.get("options") or option.get("suboptions"), f"{prefix}{name}.")


def documentation() -> Iterator[tuple[str, dict]]:
    """Return what has options: entry points of roles, modules with the fragments that they share, lookups and filters."""
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        for entry_point, specification in yaml.safe_load(path.read_text())["argument_specs"].items():
            yield f"{path.parent.parent.name}:{entry_point}", specification
    for path in sorted(path for kind in ("modules", "doc_fragments", "lookup") for path in ROOT.glob(f"plugins/{kind}/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION":
                yield f"{path.parent.name}/{path.stem}", yaml.safe_load(ast.literal_eval(node.value))
    for path in sorted(ROOT.glob("plugins/filter/*.yml")):
        yield f"filter/{path.stem}", yaml.safe_load(path.read_text())["DOCUMENTATION"]


@pytest.mark.parametrize(("where", "documented"), [pytest.param(*found, id=found[0]) for found in documentation()])
def test_no_option_merely_repeats_its_name(where, documented):
    known = words(where)
    poor = [
        f"{name}: {description}"
        for name, description in options(documented.get("options"))
        if len(words(description) - known - words(name.replace("_", " "))) < 2
    ]
    assert poor == []


@pytest.mark.parametrize(("where", "documented"), [pytest.param(*found, id=found[0]) for found in documentation()])
def test_every_entry_point_and_plugin_is_described(where, documented):
    assert where.startswith("doc_fragments/") or (documented.get("short_description") and documented.get("description"))
