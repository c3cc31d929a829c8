# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Whom a name from a proxy or an OpenID provider logs in; with a real Django and its database."""

from __future__ import annotations

import json

import pytest

PROGRAM = """
import json, sys
import django
from django.conf import settings
from django.http import HttpResponse
given = json.load(sys.stdin)
sys.modules["urls"] = urls = type(sys)("urls")
settings.configure(
    ALLOWED_HOSTS=["*"],
    AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.ModelBackend", "graphite_remote_user.Named"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "graphite_remote_user.FromFront",
    ],
    OPENID_CONNECT=given["openid"],
    REMOTE_USER_VARIABLE="HTTP_X_REMOTE_USER",
    ROOT_URLCONF="urls",
    SECRET_KEY="of this test, which has no secrets",
)
django.setup()
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django.urls import path
call_command("migrate", verbosity=0)
urls.urlpatterns = [path("", lambda request: HttpResponse(request.user.get_username()))]
model = get_user_model()
model.objects.create_user("admin", password="of admin", is_superuser=True)
model.objects.create_user("dora", is_superuser=True)  # as django-auth-ldap makes users, with a password that nobody has
model.objects.create(username="Frank")  # as Named makes users, with no password
answers = [Client().get("/", HTTP_X_REMOTE_USER=name) for name in given["names"]]
print(json.dumps([[answer.content.decode(), "sessionid" in answer.cookies] for answer in answers] + [model.objects.count()]))
"""


@pytest.mark.parametrize(
    ("openid", "found"),
    [
        ("", ["Frank", "Frank", "gina", "admin", "dora", "", "", ""]),
        # Where people may choose their names, nobody becomes a user of graphite-web or of a directory.
        ("/account/openid", ["Frank", "Frank", "gina", "", "", "", "", ""]),
    ],
)
def test_a_name_from_the_front_is_one_user_and_no_session(run_beside_graphite_web, openid, found):
    names = ["Frank", "FRANK", "gina", "Admin", "DORA", "a b", "frank,admin", ""]
    *answers, users = run_beside_graphite_web(PROGRAM, text=json.dumps({"openid": openid, "names": names}))
    assert answers == [[name, False] for name in found]
    assert users == 4
