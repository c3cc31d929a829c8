# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The variables of the role memcached. This file is private to the collection."""

from __future__ import annotations

import ipaddress

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import address_problem, count_problem, port_problem

# 1 TiB; memcached reads larger numbers of bytes as others.
_MOST_MEGABYTES = 1 << 20
# Linux lets a process have 1 048 576 open files (fs.nr_open).
_MOST_CONNECTIONS = 1_000_000


def memcached_problems(variables: dict) -> list[str]:
    """Return one sentence for each mistake in the role's variables, given without the prefix ``memcached_``."""
    if variables.get("state") == "absent":
        return []
    problems = [
        _address_problem(variables["address"], boolean(variables["allow_public"], strict=False)),
        port_problem("memcached_port", variables["port"]),
        *(count_problem(f"memcached_{name}", variables[name]) for name in ("memory_megabytes", "item_megabytes", "connections")),
    ]
    found = [problem for problem in problems if problem]
    return found or _size_problems(*(int(str(variables[name])) for name in ("memory_megabytes", "item_megabytes", "connections")))


def _address_problem(address: object, allow_public: bool) -> str | None:
    problem = address_problem("memcached_address", address)
    if problem or allow_public:
        return problem
    found = ipaddress.ip_address(str(address))
    if not (found.is_unspecified or found.is_global):
        return None
    return (
        f"memcached_address is '{address}', where everybody reaches memcached whom no firewall stops, and memcached asks for no password."
        " Give an internal address of the host, such as 10.0.0.5, or set memcached_allow_public to true and close the port to everybody but"
        " the hosts of graphite-web."
    )


def _size_problems(memory: int, item: int, connections: int) -> list[str]:
    """Return a message for each size with which memcached would not start or hold next to nothing; its own limit of an item is 1 GiB."""
    problems = []
    if not (2 * item <= memory and item < 1024):
        most, least = max(1, min(memory // 2, 1023)), 2 * item
        problems.append(
            f"memcached_item_megabytes is {item} and memcached_memory_megabytes {memory}; memcached takes items of up to half of its"
            f" memory, and below 1024. Set memcached_item_megabytes to at most {most}, or memcached_memory_megabytes to at least {least}."
        )
    if memory > _MOST_MEGABYTES:
        problems.append(f"memcached_memory_megabytes is {memory}; give a number of MiB that the host has, at most {_MOST_MEGABYTES}.")
    if connections > _MOST_CONNECTIONS:
        problems.append(f"memcached_connections is {connections}; give at most {_MOST_CONNECTIONS}.")
    return problems
