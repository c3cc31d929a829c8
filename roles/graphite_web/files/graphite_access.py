# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Decides who may read and who may change what graphite-web has; by itself, graphite-web asks for a login to save dashboards only.

local_settings.py has the rules, in two settings:

``ACCESS``
    For each area (see ``AREAS``), who may enter it: ``everybody``, ``users`` (who have logged in), ``staff``, ``superusers``,
    ``nobody``, or a list of names of users.
``ACCESS_WITHOUT_LOGIN``
    Who else comes in: a list of dictionaries with ``networks`` (of the address of the client; or names of hosts, which each process
    looks up once), ``forwards`` (whether requests that these clients pass on for others come in as well), ``token_sha256`` (of a token
    that is sent as ``Authorization: Bearer TOKEN``; may be empty), and ``areas``.

For graphite-web 1.1.8 to 1.2.1 on Django 3.2 to 5.2. Installed by the role metricstack.graphite.graphite_web, which overwrites
manual changes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import logging
import socket
import time
from collections import OrderedDict
from urllib.parse import quote, urlsplit

from django.conf import settings
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.http import HttpResponse, HttpResponseRedirect
from django.utils.crypto import salted_hmac

AREAS = ("read", "events", "dashboards", "tags", "tag_deletion", "admin")
# The names of graphite-web's views that change something, and their areas. Nobody is kept from logging in or out.
CHANGES = {
    "tagSeries": "tags",
    "tagMultiSeries": "tags",
    "delSeries": "tag_deletion",
    "dashboard_save": "dashboards",
    "dashboard_save_template": "dashboards",
    "dashboard_delete": "dashboards",
    "dashboard_delete_template": "dashboards",
    "dashboard_create_temporary": "dashboards",
    "dashboard_email": "dashboards",
    "shorten": "dashboards",
    "account_update": "dashboards",
    "metrics_set_metadata": "admin",
    "whitelist_add": "admin",
    "whitelist_remove": "admin",
    "account_login": "",
    "account_logout": "",
    "dashboard_login": "",
    "dashboard_logout": "",
}
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Seconds for which a password that was right is not computed again, and seconds by which the clocks of two hosts may differ.
PASSWORD_LIFETIME = 60
TOKEN_LIFETIME = 300
KNOWN_PASSWORDS = 1000


class KeptHash(PBKDF2PasswordHasher):
    """Leaves the hashes that the inventory gives as they are; Django would replace them at a login to have its own number of iterations."""

    def must_update(self, _encoded):
        return False


class Admission:
    """Django middleware: refuses what the rules do not allow, and changes for which a page of another site asks."""

    def __init__(self, get_response):
        self.get_response = get_response
        self._known: OrderedDict = OrderedDict()
        self._guests = [
            (
                [found for network in guest["networks"] for found in _networks(network)],
                guest.get("forwards", False),
                guest["token_sha256"],
                set(guest["areas"]),
            )
            for guest in settings.ACCESS_WITHOUT_LOGIN
        ]

    def __call__(self, request):
        return self.get_response(request)

    def process_view(self, request, _view, _arguments, _options):
        """Return a refusal, or nothing; whatever finds out who asks has run by then, in any order of the middleware."""
        area, is_change = _area(request)
        if is_change and _is_from_elsewhere(request):
            return _text(403, "A page of another site has asked for this change.")
        if not area or self._comes_without_login(request, area):
            return None
        wanted = settings.ACCESS[area]
        if wanted == "everybody":
            return None
        user = self._user(request)
        if user is not None and _is_one_of(user, wanted):
            request.user = user
            return None
        return _refusal(request, user)

    def _comes_without_login(self, request, area: str) -> bool:
        # mod_wsgi's own word for the site that answers graphite-web on other hosts.
        if area == "read" and request.META.get("mod_wsgi.process_group") == "graphite-store":
            return True
        scheme, _space, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        if token and is_token_of_host(token, settings.SECRET_KEY):
            return True
        digest = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest() if token else ""
        address, is_forwarded = _address(request), _is_forwarded(request)
        return any(
            area in areas
            and (
                (digest and known and hmac.compare_digest(digest, known))
                or (address is not None and (forwards or not is_forwarded) and any(address in network for network in networks))
            )
            for networks, forwards, known, areas in self._guests
        )

    def _user(self, request):
        """Return the user of the session, or the one whose name and password the request has, or ``None``."""
        if request.user.is_authenticated:
            return request.user
        scheme, _space, value = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return self._user_by_password(request, name, password) if colon else None

    def _user_by_password(self, request, name: str, password: str):
        # A password takes some 0.1 s of processor time to check, by design. The stored one is a part of the key, so that a changed
        # password is checked anew.
        model = get_user_model()
        stored = model.objects.filter(**{model.USERNAME_FIELD: name}).values_list("password", flat=True).first()
        key = salted_hmac("graphite_access.password", repr((name, password, stored)), algorithm="sha256").digest()
        known, until = self._known.get(key, (None, 0))
        if until > time.monotonic():
            return model.objects.filter(pk=known, is_active=True).first()
        user = authenticate(request, username=name, password=password)
        if user is not None:
            self._known[key] = (user.pk, time.monotonic() + PASSWORD_LIFETIME)
            while len(self._known) > KNOWN_PASSWORDS:
                self._known.popitem(last=False)
        return user


def is_token_of_host(token: str, secret_key: str, now: float | None = None) -> bool:
    """Return whether a token was made by who has the secret key, within the last minutes: ``SECONDS.SIGNATURE``.

    The programs of the collection on the host itself, and nobody else, have it from the file of the key.
    """
    when, _dot, signature = token.partition(".")
    if not when.isdecimal() or abs((time.time() if now is None else now) - int(when[:15])) > TOKEN_LIFETIME:
        return False
    wanted = hmac.new(secret_key.encode(), f"graphite_access {when}".encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "replace"))


def _area(request) -> tuple[str, bool]:
    """Return the area of a request, which may be none, and whether the request changes something."""
    match = request.resolver_match
    if "admin" in match.app_names:  # asks for a token of its forms by itself
        return ("" if match.url_name in ("login", "logout") else "admin"), False
    if match.url_name in CHANGES:
        return CHANGES[match.url_name], request.method not in SAFE_METHODS or not match.url_name.endswith("_login")
    if match.url_name == "events" and request.method not in SAFE_METHODS:
        return "events", True
    if match.url_name == "composer_mygraph" and request.GET.get("action") in ("save", "delete"):
        return "dashboards", True
    return ("admin" if match.url_name == "whitelist_show" else "read"), False


def _is_from_elsewhere(request) -> bool:
    """Return whether a browser sends the request for a page of another site. Programs send none of these headers."""
    site = request.META.get("HTTP_SEC_FETCH_SITE")
    if site:
        return site not in ("same-origin", "none")
    sender = request.META.get("HTTP_ORIGIN") or request.META.get("HTTP_REFERER")
    return bool(sender) and urlsplit(sender).netloc != request.get_host()


def _networks(text: str) -> list:
    """Return the networks that a text stands for: an address, a network or the name of a host."""
    try:
        return [ipaddress.ip_network(text)]
    except ValueError:
        pass
    try:
        found = {entry[4][0].partition("%")[0] for entry in socket.getaddrinfo(text, None)}
    except OSError as error:
        logging.getLogger("exception").error("ACCESS_WITHOUT_LOGIN: %s has no address: %s", text, error)
        return []
    return [ipaddress.ip_network(address) for address in sorted(found)]


def _is_forwarded(request) -> bool:
    """Return whether a proxy has sent the request for somebody else, who is not known."""
    return any(name in request.META for name in ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_VIA"))


def _address(request):
    """Return the address of who has sent the request."""
    try:
        address = ipaddress.ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_one_of(user, wanted) -> bool:
    if isinstance(wanted, (list, tuple)):
        return user.get_username() in wanted
    return {"users": True, "staff": user.is_staff, "superusers": user.is_superuser}.get(wanted, False)


def _refusal(request, user) -> HttpResponse:
    if user is not None:
        return _text(403, f"{user.get_username()} may not do this.")
    accepts_page = "text/html" in request.META.get("HTTP_ACCEPT", "")
    is_script = request.META.get("HTTP_X_REQUESTED_WITH") or request.META.get("HTTP_SEC_FETCH_MODE", "navigate") != "navigate"
    if accepts_page and not is_script and request.method in ("GET", "HEAD"):
        return HttpResponseRedirect(f"{settings.URL_PREFIX}/account/login?nextPage={quote(request.get_full_path())}")
    response = _text(403 if is_script else 401, "This needs a login.")
    if not is_script:  # a browser would ask for a password of its own while a page is shown
        response["WWW-Authenticate"] = 'Basic realm="Graphite", charset="UTF-8"'
    return response


def _text(status: int, reason: str) -> HttpResponse:
    return HttpResponse(f"{reason}\n", status=status, content_type="text/plain; charset=utf-8")
