# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Graphite-web's settings. Each filter is documented beside this file."""

from __future__ import annotations

import hashlib
from math import isfinite
from pprint import pformat

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean


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


def graphite_web_guests(guests: list[dict]) -> list[dict]:
    return [
        {
            "networks": [str(network) for network in guest.get("networks") or []],
            "forwards": boolean(guest.get("forwards") or False, strict=False),
            "token_sha256": hashlib.sha256(str(guest["token"]).encode()).hexdigest() if guest.get("token") else "",
            "areas": [str(area) for area in guest["areas"]],
        }
        for guest in guests
    ]


class FilterModule:
    def filters(self) -> dict:
        return {"graphite_web_guests": graphite_web_guests, "python_literal": python_literal}
