# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Keeps answers of graphite-web in memcached, so that they are true and can be trusted.

local_settings.py names the parts. For graphite-web 1.1.8 to 1.2.1 on Django 3.2 to 5.2 and pymemcache 3.4 to 4.0. Installed by the
role metricstack.graphite.graphite_web, which overwrites manual changes.
"""

from __future__ import annotations

import hmac
import pickle

import django
from django.conf import settings
from django.core.cache import cache
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.memcached import PyMemcacheCache
from django.core.exceptions import MiddlewareNotUsed
from django.utils.crypto import salted_hmac


class SignedPickle:
    """Writes values for pymemcache so that only who has the secret key can write them.

    A pickle is a program. Without the signature, whoever reaches memcached could have graphite-web run it.
    """

    SIZE = 32

    def serialize(self, key, value):
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        return _signature(key, data) + data, 0

    def deserialize(self, key, value, _flags):
        signature, data = value[: self.SIZE], value[self.SIZE :]
        return pickle.loads(data) if hmac.compare_digest(signature, _signature(key, data)) else None


class AnswerCache(PyMemcacheCache):
    """Django's cache in memcached, for what the render view of graphite-web gives it: whole answers."""

    def __init__(self, server, params):
        super().__init__(server, {**params, "OPTIONS": {"serde": SignedPickle(), **(params.get("OPTIONS") or {})}})

    def make_key(self, key, version=None):
        """Return a key that memcached takes, which expressions of tags are not, and that another release or secret key does not share."""
        releases = f"{django.get_version()} {getattr(settings, 'WEBAPP_VERSION', '')}"
        return salted_hmac("graphite_cache.key", f"{releases} {super().make_key(key, version)}", algorithm="sha256").hexdigest()[:32]

    def validate_key(self, key):
        """Take every key, for it is a digest."""

    def close(self, **_kwargs):
        """Leave the thread its connection for the next request.

        Django ends it after each request, because some clients do not notice that the other side has. This one does, and connects anew.
        """

    def add(self, key, value, timeout=DEFAULT_TIMEOUT, version=None):
        """Keep an answer, and no list of series.

        graphite-web looks for series by their targets and the minutes of the time range: not by the seconds, nor by the variables
        of a template. They would also make the answers that it computes from them older than the lifetime of one.
        """
        return not isinstance(value, list) and super().add(key, value, timeout, version)


def answer(get_response):
    """Django middleware: gives an answer of the render view again, without the work that only a new one needs.

    The view would find the same answer by the same key, after the session, the routes and all options of the request.
    """
    from graphite.render.hashing import hashRequest
    from graphite_guard import plain

    if settings.LOG_CACHE_PERFORMANCE or settings.LOG_RENDERING_PERFORMANCE:
        raise MiddlewareNotUsed("the view logs what it finds")
    path = f"{settings.URL_PREFIX}/render"

    def answered(request):
        kept = cache.get(hashRequest(request)) if request.path_info in (path, path + "/") else None
        return get_response(request) if kept is None else plain(lambda _request: kept)(request)

    return answered


def _signature(key, data: bytes) -> bytes:
    # The client has text when it reads, and bytes when it writes.
    name = key.encode() if isinstance(key, str) else key
    return salted_hmac("graphite_cache.value", name + data, algorithm="sha256").digest()
