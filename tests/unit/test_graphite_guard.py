# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What the role graphite_web puts before graphite-web, before views that answer as graphite-web's do."""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.parse import quote, unquote

import django
import pytest
from django.conf import settings
from django.db import IntegrityError, OperationalError, connection
from django.http import HttpResponse, HttpResponseNotFound
from django.test import Client, override_settings
from django.urls import re_path

ROLE_FILES = Path(__file__).resolve().parents[2] / "roles" / "graphite_web" / "files"
IMAGE = "<img src=x onerror=alert(1)>"
MODELS = """
from django.db import models
class Dashboard(models.Model):
    name = models.CharField(primary_key=True, max_length=128)
    state = models.TextField()
class Template(models.Model):
    name = models.CharField(primary_key=True, max_length=128)
    state = models.TextField()
"""
ANSWERS = {
    "sentence": (f"Invalid operation '{IMAGE}'", "text/html"),
    "page": ("\n<html><body>a &lt; b</body></html>", "text/html"),
    "dashboard": ("<html><head></head></html>", "text/html"),
    "tree": (json.dumps([{"text": IMAGE, "id": 'a"onmouseover="alert(1)', "leaf": 1}, {"text": "end\\", "id": "a"}]), "application/json"),
    "templates": (json.dumps({"templates": [{"name": IMAGE}]}), "application/json"),
    "series": (json.dumps([{"target": "a < b", "tags": {"name": "text"}}]), "application/json"),
    "picture": (
        '<svg>\n<script>\n  <![CDATA[\n    metadata = {"series": "]]></script><script>alert(1)</script>"}\n  ]]>\n</script>\n</svg>',
        "image/svg+xml",
    ),
    "search": ("ok.cpu,a');alert(1);(',b%27c,d<e,ok.disk", "text/plain"),
}


def state(**parts):
    return {
        "name": "a",
        "timeConfig": {"type": "relative", "relativeStartQuantity": "2", "relativeStartUnits": "hours", **parts.get("time", {})},
        "graphSize": {"width": 400, "height": 250, **parts.get("size", {})},
        "defaultGraphParams": {"from": "-2hours", "until": "now", **parts.get("parameters", {})},
        "graphs": parts.get(
            "graphs", [["target=x", {"target": ["aliasSub(x,'<','\">')"], "title": 'a < "b"'}, "/render?title=a%20%3C%20b"]]
        ),
    }


HARMFUL = [
    {"time": {"relativeStartUnits": IMAGE}},
    {"time": {"relativeUntilQuantity": [["1", IMAGE]]}},
    {"time": {"__proto__": {"relativeStartUnits": IMAGE}}},
    {"size": {"width": '1" onload="alert(1)'}},
    {"parameters": {"from": f"-2{IMAGE}"}},
    {"graphs": [["", {"target": []}, "", '1" onload="alert(1)']]},
    {"graphs": {"length": 1, "0": ["", {}, "", '1" onload="alert(1)']}},
    {"graphs": {"length": 1, "0": {"3": '1" onload="alert(1)'}}},
]


@pytest.fixture(scope="module")
def dashboards(tmp_path_factory):
    """Return the models, in a Django project with the middleware of the role."""
    root = tmp_path_factory.mktemp("graphite")
    (root / "dashboard").mkdir()
    (root / "dashboard" / "__init__.py").touch()
    (root / "dashboard" / "models.py").write_text(MODELS)
    urls = ModuleType("graphite_urls")
    finder = ModuleType("graphite.finders.standard")
    finder.StandardFinder = object
    graphite = ModuleType("graphite")
    graphite.functions = SimpleNamespace(functionInfo=lambda name, function: {})
    graphite.views = ModuleType("graphite.views")
    graphite.views.server_error = None
    urls.handler500 = "graphite.views.server_error"
    logger = ModuleType("graphite.logger")
    logger.log = logging.getLogger("graphite")
    modules = {"graphite": graphite, "graphite.finders": ModuleType("graphite.finders")}
    modules |= {module.__name__: module for module in (finder, logger, graphite.views)}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        patch.syspath_prepend(str(ROLE_FILES))
        for name, module in {**modules, urls.__name__: urls}.items():
            patch.setitem(sys.modules, name, module)
        settings.configure(
            ALLOWED_HOSTS=["*"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            DEFAULT_AUTO_FIELD="django.db.models.AutoField",
            INSTALLED_APPS=["dashboard"],
            MIDDLEWARE=["graphite_guard.guard", "django.middleware.gzip.GZipMiddleware", "graphite_guard.plain"],
            ROOT_URLCONF="graphite_urls",
            SECRET_KEY="of this test, which has no secrets",
            URL_PREFIX="",
        )
        django.setup()
        models = importlib.import_module("dashboard.models")
        urls.urlpatterns = _patterns(models)
        with connection.schema_editor() as editor:
            editor.create_model(models.Dashboard)
            editor.create_model(models.Template)
        yield models


ERRORS = {
    "number": ValueError("invalid literal for int(): 'a'"),
    "field": KeyError("path"),
    "time": OverflowError("timestamp out of range"),
    "pattern": re.error("missing )", "(((", 2),
    "row": IntegrityError("NOT NULL constraint failed"),
    "sqlite": OperationalError("user-defined function raised exception"),
    "disk": OSError("/var/lib/graphite/search_index"),
    "database": OperationalError("database is locked"),
}


def _patterns(models):
    def fail(_request, name):
        raise ERRORS[name]

    def load(_request, name):
        return HttpResponse(models.Dashboard.objects.get(name=name).state, content_type="application/json")

    def answer(request, name="sentence"):
        text, kind = ANSWERS.get(name, ANSWERS["sentence"])
        return HttpResponse(text, content_type=kind)

    def _set_cookie(_request):
        response = HttpResponse("set")
        response.set_cookie("sessionid", "x")
        return response

    return [
        re_path("^tools/graphite/dashboard$", lambda request: answer(request, "dashboard"), name="dashboard"),
        re_path("^(tools(/graphite)?)?$", lambda _request, *_parts: HttpResponseNotFound()),
        re_path("^tools/graphite/cookie$", _set_cookie),
        re_path("^browser/search$", lambda request: answer(request, "search"), name="browser_search"),
        re_path("^answer/(.+)$", answer),
        re_path("^fail/(.+)$", fail),
        re_path("^dashboard/load/(.+)$", load),
        re_path("", answer),
    ]


@pytest.fixture
def client(dashboards):
    return Client()


@pytest.mark.parametrize("parts", HARMFUL, ids=repr)
def test_markup_in_the_times_and_sizes_of_a_dashboard_is_refused_and_taken_out_of_what_is_stored(client, dashboards, parts):
    text = json.dumps(state(**parts))
    response = client.post("/dashboard/create-temporary", {"state": text})
    assert (response.status_code, response.headers["Content-Type"]) == (400, "text/plain")
    dashboards.Dashboard.objects.all().delete()
    dashboards.Dashboard.objects.bulk_create([dashboards.Dashboard(name="old")])
    dashboards.Dashboard.objects.update(state=text)
    loaded = client.get("/dashboard/load/old").content.decode()
    assert "<img" not in loaded
    assert '\\" on' not in loaded


def test_titles_and_targets_keep_their_marks(client, dashboards):
    text = json.dumps(state())
    assert client.post("/dashboard/save/a", {"state": text}).status_code == 200
    dashboards.Dashboard.objects.create(name="kept", state=text)
    assert client.get("/dashboard/load/kept").json() == json.loads(text)


def test_a_state_that_is_no_json_is_left_to_graphite_web(client):
    assert client.post("/dashboard/save/a", {"state": "{"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        f"/dashboard/{quote(IMAGE)}",
        f"/dashboard/load_template/a/{quote('x')}%5Cu003cimg",
        f"/dashboard?theme={quote(IMAGE)}",
        f"/composer/mygraph?action=save&url=x&graphName={quote(IMAGE)}",
        "/render?format=json&jsonp=alert(1)//",
        "/render?width=12000",
        "/render/local",
        "/tags?limit=99999999999999999999",
        "/metrics/index.json?local=a",
        "/tags?filter=(((",
        "/tags/findSeries?expr=a!=~(((",
        "/render?" + "a&" * 2000,
    ],
)
def test_what_nobody_asks_in_good_faith_is_refused(client, path):
    response = client.get(path)
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "text/plain"
    assert "img" not in response.content.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/%E8%BF%90%E8%A1%8C%20%22a%22%20it's",
        "/render?target=aliasSub(x,'%3C','%22%3E')&title=a%20%3C%20b&jsonp=jQuery1_2.a[0]",
        f"/composer/mygraph?action=delete&graphName={quote(IMAGE)}",
        "/dashboard?theme=dark",
        "/tags/findSeries?expr=a=b(((&expr=b=~^c&limit=-1",
    ],
)
def test_what_people_use_goes_on(client, path):
    assert client.get(path).status_code == 200


def test_a_store_takes_pictures_of_others(client):
    assert client.post("/render/local/", b"line\n", "text/plain", **{"mod_wsgi.process_group": "graphite-store"}).status_code == 200


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded; charset=zlib", "multipart/form-data; boundary=\xff"])
def test_fields_that_cannot_be_read_are_refused(client, kind):
    assert client.generic("POST", "/dashboard/save/a", b"state=a", kind).status_code == 400


@pytest.mark.parametrize(("name", "status"), [(name, 500 if name in ("disk", "database") else 400) for name in ERRORS])
def test_a_view_that_fails_shows_no_program(dashboards, name, status):
    response = Client(raise_request_exception=False).get(f"/fail/{name}")
    assert (response.status_code, response.headers["Content-Type"]) == (status, "text/plain")
    text = response.content.decode()
    assert "Traceback" not in text
    assert "graphite_guard" not in text
    assert (str(ERRORS[name]) in text) == (status == 400)


def test_a_series_in_a_picture_is_no_script(client):
    data, text = client.get("/answer/picture").content.decode(), ANSWERS["picture"][0]
    assert data.count("<script>") == 1
    found = json.loads(data.partition("metadata = ")[2].partition("\n  ]]>")[0])
    assert found["series"] in text


def test_a_sentence_is_no_page(client):
    assert client.get("/answer/sentence").headers["Content-Type"] == "text/plain; charset=utf-8"
    assert client.get("/answer/page").headers["Content-Type"].startswith("text/html")


def test_names_in_trees_and_lists_are_text(client):
    first, second = client.get("/answer/tree").json()
    assert first == {"text": "&lt;img src=x onerror=alert(1)&gt;", "id": "a&quot;onmouseover=&quot;alert(1)", "leaf": 1}
    assert second == {"text": "end\\", "id": "a"}
    assert client.get("/answer/templates").json() == {"templates": [{"name": "&lt;img src=x onerror=alert(1)&gt;"}]}
    assert client.get("/answer/series").content.decode() == ANSWERS["series"][0]
    assert client.get("/browser/search").content == b"ok.cpu,ok.disk"


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("s:", 200),
        ('s:{"from":"-2hours","until":"now","width":400,"title":"a < b %u8FD0"}', 200),
        ('s:{"from":"-2<img src=x onerror=alert(1)>"}', 400),
        ('s:{"from":"-2\\u003cimg src=x onerror=alert(1)\\u003e"}', 400),
        ('s:{"from":"-2%u003cimg src=x onerror=alert(1)%u003e"}', 400),
        ("s:(alert(1),{})", 400),
        ("a:s%3Aalert(1)", 400),
        ('n:{"from":"-2hours"}', 400),
    ],
)
def test_a_cookie_that_the_page_would_run_is_taken_back(client, value, status):
    # As Ext writes it, which leaves the "%u" of JavaScript's escape.
    header = "sessionid=x; ys-defaultGraphParams=" + quote(value, safe="%:")
    response = client.get("/prefix/dashboard/a", HTTP_COOKIE=header)
    assert response.status_code == status, unquote(header)
    if status == 400:
        cookie = response.cookies["ys-defaultGraphParams"]
        assert (cookie["max-age"], cookie["path"]) == (0, "/prefix/dashboard")


def test_the_root_leads_to_the_prefix(client):
    assert [client.get(path).status_code for path in ("/", "/tools/graphite")] == [404, 404]
    with override_settings(URL_PREFIX="/tools/graphite"):
        under_prefix = Client()
        answers = [under_prefix.get(path) for path in ("/", "/tools/graphite", "/tools")]
    assert [(answer.status_code, answer.headers.get("Location")) for answer in answers] == [
        (302, "/tools/graphite/"),
        (302, "/tools/graphite/"),
        (404, None),
    ]


def test_the_dashboard_looks_for_its_pictures_under_the_prefix(client):
    assert b"/render?" not in client.get("/tools/graphite/dashboard").content
    with override_settings(URL_PREFIX="/tools/graphite"):
        assert b'indexOf("/render?")' in client.get("/tools/graphite/dashboard").content


def test_cookies_are_secure_where_a_proxy_has_the_certificate():
    def is_secure(**headers):
        return bool(Client().get("/tools/graphite/cookie", **headers).cookies["sessionid"]["secure"])

    assert not is_secure(HTTP_X_FORWARDED_PROTO="https")
    with override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
        assert is_secure(HTTP_X_FORWARDED_PROTO="https")
        assert not is_secure(HTTP_X_FORWARDED_PROTO="http")
        assert not is_secure()
