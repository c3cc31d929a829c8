# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a browser meets: static files, a login, and closed doors where graphite-web leaves them open."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from urllib.parse import quote, urlencode

import pytest
from conftest import PASSWORD


def form(**fields):
    return urlencode(fields).encode()


@pytest.mark.parametrize("path", ["/", "/static/js/dashboard.js", "/static/js/ext/ext-all.js", "/dashboard", "/admin/login/", "/events/"])
def test_pages_and_static_files_are_served(http_get, path):
    status, headers, body = http_get(path)
    assert status == 200
    assert len(body) > 500
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("option", ["--short", "--fqdn", "--all-ip-addresses"])
def test_the_site_answers_to_the_names_of_the_host(host, http_get, option):
    name = host.check_output("hostname %s", option).split()[0]
    address = f"[{name}]" if ":" in name else name
    status, _headers, body = http_get("/version/", headers={"Host": address})
    assert (status, body.strip()) == (200, http_get("/version/")[2].strip())


def test_the_provisioned_user_logs_in(http_get):
    status, headers, _body = http_get("/account/login", data=form(username="admin", password=PASSWORD, nextPage="/dashboard"))
    assert (status, headers["Location"]) == (302, "/dashboard")
    assert "sessionid=" in headers["Set-Cookie"]
    assert "HttpOnly" in headers["Set-Cookie"]
    status, _headers, body = http_get("/admin/", headers={"Cookie": headers["Set-Cookie"].partition(";")[0]})
    assert status == 200
    assert b"Site administration" in body


def test_functions_are_described_for_grafana(http_get):
    status, _headers, body = http_get("/functions/")
    assert status == 200
    described = json.loads(body)
    assert described["movingAverage"]["function"].startswith("movingAverage(seriesList, windowSize")
    assert described["movingAverage"]["params"][0]["name"] == "seriesList"
    assert len(described) > 100


LOCK = """
import sqlite3, time
connection = sqlite3.connect("/var/lib/graphite/graphite.db", isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(8)
"""


def test_a_login_waits_while_another_process_writes_the_database(host, http_get):
    """By itself, SQLite gives up after 5 s."""
    command = ["docker", "exec", "--user", "_graphite", host.backend.get_hostname(), "python3", "-c", LOCK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "locked\n"
        began = time.monotonic()
        status, _headers, _body = http_get("/account/login", data=form(username="admin", password=PASSWORD, nextPage="/dashboard"))
        assert status == 302
        assert time.monotonic() - began > 5


def test_the_search_box_finds_series(host, http_get, wait_until):
    def is_found():
        assert host.run("systemctl start graphite_build_search_index.service").rc == 0
        return b"carbon.agents." in http_get("/browser/search", data=form(query="carbon metricsReceived"))[2]

    # Carbon writes about itself once a minute.
    wait_until(is_found, timeout=90, message="the search box does not find carbon's own series")


CHANGES = [
    ("/events/", b'{"what": "a", "tags": "a"}'),
    ("/dashboard/create-temporary/", form(state="{}")),
    ("/dashboard/save/a", form(state="{}")),
    ("/tags/tagMultiSeries", form(path="a;b=c")),
    ("/tags/delSeries", form(path="a;b=c")),
    ("/s/render?target=a", None),
    ("/dashboard/delete/a", None),
    ("/whitelist/add", form(metrics="a")),
]


@pytest.mark.parametrize(("path", "data"), CHANGES)
def test_a_change_needs_a_login(http_get, path, data):
    status, headers, body = http_get(path, data=data)
    assert (status, body) == (401, b"This needs a login.\n")
    assert headers["WWW-Authenticate"].startswith("Basic ")


def test_a_program_logs_in_and_a_page_of_another_site_does_not(http_get, login):
    event = json.dumps({"what": "a program", "tags": "program", "when": int(time.time())}).encode()
    credentials = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
    assert http_get("/events/", {"Authorization": f"Basic {credentials}"}, event)[0] == 200
    cookie = login("admin", PASSWORD)
    assert cookie
    for header in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert http_get("/events/", {"Cookie": cookie, **header}, event)[0] == 403
        assert http_get("/account/logout", {"Cookie": cookie, **header})[0] == 403
        assert http_get("/render?target=a&format=json", {"Cookie": cookie, **header})[0] == 200
    assert len(json.loads(http_get("/events/get_data?tags=program")[2])) == 1
    assert http_get("/events/", {"Cookie": cookie, "Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, event)[0] == 200


def test_a_wrong_password_does_not(http_get):
    status, headers, _body = http_get("/account/login", data=form(username="admin", password="wrong"))
    assert status == 200
    assert "Set-Cookie" not in headers


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/metrics/find?query=/etc.*", None),
        ("/metrics/find?query=%2Fetc.*", None),
        ("/metrics?query={/etc,/var}.*", None),
        ("/metrics/find", form(query="/etc.*")),
        ("/metrics/expand?query=/etc.*", None),
        ("/render?format=json&target=/etc.*", None),
    ],
)
def test_only_the_whisper_directory_is_searched(http_get, path, data):
    _status, _headers, body = http_get(path, data=data)
    assert b"apt" not in body
    assert b"passwd" not in body


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/render?target=x&width=12000", None),
        ("/render?target=x&wid%74h=%2B12000", None),
        ("/render", form(target="x", height="1e9")),
    ],
)
def test_pictures_beyond_any_screen_are_refused(http_get, path, data):
    assert http_get(path, data=data)[0] == 400


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/account/logout?nextPage=https://evil.example/", None),
        ("/account/logout?nextPage=//evil.example/", None),
        ("/account/login", form(username="admin", password=PASSWORD, nextPage="https://evil.example/")),
    ],
)
def test_nobody_is_sent_to_another_site(http_get, path, data):
    status, headers, _body = http_get(path, data=data)
    # graphite-web 1.2.1 sends them to its own first page.
    assert (status, headers.get("Location")) in ((400, None), (302, "/"))


IMAGE = "<img src=x onerror=alert(1)>"


def dashboard(units="hours"):
    times = {"type": "relative", "relativeStartQuantity": "2", "relativeStartUnits": units, "relativeUntilUnits": "now"}
    graph = ["target=x", {"target": ["aliasSub(x,'<','>')"], "title": "a < b"}, "/render?target=x"]
    return {
        "name": "old",
        "timeConfig": times,
        "graphSize": {"width": 400, "height": 250},
        "refreshConfig": {"enabled": False, "interval": 60000},
        "graphs": [graph],
    }


@pytest.mark.parametrize(
    ("path", "data", "cookie"),
    [
        (f"/dashboard/{quote(IMAGE)}", None, ""),
        (f"/dashboard/load_template/a/{quote(IMAGE)}", None, ""),
        (f"/dashboard?theme={quote(IMAGE)}", None, ""),
        (f"/composer/mygraph?action=save&url=x&graphName={quote(IMAGE)}", None, ""),
        ("/render?target=x&format=json&jsonp=alert(1)//", None, ""),
        ("/dashboard/create-temporary", form(state=json.dumps(dashboard(units=IMAGE))), ""),
        ("/dashboard", None, "ys-defaultGraphParams=" + quote(f's:{{"from":"-2{IMAGE}"}}')),
    ],
)
def test_markup_is_refused_where_pages_would_run_it(http_get, path, data, cookie):
    status, headers, body = http_get(path, data=data, headers={"Cookie": cookie})
    assert (status, headers["Content-Type"]) == (400, "text/plain")
    assert b"img" not in body
    assert ("Max-Age=0" in headers.get("Set-Cookie", "")) == bool(cookie)


@pytest.mark.parametrize("path", ["/metrics/find?query=x&from=", "/render?target=x&from=", "/composer/mygraph?graphName=a&action="])
def test_what_graphite_web_says_about_a_request_is_no_page(http_get, path):
    _status, headers, _body = http_get("/account/login", data=form(username="admin", password=PASSWORD, nextPage="/dashboard"))
    cookie = headers["Set-Cookie"].partition(";")[0]
    _status, headers, body = http_get(path + quote("<script>alert(1)</script>"), headers={"Cookie": cookie})
    assert headers["Content-Type"].startswith("text/plain") or b"<script>alert" not in body


STORE = """
import sqlite3, sys
with sqlite3.connect("/var/lib/graphite/graphite.db", timeout=30) as connection:
    connection.execute("DELETE FROM dashboard_dashboard WHERE name = 'old'")
    connection.executemany("INSERT INTO dashboard_dashboard (name, state) VALUES ('old', ?)", [[text] for text in sys.argv[1:]])
"""


@pytest.fixture
def store_dashboard(run_python):
    yield lambda state: run_python(STORE, json.dumps(state), user="_graphite")
    run_python(STORE, user="_graphite")


def test_a_stored_dashboard_loses_markup_and_keeps_titles(http_get, store_dashboard):
    store_dashboard(dashboard(units=IMAGE))
    state = json.loads(http_get("/dashboard/load/old")[2])["state"]
    assert state["timeConfig"]["relativeStartUnits"] == IMAGE.strip("<>")
    assert state["graphs"] == dashboard()["graphs"]
    status, _headers, body = http_get("/dashboard/old")
    assert status == 200
    assert b"\\u003Cimg" not in body


def test_a_dashboard_finds_the_functions_it_calls(http_get):
    """Debian 12's package calls one that it has not."""
    pages = http_get("/dashboard")[2] + http_get("/static/js/dashboard.js")[2]
    assert b"function htmlEncode(" in pages


def test_a_series_whose_name_is_markup_is_text_in_the_tree(host, http_get):
    path = "/var/lib/graphite/whisper/zz<img+src=x+onerror=alert(1)>.wsp"
    assert host.run(f"install -o _graphite -m 0644 /dev/null '{path}'").rc == 0
    try:
        _status, _headers, body = http_get("/metrics/find?query=zz*&format=treejson")
    finally:
        host.run(f"rm '{path}'")
    assert [node["text"] for node in json.loads(body)] == ["zz&lt;img src=x onerror=alert(1)&gt;"]


def test_the_host_answers_to_its_name_and_address(host, http_get, address):
    for name in (host.run("hostname").stdout.strip(), address()):
        assert http_get("/version/", headers={"Host": name})[0] == 200, name


def test_a_stranger_in_the_host_header_is_refused(http_get):
    assert http_get("/version/", headers={"Host": "evil.example"})[0] == 400


@pytest.mark.parametrize("path", ["/etc/statsd/config.js", "/etc/graphite/secret_key", "/etc/graphite/local_settings.py"])
def test_secrets_are_readable_by_their_service_only(host, path):
    assert host.run(f"runuser -u nobody -- cat {path}").rc != 0
    assert host.run(f"runuser -u {'statsd' if 'statsd' in path else '_graphite'} -- cat {path}").rc == 0


def test_apache_itself_runs_as_its_own_user(host):
    users = set(host.run("ps -C apache2 -o user=").stdout.split())
    assert users == {"root", "www-data", "_graphite"}, users
