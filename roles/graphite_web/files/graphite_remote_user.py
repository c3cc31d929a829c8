# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Takes the word of what stands in front of graphite-web, Apache or a proxy, about who has logged in.

local_settings.py has two settings:

``REMOTE_USER_VARIABLE``
    The name of the variable of a request: ``REMOTE_USER``, which only Apache itself sets, or that of a header, which Apache takes from
    trusted proxies only.
``OPENID_CONNECT``
    Below which path Apache leads users to their OpenID provider; empty if there is none.

For Django 3.2 to 5.2. Installed by the role metricstack.graphite.graphite_web, which overwrites manual changes.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from django.conf import settings
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.backends import RemoteUserBackend
from django.http import HttpResponseRedirect
from django.utils.http import url_has_allowed_host_and_scheme


class FromFront:
    """Django middleware: takes whom the front names for the user of the request, without a session, since each request has the name."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        name = request.META.get(settings.REMOTE_USER_VARIABLE)
        user = authenticate(request, remote_user=name) if name else None
        if user is not None:
            request.user = user
        return self.get_response(request)


class Named(RemoteUserBackend):
    """Authentication backend of Django: makes a user of each new name. The case of letters makes no other user."""

    def authenticate(self, request, remote_user):
        # Two headers of one name arrive as one with a comma.
        if not re.fullmatch(r"[\w.@+-]{1,150}", remote_user or ""):
            return None
        model = get_user_model()
        known = list(model.objects.filter(**{f"{model.USERNAME_FIELD}__iexact": remote_user}))
        # At a provider, users may be able to choose their names. Only of those whom this class has made, the password is empty.
        if settings.OPENID_CONNECT and any(user.password for user in known):
            return None
        names = [user.get_username() for user in known]
        return super().authenticate(request, remote_user if remote_user in names else next(iter(names), remote_user))


class AtProvider:
    """Django middleware: leads to the OpenID provider for a login and a logout. ``/account/login?local`` is graphite-web's own form."""

    def __init__(self, get_response):
        self.get_response = get_response
        self._account = settings.OPENID_CONNECT.rpartition("/")[0]

    def __call__(self, request):
        if not settings.OPENID_CONNECT:
            return self.get_response(request)
        path = request.path_info
        if path == f"{settings.OPENID_CONNECT}/login":
            # Apache has let the user through.
            return HttpResponseRedirect(_next_page(request))
        is_login = path == f"{self._account}/login" and request.method == "GET" and "local" not in request.GET
        if is_login and not request.user.is_authenticated:
            return HttpResponseRedirect(f"{settings.OPENID_CONNECT}/login?nextPage={quote(_next_page(request))}")
        response = self.get_response(request)
        if path == f"{self._account}/logout" and response.status_code == 302:
            home = quote(request.build_absolute_uri(_home()), safe="")
            return HttpResponseRedirect(f"{settings.OPENID_CONNECT}/answer?logout={home}")
        return response


def _home() -> str:
    return settings.OPENID_CONNECT.rpartition("/account/")[0] + "/"


def _next_page(request) -> str:
    wanted = request.GET.get("nextPage", "")
    return wanted if url_has_allowed_host_and_scheme(wanted, allowed_hosts=None) else _home()
