# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The names of StatsD's series, against StatsD itself."""

from __future__ import annotations

import json
import subprocess

import pytest
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.statsd import (
    statsd_series,
    statsd_verification,
)

# What StatsD's own backend sends to carbon for one metric of each kind.
BACKEND = """
const events = new (require('events'))();
const config = JSON.parse(process.argv[1]);
config.graphite = Object.assign({legacyNamespace: false}, config.graphite);
const server = require('net').createServer((stream) => {
  let text = '';
  stream.on('data', (data) => { text += data; });
  stream.on('end', () => { console.log(text); process.exit(); });
}).listen(0, '127.0.0.1', () => {
  Object.assign(config, {graphiteHost: '127.0.0.1', graphitePort: server.address().port, flushInterval: 10000});
  require('./node_modules/statsd/backends/graphite').init(0, config, events, {log: console.error});
  events.emit('flush', 1, {
    counters: {m: 1}, counter_rates: {m: 1}, gauges: {m: 1}, timers: {m: [1]}, sets: {m: {size: () => 1}},
    timer_data: {m: {upper: 1, count: 1}}, statsd_metrics: {processing_time: 1},
  });
});
"""


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"prefixStats": "own", "graphite": {"globalPrefix": "", "prefixTimer": "t", "globalSuffix": "host"}},
        {"graphite": {"legacyNamespace": True}},
        {"graphite": {"globalPrefix": "a.b", "prefixCounter": "", "prefixSet": "x"}},
    ],
)
def test_series_are_those_that_statsd_sends(statsd_release, config):
    command = ["node", "--require=./preload.js", "--eval", BACKEND, json.dumps(config)]
    sent = subprocess.run(command, cwd=statsd_release, check=True, capture_output=True, text=True, timeout=30).stdout
    assert set(statsd_series(config, "m").values()) <= {line.split()[0] for line in sent.splitlines() if line}


# What StatsD calculates and sends of the metrics that verify.yml sends.
CALCULATION = BACKEND.replace(
    """  events.emit('flush', 1, {
    counters: {m: 1}, counter_rates: {m: 1}, gauges: {m: 1}, timers: {m: [1]}, sets: {m: {size: () => 1}},
    timer_data: {m: {upper: 1, count: 1}}, statsd_metrics: {processing_time: 1},
  });""",
    """  const metrics = {counters: {}, gauges: {}, timers: {}, timer_counters: {}, sets: {}, pctThreshold: [90]};
  for (const line of JSON.parse(process.argv[2])) {
    const [, name, value, type] = line.match(/(.*):(.*)\\|(.*)/);
    if (type === 'c') metrics.counters[name] = Number(value);
    if (type === 'g') metrics.gauges[name] = Number(value);
    if (type === 'ms') {
      (metrics.timers[name] = metrics.timers[name] || []).push(Number(value));
      metrics.timer_counters[name] = metrics.timers[name].length;
    }
  }
  require('./node_modules/statsd/lib/process_metrics')
    .process_metrics(metrics, config.calculatedTimerMetrics, 10000, 1, (all) => events.emit('flush', 1, all));""",
)


@pytest.mark.parametrize(
    ("config", "number"),
    [
        ({}, 5),
        ({"flush_counts": False}, 4),
        # The example of exampleConfig.js.
        ({"calculatedTimerMetrics": ["count", "median", "upper_percent", "histogram"]}, 5),
        ({"calculatedTimerMetrics": ["std"]}, 3),
        ({"flush_counts": False, "graphite": {"legacyNamespace": True, "globalSuffix": "h"}}, 4),
    ],
)
def test_what_verification_expects_is_what_statsd_sends(statsd_release, config, number):
    verification = statsd_verification(config, "check", 10)
    command = ["node", "--require=./preload.js", "--eval", CALCULATION, json.dumps(config), json.dumps(verification["lines"])]
    sent = subprocess.run(command, cwd=statsd_release, check=True, capture_output=True, text=True, timeout=30).stdout
    values = {series: float(value) for series, value, _time in (line.split() for line in sent.splitlines() if line)}
    assert len(verification["expected"]) == number
    assert {item["series"]: item["value"] for item in verification["expected"]} == {
        item["series"]: pytest.approx(values[item["series"]]) for item in verification["expected"]
    }


@pytest.mark.parametrize(
    ("found", "released", "build", "remains"),
    [
        (["{release}"], True, "controller", []),
        (["{release}"], True, "host", []),
        ([], False, "controller", []),
        (["0123456789ab", "{release}", "{release}/complete", "own", "source"], True, "controller", ["0123456789ab", "source"]),
        (["statsd-{release}.tar.gz", "0123456789ab.old", "sources"], True, "host", ["statsd-{release}.tar.gz"]),
        (["0123456789ab"], False, "host", ["0123456789ab", "source", "statsd-{release}.tar.gz"]),
    ],
)
def test_remains_of_builds_are_known_from_the_examination_also_after_a_run_that_ended_early(
    role_validation, found, released, build, remains
):
    release = role_validation.value("statsd", "__statsd_release", {})

    def paths(names):
        return [f"/opt/statsd/{name.format(release=release)}" for name in names]

    variables = {"statsd_build": build, "__statsd_examination": {"paths": paths(found)}, "__statsd_is_released": released}
    assert role_validation.value("statsd", "__statsd_remains", variables) == paths(remains)
