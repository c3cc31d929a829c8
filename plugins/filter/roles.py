# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The variables of the roles. Each filter is documented beside this file."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.apache_wsgi import apache_wsgi_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_cache import carbon_cache_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.go_runtime_metrics import go_runtime_metrics_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.graphite_web import graphite_web_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.statsd import statsd_problems

_PROBLEMS = {
    "apache_wsgi": apache_wsgi_problems,
    "carbon_cache": carbon_cache_problems,
    "go_runtime_metrics": go_runtime_metrics_problems,
    "graphite_web": graphite_web_problems,
    "statsd": statsd_problems,
}


def role_problems(variables: dict, role: str) -> list[str]:
    if role not in _PROBLEMS:
        raise AnsibleFilterError(f"role_problems knows no role '{role}'; it knows {', '.join(_PROBLEMS)}")
    return _PROBLEMS[role](variables)


class FilterModule:
    def filters(self) -> dict:
        return {"role_problems": role_problems}
