# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The topology of an inventory, and what is wrong with it. Each filter is documented beside this file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.plugin_utils import _topology, _validation
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles import RULES

_ROLES = Path(__file__).resolve().parents[2] / "roles"
# Ten times as fast, where PyYAML is built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@lru_cache(maxsize=None)
def _options(role: str) -> dict[str, dict]:
    """Return the options of a role from its argument specification, with their defaults."""
    file = _ROLES / role / "meta" / "argument_specs.yml"
    return yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)["argument_specs"]["main"]["options"]


@lru_cache(maxsize=None)
def _defaults() -> dict[str, Any]:
    roles = [path.parent.parent.name for path in _ROLES.glob("*/meta/argument_specs.yml")]
    return {name: option["default"] for role in roles for name, option in _options(role).items() if "default" in option}


def _inventory(groups: Mapping, hostvars: Mapping) -> _topology.Inventory:
    known: dict[str, Mapping] = {}

    def variables(host: str) -> Mapping:
        # Each look-up makes Ansible merge all variables of the host anew.
        if host not in known:
            known[host] = hostvars[host]
        return known[host]

    return _topology.Inventory(groups, variables, _defaults())


def hosts_of(groups: Mapping, *components: str) -> list[str]:
    # Evaluated for "hosts:", in the process that Ansible forks for each task: what is read here is read once.
    _defaults()
    try:
        return _topology.hosts_of(groups, *components)
    except _topology.TopologyError as error:
        raise AnsibleFilterError(str(error)) from error


def stack_topology(groups: Mapping, hostvars: Mapping, host: str) -> dict:
    return _topology.HostView(_inventory(groups, hostvars), host).topology()


def stack_problems(groups: Mapping, hostvars: Mapping, host: str, component: str | None = None) -> list[str]:
    inventory = _inventory(groups, hostvars)
    view = _topology.HostView(inventory, host)
    if component:
        return view.target_problems(_topology.COMPONENTS[component])
    components = [_topology.COMPONENTS[name] for name in view.components]
    roles = [role for component in components if component.in_stack for role in component.roles]
    problems = [problem for role in [*roles, "graphite_venv"] for problem in _role_problems(inventory, view, host, role)]
    # What follows from variables that are wrong would be wrong as well.
    return problems or view.problems()


def _role_problems(inventory: _topology.Inventory, view: _topology.HostView, host: str, role: str) -> Iterable[str]:
    variables: dict[str, Any] = {}
    for name in _options(role):
        try:
            value = inventory.value(host, name)
        except Exception as error:  # a template of the inventory, which may fail in any way
            return [f"{name} of {host} cannot be evaluated: {error}"]
        if value is not None or inventory.is_set(host, name):
            variables[name] = value
    if role == "apache_wsgi" and not _validation.specification_problems(_options(role), variables):
        variables["apache_wsgi_sites"] = view.sites()
    return _validation.role_problems(role, _options(role), variables, RULES.get(role))


class FilterModule:
    def filters(self) -> dict:
        return {"hosts_of": hosts_of, "stack_problems": stack_problems, "stack_topology": stack_topology}
