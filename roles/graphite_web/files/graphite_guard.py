# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Closes what graphite-web leaves open to everybody who reaches it, and opens what a newer Python has closed.

local_settings.py names both parts.

For graphite-web 1.1.8 to 1.2.1 on Django 3.2 to 5.2. Installed by the role metricstack.graphite.graphite_web, which
overwrites changes by hand.
"""

from __future__ import annotations

import inspect

from django.http import HttpResponseBadRequest
from django.utils.http import url_has_allowed_host_and_scheme
from graphite import functions
from graphite.finders.standard import StandardFinder

# A picture of this many pixels on each side takes some 270 MB while it is drawn.
PICTURE_LIMIT = 8192


class ConfinedFinder(StandardFinder):
    """Finds whisper files in the whisper directory only.

    graphite-web joins the parts of a pattern to that directory, and so finds ``/etc.*`` in the root of the host. No name of
    a series has a slash; its tags may, and are hashed.
    """

    def find_nodes(self, query):
        tagged = ";" in query.pattern and not query.pattern.startswith("_tagged.")
        return iter(()) if "/" in query.pattern and not tagged else super().find_nodes(query)


def guard(get_response):
    """Django middleware that refuses pictures beyond any screen, and redirects to other sites."""
    if "getargspec" in functions.functionInfo.__code__.co_names and not hasattr(inspect, "getargspec"):
        functions.functionInfo = _describe

    def guarded(request):
        request.body  # noqa: B018  # views that read it themselves cannot after its form fields have been read
        for parameters in (request.GET, request.POST):
            for side in ("width", "height"):
                if any(_number(value) > PICTURE_LIMIT for value in parameters.getlist(side)):
                    return _refusal(f"{side} must not exceed {PICTURE_LIMIT} pixels")
        response = get_response(request)
        if not url_has_allowed_host_and_scheme(response.headers.get("Location", "/"), allowed_hosts={request.get_host()}):
            return _refusal("graphite-web sends nobody to another site")
        return response

    return guarded


def _describe(name, function):
    """Describe a function for ``/functions``, which Grafana reads; graphite-web 1.1.8 does by what Python 3.11 has dropped."""
    parameters = [str(parameter) for parameter in inspect.signature(function).parameters.values()]
    return {
        "name": name,
        "function": f"{name}({', '.join(parameters[1:])})",
        "description": inspect.getdoc(function),
        "module": function.__module__,
        "group": getattr(function, "group", "Ungrouped"),
        "params": getattr(function, "params", None),
    }


def _refusal(reason: str) -> HttpResponseBadRequest:
    return HttpResponseBadRequest(f"{reason}\n", content_type="text/plain")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0
