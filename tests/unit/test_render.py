# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""graphite_render_info, run as Ansible runs it, against an HTTP server that mocks graphite-web's render API."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

ANSWER = [
    {"target": "stats.gauges.queue", "datapoints": [[None, 100], [4.0, 110], [7.5, 120], [None, 130]]},
    {"target": "stats.gauges.idle", "datapoints": [[None, 100], [None, 110]]},
]


@pytest.fixture
def mock_graphite_web():
    forms = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            forms.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            answers = {"broken(": (400, b"Invalid target"), "html": (200, b"<html>")}
            status, body = answers.get(forms[-1]["target"][0], (200, json.dumps(ANSWER).encode()))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", forms
    server.shutdown()
    server.server_close()


@pytest.fixture
def render_info(run_module):
    return lambda url, **arguments: run_module("graphite_render_info", url=url, **arguments)


def test_summary_of_each_series(mock_graphite_web, render_info):
    url, forms = mock_graphite_web
    result = render_info(url + "/", targets=["stats.gauges.*", 'alias(x, "a b")'], **{"from": "-5min"})
    queue, idle = result["series"]
    assert not result["changed"]
    assert (queue["step"], queue["count"], queue["sum"], queue["min"], queue["max"], queue["last"]) == (10, 2, 11.5, 4.0, 7.5, 7.5)
    assert (queue["last_time"], idle["last_time"]) == (120, None)
    assert queue["datapoints"] == ANSWER[0]["datapoints"]
    assert (idle["step"], idle["count"], idle["sum"], idle["last"]) == (10, 0, None, None)
    assert forms == [{"target": ["stats.gauges.*", 'alias(x, "a b")'], "format": ["json"], "from": ["-5min"], "noCache": ["1"]}]


def test_graphite_webs_own_words_reach_the_user(mock_graphite_web, render_info):
    result = render_info(mock_graphite_web[0], targets=["broken("])
    assert "400" in result["msg"]
    assert result["body"] == "Invalid target"


def test_something_else_that_answers_is_not_taken_for_graphite_web(mock_graphite_web, render_info):
    assert "did not answer as graphite-web does" in render_info(mock_graphite_web[0], targets=["html"])["msg"]


def test_nobody_listens(render_info):
    assert "/render answered -1" in render_info("http://127.0.0.1:9", targets=["x"])["msg"]
