# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The render API of graphite-web.

Source of the format: https://graphite.readthedocs.io/en/1.1.10/render_api.html. This file is private to the
collection.
"""

from __future__ import annotations

from urllib.parse import urlencode


class RenderError(Exception):
    """The answer is not what graphite-web's render API gives."""


def render_query(targets: list[str], time_from: str, time_until: str | None, use_cache: bool) -> str:
    """Return the query string that asks for ``targets`` as JSON.

    ``time_from`` and ``time_until`` are times as the render API takes them; ``use_cache`` false makes graphite-web
    leave its own data cache aside, so that a point is seen as soon as carbon has it.
    """
    query = [("target", target) for target in targets] + [("format", "json"), ("from", time_from)]
    if time_until is not None:
        query.append(("until", time_until))
    if not use_cache:
        query.append(("noCache", "1"))
    return urlencode(query)


def summarize_series(answer: object) -> list[dict]:
    """Return one summary for each series of a decoded JSON answer, in the answer's order.

    ``step`` is the distance of the points in seconds, ``None`` with fewer than two points. ``count``, ``sum``,
    ``min``, ``max``, ``last`` and ``last_time`` (Unix time in seconds) speak of the points that have a value; all but
    ``count`` are ``None`` if there is no such point.

    Raises ``RenderError`` if the answer is not a list of series.
    """
    if not isinstance(answer, list) or not all(isinstance(series, dict) and "datapoints" in series for series in answer):
        raise RenderError("the answer is JSON, but not a list of series")
    return [_summarize(series) for series in answer]


def _summarize(series: dict) -> dict:
    datapoints = series["datapoints"]
    values = [value for value, _time in datapoints if value is not None]
    return {
        "target": series.get("target"),
        "datapoints": datapoints,
        "step": datapoints[1][1] - datapoints[0][1] if len(datapoints) > 1 else None,
        "count": len(values),
        "sum": sum(values) if values else None,
        "min": min(values) if values else None,
        "max": max(values) if values else None,
        "last": values[-1] if values else None,
        "last_time": next((time for value, time in reversed(datapoints) if value is not None), None),
    }
