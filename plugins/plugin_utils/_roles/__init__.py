# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The rules for the variables of each role, beyond the types in its argument specification.

A rule takes the variables of a role without its prefix and returns one message for each mistake. Where ``state`` is absent, only
what the removal reads is validated.
"""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.apache_wsgi import apache_wsgi_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_cache import carbon_cache_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_relay import carbon_relay_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.go_runtime_metrics import go_runtime_metrics_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.graphite_venv import graphite_venv_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.graphite_web import graphite_web_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.memcached import memcached_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.statsd import statsd_problems

RULES: dict[str, Callable[[dict], list[str]]] = {
    "apache_wsgi": apache_wsgi_problems,
    "carbon_cache": carbon_cache_problems,
    "carbon_relay": carbon_relay_problems,
    "go_runtime_metrics": go_runtime_metrics_problems,
    "graphite_venv": graphite_venv_problems,
    "graphite_web": graphite_web_problems,
    "memcached": memcached_problems,
    "statsd": statsd_problems,
}
