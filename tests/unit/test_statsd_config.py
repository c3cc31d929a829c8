# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The names of StatsD's series, against StatsD itself."""

from __future__ import annotations

import json
import subprocess

import pytest
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.statsd import statsd_series

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
