# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Operations on a running stack: events on graphs, pictures, and the metrics that StatsD holds."""

from __future__ import annotations

import base64
import json
import struct
import time

import pytest
from conftest import values


@pytest.fixture
def events(http_get):
    """Return the events of the last day with these tags."""

    def stored(*tags):
        status, _headers, body = http_get(f"/events/get_data?tags={'+'.join(tags)}&from=-1d")
        assert status == 200, body
        return json.loads(body)

    return stored


def test_an_event_is_posted_once_and_drawn(run_module, events, render):
    when = int(time.time()) - 60
    shop = f"shop-{when}"
    release = {"what": "Release 1.2 “发布”", "tags": [shop, "deployment"], "data": "by 'me'\nand others", "when": when}
    assert run_module("graphite_event", "--check", **release)["changed"]
    assert events(shop) == []
    first = run_module("graphite_event", **release)
    assert first["changed"], first
    (event,) = events(shop, "deployment")
    assert event == first["event"]
    assert {**event, "tags": set(event["tags"])} == {**release, "tags": {shop, "deployment"}, "id": event["id"]}
    assert not run_module("graphite_event", **{**release, "tags": ["deployment", shop]})["changed"]
    assert not run_module("graphite_event", **{**release, "when": None, "within": 3600})["changed"]
    assert run_module("graphite_event", **{**release, "what": "Release 1.3"})["changed"]
    assert len(events(shop)) == 2
    assert sum(values(render(f"events('{shop}', 'deployment')", until="-10s")[0])) == 2


def test_graphite_webs_words_reach_the_user(run_module):
    failed = run_module("graphite_render_info", targets=["nowhere(x)"])
    assert "/render answered 400" in failed["msg"]
    assert "unknown function: nowhere" in failed["body"]


def test_a_picture_is_data(run_module):
    result = run_module("graphite_picture", targets=["carbon.agents.*.*"], options={"width": 640, "height": 200, "title": "a & b"})
    picture = base64.b64decode(result["content"])
    assert struct.unpack(">II", picture[16:24]) == (640, 200)
    assert "400" in run_module("graphite_picture", targets=["x"], options={"width": 12000})["msg"]


def test_statsd_shows_what_it_holds_and_forgets_it(run_module, statsd_send, wait_until):
    """A flush forgets it, too: what is sent, read and deleted has to be so between two flushes."""

    def proof():
        # StatsD flushes every ten seconds. On a busy machine, the steps below take most of that time.
        time.sleep(10 - run_module("statsd_info", gather_subset=["stats"])["stats"]["graphite"]["last_flush"] % 10)
        statsd_send("operator.shop.requests:5|c\noperator.queue:17.5|g", *["\n".join(["operator.shop.latency:320|ms"] * 50)] * 3)
        held = run_module("statsd_info")
        names = {"counters": ["operator.*"], "gauges": ["operator.queue"], "timers": ["operator.shop.*"]}
        deleted = run_module("statsd_metrics", state="absent", **names)
        again = run_module("statsd_metrics", state="absent", **names)
        if held["counters"].get("operator.shop.requests") and all(deleted["deleted"].values()):
            return held, deleted, again, run_module("statsd_info", gather_subset=["counters"])
        return None

    held, deleted, again, left = wait_until(proof, timeout=120)
    assert held["health"] == "up"
    assert held["stats"]["graphite"]["last_flush"] <= 20
    assert held["counters"]["operator.shop.requests"] == 5
    assert held["gauges"]["operator.queue"] == 17.5
    assert held["timers"]["operator.shop.latency"] == {"count": 150, "values": [320] * 100}
    assert deleted["deleted"] == {
        "counters": ["operator.shop.requests"],
        "gauges": ["operator.queue"],
        "timers": ["operator.shop.latency"],
    }
    assert not again["changed"]
    assert "operator.shop.requests" not in left["counters"]
