# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Carbon's storage rules: storage-schemas.conf and storage-aggregation.conf.

Source of the format: ``carbon/storage.py`` of carbon 1.1.10. A rule matches a metric if its pattern is found anywhere
in the name (``re.search``); the first rule that matches wins. This file is private to the collection.
"""

from __future__ import annotations

import configparser
import re
from typing import NamedTuple

try:
    from re import _constants as sre_constants  # type: ignore[attr-defined,unused-ignore]
    from re import _parser as sre_parse  # type: ignore[attr-defined,unused-ignore]
except ImportError:  # before Python 3.11
    import sre_constants
    import sre_parse

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import (
    Archive,
    RetentionError,
    format_retentions,
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


class StorageRulesError(ValueError):
    """Rules that carbon could not work with; the message has one line for each."""


class SeriesShape(NamedTuple):
    """What the rules give to a series; ``rule`` is the name of the schema."""

    rule: str
    archives: tuple[Archive, ...]
    xfilesfactor: float
    aggregation_method: str


class StorageRules:
    """The rules of one carbon, as it applies them. Raises ``StorageRulesError`` for rules that it could not apply."""

    def __init__(self, schemas: list[dict], aggregations: list[dict]) -> None:
        checked = [_pattern_problem("storage_schemas", rule) or _retentions_problem("storage_schemas", rule) for rule in schemas]
        checked += [_pattern_problem("storage_aggregations", rule) for rule in aggregations]
        problems = [*filter(None, checked), *_aggregate_problems("storage_aggregations", aggregations)]
        if problems:
            raise StorageRulesError("\n".join(problems))
        # A series that no rule matches gets what carbon and whisper have built in.
        self._schemas = [(rule["name"], re.compile(rule["pattern"]), tuple(parse_retentions(rule["retentions"]))) for rule in schemas]
        self._schemas.append(("(none)", re.compile(""), tuple(_UNMATCHED)))
        self._aggregations = [(re.compile(rule["pattern"]), rule["xfilesfactor"], rule["aggregation_method"]) for rule in aggregations]
        self._aggregations.append((re.compile(""), None, None))

    @property
    def retentions(self) -> dict[str, str]:
        """The retention string of each schema, by its name."""
        return {name: format_retentions(list(archives)) for name, _pattern, archives in self._schemas}

    def shape(self, metric: str) -> SeriesShape:
        """Return what the first rules that match ``metric`` give to it."""
        name, _pattern, archives = next(rule for rule in self._schemas if rule[1].search(metric))
        _pattern, factor, method = next(rule for rule in self._aggregations if rule[0].search(metric))
        return SeriesShape(name, archives, 0.5 if factor is None else float(factor), method or "average")


def read_schemas(text: str) -> list[dict]:
    """Return the rules of a storage-schemas.conf as ``{name, pattern, retentions}``.

    Raises ``StorageRulesError`` for a text that carbon could not read. A section that carbon passes over is left out.
    """
    return [
        {"name": name, "pattern": section["pattern"], "retentions": section["retentions"]}
        for name, section in _read_sections(text)
        if section.get("pattern") and "retentions" in section
    ]


def read_aggregations(text: str) -> list[dict]:
    """Return the rules of a storage-aggregation.conf as ``{name, pattern, xfilesfactor, aggregation_method}``.

    What a section does not set is ``None``. Raises ``StorageRulesError`` for a text that carbon could not read.
    """
    return [
        {
            "name": name,
            "pattern": section["pattern"],
            "xfilesfactor": section.get("xfilesfactor"),
            "aggregation_method": section.get("aggregationmethod"),
        }
        for name, section in _read_sections(text)
        if section.get("pattern")
    ]


def _read_sections(text: str) -> list[tuple[str, dict[str, str]]]:
    parser = configparser.ConfigParser()
    try:
        parser.read_string(text)
        return [(name, dict(parser.items(name))) for name in parser.sections()]
    except configparser.Error as error:
        raise StorageRulesError(" ".join(str(error).split())) from error


class _Shape(NamedTuple):
    """What is known about the names that a pattern matches."""

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
        pattern_problem = _pattern_problem(variable, rule)
        if pattern_problem:
            problems.append(pattern_problem)
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
    return [*rule_problems(variable, schemas), *filter(None, (_retentions_problem(variable, schema) for schema in schemas))]


def aggregation_problems(variable: str, aggregations: list[dict]) -> list[str]:
    """Return one sentence for each mistake in a list of ``{name, pattern, xfilesfactor, aggregation_method}``."""
    return rule_problems(variable, aggregations) + _aggregate_problems(variable, aggregations)


def _pattern_problem(variable: str, rule: dict) -> str | None:
    where, pattern = f"{variable}: rule '{rule['name']}'", str(rule["pattern"])
    if pattern != pattern.strip() or "\n" in pattern or not pattern:
        return f"{where} has the pattern '{pattern}'; carbon needs one that is not empty, on one line, without spaces around it."
    try:
        re.compile(pattern)
    except re.error as error:
        return f"{where} has the pattern '{pattern}', which is not a regular expression: {error}."
    return None


def _retentions_problem(variable: str, rule: dict) -> str | None:
    try:
        parse_retentions(rule["retentions"])
    except RetentionError as error:
        return f"{variable}: rule '{rule['name']}' has the retentions '{rule['retentions']}': {error}."
    return None


def _aggregate_problems(variable: str, aggregations: list[dict]) -> list[str]:
    problems = []
    for rule in aggregations:
        factor, method = rule.get("xfilesfactor"), rule.get("aggregation_method")
        if factor is not None and not _is_share(factor):
            problems.append(f"{variable}: rule '{rule['name']}' has xfilesfactor {factor}; it is a share, from 0 to 1.")
        if method is not None and method not in AGGREGATION_METHODS:
            problems.append(
                f"{variable}: rule '{rule['name']}' has the aggregation method '{method}'; choose one of {', '.join(AGGREGATION_METHODS)}."
            )
    return problems


def _is_share(value: object) -> bool:
    try:
        return 0 <= float(str(value)) <= 1
    except ValueError:
        return False


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
    without rules is compared by the rule with the largest files.
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
            if re.search(str(rule["pattern"]), metric):
                return rule
        except re.error:
            continue
    return None


def swallows(earlier: str, later: str) -> bool:
    """Return whether every metric name that ``later`` matches is certain to be matched by ``earlier``.

    Returns false if this is unknown: a rule that could match is never reported as dead.
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
