# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""graphite_render_info and graphite_picture, run as Ansible runs them, against a mock of graphite-web's render API."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

ANSWER = [
    {
        "target": "stats.gauges.queue",
        "tags": {"name": "queue"},
        "datapoints": [[None, 100], [4.0, 110], [7.5, 120], [None, 130]],
    },
    {"target": "stats.gauges.idle", "datapoints": [[None, 100], [None, 110]]},
]
PICTURE = b"\x89PNG\r\n\x1a\nand \xff"


@pytest.fixture
def mock_graphite_web():
    forms = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            forms.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            answers = {"broken(": (400, b"Invalid target"), "html": (200, b"<html>"), "drawn": (200, PICTURE)}
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
    assert (queue["tags"], idle["tags"]) == ({"name": "queue"}, {})
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


@pytest.fixture
def picture(mock_graphite_web, run_module):
    return lambda *flags, **arguments: run_module(
        "graphite_picture", *flags, url=mock_graphite_web[0], **{"targets": ["drawn"], **arguments}
    )


def test_a_picture_is_returned(mock_graphite_web, picture):
    _url, forms = mock_graphite_web
    options = {"title": "a & b", "width": 960, "hideLegend": False, "yMin": 0.5}
    result = picture(targets=["drawn", "alias(x, 'y')"], options=options, until="now")
    assert not result["changed"]
    assert base64.b64decode(result["content"]) == PICTURE
    asked = {"target": ["drawn", "alias(x, 'y')"], "format": ["png"], "from": ["-1h"], "until": ["now"], "noCache": ["1"]}
    assert forms == [{**asked, "title": ["a & b"], "width": ["960"], "hideLegend": ["false"], "yMin": ["0.5"]}]


def test_a_picture_is_kept_once(picture, tmp_path):
    dest = tmp_path / "picture.png"
    checked = picture("--check", dest=str(dest), mode="0600")
    assert checked["changed"]
    assert not dest.exists()
    first = picture(dest=str(dest), mode="0600")
    assert first["changed"]
    assert "content" not in first
    assert dest.read_bytes() == PICTURE
    assert dest.stat().st_mode & 0o777 == 0o600
    assert not picture(dest=str(dest), mode="0600")["changed"]
    assert picture(dest=str(dest), mode="0640")["changed"]
    dest.write_bytes(b"older")
    assert "5 bytes" in picture(dest=str(dest))["shown_diff"]
    assert dest.read_bytes() == PICTURE


def test_what_is_no_picture_leaves_the_old_one(picture, tmp_path):
    dest = tmp_path / "picture.png"
    dest.write_bytes(PICTURE)
    assert "no PNG begins with b'<html>'" in picture(targets=["html"], dest=str(dest))["msg"]
    assert "no SVG" in picture(format="svg")["msg"]
    assert picture(targets=["broken("], dest=str(dest))["body"] == "Invalid target"
    assert dest.read_bytes() == PICTURE


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"targets": [" "]}, "targets is [' ']"),
        ({"options": {"from": "-1h"}}, "options has from"),
        ({"options": {"colorList": ["red"]}}, "colorList: ['red']"),
        ({"dest": "/nowhere/picture.png"}, "dest is /nowhere/picture.png"),
        ({"dest": "/tmp"}, "dest is /tmp"),
    ],
)
def test_a_picture_that_makes_no_sense_is_refused(mock_graphite_web, picture, mistake, words):
    assert words in picture(**mistake)["msg"]
    assert mock_graphite_web[1] == []
