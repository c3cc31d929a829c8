# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a Go server did under load, from the series that graphite-web has of it."""

from __future__ import annotations

from pathlib import Path

import pages
import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.filter.benchmark import go_load_summary
from ansible_collections.metricstack.graphite.plugins.filter.stack import stack_problems, stack_topology
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.render import summarize_series
from ansible_collections.metricstack.graphite.plugins.plugin_utils._go_benchmark import runtime_series

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"histogram": [{"metric": "other", "bins": [1]}, {"metric": "gc.pause", "bins": [0.05, 1, "inf"]}, {"metric": "", "bins": [7]}]}
SERIES = runtime_series(CONFIG, "go.web1-go1-26")
BEGAN, ENDED = 1_000_000_003, 1_000_000_023


def answer(step: int, **values: list) -> list[dict]:
    """Return series of points from a slot long before the load on."""
    first = BEGAN - BEGAN % step - 2 * step
    return summarize_series(
        [
            {"target": SERIES[name], "datapoints": [[value, first + step * i] for i, value in enumerate(points)]}
            for name, points in values.items()
        ]
    )


# The load begins in the slot 1000000000 and ends in 1000000020; what was flushed at its end can be in 1000000030, and nothing later.
WHOLE = {
    "collections": [10, 12, 12, 20, 42, 45, 99],
    "pause_total": [1e6, 3e6, 3e6, 4e6, 7e6, 9e6, 99e6],
    "allocated": [0, 1000, 1000, 6000, 7000, 21000, 99000],
    "memory": [900, 500, 70, 80, 60, 50, 999],
    "goroutines": [99, 90, 3, 53, 53, 3, 99],
    "pauses": [10, 2, None, 8, 22, 3, 54],
    "longest": [9.5, 8, None, 0.25, 0.75, 0.125, 90],
    "below_0.05": [5, 1, None, 6, 15, 1, 50],
    "below_1": [5, 1, None, 2, 7, 2, 4],
    "below_inf": [0, 0, None, 0, 0, 0, 0],
    "gc_seconds": [9, 9, 9, 0.5, 0.25, 9, 9],
    "total_seconds": [9, 9, 9, 2, 1, 9, 9],
}


def test_the_names_are_those_of_statsd():
    assert SERIES["collections"] == "stats.gauges.go.web1-go1-26.mem.gc.count"
    assert SERIES["pauses"] == "stats.timers.go.web1-go1-26.mem.gc.pause.count"
    assert SERIES["allocation_rate"] == "stats.counters.go.web1-go1-26.mem.allocated.rate"
    bins = {name: series for name, series in SERIES.items() if name.startswith("below")}
    assert bins == {
        f"below_{limit}": f"stats.timers.go.web1-go1-26.mem.gc.pause.histogram.bin_{node}"
        for limit, node in (("0.05", "0_05"), ("1", "1"), ("inf", "inf"))
    }
    other = runtime_series({"graphite": {"globalPrefix": "x", "globalSuffix": "y"}}, "go.a")
    assert other["longest"] == "x.timers.go.a.mem.gc.pause.upper.y"
    assert not any(name.startswith("below") for name in other)


def test_the_figures_come_from_counts_and_totals():
    assert go_load_summary(answer(10, **WHOLE), SERIES, BEGAN, ENDED) == {
        "collections": 33,
        "pause_total": 6.0,
        "pause_mean": 6.0 / 33,
        "pause_longest": 0.75,
        "pauses": 33,
        "pauses_below": {"0.05": 22, "1": 11, "inf": 0},
        "gc_share": 0.25,
        "allocated_per_second": 1000.0,
        "memory_max": 80,
        "goroutines_max": 53,
    }


def test_what_the_load_began_in_is_counted_whole():
    # A flush of the slot in which the load began may have come after the beginning: its pauses are of the load.
    early = {"collections": [10, 12, 15, 20, 42, 45], "pauses": [10, 2, 3, 5, 22, 3]}
    summary = go_load_summary(answer(10, **early), SERIES, BEGAN, ENDED)
    assert summary["collections"] == summary["pauses"] == 33


def test_a_server_that_has_just_been_started_has_counted_from_zero():
    summary = go_load_summary(answer(10, collections=[None, None, 3, 9, 9, 9], pauses=[None, None, 3, 6]), SERIES, BEGAN, ENDED)
    assert summary["collections"] == summary["pauses"] == 9


def test_what_is_not_known_is_null():
    summary = go_load_summary(answer(10, collections=[4, 4, 4, 4, 4, 4]), SERIES, str(BEGAN), str(ENDED))
    assert (summary["collections"], summary["pauses"]) == (0, 0)
    unknown = ("pause_mean", "pause_longest", "gc_share", "memory_max", "goroutines_max")
    assert [summary[name] for name in unknown] == [None] * len(unknown)


def test_a_statsd_that_calculates_bins_alone_has_not_counted_the_pauses():
    series = runtime_series({**CONFIG, "calculatedTimerMetrics": ["upper", "histogram"]}, "go.web1-go1-26")
    assert SERIES.keys() - series.keys() == {"pauses"}
    summary = go_load_summary(answer(10, **WHOLE), series, BEGAN, ENDED)
    assert summary["pauses"] is None
    assert summary["pauses_below"] == {"0.05": 22, "1": 11, "inf": 0}


def test_a_server_that_was_restarted_is_named():
    with pytest.raises(AnsibleFilterError, match=r"go\.web1-go1-26\.mem\.gc\.count has fallen.*restarted"):
        go_load_summary(answer(10, collections=[10, 12, 13, 0, 5, 6]), SERIES, BEGAN, ENDED)
    # Before the load, or long after it, that is nobody's concern.
    go_load_summary(answer(10, collections=[99, 1, 2, 3, 4, 5, 0]), SERIES, BEGAN, ENDED)


EVERY_SECOND = ("statsd_flush_interval", "carbon_cache_storage_schemas", "statsd_config")


def variables(page: str) -> dict:
    return pages.variables(page, "go.yml") if page.endswith(".md") else yaml.safe_load((ROOT / page).read_text())


@pytest.mark.parametrize("page", ["docs/go_benchmark.md", "script/demo.yml", "molecule/go/inventory/group_vars/all.yml"])
def test_flushes_retentions_and_reports_are_in_step(page):
    given = variables(page)
    assert {name: given[name] for name in EVERY_SECOND} == {name: variables("docs/go_benchmark.md")[name] for name in EVERY_SECOND}
    assert stack_problems({"all": ["web1"]}, {"web1": given}, "web1") == []
    topology = stack_topology({"all": ["web1"]}, {"web1": given}, "web1")
    assert (topology["statsd"]["flush_seconds"], topology["go_runtime_metrics"]["interval"]) == (1, 0.5)
    # Whoever changes one of them alone is told.
    for alone in (
        {"statsd_flush_interval": 10000},
        {"carbon_cache_storage_schemas": [{"name": "a", "pattern": ".*", "retentions": "10s:1d"}]},
    ):
        (problem,) = stack_problems({"all": ["web1"]}, {"web1": {**given, **alone}}, "web1")
        assert "statsd_flush_interval is" in problem
        assert "carbon_cache_storage_schemas" in problem
