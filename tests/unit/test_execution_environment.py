# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What meta/execution-environment.yml asks for is what the controller uses."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from bindep.depends import Depends
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = "ansible_collections.metricstack.graphite."
# Every execution environment has them.
COMMON = {"grep", "mkdir", "mv", "python", "sh"}
# What is not there is said by the playbook, which goes on without it or names the variable that does.
OPTIONAL = {"docker": "go_runtime_metrics_builder", "chromium": "go_benchmark.yml"}
SCRIPTS = {"build.sh": "npm", "container.sh": "docker", "screenshot.sh": "chromium"}


@pytest.fixture(scope="module")
def introspected() -> dict[str, list[str]]:
    """Return what ansible-builder finds in this collection."""
    command = [sys.executable, "-m", "ansible_builder", "introspect", str(ROOT / ".ansible" / "collections")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return yaml.safe_load(result.stdout)


def caught(attempt: ast.Try) -> list[ast.expr]:
    return [handler.type for handler in attempt.handlers if handler.type]


def imports(path: Path) -> set[str]:
    """Return what a Python file imports, wherever in it, apart from what it can do without."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    attempts = [node for node in ast.walk(tree) if isinstance(node, ast.Try) and "ImportError" in map(ast.unparse, caught(node))]
    optional = {child for attempt in attempts for statement in attempt.body for child in ast.walk(statement)}
    for node in set(ast.walk(tree)) - optional:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level]
            module = ".".join([f"{COLLECTION}{'.'.join(package)}"] * bool(node.level) + [node.module] * bool(node.module))
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def imported_by_the_controller() -> set[str]:
    """Return the top-level packages that plugins of the controller import, also through what they share with modules."""
    waiting = [path for kind in ("action", "filter", "lookup") for path in (ROOT / "plugins" / kind).glob("*.py")]
    assert len(waiting) > 10
    seen, packages = set(), set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imports(path):
            if name.startswith(COLLECTION):
                file = ROOT / Path(*name.removeprefix(COLLECTION).split(".")).with_suffix(".py")
                waiting += [file] if file.exists() else []
            else:
                packages.add(name.partition(".")[0])
    return packages - set(sys.stdlib_module_names) - {"ansible", "ansible_collections"}


def test_python_requirements_are_what_plugins_import_beyond_ansible_core(introspected):
    of_ansible_core = {Requirement(line).name.lower() for line in requires("ansible-core")}
    distributions = packages_distributions()
    needed = {name.lower() for package in imported_by_the_controller() for name in distributions[package]}
    assert {Requirement(line).name.lower() for line in introspected["python"]} == needed - of_ansible_core


def on_the_controller(tasks: list[dict], delegated: bool = False):
    """Yield the tasks that are delegated to the controller, and those of blocks that are."""
    for task in tasks:
        here = task.get("delegate_to") == "localhost" or (delegated and "delegate_to" not in task)
        for section in ("block", "rescue", "always"):
            yield from on_the_controller(task.get(section, []), here)
        # synchronize runs here unless it is told otherwise.
        if here or "ansible.posix.synchronize" in task:
            yield task


def program(task: dict) -> str | None:
    """Return the program that a task runs, if it runs one."""
    if "ansible.posix.synchronize" in task:
        return "rsync"
    words = task.get("ansible.builtin.command", {}).get("argv") or [task.get("ansible.builtin.script", {}).get("cmd")]
    words = words if isinstance(words, list) else re.findall(r"\w+", words)
    for script, name in SCRIPTS.items():
        if any(script in str(word) for word in words):
            return name
    return re.sub("^ansible_playbook_python$", "python", words[0]) if words[0] else None


def test_system_requirements_are_the_programs_that_tasks_run_on_the_controller(introspected):
    programs = set()
    for path in (*ROOT.glob("playbooks/*.yml"), *ROOT.glob("playbooks/tasks/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")):
        for entry in yaml.safe_load(path.read_text()) or []:
            sections = [entry.get(name, []) for name in ("pre_tasks", "tasks", "post_tasks")] if "hosts" in entry else [[entry]]
            programs |= {program(task) for tasks in sections for task in on_the_controller(tasks)}
    needed = programs - {None} - COMMON - set(OPTIONAL)
    assert set(OPTIONAL) < programs
    for platform in ("dpkg", "rpm"):
        wanted = Depends("\n".join(introspected["system"])).active_rules([f"platform:{platform}"])
        assert {package[0] for package in wanted} == needed == {"npm", "rsync"}
