# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Have graphite-web check the targets of dashboards."""

from __future__ import annotations

import inspect
import logging
from urllib.parse import urlencode


def check_dashboards(_connection, dashboards: list[dict]) -> dict:
    """Have graphite-web check the targets of ``graphs``, the parameters of requests for them; touch neither disk nor network.

    Returns what a request would fail with as ``refused``, and what graphite-web calls wrong and would try nevertheless as
    ``doubtful``; both are lists of a dashboard's name, a target and graphite-web's message.
    """
    from django.conf import settings
    from django.http import HttpRequest, QueryDict
    from graphite import storage
    from graphite.render import evaluator
    from graphite.render.views import parseOptions

    as_set, finders, function = settings.ENFORCE_INPUT_VALIDATION, storage.STORE.finders, evaluator.SeriesFunction
    refused: dict[tuple[str, str], str] = {}
    doubtful: dict[tuple[str, str], str] = {}
    logging.disable()  # graphite-web's own log is for what its users ask
    storage.STORE.finders = []
    evaluator.SeriesFunction = _without_computing(function)
    try:
        for name, graph in ((dashboard["name"], graph) for dashboard in dashboards for graph in dashboard["graphs"]):
            request = HttpRequest()
            request.GET = QueryDict(urlencode(graph, doseq=True))
            try:
                options = parseOptions(request)[1]
            except Exception as error:  # renderView, too, calls any of them a wrong parameter
                refused.update(((name, target), str(error)) for target in graph["target"])
                continue
            for target in graph["target"]:
                if options["graphType"] == "pie" and ":" in target:
                    continue  # a label and a number, no expression
                settings.ENFORCE_INPUT_VALIDATION = True
                message = _complaint(target, options)
                settings.ENFORCE_INPUT_VALIDATION = as_set
                if message is not None:
                    (doubtful if _complaint(target, options) is None else refused)[name, target] = message
    finally:
        settings.ENFORCE_INPUT_VALIDATION, storage.STORE.finders, evaluator.SeriesFunction = as_set, finders, function
        logging.disable(logging.NOTSET)
    return {
        kind: [(*position, message) for position, message in complaints.items()]
        for kind, complaints in (("refused", refused), ("doubtful", doubtful))
    }


def _complaint(target: str, options: dict) -> str | None:
    """Return what graphite-web says against a target, or ``None``."""
    from graphite.errors import InputParameterError
    from graphite.render import evaluator, grammar_unsafe
    from pyparsing import ParseBaseException

    try:
        evaluator.evaluateTarget({**options, "data": [], "prefetched": {}}, target)
        # Graphite-web ignores what comes after the first expression, and shows something else than was written.
        grammar_unsafe.grammar.parseString(target, parseAll=True)
    except InputParameterError as error:
        return str(error.args[0] if error.args else error)
    except ParseBaseException as error:
        message = str(error)
        # Where the whole grammar is expected, one release of pyparsing names all of it, and another nothing.
        return message if message.startswith("Expected") and len(message) < 200 else "found " + message.rpartition("found ")[2]
    except TypeError as error:
        return str(error)
    except Exception:
        return None  # not about the target
    return None


def _without_computing(find_function):
    """Return a ``SeriesFunction`` whose functions only look at how they are called: without series, they fail in ways of their own."""

    def find(name):
        function = find_function(name)

        def idle(*args, **kwargs):
            try:
                signature = inspect.signature(function, follow_wrapped=False)
            except ValueError:  # not written in Python
                return []
            signature.bind(*args, **kwargs)
            return []

        if hasattr(function, "params"):
            idle.params = function.params  # type: ignore[attr-defined]
        return idle

    return find
