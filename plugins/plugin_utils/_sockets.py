# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The ports that variables name. This file is private to the collection."""

from __future__ import annotations


def shared_port_problems(uses: dict[str, list]) -> list[str]:
    """Return one sentence for each TCP port that stands under more than one variable; ``uses`` are ports by variable."""
    variables: dict[str, list[str]] = {}
    for variable, ports in uses.items():
        for port in {str(port) for port in ports}:
            variables.setdefault(port, []).append(variable)
    return [
        f"{' and '.join(names)} use TCP port {port} on the same host; change one of them."
        for port, names in variables.items()
        if len(names) > 1
    ]
