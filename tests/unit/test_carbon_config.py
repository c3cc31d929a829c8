# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The variables of the role carbon_cache: each mistake is named."""

from __future__ import annotations

import pytest
from ansible_collections.metricstack.graphite.plugins.filter.stack import stack_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_cache import carbon_cache_problems

GOOD = {
    "instances": [{"name": "a", "line_receiver_port": 2003, "cache_query_port": 7002}],
    "bind_address": "127.0.0.1",
    "line_receiver_address": "",
    "whisper_directory": "/var/lib/graphite/whisper",
    "storage_schemas": [],
    "expected_series": {},
    "storage_aggregations": [],
    "settings": {},
    "tags_url": "",
    "prune": {},
}


def problems(**prune):
    return [problem for problem in carbon_cache_problems({**GOOD, "prune": prune}) if "carbon_cache_prune" in problem]


@pytest.mark.parametrize(
    ("prune", "named"),
    [
        ({"schedule": "daily"}, "unused_for"),
        ({"unused_for": 90}, "'90'"),
        ({"unused_for": "90q"}, "'90q'"),
        ({"unused_for": "90d", "archive_directory": "archive"}, "archive_directory is 'archive'"),
        ({"unused_for": "90d", "archive_directory": "/srv"}, "archive_directory is '/srv'"),
        ({"unused_for": "90d", "archive_directory": "/srv/a b"}, "archive_directory is '/srv/a b'"),
        ({"unused_for": "90d", "archive_directory": "/var/lib/graphite/whisper/old"}, "overlaps"),
        ({"unused_for": "90d", "archive_directory": "/var/lib/graphite/whisper/../old"}, "such as /var/lib/graphite/old"),
        ({"unused_for": "90d", "archive_directory": "/srv/%h/archive"}, "archive_directory is '/srv/%h/archive'"),
        ({"unused_for": "90d", "archive_directory": "/var/lib/graphite/whisper"}, "overlaps"),
        ({"unused_for": "90d", "archive_directory": "/var/lib/graphite"}, "overlaps"),
        ({"unused_for": "90d", "schedule": "daily\nUnit=other.service"}, "schedule"),
        ({"unused_for": "90d", "schedule": ""}, "schedule"),
        ({"unused_for": "90d", "max_share": 0}, "max_share"),
        ({"unused_for": "90d", "max_share": 1.1}, "max_share"),
        ({"unused_for": "90d", "max_share": "half"}, "max_share"),
        ({"unused_for": "90d", "max_share": True}, "max_share"),
    ],
)
def test_what_could_not_be_pruned_by_is_named(prune, named):
    (problem,) = problems(**prune)
    assert named in problem


def test_what_can_be_pruned_by():
    assert problems() == []
    assert problems(unused_for="90d") == []
    archive = "/var/lib/graphite/whisper-archive"
    assert problems(unused_for="1y", archive_directory=archive, schedule="Mon..Fri *-*-* 03:00 Asia/Shanghai", max_share="0.2") == []
    assert problems(unused_for="1y", max_share=1) == problems(unused_for="1y", max_share=1.0) == []


@pytest.mark.parametrize(
    ("settings", "receiver"),
    [
        ({"PICKLE_RECEIVER_PORT": 2004}, {"protocol": "tcp", "ports": [2004]}),
        ({"PROTOBUF_RECEIVER_PORT": "2005"}, {"protocol": "tcp", "ports": [2005]}),
        ({"ENABLE_UDP_LISTENER": True}, {"protocol": "udp", "ports": [2003]}),
    ],
)
def test_a_receiver_is_expected_on_the_host_and_refused_with_several_instances(settings, receiver, role_validation):
    variables = {"carbon_cache_settings": settings}
    assert role_validation.value("carbon_cache", "__carbon_cache_receivers", {}) == []
    assert role_validation.value("carbon_cache", "__carbon_cache_receivers", variables) == [receiver]
    instances = [*GOOD["instances"], {"name": "b", "line_receiver_port": 2103, "cache_query_port": 7102}]
    (problem,) = carbon_cache_problems({**GOOD, "settings": settings, "instances": instances})
    assert f"carbon_cache_settings has {min(settings)}" in problem


def test_a_receiver_is_refused_with_as_many_instances_as_there_are_processors():
    """Also before their number is known."""
    settings = {"carbon_cache_settings": {"ENABLE_UDP_LISTENER": True}}
    hostvars = {"web1": {**settings, "carbon_cache_instances": "auto"}}
    (problem,) = stack_problems({"all": ["web1"]}, hostvars, "web1")
    assert "ENABLE_UDP_LISTENER" in problem
    assert stack_problems({"all": ["web1"]}, {"web1": settings}, "web1") == []


def test_a_receiver_gets_the_port_of_carbon_only_where_carbon_does_not_have_it(role_validation):
    variables = {"carbon_cache_settings": {"PICKLE_RECEIVER_PORT": 2103}}
    assert role_validation.problems("carbon_cache", variables) == []
    (problem,) = role_validation.problems("carbon_cache", {**variables, "carbon_cache_is_behind_relay": True})
    assert "PICKLE_RECEIVER_PORT" in problem
    (problem,) = stack_problems({"all": ["web1"]}, {"web1": variables}, "web1")
    assert "line_receiver_port of instance 'a'" in problem


@pytest.mark.parametrize("receiver", ["LINE", "PICKLE", "PROTOBUF", "UDP"])
def test_receivers_are_bound_by_one_variable(receiver):
    (problem,) = carbon_cache_problems({**GOOD, "settings": {f"{receiver}_RECEIVER_INTERFACE": "0.0.0.0"}})
    assert "carbon_cache_bind_address" in problem


def test_protobuf_is_asked_for_where_its_receiver_is_wanted(role_validation):
    def imports(settings):
        return role_validation.value("carbon_cache", "__carbon_cache_imports", {"carbon_cache_settings": settings})

    assert "carbon.protobuf" not in imports({})
    assert "carbon.protobuf" in imports({"PROTOBUF_RECEIVER_PORT": 2005})


TWO = [*GOOD["instances"], {"name": "b", "line_receiver_port": 2103, "cache_query_port": 7102}]


@pytest.mark.parametrize(
    ("instances", "settings", "words"),
    [
        (GOOD["instances"], {"PICKLE_RECEIVER_PORT": 7002}, ["cache_query_port of instance 'a'", "PICKLE_RECEIVER_PORT", "TCP port 7002"]),
        (
            GOOD["instances"],
            {"PICKLE_RECEIVER_PORT": "2003"},
            ["line_receiver_port of instance 'a'", "PICKLE_RECEIVER_PORT", "TCP port 2003"],
        ),
        (GOOD["instances"], {"PROTOBUF_RECEIVER_PORT": 7002}, ["PROTOBUF_RECEIVER_PORT", "TCP port 7002"]),
        (
            GOOD["instances"],
            {"PICKLE_RECEIVER_PORT": 2004, "PROTOBUF_RECEIVER_PORT": 2004},
            ["PICKLE_RECEIVER_PORT", "PROTOBUF_RECEIVER_PORT", "TCP port 2004"],
        ),
        ([TWO[0], {**TWO[1], "cache_query_port": "2003"}], {}, ["line_receiver_port of instance 'a'", "cache_query_port of instance 'b'"]),
        (GOOD["instances"], {"PICKLE_RECEIVER_PORT": "pickle"}, ["PICKLE_RECEIVER_PORT", "pickle"]),
        (GOOD["instances"], {"ENABLE_UDP_LISTENER": True, "UDP_RECEIVER_PORT": 99999}, ["UDP_RECEIVER_PORT", "99999"]),
        ([{**TWO[0], "cache_query_port": 0}], {}, ["cache_query_port of instance 'a' in carbon_cache_instances is 0"]),
    ],
)
def test_two_listeners_of_carbon_on_one_port_are_refused(instances, settings, words):
    (problem,) = carbon_cache_problems({**GOOD, "instances": instances, "settings": settings})
    assert [word for word in words if word not in problem] == []


@pytest.mark.parametrize(
    "settings",
    [
        {"ENABLE_UDP_LISTENER": True},
        {"ENABLE_UDP_LISTENER": True, "UDP_RECEIVER_PORT": 7002, "PICKLE_RECEIVER_PORT": 2004},
        {"UDP_RECEIVER_PORT": 0, "PICKLE_RECEIVER_PORT": 0, "PROTOBUF_RECEIVER_PORT": ""},
    ],
)
def test_listeners_of_carbon_with_ports_of_their_own_are_not_refused(settings):
    assert carbon_cache_problems({**GOOD, "settings": settings}) == []


@pytest.mark.parametrize(
    ("directory", "words"),
    [
        ("/srv/%h/whisper", "letters, digits"),
        ("/srv/wh isper", "letters, digits"),
        ("/srv/$HOME/whisper", "letters, digits"),
        ("/srv/whisper\n", "letters, digits"),
        ("/srv/graphite/../x", "such as /srv/x"),
        ("/srv//whisper", "such as /srv/whisper"),
        ("//srv/whisper", "such as /srv/whisper"),
        ("/srv/whisper/", "such as /srv/whisper"),
        ("/var/lib", "such as /var/lib/graphite/whisper"),
        ("/var/lib/graphite", "/var/lib/graphite/whisper, for example"),
    ],
)
def test_a_whisper_directory_that_a_unit_or_the_application_would_not_take_is_refused(directory, words):
    (problem,) = carbon_cache_problems({**GOOD, "whisper_directory": directory})
    assert f"carbon_cache_whisper_directory is '{directory}'" in problem
    assert words in problem


@pytest.mark.parametrize("directory", ["/srv/whisper", "/home/graphite/whisper_2.x", "/var/lib/graphite/whisper", "/data/Größe/@a+b-c"])
def test_a_whisper_directory_of_its_own_is_not_refused(directory):
    assert carbon_cache_problems({**GOOD, "whisper_directory": directory}) == []


@pytest.mark.parametrize("role", ["carbon_cache", "graphite_web"])
def test_directories_of_the_package_are_made_where_they_are_missing_and_left_alone_where_they_are(role_validation, role):
    packaged = {item["path"] for item in role_validation.value(role, f"__{role}_directories", {})}
    there = {"/var/lib/graphite"}

    def missing(paths):
        variables = {f"__{role}_examination": {"paths": sorted(paths)}}
        return {item["path"] for item in role_validation.value(role, f"__{role}_missing_directories", variables)}

    assert there < packaged
    assert missing(packaged) == set()
    assert missing(there) == packaged - there


def test_carbon_trusts_the_certificate_of_graphite_web(role_validation):
    def unit(authority):
        return role_validation.rendered("carbon_cache", "carbon-cache@.service.j2", {"carbon_cache_tags_authority": authority})

    assert "Environment=SSL_CERT_FILE=/etc/ssl/graphite.pem\n" in unit("/etc/ssl/graphite.pem")
    assert "SSL_CERT_FILE" not in unit("")
    for authority in ("graphite.pem", "/etc/my file", "/etc/../graphite.pem"):
        (problem,) = role_validation.problems("carbon_cache", {"carbon_cache_tags_authority": authority})
        assert f"carbon_cache_tags_authority is '{authority}'" in problem
    assert role_validation.problems("carbon_cache", {"carbon_cache_tags_authority": "/etc/apache-wsgi/graphite.pem"}) == []
