# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What the pages of tasks tell a reader to do, tests do: each block has a name, and a test that runs it, or a reason why none does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pages
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
INDEX = (ROOT / "docs" / "docsite" / "index.md").read_text()
TASKS = [f"{page}.md" for page in re.search(r":caption: Tasks\n\n(.*?)```", INDEX, re.DOTALL).group(1).split()]
# By page and block: what is done in place of running it.
NOT_RUN = {
    ("docs/backup.md", "new-host"): "the scenarios have one host; they restore it, by the other blocks of the page",
    ("docs/go_benchmark.md", "benchmark"): "the scenario go runs the playbooks, with the variables of the page and a shorter load",
    ("docs/migrate.md", "adopt-volumes"): "the scenario migrate has the same directory in another place",
    ("docs/migrate.md", "volumes"): "the image of that container comes from a registry",
    ("docs/own_hosts.md", "hosts.yml"): "test_collection validates it; the scenarios have inventories of containers",
    ("docs/own_hosts.md", "stores"): "test_collection validates it; the scenario cluster has such an inventory, of containers",
    ("docs/own_hosts.md", "suffix"): "test_collection validates it; the scenario cluster has one of its own",
}


DOING = {"documented", "as_documented", "page", "variables", "block"}


def texts(call: ast.Call, constants: dict[str, str]) -> tuple:
    """Return the page and the name that a call has as arguments, by themselves or by a constant of the module."""
    given = [argument.value if isinstance(argument, ast.Constant) else constants.get(getattr(argument, "id", "")) for argument in call.args]
    return tuple(text for text in given if isinstance(text, str))


def used_in(source: str) -> set[tuple[str, str]]:
    """Return the blocks that a test names: documented(PAGE, NAME), pages.variables(PAGE, NAME), or a function that has the page."""
    tree = ast.parse(source)
    constants = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    done = {texts(call, constants) for call in calls if getattr(call.func, "attr", getattr(call.func, "id", "")) in DOING}
    # A module that gives the page once has no other.
    own = {text for call in calls for text in texts(call, constants) if text.endswith(".md")}
    return {found for found in done if len(found) == 2} | {(page, found[0]) for page in own for found in done if len(found) == 1}


def used() -> set[tuple[str, str]]:
    found = set()
    for path in [*ROOT.glob("molecule/**/*.py"), *ROOT.glob("tests/unit/*.py")]:
        found |= used_in(path.read_text())
    # The scenario controllers does so from playbooks.
    for path in ROOT.glob("molecule/controllers/**/*.yml"):
        text = path.read_text()
        names = re.findall(r"controllers_block: (\w+)$|first_stack\.md (\w+)\"|ternary\('(\w+)'", text, re.MULTILINE)
        found |= {("docs/first_stack.md", name) for groups in names for name in groups if name}
    return found


def test_every_task_is_a_page():
    assert len(TASKS) > 8
    assert [page for page in TASKS if not (ROOT / page).exists()] == []


@pytest.mark.parametrize("page", TASKS)
def test_every_block_of_a_task_is_run(page):
    blocks = [block for block in pages.blocks(page) if block.language not in ("text", "output")]
    assert [block.text for block in blocks if not block.name] == []
    names = [block.name for block in blocks]
    assert len(set(names)) == len(names)
    run = {name for used_page, name in used() if used_page == page}
    # A file of a page is written beside its commands, which name it.
    files = {name for name in names if any(f"@{name}" in pages.block(page, other).text for other in run & set(names))}
    # The name of a block is not shown.
    prose = pages.FENCE.sub("", (ROOT / page).read_text())
    assert [name for name in names if "." in name and f"`{name}`" not in prose] == []
    assert set(names) - run - files == {name for where, name in NOT_RUN if where == page}


def test_commands_are_found_with_the_host_that_they_are_for():
    text = "$ one --a \\\n    --b   # why\noutput\nmetrics.example.org$ two\n"
    assert pages.commands(text) == [("", "one --a \\\n    --b   # why"), ("metrics.example.org", "two")]


def test_the_readme_has_commands_that_are_run():
    run = {command.text for block in pages.blocks("docs/first_stack.md") for command in pages.commands(block.text)}
    run |= {command.text for command in pages.commands(pages.block("docs/doctor.md", "doctor").text)}
    for name, number in (("first-stack", 2), ("one-host", 3)):
        commands = [command.text.partition("  #")[0].strip() for command in pages.commands(pages.block("README.md", name).text)]
        assert len(commands) == number
        assert set(commands) <= run


def test_the_readme_is_short_and_shows_its_picture_where_it_has_no_files():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    repository = yaml.safe_load((ROOT / "galaxy.yml").read_text())["repository"]
    addresses = re.findall(r"!\[[^]]*\]\((.*?)\)", readme)
    assert addresses
    for address in addresses:
        assert address.startswith(f"{repository}/raw/main/")
        assert (ROOT / address.removeprefix(f"{repository}/raw/main/")).exists()
