# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Graphite-web's variables, and settings as Python."""

from __future__ import annotations

import ast

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.filter.stack import _defaults
from ansible_collections.metricstack.graphite.plugins.filter.web import python_literal
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.graphite_web import graphite_web_problems


@pytest.mark.parametrize(
    "value",
    [
        "it's",
        'say "no"',
        "'; import os #",
        "back\\slash\\",
        "two\nlines\t\r",
        "日本語 \u2028 \U0001f600",
        "long " * 60,
        {"a": [None, True, 1.5, {"b": "'"}]},
        [],
    ],
)
def test_a_value_stays_the_value(value):
    assert ast.literal_eval(python_literal(value)) == value


@pytest.mark.parametrize("value", [float("inf"), float("nan"), object()])
def test_what_has_no_literal_is_refused(value):
    with pytest.raises(AnsibleFilterError, match="python_literal cannot write"):
        python_literal(value)


def test_dashboards_are_judged_with_the_other_variables():
    variables = {
        "port": 80,
        "processes": 1,
        "threads": 1,
        "request_timeout": 60,
        "secret_key": "made on the host",
        "time_zone": "UTC",
        "database": {},
        "cluster_servers": [],
        "store_address": "",
        "store_port": 8081,
        "install_method": "package",
        "settings": {},
        "cache_duration": 10,
        "users": [],
    }
    assert graphite_web_problems(variables) == []
    (problem,) = graphite_web_problems({**variables, "dashboards": [{"name": "a/b", "graphs": []}]})
    assert problem.startswith("graphite_web_dashboards: dashboard 'a/b' has '/' in its name")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"memcached_hosts": ["10.0.0.5"]}, "graphite_web_memcached_hosts has '10.0.0.5'; give an address and a port"),
        ({"memcached_hosts": ["::1:11211"]}, "graphite_web_memcached_hosts has '::1:11211'; give an address and a port"),
        ({"memcached_hosts": ["a:70000"]}, "graphite_web_memcached_hosts has 'a:70000'; give an address and a port"),
        ({"memcached_hosts": ["a:1 b:1"]}, "graphite_web_memcached_hosts has 'a:1 b:1'; give an address and a port"),
        ({"memcached_hosts": ["a:1", "a:1"]}, "graphite_web_memcached_hosts has 'a:1' twice"),
        ({"cache_duration": -1}, "graphite_web_cache_duration is -1; give a number of seconds"),
        ({"cache_duration": 0.5}, "graphite_web_cache_duration is 0.5; give a number of seconds"),
        ({"memcached_hosts": ["10.0.0.5:11211", "[2001:db8::1]:11211", "cache-1.example.org:11211"], "cache_duration": "0"}, None),
    ],
)
def test_servers_and_lifetimes_of_answers(variables, words):
    defaults = {name.partition("graphite_web_")[2]: value for name, value in _defaults().items() if name.startswith("graphite_web_")}
    problems = graphite_web_problems({**defaults, **variables})
    assert len(problems) == bool(words)
    assert (words or "") in "".join(problems)


GRAPHITE = {"name": "graphite", "wsgi_script": "/graphite.wsgi", "user": "graphite", "group": "graphite"}


@pytest.mark.parametrize(
    ("sites", "paths", "installs", "runs"),
    [
        ([GRAPHITE], [], True, True),
        ([{**GRAPHITE, "state": "absent"}], [], False, False),
        ([{**GRAPHITE, "state": "absent"}], ["/etc/apache2"], False, False),
        ([{**GRAPHITE, "state": "absent"}], ["/usr/sbin/apache2"], False, True),
        ([{**GRAPHITE, "state": "absent"}, {**GRAPHITE, "name": "wiki"}], [], True, True),
        ([], [], False, False),
    ],
)
def test_apache_is_installed_for_a_site_only(role_validation, sites, paths, installs, runs):
    variables = {"apache_wsgi_sites": sites, "__apache_wsgi_examination": {"paths": paths}}
    requirements = role_validation.value("apache_wsgi", "__apache_wsgi_requirements", variables)
    assert ("apache2" in requirements["packages"]) is installs
    assert "/usr/sbin/apache2" in requirements["paths"]
    assert role_validation.value("apache_wsgi", "__apache_wsgi_runs", variables) is runs


def guest(**changes):
    return {"access_without_login": [{"name": "grafana", "networks": ["192.0.2.7"], "areas": ["read"], **changes}]}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"limits": {"points": 0}}, "graphite_web_limits: points is 0; give a number of at least 1."),
        ({"limits": {"memory": 64}}, "graphite_web_limits: memory is 64 MiB, in which graphite-web does not run; give 256 or more."),
        ({"limits": {"memory": 512, "targets": 1000}}, None),
        ({"access": {"read": "Users"}}, "graphite_web_access: read is 'Users'; give everybody, users, staff"),
        ({"access": {"admin": "everybody"}}, "Django lets nobody but staff in"),
        (guest(token="x" * 20), "'grafana' needs either networks or a token"),
        (guest(networks=[]), "'grafana' needs either networks or a token"),
        (guest(networks=["192.0.2.7/24"]), "has host bits set"),
        (guest(networks=["192.0.2.700"]), "has the network '192.0.2.700'"),
        (guest(networks=None, token="x" * 20, forwards=True), "'grafana' has forwards, which is about networks"),
        (guest(forwards=True), None),
        (guest(networks=None, token="too short"), "has a token that is too short"),
        (guest(networks=None, token="white space within it"), "has a token that is too short, or has white space"),
        (
            {
                "access_without_login": [
                    {"name": name, "token": "a-token-of-twenty-characters", "areas": ["read"]} for name in ("one", "other")
                ]
            },
            "'one' has the token of another one",
        ),
        ({"access_without_login": guest()["access_without_login"] * 2}, "'grafana' is there twice"),
        (guest(networks=["2001:db8::/32", "grafana.example.org", "host_1"]), None),
        ({"access": {"read": ["alice"], "events": "nobody", "admin": "superusers"}}, None),
    ],
)
def test_who_may_do_what(variables, words):
    defaults = {name.partition("graphite_web_")[2]: value for name, value in _defaults().items() if name.startswith("graphite_web_")}
    problems = graphite_web_problems({**defaults, **variables})
    assert bool(problems) == bool(words), problems
    assert (words or "") in "".join(problems)


CERTIFICATE = {"certificate": "/etc/le/full.pem", "key": "/etc/le/key.pem"}
NAME = {"server_name": "graphite.example.org"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"tls": CERTIFICATE}, "graphite_web_tls is set, but graphite_web_server_name is not; set it to the name in the certificate"),
        ({**NAME, "tls": {"certificate": "/c"}}, "graphite_web_tls lacks key; give paths on the host, such as those of certbot"),
        ({**NAME, "tls": {"hsts": 300}}, "graphite_web_tls lacks certificate and key"),
        ({**NAME, "tls": {**CERTIFICATE, "self_signed": True}}, "graphite_web_tls has self_signed as well as certificate and key"),
        ({**NAME, "tls": {**CERTIFICATE, "certificate": "full.pem"}}, "graphite_web_tls: certificate is 'full.pem'; give an absolute path"),
        ({**NAME, "tls": {**CERTIFICATE, "key": "MIIsecret"}}, "graphite_web_tls: key is no absolute path; give"),
        ({**NAME, "tls": {**CERTIFICATE, "key": "-----BEGIN CERTIFICATE-----"}}, "key is a text without 'PRIVATE KEY'"),
        ({**NAME, "tls": {**CERTIFICATE, "chain": "-----BEGIN PRIVATE KEY-----"}}, "chain is a text without 'BEGIN CERTIFICATE'"),
        ({**NAME, "tls": {**CERTIFICATE, "port": 70000}}, "graphite_web_tls: port is 70000; a port is"),
        ({**NAME, "tls": {**CERTIFICATE, "port": 80}}, "graphite_web_tls: port is 80, which is the port without TLS as well"),
        ({**NAME, "tls": {**CERTIFICATE, "hsts": -1}}, "graphite_web_tls: hsts is -1; give a number of seconds"),
        ({**NAME, "tls": {**CERTIFICATE, "minimum_version": "TLSv1.1"}}, "minimum_version is TLSv1.1; give one of TLSv1.2, TLSv1.3"),
        ({**NAME, "tls": {**CERTIFICATE, "ciphers": "A B"}}, "ciphers is 'A B'; give names of OpenSSL"),
        ({**NAME, "tls": {**CERTIFICATE, "acme_directory": "html"}}, "acme_directory is 'html'; give an absolute path"),
        ({**NAME, "tls": {"self_signed": True, "redirect": False, "port": 8443, "minimum_version": "TLSv1.3"}}, None),
        ({**NAME, "tls": {**CERTIFICATE, "chain": "/i", "hsts": 31536000, "authority": "/ca", "ciphers": "ECDHE+AESGCM"}}, None),
        ({**NAME, "tls": {"certificate": "-----BEGIN CERTIFICATE-----", "key": "-----BEGIN EC PRIVATE KEY-----"}}, None),
    ],
)
def test_tls(variables, words):
    defaults = {name.partition("graphite_web_")[2]: value for name, value in _defaults().items() if name.startswith("graphite_web_")}
    problems = graphite_web_problems({**defaults, **variables})
    assert len(problems) == bool(words), problems
    assert (words or "") in "".join(problems)
    assert "secret" not in "".join(problems)


@pytest.mark.parametrize(
    ("tls", "is_secure"),
    [({}, False), ({"self_signed": True}, True), ({"self_signed": True, "redirect": False}, False), ({"redirect": "yes"}, True)],
)
def test_cookies_are_for_tls_where_nothing_is_served_without(role_validation, tls, is_secure):
    settings = role_validation.value("graphite_web", "__graphite_web_tls_settings", {"graphite_web_tls": tls})
    assert settings == ({"SESSION_COOKIE_SECURE": True, "CSRF_COOKIE_SECURE": True} if is_secure else {})
