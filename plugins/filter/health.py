# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers

from __future__ import annotations

from ansible_collections.metricstack.graphite.plugins.plugin_utils._health import health_verdict


class FilterModule:
    def filters(self) -> dict:
        return {"health_verdict": health_verdict}
