# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Graphite-web for Grafana. Each filter is documented beside this file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.filter.stack import _ValidatedHosts
from ansible_collections.metricstack.graphite.plugins.module_utils._graphite.dashboards import DashboardError
from ansible_collections.metricstack.graphite.plugins.plugin_utils import _grafana, _topology

_VARIABLES = ("access", "access_without_login", "tls", "users")


def graphite_web_grafana_datasource(
    groups: Mapping,
    hostvars: Mapping,
    host: str | None = None,
    login: str = "",
    ca_certificate: str = "",
    name: str = "Graphite",
    uid: str = "graphite",
    provisioning: bool = False,
) -> dict[str, Any]:
    options = {"login": login, "ca_certificate": ca_certificate, "name": name, "uid": uid, "provisioning": provisioning}
    try:
        fronts = [host] if host else _topology.hosts_of(groups, "graphite_web")
        if not fronts:
            raise AnsibleFilterError("graphite_web_grafana_datasource: the inventory has no host with graphite-web.")
        inventory = _ValidatedHosts(groups, hostvars).inventory
        web = _topology.HostView(inventory, fronts[0]).topology()["web"]
        variables = {option: inventory.value(web["host"], f"graphite_web_{option}") for option in _VARIABLES}
        return _grafana.data_source(web, variables, options)
    except (_topology.RefusedValueError, _topology.TopologyError, _grafana.GrafanaError) as error:
        raise AnsibleFilterError(f"graphite_web_grafana_datasource: {error}") from error


def graphite_web_grafana_dashboards(dashboards: Iterable[Mapping], event_tags: Iterable[str] = ()) -> list[dict[str, Any]]:
    found = []
    for dashboard in dashboards:
        if dashboard.get("state", "present") == "present":
            try:
                found.append(_grafana.dashboard(dashboard, event_tags))
            except DashboardError as error:
                raise AnsibleFilterError(f"graphite_web_grafana_dashboards: dashboard '{dashboard['name']}' {error}") from error
    return found


class FilterModule:
    def filters(self) -> dict:
        return {
            "graphite_web_grafana_dashboards": graphite_web_grafana_dashboards,
            "graphite_web_grafana_datasource": graphite_web_grafana_datasource,
        }
