# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The render API of graphite-web.

Source of the format: https://graphite.readthedocs.io/en/1.1.10/render_api.html. This file is private to the
collection.
"""

from __future__ import annotations

from urllib.parse import urlencode

# Described in the documentation fragment render.
RENDER_ARGUMENT_SPEC: dict = {
    "targets": {"type": "list", "elements": "str", "required": True},
    "from": {"type": "str", "default": "-1h", "aliases": ["begin"]},
    "until": {"type": "str", "aliases": ["end"]},
    "use_cache": {"type": "bool", "default": False},
}

# What an answer in each format begins with.
PICTURE_BEGINNINGS = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml ", "pdf": b"%PDF-"}
_SET_BY_MODULE = ("target", "format", "from", "until", "noCache")


def render_query(parameters: dict, form: str, options: dict | None = None) -> str:
    """Return the query string that asks for the targets among ``parameters``, as ``RENDER_ARGUMENT_SPEC`` has them.

    ``form`` is the format of the answer, and ``options`` are other parameters of the render API. ``use_cache`` false makes
    graphite-web bypass its own data cache, so that a point is seen as soon as carbon has it.
    """
    query = [("target", target) for target in parameters["targets"]] + [("format", form), ("from", parameters["from"])]
    if parameters["until"] is not None:
        query.append(("until", parameters["until"]))
    if not parameters["use_cache"]:
        query.append(("noCache", "1"))
    return urlencode(query + [(name, parameter_text(value)) for name, value in (options or {}).items()])


def parameter_text(value: object) -> str:
    """Return what a browser makes of the value of a parameter in an address."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def picture_problems(parameters: dict) -> list[str]:
    """Return one sentence for each mistake in the ``targets`` and ``options`` of a picture."""
    problems = []
    if not any(target.strip() for target in parameters["targets"]):
        problems.append(f"targets is {parameters['targets']}; give at least one metric or function to draw.")
    for name, value in parameters["options"].items():
        if name in _SET_BY_MODULE:
            problems.append(f"options has {name}, which an option of the module decides; set it there.")
        if isinstance(value, (dict, list)):
            problems.append(f"options has {name}: {value}; give a text such as 'red,blue', or a number.")
    return problems


def summarize_series(answer: object) -> list[dict]:
    """Return one summary for each series of a decoded JSON answer, in the answer's order.

    ``step`` is the distance of the points in seconds, ``None`` with fewer than two points. ``count``, ``sum``,
    ``min``, ``max``, ``last`` and ``last_time`` (Unix time in seconds) speak of the points that have a value; all but
    ``count`` are ``None`` if there is no such point.

    Raises ``ValueError`` if the answer is not a list of series.
    """
    if not isinstance(answer, list) or not all(isinstance(series, dict) and "datapoints" in series for series in answer):
        raise ValueError("the answer is JSON, but not a list of series")
    return [_summarize(series) for series in answer]


def _summarize(series: dict) -> dict:
    datapoints = series["datapoints"]
    values = [value for value, _time in datapoints if value is not None]
    return {
        "target": series.get("target"),
        "tags": series.get("tags") or {},
        "datapoints": datapoints,
        "step": datapoints[1][1] - datapoints[0][1] if len(datapoints) > 1 else None,
        "count": len(values),
        "sum": sum(values) if values else None,
        "min": min(values) if values else None,
        "max": max(values) if values else None,
        "last": values[-1] if values else None,
        "last_time": next((time for value, time in reversed(datapoints) if value is not None), None),
    }
