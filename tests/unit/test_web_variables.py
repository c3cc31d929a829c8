# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Settings as Python, and what Apache is told to listen on."""

from __future__ import annotations

import ast

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.filter.web import python_literal
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.graphite_web import (
    apache_wsgi_listen,
    apache_wsgi_port_problems,
    apache_wsgi_problems,
    graphite_web_problems,
    shared_port_problems,
)


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


def site(name, **options):
    return {"name": name, **options}


@pytest.mark.parametrize(
    ("sites", "elsewhere", "expected"),
    [
        ([site("a")], ["80"], {"a": []}),
        ([site("a", port=81), site("b", port=81)], ["80"], {"a": ["81"], "b": []}),
        ([site("a", port=81)], ["80", "0.0.0.0:81"], {"a": []}),
        ([site("a", port=81, address="10.0.0.1"), site("b", port=81)], ["80"], {"a": ["81"], "b": []}),
        ([site("a", port=81, address="10.0.0.1"), site("b", port=81, address="::1")], [], {"a": ["10.0.0.1:81"], "b": ["[::1]:81"]}),
        ([site("a", port=81, address="::1")], ["[::1]:81"], {"a": []}),
        ([site("a", address="10.0.0.1")], ["80"], {"a": []}),
        ([site("a", port="443")], ["80", "443"], {"a": []}),
    ],
)
def test_apache_is_told_everything_once(sites, elsewhere, expected):
    assert apache_wsgi_listen(sites, elsewhere) == expected


def test_a_port_that_another_service_has_is_refused():
    listeners = [["0.0.0.0:81", "/system.slice/nginx.service"], ["*:80", "/system.slice/apache2.service"]]
    (problem,) = apache_wsgi_port_problems([site("a", port=81), site("b", port=80)], ["80"], listeners)
    assert "'a'" in problem
    assert "nginx.service" in problem


def test_all_addresses_beside_one_of_them_is_refused():
    (problem,) = apache_wsgi_port_problems([site("a", port=81)], ["80", "10.0.0.1:81"], [])
    assert "10.0.0.1" in problem


def test_two_sites_at_the_same_place_are_refused():
    application = {"wsgi_script": "/a", "user": "a", "group": "a"}
    problems = apache_wsgi_problems([site("a", **application), site("b", port=80, **application), site("c", port=81, **application)])
    assert len(problems) == 1
    assert "'b'" in problems[0]


def test_services_that_share_a_port_are_named():
    (problem,) = shared_port_problems({"graphite_web_port": [2003, 80, 80], "carbon_cache_instances": [2003, "7002"]})
    assert problem.startswith("graphite_web_port and carbon_cache_instances use TCP port 2003")


def test_dashboards_are_judged_with_the_other_variables():
    variables = {
        "port": 80,
        "processes": 1,
        "threads": 1,
        "request_timeout": 60,
        "secret_key": "made on the host",
        "time_zone": "UTC",
        "database": {},
        "install_method": "package",
        "settings": {},
        "users": [],
    }
    assert graphite_web_problems(variables) == []
    (problem,) = graphite_web_problems({**variables, "dashboards": [{"name": "a/b", "graphs": []}]})
    assert problem.startswith("graphite_web_dashboards: dashboard 'a/b' has '/' in its name")
