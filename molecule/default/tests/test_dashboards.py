# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Dashboards as data: what is described is what the pages of graphite-web load."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, urlencode

import pytest
from conftest import MODULE_DEFAULTS, PASSWORD

SHOP = {
    "name": '商店 "shop"',
    "from": "-6h",
    "graphs": [
        {"title": "请求", "targets": ["alias(sumSeries(stats.counters.*.rate), '请求')"], "options": {"yMin": 0, "hideLegend": True}},
        {"targets": ["carbon.agents.{a,b}.cpuUsage", "carbon.agents.*.memUsage | sumSeries()"]},
    ],
}


@pytest.fixture
def dashboards(playbook, tmp_path):
    """Run the module for each dashboard in turn, mistakes included; return its results."""

    def run(*wanted, check=False):
        tasks = [
            {
                "name": "Dashboards",
                "metricstack.graphite.graphite_dashboard": "{{ item }}",
                "become": True,
                "loop": wanted,
                "register": "outcome",
                "ignore_errors": True,
            },
            {"name": "Results", "ansible.builtin.debug": {"msg": "RESULTS:{{ outcome.results | to_json | b64encode }}"}},
        ]
        path = tmp_path / "dashboards.yml"
        path.write_text(
            json.dumps([{"name": "Dashboards", "hosts": "all", "gather_facts": False, "tasks": tasks, "module_defaults": MODULE_DEFAULTS}])
        )
        status, output = playbook(path, check=check)
        assert status == 0, output
        return json.loads(base64.b64decode(re.search(r"RESULTS:([\w+/=]+)", output).group(1)))

    return run


@pytest.fixture
def load(http_get):
    """Return what the page gets when it opens a dashboard."""
    return lambda name: json.loads(http_get(f"/dashboard/load/{quote(name)}")[2])


@pytest.fixture
def save(http_get, login):
    """Save a dashboard as the page does, after a login."""

    def as_admin(name, state):
        cookie = login("admin", PASSWORD)
        data = urlencode({"state": json.dumps(state)}).encode()
        assert json.loads(http_get(f"/dashboard/save/{quote(name)}", headers={"Cookie": cookie}, data=data)[2]) == {"success": True}

    return as_admin


@pytest.fixture
def shop(dashboards):
    assert not dashboards(SHOP)[0].get("failed")
    return SHOP


def test_a_dashboard_is_created_once_loaded_and_removed(http_get, dashboards, load):
    wanted = {**SHOP, "name": '新 "shop"'}
    absent = {"name": wanted["name"], "state": "absent"}
    assert dashboards(wanted, check=True)[0]["changed"]
    assert "does not exist" in load(wanted["name"])["error"]
    first, second = dashboards(wanted, wanted)
    assert (first["changed"], second["changed"]) == (True, False)
    state = load(wanted["name"])["state"]
    assert state["name"] == wanted["name"]
    assert state["defaultGraphParams"]["from"] == "-6hours"
    assert [graph[1]["target"] for graph in state["graphs"]] == [graph["targets"] for graph in SHOP["graphs"]]
    status, _headers, page = http_get(f"/dashboard/{quote(wanted['name'])}")
    assert status == 200
    assert b"JSON.parse(" in page
    for _query, _parameters, url in state["graphs"]:
        assert http_get(url)[1]["Content-Type"] == "image/png"
    gone, still_gone = dashboards(absent, absent)
    assert (gone["changed"], still_gone["changed"]) == (True, False)
    assert "does not exist" in load(wanted["name"])["error"]


def test_a_browser_that_saves_changes_only_what_somebody_sees(dashboards, load, save, shop):
    state = load(shop["name"])["state"]
    state["timeConfig"].update(startDate="NaN-NaN-NaNTNaN:NaN:NaN", endDate="NaN-NaN-NaNTNaN:NaN:NaN")
    state["graphSize"] = {"height": "300", "width": "600"}
    state["graphs"][0][1].update(yMin="0", hideLegend="true", _uniq=0.5, until="now")
    state["graphs"][0][2] = "http://localhost/render?_uniq=0.5"
    save(shop["name"], dict(reversed(state.items())))
    assert not dashboards(shop)[0]["changed"]
    state["graphs"][0][1]["title"] = "Requests"
    save(shop["name"], state)
    (checked,) = dashboards(shop, check=True)
    (diff,) = checked["diff"]
    assert [diff[side]["graphs"][0]["title"] for side in ("before", "after")] == ["Requests", "请求"]
    assert load(shop["name"])["state"] == state
    assert dashboards(shop)[0]["changed"]
    assert load(shop["name"])["state"]["graphs"][0][1]["title"] == "请求"


def test_an_exported_dashboard_comes_back(http_get, dashboards, load, shop):
    exported = http_get(f"/dashboard/load/{quote(shop['name'])}")[2].decode()
    _gone, *results = dashboards(
        {"name": "copy", "state": "absent"},
        {"name": shop["name"], "definition": exported},
        {"name": "copy", "definition": exported},
        {"name": "copy", "definition": json.loads(exported)["state"]},
    )
    assert [result["changed"] for result in results] == [False, True, False]
    assert load("copy")["state"] == {**load(shop["name"])["state"], "name": "copy"}


@pytest.mark.parametrize("check", [True, False])
def test_what_graphite_web_refuses_is_not_written(dashboards, load, check):
    wrong = {
        "alias(stats.a": "Expected end of text",
        "stats.a)": "Expected end of text",
        "(stats.a)": "found '('",
        "group(divideSeries(a, b), frobnicate(c))": "unknown function: frobnicate",
        "alias(stats.a)": 'Missing required parameter "newName" for function "alias"',
        "scale(stats.a, 'x')": 'Invalid "float" value',
    }
    before = load(SHOP["name"])
    results = dashboards(
        {"name": SHOP["name"], "graphs": [{"targets": ["stats.b", target]} for target in wrong]},
        {"name": "shop/1", "graphs": []},
        check=check,
    )
    assert [result.get("failed") for result in results] == [True, True]
    assert SHOP["name"] in results[0]["msg"]
    assert [said for said in [*wrong, *wrong.values()] if said not in results[0]["msg"]] == []
    assert "'stats.b'" not in results[0]["msg"]
    assert "'/'" in results[1]["msg"]
    assert load(SHOP["name"]) == before


def test_what_only_lacks_data_is_not_refused(dashboards):
    graphs = [
        {"targets": ["divideSeries(no.such, series)", "asPercent(no.such, series)", "divideSeriesLists(constantLine(1), no.such)"]},
        {"targets": ["verticalLine('12:00_20000101')", "seriesByTag('name=x')", "aliasByNode(no.such.*, 7)", "template(a.$b, b='c')"]},
        {"targets": ["label:5"], "options": {"graphType": "pie"}},
    ]
    created, _removed = dashboards({"name": "no data", "graphs": graphs}, {"name": "no data", "state": "absent"})
    assert created["changed"]
    assert "warnings" not in created
