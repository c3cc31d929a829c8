# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Stands in front of graphite-web: tells load balancers whether it can answer, and lets graphite-web on other hosts ask without a prefix.

For graphite-web 1.1.8 to 1.2.1 on Django 3.2 to 5.2. Installed by the role metricstack.graphite.graphite_web, which overwrites
manual changes.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connections
from django.urls import get_resolver

HEALTH_PATH = "/graphite-health"
# What graphite-web on other hosts asks for, and playbooks. Nobody logs in there.
STORE_PATHS = re.compile(r"/(render|metrics|tags|functions|version)(/|$)")
# Seconds for which it is known that graphite-web can answer, or cannot, and seconds that finding out may take.
GOOD_LIFETIME = 5
BAD_LIFETIME = 1
PATIENCE = 3


class Entrance:
    """A WSGI application around that of Django, which knows only requests with a name that it is to answer to."""

    def __init__(self, application):
        self._application = application
        self._health = Health(find_problem)

    def __call__(self, environ, start_response):
        path = environ.get("PATH_INFO", "")
        # Every virtual host of Apache leads here, also those that let through what the site of graphite-web refuses: nothing goes on.
        if path == HEALTH_PATH:
            if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
                return _answer(start_response, "405 Method Not Allowed", b"only GET and HEAD\n")
            if self._health.is_good():
                return _answer(start_response, "200 OK", b"ok\n")
            return _answer(start_response, "503 Service Unavailable", b"unavailable\n")
        # mod_wsgi's own word for the site that answers graphite-web on other hosts.
        if environ.get("mod_wsgi.process_group") == "graphite-store":
            if not STORE_PATHS.match(path):
                return _answer(start_response, "404 Not Found", b"not here\n")
            environ["PATH_INFO"] = settings.URL_PREFIX + path
        return self._application(environ, start_response)


def _answer(start_response, status: str, body: bytes) -> list[bytes]:
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")])
    return [body]


class Health:
    """What was found out last. One thread finds out, however many ask, and those who ask do not wait for a database that hangs."""

    def __init__(self, find_problem):
        self._find_problem = find_problem
        self._changed = threading.Condition()
        self._is_good = False
        self._known_until = 0.0
        self._begun: float | None = None

    def is_good(self) -> bool:
        with self._changed:
            if not self._is_known() and self._begun is None:
                self._begun = time.monotonic()
                threading.Thread(target=self._find_out, name="graphite_entrance", daemon=True).start()
            if self._begun is not None and not self._is_known():
                self._changed.wait_for(self._is_known, max(0, self._begun + PATIENCE - time.monotonic()))
            return self._is_known() and self._is_good

    def _is_known(self) -> bool:
        return time.monotonic() < self._known_until

    def _find_out(self) -> None:
        problem = self._find_problem()
        with self._changed:
            if problem and self._is_good:
                logging.getLogger("exception").error("%s answers 503: %s", HEALTH_PATH, problem)
            self._is_good = not problem
            self._known_until = time.monotonic() + (GOOD_LIFETIME if self._is_good else BAD_LIFETIME)
            self._begun = None
            self._changed.notify_all()


def find_problem() -> str:
    """Return what keeps graphite-web from answering: its code, its database or the directory of its series; nothing if it can."""
    try:
        get_resolver().url_patterns  # noqa: B018  # loads all views
        get_user_model().objects.exists()
        # The series of a front without a directory are on the stores.
        if not settings.CLUSTER_SERVERS:
            with os.scandir(settings.WHISPER_DIR) as entries:
                next(entries, None)
    except Exception as error:  # of whatever database there is
        return f"{type(error).__name__}: {error}"
    finally:
        connections.close_all()
    return ""
