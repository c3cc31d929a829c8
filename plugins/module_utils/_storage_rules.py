# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Carbon's storage rules: storage-schemas.conf and storage-aggregation.conf.

Source of the format: ``carbon/storage.py`` of carbon 1.1.10. A rule matches a metric if its pattern is found anywhere
in the name (``re.search``); the first rule that matches wins. This file is private to the collection.
"""

from __future__ import annotations

import re
from typing import NamedTuple

try:
    from re import _constants as sre_constants  # type: ignore[attr-defined,unused-ignore]
    from re import _parser as sre_parse  # type: ignore[attr-defined,unused-ignore]
except ImportError:  # before Python 3.11
    import sre_constants
    import sre_parse

from ansible_collections.metricstack.graphite.plugins.module_utils._retention import (
    Archive,
    RetentionError,
    parse_retentions,
    whisper_size,
)

# The methods that every release of whisper from 1.1.4 on knows.
AGGREGATION_METHODS = ("average", "sum", "last", "max", "min", "avg_zero", "absmax", "absmin")
# What carbon keeps of a metric that no schema matches: a week of minutes.
_UNMATCHED = [Archive(60, 60 * 24 * 7)]
# A file takes whole blocks; this is the usual size of one in ext4, XFS and Btrfs.
_BLOCK_BYTES = 4096


class _Expected(NamedTuple):
    """What the series of one rule take on disk."""

    rule: str
    series: int
    bytes_per_series: int


class _Shape(NamedTuple):
    """What can be told of the names that a pattern matches."""

    anchored_start: bool
    anchored_end: bool
    literals: tuple[str, ...]  # texts that every matching name contains
    begins_literal: bool  # the first of them stands where the pattern begins
    ends_literal: bool  # the last of them stands where the pattern ends
    exact: bool  # nothing but the anchors and at most one literal: the pattern matches no fewer names


def rule_problems(variable: str, rules: list[dict]) -> list[str]:
    """Return one sentence for each mistake that schemas and aggregations can have in common.

    ``rules`` are dicts with ``name`` and ``pattern``; ``variable`` is the name of the Ansible variable, for the text.
    """
    problems = []
    for position, rule in enumerate(rules):
        where = f"{variable}: rule '{rule['name']}'"
        earlier_rules = rules[:position]
        if not re.match(r"[^\]\[\s]+\Z", str(rule["name"])) or rule["name"] == "DEFAULT":
            problems.append(f"{where} has a name that carbon cannot read; use letters, digits, '_' and '-', and not DEFAULT.")
        if rule["name"] in [earlier["name"] for earlier in earlier_rules]:
            problems.append(f"{where} is there twice; give each rule a name of its own.")
        pattern = str(rule["pattern"])
        if pattern != pattern.strip() or "\n" in pattern or not pattern:
            problems.append(
                f"{where} has the pattern '{pattern}'; carbon needs one that is not empty, on one line, without spaces around it."
            )
            continue
        try:
            re.compile(pattern)
        except re.error as error:
            problems.append(f"{where} has the pattern '{pattern}', which is not a regular expression: {error}.")
            continue
        swallower = next((earlier for earlier in earlier_rules if swallows(earlier["pattern"], pattern)), None)
        if swallower is not None:
            problems.append(
                f"{where} with pattern '{pattern}' can never match: the earlier rule '{swallower['name']}' with pattern"
                f" '{swallower['pattern']}' matches first. Put '{rule['name']}' before '{swallower['name']}', or remove it."
            )
    return problems


def schema_problems(variable: str, schemas: list[dict]) -> list[str]:
    """Return one sentence for each mistake in a list of ``{name, pattern, retentions}``."""
    problems = rule_problems(variable, schemas)
    for schema in schemas:
        try:
            parse_retentions(schema["retentions"])
        except RetentionError as error:
            problems.append(f"{variable}: rule '{schema['name']}' has the retentions '{schema['retentions']}': {error}.")
    return problems


def aggregation_problems(variable: str, aggregations: list[dict]) -> list[str]:
    """Return one sentence for each mistake in a list of ``{name, pattern, xfilesfactor, aggregation_method}``."""
    problems = rule_problems(variable, aggregations)
    for rule in aggregations:
        factor = rule.get("xfilesfactor")
        if factor is not None and not 0 <= float(factor) <= 1:
            problems.append(f"{variable}: rule '{rule['name']}' has xfilesfactor {factor}; it is a share, from 0 to 1.")
    return problems


def expected_series_problems(variable: str, expected: object, schemas_variable: str, schemas: list[dict]) -> list[str]:
    """Return one sentence for each mistake in ``expected``: a number of series, or a dict of such by names of ``schemas``."""
    if not isinstance(expected, dict):
        if _is_count(expected):
            return []
        return [
            f"{variable} is {expected}; give a whole number of series, such as 10000, or a dict of such numbers by the names of the"
            f" rules in {schemas_variable}."
        ]
    problems = []
    names = [str(schema["name"]) for schema in schemas]
    for name, series in expected.items():
        if str(name) not in names:
            problems.append(
                f"{variable} has the rule '{name}', which {schemas_variable} does not have; write one of: {', '.join(names) or 'none'}."
            )
        if not _is_count(series):
            problems.append(f"{variable}: rule '{name}' has {series}; give a whole number of series, such as 10000.")
    return problems


def capacity_problems(expected: int | str | dict, schemas: list[dict], directory: str, free: int, used: int = 0) -> list[str]:
    """Return one sentence if the files of the expected series do not fit on the file system of ``directory``.

    ``free`` are the bytes that are free there, ``used`` those that whisper files take already. A number of series
    without rules is judged by the rule that takes the most.
    """
    files = _expected_files(expected, schemas)
    needed = sum(file.series * file.bytes_per_series for file in files)
    if needed <= free + used:
        return []
    terms = ", ".join(f"{file.rule}: {_grouped(file.series)} x {_in_kib(file.bytes_per_series)}" for file in files)
    return [
        f"carbon_cache_expected_series with carbon_cache_storage_schemas needs {_in_gib(needed)} ({terms}), but the file system of"
        f" {directory} has {_in_gib(free + used)} ({_in_gib(free)} free and {_in_gib(used)} of whisper files). Shorten the"
        " retentions in carbon_cache_storage_schemas, lower carbon_cache_expected_series, enlarge that file system, or set"
        " carbon_cache_whisper_directory to a directory on a larger one."
    ]


def first_match(rules: list[dict], metric: str) -> dict | None:
    """Return the rule that carbon applies to ``metric``, or ``None``. Patterns that do not compile match nothing."""
    for rule in rules:
        try:
            if re.search(rule["pattern"], metric):
                return rule
        except re.error:
            continue
    return None


def swallows(earlier: str, later: str) -> bool:
    """Tell whether every metric name that ``later`` matches is certain to be matched by ``earlier``.

    Answers false where it cannot tell: a rule that could match is never called dead.
    """
    if earlier == later:
        return True
    broad, narrow = _shape(earlier), _shape(later)
    if not broad.exact:
        return False
    text = broad.literals[0] if broad.literals else ""
    begins = narrow.anchored_start and narrow.begins_literal and narrow.literals[0].startswith(text)
    ends = narrow.anchored_end and narrow.ends_literal and narrow.literals[-1].endswith(text)
    if broad.anchored_start and broad.anchored_end:
        return narrow.exact and narrow.anchored_start and narrow.anchored_end and narrow.literals == broad.literals
    if broad.anchored_start:
        return not text or begins
    if broad.anchored_end:
        return not text or ends
    return any(text in literal for literal in narrow.literals) or not text


def _is_count(value: object) -> bool:
    return not isinstance(value, bool) and re.match(r"\d+\Z", str(value)) is not None


def _expected_files(expected: int | str | dict, schemas: list[dict]) -> list[_Expected]:
    rules = [(f"rule {schema['name']}", str(schema["name"]), parse_retentions(schema["retentions"])) for schema in schemas]
    if isinstance(expected, dict):
        counts = {str(name): int(series) for name, series in expected.items()}
        return [_Expected(text, counts[name], _bytes_on_disk(archives)) for text, name, archives in rules if name in counts]
    sizes = [(_bytes_on_disk(archives), text) for text, _name, archives in rules]
    if not any(swallows(schema["pattern"], ".*") for schema in schemas):
        sizes.append((_bytes_on_disk(_UNMATCHED), "no rule"))
    size, text = max(sizes)
    return [_Expected(text, int(expected), size)]


def _bytes_on_disk(archives: list[Archive]) -> int:
    return -(-whisper_size(archives) // _BLOCK_BYTES) * _BLOCK_BYTES


def _in_gib(size: int) -> str:
    return f"{_grouped(round(size / 2**30, 2))} GiB"


def _in_kib(size: int) -> str:
    return f"{_grouped(size // 1024)} KiB"


def _grouped(number: float) -> str:
    return f"{number:,}".replace(",", " ")


def _shape(pattern: str) -> _Shape:
    tree = sre_parse.parse(pattern)
    tokens = list(tree)
    if tree.state.flags & ~re.UNICODE:
        return _Shape(False, False, (), False, False, exact=False)
    anchored_start = bool(tokens) and tokens[0] == (sre_constants.AT, sre_constants.AT_BEGINNING)
    tokens = tokens[1:] if anchored_start else tokens
    anchored_end = bool(tokens) and tokens[-1] == (sre_constants.AT, sre_constants.AT_END)
    tokens = tokens[:-1] if anchored_end else tokens
    # '.*' beside an anchor takes the anchor away: '^.*x' is 'x'. A name has at least one character, so '.+' alone is '.*'.
    open_start, open_end = False, False
    while tokens and _is_anything(tokens[0], alone=len(tokens) == 1):
        tokens, open_start = tokens[1:], True
    while tokens and _is_anything(tokens[-1], alone=False):
        tokens, open_end = tokens[:-1], True
    if not tokens and open_start:
        open_end = True
    literals: list[str] = []
    in_literal = False
    for operator, argument in tokens:
        if operator is sre_constants.LITERAL:
            literals = [*literals[:-1], literals[-1] + chr(argument)] if in_literal else [*literals, chr(argument)]
        in_literal = operator is sre_constants.LITERAL
    is_literal = [operator is sre_constants.LITERAL for operator, _argument in tokens]
    return _Shape(
        anchored_start=anchored_start and not open_start,
        anchored_end=anchored_end and not open_end,
        literals=tuple(literals),
        begins_literal=bool(is_literal) and is_literal[0],
        ends_literal=bool(is_literal) and is_literal[-1],
        exact=all(is_literal),
    )


def _is_anything(token: tuple, alone: bool) -> bool:
    operator, argument = token
    if alone and operator is sre_constants.ANY:
        return True
    if operator is not sre_constants.MAX_REPEAT:
        return False
    least, most, repeated = argument
    return least <= int(alone) and most == sre_constants.MAXREPEAT and list(repeated) == [(sre_constants.ANY, None)]
