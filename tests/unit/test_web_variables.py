# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Graphite-web's variables, and settings as Python."""

from __future__ import annotations

import ast

import pytest
from ansible.errors import AnsibleFilterError
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
        "install_method": "package",
        "settings": {},
        "users": [],
    }
    assert graphite_web_problems(variables) == []
    (problem,) = graphite_web_problems({**variables, "dashboards": [{"name": "a/b", "graphs": []}]})
    assert problem.startswith("graphite_web_dashboards: dashboard 'a/b' has '/' in its name")
