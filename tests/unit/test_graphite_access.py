# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Who gets in, by the rules of the role: the middleware in a Django project whose views have the names of graphite-web's."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import pytest

SECRET_KEY = "of this test, which has no secrets"
# What is asked: for each request, its method, path, headers and environment, and who has logged in. What is answered: status and headers.
PROJECT = """
import json, sys
from types import ModuleType
import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import include, re_path

given = json.load(sys.stdin)
urls = sys.modules["project_urls"] = ModuleType("project_urls")
settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "graphite_access.Admission",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        *given["middleware"],
    ],
    AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.RemoteUserBackend", "django.contrib.auth.backends.ModelBackend"],
    ROOT_URLCONF="project_urls",
    URL_PREFIX=given["prefix"],
    **given["settings"],
)
django.setup()
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client

checked = []
def view(request, **_options):
    return HttpResponse(request.user.get_username())
names = {"render": "render", "events/": "events", "dashboard/save/x": "dashboard_save", "dashboard/delete/x": "dashboard_delete",
         "dashboard/create-temporary": "dashboard_create_temporary", "tags/tagMultiSeries": "tagMultiSeries", "tags/delSeries": "delSeries",
         "s/x": "shorten", "account/login": "account_login", "account/logout": "account_logout", "composer/mygraph": "composer_mygraph",
         "whitelist/add": "whitelist_add", "whitelist": "whitelist_show", "metrics/set-metadata": "metrics_set_metadata"}
own = [re_path(f"^{path}$", view, name=name) for path, name in names.items()]
own.append(re_path("^admin/", include(([re_path("^$", view, name="index"), re_path("^login$", view, name="login")], "admin"))))
urls.urlpatterns = own
call_command("migrate", verbosity=0)
model = get_user_model()
for name, properties in {"eve": {}, "bob": {"is_staff": True}, "root": {"is_staff": True, "is_superuser": True}}.items():
    user = model.objects.create_user(name, password="of " + name, **properties)
passwords = {"checks": 0}
verify = model.check_password
def counting(self, password):
    passwords["checks"] += 1
    return verify(self, password)
model.check_password = counting
shared = Client()
answers = []
for request in given["requests"]:
    for name, value in request.get("change", {}).items():
        user = model.objects.get(username=name)
        user.set_password(value)
        user.save()
    client = Client()
    if "user" in request:
        client.force_login(model.objects.get(username=request["user"]), "django.contrib.auth.backends.ModelBackend")
    headers = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in request.get("headers", {}).items()}
    client.handler = shared.handler
    response = client.generic(request.get("method", "GET"), request["path"], **headers, **request.get("environment", {}))
    answers.append([response.status_code, dict(response.headers), response.content.decode()])
print(json.dumps([answers, passwords["checks"]]))
"""


@pytest.fixture
def ask(role_validation, run_beside_graphite_web):
    """Return the answers to requests, and how many passwords were computed for them."""

    def run(*requests, middleware=(), prefix="", access=None, guests=()):
        variables = {"graphite_web_access": access or {}, "graphite_web_access_without_login": list(guests)}
        settings = {
            "SECRET_KEY": SECRET_KEY,
            "ACCESS": role_validation.value("graphite_web", "__graphite_web_access", variables),
            "ACCESS_WITHOUT_LOGIN": role_validation.value("graphite_web", "__graphite_web_guests", variables),
        }
        given = {"settings": settings, "requests": requests, "middleware": list(middleware), "prefix": prefix}
        return run_beside_graphite_web(PROJECT, text=json.dumps(given))

    return run


@pytest.fixture
def statuses(ask):
    return lambda *requests, **options: [status for status, _headers, _content in ask(*requests, **options)[0]]


def basic(name, password):
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


def token(when, key=SECRET_KEY):
    signature = hmac.new(key.encode(), f"graphite_access {when}".encode(), hashlib.sha256).hexdigest()
    return {"Authorization": f"Bearer {when}.{signature}"}


CHANGES = [
    ("POST", "/events/"),
    ("POST", "/dashboard/save/x"),
    ("GET", "/dashboard/delete/x"),
    ("POST", "/dashboard/create-temporary"),
    ("POST", "/tags/tagMultiSeries"),
    ("POST", "/tags/delSeries"),
    ("GET", "/s/x"),
    ("GET", "/composer/mygraph?action=save"),
]
READS = [("GET", "/render"), ("POST", "/render"), ("GET", "/events/"), ("GET", "/composer/mygraph?action=list"), ("POST", "/account/login")]


def test_by_default_everybody_reads_and_users_change(statuses):
    asked = [{"method": method, "path": path} for method, path in (*CHANGES, *READS)]
    assert statuses(*asked) == [401] * len(CHANGES) + [200] * len(READS)
    assert statuses(*({**request, "user": "eve"} for request in asked)) == [200] * len(asked)
    assert statuses({"path": "/admin/"}, {"path": "/admin/", "user": "eve"}, {"path": "/admin/", "user": "bob"}) == [401, 403, 200]
    of_admin = [{"path": path, "user": "eve"} for path in ("/whitelist/add", "/whitelist", "/metrics/set-metadata")]
    assert statuses(*of_admin, {"path": "/admin/login"}) == [403, 403, 403, 200]


def test_areas_are_for_groups_or_names(statuses):
    access = {"read": ["eve", "root"], "events": "nobody", "dashboards": "superusers"}
    asked = [{"path": "/render"}, {"path": "/events/", "method": "POST"}, {"path": "/dashboard/save/x", "method": "POST"}]
    expected = {"eve": [200, 403, 403], "bob": [403, 403, 403], "root": [200, 403, 200]}
    for user, wanted in expected.items():
        assert statuses(*({**request, "user": user} for request in asked), access=access) == wanted
    assert statuses(*asked, access=access) == [401, 401, 401]


def test_a_browser_without_a_login_is_sent_to_the_form_and_a_script_is_not_asked(ask):
    page = {"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}
    script = {**page, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    answers, _checks = ask(
        {"path": "/render?target=a&from=-1h", "headers": page},
        {"path": "/render", "headers": script},
        {"path": "/render", "headers": {"Accept": "text/html", "X-Requested-With": "XMLHttpRequest"}},
        {"path": "/render"},
        access={"read": "users"},
        prefix="/graphite",
    )
    assert [status for status, _headers, _content in answers] == [302, 403, 403, 401]
    assert answers[0][1]["Location"] == "/graphite/account/login?nextPage=/render%3Ftarget%3Da%26from%3D-1h"
    assert ["WWW-Authenticate" in headers for _status, headers, _content in answers] == [False, False, False, True]


ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://testserver:8080"},
    {"Referer": "https://evil.example/page"},
]
HERE = [
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://testserver"},
    {},
]


@pytest.mark.parametrize(
    "access", [{}, dict.fromkeys(("events", "dashboards", "tags", "tag_deletion"), "everybody")], ids=["users", "everybody"]
)
def test_a_page_of_another_site_changes_nothing(statuses, access):
    paths = [*CHANGES, ("GET", "/metrics/set-metadata"), ("POST", "/account/login"), ("GET", "/account/logout")]
    requests = [
        {"method": method, "path": path, "user": "root", "headers": headers} for method, path in paths for headers in (*ELSEWHERE, *HERE)
    ]
    expected = [200 if request["headers"] in HERE else 403 for request in requests]
    found = statuses(*requests, access=access)
    wrong = [(request, status) for request, status, right in zip(requests, found, expected) if status != right]
    assert wrong == []
    assert len(found) == len(expected) == 110


def test_a_page_of_another_site_may_show_a_graph(statuses):
    assert statuses(*({"path": "/render", "headers": headers} for headers in ELSEWHERE)) == [200] * len(ELSEWHERE)


def test_programs_log_in_with_a_password_which_is_computed_once(ask):
    event = {"method": "POST", "path": "/events/"}
    right, wrong = basic("eve", "of eve"), basic("eve", "of bob")
    answers, checks = ask(
        *([{**event, "headers": right}] * 5),
        {**event, "headers": wrong},
        {**event, "headers": right, "change": {"eve": "another"}},
        {**event, "headers": basic("eve", "another")},
        {**event, "headers": {"Authorization": "Basic %%%"}},
        {**event, "headers": {"Authorization": "Basic "}},
    )
    assert [status for status, _headers, _content in answers] == [200] * 5 + [401, 401, 200, 401, 401]
    assert answers[0][2] == "eve"
    assert checks == 4


def test_a_user_whom_the_web_server_names_counts_in_any_order(statuses):
    request = {"method": "POST", "path": "/events/", "environment": {"REMOTE_USER": "eve"}}
    assert statuses(request) == [401]
    assert statuses(request, middleware=["django.contrib.auth.middleware.RemoteUserMiddleware"]) == [200]


GUESTS = [
    {"name": "grafana", "networks": ["192.0.2.0/24", "2001:db8::7", "localhost"], "areas": ["read"]},
    {"name": "a Grafana that forwards", "networks": ["192.0.4.0/24"], "forwards": True, "areas": ["read"]},
    {"name": "deployments", "token": "a token of twenty characters".replace(" ", "-"), "areas": ["events"]},
]


def from_address(address, **headers):
    return {"environment": {"REMOTE_ADDR": address}, "headers": headers}


def test_guests_come_in_for_their_areas_only(statuses):
    bearer = {"Authorization": "Bearer a-token-of-twenty-characters"}
    asked = {
        "from the network": ({"path": "/render", **from_address("192.0.2.7")}, 200),
        "as IPv4 in IPv6": ({"path": "/render", **from_address("::ffff:192.0.2.7")}, 200),
        "from the address": ({"path": "/render", **from_address("2001:db8::7")}, 200),
        "from the named host": ({"path": "/render", **from_address("127.0.0.1")}, 200),
        "from elsewhere": ({"path": "/render", **from_address("192.0.3.7")}, 401),
        "through a proxy": ({"path": "/render", **from_address("192.0.2.7", **{"X-Forwarded-For": "192.0.2.7"})}, 401),
        "through a client that may forward": ({"path": "/render", **from_address("192.0.4.7", **{"X-Forwarded-For": "192.0.3.7"})}, 200),
        "from a client that may forward": ({"path": "/render", **from_address("192.0.4.7")}, 200),
        "forwarded from elsewhere": ({"path": "/render", **from_address("192.0.3.7", **{"X-Forwarded-For": "192.0.4.7"})}, 401),
        "another area": ({"path": "/events/", "method": "POST", **from_address("192.0.2.7")}, 401),
        "with the token": ({"path": "/events/", "method": "POST", "headers": bearer}, 200),
        "the token, another area": ({"path": "/render", "headers": bearer, "environment": {"REMOTE_ADDR": "192.0.3.7"}}, 401),
        "another token": ({"path": "/events/", "method": "POST", "headers": {"Authorization": "Bearer " + "x" * 28}}, 401),
        "no token": ({"path": "/events/", "method": "POST", "headers": {"Authorization": "Bearer "}}, 401),
    }
    requests = [request for request, _status in asked.values()]
    assert dict(zip(asked, statuses(*requests, access={"read": "users"}, guests=GUESTS))) == {
        name: status for name, (_request, status) in asked.items()
    }


def test_who_has_the_secret_key_comes_in_for_minutes(statuses):
    now = int(time.time())
    asked = [token(now), token(now - 280), token(now - 400), token(now + 400), token(now, "another key"), token("x"), token("9" * 5000)]
    requests = [{"method": "POST", "path": "/events/", "headers": headers} for headers in asked]
    assert statuses(*requests, access={"events": "nobody"}) == [200, 200, 401, 401, 401, 401, 401]


def test_other_graphite_webs_read_through_their_own_site(statuses):
    store = {"environment": {"mod_wsgi.process_group": "graphite-store"}}
    front = {"environment": {"mod_wsgi.process_group": "graphite"}, "headers": {"mod_wsgi.process_group": "graphite-store"}}
    access = {"read": "users"}
    assert statuses({"path": "/render", **store}, {"path": "/render", **front}, access=access) == [200, 401]
    assert statuses({"path": "/events/", "method": "POST", **store}) == [401]
