# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""From the distribution's packages to PyPI's releases and back, with all that is on the host."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from conftest import PASSWORD, values

VENV = {"carbon_cache_install_method": "venv", "graphite_web_install_method": "venv"}


@pytest.fixture
def state(host, http_get, render):
    """Return what must be the same whatever graphite-web is installed from."""

    def read():
        status, headers, _body = http_get(
            "/account/login", data=urlencode({"username": "admin", "password": PASSWORD, "nextPage": "/"}).encode()
        )
        session = headers["Set-Cookie"].partition(";")[0] if status == 302 else ""
        _status, _headers, dashboards = http_get("/dashboard/find/?query=", headers={"Cookie": session})
        return {
            "login": status,
            "dashboards": sorted(dashboard["name"] for dashboard in json.loads(dashboards)["dashboards"]),
            "secret key": host.file("/etc/graphite/secret_key").content_string,
            "points": sum(values(render("stats.counters.methods.before.count", **{"from": "-1h"})[0])),
        }

    return read


def carbon_runs_from(host):
    return host.run("tr '\\0' ' ' < /proc/$(cat /run/carbon-cache-a/carbon-cache.pid)/cmdline").stdout


def test_a_host_changes_to_pypis_releases_and_back(host, playbook, state, counter_comes_back, http_get):
    counter_comes_back("methods.before")
    before = state()
    assert (before["login"], before["points"]) == (302, 7)
    assert "运行时" in before["dashboards"]

    for variables, place, series in ((VENV, "/opt/graphite/", "methods.venv"), ({}, "/usr/bin/", "methods.package")):
        status, output = playbook("site.yml", variables, check=True)
        assert status == 0, output
        status, output = playbook("site.yml", variables)
        assert status == 0, output
        assert place in carbon_runs_from(host)
        assert state() == before
        counter_comes_back(series)
        status, headers, body = http_get("/render?target=stats.counters.methods.before.count&from=-1h")
        assert (status, headers["Content-Type"], body[:4]) == (200, "image/png", b"\x89PNG")
        assert http_get("/static/js/dashboard.js")[0] == 200
        assert host.package("graphite-carbon").is_installed == host.package("graphite-web").is_installed == (not variables)
        status, output = playbook("site.yml", variables)
        assert status == 0, output
        assert "changed=0" in output
    assert not host.file("/opt/graphite").exists


def test_a_python_that_pypis_releases_do_not_build_with_is_refused(host, playbook):
    """The host's interpreter says that it is another one, as that of a newer release would."""
    shim = '#!/bin/sh\ncase $* in *version_info*) echo 3.13 ;; *) exec /usr/bin/python3.real "$@" ;; esac\n'
    assert host.run("cp --no-dereference /usr/bin/python3 /usr/bin/python3.real && rm /usr/bin/python3").rc == 0
    try:
        assert host.run("printf %%s %s > /usr/bin/python3 && chmod 755 /usr/bin/python3", shim).rc == 0
        status, output = playbook("site.yml", VENV)
    finally:
        assert host.run("mv /usr/bin/python3.real /usr/bin/python3").rc == 0
    assert status != 0
    assert "3.13" in output
    assert "carbon_cache_install_method" in output
    assert "changed=0" in output
