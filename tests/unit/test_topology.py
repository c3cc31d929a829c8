# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""An inventory goes in, one dict per host comes out: who has what, and who talks to whom."""

from __future__ import annotations

import pytest
from ansible_collections.metricstack.graphite.plugins.filter.stack import _defaults
from ansible_collections.metricstack.graphite.plugins.plugin_utils._topology import (
    COMPONENTS,
    HostView,
    Inventory,
    RefusedValueError,
    TopologyError,
    carbonlink_hosts,
    hosts_of,
)


def inventory(groups: dict, **variables: dict) -> Inventory:
    everybody = list(dict.fromkeys(host for hosts in groups.values() for host in hosts))
    return Inventory({"all": everybody, **groups}, lambda host: variables.get(host, {}), _defaults())


def topology(host: str, groups: dict, **variables: dict) -> dict:
    return HostView(inventory(groups, **variables), host).topology()


def problems(host: str, groups: dict, **variables: dict) -> list[str]:
    return HostView(inventory(groups, **variables), host).problems()


SPLIT = {"carbon": ["c1"], "statsd": ["s1"], "graphite_web": ["c1"]}
OPEN = {"c1": {"carbon_cache_bind_address": "10.0.0.5"}}


@pytest.mark.parametrize("groups", [{"all": ["one"]}, {name: ["one"] for name in COMPONENTS}], ids=["without groups", "in every group"])
def test_one_host_talks_to_itself_over_loopback(groups):
    one = topology("one", groups)
    assert one["components"] == ["go_runtime_metrics", "statsd", "carbon_relay", "carbon", "memcached", "graphite_web"]
    assert one["sends_to"]["go_runtime_metrics"] == {"component": "statsd", "host": "one", "address": "127.0.0.1", "port": 8125}
    assert one["sends_to"]["statsd"] == {"component": "carbon_relay", "host": "one", "address": "127.0.0.1", "port": 2003}
    assert one["sends_to"]["carbon_relay"] == {"component": "carbon", "host": "one", "address": "127.0.0.1", "port": 2103}
    assert one["web"]["carbonlink_hosts"] == ["127.0.0.1:7002:a"]
    assert one["web"]["whisper_directory"] == "/var/lib/graphite/whisper"
    assert one["web"]["local_url"] == "http://127.0.0.1:80"
    assert {(socket["protocol"], socket["port"]) for socket in one["listens"]} == {
        ("udp", 8125),
        ("tcp", 8126),
        ("tcp", 2003),
        ("tcp", 2103),
        ("tcp", 7002),
        ("tcp", 11211),
        ("tcp", 80),
    }
    assert one["web"]["memcached_hosts"] == ["127.0.0.1:11211"]
    assert problems("one", groups) == []


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, 5),
        ({"statsd_flush_interval": 1000}, 0.5),
        ({"statsd_flush_interval": "15000"}, 7.5),
        ({"statsd_flush_interval": 1000, "go_runtime_metrics_interval": 1}, 1),
    ],
)
def test_go_servers_report_twice_in_a_flush(variables, seconds):
    assert topology("one", {"all": ["one"]}, one=variables)["go_runtime_metrics"]["interval"] == seconds
    # That of the host that they report to.
    groups = {"statsd": ["s1"], "go_runtime_metrics": ["g1"]}
    interval = topology("g1", groups, s1=variables, g1=variables)["go_runtime_metrics"]["interval"]
    assert (interval, type(interval)) == (seconds, type(seconds))


def test_the_statsd_of_go_servers_is_the_one_that_they_name():
    groups = {"statsd": ["s1", "s2"], "go_runtime_metrics": ["g1"]}
    second = {"statsd_address": "10.0.0.7", "statsd_flush_interval": 1000, "statsd_config": {"graphite": {"globalSuffix": "s2"}}}
    one = topology("g1", groups, s2=second, g1={"go_runtime_metrics_statsd_host": "10.0.0.7"})
    assert (one["statsd"]["host"], one["statsd"]["flush_seconds"]) == ("s1", 10)
    found = one["go_runtime_metrics"]["statsd"]
    assert (found["host"], found["flush_seconds"], found["config"]) == ("s2", 1, second["statsd_config"])


def test_a_host_has_the_components_of_its_groups_only():
    assert topology("s1", SPLIT)["components"] == ["statsd"]
    assert topology("c1", SPLIT)["components"] == ["carbon_relay", "carbon", "graphite_web"]
    assert topology("other", {**SPLIT, "all": ["c1", "s1", "other"]})["components"] == []


@pytest.mark.parametrize(
    ("bind", "alias", "address"),
    [
        ("10.0.0.5", {}, "10.0.0.5"),
        ("2001:db8::5", {}, "2001:db8::5"),
        ("0.0.0.0", {}, "c1"),
        ("::", {}, "c1"),
        ("0.0.0.0", {"ansible_host": "192.0.2.7"}, "192.0.2.7"),
    ],
)
def test_statsd_reaches_carbon_on_another_host(bind, alias, address):
    variables = {"c1": {"carbon_cache_bind_address": bind, **alias}}
    assert topology("s1", SPLIT, **variables)["sends_to"]["statsd"] == {
        "component": "carbon_relay",
        "host": "c1",
        "address": address,
        "port": 2003,
    }
    assert problems("s1", SPLIT, **variables) == []


@pytest.mark.parametrize(("bind", "address", "link"), [("0.0.0.0", "127.0.0.1", "127.0.0.1"), ("::", "::1", "[::1]")])
def test_a_wildcard_is_reached_over_loopback_from_its_own_host(bind, address, link):
    variables = {"carbon_cache_bind_address": bind, "statsd_address": bind, "statsd_management_address": bind}
    one = topology("one", {"all": ["one"]}, one=variables)
    assert one["sends_to"]["statsd"]["address"] == address
    assert one["sends_to"]["go_runtime_metrics"]["address"] == address
    assert (one["statsd"]["address"], one["statsd"]["management_address"]) == (address, address)
    assert one["web"]["carbonlink_hosts"] == [f"{link}:7002:a"]


def test_several_carbon_hosts_each_serve_themselves_and_the_first_serves_the_rest():
    groups = {"carbon": ["c1", "c2"], "graphite_web": ["c1", "c2"], "statsd": ["c2", "s1"]}
    variables = {
        "c1": {"carbon_cache_bind_address": "10.0.0.1"},
        "c2": {
            "carbon_cache_bind_address": "10.0.0.2",
            "carbon_relay_port": 3,
            "carbon_cache_instances": [{"name": "x", "line_receiver_port": 5, "cache_query_port": 4}],
        },
    }
    assert topology("c2", groups, **variables)["sends_to"]["statsd"]["host"] == "c2"
    assert topology("c2", groups, **variables)["sends_to"]["statsd"]["port"] == 3
    assert topology("c2", groups, **variables)["sends_to"]["carbon_relay"]["port"] == 5
    assert topology("s1", groups, **variables)["sends_to"]["statsd"]["address"] == "10.0.0.1"
    assert topology("c2", groups, **variables)["web"]["carbonlink_hosts"] == ["10.0.0.2:4:x"]
    # What a host that only sends is told about the web front is what that front does.
    assert topology("s1", groups, **variables)["web"] == topology("c1", groups, **variables)["web"]


def test_the_inventory_wins_over_what_follows_from_the_topology():
    variables = {
        "one": {
            "statsd_graphite_host": "relay.example.org",
            "statsd_graphite_port": 12003,
            "graphite_web_carbonlink_hosts": ["192.0.2.1:7002:z"],
            "graphite_web_whisper_directory": "/data",
            "go_runtime_metrics_statsd_host": "192.0.2.9",
        }
    }
    one = topology("one", {"all": ["one"]}, **variables)
    assert (one["sends_to"]["statsd"]["address"], one["sends_to"]["statsd"]["port"]) == ("relay.example.org", 12003)
    assert one["sends_to"]["go_runtime_metrics"]["address"] == "192.0.2.9"
    assert (one["web"]["carbonlink_hosts"], one["web"]["whisper_directory"]) == (["192.0.2.1:7002:z"], "/data")


def test_localhost_means_where_carbon_listens():
    # Node.js 18 and later would ask ::1 first.
    assert topology("one", {"all": ["one"]}, one={"statsd_graphite_host": "localhost"})["sends_to"]["statsd"]["address"] == "127.0.0.1"


def test_sites_of_apache_share_a_port_and_other_components_do_not():
    site = {
        "name": "other",
        "wsgi_script": "/other.wsgi",
        "user": "other",
        "group": "other",
        "server_name": "other.example.org",
        "port": 80,
    }
    assert problems("one", {"all": ["one"]}, one={"apache_wsgi_sites": [site]}) == []
    (problem,) = problems("one", {"all": ["one"]}, one={"graphite_web_port": 2003, "apache_wsgi_sites": [{**site, "port": 2003}]})
    assert "graphite_web_port" in problem
    assert "carbon_relay_port" in problem
    assert "TCP port 2003" in problem


def test_a_host_that_a_limit_leaves_out_is_still_known():
    # --limit takes hosts out of a play, never out of the inventory's groups.
    assert topology("s1", SPLIT, **OPEN)["sends_to"]["statsd"]["address"] == "10.0.0.5"


GO_RULE = {"name": "go", "pattern": r"^stats\.gauges\.go\.", "retentions": "1s:1h"}
PAUSE_RULE = {"name": "pauses", "pattern": r"^stats\.timers\.prod-.*\.upper$", "retentions": "1s:1h"}
ANY_RULE = {"name": "rest", "pattern": ".*", "retentions": "10s:6h"}
PROBLEMS = {
    "carbon on loopback of another host": (
        ("s1", SPLIT, {}),
        ["statsd on s1", "carbon_relay is on c1", "carbon_cache_bind_address of c1"],
    ),
    "StatsD on loopback of another host": (
        ("g1", {**SPLIT, "go_runtime_metrics": ["g1"]}, OPEN),
        ["go_runtime_metrics on g1", "statsd is on s1", "statsd_address of s1"],
    ),
    "a receiver that is to be removed": (
        ("s1", SPLIT, {"c1": {"carbon_cache_bind_address": "10.0.0.5", "carbon_cache_state": "absent"}}),
        ["carbon_cache_state", "absent", "c1"],
    ),
    "a web front without data": (
        ("w1", {"carbon": ["c1"], "graphite_web": ["w1"]}, OPEN),
        ["w1", "carbon is on c1", "graphite_web_whisper_directory", "CLUSTER_SERVERS"],
    ),
    "two StatsD and one carbon": (
        ("s2", {**SPLIT, "statsd": ["s1", "s2"]}, OPEN),
        ["s1", "s2", "stats.counters.requests.count", "globalSuffix"],
    ),
    "a port of two components": (
        ("one", {"all": ["one"]}, {"one": {"graphite_web_port": 2003}}),
        ["graphite_web_port", "carbon_relay_port", "TCP port 2003"],
    ),
    "a pickle receiver on a port that is taken": (
        ("one", {"all": ["one"]}, {"one": {"carbon_cache_settings": {"PICKLE_RECEIVER_PORT": 80}}}),
        ["carbon_cache_settings", "graphite_web_port", "80"],
    ),
    "a protobuf receiver on a port that is taken": (
        ("one", {"all": ["one"]}, {"one": {"carbon_cache_settings": {"PROTOBUF_RECEIVER_PORT": "80"}}}),
        ["carbon_cache_settings", "graphite_web_port", "80"],
    ),
    "a UDP receiver on StatsD's port": (
        ("one", {"all": ["one"]}, {"one": {"carbon_cache_settings": {"ENABLE_UDP_LISTENER": "true", "UDP_RECEIVER_PORT": 8125}}}),
        ["carbon_cache_settings", "statsd_port", "UDP port 8125"],
    ),
    "a flush interval that is not the finest retention": (
        ("one", {"all": ["one"]}, {"one": {"statsd_flush_interval": 60000}}),
        ["statsd_flush_interval is 60000", "stats", "10000"],
    ),
    "a legacy namespace that no rule keeps at the flush interval": (
        ("one", {"all": ["one"]}, {"one": {"statsd_config": {"graphite": {"legacyNamespace": True}}}}),
        ["statsd_flush_interval", "stats_counts.requests", "60 s"],
    ),
    "a rule for Go servers that is finer than the flush interval": (
        ("one.example", {"all": ["one.example"]}, {"one.example": {"carbon_cache_storage_schemas": [GO_RULE, ANY_RULE]}}),
        ["statsd_flush_interval is 10000", "stats.gauges.go.one_example-go1-24.mem.gc.pause", "'go'", "every 1 s"],
    ),
    "a rule for the pauses of Go servers on another host": (
        (
            "one",
            {name: ["one"] for name in COMPONENTS} | {"go_runtime_metrics": ["g1"]},
            {
                "one": {"statsd_address": "10.0.0.5", "carbon_cache_storage_schemas": [PAUSE_RULE, ANY_RULE]},
                "g1": {"go_runtime_metrics_prefix": "prod", "go_runtime_metrics_instances": [{"version": "1.26", "port": 8000}]},
            },
        ),
        ["statsd_flush_interval is 10000", "stats.timers.prod-go1-26.mem.gc.pause.upper", "'pauses'", "every 1 s"],
    ),
    "Go servers that report once in several flushes": (
        ("one", {name: ["one"] for name in COMPONENTS}, {"one": {"go_runtime_metrics_interval": 30}}),
        ["go_runtime_metrics_interval is 30 s", "every 10 s", "5 s"],
    ),
}


@pytest.mark.parametrize(("case", "named"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_a_contradiction_is_named(case, named):
    host, groups, variables = case
    found = problems(host, groups, **variables)
    assert len(found) == 1, found
    assert [word for word in named if word not in found[0]] == [], found


@pytest.mark.parametrize("instances", [None, "abc", [1], [{"port": 8000}]])
def test_instances_of_go_servers_that_are_wrong_hide_no_other_problem(instances):
    variables = {"go_runtime_metrics_instances": instances, "statsd_flush_interval": 60000}
    (problem,) = problems("one", {"all": ["one"]}, one=variables)
    assert "statsd_flush_interval is 60000" in problem


def test_only_the_statsd_that_go_servers_report_to_is_compared_with_their_rule():
    groups = {"carbon": ["c1"], "statsd": ["s1", "s2"], "go_runtime_metrics": ["g1"]}
    rules = [GO_RULE, {"name": "fast", "pattern": r"^fast\.", "retentions": "1s:1h"}, ANY_RULE]
    hosts = {
        "c1": {"carbon_cache_bind_address": "10.0.0.5", "carbon_cache_storage_schemas": rules},
        "s1": {"statsd_address": "10.0.0.6", "statsd_flush_interval": 1000, "statsd_config": {"graphite": {"globalPrefix": "fast"}}},
    }
    assert [problems(host, groups, **hosts) for host in ("s1", "s2")] == [[], []]
    (problem,) = problems("s2", groups, **hosts, s2={"statsd_address": "10.0.0.7"}, g1={"go_runtime_metrics_statsd_host": "s2"})
    assert "'go', keeps one point every 1 s" in problem


@pytest.mark.parametrize(
    ("name", "removed"),
    [
        ("carbon on loopback of another host", {"s1": "statsd"}),
        ("a web front without data", {"w1": "graphite_web"}),
        ("a web front without data", {"c1": "carbon_cache"}),
        ("two StatsD and one carbon", {"s1": "statsd"}),
        ("two StatsD and one carbon", {"s2": "statsd"}),
        ("a port of two components", {"one": "graphite_web"}),
        ("a port of two components", {"one": "apache_wsgi"}),
        ("a UDP receiver on StatsD's port", {"one": "statsd"}),
        ("a flush interval that is not the finest retention", {"one": "statsd"}),
        ("a rule for Go servers that is finer than the flush interval", {"one.example": "go_runtime_metrics"}),
        ("Go servers that report once in several flushes", {"one": "go_runtime_metrics"}),
    ],
)
def test_a_component_that_is_to_be_removed_contradicts_nothing(name, removed):
    (host, groups, variables), _named = PROBLEMS[name]
    states = {other: {f"{role}_state": "absent"} for other, role in removed.items()}
    everything = {other: {**variables.get(other, {}), **states.get(other, {})} for other in {*variables, *states}}
    assert problems(host, groups, **everything) == []


def test_only_the_missing_receiver_is_named_where_carbon_is_to_be_removed():
    variables = {"carbon_cache_state": "absent", "statsd_flush_interval": 60000, "graphite_web_port": 2003}
    (problem,) = problems("one", {"all": ["one"]}, one=variables)
    assert "sends to carbon on one, where carbon_cache_state is absent" in problem


def test_two_statsd_whose_series_differ_share_a_carbon():
    groups = {**SPLIT, "statsd": ["s1", "s2"]}
    suffixes = {host: {"statsd_config": {"graphite": {"globalSuffix": host}}} for host in ("s1", "s2")}
    assert problems("s2", groups, **OPEN, **suffixes) == []
    # Each with a carbon of its own, they need no other names.
    alone = {host: {"carbon_replicas": 0} for host in ("c1", "c2")}
    assert problems("c1", {name: ["c1", "c2"] for name in ("carbon", "statsd", "graphite_web")}, **alone) == []


def test_a_relay_on_a_host_of_its_own_takes_what_is_sent_and_sends_to_the_caches():
    groups = {**SPLIT, "carbon_relay": ["r1"]}
    variables = {"s1": {}, "r1": {"carbon_relay_address": "10.0.0.9"}, "c1": {**OPEN["c1"], "carbon_cache_instances": 2}}
    stack = topology("s1", groups, **variables)
    assert stack["sends_to"]["statsd"] == {"component": "carbon_relay", "host": "r1", "address": "10.0.0.9", "port": 2003}
    assert topology("r1", groups, **variables)["relay"]["clusters"][0]["members"] == [
        {"address": "10.0.0.5", "port": 2003, "instance": "a"},
        {"address": "10.0.0.5", "port": 2103, "instance": "b"},
    ]
    assert [problems(host, groups, **variables) for host in ("s1", "r1", "c1")] == [[], [], []]
    (problem,) = problems("r1", groups, r1=variables["r1"])
    assert "carbon_relay on r1 would send to itself, but carbon is on c1" in problem
    assert "carbon_cache_bind_address of c1" in problem
    # With clusters of its own, it sends where they say.
    assert problems("r1", groups, r1={**variables["r1"], "carbon_relay_clusters": []}) == []


LISTED = [{"name": "x", "line_receiver_port": 2013, "cache_query_port": 7012}]
IN_FRONT = [{**LISTED[0], "line_receiver_port": 2003}]


@pytest.mark.parametrize(
    ("variables", "state", "relay", "carbon", "sends_to"),
    [
        ({}, "present", "127.0.0.1:2003", "127.0.0.1:2103", "carbon_relay"),
        # Where carbon listened, the relay does.
        ({"carbon_cache_bind_address": "10.0.0.5"}, "present", "10.0.0.5:2003", "127.0.0.1:2103", "carbon_relay"),
        ({"carbon_relay_address": "10.0.0.6"}, "present", "10.0.0.6:2003", "127.0.0.1:2103", "carbon_relay"),
        ({"carbon_relay_port": 2013}, "present", "127.0.0.1:2013", "127.0.0.1:2103", "carbon_relay"),
        # Senders may use the ports that the inventory lists.
        (
            {"carbon_cache_bind_address": "10.0.0.5", "carbon_cache_instances": LISTED},
            "present",
            "10.0.0.5:2003",
            "10.0.0.5:2013",
            "carbon_relay",
        ),
        (
            {"carbon_cache_instances": LISTED, "carbon_cache_line_receiver_address": "10.0.0.7"},
            "present",
            "127.0.0.1:2003",
            "10.0.0.7:2013",
            "carbon_relay",
        ),
        # An inventory from the time when carbon itself had the port.
        ({"carbon_cache_instances": IN_FRONT}, "absent", "127.0.0.1:2003", "127.0.0.1:2003", "carbon"),
        ({"carbon_cache_instances": IN_FRONT, "carbon_relay_port": 2103}, "present", "127.0.0.1:2103", "127.0.0.1:2003", "carbon_relay"),
        ({"carbon_relay_state": "absent"}, "absent", "127.0.0.1:2003", "127.0.0.1:2003", "carbon"),
        (
            {"carbon_relay_state": "absent", "carbon_cache_bind_address": "10.0.0.5"},
            "absent",
            "10.0.0.5:2003",
            "10.0.0.5:2003",
            "carbon",
        ),
    ],
)
def test_the_relay_is_in_front_of_carbon_unless_the_inventory_has_something_else_there(variables, state, relay, carbon, sends_to):
    one = topology("one", {"all": ["one"]}, one=variables)
    assert one["relay"]["state"] == state
    assert f"{one['relay']['address']}:{one['relay']['port']}" == relay
    assert f"{one['carbon']['line_receiver_address']}:{one['carbon']['instances'][0]['line_receiver_port']}" == carbon
    target = relay if sends_to == "carbon_relay" else carbon
    found = one["sends_to"]["statsd"]
    assert (found["component"], f"{found['address']}:{found['port']}") == (sends_to, target)
    lines = {f"{socket['address']}:{socket['port']}" for socket in one["listens"] if socket["component"] in ("carbon", "carbon_relay")}
    assert carbon in lines
    assert (relay in lines) == (relay == carbon or state == "present")
    assert ("carbon_relay" in one["active"]) == (state == "present")
    assert problems("one", {"all": ["one"]}, one=variables) == []


@pytest.mark.parametrize("variables", [{"carbon_relay_state": "present", "carbon_cache_instances": IN_FRONT}, {"carbon_relay_port": 2103}])
def test_a_relay_and_a_cache_on_one_port_are_refused(variables):
    (problem,) = problems("one", {"all": ["one"]}, one=variables)
    port = variables.get("carbon_relay_port", 2003)
    assert problem == f"carbon_relay_port and carbon_cache_instances use TCP port {port} on the same host; change one of them."


def test_an_inventory_with_the_group_wants_the_relay():
    (problem,) = problems("one", {name: ["one"] for name in COMPONENTS}, one={"carbon_cache_instances": IN_FRONT})
    assert "carbon_relay_port and carbon_cache_instances use TCP port 2003" in problem


def test_the_relay_goes_with_carbon():
    variables = {"carbon_cache_state": "absent", "statsd_state": "absent"}
    assert topology("one", {"all": ["one"]}, one=variables)["relay"]["state"] == "absent"
    assert problems("one", {"all": ["one"]}, one=variables) == []
    (problem,) = problems("one", {"all": ["one"]}, one={**variables, "carbon_relay_state": "present"})
    assert "carbon_relay on one sends to carbon on one, where carbon_cache_state is absent" in problem


def test_statsd_sends_to_the_carbon_of_a_host_without_a_relay():
    groups = {"carbon": ["c1", "c2"], "statsd": ["s1"], "graphite_web": ["c1"]}
    variables = {f"c{number}": {"carbon_cache_bind_address": f"10.0.0.{number}"} for number in (1, 2)}
    variables["c2"]["carbon_relay_state"] = "absent"
    assert topology("s1", groups, **variables)["sends_to"]["statsd"]["component"] == "carbon_relay"
    named = topology("s1", groups, s1={"statsd_graphite_host": "10.0.0.2"}, **variables)["sends_to"]["statsd"]
    assert named == {"component": "carbon", "host": "c2", "address": "10.0.0.2", "port": 2003}
    variables["c1"]["carbon_relay_state"] = "absent"
    assert topology("s1", groups, **variables)["sends_to"]["statsd"] == {**named, "host": "c1", "address": "10.0.0.1"}


@pytest.mark.parametrize(("instances", "facts"), [(3, {}), ("3", {}), ("auto", {"ansible_facts": {"processor_nproc": 3}})])
def test_relay_and_graphite_web_ask_the_same_instances_in_the_same_order(instances, facts):
    one = topology("one", {"all": ["one"]}, one={"carbon_cache_instances": instances, **facts})
    assert (
        one["web"]["carbonlink_hosts"] == one["carbon"]["carbonlink_hosts"] == ["127.0.0.1:7002:a", "127.0.0.1:7102:b", "127.0.0.1:7202:c"]
    )
    (cluster,) = one["relay"]["clusters"]
    assert cluster["type"] == one["web"]["carbonlink_hashing_type"] == "fnv1a_ch"
    assert [(member["port"], member["instance"]) for member in cluster["members"]] == [(2103, "a"), (2203, "b"), (2303, "c")]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"carbon_relay_state": "absent"}, "carbon_ch"),
        ({"graphite_web_carbonlink_hosts": ["192.0.2.1:7002:z"]}, "carbon_ch"),
        ({"carbon_relay_state": "absent", "graphite_web_carbonlink_hashing_type": "fnv1a_ch"}, "fnv1a_ch"),
    ],
)
def test_behind_another_relay_the_hash_is_that_of_graphite_web(variables, expected):
    assert topology("one", {"all": ["one"]}, one=variables)["web"]["carbonlink_hashing_type"] == expected


def test_a_number_of_processors_that_is_not_known_is_asked_for_only_where_it_matters():
    groups = {**SPLIT, "all": ["c1", "s1"]}
    variables = {"c1": {**OPEN["c1"], "carbon_cache_instances": "auto"}}
    assert topology("s1", groups, **variables)["sends_to"]["statsd"]["port"] == 2003
    assert [problems(host, groups, **variables) for host in ("c1", "s1")] == [[], []]
    with pytest.raises(RefusedValueError, match="carbon_cache_instances of c1 is auto, and the number of processors of c1 is not known"):
        topology("c1", groups, **variables)


def test_the_relay_reports_under_the_prefix_of_carbon():
    assert topology("one", {"all": ["one"]})["relay"]["statistics_prefix"] == r"carbon.relays.\.1"
    settings = {"carbon_cache_settings": {"CARBON_METRIC_PREFIX": "load"}}
    assert topology("one", {"all": ["one"]}, one=settings)["relay"]["statistics_prefix"] == r"load.relays.\.1"


def test_hosts_of_components_are_in_the_order_of_the_inventory():
    groups = {"all": ["a", "b", "c"], "carbon": ["c"], "statsd": ["b"], "web": ["a"]}
    assert hosts_of(groups, "statsd", "carbon") == ["b", "c"]
    assert hosts_of(groups, "graphite_web") == []
    assert hosts_of({**groups, "go_runtime_metrics": ["a"]}) == ["b", "c"]
    assert hosts_of({"all": ["one"], "web": ["one"]}, "statsd") == ["one"]
    # Go servers stand beside a stack; their group alone does not say where the stack goes.
    assert hosts_of({"all": ["one"], "go_runtime_metrics": ["one"]}) == ["one"]
    assert topology("one", {"all": ["one"], "go_runtime_metrics": ["one"]})["components"] == list(COMPONENTS)
    # A group of this name may be that of another application.
    assert hosts_of({"all": ["one", "two"], "memcached": ["two"], "carbon": ["one"]}) == ["one", "two"]
    assert hosts_of({"all": ["one"], "memcached": ["one"]}) == ["one"]
    assert topology("one", {"all": ["one"], "memcached": ["one"]})["components"] == list(COMPONENTS)
    with pytest.raises(TopologyError):
        hosts_of({"all": ["one", "two"], "memcached": ["two"]}, "memcached")


def test_a_component_that_is_to_be_removed_is_not_active():
    variables = {"one": {"statsd_state": "absent", "apache_wsgi_state": "absent"}}
    one = topology("one", {"all": ["one"]}, **variables)
    assert (one["components"], one["active"]) == (list(COMPONENTS), ["go_runtime_metrics", "carbon_relay", "carbon", "memcached"])
    assert problems("one", {"all": ["one"]}, **variables) == []


@pytest.mark.parametrize(
    ("host", "variables", "name"),
    [
        ("web1.example.org", {}, "web1.example.org"),
        ("web_1", {}, "127.0.0.1"),
        ("web_1", {"ansible_host": "192.0.2.7"}, "192.0.2.7"),
        ("web_1", {"ansible_host": "2001:db8::7"}, "[2001:db8::7]"),
        ("web_1", {"graphite_web_server_name": "graphs.example.org"}, "graphs.example.org"),
    ],
)
def test_graphite_web_is_asked_by_a_name_that_django_answers(host, variables, name):
    assert topology(host, {"all": [host]}, **{host: variables})["web"]["public_name"] == name


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, True),
        ({"server": "./servers/tcp"}, False),
        ({"servers": [{"server": "./servers/tcp"}]}, False),
        ({"servers": [{"server": "./servers/tcp"}, {"server": "./servers/udp"}]}, True),
    ],
)
def test_statsd_without_udp_is_known(config, expected):
    assert topology("one", {"all": ["one"]}, one={"statsd_config": config})["statsd"]["receives_udp"] is expected


def test_a_server_of_statsd_does_not_listen_where_carbon_does():
    servers = [{"address": "127.0.0.1"}, {"server": "./servers/tcp", "address": "127.0.0.1", "port": 2003}]
    (problem,) = problems("one", {"all": ["one"]}, one={"statsd_config": {"servers": servers}})
    assert problem == "carbon_relay_port and statsd_config: servers use TCP port 2003 on the same host; change one of them."


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ({"all": ["a", "b"]}, ["2 hosts", "go_runtime_metrics, statsd, carbon_relay, carbon, memcached, graphite_web", "-i a,"]),
        ({"all": ["a", "b"], "web": ["a"], "db": ["b"]}, ["2 hosts", "No host was contacted"]),
        ({"all": ["a", "b", "c"], "web": ["a"], "db": ["b"], "graphite-web": ["c"]}, ["'graphite-web'", "'graphite_web'"]),
        ({"all": ["a", "b"], "carbon": ["a"], "statsd": ["a"], "graphite-web": ["b"]}, ["'graphite-web'", "'graphite_web'"]),
        ({"all": ["a", "b"], "Carbon": ["a", "b"]}, ["'Carbon'", "'carbon'"]),
        ({"all": ["a"], "carbons": ["a"]}, ["'carbons'", "'carbon'"]),
    ],
)
def test_hosts_without_a_group_are_refused(groups, named):
    with pytest.raises(TopologyError) as refusal:
        hosts_of(groups, "carbon")
    assert [word for word in named if word not in str(refusal.value)] == []


def test_carbonlink_keeps_the_order_of_the_instances():
    instances = [{"name": "b", "cache_query_port": 7102}, {"name": "a", "cache_query_port": 7002}]
    assert carbonlink_hosts(instances) == ["127.0.0.1:7102:b", "127.0.0.1:7002:a"]
    assert carbonlink_hosts(instances, "::1") == ["[::1]:7102:b", "[::1]:7002:a"]


def test_rules_follow_from_statsd_also_with_a_relay_between():
    variables = {
        "s1": {"statsd_config": {"prefixStats": "own", "graphite": {"globalPrefix": "shop"}}},
        "r1": {"carbon_relay_address": "10.0.0.7"},
    }
    split = {"statsd": ["s1"], "carbon_relay": ["r1"], "carbon": ["c1"], "graphite_web": ["c1"]}
    assert topology("s1", split, **variables)["sends_to"]["statsd"]["host"] == "r1"
    rules = topology("c1", split, **variables)["carbon"]["storage_aggregations"]
    assert any(rule["pattern"].startswith(r"^shop\.gauges\.") for rule in rules)


@pytest.mark.parametrize(("relay", "component", "port"), [({}, "carbon_relay", 2004), ({"carbon_relay_state": "absent"}, "carbon", 2013)])
def test_the_port_is_that_of_the_host_that_statsd_names(relay, component, port):
    split = {"statsd": ["s1"], "carbon": ["c1", "c2"], "graphite_web": ["c1"]}
    second = {"carbon_cache_bind_address": "10.0.0.6", "carbon_cache_instances": LISTED, "carbon_relay_port": 2004, **relay}
    target = topology("s1", split, s1={"statsd_graphite_host": "10.0.0.6"}, c2=second, **OPEN)["sends_to"]["statsd"]
    assert target == {"component": component, "host": "c2", "address": "10.0.0.6", "port": port}


def test_a_carbon_knows_the_series_in_which_each_statsd_reports_about_itself():
    split = {"statsd": ["s1", "s2", "s3"], "carbon": ["c1", "c2"], "graphite_web": ["c1"]}
    variables = {
        "s1": {"statsd_flush_interval": 60000, "statsd_config": {"graphite": {"globalSuffix": "s1"}}},
        "s2": {"statsd_config": {"prefixStats": "own", "flush_counts": False, "graphite": {"legacyNamespace": True}}},
        "s3": {"statsd_graphite_host": "10.0.0.6"},
        "c2": {"carbon_cache_bind_address": "10.0.0.6"},
    }
    first, second = (
        {
            one["host"]: (one["flush_seconds"], one["bad_lines"], one["timestamp_lag"])
            for one in topology(host, split, **variables)["carbon"]["statsd"]
        }
        for host in ("c1", "c2")
    )
    assert first == {
        "s1": (60, "stats.counters.statsd.bad_lines_seen.count.s1", "stats.gauges.statsd.timestamp_lag.s1"),
        "s2": (10, "", "stats.gauges.own.timestamp_lag"),
    }
    assert second == {"s3": (10, "stats.counters.statsd.bad_lines_seen.count", "stats.gauges.statsd.timestamp_lag")}


def test_rules_follow_from_the_statsd_that_names_the_carbon():
    split = {"statsd": ["s1"], "carbon": ["c1", "c2"], "graphite_web": ["c1"]}
    named = {"statsd_config": {"graphite": {"globalSuffix": "h"}}, "statsd_graphite_host": "10.0.0.6"}
    binds = {f"c{number}": {"carbon_cache_bind_address": f"10.0.0.{number + 4}"} for number in (1, 2)}

    def has_suffix(host, **statsd):
        rules = topology(host, split, s1={**named, **statsd}, **binds)["carbon"]["storage_aggregations"]
        return any(rule["pattern"].endswith(r"\.count\.h(;|$)") for rule in rules)

    assert (has_suffix("c1"), has_suffix("c2")) == (False, True)
    # It may lead to any of them.
    balanced = {"statsd_graphite_host": "carbon.example.org"}
    assert (has_suffix("c1", **balanced), has_suffix("c2", **balanced)) == (True, True)


def test_one_switch_turns_tags_on_from_statsd_to_graphite_web():
    split = {"statsd": ["s1"], "carbon": ["c1", "c2"], "graphite_web": ["c1"]}
    web = {"graphite_web_tags_enabled": True, "graphite_web_port": 8080, "ansible_host": "10.0.0.5"}
    variables = {"c1": {**web, "carbon_cache_bind_address": "10.0.0.5"}}
    assert topology("s1", split, **variables)["statsd"]["tags_enabled"]
    assert topology("c1", split, **variables)["carbon"]["tags_url"] == "http://127.0.0.1:8080"
    assert topology("c2", split, **variables)["carbon"]["tags_url"] == "http://10.0.0.5:8080"
    variables["c1"]["graphite_web_tags_enabled"] = False
    assert not topology("s1", split, **variables)["statsd"]["tags_enabled"]
    assert topology("c1", split, **variables)["carbon"]["tags_url"] == ""


def test_tags_that_only_statsd_knows_are_refused():
    (problem,) = problems("s1", SPLIT, s1={"statsd_tags_enabled": True}, **OPEN)
    assert problem.startswith("statsd_tags_enabled of s1 is true, but graphite_web_tags_enabled is not")
    assert problems("s1", SPLIT, s1={"statsd_tags_enabled": True}, c1={**OPEN["c1"], "graphite_web_tags_enabled": True}) == []


def test_tags_need_a_graphite_web_that_has_them():
    groups = {"statsd": ["s1"], "carbon": ["c1"], "all": ["s1", "c1"]}
    switch = {"graphite_web_tags_enabled": True}
    variables = {"s1": switch, "c1": {**OPEN["c1"], **switch}}
    assert topology("c1", groups, **variables)["carbon"]["tags_url"] == ""
    assert not topology("s1", groups, **variables)["statsd"]["tags_enabled"]


def test_statsd_takes_tags_if_its_carbon_tells_them_and_several_switches_are_refused():
    groups = {"carbon": ["w1"], "statsd": ["w2"], "graphite_web": ["w1", "w2"], "all": ["w1", "w2"]}
    variables = {"w1": {"graphite_web_tags_enabled": True, "carbon_cache_bind_address": "10.0.0.5"}, "w2": {}}
    assert topology("w2", groups, **variables)["statsd"]["tags_enabled"]
    assert any("graphite_web_tags_enabled is true on w1 and false on w2" in problem for problem in problems("w1", groups, **variables))


def test_two_addresses_that_nobody_knows_are_two_carbons():
    groups = {"statsd": ["s1", "s2"], "carbon": ["c1", "c2"], "all": ["s1", "s2", "c1", "c2"]}
    variables = {f"s{number}": {"statsd_graphite_host": f"c{number}.example.org"} for number in (1, 2)}
    variables.update({f"c{number}": {"carbon_cache_bind_address": "0.0.0.0"} for number in (1, 2)})
    assert problems("s1", groups, **variables) == []
    variables["s2"] = variables["s1"]
    assert any("overwrite each other's values" in problem for problem in problems("s1", groups, **variables))


CLUSTER = {
    "carbon": ["c1", "c2", "c3"],
    "carbon_relay": ["r1", "r2"],
    "graphite_web": ["c1", "w1"],
    "statsd": ["s1"],
}


def cluster(**changes: dict) -> dict:
    """Return the variables of CLUSTER, with those of single hosts in place of the others."""
    address = {"c1": "10.0.0.1", "c2": "10.0.0.2", "c3": "10.0.0.3"}
    everybody = [host for hosts in CLUSTER.values() for host in hosts]
    shared = {
        "carbon_replicas": 2,
        "graphite_web_database": {"engine": "django.db.backends.postgresql", "name": "graphite"},
        "graphite_web_secret_key": "long and random",
    }
    return {
        host: {
            **shared,
            **({"carbon_store_address": address[host]} if host in address else {}),
            **({"carbon_relay_address": f"10.0.1.{host[1]}"} if host.startswith("r") else {}),
            **({"memcached_address": "10.0.0.1" if host == "c1" else "10.0.2.1"} if host in CLUSTER["graphite_web"] else {}),
            **changes.get(host, {}),
        }
        for host in everybody
    }


def test_relays_choose_the_stores_and_each_store_its_caches():
    (tier,) = topology("r1", CLUSTER, **cluster())["relay"]["clusters"]
    assert (tier["name"], tier["type"], tier["replication"]) == ("stores", "fnv1a_ch", 2)
    assert [(member["address"], member["port"], member["instance"]) for member in tier["members"]] == [
        ("10.0.0.1", 2013, "c1"),
        ("10.0.0.2", 2013, "c2"),
        ("10.0.0.3", 2013, "c3"),
    ]
    assert topology("r2", CLUSTER, **cluster())["relay"]["clusters"] == [tier]
    assert topology("r1", CLUSTER, **cluster())["relay"]["routes"][0]["send_to"] == ["stores"]
    store = topology("c2", CLUSTER, **cluster(c2={"carbon_cache_instances": 2}))
    assert (store["relay"]["state"], store["store_relay"]["state"]) == ("absent", "present")
    assert (store["store_relay"]["address"], store["store_relay"]["port"]) == ("10.0.0.2", 2013)
    (caches,) = store["store_relay"]["clusters"]
    assert [(member["address"], member["port"]) for member in caches["members"]] == [("127.0.0.1", 2103), ("127.0.0.1", 2203)]
    assert topology("r1", CLUSTER, **cluster())["store_relay"]["state"] == "absent"
    for host in ("c1", "c2", "c3", "r1", "r2", "w1", "s1"):
        assert problems(host, CLUSTER, **cluster()) == []


def test_statsd_sends_to_another_relay_if_its_own_is_away():
    assert topology("s1", CLUSTER, **cluster())["sends_to"]["statsd"]["address"] == "10.0.1.1"
    assert topology("s1", CLUSTER, **cluster())["statsd_alternatives"] == [{"host": "10.0.1.2", "port": 2003}]
    alone = cluster(s1={"statsd_graphite_host": "10.0.1.2"})
    assert topology("s1", CLUSTER, **alone)["statsd_alternatives"] == []
    assert topology("c1", SPLIT, **OPEN)["statsd_alternatives"] == []


def test_fronts_ask_the_stores_on_a_site_of_their_own():
    own, alone, store = (topology(host, CLUSTER, **cluster())["graphite_web"] for host in ("c1", "w1", "c2"))
    # A front that is a store reads its own files, and asks its own caches.
    assert own["cluster_servers"] == ["10.0.0.2:8081", "10.0.0.3:8081"]
    assert (own["carbonlink_hosts"], own["carbonlink_hashing_type"]) == (["127.0.0.1:7002:a"], "fnv1a_ch")
    assert alone["cluster_servers"] == ["10.0.0.1:8081", "10.0.0.2:8081", "10.0.0.3:8081"]
    assert (alone["carbonlink_hosts"], alone["store_address"], alone["is_front"]) == ([], "", True)
    assert (store["cluster_servers"], store["store_address"], store["is_front"]) == ([], "10.0.0.2", False)
    assert [web["own_url"] for web in (own, alone, store)] == ["http://127.0.0.1:80", "http://127.0.0.1:80", "http://10.0.0.2:8081"]
    assert "graphite_web" in topology("c2", CLUSTER, **cluster())["components"]
    sockets = {(socket["variable"], socket["port"]) for socket in topology("c2", CLUSTER, **cluster())["listens"]}
    assert {("carbon_store_port", 2013), ("carbon_store_web_port", 8081)} < sockets
    assert ("graphite_web_port", 80) not in sockets


def test_a_store_that_leaves_is_asked_and_gets_no_points():
    variables = cluster(c3={"carbon_store_leaving": True})
    (tier,) = topology("r1", CLUSTER, **variables)["relay"]["clusters"]
    assert [member["instance"] for member in tier["members"]] == ["c1", "c2"]
    assert "10.0.0.3:8081" in topology("w1", CLUSTER, **variables)["graphite_web"]["cluster_servers"]


def test_one_of_the_hosts_of_carbon_alone_is_no_cluster():
    one = topology("c1", {**SPLIT}, c1={"carbon_replicas": 1})
    assert (one["cluster"]["replicas"], len(one["cluster"]["stores"]), one["store_relay"]["state"]) == (1, 1, "absent")
    assert one["relay"]["clusters"][0]["name"] == "caches"


@pytest.mark.parametrize(
    ("host", "changes", "named"),
    [
        ("c1", {host: {"carbon_replicas": None} for host in cluster()}, "The group carbon has 3 hosts: c1, c2, c3. Set carbon_replicas"),
        ("c1", {host: {"carbon_replicas": 4} for host in cluster()}, "carbon_replicas is 4, but the ring has 3 stores: c1, c2, c3."),
        ("c1", {host: {"carbon_replicas": "two"} for host in cluster()}, "carbon_replicas is two"),
        ("c1", {"r1": {"carbon_replicas": 1}}, "carbon_replicas is 2 on c1 and 1 on r1. Set carbon_replicas once"),
        ("c2", {"c2": {"carbon_store_address": "10.0.0.1"}}, "carbon_store_address of c2 and of c1 is '10.0.0.1'"),
        ("c2", {"c2": {"carbon_store_name": "c1"}}, "carbon_store_name of c2 and of c1 is 'c1'"),
        ("c2", {"c2": {"carbon_store_name": "c 1"}}, "carbon_store_name of c2 is 'c 1'; use letters"),
        ("c2", {"c2": {"carbon_store_address": "127.0.0.1"}}, "carbon_store_address of c2 is '127.0.0.1'; give the IP address"),
        ("c2", {"c2": {"carbon_store_address": None}}, "carbon_store_address of c2 is 'c2'; give the IP address"),
        ("c2", {"c2": {"carbon_store_address": "0.0.0.0"}}, "carbon_store_address of c2 is '0.0.0.0'; give the IP address"),
        ("c2", {"c2": {"carbon_store_port": 0}}, "carbon_store_port is 0; a port is a number"),
        (
            "c3",
            {"c3": {"carbon_cache_storage_schemas": [{"name": "all", "pattern": ".*", "retentions": "10s:1d"}]}},
            "carbon_cache_storage_schemas of c3 differs from that of c1",
        ),
        ("w1", {"w1": {"graphite_web_database": {}}}, "graphite-web runs on c1 and w1, and each would have a SQLite database of its own"),
        ("w1", {"w1": {"graphite_web_secret_key": "other"}}, "graphite_web_secret_key of w1 and c1 is not the same"),
        (
            "w1",
            {"w1": {"graphite_web_database": {"engine": "django.db.backends.postgresql", "name": "other"}}},
            "graphite_web_database of w1 differs from that of c1",
        ),
    ],
)
def test_what_hosts_of_a_cluster_could_not_share_is_named(host, changes, named):
    (problem,) = problems(host, CLUSTER, **cluster(**changes))
    assert named in problem


def test_two_statsd_of_a_cluster_do_not_write_the_same_series():
    groups = {**CLUSTER, "statsd": ["r1", "r2"]}
    (problem,) = problems("r2", groups, **cluster())
    assert "StatsD on r2 and StatsD on r1 would write the same series" in problem


@pytest.mark.parametrize(
    ("groups", "variables", "state"),
    [
        ({"all": ["one"]}, {}, "present"),
        ({"all": ["one"]}, {"memcached_state": "absent"}, "absent"),
        # Answers of nobody.
        ({"all": ["one"]}, {"graphite_web_state": "absent"}, "absent"),
        ({"all": ["one"]}, {"graphite_web_state": "absent", "memcached_state": "present"}, "present"),
        # Another memcached may have the port there.
        ({"all": ["one"]}, {"graphite_web_settings": {"CACHES": {}}}, "absent"),
        ({"all": ["one"]}, {"graphite_web_memcached_hosts": ["10.0.0.9:11211"]}, "absent"),
        ({"all": ["one"]}, {"graphite_web_settings": {"DEBUG": True}}, "present"),
        # The group says who has it, also for graphite-web elsewhere.
        ({"memcached": ["one"], "graphite_web": ["two"], "carbon": ["two"]}, {}, "present"),
        ({"memcached": ["one"], "graphite_web": ["one"]}, {"graphite_web_state": "absent"}, "present"),
    ],
)
def test_memcached_is_where_its_group_is_or_else_where_graphite_web_is(groups, variables, state):
    one = topology("one", groups, one=variables)
    assert one["memcached"]["state"] == state
    assert ("memcached" in one["active"]) == (state == "present")


FRONTS = {"carbon": ["w1"], "graphite_web": ["w1", "w2"], "memcached": ["w1", "m1"]}
INSIDE = {"w1": {"ansible_host": "10.0.0.1"}, "w2": {"graphite_web_whisper_directory": "/data"}, "m1": {"ansible_host": "fd00::9"}}


@pytest.mark.parametrize(
    ("groups", "variables", "addresses", "servers"),
    [
        ({"graphite_web": ["w1"], "memcached": ["w1"]}, {}, {"w1": "127.0.0.1"}, ["127.0.0.1:11211"]),
        ({"graphite_web": ["w1"], "memcached": ["w1"]}, INSIDE, {"w1": "127.0.0.1"}, ["127.0.0.1:11211"]),
        (
            {"graphite_web": ["w1"], "memcached": ["w1"]},
            {"w1": {"memcached_address": "0.0.0.0", "memcached_port": 11212}},
            {"w1": "0.0.0.0"},
            ["127.0.0.1:11212"],
        ),
        (FRONTS, INSIDE, {"w1": "10.0.0.1", "m1": "fd00::9"}, ["10.0.0.1:11211", "[fd00::9]:11211"]),
        (
            FRONTS,
            {**INSIDE, "w1": {"ansible_host": "203.0.113.1", "memcached_address": "0.0.0.0"}, "m1": {"memcached_address": "10.0.0.9"}},
            {"w1": "0.0.0.0", "m1": "10.0.0.9"},
            ["203.0.113.1:11211", "10.0.0.9:11211"],
        ),
        (FRONTS, {**INSIDE, "w1": {"memcached_state": "absent"}}, {"m1": "fd00::9"}, ["[fd00::9]:11211"]),
        ({"graphite_web": ["w1"], "carbon": ["w1"]}, {}, {}, []),
        (FRONTS, {**INSIDE, **{host: {**INSIDE[host], "graphite_web_memcached_hosts": []} for host in ("w1", "w2")}}, {}, []),
    ],
)
def test_every_front_asks_the_same_memcacheds_in_the_same_order(groups, variables, addresses, servers):
    assert {host: topology(host, groups, **variables)["memcached"]["address"] for host in addresses} == addresses
    for front in groups["graphite_web"]:
        assert topology(front, groups, **variables)["web"]["memcached_hosts"] == servers
        assert problems(front, groups, **variables) == []
    for host, address in addresses.items():
        listeners = topology(host, groups, **variables)["listens"]
        assert [socket["address"] for socket in listeners if socket["component"] == "memcached"] == [address]


@pytest.mark.parametrize(
    "variables", [{}, {"ansible_host": "198.51.100.256"}, {"ansible_host": "8.8.8.8"}, {"memcached_address": "127.0.0.1"}]
)
def test_a_memcached_that_another_front_does_not_reach_is_refused(variables):
    (problem,) = problems("w2", FRONTS, **{**INSIDE, "w1": variables})
    assert "graphite-web on w2 would look for the memcached of w1 on its own host" in problem
    assert "Set memcached_address of w1 to an internal address" in problem


@pytest.mark.parametrize(
    ("schemas", "seconds"),
    [
        (["60s:1d", "10s:6h,1m:7d"], 10),
        (["60s:1d", "1s:1h,10s:6h"], 1),
        (["1m:1d", "nonsense"], 60),
    ],
)
def test_answers_are_given_again_for_the_finest_step(schemas, seconds):
    rules = [{"name": str(number), "pattern": ".*", "retentions": text} for number, text in enumerate(schemas)]
    assert topology("one", {"all": ["one"]}, one={"carbon_cache_storage_schemas": rules})["web"]["cache_duration"] == seconds
    several = {"carbon": ["c1", "c2"], "graphite_web": ["c1"]}
    assert topology("c1", several, c2={"carbon_cache_storage_schemas": rules})["web"]["cache_duration"] == min(seconds, 10)
    assert topology("one", {"all": ["one"]}, one={"graphite_web_cache_duration": 5})["web"]["cache_duration"] == 5


def test_carbon_may_tell_graphite_web_of_series_with_tags():
    groups = {"carbon": ["c1", "c2"], "graphite_web": ["c1"], "statsd": ["c1", "c2"]}
    variables = {"c1": {"carbon_replicas": 0, "graphite_web_tags_enabled": True}, "c2": {"carbon_replicas": 0, "ansible_host": "10.0.0.2"}}
    guests = topology("c1", groups, **variables)["graphite_web"]["guests"]
    assert {guest["name"]: guest["networks"] for guest in guests} == {"carbon on c1": ["127.0.0.0/8", "::1"], "carbon on c2": ["10.0.0.2"]}
    assert {tuple(guest["areas"]) for guest in guests} == {("tags",)}
    variables["c1"]["graphite_web_tags_enabled"] = False
    assert topology("c1", groups, **variables)["graphite_web"]["guests"] == []


def test_a_sender_of_the_stack_is_among_the_allowed():
    groups = {"carbon": ["c1"], "carbon_relay": ["c1"], "graphite_web": ["c1"], "statsd": ["s1"]}
    variables = {"c1": {"carbon_cache_bind_address": "10.0.0.5", "carbon_relay_allowed_senders": ["10.0.1.0/24"]}}
    (problem,) = problems("s1", groups, **variables, s1={"ansible_host": "10.0.0.6"})
    assert problem == (
        "statsd on s1 sends to carbon_relay on c1, but carbon_relay_allowed_senders of c1 has no network with 10.0.0.6. Add one."
    )
    assert problems("s1", groups, **variables, s1={"ansible_host": "10.0.1.6"}) == []


def test_a_store_lets_all_of_its_partners_in():
    networks = {"carbon_store_allowed_networks": ["10.0.0.0/24"]}
    variables = cluster(c2=networks)
    store = topology("c2", CLUSTER, **variables)
    assert store["store_relay"]["allowed_senders"] == store["graphite_web"]["store_allowed_networks"] == ["10.0.0.0/24"]
    assert problems("c2", CLUSTER, **variables) == []
    outside = cluster(c2=networks, w1={"ansible_host": "10.0.7.9"})
    (problem,) = problems("c2", CLUSTER, **outside)
    assert problem == "carbon_store_allowed_networks of c2 has no network with 10.0.7.9, the address of w1. Add one."
    (problem,) = problems("c2", CLUSTER, **cluster(c2={"carbon_store_allowed_networks": ["10.0.0.1/24"]}))
    assert "has host bits set" in problem


SECURE = {"graphite_web_server_name": "graphite.example.org", "graphite_web_tls": {"certificate": "/c", "key": "/k"}}


@pytest.mark.parametrize(
    ("tls", "url", "authority", "port"),
    [
        ({"certificate": "/c", "key": "/k"}, "https://graphite.example.org", "", 443),
        ({"self_signed": True, "port": 8443}, "https://graphite.example.org:8443", "/etc/apache-wsgi/graphite.pem", 8443),
        ({"certificate": "/c", "key": "/k", "authority": "/ca"}, "https://graphite.example.org", "/ca", 443),
    ],
)
def test_graphite_web_is_asked_by_the_name_of_its_certificate(tls, url, authority, port):
    variables = {**SECURE, "graphite_web_tls": tls, "graphite_web_tags_enabled": True}
    one = topology("one", {"all": ["one"]}, one=variables)
    assert problems("one", {"all": ["one"]}, one=variables) == []
    web = one["web"]
    assert (web["local_url"], web["public_url"], web["connect_address"], web["authority"]) == (url, url, "127.0.0.1", authority)
    assert (one["carbon"]["tags_url"], one["carbon"]["tags_authority"]) == (url, authority)
    assert {"component": "graphite_web", "variable": "graphite_web_tls", "protocol": "tcp", "address": "*", "port": port} in one["listens"]
    (guest,) = one["graphite_web"]["guests"]
    assert guest["networks"] == ["127.0.0.0/8", "::1", "graphite.example.org", "one"]


def test_without_tls_graphite_web_is_asked_as_before():
    for variables in ({}, {"graphite_web_tls": {}, "graphite_web_server_name": "graphite.example.org"}):
        one = topology("one", {"all": ["one"]}, one=variables)
        assert (one["web"]["connect_address"], one["web"]["authority"], one["carbon"]["tags_authority"]) == ("", "", "")
        assert one["web"]["local_url"] == "http://127.0.0.1:80"


def test_the_port_of_tls_is_taken():
    (problem,) = problems("one", {"all": ["one"]}, one={**SECURE, "graphite_web_tls": {"self_signed": True, "port": 2003}})
    assert problem == "carbon_relay_port and graphite_web_tls use TCP port 2003 on the same host; change one of them."


def test_carbon_elsewhere_needs_a_certificate_that_it_can_trust():
    groups = {"carbon": ["c1"], "statsd": ["c1"], "graphite_web": ["w1"]}
    web = {**SECURE, "graphite_web_tags_enabled": True, "graphite_web_whisper_directory": "/mnt"}
    carbon = {"carbon_cache_bind_address": "10.0.0.5"}
    assert problems("w1", groups, w1=web, c1=carbon) == []
    assert topology("c1", groups, w1=web, c1=carbon)["carbon"]["tags_url"] == "https://graphite.example.org"
    self_signed = {**web, "graphite_web_tls": {"self_signed": True}}
    (problem,) = problems("w1", groups, w1=self_signed, c1=carbon)
    assert "graphite_web_tls of w1 is self_signed, and carbon on c1 tells graphite-web of tags without that certificate" in problem
    trusting = {**carbon, "carbon_cache_tags_authority": "/etc/ssl/graphite.pem"}
    assert problems("w1", groups, w1=self_signed, c1=trusting) == []
    assert topology("c1", groups, w1=self_signed, c1=trusting)["carbon"]["tags_authority"] == "/etc/ssl/graphite.pem"
    # The URL of the inventory leads elsewhere.
    own = {**carbon, "carbon_cache_tags_url": "http://10.0.0.9"}
    assert topology("c1", groups, w1=self_signed, c1=own)["carbon"]["tags_authority"] == ""
    assert problems("w1", groups, w1=self_signed, c1=own) == []
