# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""StatsD's configuration, the series that it makes of metrics, and the variables of the role statsd.

Source of the format: ``exampleConfig.js`` and ``backends/graphite.js`` of StatsD 0.9.0. This file is private to the
collection.
"""

from __future__ import annotations

import re

from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import address_problem, port_problem

# The variables own these; a second source would contradict them in silence.
OWNED_SETTINGS = {
    "address": "statsd_address",
    "address_ipv6": "statsd_address",
    "port": "statsd_port",
    "mgmt_address": "statsd_management_address",
    "mgmt_port": "statsd_management_port",
    "flushInterval": "statsd_flush_interval",
    "graphiteHost": "statsd_graphite_host",
    "graphitePort": "statsd_graphite_port",
}


def statsd_problems(variables: dict) -> list[str]:
    """Return one sentence for each mistake in the role's variables, given without the prefix ``statsd_``."""
    problems = [port_problem(f"statsd_{name}", variables[name]) for name in ("port", "management_port", "graphite_port")]
    problems += [address_problem(f"statsd_{name}", variables[name]) for name in ("address", "management_address")]
    if not re.match(r"[1-9]\d*000\Z", str(variables["flush_interval"])):
        problems.append(
            f"statsd_flush_interval is {variables['flush_interval']}; it is in milliseconds, and carbon keeps points by the"
            " second: give a multiple of 1000."
        )
    if not re.match(r"\d+\Z", str(variables["receive_buffer_bytes"])):
        problems.append(
            f"statsd_receive_buffer_bytes is {variables['receive_buffer_bytes']}; give a number of bytes, or 0 for the kernel's default."
        )
    problems += [
        f"statsd_config has {name}, which {variable} decides; set it there."
        for name, variable in OWNED_SETTINGS.items()
        if name in variables["config"]
    ]
    return [problem for problem in problems if problem]


def statsd_series(config: dict, name: str) -> dict[str, str]:
    """Return one series that StatsD writes for a metric ``name`` of each kind, and one about itself (``statsd``).

    ``config`` is the role's ``statsd_config``, on top of the role's own setting ``legacyNamespace: false``.
    """
    graphite = config.get("graphite") or {}
    legacy = graphite.get("legacyNamespace", False)
    own = config.get("prefixStats", "statsd")
    suffix = f".{graphite['globalSuffix']}" if "globalSuffix" in graphite else ""

    def series(kind: str, *parts: str) -> str:
        prefix = kind.lower() + "s"
        if legacy:
            namespace = ["stats"] if kind == "Counter" else ["stats", prefix]
        else:
            namespace = [graphite.get("globalPrefix", "stats"), graphite.get(f"prefix{kind}", prefix)]
        return ".".join(part for part in (*namespace, *parts) if part) + suffix

    top = "stats" if legacy else graphite.get("globalPrefix", "stats")
    return {
        "counter": f"stats_counts.{name}{suffix}" if legacy else series("Counter", name, "count"),
        "counter_rate": series("Counter", name) if legacy else series("Counter", name, "rate"),
        "gauge": series("Gauge", name),
        "set": series("Set", name, "count"),
        "statsd": ".".join(part for part in (top, own, "processing_time") if part) + suffix,
        "timer": series("Timer", name, "upper"),
        "timer_count": series("Timer", name, "count"),
    }
