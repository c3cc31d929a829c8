# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The series that StatsD writes under a configuration, and how each of them is rolled up.

Source of the names: ``lib/process_metrics.js`` and ``backends/graphite.js`` of StatsD 0.9.0. Source of the methods:
``docs/graphite.md`` there, for gauges ``docs/metric_types.md``. This file is private to the collection.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.storage_rules import first_match

# What StatsD calculates of a timer, for all values or for those within a threshold such as 90, 99.9 or -90: count_90, upper_99_9,
# lower_top90. A bin of a histogram has the name of its limit: bin_0_5, bin_inf.
_THRESHOLD = r"(_(top)?\d\w*)?"
_TIMER_PARTS = {
    "timer_lower": ("min", rf"lower{_THRESHOLD}"),
    "timer_upper": ("max", rf"upper{_THRESHOLD}"),
    "timer_sum": ("sum", rf"((count|sum|sum_squares){_THRESHOLD}|histogram\.bin_\w+)"),
}
# For a share of the finer points: what must not get lost needs one of them, extremes a tenth, averages a third.
_FACTORS = {"sum": 0, "last": 0, "min": 0.1, "max": 0.1, "average": 0.3}
# For series that StatsD has not written: what their last word says, as in the rules that come with carbon.
_GENERAL_RULES = (
    ("min", rf"^[^;]*\.(lower|min){_THRESHOLD}(;|$)", "min"),
    ("max", rf"^[^;]*\.(upper|max){_THRESHOLD}(;|$)", "max"),
    ("sum", rf"^[^;]*\.(count|sum|sum_squares){_THRESHOLD}(;|$)", "sum"),
    ("default", ".*", "average"),
)


class Series(NamedTuple):
    """A series, what it holds, and the methods that roll it up correctly; the first one is the best."""

    name: str
    kind: str
    methods: tuple[str, ...]


class Names:
    """The names of series under one configuration, on top of the role's own setting ``legacyNamespace: false``."""

    def __init__(self, config: dict) -> None:
        self._config = config
        self._graphite = config.get("graphite") or {}
        self._legacy = self._graphite.get("legacyNamespace", False)
        self._suffix = f".{self._graphite['globalSuffix']}" if "globalSuffix" in self._graphite else ""

    def namespace(self, kind: str) -> tuple[str, ...]:
        """Return the nodes above the metrics of a kind: ``Counter``, ``Timer``, ``Gauge`` or ``Set``."""
        prefix = kind.lower() + "s"
        if self._legacy:
            return ("stats",) if kind == "Counter" else ("stats", prefix)
        nodes = (str(self._graphite.get("globalPrefix", "stats")), str(self._graphite.get(f"prefix{kind}", prefix)))
        return tuple(node for node in nodes if node)

    def of(self, kind: str, *parts: str) -> str:
        return self._join(*self.namespace(kind), *parts)

    def own(self, name: str) -> str:
        top = "stats" if self._legacy else self._graphite.get("globalPrefix", "stats")
        return self._join(top, self._config.get("prefixStats", "statsd"), name)

    def count(self, name: str) -> str | None:
        if not self._config.get("flush_counts", True):
            return None
        return self._join("stats_counts", name) if self._legacy else self.of("Counter", name, "count")

    def rate(self, name: str) -> str:
        return self.of("Counter", name) if self._legacy else self.of("Counter", name, "rate")

    def timer(self, name: str, key: str) -> str | None:
        wanted = self._config.get("calculatedTimerMetrics")
        # As lib/process_metrics.js does it, which knows no threshold with decimals.
        if wanted and re.sub(r"_(top)?\d+$|\.bin_.*", lambda match: "" if match[0][0] == "." else "_percent", key) not in wanted:
            return None
        return self.of("Timer", name, key)

    def bin(self, name: str, limit: object) -> str | None:
        """Return the series of a bin of a histogram, by the limit of the bin."""
        return self.timer(name, f"histogram.bin_{_in_name(limit)}")

    def thresholds(self) -> list[str]:
        """Return the thresholds as they are in names."""
        given = self._config.get("percentThreshold")
        if not given and not isinstance(given, list):
            given = 90
        return [_in_name(one) for one in (given if isinstance(given, list) else [given])]

    def samples(self, name: str) -> Iterator[Series]:
        """Yield one series of each that StatsD writes for a metric ``name`` of each kind."""
        average = ("average", "last", "min", "max", "avg_zero", "absmax", "absmin")
        yield Series(self.of("Gauge", name), "a gauge", ("last", *average))
        yield Series(self.of("Set", name, "count"), "the size of a set", ("sum", "max", "average", "last"))
        yield Series(self.rate(name), "a rate", average)
        timers: dict[str, tuple[str, ...]] = {"lower": ("min", "absmin"), "upper": ("max", "absmax")}
        timers.update(dict.fromkeys(("count", "sum", "sum_squares"), ("sum",)))
        timers.update(mean=average, median=average, std=average, count_ps=average)
        for threshold in self.thresholds():
            extreme = ("lower", "min") if threshold.startswith("top") else ("upper", "max")
            timers.update({f"{key}_{threshold}": ("sum",) for key in ("count", "sum", "sum_squares")})
            timers[f"mean_{threshold}"] = average
            timers[f"{extreme[0]}_{threshold}"] = (extreme[1], f"abs{extreme[1]}")
        for histogram in self._config.get("histogram") or []:
            timers.update({f"histogram.bin_{_in_name(limit)}": ("sum",) for limit in histogram.get("bins") or []})
        found: list[tuple[str | None, str, tuple[str, ...]]] = [(self.count(name), "a count", ("sum",))]
        found += [(self.timer(name, key), "a value of timers", methods) for key, methods in timers.items()]
        yield from (Series(series, kind, methods) for series, kind, methods in found if series)

    def rules(self) -> list[tuple[str, str, str]]:
        """Return the name, the pattern and the method of each rule.

        A kind of metrics without a namespace has none for what is left over, which may be what StatsD has not written.
        """
        end = re.escape(self._suffix) + "(;|$)"
        rules = [("gauges", "Gauge", "", "last"), ("sets", "Set", rf"[^;]*\.count{end}", "sum")]
        rules += [(name, "Timer", rf"[^;]*\.{part}{end}", method) for name, (method, part) in _TIMER_PARTS.items()]
        rules.append(("timers", "Timer", "", "average"))
        if not self._legacy:
            rules += [("counters", "Counter", rf"[^;]*\.count{end}", "sum"), ("counter_rates", "Counter", "", "average")]
        else:
            rules.append(("counter_rates", "Counter", r"(?!(timers|gauges|sets)\.)", "average"))
        found = [(name, self._below(kind) + rest, method) for name, kind, rest, method in rules if rest or self.namespace(kind)]
        return [("counters", r"^stats_counts\.", "sum"), *found] if self._legacy else found

    def _below(self, kind: str) -> str:
        return "^" + "".join(re.escape(node) + r"\." for node in self.namespace(kind))

    def _join(self, *parts: str) -> str:
        """Return the name of a series; the tags of a metric come last."""
        names, tags = zip(*(part.partition(";")[::2] for part in parts))
        return ".".join(filter(None, names)) + self._suffix + "".join(f";{tag}" for tag in tags if tag)


def _in_name(number: object) -> str:
    """Return a threshold or the limit of a bin as StatsD writes it."""
    text = str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)
    return text.replace(".", "_", 1).replace("-", "top", 1)


def aggregation_rules(configs: list[dict]) -> list[dict]:
    """Return carbon's rules for what is written under each of StatsD's configurations, and for everything else.

    The type of a metric decides, rather than the last word of its name: a gauge ``requests.count`` is no count.
    """
    found = [rule for config in configs for rule in Names(config).rules()]
    # A namespace within another one comes first, and in each what is left over comes last.
    found.sort(key=lambda rule: (-re.split(r"\(|\[", rule[1])[0].count(r"\."), rule[0] in ("gauges", "timers", "counter_rates")))
    rules: dict[str, dict] = {}
    numbers: Counter[str] = Counter()
    for name, pattern, method in [*found, *_GENERAL_RULES]:
        if pattern not in rules:
            numbers[name] += 1
            rules[pattern] = {
                "name": name if numbers[name] == 1 else f"{name}_{numbers[name]}",
                "pattern": pattern,
                "xfilesfactor": _FACTORS[method],
                "aggregation_method": method,
            }
    return list(rules.values())


def aggregation_warnings(variable: str, rules: list[dict], config: dict, tags: bool = False) -> list[str]:
    """Return one sentence for each rule of ``variable`` that rolls up what StatsD writes under ``config`` to something untrue.

    ``tags`` says whether series have tags.
    """
    right = aggregation_rules([config])
    # Words that a rule by the last word of a name takes for something else.
    metrics = ["requests", "requests.count", "requests.min", "requests.max", *["requests;env=a.count"] * tags]
    samples = [series for metric in metrics for series in Names(config).samples(metric)]
    # For each rule, by its place, a series of each kind that it gets wrong, by the place of the rule that is right.
    found: dict[int, dict[int, str]] = {}
    for series in samples:
        rule = first_match(rules, series.name)
        method = (rule or {}).get("aggregation_method") or "average"
        better = first_match(right, series.name) or right[-1]
        if method not in series.methods and better["aggregation_method"] in series.methods:
            untrue = found.setdefault(rules.index(rule) if rule else len(rules), {})
            untrue.setdefault(right.index(better), f"{series.name}, {series.kind} of StatsD, by {method}")
    names = [series.name for series in samples]
    warnings = []
    for place, untrue in sorted(found.items()):
        name = f"rule '{rules[place]['name']}'" if place < len(rules) else "carbon's own rule for what no rule matches"
        missing = _with_those_before(right, untrue, names)
        warnings.append(
            f"{variable}: {name} rolls up {'; '.join(untrue.values())}. Put {'these rules' if len(missing) > 1 else 'this rule'} before it"
            f"{', in this order' if len(missing) > 1 else ''}: {', '.join(map(_in_yaml, missing))}."
            " Without the variable, the playbooks pass the right rules."
        )
    return warnings


def _with_those_before(rules: list[dict], places: Collection[int], names: list[str]) -> list[dict]:
    """Return the rules at ``places``, and those before them without which they would take some of ``names`` that are not theirs."""
    found: list[dict] = []
    for place in range(max(places), -1, -1):
        rule = rules[place]
        if place in places or any(first_match(found, name) and first_match(rules, name) is rule for name in names):
            found.insert(0, rule)
    return found


def _in_yaml(rule: dict) -> str:
    return (
        f"{{name: {rule['name']}, pattern: '{rule['pattern']}', xfilesfactor: {rule['xfilesfactor']},"
        f" aggregation_method: {rule['aggregation_method']}}}"
    )
