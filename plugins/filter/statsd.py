# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""StatsD's configuration as data. Each filter is documented beside this file."""

from __future__ import annotations

from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.statsd import statsd_series, statsd_verification


class FilterModule:
    def filters(self) -> dict:
        return {"statsd_series": statsd_series, "statsd_verification": statsd_verification}
