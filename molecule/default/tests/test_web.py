# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What a browser meets: static files, a login, and closed doors where graphite-web leaves them open."""

from __future__ import annotations

import json
import subprocess
import time
from urllib.parse import urlencode

import pytest

PASSWORD = "correct horse 'battery' \"staple\""


def form(**fields):
    return urlencode(fields).encode()


@pytest.mark.parametrize("path", ["/", "/static/js/dashboard.js", "/static/js/ext/ext-all.js", "/dashboard", "/admin/login/", "/events/"])
def test_pages_and_static_files_are_served(http_get, path):
    status, headers, body = http_get(path)
    assert status == 200
    assert len(body) > 500
    assert headers["X-Content-Type-Options"] == "nosniff"


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


def test_the_search_box_finds_series(host, http_get):
    assert host.run("systemctl start graphite_build_search_index.service").rc == 0
    _status, _headers, body = http_get("/browser/search", data=form(query="carbon metricsReceived"))
    assert b"carbon.agents." in body


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
