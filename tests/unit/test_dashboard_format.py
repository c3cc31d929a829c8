# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What graphite-web's dashboard JSON means, and what is no dashboard."""

from __future__ import annotations

import json

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.dashboards import (
    DashboardError,
    check_name,
    dashboard_problems,
    meaning,
    render_requests,
    stored_meaning,
    to_text,
    wanted_state,
)

GRAPHS = [
    {"title": "Rate", "targets": ["alias(a.*, 'x y')", "b"], "options": {"yMin": 0, "hideLegend": True, "lineWidth": 2.0, "vtitle": None}},
    {"targets": ["c.d"]},
]


def state(**options):
    return wanted_state({"name": "shop", "graphs": GRAPHS, **options})


def changed(dashboard, *path, to):
    """Return a copy in which what stands at ``path`` is ``to``."""
    copy = json.loads(to_text(dashboard))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return copy


def test_what_is_described_is_what_it_means():
    assert meaning(state(**{"from": "-6h", "until": "-30min", "width": 800, "height": 400, "refresh": 0})) == {
        "name": "shop",
        "from": "-6hours",
        "until": "-30minutes",
        "range": "6 hours until 30 minutes ago",
        "width": "800",
        "height": "400",
        "refresh": 0,
        "defaults": {},
        "graphs": [
            {
                "title": "Rate",
                "targets": ["alias(a.*, 'x y')", "b"],
                "options": {"hideLegend": "true", "lineWidth": "2", "yMin": "0"},
            },
            {"targets": ["c.d"], "options": {}},
        ],
    }


def test_a_graph_is_found_as_the_browser_writes_it():
    assert state()["graphs"][0][0] == "target=alias(a.*%2C%20'x%20y')&target=b"


def test_a_request_is_the_one_of_the_page():
    """The graph over the defaults, and the size over both, as ``updateGraphRecords`` does it."""
    graphs = [{"targets": ["a"], "options": {"from": "-1d", "hideLegend": False}}]
    assert render_requests(wanted_state({"name": "shop", "graphs": graphs, "width": 700})) == [
        {"from": "-1d", "until": "now", "width": "700", "height": "300", "hideLegend": "false", "target": ["a"]}
    ]


def test_a_browser_that_saves_without_a_change():
    """``getState`` after ``applyState``, and after the defaults were copied into a graph by sending it as a mail."""
    saved = json.loads(to_text(state()), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    saved["timeConfig"].update(relativeUntilQuantity="5", startDate="NaN-NaN-NaNTNaN:NaN:NaN", endDate=None)
    saved["graphSize"] = {"width": "600", "height": "300"}
    saved["graphs"][0][1].update(saved["defaultGraphParams"], _uniq=0.25, lineWidth=2, yMin="0", hideLegend="true")
    saved["graphs"][0][2] = "http://elsewhere/render?_uniq=0.25"
    del saved["graphs"][1][2]
    assert meaning(saved) == meaning(state())


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (["name"], "store"),
        (["graphSize", "width"], 601),
        (["refreshConfig", "enabled"], False),
        (["refreshConfig", "interval"], 30000),
        (["timeConfig", "relativeStartQuantity"], "3"),
        (["timeConfig", "relativeUntilUnits"], "hours"),
        (["defaultGraphParams", "from"], "-3hours"),
        (["defaultGraphParams", "areaMode"], "first"),
        (["graphs", 0, 1, "target"], ["b", "alias(a.*, 'x y')"]),
        (["graphs", 0, 1, "title"], "Rates"),
        (["graphs", 1, 1, "from"], "-1d"),
        (["graphs"], state()["graphs"][::-1]),
    ],
)
def test_what_somebody_would_see_is_a_change(path, to):
    assert meaning(changed(state(), *path, to=to)) != meaning(state())


@pytest.mark.parametrize("key", ["name", "timeConfig", "refreshConfig", "graphSize", "graphs"])
def test_a_stored_state_that_no_page_can_load_means_nothing(key):
    broken = state()
    del broken[key]
    assert stored_meaning(json.dumps(broken)) is None


@pytest.mark.parametrize("text", ["", "null", "[]", '{"graphs": 1}', "{"])
def test_what_is_no_state_means_nothing(text):
    assert stored_meaning(text) is None


@pytest.mark.parametrize("wrap", [lambda state: state, to_text, lambda state: {"state": state}, lambda state: json.dumps({"state": state})])
def test_an_export_comes_back_under_its_new_name(wrap):
    exported = state(refresh=0)
    imported = wanted_state({"name": "copy", "definition": wrap(exported)})
    assert imported == {**exported, "name": "copy"}


def test_what_an_export_lacks_is_added():
    definition = {"defaultGraphParams": {"from": "-1d"}, "graphs": [["target=a", {"target": "a"}], ["", {"target": []}, ""]]}
    imported = wanted_state({"name": "old", "definition": definition})
    assert stored_meaning(to_text(imported)) == meaning(imported)
    assert meaning(imported)["from"] == "-1d"
    assert [graph["targets"] for graph in meaning(imported)["graphs"]] == [["a"], []]


@pytest.mark.parametrize("name", ["shop", "Web shop", "請求 的", "a.b-c_d,e;f", "helpdesk", "x" * 128, "請" * 128])
def test_a_name_that_can_be_opened(name):
    check_name(name)


@pytest.mark.parametrize("name", ["", " ", " shop", "a/b", "a?b", "a#b", "a%b", "a\\b", "a&b", "a\nb", "help", "find", "..", "x" * 129])
def test_a_name_that_cannot_be_opened(name):
    with pytest.raises(DashboardError):
        check_name(name)


@pytest.mark.parametrize(
    ("dashboard", "named"),
    [
        ({"name": "a/b", "graphs": []}, "'/'"),
        ({}, "neither"),
        ({"graphs": [], "definition": {}}, "both"),
        ({"graphs": [], "from": "yesterday"}, "from 'yesterday'"),
        ({"graphs": [], "from": "now"}, "from 'now'"),
        ({"graphs": [], "until": "-0hours"}, "until '-0hours'"),
        ({"graphs": [], "width": 0}, "width 0"),
        ({"graphs": [], "refresh": -1}, "refresh -1"),
        ({"graphs": [{"title": "T", "targets": []}]}, "'T'"),
        ({"graphs": [{"targets": ["a", " "]}]}, "targets"),
        ({"graphs": [{"targets": ["a"], "options": {"target": "b"}}]}, "'target'"),
        ({"graphs": [{"targets": ["a"], "options": {"colorList": ["red"]}}]}, "colorList"),
        ({"graphs": [{"targets": ["a"], "options": {"yMin": float("nan")}}]}, "JSON"),
        ({"definition": "{"}, "JSON"),
        ({"definition": {"error": "Dashboard 'x' does not exist. "}}, "'graphs'"),
        ({"definition": {"graphs": [["target=a", {}]]}}, "target"),
        ({"definition": {"graphs": [], "graphSize": "big"}}, "graphSize"),
        ({"definition": {"graphs": [], "timeConfig": {"type": "absolute"}}}, "startDate"),
        ({"definition": {"graphs": [], "refreshConfig": {"enabled": True, "interval": "often"}}}, "often"),
    ],
)
def test_each_mistake_is_one_sentence(dashboard, named):
    (problem,) = dashboard_problems("dashboards", [{"name": "shop", **dashboard}])
    assert problem.startswith(f"dashboards: dashboard '{dashboard.get('name', 'shop')}' has ")
    assert named in problem


def test_a_name_is_given_once_and_what_goes_needs_nothing_else():
    (problem,) = dashboard_problems("dashboards", [{"name": "shop", "graphs": GRAPHS}, {"name": "shop", "state": "absent"}])
    assert "'shop' twice" in problem
