# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Reads a manually edited local_settings.py without running it. This file is private to the collection."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import re
import subprocess
from dataclasses import dataclass, field

COMPUTED = object()
_FIND_SETTINGS = "import importlib.util; print(importlib.util.find_spec('graphite.settings').origin)"


@dataclass
class ManualSettings:
    """What is in a file, and what of it a new content would lose."""

    manual: bool = False
    readable: bool = True
    secret_key: str | None = field(default=None, repr=False)
    weak_secret_key: bool = False
    database: str | None = None
    lost: list[str] = field(default_factory=list)


def assignments(source: str) -> dict:
    """Return the settings of a file by name; values that are known only by running the file are ``COMPUTED``."""
    found: dict = {}
    for statement in ast.parse(source).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper():
                found[target.id] = COMPUTED
                if isinstance(statement, (ast.Assign, ast.AnnAssign)):
                    with contextlib.suppress(ValueError, TypeError):
                        found[target.id] = ast.literal_eval(statement.value)  # type: ignore[arg-type]
    return found


def database_address(settings: dict) -> list[str]:
    """Return engine, name, host and port of the database; empty if it is known only by running the file."""
    databases = settings.get("DATABASES")
    database = databases.get("default", {}) if isinstance(databases, dict) else {}
    return [str(database[key]) for key in ("ENGINE", "NAME", "HOST", "PORT") if database.get(key)]


def same_database(current: str, new: str) -> bool:
    """Return whether two contents of local_settings.py name the same database, as far as this is known without running them."""
    try:
        addresses = [database_address(assignments(source)) for source in (current, new)]
    except (SyntaxError, ValueError):
        return False
    return bool(addresses[0]) and addresses[0] == addresses[1]


def _owner(content: str) -> str:
    """Return who manages a file, as its first line says; releases differ in the text around the name of the role."""
    first = content.splitlines()[0]
    role = re.search(r"Ansible \(role [^)]+\)", first)
    return role.group() if role else first


def examine(path: str, content: str, new: str, python: str) -> ManualSettings:
    """Compare the content of a file with the one that is to replace it; ``python`` is the application's."""
    if not content.strip() or _owner(content) == _owner(new) or _is_packaged(path, content):
        return ManualSettings()
    found = ManualSettings(manual=True)
    try:
        old = assignments(content)
    except (SyntaxError, ValueError):
        old = {}
        found.readable = False
    after = {**_defaults(python), **assignments(new)}
    key = old.pop("SECRET_KEY", "")
    if isinstance(key, str) and key.strip():
        found.weak_secret_key = len(key.strip()) < 16 or bool(re.search("unsafe|default|change|secret|insecure", key, re.IGNORECASE))
        found.secret_key = None if found.weak_secret_key else key.strip()
    elsewhere = re.search(r"(?m)^from (?!graphite\.)\S+ import \*", content)
    if old.get("DATABASES") is COMPUTED or (elsewhere and "DATABASES" not in old):
        found.database = "a database that is known only by running the file"
    elif database_address(old) == database_address(after):
        old.pop("DATABASES", None)
    elif database_address(old):
        found.database = ", ".join(database_address(old))
    found.lost = sorted(name for name, value in old.items() if value is COMPUTED or after.get(name, COMPUTED) != value)
    return found


def _is_packaged(path: str, content: str) -> bool:
    command = ["dpkg-query", "--show", "--showformat", "${Conffiles}", "graphite-web"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return False
    return f" {path} {hashlib.md5(content.encode('utf-8', 'surrogateescape')).hexdigest()}" in answer


def _defaults(python: str) -> dict:
    """Return graphite-web's own settings, without loading it."""
    try:
        origin = subprocess.run([python, "-c", _FIND_SETTINGS], capture_output=True, text=True, check=True, cwd="/").stdout.strip()
        with open(origin, encoding="utf-8") as stream:
            return assignments(stream.read())
    except (OSError, ValueError, SyntaxError, subprocess.CalledProcessError):
        return {}
