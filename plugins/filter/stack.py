# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The topology of an inventory, and what is wrong with it. Each filter is documented beside this file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from ansible import context
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
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


def role_options() -> dict[str, dict]:
    """Return the options of all roles by their names."""
    roles = [path.parent.parent.name for path in _ROLES.glob("*/meta/argument_specs.yml")]
    return {name: option for role in roles for name, option in _options(role).items()}


@lru_cache(maxsize=None)
def _defaults() -> dict[str, Any]:
    return {name: option["default"] for name, option in role_options().items() if "default" in option}


class _HostVariables(Mapping):
    """The variables of a host, which are evaluated when they are read."""

    def __init__(self, hostvars: Mapping, host: str) -> None:
        # Ansible merges all variables of the host anew for each of these calls.
        self._raw = hostvars.raw_get(host) if hasattr(hostvars, "raw_get") else hostvars[host]
        # Ansible's own access returns what cannot be evaluated as a marker or as its template, to fail later and without a name.
        self._templar = Templar(loader=getattr(hostvars, "_loader", None) or DataLoader(), variables={**self._raw, "hostvars": hostvars})
        self._host = host
        self._values: dict[str, Any] = {}
        # By name, why the validation has refused the value.
        self.refused: dict[str, str] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self.refused:
            raise _topology.RefusedValueError(self._host, self.refused[name])
        if name not in self._values:
            try:
                value = self._templar.template(self._raw[name])
                # Decrypts what Ansible Vault has encrypted, which would otherwise fail later.
                json.dumps(value, default=str, skipkeys=True)
            except Exception as error:  # a template of the inventory may fail in any way
                # ansible-core before 2.19 repeats the reason.
                reason = ". ".join(dict.fromkeys(str(getattr(error, "message", error)).rstrip(".").split(". ")))
                raise _topology.RefusedValueError(
                    self._host,
                    f"{name} of {self._host} cannot be evaluated: {reason}. Correct its template, or define in the inventory what it refers"
                    " to; facts of the host are not known yet.",
                ) from error
            self._values[name] = value
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)


class _ValidatedHosts:
    """The variables of each host, without those that its validation has refused."""

    def __init__(self, groups: Mapping, hostvars: Mapping) -> None:
        self.inventory = _topology.Inventory(groups, self._variables, _defaults())
        self._hostvars = hostvars
        self._known: dict[str, _HostVariables] = {}
        self._problems: dict[str, list[str]] = {}

    def problems(self, host: str) -> list[str]:
        """Return what is wrong with the variables of a host, without regard to other hosts."""
        self._variables(host)
        return self._problems[host]

    def _variables(self, host: str) -> Mapping:
        if host not in self._known:
            variables = self._known[host] = _HostVariables(self._hostvars, host)
            view = _topology.HostView(self.inventory, host)
            components = [_topology.COMPONENTS[name] for name in view.components]
            roles = [role for component in components if component.in_stack for role in component.roles]
            self._problems[host] = [
                problem for role in [*roles, "graphite_venv"] for problem in _role_problems(variables, view, host, role)
            ]
        return self._known[host]


def _value_problems(variables: _HostVariables, name: str, option: Mapping, host: str) -> list[str]:
    """Refuse a variable that cannot be evaluated or that does not fit its specification; return the problems."""
    try:
        problems = _validation.specification_problems(name, option, host, variables[name])
    except _topology.RefusedValueError as error:
        problems = [str(error)]
    if problems:
        variables.refused[name] = problems[0]
    return problems


def _role_problems(variables: _HostVariables, view: _topology.HostView, host: str, role: str) -> list[str]:
    options = _options(role)
    problems: list[str] = []
    values = {name: option["default"] for name, option in options.items() if "default" in option}
    for name, option in options.items():
        if name in variables:
            problems += _value_problems(variables, name, option, host)
            if name not in variables.refused:
                values[name] = variables[name]
    if role == "carbon_cache":
        with suppress(_topology.RefusedValueError):
            values["carbon_cache_instances"] = view.own_instances()
    if role == "carbon_relay":
        with suppress(_topology.RefusedValueError):
            values.update(view.own_relay())
    if role == "apache_wsgi":
        values["apache_wsgi_sites"] = [*view.own_site(), *values["apache_wsgi_sites"]]
    found = _validation.rule_problems(role, values, set(variables.refused), RULES.get(role))
    # What follows from variables that are wrong would be wrong as well.
    variables.refused.update({about: problem for problem in found if (about := _validation.subject(problem, options))})
    return problems + found


def hosts_of(groups: Mapping, *components: str) -> list[str]:
    # Evaluated for "hosts:", in the process that Ansible forks for each task: what is read here is read once.
    _defaults()
    try:
        return _topology.hosts_of(groups, *components)
    except _topology.TopologyError as error:
        raise AnsibleFilterError(str(error)) from error


def stack_topology(groups: Mapping, hostvars: Mapping, host: str) -> dict:
    try:
        return _topology.HostView(_inventory(groups, hostvars), host).topology()
    except _topology.RefusedValueError as error:
        raise AnsibleFilterError(str(error)) from error


def stack_warnings(groups: Mapping, hostvars: Mapping, host: str) -> list[str]:
    try:
        return _topology.HostView(_inventory(groups, hostvars), host).warnings()
    except _topology.RefusedValueError as error:
        raise AnsibleFilterError(str(error)) from error


def stack_problems(
    groups: Mapping, hostvars: Mapping, host: str, component: str | None = None, validated: Iterable[str] | None = None
) -> list[str]:
    if component:
        try:
            return _topology.HostView(_inventory(groups, hostvars), host).target_problems(_topology.COMPONENTS[component])
        except _topology.RefusedValueError as error:
            return [str(error)]
    hosts = _ValidatedHosts(groups, hostvars)
    view = _topology.HostView(hosts.inventory, host)
    problems = hosts.problems(host) + view.problems()
    # A host that is validated itself tells its own problems.
    told = list(hostvars if validated is None else validated)
    elsewhere = [
        str(error) if f" of {error.host} " in str(error) else f"On {error.host}: {error}"
        for error in view.refused_elsewhere
        if error.host not in told
    ]
    return problems + list(dict.fromkeys(elsewhere))


def _inventory(groups: Mapping, hostvars: Mapping) -> _topology.Inventory:
    return _topology.Inventory(groups, lru_cache(maxsize=None)(lambda host: _HostVariables(hostvars, host)), _defaults())


def unknown_tags(tags: Iterable[str], known: list[str], playbook: str = "site") -> list[str]:
    started = context.CLIARGS.get("args") or ()
    alone = bool(started) and all(_is_own_playbook(argument, playbook) for argument in started)
    similar = {_plain_tag(tag) for tag in known}
    return [tag for tag in tags if tag not in known and (alone or _plain_tag(tag) in similar)]


def _is_own_playbook(argument: str, playbook: str) -> bool:
    """Tell whether an argument of ``ansible-playbook`` is a playbook of the collection, by its path or its full name."""
    names = [f"metricstack.graphite.{playbook}{extension}" for extension in ("", ".yml")]
    return argument in names or Path(argument).resolve() == _ROLES.parent / "playbooks" / f"{playbook}.yml"


def _plain_tag(tag: str) -> str:
    return re.sub(r"[\W_]", "", tag.lower())


class FilterModule:
    def filters(self) -> dict:
        return {
            "hosts_of": hosts_of,
            "stack_problems": stack_problems,
            "stack_topology": stack_topology,
            "stack_warnings": stack_warnings,
            "unknown_tags": unknown_tags,
        }
