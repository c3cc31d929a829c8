# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Ask the servers of the application's caches."""

from __future__ import annotations

import os

# Seconds for which a server may keep the check waiting.
_PATIENCE = 5


def check_caches(_connection) -> dict:
    """Store a value in each memcached of the settings and read it back.

    Returns ``unreachable``: one sentence for each server that does not take or return it. Other backends are not asked.
    """
    from django.conf import settings
    from django.core.cache import caches
    from django.core.cache.backends.memcached import BaseMemcachedCache

    unreachable = []
    for alias, parameters in settings.CACHES.items():
        try:
            cache = caches[alias]
        except Exception as error:
            unreachable.append(f"The cache '{alias}' cannot be used: {type(error).__name__}: {error}.")
            continue
        if isinstance(cache, BaseMemcachedCache):
            unreachable += filter(None, (_problem(type(cache), server, parameters) for server in cache._servers))
    return {"unreachable": unreachable}


def _problem(backend, server: str, parameters: dict) -> str | None:
    # The client would hide the reason. The application gives up early to answer in time; here, a busy host may take its time.
    options = {name: value for name, value in (parameters.get("OPTIONS") or {}).items() if name != "ignore_exc"}
    options.update({name: max(options[name] or 0, _PATIENCE) for name in ("connect_timeout", "timeout") if name in options})
    key = f"metricstack_check_{os.urandom(8).hex()}"
    try:
        cache = backend([server], {**parameters, "OPTIONS": options})
        cache.set(key, key, 10)
        found = cache.get(key)
        cache.delete(key)
        cache.close()
    except Exception as error:
        return f"{server} does not answer: {type(error).__name__}: {error}."
    return None if found == key else f"{server} does not return what it has taken."
