# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The role carbon_relay: what it writes, and what it refuses. That the program takes it is in molecule."""

from __future__ import annotations

import re
import shlex
import string

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.ring import relay_string
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_relay import relay_command


@pytest.fixture
def written(role_validation):
    """Return the statements that the role writes, each on one line."""

    def write(**variables):
        given = {f"carbon_relay_{name}": value for name, value in variables.items()}
        text = role_validation.rendered("carbon_relay", "carbon-relay.conf.j2", given)
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return [" ".join(statement.split()) for statement in re.split(r"^ +;$", "\n".join(lines), flags=re.MULTILINE) if statement.split()]

    return write


@pytest.fixture
def refused(role_validation):
    def validate(**variables):
        return role_validation.problems("carbon_relay", {f"carbon_relay_{name}": value for name, value in variables.items()})

    return validate


def member(port, **others):
    return {"address": "127.0.0.1", "port": port, **others}


def cluster(*members, name="caches", kind="fnv1a_ch", **others):
    return {"name": name, "type": kind, "members": list(members), **others}


ALL = {"match": ["*"], "send_to": ["caches"], "stop": True}


def test_by_default_everything_goes_to_one_cache(written, refused):
    assert written() == [
        'cluster "caches" fnv1a_ch "127.0.0.1:2103"="a"',
        'match * send to "caches" stop',
        r'statistics submit every 60 seconds prefix with "carbon.relays.\\.1"',
        'listen type linemode "127.0.0.1:2003" proto tcp',
    ]
    assert refused() == []


def test_variables_become_statements_in_the_order_in_which_a_point_meets_them(written, refused):
    variables = {
        "address": "::",
        "clusters": [
            cluster(member(2103, instance="a"), {"address": "::1", "port": 2203, "instance": "b"}, replication=2, dynamic=True),
            cluster({"address": "other.example.org"}, member(9, protocol="udp"), name="far", kind="any_of"),
        ],
        "rewrites": [{"match": r"^old\.(.*)$", "into": r"new.\1"}],
        "aggregations": [
            {
                "match": [r"^web\..*\.requests$", r"#1"],
                "interval": 10,
                "expiry": 30,
                "compute": [{"function": "sum", "write_to": "web.all"}, {"function": "percentile95", "write_to": "web.p95"}],
                "send_to": ["caches"],
                "stop": True,
            }
        ],
        "routes": [{"match": [r"^trash\."], "send_to": ["blackhole"]}, {"match": [r"^a\.", r'"'], "send_to": ["caches", "far"]}, ALL],
        "statistics_interval": 10,
        "statistics_prefix": "relays.one",
    }
    assert written(**variables) == [
        'cluster "caches" fnv1a_ch replication 2 dynamic "127.0.0.1:2103"="a" "[::1]:2203"="b"',
        'cluster "far" any_of "other.example.org:2003" "127.0.0.1:9" proto udp',
        r'rewrite "^old\\.(.*)$" into "new.\\1"',
        r'aggregate "^web\\..*\\.requests$" "\#1" every 10 seconds expire after 30 seconds timestamp at end of bucket'
        ' compute sum write to "web.all" compute percentile95 write to "web.p95" send to "caches" stop',
        r'match "^trash\\." send to blackhole',
        r'match "^a\\." "\"" send to "caches" "far"',
        'match * send to "caches" stop',
        'statistics submit every 10 seconds prefix with "relays.one"',
        'listen type linemode "[::]:2003" proto tcp',
    ]
    assert refused(**variables) == []


def test_a_text_is_quoted_so_that_the_relay_reads_the_same():
    assert relay_string(r'a\.b"#;') == r'"a\\.b\"\#;"'


def test_the_relay_takes_every_character_that_carbon_takes():
    options = {"config": "/etc/x.conf", "queue_size": 5000, "workers": 1, "backlog": 7, "stalls": 0}
    *words, characters = shlex.split(relay_command(options))
    assert words == ["/usr/bin/carbon-c-relay", "-f", "/etc/x.conf", "-q", "5000", "-w", "1", "-B", "7", "-L", "0", "-c"]
    # As systemd takes them.
    known = characters.replace("%%", "%").replace("$$", "$")
    assert set(string.punctuation) - set(known) == {"."}
    assert not set(known) & set(string.whitespace)
    assert set("Größe.日本語.😀".encode()) - set(known.encode()) - set(string.ascii_letters.encode()) == {ord(".")}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"address": "nowhere"}, ["carbon_relay_address", "'nowhere'"]),
        ({"port": 0}, ["carbon_relay_port is 0"]),
        ({"queue_size": 100}, ["carbon_relay_queue_size is 100", "2500"]),
        ({"queue_size": "many"}, ["carbon_relay_queue_size"]),
        ({"workers": 0}, ["carbon_relay_workers is 0"]),
        ({"throttle": -1}, ["carbon_relay_throttle is -1"]),
        ({"stalls": 16}, ["carbon_relay_stalls is 16", "0 to 15"]),
        ({"statistics_interval": 0}, ["carbon_relay_statistics_interval is 0"]),
        ({"statistics_prefix": "a b"}, ["carbon_relay_statistics_prefix is 'a b'"]),
        ({"clusters": []}, ["carbon_relay_clusters is empty"]),
        ({"clusters": [cluster(member(1))] * 2}, ["2 clusters 'caches'"]),
        ({"clusters": [cluster(member(1)), cluster(member(2), name="x y")]}, ["'x y' cannot name a cluster"]),
        ({"clusters": [cluster(member(1)), cluster(member(2), name="blackhole")]}, ["'blackhole' cannot name a cluster"]),
        ({"clusters": [cluster()]}, ["0 is the number of members", "1 to 64", "cluster 'caches'"]),
        ({"clusters": [cluster(*(member(port) for port in range(3000, 3065)))]}, ["65 is the number of members", "1 to 64"]),
        ({"clusters": [cluster(member(1, instance="a"), member(1, instance="b"))]}, ["127.0.0.1:1 is there 2 times"]),
        ({"clusters": [cluster(member(1, instance="a"), member(2, instance="a"))]}, ["The instance 'a' is there 2 times"]),
        ({"clusters": [cluster(member(1, instance="a"), member(2))]}, ["Some members have an instance"]),
        ({"clusters": [cluster(member(1), replication=2)]}, ["2 copies need as many members, of which there are 1"]),
        ({"clusters": [cluster(member(1), member(2), kind="forward", replication=2)]}, ["replication and dynamic", "forward"]),
        ({"clusters": [cluster(member(2003))]}, ["127.0.0.1:2003 is where this relay itself listens"]),
        ({"address": "0.0.0.0", "clusters": [cluster({"address": "localhost"})]}, ["localhost:2003 is where this relay itself listens"]),
        ({"clusters": [cluster(member(99999))]}, ["'99999' is no port"]),
        ({"clusters": [cluster({"address": "a;b"})]}, ["'a;b' is no address"]),
        ({"clusters": [cluster(member(1, instance="a;"))]}, ["'a;' is no instance"]),
        ({"rewrites": [{"match": "(", "into": "a"}]}, ["carbon_relay_rewrites: '('", "regular expression"]),
        ({"rewrites": [{"match": r"a\d", "into": "a"}]}, [r"carbon_relay_rewrites: 'a\d'", "[0-9]"]),
        ({"rewrites": [{"match": "a", "into": "a b"}]}, ["carbon_relay_rewrites: into is 'a b'"]),
        ({"routes": [ALL, {"match": ["^a"], "send_to": ["caches"]}]}, ["the route '^a' gets no point"]),
        ({"routes": [{"match": ["*"], "send_to": ["blackhole"]}, ALL]}, ["the route '*' gets no point"]),
        ({"routes": [{"match": ["^a"], "send_to": ["caches"]}]}, ["no route that matches every point"]),
        ({"routes": [{"match": ["^a"], "send_to": ["cache"]}, ALL]}, ["sends to 'cache'", "it has caches"]),
        ({"routes": [{"match": ["^a"], "send_to": []}, ALL]}, ["send_to of the route '^a' is empty"]),
        ({"routes": [{"match": ["^a"], "send_to": ["caches", "blackhole"]}, ALL]}, ["sends to a cluster and to blackhole"]),
        ({"routes": [{"match": ["("], "send_to": ["caches"]}, ALL]}, ["carbon_relay_routes: '('"]),
    ],
)
def test_what_the_relay_could_not_do_is_refused(refused, variables, words):
    (problem,) = refused(**variables)
    assert [word for word in words if word not in problem] == []
    assert len(problem.splitlines()) == 1, problem


@pytest.mark.parametrize(
    ("aggregation", "words"),
    [
        ({"expiry": 10}, ["interval is 10 and expiry 10"]),
        ({"interval": 0}, ["interval is 0"]),
        ({"match": []}, ["match is empty"]),
        ({"compute": []}, ["compute is empty"]),
        ({"compute": [{"function": "mode", "write_to": "a"}]}, ["'mode' is no function"]),
        ({"send_to": ["nowhere"]}, ["carbon_relay_aggregations sends to 'nowhere'"]),
    ],
)
def test_an_aggregation_that_could_not_be_computed_is_refused(refused, aggregation, words):
    whole = {"match": ["a"], "interval": 10, "expiry": 30, "compute": [{"function": "sum", "write_to": "a"}]}
    assert refused(aggregations=[whole]) == []
    (problem,) = refused(aggregations=[{**whole, **aggregation}])
    assert [word for word in words if word not in problem] == []


def test_a_relay_that_is_to_be_removed_is_not_validated(refused):
    assert refused(state="absent", clusters=[], port=0) == []
