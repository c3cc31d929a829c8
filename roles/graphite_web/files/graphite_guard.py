# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Closes what graphite-web leaves open to everybody who reaches it, and opens what a newer Python has closed.

local_settings.py names the parts.

For graphite-web 1.1.8 to 1.2.1 on Django 3.2 to 5.2. Installed by the role metricstack.graphite.graphite_web, which
overwrites manual changes.
"""

from __future__ import annotations

import inspect
import json
import re
import sys

from django.apps import apps
from django.conf import settings
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.db import DataError, IntegrityError
from django.db.models.signals import post_init
from django.http import HttpResponse, HttpResponseBadRequest, HttpResponseRedirect, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.utils.http import url_has_allowed_host_and_scheme
from graphite import functions, views
from graphite.finders.standard import StandardFinder
from graphite.logger import log

# A picture of this many pixels on each side takes some 270 MB while it is drawn.
PICTURE_LIMIT = 8192
MARKUP = re.compile(r'[<>"]')
# Parts of a dashboard that its page writes into its markup as they are. Titles and targets it encodes.
BARE = (
    "relativeStartQuantity",
    "relativeStartUnits",
    "relativeUntilQuantity",
    "relativeUntilUnits",
    "from",
    "until",
    "width",
    "height",
    "graphs",
)
# How answers begin whose names the pages write into trees and lists as they are.
LISTS = re.compile(rb'\s*(\[\s*\{\s*"text"|\{\s*"(templates|metrics)")')
LIST_MARKUP = {b"<": b"&lt;", b">": b"&gt;", b'\\"': b"&quot;"}
# What a picture in SVG says about itself, in a script: names of series could end the script, and begin another one.
SVG_DATA = re.compile(rb"(?<=<!\[CDATA\[).*(?=\]\]>)", re.DOTALL)
# What ends the text in a link of the search box, which the browser decodes twice.
LINK_END = re.compile(rb"""['"<>\\&]|%[0-9a-fA-F]{2}""")
# What Django raises while it reads a request: fields without end, an unknown character set, a client that has gone.
UNREADABLE = (BadRequest, SuspiciousOperation, MultiPartParserError, UnreadablePostError, LookupError, ValueError)
# What a view raises for a request that makes no sense.
BAD_INPUT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    DataError,
    IntegrityError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    re.error,
)
COOKIE = re.compile(r"(?:^|;)\s*ys-defaultGraphParams=([^;]*)")
# The dashboard of Debian 12's package calls this function, and has forgotten it; the others' own replaces it.
ENCODE = b"<script>function htmlEncode(text) { return String(text).replace(/[^a-zA-Z0-9 ]/g, (c) => `&#${c.charCodeAt()};`); }</script>"
# The dashboard looks for the pictures of a graph's history at the root of the site, whatever prefix graphite-web has.
HISTORY = b"""<script>addEventListener("DOMContentLoaded", function () {
  var set = Ext.data.Record.prototype.set;
  Ext.data.Record.prototype.set = function (name, value) {
    var atRoot = name === "url" && String(value).indexOf("/render?") === 0;
    return set.call(this, name, atRoot ? document.body.dataset.baseUrl + value.slice(1) : value);
  };
});</script>"""


class ConfinedFinder(StandardFinder):
    """Finds whisper files in the whisper directory only.

    graphite-web joins the parts of a pattern to that directory, and so finds ``/etc.*`` in the root of the host. No name of
    a series has a slash; its tags may, and are hashed.
    """

    def find_nodes(self, query):
        tagged = ";" in query.pattern and not query.pattern.startswith("_tagged.")
        return iter(()) if "/" in query.pattern and not tagged else super().find_nodes(query)


def guard(get_response):
    """Django middleware, the first: refuses pictures beyond any screen, markup where none belongs, and redirects to other sites."""
    for model in ("Dashboard", "Template"):
        post_init.connect(_disarm, sender=apps.get_model("dashboard", model))
    prefix = settings.URL_PREFIX
    is_behind_proxy = bool(settings.SECURE_PROXY_SSL_HEADER)
    if "getargspec" in functions.functionInfo.__code__.co_names and not hasattr(inspect, "getargspec"):
        functions.functionInfo = _describe
    views.server_error = _failed

    def guarded(request):
        try:
            request.body  # noqa: B018  # views that read it themselves cannot after its form fields have been read
            refused = next(_problems(request), None)
        except UNREADABLE as error:
            refused = f"the request cannot be read: {type(error).__name__}"
        if refused:
            return _refusal(refused)
        if not all(map(_is_harmless_cookie, COOKIE.findall(request.META.get("HTTP_COOKIE", "")))):
            response = _refusal("the cookie with the times of the graphs held markup; load the page again")
            response.delete_cookie("ys-defaultGraphParams", path=request.path.partition("/dashboard")[0] + "/dashboard")
            return response
        response = get_response(request)
        if not url_has_allowed_host_and_scheme(response.headers.get("Location", "/"), allowed_hosts={request.get_host()}):
            return _refusal("graphite-web sends nobody to another site")
        if prefix and response.status_code == 404 and request.path_info in ("/", prefix):
            return HttpResponseRedirect(f"{prefix}/")
        if is_behind_proxy and request.is_secure():  # which the settings cannot know, because the proxy has the certificate
            for cookie in response.cookies.values():
                cookie["secure"] = True
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


def _failed(_request, **_options):
    """Answer when a view has failed, in place of graphite-web's page, which shows the program to everybody."""
    error = sys.exc_info()[1]
    log.exception("a view has failed")
    reason = next(iter(f"{type(error).__name__}: {error}"[:200].splitlines()))
    # SQLite says this of a regular expression that is not valid.
    if isinstance(error, BAD_INPUT) or "user-defined function" in reason:
        return _refusal(f"graphite-web cannot answer this request: {reason}")
    return HttpResponse("graphite-web has failed; its log says why\n", status=500, content_type="text/plain")


def plain(get_response):
    """Django middleware, the last, so that nothing is compressed yet: sends text as text, and names in lists as text."""

    def sent(request):
        response = get_response(request)
        kind, content = response.headers.get("Content-Type", ""), getattr(response, "content", b"")
        view = getattr(request.resolver_match, "url_name", "")
        if kind.startswith("text/html") and not content.lstrip().startswith(b"<"):
            response.headers["Content-Type"] = "text/plain; charset=utf-8"
        elif kind.startswith("application/json") and LISTS.match(content):
            response.content = re.sub(rb"<|>|\\.", lambda found: LIST_MARKUP.get(found[0], found[0]), content)
        elif kind.startswith("text/html") and view in ("dashboard", "dashboard_template"):
            scripts = ENCODE + (HISTORY if settings.URL_PREFIX else b"")
            response.content = content.replace(b"</head>", scripts + b"</head>", 1)
        elif kind.startswith("image/svg+xml"):
            response.content = SVG_DATA.sub(lambda found: found[0].replace(b"<", b"\\u003c").replace(b">", b"\\u003e"), content, count=1)
        elif view == "browser_search":
            response.content = b",".join(name for name in content.split(b",") if not LINK_END.search(name))
        return response

    return sent


def _problems(request):
    if re.search(r"[<>\\]", request.path_info):
        yield "a name must not hold < > \\"
    if request.GET.get("action") == "save" and MARKUP.search(request.GET.get("graphName", "")):
        yield 'the name of a graph must not hold < > "'
    # It takes pickles, which hold the sizes of a picture as well. Hosts that have others render their pictures ask at another address.
    if re.search(r"/render/local/?$", request.path_info) and request.META.get("mod_wsgi.process_group") != "graphite-store":
        yield "graphite-web renders the data of others at graphite_web_store_address only"
    for parameters in (request.GET, request.POST):
        for name in ("limit", "local"):  # the page of logins has an empty one
            if not all(re.fullmatch(r"(-?[0-9]{1,9})?", value) for value in parameters.getlist(name)):
                yield f"{name} must be a number"
        expressions = [value.partition("=~")[2] for name in ("expr", "expr[]") for value in parameters.getlist(name)]
        if not all(map(_is_pattern, [*parameters.getlist("filter"), *expressions])):
            yield "a regular expression is not valid"
        for side in ("width", "height"):
            if any(_number(value) > PICTURE_LIMIT for value in parameters.getlist(side)):
                yield f"{side} must not exceed {PICTURE_LIMIT} pixels"
        if any(MARKUP.search(value) for value in parameters.getlist("theme")):
            yield "theme must be the name of a theme"
        if not all(re.fullmatch(r"[\w$.\[\]]*", value) for value in parameters.getlist("jsonp")):
            yield "jsonp must be the name of a function"
        if any(_disarmed(value) for value in parameters.getlist("state")):
            yield 'the times, sizes and addresses of a dashboard must not hold < > "'


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _is_harmless_cookie(value: str) -> bool:
    # The page evaluates what the cookie holds, decoded as JavaScript's unescape does.
    text = re.sub(r"%u([0-9a-fA-F]{4})|%([0-9a-fA-F]{2})", lambda found: chr(int(found[1] or found[2], 16)), value)
    if text == "s:":
        return True
    try:
        parameters = json.loads(text[2:])
    except ValueError:
        return False
    return text.startswith("s:") and _clean(parameters) == parameters


def _disarm(instance, **_kwargs) -> None:
    """Take the markup out of a dashboard that is stored already."""
    state = _disarmed(instance.__dict__.get("state"))
    if state:
        instance.state = state


def _disarmed(text: str | None) -> str | None:
    """Return the state of a dashboard without markup, or None if it holds none."""
    try:
        state = json.loads(text or "null")
    except ValueError:
        return None
    clean = _clean(state)
    return None if clean == state else json.dumps(clean)


def _clean(value, bare: bool = False):
    if isinstance(value, dict):
        # An object with numbers for names passes for a list.
        return {key: _clean(item, key in BARE or key.isdigit()) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, bare) for item in value]
    return MARKUP.sub("", value) if bare and isinstance(value, str) else value


def _refusal(reason: str) -> HttpResponseBadRequest:
    return HttpResponseBadRequest(f"{reason}\n", content_type="text/plain")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0
