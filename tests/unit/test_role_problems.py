# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""One filter for the variables of every role, and what single variables may hold."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.filter.roles import role_problems
from ansible_collections.metricstack.graphite.plugins.filter.stack import _defaults
from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import (
    address_problem,
    count_problem,
    directory_problem,
    host_name_problem,
    port_problem,
)
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles import RULES


def _role_defaults(role: str) -> dict:
    return {"hosts": [], **{name[len(role) + 1 :]: value for name, value in _defaults().items() if name.startswith(f"{role}_")}}


def test_each_role_has_its_own_messages():
    (problem,) = role_problems({"sites": [{"name": "a/b", "wsgi_script": "/a", "user": "a", "group": "a"}]}, "apache_wsgi")
    assert problem.startswith("apache_wsgi_sites: site 'a/b'")
    with pytest.raises(AnsibleFilterError, match="no role 'nginx'; it knows apache_wsgi, carbon_cache"):
        role_problems({}, "nginx")


# What a role cannot run with, and beside it what its removal reads.
RUNS_WITH = {
    "apache_wsgi": {"sites": [{"name": "a", "port": 0}]},
    "carbon_cache": {"instances": [], "whisper_directory": "/srv/whisper"},
    "carbon_relay": {"clusters": []},
    "go_runtime_metrics": {"builder": "a-host-that-is-gone"},
    "graphite_venv": {"build_environment": {"A": 1}},
    "graphite_web": {"users": [{"name": "admin"}], "database": {}, "install_method": "package"},
    "memcached": {"port": 0},
    "statsd": {"flush_interval": 1},
}
REMOVES_BY = {
    "apache_wsgi": {"sites": [{"name": "../a"}]},
    "carbon_cache": {"whisper_directory": "/etc"},
    "graphite_web": {"database": {"name": "graphite.db"}, "install_method": "package"},
}


def test_every_role_has_an_example_for_its_removal():
    assert set(RUNS_WITH) == set(RULES)


@pytest.mark.parametrize(("role", "variables"), RUNS_WITH.items())
def test_what_is_to_be_removed_may_have_variables_that_it_could_not_run_with(role, variables):
    given = {option: default for option, default in _role_defaults(role).items() if option != "state"}
    assert role_problems({**given, **variables}, role)
    assert role_problems({**given, **variables, "state": "absent"}, role) == []


@pytest.mark.parametrize(("role", "variables"), REMOVES_BY.items())
def test_what_a_removal_reads_is_validated(role, variables):
    assert len(role_problems({**variables, "state": "absent"}, role)) == 1


@pytest.mark.parametrize("value", ["/srv/graphite", "/home/graphite/whisper", "/var/lib/tmp", "//srv/x/../graphite"])
def test_directories_that_can_be_given_away(value):
    assert directory_problem("a_directory", value) is None


@pytest.mark.parametrize(
    "value",
    ["", "/", "/srv", "relative/path", "/etc/graphite", "/tmp/whisper", "/var/tmp/whisper", "/var/lib", "/var/log/", "/srv/../usr/lib"],
)
def test_directories_that_cannot(value):
    assert f"a_directory is '{value}'" in directory_problem("a_directory", value)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (port_problem, [1, "65535"], [0, 65536, True, "http", None]),
        (address_problem, ["127.0.0.1", "::"], ["localhost", "", None]),
        (host_name_problem, ["graphite.example", "web_1"], ["", "a b", "2001:db8::1", "https://graphite.example", "a:80", "a.example\n"]),
        (count_problem, [1, "20"], [0, -1, True, "many", 1.5]),
    ],
)
def test_ports_addresses_names_and_counts(check, good, bad):
    assert [value for value in good if check("the_variable", value)] == []
    assert [value for value in bad if not str(check("the_variable", value)).startswith("the_variable is ")] == []


@pytest.mark.parametrize(
    ("servers", "refused"),
    [
        (None, False),
        ([{"server": "./servers/udp", "port": 8125, "address": "127.0.0.1"}, {"server": "./servers/tcp", "port": 8225}], False),
        ([{"server": "./servers/udp"}], False),
        ([{}, {"server": "./servers/tcp", "address": "::1", "port": 8125}], False),
        ([{"server": "/opt/http.js"}], False),
        ([{"address": "127.0.0.1"}, {"address": "10.0.0.5"}, {"server": "./servers/tcp", "address": "10.0.0.5", "port": 8126}], False),
        ([{"server": "./servers/udp", "port": 8225, "address": "127.0.0.1"}], True),
        ([{"server": "./servers/udp", "port": 8125, "address": "10.0.0.5"}], True),
        ([], True),
    ],
)
def test_statsd_is_asked_where_it_listens(servers, refused):
    variables = {"port": 8125, "management_port": 8126, "graphite_port": 2003, "address": "127.0.0.1", "management_address": "127.0.0.1"}
    variables.update(flush_interval=10000, receive_buffer_bytes=0, gauge_lifetime=0, config={} if servers is None else {"servers": servers})
    assert [problem.partition(",")[0] for problem in role_problems(variables, "statsd")] == ["statsd_config has servers"] * refused


STATSD = {"port": 8125, "management_port": 8126, "graphite_port": 2003, "address": "127.0.0.1", "management_address": "127.0.0.1"}
STATSD.update(flush_interval=10000, receive_buffer_bytes=0, gauge_lifetime=86400)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"graphite": {"globalPrefix": 2024}}, "globalPrefix is 2024; give a text"),
        ({"graphite": {"prefixGauge": None}}, "prefixGauge is None; give a text"),
        ({"prefixStats": 1}, "prefixStats is 1; give a text"),
        ({"graphite": {"globalSuffix": ""}}, "globalSuffix is empty"),
        ({"graphite": {"legacyNamespace": "false"}}, "legacyNamespace is 'false'; give true or false"),
        ({"graphiteMaxUnsentBytes": -1}, "graphiteMaxUnsentBytes is -1; give a number of bytes"),
        ({"graphiteMaxUnsentBytes": 1 << 30}, "graphiteMaxUnsentBytes is 1073741824; give a number of bytes up to 268435456"),
        ({"backends": "./backends/graphite"}, "backends is ./backends/graphite; give a list"),
        ({"histogram": {"metric": "", "bins": [1]}}, "histogram is"),
        ({"histogram": [{"metric": "x"}]}, "histogram is"),
        ({"histogram": [{"metric": "x", "bins": [10, None]}]}, "histogram is"),
        ({"histogram": [{"metric": "x", "bins": [10, 5]}]}, "histogram is"),
        ({"histogram": [{"metric": "x", "bins": [10, float("inf")]}]}, "histogram is"),
        ({"percentThreshold": [90, "high"]}, "percentThreshold has high"),
        ({"percentThreshold": [150]}, "percentThreshold has 150"),
        ({"percentThreshold": [90, 0]}, "percentThreshold has 0"),
        ({"calculatedTimerMetrics": "upper"}, "calculatedTimerMetrics is upper"),
        ({"prefixStats": ""}, "prefixStats is ''"),
        ({"graphite": {"globalPrefix": "stats."}}, "globalPrefix is 'stats.'"),
        ({"graphite": {"globalSuffix": "web 1"}}, "globalSuffix is 'web 1'"),
        ({"graphite": {"prefixTimer": "t;env=prod"}}, "prefixTimer is 't;env=prod'"),
        ({"servers": [{"server": "./servers/tcp", "socket": "/run/statsd/statsd.sock"}]}, "servers has a socket"),
        ({"server": "./servers/http"}, "server is ./servers/http, which StatsD does not have"),
        ({"server": 5}, "server is 5, which StatsD does not have"),
        ({"servers": {"server": "./servers/udp"}}, "give a list such as"),
        ({"servers": ["./servers/udp"]}, "give a list such as"),
        ({"servers": [{}, {"server": "./servers/http"}]}, "servers has ./servers/http, which StatsD does not have"),
        ({"servers": [{}, {"server": "./servers/tcp", "port": 99999}]}, "the port of one of servers is 99999"),
        ({"servers": [{}, {"server": "./servers/tcp", "address": "eth0"}]}, "the address of one of servers is 'eth0'"),
        ({"servers": [{}, {"address": "::1", "port": 9125}]}, "servers has ::1 without address_ipv6"),
        (
            {"servers": [{}, {"server": "./servers/tcp", "port": 8126}]},
            "servers has TCP port 8126, which another server or statsd_management",
        ),
        ({"servers": [{}, {"server": "./servers/udp.js", "address": "127.0.0.1"}]}, "servers has UDP port 8125, which another server"),
    ],
)
def test_settings_with_which_statsd_would_end_or_write_wrong_names_are_refused(config, words):
    (problem,) = role_problems({**STATSD, "config": config}, "statsd")
    assert words in problem


def test_settings_of_the_example_of_statsd_are_taken():
    config = {
        "percentThreshold": [90, 99.9, "-50"],
        "histogram": [{"metric": "render", "bins": [0.01, 10, "inf"]}, {"metric": "", "bins": []}],
    }
    config["calculatedTimerMetrics"] = ["count", "upper_percent"]
    assert role_problems({**STATSD, "config": {**config, "graphite": {"globalPrefix": "", "legacyNamespace": True}}}, "statsd") == []


def test_what_is_no_time_is_refused():
    (problem,) = role_problems({**STATSD, "gauge_lifetime": "1d", "config": {}}, "statsd")
    assert problem.startswith("statsd_gauge_lifetime is 1d; give a number of seconds")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"address": "0.0.0.0"}, "memcached_address is '0.0.0.0', where everybody reaches memcached"),
        ({"address": "::"}, "memcached_address is '::', where everybody reaches memcached"),
        ({"address": "8.8.8.8"}, "set memcached_allow_public to true"),
        ({"address": "2a00::1"}, "set memcached_allow_public to true"),
        ({"address": "eth0", "allow_public": True}, "memcached_address is 'eth0'; give an IP address"),
        ({"memory_megabytes": 0}, "memcached_memory_megabytes is 0; give a number of at least 1"),
        ({"item_megabytes": 33}, "Set memcached_item_megabytes to at most 32, or memcached_memory_megabytes to at least 66"),
        ({"item_megabytes": 1024, "memory_megabytes": 4096}, "Set memcached_item_megabytes to at most 1023"),
        ({"memory_megabytes": 1 << 32}, "memcached_memory_megabytes is 4294967296; give a number of MiB that the host has"),
        ({"connections": 1048576}, "memcached_connections is 1048576; give at most 1000000"),
        ({"address": "8.8.8.8", "allow_public": "yes"}, None),
        ({"address": "10.0.0.5"}, None),
        ({"address": "fd00::5", "memory_megabytes": "8"}, None),
    ],
)
def test_memcached_is_for_graphite_web_and_of_a_size_that_holds_something(variables, words):
    problems = role_problems({**_role_defaults("memcached"), **variables}, "memcached")
    assert len(problems) == bool(words)
    assert (words or "") in "".join(problems)
