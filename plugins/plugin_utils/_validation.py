# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Validates the variables of a role: its argument specification, and its own rules.

This file is private to the collection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible.module_utils.common.validation import check_type_bool, check_type_float, check_type_int
from ansible.module_utils.parsing.convert_bool import boolean

_KINDS = {
    "bool": "true or false",
    "dict": "a dictionary",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "path": "a path",
    "str": "a text",
}
_SCALARS: dict[str, Callable[[Any], Any]] = {"bool": check_type_bool, "float": check_type_float, "int": check_type_int}


def specification_problems(name: str, option: Mapping[str, Any], host: str, value: Any) -> list[str]:
    """Return one message for each part of a variable's value that does not fit the variable's specification.

    Stricter than Ansible where a role would fail later: a text is no list and no dictionary, and a variable with a default is not
    null. A value that the specification calls ``no_log`` is not shown.
    """
    if value is None:
        if "default" not in option:
            return []  # the rules of the role know what it means
        return [f"{name} of {host} is null; give {_KINDS[option['type']]}, or leave the variable out to have its default."]
    return list(_mismatches(name, host, option, value))


def _mismatches(path: str, host: str, option: Mapping[str, Any], value: Any) -> Iterator[str]:
    kind = option.get("type", "str")
    if kind != "raw" and not _is_of_kind(value, kind):
        yield f"{path} of {host} is {_shown(option, value)}; give {_KINDS[kind]}."
    elif kind != "list" and option.get("choices") and value not in option["choices"]:
        yield f"{path} of {host} is {_shown(option, value)}; give one of {', '.join(map(str, option['choices']))}."
    elif kind == "list" and "elements" in option:
        element = {**option, "type": option["elements"], "elements": None}
        for position, item in enumerate(value):
            yield from _mismatches(f"{path}[{position}]", host, element, item)
    elif kind == "dict" and option.get("options"):
        known = option["options"]
        unknown = [str(key) for key in value if key not in known]
        if unknown:
            yield f"There is no option {', '.join(unknown)} in {path} of {host}; the options are {', '.join(known)}."
        missing = [key for key, inner in known.items() if inner.get("required") and value.get(key) is None]
        if missing:
            yield f"{path} of {host} lacks {', '.join(missing)}."
        for key, inner in known.items():
            if value.get(key) is not None:
                yield from _mismatches(f"{path}.{key}", host, inner, value[key])


def _is_of_kind(value: Any, kind: str) -> bool:
    if kind == "dict":
        return isinstance(value, Mapping)
    if kind == "list":
        return isinstance(value, (list, tuple))
    if isinstance(value, (Mapping, list, tuple)):
        return False
    try:
        _SCALARS.get(kind, str)(value)
    except (TypeError, ValueError):
        return False
    return True


def _shown(option: Mapping[str, Any], value: Any) -> str:
    if isinstance(value, Mapping):
        return _KINDS["dict"]
    if isinstance(value, (list, tuple)):
        return _KINDS["list"]
    if _is_secret(option):
        return "of another type"
    return str(value).lower() if isinstance(value, bool) else f"'{value}'"


def _is_secret(option: Mapping[str, Any]) -> bool:
    return bool(option.get("no_log")) or any(map(_is_secret, (option.get("options") or {}).values()))


def rule_problems(role: str, variables: Mapping[str, Any], refused: set[str], rules: Callable[[dict], list[str]] | None) -> list[str]:
    """Return one message for each mistake in a role's variables that their specifications do not tell.

    ``variables`` are those of the role with its prefix, with the defaults in place of values that are already ``refused``; ``rules``
    takes them without the prefix. What names a refused variable is left out, because it may follow from the default.
    """
    unprefixed = {name[len(role) + 1 :]: value for name, value in variables.items()}
    problems = (rules(unprefixed) if rules else []) + removal_problems(role, unprefixed)
    return [problem for problem in problems if refused.isdisjoint(_words(problem))]


def removal_problems(role: str, variables: Mapping[str, Any]) -> list[str]:
    """Return one message if the variables of a role, without its prefix, ask to remove the data of a service that stays."""
    if variables.get("state") == "absent" or not boolean(variables.get("remove_data", False), strict=False):
        return []
    return [
        f"{role}_remove_data is true, but {role}_state is present. Set {role}_state to absent to remove both, or leave"
        f" {role}_remove_data out."
    ]


def subject(problem: str, names: Mapping[str, Any]) -> str | None:
    """Return the variable that a message is about: the first one that it names."""
    return next((word for word in _words(problem) if word in names), None)


def _words(message: str) -> list[str]:
    return re.findall(r"\w+", message)
