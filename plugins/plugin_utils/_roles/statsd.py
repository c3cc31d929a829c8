# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""StatsD's configuration, the series that it makes of metrics, and the variables of the role statsd.

Source of the format: ``exampleConfig.js`` and ``backends/graphite.js`` of StatsD 0.9.0. This file is private to the
collection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import overlap
from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import address_problem, network_problems, port_problem
from ansible_collections.metricstack.graphite.plugins.plugin_utils._statsd_series import Names

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
    "graphiteAlternatives": "statsd_graphite_alternatives",
    "graphiteTls": "statsd_graphite_tls",
}

_WILDCARDS = ("*", "0.0.0.0", "::")
_SERVERS = re.compile(r"\./servers/(udp|tcp)(\.js)?\Z")


def statsd_problems(variables: dict) -> list[str]:
    """Return one sentence for each mistake in the role's variables, given without the prefix ``statsd_``."""
    if variables.get("state") == "absent":
        return []
    problems = [port_problem(f"statsd_{name}", variables[name]) for name in ("port", "management_port", "graphite_port")]
    problems += [address_problem(f"statsd_{name}", variables[name]) for name in ("address", "management_address")]
    problems += network_problems("statsd_allowed_senders", variables.get("allowed_senders") or [])
    if not re.match(r"[1-9]\d*000\Z", str(variables["flush_interval"])):
        problems.append(
            f"statsd_flush_interval is {variables['flush_interval']}; it is in milliseconds, and carbon keeps points by the"
            " second: give a multiple of 1000."
        )
    if not re.match(r"\d+\Z", str(variables["receive_buffer_bytes"])):
        problems.append(
            f"statsd_receive_buffer_bytes is {variables['receive_buffer_bytes']}; give a number of bytes, or 0 for the kernel's default."
        )
    if not re.match(r"\d+\Z", str(variables["gauge_lifetime"])):
        problems.append(f"statsd_gauge_lifetime is {variables['gauge_lifetime']}; give a number of seconds, or 0 to forget idle gauges.")
    problems += [
        f"statsd_config has {name}, which {variable} decides; set it there."
        for name, variable in OWNED_SETTINGS.items()
        if name in variables["config"]
    ]
    tls = variables.get("graphite_tls") or {}
    if tls and not re.match(r"/\S+\Z", str(tls.get("authority"))):
        problems.append(
            f"statsd_graphite_tls: authority is '{tls.get('authority') or ''}'; give the absolute path of a file of trusted certificates on"
            " the host."
        )
    problems += _setting_problems(variables["config"])
    problems += _server_problems(variables)
    return [problem for problem in problems if problem]


_PREFIXES = ("globalPrefix", "prefixCounter", "prefixTimer", "prefixGauge", "prefixSet")
# Carbon leaves out a name with white space, takes ";" for the beginning of tags, and has no file for an empty part.
_PARTS = re.compile(r"[^\s;.]+(\.[^\s;.]+)*\Z")
# More would not fit into the file in which a StatsD that ends leaves it to the next.
_MOST_UNSENT_BYTES = 256 << 20
_NUMBER = re.compile(r"-?\d+(\.\d+)?\Z")


def _setting_problems(config: dict) -> list[str]:
    """Refuse settings that StatsD would write wrong names with, or end."""
    graphite = config.get("graphite") or {}
    if not isinstance(graphite, Mapping):
        return [f"statsd_config: graphite is {graphite}; give a dictionary, such as {{globalPrefix: stats}}."]
    texts = {"prefixStats": config, **dict.fromkeys((*_PREFIXES, "globalSuffix"), graphite)}
    problems = [
        f"statsd_config: {name} is {settings[name]!r}; give a text, in quotation marks if it looks like a number, or leave it out."
        for name, settings in texts.items()
        if name in settings and not isinstance(settings[name], str)
    ]
    problems += [
        f"statsd_config: {name} is '{settings[name]}'; give parts that are joined by dots, without white space and semicolons, such as"
        " shop.web1."
        for name, settings in texts.items()
        if isinstance(settings.get(name), str)
        and not (_PARTS.match(settings[name]) or (settings[name] == "" and name in (*_PREFIXES, "globalSuffix")))
    ]
    if graphite.get("globalSuffix") == "":
        problems.append("statsd_config: globalSuffix is empty, and StatsD would end every name with a dot. Leave it out.")
    unsent = config.get("graphiteMaxUnsentBytes", 0)
    if not re.match(r"\d+\Z", str(unsent)) or int(unsent) > _MOST_UNSENT_BYTES:
        problems.append(
            f"statsd_config: graphiteMaxUnsentBytes is {unsent}; give a number of bytes up to {_MOST_UNSENT_BYTES}, or 0 to keep no flush"
            " that carbon does not take."
        )
    if not isinstance(graphite.get("legacyNamespace", False), bool):
        problems.append(f"statsd_config: legacyNamespace is {graphite['legacyNamespace']!r}; give true or false.")
    backends = config.get("backends", [])
    if not isinstance(backends, list) or not all(isinstance(name, str) for name in backends):
        problems.append(f"statsd_config: backends is {backends}; give a list, such as [./backends/graphite].")
    histogram = config.get("histogram") or []
    if not isinstance(histogram, list) or not all(map(_is_histogram, histogram)):
        problems.append(
            f"statsd_config: histogram is {histogram}; give a list with ascending bins, such as [{{metric: render, bins: [10, 100, inf]}}]."
        )
    given = config.get("percentThreshold") or []
    for threshold in given if isinstance(given, list) else [given]:
        if not _NUMBER.match(str(threshold)) or not 0 < abs(float(threshold)) <= 100:
            problems.append(f"statsd_config: percentThreshold has {threshold}; give numbers from -100 to 100 except 0, such as [90, 99.9].")
    if not isinstance(config.get("calculatedTimerMetrics") or [], list):
        problems.append(
            f"statsd_config: calculatedTimerMetrics is {config['calculatedTimerMetrics']}, which StatsD ignores; give a list, such as"
            " [count, upper, upper_percent]."
        )
    return problems


def _is_histogram(item: object) -> bool:
    """Return whether StatsD makes the bins of ``item``: it would end at one that is null, and count wrongly in another order."""
    if not (isinstance(item, Mapping) and isinstance(item.get("metric"), str) and isinstance(item.get("bins"), list)):
        return False
    limits = [str(limit) for limit in item["bins"]]
    numbers = limits[:-1] if limits[-1:] == ["inf"] and isinstance(item["bins"][-1], str) else limits
    return all(map(_NUMBER.match, numbers)) and sorted(numbers, key=float) == numbers


def statsd_listeners(config: dict, address: str, port: object) -> list[dict]:
    """Return the sockets at which StatsD receives metrics: ``protocol``, ``address`` and ``port``, and the variables that have them.

    The defaults are those of StatsD's servers (``servers/udp.js``, ``servers/tcp.js``). Servers of other modules are left out.
    """
    if config.get("servers") is None:
        variables = {"variable": "statsd_port", "address_variable": "statsd_address"}
        server = {"server": config.get("server"), "address": address, "port": port}
        return [{**variables, **listener} for listener in [_listener(server)] if listener]
    listeners = map(_listener, config["servers"])
    variables = {"variable": "statsd_config: servers", "address_variable": "statsd_config: the address of one of servers"}
    return [{**variables, **listener} for listener in listeners if listener]


def _listener(server: Mapping) -> dict | None:
    module = _SERVERS.match(server.get("server") or "./servers/udp")
    if module is None:
        return None
    return {"protocol": module[1], "address": server.get("address") or "*", "port": server.get("port") or 8125}


def _server_problems(variables: dict) -> list[str]:
    """Refuse servers in ``statsd_config`` with which StatsD would not start, or would not be where senders and playbooks look for it."""
    servers = variables["config"].get("servers")
    if servers is None:
        return _module_problems("server is", variables["config"].get("server"))
    if not isinstance(servers, list) or not all(isinstance(server, Mapping) for server in servers):
        return [f"statsd_config: servers is {servers}; give a list such as [{{server: ./servers/udp, address: 127.0.0.1, port: 8125}}]."]
    problems = [problem for server in servers for problem in _single_server_problems(server)]
    if problems:
        return problems
    address, port = str(variables["address"]), str(variables["port"])
    listeners = statsd_listeners(variables["config"], address, port)
    taken = [{"protocol": "tcp", "address": str(variables["management_address"]), "port": str(variables["management_port"])}]
    for listener in listeners:
        if any(_meet(listener, other) for other in taken):
            problems.append(
                f"statsd_config: servers has {listener['protocol'].upper()} port {listener['port']}, which another server or"
                " statsd_management_port has as well. Change one of them."
            )
        taken.append(listener)
    # A server of another module may be the one that is looked for.
    if len(listeners) == len(servers) and not any(
        str(listener["port"]) == port and listener["address"] in (address, *_WILDCARDS) for listener in listeners
    ):
        problems.append(
            f"statsd_config has servers, of which none listens on {address}, port {port}, as statsd_address and statsd_port say. Give one"
            " server that address and port, or set statsd_address and statsd_port to its own."
        )
    return problems


def _meet(listener: dict, other: dict) -> bool:
    same = all(str(listener[key]) == str(other[key]) for key in ("protocol", "port"))
    addresses = listener["address"], other["address"]
    return same and (overlap(*addresses) or overlap(*reversed(addresses)))


def _single_server_problems(server: Mapping) -> list[str]:
    if server.get("socket"):
        return [
            "statsd_config: servers has a socket; StatsD 0.9.0 ends when it sets the socket's mode, and does not start over a socket that a"
            " killed StatsD has left. Give an address and a port."
        ]
    problems = _module_problems("servers has", server.get("server"))
    if problems:
        return problems
    address, listener = server.get("address"), _listener(server)
    found = [
        port_problem("statsd_config: the port of one of servers", server.get("port") or 8125),
        address_problem("statsd_config: the address of one of servers", address) if address else None,
    ]
    if ":" in str(address) and not server.get("address_ipv6") and listener and listener["protocol"] == "udp":
        found.append(f"statsd_config: servers has {address} without address_ipv6, and StatsD would end. Add address_ipv6: true.")
    return [problem for problem in found if problem]


def _module_problems(subject: str, module: object) -> list[str]:
    if not module or (isinstance(module, str) and (_SERVERS.match(module) or not module.startswith("./servers/"))):
        return []
    return [f"statsd_config: {subject} {module}, which StatsD does not have; give ./servers/udp or ./servers/tcp."]


# What verify.yml sends.
_COUNT, _GAUGE, _TIMES = 42, 17.5, (100, 200, 320)


def statsd_series(config: dict, name: str) -> dict[str, str]:
    """Return one series that StatsD writes for a metric ``name`` of each kind, and one about itself (``statsd``).

    ``config`` is the role's ``statsd_config``, on top of the role's own setting ``legacyNamespace: false``. What the configuration
    switches off (``flush_counts``, ``calculatedTimerMetrics``) is left out.
    """
    names = Names(config)
    series = {
        "counter": names.count(name),
        "counter_rate": names.rate(name),
        "gauge": names.of("Gauge", name),
        "set": names.of("Set", name, "count"),
        "statsd": names.own("processing_time"),
        "timer": names.timer(name, "upper"),
        "timer_count": names.timer(name, "count"),
    }
    return {kind: metric for kind, metric in series.items() if metric}


def statsd_verification(config: dict, name: str, flush_seconds: int) -> dict:
    """Return metrics to send to StatsD, and what graphite-web is to show of them after one flush.

    ``lines`` are StatsD's, ``expected`` has for each series the ``summary`` of its points (``sum``, ``last`` or ``max``) and the
    ``value`` of the summary, and ``directories`` are those of the whisper tree that the series are in.
    """
    names = Names(config)
    counter, gauge, timer = (f"{name}.{kind}" for kind in ("counter", "gauge", "timer"))
    timer_values = {
        "count": ("sum", len(_TIMES)),
        "upper": ("max", max(_TIMES)),
        "lower": ("max", min(_TIMES)),
        "sum": ("sum", sum(_TIMES)),
        "mean": ("max", sum(_TIMES) / len(_TIMES)),
        "median": ("max", sorted(_TIMES)[len(_TIMES) // 2]),
    }
    expected = [(names.count(counter), "sum", _COUNT), (names.rate(counter), "sum", _COUNT / flush_seconds)]
    expected += [(names.of("Gauge", gauge), "last", _GAUGE)]
    # Two of those that the configuration makes are enough.
    expected += [(names.timer(timer, key), *value) for key, value in timer_values.items() if names.timer(timer, key)][:2]
    made = [series for series, _summary, _value in expected if series]
    return {
        "lines": [f"{counter}:{_COUNT}|c", f"{gauge}:{_GAUGE}|g", *(f"{timer}:{time}|ms" for time in _TIMES)],
        "expected": [{"series": series, "summary": summary, "value": value} for series, summary, value in expected if series],
        "directories": sorted({re.sub(rf"({re.escape(name)}).*", r"\1", series).replace(".", "/") for series in made}),
    }
