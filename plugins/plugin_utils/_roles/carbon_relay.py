# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""carbon-c-relay's configuration and the variables of the role carbon_relay.

Source of the format: ``conffile.l``, ``conffile.y``, ``dispatcher.c`` and carbon-c-relay(1) of carbon-c-relay 3.7 to 3.7.4. This file is
private to the collection.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.ring import CHARACTERS
from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import (
    address_problem,
    connect_address,
    count_problem,
    is_loopback,
    network_problems,
    port_problem,
)

# CONN_DESTS_SIZE of router.h.
MOST_MEMBERS = 64
MOST_STALLS = 15
# The relay takes so many from a queue at once.
SMALLEST_QUEUE = 2500
# The buffer of a text is 1024 bytes.
_LONGEST_TEXT = 1000
_HASHES = ("carbon_ch", "fnv1a_ch", "jump_fnv1a_ch")
_FUNCTIONS = r"(sum|count|max|min|average|median|variance|stddev|percentile[1-9]\d?)\Z"


def relay_command(options: dict) -> str:
    """Return the command line for ``ExecStart`` of a unit.

    The ``options`` are ``config``, ``queue_size``, ``workers``, ``backlog`` and ``stalls``, and ``authority``, which may be empty.
    """
    letters = {"config": "f", "queue_size": "q", "workers": "w", "backlog": "B", "stalls": "L"}
    words = [word for name, letter in letters.items() for word in (f"-{letter}", str(options[name]))]
    words += ["-C", str(options["authority"])] if options.get("authority") else []
    characters = re.sub(r'([\\"])', r"\\\1", CHARACTERS).replace("%", "%%").replace("$", "$$")
    return " ".join(["/usr/bin/carbon-c-relay", *words, "-c", f'"{characters}"'])


def relay_listeners(address: str, port: object, tls: Mapping | None = None) -> list[dict]:
    """Return the sockets of a relay: ``address``, ``port`` and, for TLS, the path of the ``certificate``, which is empty otherwise.

    With TLS, programs on the host itself need none.
    """
    plain = {"address": str(address), "port": int(str(port)), "certificate": ""}
    if not tls:
        return [plain]
    is_everywhere = connect_address(str(address)) != str(address)
    local = {**plain, "address": "127.0.0.1"}
    only = True if tls.get("only") is None else boolean(tls["only"], strict=False)
    kept = [plain] if is_loopback(str(address)) or (is_everywhere and not only) else [local] if only else [local, plain]
    return [*kept, {"address": str(address), "port": int(str(tls["port"])), "certificate": str(tls["certificate"])}]


def carbon_relay_problems(variables: dict) -> list[str]:
    """Return one sentence for each mistake in the role's variables, given without the prefix ``carbon_relay_``."""
    if variables.get("state") == "absent":
        return []
    names = [cluster["name"] for cluster in variables["clusters"]]
    return [
        *_name_problems(str(variables["name"])),
        *filter(
            None, [address_problem("carbon_relay_address", variables["address"]), port_problem("carbon_relay_port", variables["port"])]
        ),
        *_sender_problems(variables.get("allowed_senders") or [], variables["clusters"]),
        *_tls_problems(variables.get("tls") or {}, variables["port"], variables["clusters"]),
        *_cluster_problems(variables["clusters"], str(variables["address"]), str(variables["port"])),
        *_rewrite_problems(variables["rewrites"]),
        *_aggregation_problems(variables["aggregations"], names),
        *_route_problems(variables["routes"], names),
        *_number_problems(variables),
        *_text_problems("carbon_relay_statistics_prefix", variables["statistics_prefix"]),
    ]


def _name_problems(name: str) -> Iterator[str]:
    if not re.match(r"[A-Za-z0-9_-]+\Z", name) or name == "carbon-c-relay":
        yield (
            f"carbon_relay_name is '{name}'; use letters, digits, '_' and '-' only, and not carbon-c-relay, which is the service of the"
            " package."
        )


def _sender_problems(senders: list, clusters: list[dict]) -> Iterator[str]:
    yield from network_problems("carbon_relay_allowed_senders", senders)
    for cluster in clusters if senders else []:
        for member in cluster.get("members") or []:
            if member.get("address") and any(network_problems("", [member["address"]])) and not is_loopback(str(member["address"])):
                yield (
                    f"carbon_relay_clusters: '{cluster['name']}' has a member with the address '{member['address']}'. With"
                    " carbon_relay_allowed_senders, the relay reaches IP addresses only; give one."
                )


def _tls_problems(tls: Mapping, port: object, clusters: list[dict]) -> Iterator[str]:
    for cluster in clusters:
        for member in cluster.get("members") or []:
            if not boolean(member.get("tls") or False, strict=False):
                continue
            if not tls:
                yield (
                    f"carbon_relay_clusters: '{cluster['name']}' has a member with tls, but carbon_relay_tls is empty. Set it, with the"
                    " authority of the member."
                )
            elif member.get("protocol") == "udp":
                yield f"carbon_relay_clusters: '{cluster['name']}' has a member with tls and the protocol udp; give tcp, or leave tls out."
    if not tls:
        return
    missing = [name for name in ("port", "certificate") if tls.get(name) is None]
    if missing:
        yield f"carbon_relay_tls lacks {' and '.join(missing)}; give a port, such as 2403, and the path of a file with certificate and key."
        return
    yield from filter(None, [port_problem("carbon_relay_tls: port", tls["port"])])
    if str(tls.get("port")) == str(port):
        yield f"carbon_relay_tls: port is {port}, which is carbon_relay_port as well; give each a port of its own."
    for name in ("certificate", "authority"):
        path = tls.get(name)
        if path is not None and not re.match(r"/[^\s\"'\\]+\Z", str(path)):
            yield f"carbon_relay_tls: {name} is '{path}'; give an absolute path on the host without white space and quotes."


def _number_problems(variables: dict) -> Iterator[str]:
    for name in ("queue_size", "workers", "backlog", "statistics_interval"):
        problem = count_problem(f"carbon_relay_{name}", variables[name])
        if problem:
            yield problem
        elif name == "queue_size" and int(variables[name]) < SMALLEST_QUEUE:
            yield f"carbon_relay_queue_size is {variables[name]}; give at least {SMALLEST_QUEUE}."
    if isinstance(variables["throttle"], bool) or not re.match(r"\d+\Z", str(variables["throttle"])):
        yield f"carbon_relay_throttle is {variables['throttle']}; give a number of hosts, or 0 for all."
    if not re.match(r"\d+\Z", str(variables["stalls"])) or int(variables["stalls"]) > MOST_STALLS:
        yield f"carbon_relay_stalls is {variables['stalls']}; give a number of seconds from 0 to {MOST_STALLS}."


def _cluster_problems(clusters: list[dict], address: str, port: str) -> Iterator[str]:
    if not clusters:
        yield "carbon_relay_clusters is empty; give a cluster, or set carbon_relay_state to absent."
    for name, count in Counter(cluster["name"] for cluster in clusters).items():
        if count > 1:
            yield f"carbon_relay_clusters has {count} clusters '{name}'; give each a name of its own."
    for cluster in clusters:
        name = cluster["name"]
        if not re.match(r"[A-Za-z0-9_-]+\Z", str(name)) or name == "blackhole":
            yield f"carbon_relay_clusters: '{name}' cannot name a cluster; use letters, digits, '_' and '-', and not blackhole."
        for problem in (*_member_problems(cluster["members"], address, port), *_hash_problems(cluster)):
            yield f"carbon_relay_clusters: {problem} of cluster '{name}'."


def _member_problems(members: list[dict], address: str, port: str) -> Iterator[str]:
    if not 0 < len(members) <= MOST_MEMBERS:
        yield f"{len(members)} is the number of members; the relay takes 1 to {MOST_MEMBERS}. Correct the list"
    for member in members:
        target = f"{member['address']}:{member.get('port', 2003)}"
        if not re.match(r"[\w.:%-]+\Z", str(member["address"])):
            yield f"'{member['address']}' is no address and no name of a host. Correct the address of a member"
        if port_problem("", member.get("port", 2003)):
            yield f"'{member['port']}' is no port. Give a number from 1 to 65535 as the port of a member"
        if not re.match(r"[A-Za-z0-9_.-]+\Z", str(member.get("instance", "a"))):
            yield f"'{member['instance']}' is no instance. Use letters, digits, '_', '.' and '-' for the instance of a member"
        if str(member.get("port", 2003)) == port and _is_own(str(member["address"]), address):
            yield f"{target} is where this relay itself listens, so that points would go round for ever. Correct a member"
    targets = Counter((member["address"], str(member.get("port", 2003)), member.get("protocol", "tcp")) for member in members)
    for (host, number, _protocol), count in targets.items():
        if count > 1:
            yield f"{host}:{number} is there {count} times. Remove a member"
    for instance, count in Counter(member["instance"] for member in members if member.get("instance") is not None).items():
        if count > 1:
            yield f"The instance '{instance}' is there {count} times. Correct a member"


def _is_own(member: str, address: str) -> bool:
    return member == connect_address(address) or (connect_address(address) != address and is_loopback(member))


def _hash_problems(cluster: dict) -> Iterator[str]:
    members, kind, replication = cluster["members"], cluster["type"], cluster.get("replication", 1)
    if kind not in _HASHES and (str(replication) != "1" or cluster.get("dynamic")):
        yield f"replication and dynamic belong to {', '.join(_HASHES)}, and not to {kind}. Correct the type"
    elif not 1 <= int(replication) <= max(1, len(members)):
        yield f"{replication} copies need as many members, of which there are {len(members)}. Correct the replication"
    named = [member for member in members if member.get("instance") is not None]
    if kind in _HASHES and named and len(named) < len(members):
        yield "Some members have an instance and others have none. Give one to each member"


def _rewrite_problems(rewrites: list[dict]) -> Iterator[str]:
    for rewrite in rewrites:
        yield from _expression_problems("carbon_relay_rewrites", [rewrite["match"]])
        yield from _text_problems("carbon_relay_rewrites: into", rewrite["into"])


def _aggregation_problems(aggregations: list[dict], clusters: list[str]) -> Iterator[str]:
    for aggregation in aggregations:
        yield from _expression_problems("carbon_relay_aggregations", aggregation["match"])
        yield from _unknown_clusters("carbon_relay_aggregations", aggregation.get("send_to") or [], clusters)
        interval, expiry = aggregation["interval"], aggregation["expiry"]
        if not 0 < int(interval) < int(expiry):
            yield (
                f"carbon_relay_aggregations: interval is {interval} and expiry {expiry}; give an interval of at least 1 s, and a longer"
                " expiry."
            )
        if not aggregation["compute"]:
            yield "carbon_relay_aggregations: compute is empty; name at least one series to compute."
        for computed in aggregation["compute"]:
            if not re.match(_FUNCTIONS, str(computed["function"])):
                yield (
                    f"carbon_relay_aggregations: '{computed['function']}' is no function; give sum, count, max, min, average, median,"
                    " variance, stddev, or percentile and a number, such as percentile95."
                )
            yield from _text_problems("carbon_relay_aggregations: write_to", computed["write_to"])


def _route_problems(routes: list[dict], clusters: list[str]) -> Iterator[str]:
    taken = False
    catches_all = False
    for route in routes:
        named = " ".join(map(str, route["match"]))
        if taken:
            yield f"carbon_relay_routes: the route '{named}' gets no point, because one before it takes all. Put the route before that one."
        yield from _expression_problems("carbon_relay_routes", [text for text in route["match"] if text != "*"])
        yield from _unknown_clusters("carbon_relay_routes", route["send_to"], [*clusters, "blackhole"])
        if not route["send_to"]:
            yield f"carbon_relay_routes: send_to of the route '{named}' is empty; name a cluster, or blackhole to drop the points."
        if "blackhole" in route["send_to"] and len(route["send_to"]) > 1:
            yield f"carbon_relay_routes: the route '{named}' sends to a cluster and to blackhole; name only one of them."
        catches_all = catches_all or "*" in route["match"]
        taken = taken or ("*" in route["match"] and (bool(route.get("stop")) or "blackhole" in route["send_to"]))
    if not catches_all:
        yield (
            "carbon_relay_routes has no route that matches every point, and the others would be lost. Add {match: ['*'],"
            " send_to: [CLUSTER], stop: true} at the end, or blackhole as the cluster if they are to be dropped."
        )


def _unknown_clusters(variable: str, names: Iterable[str], clusters: list[str]) -> Iterator[str]:
    # Without clusters, that alone is told.
    for name in names if set(clusters) - {"blackhole"} else []:
        if name not in clusters:
            yield f"{variable} sends to '{name}', which carbon_relay_clusters does not have; it has {', '.join(map(str, clusters))}."


def _expression_problems(variable: str, expressions: list[str]) -> Iterator[str]:
    if not expressions and variable != "carbon_relay_routes":
        yield f"{variable}: match is empty; give at least one expression."
    for expression in expressions:
        yield from _text_problems(f"{variable}: match", expression)
        try:
            re.compile(str(expression))
            reason = "POSIX knows no (?...) and no \\d; write [0-9], for example" if re.search(r"\(\?|\\[dD]", str(expression)) else ""
        except re.error as error:
            reason = str(error)
        if reason:
            yield f"{variable}: '{expression}' is no POSIX extended regular expression: {reason}."


def _text_problems(name: str, text: object) -> Iterator[str]:
    if not re.match(r"[^\n\r\t ]+\Z", str(text)) or len(str(text).encode()) > _LONGEST_TEXT:
        yield f"{name} is '{text}'; give a text without spaces of at most {_LONGEST_TEXT} bytes."
