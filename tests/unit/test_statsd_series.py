# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""How what StatsD writes is rolled up, against what StatsD itself writes."""

from __future__ import annotations

import itertools
import json
import re
import subprocess

import pytest
import yaml
from ansible_collections.metricstack.graphite.plugins.filter.stack import _defaults
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import aggregation_problems, first_match
from ansible_collections.metricstack.graphite.plugins.plugin_utils._statsd_series import (
    Names,
    aggregation_rules,
    aggregation_warnings,
)
from ansible_collections.metricstack.graphite.plugins.plugin_utils._topology import HostView, Inventory

# StatsD's own calculation and its own backend: for each configuration, what is sent of the metrics of one kind alone, and of timers
# for each calculated value alone.
FLUSH = """
const {process_metrics} = require('./node_modules/statsd/lib/process_metrics');
let sent;
require('net').createConnection = () => ({
  addListener() {}, on(_event, connected) { connected.call({write: (text) => { sent = text; }, end() {}}); },
});
const [configs, names] = process.argv.slice(1).map(JSON.parse);
const each = (value) => Object.fromEntries(names.map((name) => [name, value]));
console.log(JSON.stringify(configs.map((config) => {
  const path = require.resolve('./node_modules/statsd/backends/graphite');
  delete require.cache[path];
  const events = new (require('events'))();
  require(path).init(0, {graphiteHost: 'nowhere', flushInterval: 10000, ...config}, events, {log: console.error});
  const nothing = {counters: {}, counter_rates: {}, gauges: {}, sets: {}, timer_data: {}};
  const of = (metrics) => {
    events.emit('flush', 1, {...nothing, ...metrics});
    return sent.split('\\n').filter(Boolean).map((line) => line.split(' ').slice(0, 2));
  };
  const found = {own: of({}), counter: of({counters: each(41), counter_rates: each(4.1)}), gauge: of({gauges: each(43)})};
  found.set = of({sets: each({size: () => 47})});
  const timers = {
    counters: {}, timers: {m: [1, 2, 3, 5, 7]}, timer_counters: {m: 5},
    pctThreshold: [].concat(config.percentThreshold), histogram: config.histogram,
  };
  process_metrics(timers, [], 10000, 1, () => {});
  for (const [key, value] of Object.entries(timers.timer_data.m)) {
    found[key] = of({timer_data: each({[key]: value})});
  }
  const own = new Set(found.own.map(([name]) => name));
  return Object.entries(found).flatMap(([kind, lines]) =>
    lines.filter(([name]) => !own.has(name)).map(([name, value]) => [kind, name, Number(value)]));
})));
"""
METRICS = [
    "requests",
    "requests.count",
    "requests.upper",
    "requests.max",
    "requests.min",
    "a.rate",
    "sum_90;env=prod",
    "rpc;a=x.lower;method=orders.count",
]
CONFIGS = [
    {"percentThreshold": percent, "histogram": histogram, "flush_counts": counts, "graphite": graphite}
    for percent, histogram, counts, graphite in itertools.product(
        [90, [99.9, -90, 50, -99.9, 75.0]],
        [[], [{"metric": "", "bins": [0.5, 4, "inf"]}]],
        [True, False],
        [
            {"legacyNamespace": False},
            {"legacyNamespace": True},
            {"legacyNamespace": False, "globalSuffix": "host-1"},
            {"legacyNamespace": True, "globalSuffix": "count"},
            {"legacyNamespace": False, "globalPrefix": "", "prefixTimer": "t.x", "prefixSet": "upper"},
            {"legacyNamespace": False, "globalPrefix": "a.b", "prefixCounter": ""},
        ],
    )
]


@pytest.fixture(scope="module")
def flushed(statsd_release):
    """Return for each configuration what StatsD sends: kind, name and value."""
    command = ["node", "--eval", FLUSH, json.dumps(CONFIGS), json.dumps(METRICS)]
    return json.loads(subprocess.run(command, cwd=statsd_release, check=True, capture_output=True, text=True, timeout=60).stdout)


def wanted(kind, value):
    """Return what docs/graphite.md and docs/metric_types.md of StatsD ask for."""
    if kind == "counter":
        return "sum" if value == 41 else "average"
    for pattern, method in (
        ("gauge", "last"),
        ("count_ps", "average"),
        ("lower", "min"),
        ("upper", "max"),
        ("set|count|sum|sum_squares|histogram", "sum"),
    ):
        if re.match(rf"({pattern})(_|$)", kind):
            return method
    return "average"


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_every_series_is_rolled_up_as_statsd_asks_for(flushed, number):
    rules = aggregation_rules([CONFIGS[number]])
    found = {(kind, name): first_match(rules, name)["aggregation_method"] for kind, name, _value in flushed[number]}
    assert len(found) > 100
    assert found == {(kind, name): wanted(kind, value) for kind, name, value in flushed[number]}


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_every_name_is_known(flushed, number):
    known = {series.name for metric in METRICS for series in Names(CONFIGS[number]).samples(metric)}
    assert known == {name for _kind, name, _value in flushed[number]}


def test_the_default_is_for_the_default_configuration():
    assert _defaults()["carbon_cache_storage_aggregations"] == aggregation_rules([{}])


def test_tags_of_other_senders_do_not_decide():
    rules = aggregation_rules([{}])
    methods = {name: first_match(rules, name)["aggregation_method"] for name in ("jobs.count;host=a", "jobs.rate;of=orders.count", "a.max")}
    assert methods == {"jobs.count;host=a": "sum", "jobs.rate;of=orders.count": "average", "a.max": "max"}


def test_rules_of_ones_own_that_end_with_the_name_do_not_reach_tags():
    rules = [{**rule, "pattern": rule["pattern"].replace("(;|$)", "$")} for rule in aggregation_rules([{}])]
    assert aggregation_warnings("rules", rules, {}) == []
    assert any("stats.counters.requests.count;env=a.count" in warning for warning in aggregation_warnings("rules", rules, {}, tags=True))


@pytest.mark.parametrize("suffix", [{}, {"globalSuffix": "web1"}])
def test_a_kind_without_a_namespace_of_its_own_has_rules_for_what_can_be_told(suffix):
    config = {"graphite": {"globalPrefix": "", **{f"prefix{kind}": "" for kind in ("Counter", "Timer", "Gauge", "Set")}, **suffix}}
    config.update(percentThreshold=[99.9, -90], histogram=[{"metric": "", "bins": [10]}])
    rules = aggregation_rules([config])
    end = ".web1" if suffix else ""
    ends = {"count": "sum", "upper_99_9": "max", "lower_top90": "min", "histogram.bin_10": "sum", "rate": "average", "mean": "average"}
    assert {name: first_match(rules, f"requests.{name}{end}")["aggregation_method"] for name in ends} == ends
    assert aggregation_warnings("rules", rules, config) == []


def test_several_statsds_have_rules_each():
    first, second = {"graphite": {"globalSuffix": "one"}}, {"graphite": {"legacyNamespace": True}}
    rules = aggregation_rules([first, second, {}])
    assert aggregation_problems("rules", rules) == []
    for config in (first, second, {}):
        assert aggregation_warnings("rules", rules, config) == []
    assert len({rule["name"] for rule in rules}) == len(rules)


def test_the_playbooks_pass_the_rules_of_those_that_send():
    groups = {"statsd": ["s1", "s2"], "carbon": ["c1"], "graphite_web": ["c1"], "all": ["s1", "s2", "c1"]}
    variables = {
        "c1": {"carbon_cache_bind_address": "10.0.0.5"},
        "s1": {"statsd_config": {"graphite": {"globalSuffix": "s1"}}},
        "s2": {"statsd_config": {"graphite": {"globalSuffix": "s2"}}},
    }
    inventory = Inventory(groups, lambda host: variables[host], _defaults())
    passed = HostView(inventory, "c1").topology()["carbon"]["storage_aggregations"]
    assert passed == aggregation_rules([variables["s1"]["statsd_config"], variables["s2"]["statsd_config"]])
    variables["c1"]["carbon_cache_storage_aggregations"] = own = [{"name": "all", "pattern": ".*", "aggregation_method": "average"}]
    view = HostView(inventory, "c1")
    assert view.topology()["carbon"]["storage_aggregations"] == own
    assert any("stats.counters.requests.count.s2, a count of StatsD, by average" in warning for warning in view.warnings())


# The rules of release 1.5.0 of the collection, as somebody may have copied them.
COPIED = [
    {"name": "min", "pattern": r"\.(lower|min)(_\d+)?$", "xfilesfactor": 0.1, "aggregation_method": "min"},
    {"name": "max", "pattern": r"\.(upper|max)(_\d+)?$", "xfilesfactor": 0.1, "aggregation_method": "max"},
    {"name": "sum", "pattern": r"\.(count|sum|sum_squares)(_\d+)?$", "xfilesfactor": 0, "aggregation_method": "sum"},
    {"name": "gauges", "pattern": r"^stats\.gauges\.", "xfilesfactor": 0, "aggregation_method": "last"},
    {"name": "default", "pattern": ".*", "xfilesfactor": 0.3, "aggregation_method": "average"},
]


@pytest.mark.parametrize(
    ("config", "untrue"),
    [
        ({}, {"gauges.requests.count, a gauge of StatsD, by sum"}),
        ({"percentThreshold": [99.9]}, {"gauges.requests.count", "count_99_9", "upper_99_9"}),
        ({"percentThreshold": [-90]}, {"gauges.requests.count", "count_top90", "lower_top90"}),
        ({"graphite": {"globalSuffix": "h"}}, {"requests.count.h, a count of StatsD, by average", "upper.h", "lower.h", "count.h"}),
        ({"graphite": {"legacyNamespace": True}}, {"gauges.requests.count", "stats_counts.requests", "stats.requests.count, a rate"}),
        ({"histogram": [{"metric": "", "bins": [1, "inf"]}]}, {"gauges.requests.count", "bin_1"}),
    ],
)
def test_rules_of_ones_own_that_make_graphs_untrue_are_named_with_what_is_right(config, untrue):
    warnings = aggregation_warnings("carbon_cache_storage_aggregations", COPIED, config)
    assert [words for words in untrue if not any(words in warning for warning in warnings)] == []
    assert aggregation_warnings("carbon_cache_storage_aggregations", corrected(COPIED, warnings), config) == []


def corrected(rules, warnings):
    """Return the rules as somebody would write them who follows each warning to the letter."""
    rules = list(rules)
    for warning in warnings:
        named = re.search(r": rule '(\w+)' rolls up", warning)
        place = next((index for index, rule in enumerate(rules) if named and rule["name"] == named[1]), len(rules))
        rules[place:place] = yaml.safe_load(f"[{re.search(r'{name: .*}', warning)[0]}]")
    return rules


@pytest.mark.parametrize("config", [CONFIGS[0], *CONFIGS[-6:]])
@pytest.mark.parametrize(
    "own",
    [
        # Counts are right, and stay so when the rates are made right.
        [(r"^stats\.counters\.", "sum"), (".*", "average")],
        [("count", "sum"), (r"^stats\.timers\.", "max"), (".*", "last")],
        [(".*", "sum")],
        [(r"\.upper$", "sum"), (r"^stats\.", "min")],
        [],
    ],
    ids=str,
)
def test_who_follows_the_advice_is_warned_no_more(config, own):
    rules = [{"name": f"own{number}", "pattern": pattern, "aggregation_method": method} for number, (pattern, method) in enumerate(own)]
    warnings = aggregation_warnings("rules", rules, config)
    assert len(warnings) in (1, 2, 3), "one for each rule"
    assert aggregation_warnings("rules", corrected(rules, warnings), config) == []


def test_percentiles_that_are_not_calculated_are_no_reason_for_a_warning():
    config = {"percentThreshold": []}
    rules = [rule for rule in aggregation_rules([config]) if not rule["name"].startswith("timer_")]
    rules[:0] = [
        {"name": method, "pattern": rf"^stats\.timers\..*\.({words})$", "aggregation_method": method}
        for method, words in {"sum": "count|sum|sum_squares", "min": "lower", "max": "upper"}.items()
    ]
    assert aggregation_warnings("rules", rules, config) == []
    assert aggregation_warnings("rules", rules, {}) != []
