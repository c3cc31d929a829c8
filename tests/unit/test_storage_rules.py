# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Retentions against the whisper library, and the search for rules that can never match against what patterns match."""

from __future__ import annotations

import random
import re

import pytest
import whisper
from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.filter.carbon import whisper_size_of
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import (
    RetentionError,
    format_retentions,
    parse_retentions,
)
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import (
    capacity_problems,
    expected_series_problems,
    schema_problems,
    swallows,
)


@pytest.mark.parametrize(
    "text",
    ["10s:6h,1min:6d,10min:1800d", "60:1440", "1s:1m", "60s:1d,5m:30d,1h:3y", "1h:7years,60s:90days", "15seconds:8", "1w:1y"],
)
def test_archives_are_those_that_whisper_reads(text):
    ours = parse_retentions(text)
    assert ours == sorted(whisper.parseRetentionDef(definition) for definition in text.split(","))
    carbon_units = format_retentions(ours)
    assert re.fullmatch(r"(\d+[smhdwy]:\d+[smhdwy],?)+", carbon_units)
    assert parse_retentions(carbon_units) == ours


def test_archives_are_refused_exactly_when_whisper_refuses_them():
    choose = random.Random(1)
    verdicts = {True: 0, False: 0}
    for _number in range(3000):
        archives = [(choose.choice([1, 5, 10, 25, 60, 300]), choose.choice([1, 6, 12, 60, 720])) for _number in range(choose.randint(1, 3))]
        try:
            whisper.validateArchiveList(list(archives))
            accepted = True
        except whisper.InvalidConfiguration:
            accepted = False
        try:
            parse_retentions(",".join(f"{precision}:{points}" for precision, points in archives))
            assert accepted, archives
        except RetentionError:
            assert not accepted, archives
        verdicts[accepted] += 1
    assert min(verdicts.values()) > 300


PATTERNS = ["^", "$", ".*", ".+", "a", "ab", r"\.", "b", "[ab]", "(a|b)", "a*", "(?i)a", "^a", "b$", "a.b", r"\.b$", r"^a\.b"]


def test_a_rule_is_called_dead_only_if_no_name_reaches_it():
    choose = random.Random(2)
    names = ["".join(choose.choice("aAb.") for _number in range(choose.randint(1, 5))) for _number in range(400)]
    dead = 0
    for _number in range(4000):
        earlier, later = ("".join(choose.choice(PATTERNS) for _number in range(choose.randint(1, 3))) for _number in range(2))
        try:
            if not swallows(earlier, later):
                continue
        except re.error:  # such as "*" after "^", or a flag in the middle
            continue
        dead += 1
        escaped = [name for name in names if re.search(later, name) and not re.search(earlier, name)]
        assert escaped == [], (earlier, later)
    assert dead > 200


@pytest.mark.parametrize(
    ("earlier", "later"),
    [(".*", "^stats"), ("", "x"), ("^stats", r"^stats\.timers\."), ("stats", "^my.stats"), (r"\.count$", r"^stats.*\.count$"), ("x", "x")],
)
def test_a_rule_that_can_never_match_is_found(earlier, later):
    assert swallows(earlier, later)


def test_the_articles_order_is_refused_and_the_cure_is_named():
    rules = [
        {"name": "default_1min_for_1day", "pattern": ".*", "retentions": "60s:1d"},
        {"name": "stats", "pattern": "^stats.*", "retentions": "10s:6h,1min:6d,10min:1800d"},
    ]
    (problem,) = schema_problems("carbon_cache_storage_schemas", rules)
    assert "Put 'stats' before 'default_1min_for_1day'" in problem


@pytest.mark.parametrize("text", ["60s:90d", "10s:6h,1min:6d,10min:180d", "1s:1"])
def test_a_file_has_the_size_that_is_told(text, tmp_path):
    path = tmp_path / "series.wsp"
    archives = parse_retentions(text)
    whisper.create(str(path), archives)
    assert whisper_size_of(text) == {"points": sum(archive.points for archive in archives), "bytes": path.stat().st_size}


def test_the_size_of_what_whisper_refuses_is_refused():
    with pytest.raises(AnsibleFilterError, match="25s is not a multiple"):
        whisper_size_of("10s:6h,25s:6d")


# 25 948 and 121 012 bytes: 7 and 30 blocks.
RULES = [
    {"name": "stats", "pattern": r"^stats\.", "retentions": "10s:6h"},
    {"name": "rest", "pattern": ".*", "retentions": "60s:7d"},
]


@pytest.mark.parametrize(
    ("expected", "schemas", "blocks"),
    [
        ({"stats": 10}, RULES, 70),
        ({"stats": 10, "rest": "2"}, RULES, 130),
        (10, RULES, 300),
        (10, RULES[:1], 300),  # what no rule matches, carbon keeps for a week
        ("0", [], 0),
    ],
)
def test_series_fit_up_to_the_last_block(expected, schemas, blocks):
    assert capacity_problems(expected, schemas, "/srv/whisper", blocks * 4096) == []
    assert capacity_problems(expected, schemas, "/srv/whisper", 4096, (blocks - 1) * 4096) == []
    assert len(capacity_problems(expected, schemas, "/srv/whisper", blocks * 4096 - 1)) == 1


def test_what_does_not_fit_is_named_with_what_there_is():
    (problem,) = capacity_problems({"stats": 1000000, "rest": 5}, RULES, "/srv/whisper", 3 * 2**30, 2**30)
    assert "needs 26.7 GiB (rule stats: 1 000 000 x 28 KiB, rule rest: 5 x 120 KiB)" in problem
    assert "/srv/whisper has 4.0 GiB (3.0 GiB free and 1.0 GiB of whisper files)" in problem


@pytest.mark.parametrize("expected", [{}, 0, 10000, "10000", {"stats": 10000, "rest": "0"}])
def test_numbers_of_series_are_taken(expected):
    assert expected_series_problems("expected", expected, "schemas", RULES) == []


@pytest.mark.parametrize("expected", [-1, 1.5, True, None, "many", "", [10], "1\n"])
def test_what_is_no_number_of_series_is_refused(expected):
    (problem,) = expected_series_problems("expected", expected, "schemas", RULES)
    assert problem.startswith(f"expected is {expected};")
    (problem,) = expected_series_problems("expected", {"stats": expected}, "schemas", RULES)
    assert problem.startswith(f"expected: rule 'stats' has {expected};")
