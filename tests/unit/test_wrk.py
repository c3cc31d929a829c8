# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""wrk's summary, as wrk 4.1.0 printed it."""

from __future__ import annotations

import pytest
from ansible_collections.metricstack.graphite.plugins.plugin_utils._wrk import WrkError, parse_summary

SUMMARY = """Running 2s test @ http://127.0.0.1:8765/
  2 threads and 10 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    23.98ms   14.57ms   1.20s    73.83%
    Req/Sec     1.42k    75.14     3.23k    65.00%
  Latency Distribution
     50%  920.00us
     75%   30.01ms
     90%   43.42ms
     99%   75.85ms
  568 requests in 2.01m, 1.93MB read
  Socket errors: connect 1, read 20, write 0, timeout 3
  Non-2xx or 3xx responses: 660
Requests/sec:    283.10
Transfer/sec:      0.96KB
"""


def test_figures_are_read_in_one_unit():
    assert parse_summary(SUMMARY) == {
        "requests": 568,
        "duration": pytest.approx(120.6),
        "bytes": pytest.approx(1.93 * 2**20),
        "requests_per_second": 283.1,
        "bytes_per_second": pytest.approx(0.96 * 2**10),
        "latency": {"mean": 23.98, "deviation": 14.57, "max": 1200, "p50": 0.92, "p75": 30.01, "p90": 43.42, "p99": 75.85},
        "errors": 684,
    }


@pytest.mark.parametrize("text", ["", "unable to connect to 127.0.0.1:1 Connection refused\n", SUMMARY.replace("ms ", "parsec ")])
def test_anything_else_is_shown_to_the_user(text):
    with pytest.raises(WrkError, match="did not end with its summary"):
        parse_summary(text)
