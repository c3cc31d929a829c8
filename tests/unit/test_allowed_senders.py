# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Networks that may send. Packets of others are dropped in the scenario default; here is what the variables mean."""

from __future__ import annotations

import ipaddress
import json
import random
import subprocess

import pytest
from ansible_collections.metricstack.graphite.plugins.filter.network import networks
from ansible_collections.metricstack.graphite.plugins.filter.stack import _defaults
from ansible_collections.metricstack.graphite.plugins.module_utils._host import ip_firewall
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_relay import carbon_relay_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.statsd import statsd_problems

ASK = """
const { Senders } = require('./senders');
const [networks, addresses] = JSON.parse(require('fs').readFileSync(0));
const senders = new Senders(networks);
console.log(JSON.stringify(addresses.map((address) => senders.allow(address))));
"""


@pytest.fixture
def allowed(statsd_release):
    """Return which addresses StatsD takes metrics from."""

    def ask(allowed_senders, addresses):
        given = json.dumps([networks(allowed_senders), addresses])
        command = ["node", "--eval", ASK]
        return json.loads(subprocess.run(command, input=given, cwd=statsd_release, check=True, capture_output=True, text=True).stdout)

    return ask


def test_statsd_takes_metrics_from_the_networks_and_from_the_host_itself(allowed):
    addresses = {
        "192.0.2.7": True,
        "192.0.2.255": True,
        "192.0.3.0": False,
        "::ffff:192.0.2.7": True,
        "::ffff:192.0.3.7": False,
        "198.51.100.9": True,
        "198.51.100.8": False,
        "2001:db8:0:8000::1": True,
        "2001:db8::1": False,
        "fe80::1%eth9": False,
        "127.0.0.1": True,
        "127.8.9.1": True,
        "::ffff:127.0.0.1": True,
        "::1": True,
        "": False,
    }
    own = ["192.0.2.0/24", "198.51.100.9", "2001:db8:0:8000::/49"]
    assert dict(zip(addresses, allowed(own, list(addresses)))) == addresses
    assert allowed([], ["192.0.2.7", "2001:db8::1"]) == [True, True]


def test_statsd_understands_networks_as_python_does(allowed):
    choice = random.Random(1)
    for bits, kind in ((32, ipaddress.IPv4Address), (128, ipaddress.IPv6Address)):
        base = kind(choice.getrandbits(bits) | 1 << (bits - 1))
        senders = [str(ipaddress.ip_network((base, prefix), strict=False)) for prefix in range(bits // 4, bits + 1, 5)]
        near = [kind(int(base) ^ choice.getrandbits(bits) >> choice.randrange(1, bits)) for _number in range(500)]
        expected = [any(address in ipaddress.ip_network(network) for network in senders) for address in near]
        assert allowed(senders, [str(address) for address in near]) == expected
        assert {True, False} == set(expected)


def own(role):
    return {name[len(role) + 1 :]: value for name, value in _defaults().items() if name.startswith(f"{role}_")}


@pytest.mark.parametrize("value", ["192.0.2.7/24", "host.example.org", "", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(value):
    for role, problems in (("statsd", statsd_problems), ("carbon_relay", carbon_relay_problems)):
        (problem,) = problems({**own(role), "allowed_senders": ["192.0.2.0/24", value]})
        assert problem.startswith(f"{role}_allowed_senders has '{value}' (")


def test_a_relay_that_filters_has_members_with_addresses():
    members = [{"address": "store.example.org", "port": 2013, "instance": "a"}]
    clusters = [{"name": "caches", "type": "forward", "members": members}]
    variables = {**own("carbon_relay"), "clusters": clusters}
    assert carbon_relay_problems(variables) == []
    (problem,) = carbon_relay_problems({**variables, "allowed_senders": ["192.0.2.0/24"]})
    assert "has a member with the address 'store.example.org'" in problem


@pytest.mark.parametrize(("output", "is_refused"), [("filtered\n", False), ("", True)])
def test_a_filter_that_has_no_effect_is_refused(monkeypatch, output, is_refused):
    answer = subprocess.CompletedProcess([], 0, output, "")
    monkeypatch.setattr(ip_firewall, "run", lambda _command: answer)
    assert bool(ip_firewall.ip_firewall_problems("carbon_relay_allowed_senders")) == is_refused
    assert ip_firewall.ip_firewall_problems("") == []
