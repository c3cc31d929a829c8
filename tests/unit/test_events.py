# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""graphite_event, run as Ansible runs it, against an HTTP server that answers as graphite-web 1.1.10 was seen to answer."""

from __future__ import annotations

import base64
import importlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

ROLE_FILES = Path(__file__).resolve().parents[2] / "roles" / "graphite_web" / "files"
RELEASE = {"what": "Release 1", "tags": ["shop", "deployment"], "data": "by 'me'\nand \"you\"", "when": 1700000000}
CREDENTIALS = base64.b64encode(b"alice:secret word").decode()


class MockGraphiteWeb:
    """Keeps events, and answers a query as graphite-web does: tags that no event has are left out of it."""

    def __init__(self) -> None:
        self.events: list[dict] = []
        self.queries: list[dict] = []
        self.authorizations: list[str | None] = []
        self.status = 200
        self.keeps = True
        mock = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                address = urlsplit(self.path)
                assert address.path == "/events/get_data"
                mock.queries.append({name: value for name, (value,) in parse_qs(address.query).items()})
                self.answer(json.dumps(mock.found(**mock.queries[-1])).encode())

            def do_POST(self):
                assert self.path == "/events/"
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if mock.status == 200 and mock.keeps:
                    mock.events.append({**event, "id": len(mock.events) + 1})
                self.answer(b"<html>" + b" " * 3000 + b"database is locked" if mock.status != 200 else b"", mock.status)

            def answer(self, body, status=200):
                mock.authorizations.append(self.headers["Authorization"])
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def found(self, tags: str = "", **query: str) -> list[dict]:
        known = {tag for event in self.events for tag in event["tags"]} & set(tags.split())
        if tags and not known:
            return []
        return [
            event for event in self.events if int(query["from"]) <= event["when"] <= int(query["until"]) and known <= set(event["tags"])
        ]


@pytest.fixture
def graphite_web():
    mock = MockGraphiteWeb()
    yield mock
    mock.server.shutdown()
    mock.server.server_close()


@pytest.fixture
def post(run_module, graphite_web):
    return lambda *flags, **arguments: run_module("graphite_event", *flags, **{"url": graphite_web.url, **RELEASE, **arguments})


def test_an_event_is_posted_once(post, graphite_web):
    checked = post("--check")
    assert checked["changed"]
    assert checked["event"] == {**RELEASE, "tags": ["deployment", "shop"]}
    assert graphite_web.events == []
    first = post()
    assert first["changed"]
    assert "Release 1" in first["shown_diff"]
    assert graphite_web.events == [{**RELEASE, "tags": ["deployment", "shop"], "id": 1}]
    second = post(tags=["deployment", "shop", "deployment"])
    assert not second["changed"]
    assert second["event"] == first["event"] == graphite_web.events[0]
    assert not post("--check")["changed"]
    assert len(graphite_web.events) == 1


@pytest.mark.parametrize(
    "other", [{"what": "Release 2"}, {"tags": ["shop"]}, {"tags": []}, {"tags": ["shop", "never_seen"]}, {"data": ""}, {"when": 1700000001}]
)
def test_an_event_that_differs_is_another(post, graphite_web, other):
    post()
    assert post(**other)["changed"]
    assert not post(**other)["changed"]
    assert len(graphite_web.events) == 2


def test_an_event_within_the_window_counts(post, graphite_web):
    post(when=1700000000)
    post(when=1700000100)
    assert post(when=1700000700, within=600)["event"]["when"] == 1700000100
    assert graphite_web.queries[-1] == {"from": "1700000100", "until": "1700000700", "tags": "deployment shop"}
    assert post(when=1700000701, within=600)["changed"]
    assert not post(when=1700000701, within=10**10)["changed"]


def test_without_a_time_it_is_now(post):
    first = post(when=None, within=3600)
    assert abs(first["event"]["when"] - time.time()) < 60
    assert not post(when=None, within=3600)["changed"]


def test_credentials_go_with_every_request(post, graphite_web):
    post(url_username="alice", url_password="secret word", force_basic_auth=True)
    assert graphite_web.authorizations == [f"Basic {CREDENTIALS}"] * 3


def test_the_end_of_graphite_webs_page_reaches_the_user(post, graphite_web):
    graphite_web.status = 500
    failed = post()
    assert "/events/ answered 500" in failed["msg"]
    assert failed["body"].endswith("database is locked")


def test_an_event_that_does_not_arrive_is_no_success(post, graphite_web):
    graphite_web.keeps = False
    assert "does not show it" in post()["msg"]


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"what": ""}, ["what", "''"]),
        ({"what": "w" * 256}, ["what", "256"]),
        ({"tags": ["a b"]}, ["tags", "a b"]),
        ({"tags": ["a,"]}, ["tags", "a,"]),
        ({"tags": ["t" * 51]}, ["tags", "ttt", "50"]),
        ({"tags": [f"tag-of-some-length-{number}" for number in range(20)]}, ["tags", "255"]),
        ({"when": 1700000000000}, ["when", "1700000000000", "seconds"]),
        ({"when": 20240101}, ["when", "20240101", "seconds"]),
        ({"within": -1}, ["within", "-1"]),
    ],
)
def test_what_graphite_web_could_not_keep_is_refused(post, graphite_web, mistake, words):
    message = post(**mistake)["msg"]
    assert all(word in message for word in words), message
    assert graphite_web.authorizations == [], "it was not asked"


def test_who_can_read_the_secret_key_needs_no_login(post, graphite_web, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROLE_FILES))
    graphite_access = importlib.import_module("graphite_access")
    key = tmp_path / "secret_key"
    key.write_text("a secret key\n")
    assert post(secret_key_file=str(key))["changed"]
    for authorization in graphite_web.authorizations:
        assert graphite_access.is_token_of_host(authorization.partition("Bearer ")[2], "a secret key")
    graphite_web.authorizations.clear()
    for own in ({"secret_key_file": str(tmp_path / "none")}, {"secret_key_file": str(key), "url_username": "eve", "url_password": "x"}):
        post(**own)
        assert not any("Bearer" in str(authorization) for authorization in graphite_web.authorizations)


def test_the_name_of_a_site_is_asked_at_another_address(post, graphite_web, tmp_path):
    key = tmp_path / "secret_key"
    key.write_text("a secret key\n")
    by_name = graphite_web.url.replace("127.0.0.1", "graphite.example.org")
    assert post(url=by_name, connect_address="127.0.0.1", secret_key_file=str(key))["changed"]
    # Who listens at an address of this host is trusted with the token, whatever it is called.
    assert all(authorization.startswith("Bearer ") for authorization in graphite_web.authorizations)
    failed = post(url=by_name, connect_address="192.0.2.1", secret_key_file=str(key), timeout=1)
    assert f"{by_name}/events/get_data answered -1" in failed["msg"]
