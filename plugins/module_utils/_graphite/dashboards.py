# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Dashboards of graphite-web: the one place where their JSON is understood.

Source of the format: ``getState`` and ``applyState`` in ``static/js/dashboard.js`` and the views in ``dashboard/views.py``
of graphite-web 1.1.8 to 1.1.10. This file is private to the collection.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote, urlencode

from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.render import parameter_text as _text

DEFAULT_FROM = "-2hours"
DEFAULT_UNTIL = "now"
DEFAULT_WIDTH = 600
DEFAULT_HEIGHT = 300
DEFAULT_REFRESH = 60

_NAME_LENGTH = 128
# What the views refuse with "restricted symbols" (is_unclean_str in errors.py), and what ends a part of an address.
_NAME_SYMBOLS = re.compile(r"[&<>~!@#$%^*()`/?\\\x00-\x1f\x7f]")
# Paths below /dashboard/ that mean something else to graphite-web (dashboard/urls.py) or to a browser.
_RESERVED_NAMES = ("create-temporary", "email", "find", "find_template", "help", "login", "logout", ".", "..")
# Units of the render API (render/attime.py, which looks at how they begin), as the dashboard's own menu calls them.
_UNITS = (("s", "seconds"), ("min", "minutes"), ("h", "hours"), ("d", "days"), ("w", "weeks"), ("mon", "months"), ("y", "years"))
_RELATIVE_TIME = re.compile(r"-?([1-9]\d*)([a-z]+)\Z")
# Parameters that the dashboard sets on every graph, whatever the graph says.
_SET_BY_DASHBOARD = ("width", "height", "uniq", "_uniq")


class DashboardError(ValueError):
    """A dashboard that graphite-web could not show; the message goes on after "dashboard 'its name'"."""


def check_name(name: str) -> None:
    """Raise ``DashboardError`` for a name under which graphite-web's pages could not open a dashboard."""
    if not name or name != name.strip() or len(name) > _NAME_LENGTH:
        raise DashboardError(f"has a name that graphite-web cannot keep; give 1 to {_NAME_LENGTH} characters without spaces around them.")
    refused = "".join(sorted(set(_NAME_SYMBOLS.findall(name))))
    if refused:
        raise DashboardError(
            f"has {refused!r} in its name, which is a part of its address; graphite-web opens no dashboard with"
            " any of / ? \\ & < > ~ ! @ # $ % ^ * ( ) ` in its name."
        )
    if name in _RESERVED_NAMES:
        raise DashboardError(f"has the name of another page, /dashboard/{name}; choose another name.")


def wanted_state(dashboard: dict) -> dict:
    """Return the state of the dashboard that is described as the module's options do it. Raises ``DashboardError``."""
    name, graphs, definition = str(dashboard["name"]), dashboard.get("graphs"), dashboard.get("definition")
    check_name(name)
    if graphs is not None and definition is not None:
        raise DashboardError("has both graphs and definition; give one of the two.")
    if definition is not None:
        state = complete_state(name, definition)
    elif graphs is not None:
        names = {"from": "since", "until": "until", "width": "width", "height": "height", "refresh": "refresh"}
        options = {names[key]: value for key, value in dashboard.items() if key in names and value is not None}
        state = build_state(name, graphs, **options)
    else:
        raise DashboardError("has neither graphs nor definition; give one of the two, or state: absent.")
    to_text(state)
    return state


def build_state(
    name: str,
    graphs: list[dict],
    since: str = DEFAULT_FROM,
    until: str = DEFAULT_UNTIL,
    width: int = DEFAULT_WIDTH,
    height: int = DEFAULT_HEIGHT,
    refresh: int = DEFAULT_REFRESH,
) -> dict:
    """Return the state of a dashboard that shows ``graphs``, dicts with ``targets``, ``title`` and ``options``.

    ``since`` and ``until`` are relative times of the render API, such as ``-2hours`` and ``now``; ``width`` and
    ``height`` are the pixels of each graph; ``refresh`` is in seconds, 0 for never. Raises ``DashboardError``.
    """
    width, height, refresh = _count("width", width, 1), _count("height", height, 1), _count("refresh", refresh, 0)
    start_quantity, start_units = _relative_time("from", since)
    until_quantity, until_units = ("", "now") if until == "now" else _relative_time("until", until)
    return {
        "name": name,
        "timeConfig": {
            "type": "relative",
            "relativeStartQuantity": start_quantity,
            "relativeStartUnits": start_units,
            "relativeUntilQuantity": until_quantity,
            "relativeUntilUnits": until_units,
        },
        "refreshConfig": {"enabled": refresh > 0, "interval": (refresh or DEFAULT_REFRESH) * 1000},
        "graphSize": {"width": width, "height": height},
        "defaultGraphParams": {
            "from": f"-{start_quantity}{start_units}",
            "until": "now" if until_units == "now" else f"-{until_quantity}{until_units}",
            "width": width,
            "height": height,
        },
        "graphs": [_graph(graph) for graph in graphs],
    }


def complete_state(name: str, definition: object) -> dict:
    """Return the state that graphite-web exports, as a dict or as JSON, under ``name``.

    What graphite-web's pages could not do without is added. Raises ``DashboardError``.
    """
    if isinstance(definition, str):
        try:
            definition = json.loads(definition)
        except ValueError as error:
            raise DashboardError(f"has a definition that is no JSON: {error}.") from error
    if isinstance(definition, dict) and isinstance(definition.get("state"), dict):
        definition = definition["state"]  # the answer of /dashboard/load/NAME
    if not isinstance(definition, dict) or not isinstance(definition.get("graphs"), list):
        raise DashboardError("has a definition without the list 'graphs' that graphite-web exports.")
    defaults = definition.get("defaultGraphParams") or {}
    try:
        added = build_state(name, [], since=defaults["from"], until=defaults["until"])
    except (DashboardError, KeyError, TypeError):
        added = build_state(name, [])  # such as an absolute time
    state = {**added, **definition, "name": name}
    for key in ("timeConfig", "refreshConfig", "graphSize", "defaultGraphParams"):
        given = definition.get(key) or {}
        if not isinstance(given, dict):
            raise DashboardError(f"has a definition whose {key} is {_shown(given)}; graphite-web exports a dict.")
        state[key] = {**added[key], **given}
    state["graphs"] = [_exported_graph(graph) for graph in definition["graphs"]]
    meaning(state)
    return state


def to_text(state: dict) -> str:
    """Return ``state`` as JSON in ASCII, as graphite-web stores it in databases of any character set."""
    try:
        return json.dumps(state, allow_nan=False)
    except ValueError as error:
        raise DashboardError(f"has a number that JSON cannot hold: {error}.") from error


def stored_meaning(text: str) -> dict | None:
    """Return the ``meaning`` of a stored state, or ``None`` if graphite-web's pages could not load it."""
    try:
        return meaning(json.loads(text))
    except ValueError:
        return None


def meaning(state: object) -> dict:
    """Return what a state shows, without what a browser writes beside it.

    Two states with the same meaning look the same to whoever opens them. Raises ``DashboardError`` for a state that
    graphite-web's pages could not load.
    """
    try:
        name, time, refresh, size, graphs = (
            state[key]  # type: ignore[index]
            for key in ("name", "timeConfig", "refreshConfig", "graphSize", "graphs")
        )
        defaults = state["defaultGraphParams"] or {"from": DEFAULT_FROM, "until": DEFAULT_UNTIL}  # type: ignore[index]
        return {
            "name": name,
            "from": _text(defaults["from"]),
            "until": _text(defaults["until"]),
            "range": _range(time),
            "width": _text(size["width"]),
            "height": _text(size["height"]),
            "refresh": int(float(refresh["interval"]) // 1000) if refresh["enabled"] else 0,
            "defaults": _texts(defaults, ("from", "until", *_SET_BY_DASHBOARD)),
            "graphs": [_graph_meaning(parameters, defaults) for _query, parameters, *_url in graphs],
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DashboardError(f"has a state that graphite-web cannot load: {type(error).__name__}: {error}.") from error


def render_requests(state: dict) -> list[dict]:
    """Return for each graph the parameters with which the pages of graphite-web ask for it; ``target`` is a list."""
    return [
        {
            name: value if name == "target" else _text(value)
            for name, value in {**state["defaultGraphParams"], **parameters, **state["graphSize"]}.items()
        }
        for _query, parameters, _url in state["graphs"]
    ]


def dashboard_problems(variable: str, dashboards: list[dict]) -> list[str]:
    """Return one sentence for each mistake in ``dashboards``, described as the module's options do it."""
    problems = []
    names: set[str] = set()
    for dashboard in dashboards:
        name = str(dashboard["name"])
        if name in names:
            problems.append(f"{variable} has dashboard '{name}' twice; keep one of the two.")
        names.add(name)
        try:
            if dashboard.get("state", "present") == "present":
                wanted_state(dashboard)
        except DashboardError as error:
            problems.append(f"{variable}: dashboard '{name}' {error}")
    return problems


def _graph(graph: dict) -> list:
    targets, title = graph.get("targets"), graph.get("title")
    where = f"has a graph '{title}'" if title else "has a graph"
    if not targets or not all(isinstance(target, str) and target.strip() for target in targets):
        raise DashboardError(f"{where} whose targets are {_shown(targets)}; give at least one, and no empty one.")
    options = {name: value for name, value in (graph.get("options") or {}).items() if value is not None}
    for name, value in options.items():
        if name in ("target", "title", *_SET_BY_DASHBOARD):
            raise DashboardError(f"{where} with '{name}' among its options; give title and targets beside them, width and height for all.")
        if isinstance(value, (dict, list)):
            raise DashboardError(f"{where} whose option {name} is {_shown(value)}; give a text such as 'red,blue', or a number.")
    return _entry({"target": list(targets), **({} if title is None else {"title": title}), **options})


def _exported_graph(graph: object) -> list:
    # Releases differ in what they write before the parameters, not in the parameters.
    parameters = next((part for part in graph if isinstance(part, dict)), None) if isinstance(graph, list) else None
    targets = parameters.get("target") if parameters is not None else None
    if isinstance(targets, str):
        targets = [targets]
    if parameters is None or not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise DashboardError(f"has a definition with a graph that has no target: {_shown(graph)}.")
    return _entry({**parameters, "target": targets})


def _entry(parameters: dict) -> list:
    # The first element is how the metric tree finds the graph of a metric again, so it is encoded as a browser does it.
    return [
        urlencode({"target": parameters["target"]}, doseq=True, quote_via=quote, safe="!~*'()"),
        parameters,
        "/render?" + urlencode({name: _text(value) if name != "target" else value for name, value in parameters.items()}, doseq=True),
    ]


def _graph_meaning(parameters: dict, defaults: dict) -> dict:
    # A browser copies defaults into graphs, where they change nothing.
    same = _texts(defaults)
    options = {name: text for name, text in _texts(parameters, ("target", *_SET_BY_DASHBOARD)).items() if same.get(name) != text}
    title = {"title": options.pop("title")} if "title" in options else {}
    targets = parameters["target"]
    return {**title, "targets": [targets] if isinstance(targets, str) else list(targets), "options": options}


def _range(time: dict) -> str:
    """Return the time range as the page displays it; the one that the graphs show is among the defaults."""
    if time["type"] == "absolute":
        return f"{time['startDate']} until {time['endDate']}"
    until = "now"
    if time.get("relativeUntilUnits") not in ("now", "", None):
        until = f"{_text(time['relativeUntilQuantity'])} {time['relativeUntilUnits']} ago"
    return f"{_text(time['relativeStartQuantity'])} {time['relativeStartUnits']} until {until}"


def _texts(parameters: dict, leave_out: tuple = ()) -> dict:
    return {name: _text(value) for name, value in sorted(parameters.items()) if name not in leave_out}


def _count(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not re.match(r"\d+\Z", str(value)) or int(str(value)) < least:
        raise DashboardError(f"has {name} {value}; give a number of at least {least}.")
    return int(str(value))


def _relative_time(name: str, text: str) -> tuple[str, str]:
    match = _RELATIVE_TIME.match(str(text))
    for beginning, units in _UNITS:
        if match and match.group(2).startswith(beginning):
            return match.group(1), units
    raise DashboardError(f"has {name} '{text}'; give a relative time such as -2hours{', or now' if name == 'until' else ''}.")


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:200]
