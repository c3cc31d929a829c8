# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The instances of the Go server as data. Each filter is documented beside this file."""

from __future__ import annotations

from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.go_runtime_metrics import go_runtime_metrics_instances


class FilterModule:
    def filters(self) -> dict:
        return {"go_runtime_metrics_instances": go_runtime_metrics_instances}
