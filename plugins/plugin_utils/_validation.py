# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Validates all variables of a host at once: each role's argument specification, each role's own rules, and the topology.

This file is private to the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean


def specification_problems(options: Mapping[str, dict], variables: Mapping[str, Any]) -> list[str]:
    """Return one message for each variable that does not fit its specification.

    ``options`` are those of a role's ``meta/argument_specs.yml``.
    """
    names = [name for name in options if name in variables]
    validator = ArgumentSpecValidator({name: options[name] for name in names})
    messages = validator.validate({name: variables[name] for name in names}).error_messages
    return [f"There is no option {message}" if "Supported parameters include" in message else message for message in messages]


def role_problems(
    role: str, options: Mapping[str, dict], variables: Mapping[str, Any], rules: Callable[[dict], list[str]] | None
) -> list[str]:
    """Return one message for each mistake in a role's variables.

    ``variables`` are those of the role with its prefix, defaults included; ``rules`` takes them without the prefix. Rules that
    compare values are asked once all values have their types.
    """
    problems = specification_problems(options, variables)
    if boolean(variables.get(f"{role}_remove_data", False), strict=False) and variables.get(f"{role}_state") != "absent":
        problems.append(
            f"{role}_remove_data is true, but {role}_state is present. Set {role}_state to absent to remove both, or leave"
            f" {role}_remove_data out."
        )
    if not problems and rules:
        problems = rules({name[len(role) + 1 :]: value for name, value in variables.items()})
    return problems
