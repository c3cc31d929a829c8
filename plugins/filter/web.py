# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Graphite-web's settings as Python. Each filter is documented beside this file."""

from __future__ import annotations

from math import isfinite
from pprint import pformat

from ansible.errors import AnsibleFilterError


def python_literal(value: object) -> str:
    return pformat(_plain(value), width=100, sort_dicts=False)


def _plain(value: object) -> object:
    """Return ``value`` without the subclasses that Ansible and YAML use, whose text is no literal."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        raise AnsibleFilterError(f"python_literal cannot write {value}; give a number")
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    # A vaulted string is no str before ansible-core 2.19.
    if getattr(value, "__ENCRYPTED__", False):
        return str(value)
    raise AnsibleFilterError(f"python_literal cannot write a {type(value).__name__}")


class FilterModule:
    def filters(self) -> dict:
        return {"python_literal": python_literal}
