# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The variables of the role graphite_venv. This file is private to the collection."""

from __future__ import annotations


def graphite_venv_problems(variables: dict) -> list[str]:
    """Return one message for each mistake in the role's variables, given without the prefix ``graphite_venv_``."""
    if variables.get("state") == "absent":
        return []
    return [
        f"graphite_venv_build_environment has {name}: {value}; quote the value, because the environment of a process holds text only."
        for name, value in variables["build_environment"].items()
        if not isinstance(value, str)
    ]
