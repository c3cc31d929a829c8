# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a Go server has reported of its runtime while it was under load.

The server is ``roles/go_runtime_metrics/files/server``. Counts and totals decide: what StatsD keeps of a gauge is a sample, and a mean
of means or a percentile of percentiles is none. This file is private to the collection.
"""

from __future__ import annotations

from itertools import pairwise

from ansible_collections.metricstack.graphite.plugins.plugin_utils._statsd_series import Names

_PAUSE = "mem.gc.pause"
_GAUGES = {
    "collections": "mem.gc.count",
    "pause_total": "mem.gc.pause_total",
    "allocated": "mem.total",
    "memory": "mem.alloc",
    "goroutines": "cpu.goroutines",
}
_TIMES = {"pause_rate": "count_ps", "median": "median", "longest": "upper"}
_RATES = {"allocation_rate": "mem.allocated", "gc_seconds": "cpu.gc_seconds", "total_seconds": "cpu.total_seconds"}


class RestartError(ValueError):
    """The server was restarted during the load."""


def runtime_series(config: dict, prefix: str) -> dict[str, str]:
    """Return the series that StatsD writes under ``statsd_config`` of what a server reports as ``prefix``.

    Beside those of ``load_summary``, there are ``pause_rate``, ``median``, ``allocation_rate`` and so on, for pictures. The bins of the
    histogram that StatsD makes of pauses are ``below_LIMIT``, in the order of ``histogram`` in the configuration.
    """
    names = Names(config)
    series = {key: names.of("Gauge", f"{prefix}.{gauge}") for key, gauge in _GAUGES.items()}
    series |= {key: names.of("Timer", f"{prefix}.{_PAUSE}", value) for key, value in _TIMES.items()}
    series |= {key: names.rate(f"{prefix}.{counter}") for key, counter in _RATES.items()}
    # What calculatedTimerMetrics leaves out has no series.
    if count := names.timer(f"{prefix}.{_PAUSE}", "count"):
        series["pauses"] = count
    for limit in _limits(config, prefix):
        if bin_series := names.bin(f"{prefix}.{_PAUSE}", limit):
            series[f"below_{limit}"] = bin_series
    return series


def _limits(config: dict, prefix: str) -> list:
    """Return the limits of the bins in milliseconds: StatsD takes the first histogram whose text is in the name of the metric."""
    histograms = config.get("histogram") or []
    return next((item["bins"] for item in histograms if item["metric"] in f"{prefix}.{_PAUSE}"), [])


def load_summary(answer: list[dict], series: dict[str, str], began: int, ended: int) -> dict:
    """Return what happened from ``began`` to ``ended`` (Unix time in seconds), from series as ``graphite_render_info`` returns them.

    ``series`` are the names as ``runtime_series`` returns them; those that the answer lacks are not known. Raises ``RestartError``.

    A slot has the time of its beginning, and what was flushed into it is up to one step younger. The pauses are therefore those between
    the last slot that was over when the load began and the slot after its end.
    """
    points = {name: _points(answer, one) for name, one in series.items()}
    step = next((one["step"] for one in answer if one["target"] == series["collections"]), 1)
    start = max((time for time in points["collections"] if time + step <= began), default=0)

    def during(name: str) -> list[float]:
        return [value for time, value in points[name].items() if start < time <= ended + step]

    def grown(name: str) -> float:
        # Where there is no point before the load, the server has been started since.
        values = [points[name].get(start, 0), *during(name)]
        if any(after < before for before, after in pairwise(values)):
            raise RestartError(f"{series[name]} has fallen: the server was restarted while it was under load. Run the benchmark again.")
        return values[-1] - values[0]

    collections, pause_total = grown("collections"), grown("pause_total")
    gc_seconds, total_seconds = (
        sum(value for time, value in points[name].items() if began < time <= ended) for name in ("gc_seconds", "total_seconds")
    )
    return {
        "collections": int(collections),
        "pause_total": pause_total / 1e6,
        "pause_mean": pause_total / 1e6 / collections if collections else None,
        "pause_longest": max(during("longest"), default=None),
        "pauses": int(sum(during("pauses"))) if "pauses" in series else None,
        "pauses_below": {name.removeprefix("below_"): int(sum(during(name))) for name in series if name.startswith("below_")},
        "gc_share": gc_seconds / total_seconds if total_seconds else None,
        "allocated_per_second": grown("allocated") / (ended - began),
        "memory_max": max(during("memory"), default=None),
        "goroutines_max": max(during("goroutines"), default=None),
    }


def _points(answer: list[dict], name: str) -> dict[int, float]:
    return {time: value for one in answer if one["target"] == name for value, time in one["datapoints"] if value is not None}
