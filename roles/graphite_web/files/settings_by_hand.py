# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Tell, as JSON, what becomes of a local_settings.py that somebody has written by hand; nothing of it is run.

    settings_by_hand.py CURRENT < NEW

``secret_key`` is one that is worth keeping, ``secret_key_is_known`` tells of one that is not; ``lost`` are the names of the
settings that have another value afterwards, ``database`` says where the users are if that is elsewhere.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import re
import subprocess
import sys

COMPUTED = object()


def assignments(source: str) -> dict:
    """Return the settings of a file by name; those whose values only running it would tell are ``COMPUTED``."""
    found: dict = {}
    for statement in ast.parse(source).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper():
                found[target.id] = COMPUTED
                if isinstance(statement, (ast.Assign, ast.AnnAssign)):
                    with contextlib.suppress(ValueError, TypeError):
                        found[target.id] = ast.literal_eval(statement.value)
    return found


def is_the_packages(path: str, content: bytes) -> bool:
    answer = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Conffiles}", "graphite-web"], capture_output=True, text=True, check=False
    ).stdout
    return f" {path} {hashlib.md5(content).hexdigest()}" in answer


def defaults() -> dict:
    """Return graphite-web's own settings, without loading it."""
    try:
        with open(importlib.util.find_spec("graphite.settings").origin, encoding="utf-8") as stream:
            return assignments(stream.read())
    except (ImportError, AttributeError):
        return {}


def place(settings: dict) -> list[str]:
    """Return engine, name and host of the database; nothing where only running the file would tell."""
    databases = settings.get("DATABASES")
    database = databases.get("default", {}) if isinstance(databases, dict) else {}
    return [str(database[key]) for key in ("ENGINE", "NAME", "HOST") if database.get(key)]


def main() -> None:
    path = sys.argv[1]
    new = sys.stdin.read()
    result: dict = {"by_hand": False, "readable": True, "secret_key": None, "secret_key_is_known": False, "database": None, "lost": []}
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        content = b""
    if content.strip() and content.splitlines()[0] != new.encode().splitlines()[0] and not is_the_packages(path, content):
        result["by_hand"] = True
        try:
            old = assignments(content.decode())
        except (SyntaxError, ValueError):
            old = {}
            result["readable"] = False
        after = {**defaults(), **assignments(new)}
        key = old.pop("SECRET_KEY", "")
        if isinstance(key, str) and key.strip():
            known = len(key.strip()) < 16 or re.search("unsafe|default|change|secret|insecure", key, re.IGNORECASE)
            result["secret_key_is_known" if known else "secret_key"] = True if known else key.strip()
        elsewhere = re.search(r"(?m)^from (?!graphite\.)\S+ import \*", content.decode(errors="replace"))
        if old.get("DATABASES") is COMPUTED or (elsewhere and "DATABASES" not in old):
            result["database"] = "a place that only running the file tells"
        elif place(old) == place(after):
            old.pop("DATABASES", None)
        elif place(old):
            result["database"] = ", ".join(place(old))
        result["lost"] = sorted(name for name, value in old.items() if value is COMPUTED or after.get(name, COMPUTED) != value)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
