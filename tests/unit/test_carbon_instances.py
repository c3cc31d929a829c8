# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""carbon_cache_instances as a number: names and ports, and names on which relay and graphite-web agree."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.filter.carbon import carbon_instances_of
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_cache import INSTANCE_NAMES, instance_problems


def places(name):
    """Return the places of a member on the ring of fnv1a_ch.

    Source: ``hashing.py`` of carbon 1.1.10, and ``consistent-hash.c`` of carbon-c-relay 3.7.3.
    """
    found = []
    for replica in range(100):
        value = 2166136261
        for byte in f"{replica}-{name}".encode():
            value = (value ^ byte) * 16777619 & 0xFFFFFFFF
        found.append(value >> 16 ^ value & 0xFFFF)
    return found


def test_no_two_instances_share_a_place_on_the_ring():
    taken = [place for name in INSTANCE_NAMES for place in places(name)]
    assert len(set(taken)) == len(taken) == 3200
    # What would happen otherwise.
    assert len(set(places("h"))) < 100


@pytest.mark.parametrize("number", range(2, 33))
def test_each_instance_gets_its_share_of_the_series(number):
    ring = sorted((place, name) for name in INSTANCE_NAMES[:number] for place in places(name))
    shares = dict.fromkeys(INSTANCE_NAMES[:number], 0)
    before = ring[-1][0] - 65536
    for place, name in ring:
        shares[name] += place - before
        before = place
    assert min(shares.values()) * number / 65536 > 0.75
    assert max(shares.values()) * number / 65536 < 1.25


def test_a_number_becomes_instances_with_ports_of_their_own():
    assert carbon_instances_of(2, 8) == [
        {"name": "a", "line_receiver_port": 2003, "cache_query_port": 7002},
        {"name": "b", "line_receiver_port": 2103, "cache_query_port": 7102},
    ]
    assert carbon_instances_of("1", 8, is_behind_relay=True) == [{"name": "a", "line_receiver_port": 2103, "cache_query_port": 7002}]
    # What there is when the number grows stays as it is.
    assert carbon_instances_of(32, 1)[:2] == carbon_instances_of(2, 1)
    ports = [port for one in carbon_instances_of(32, 1, True) for port in (one["line_receiver_port"], one["cache_query_port"])]
    assert len({*ports, 80, 2003, 8125, 8126}) == 68


def test_auto_is_one_for_each_processor():
    assert carbon_instances_of("auto", 3) == carbon_instances_of(3, 1)
    assert len(carbon_instances_of("auto", 96)) == 32
    with pytest.raises(AnsibleFilterError, match="the number of processors is not known"):
        carbon_instances_of("auto", 0)


def test_a_list_stays_as_it_is():
    listed = [{"name": "x", "line_receiver_port": 1, "cache_query_port": 2}]
    assert carbon_instances_of(listed, 4, is_behind_relay=True) == listed


@pytest.mark.parametrize("instances", [1, "2", 32, "auto"])
def test_numbers_that_are_taken(instances):
    assert instance_problems(instances) == []


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        (0, ["'0'", "1 to 32", "auto"]),
        (33, ["'33'"]),
        (True, ["'True'"]),
        (-1, ["'-1'"]),
        ("two", ["'two'"]),
        ({"a": 2003}, ["a dictionary"]),
        ([], ["is empty"]),
        (["a"], ["name, line_receiver_port, cache_query_port"]),
        ([{"name": "a", "line_receiver_port": 2003}], ["name, line_receiver_port, cache_query_port"]),
        ([{"name": "a", "line_receiver_port": 2003, "cache_query_port": 1, "port": 5}], ["and no others"]),
        ([{"name": "a b", "line_receiver_port": 2003, "cache_query_port": 1}], ["'a b' cannot name a unit"]),
        ([{"name": "a", "line_receiver_port": 2003, "cache_query_port": 1}] * 2, ["2 instances 'a'"]),
    ],
)
def test_instances_that_are_refused(instances, words):
    (problem,) = instance_problems(instances)
    assert problem.startswith(("carbon_cache_instances", "Each element of carbon_cache_instances"))
    assert [word for word in words if word not in problem] == []
