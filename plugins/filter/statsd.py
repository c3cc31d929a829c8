# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""StatsD's configuration as data. Each filter is documented beside this file."""

from __future__ import annotations

from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.statsd import (
    statsd_listeners,
    statsd_series,
    statsd_verification,
)


def statsd_sockets(config: dict, address: str, port: int) -> list[dict]:
    listeners = statsd_listeners(config, address, port)
    return [{name: value for name, value in listener.items() if name != "port"} | {"ports": [listener["port"]]} for listener in listeners]


class FilterModule:
    def filters(self) -> dict:
        return {"statsd_series": statsd_series, "statsd_sockets": statsd_sockets, "statsd_verification": statsd_verification}
