# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Bad input is refused by name before any host is contacted.

Each case is asked of the filter that validate.yml asks, and one of each kind goes through the playbooks. Their only host cannot be
reached: a run that got as far as touching it would end with `unreachable` instead of the message that is looked for.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.metricstack.graphite.plugins.filter.stack import stack_problems

ROOT = Path(__file__).resolve().parents[2]
UNREACHABLE = "web1 ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_common_args='-o ConnectTimeout=1'\n"


def schema(retentions: str, name: str = "stats", pattern: str = r"^stats\.") -> dict:
    return {"name": name, "pattern": pattern, "retentions": retentions}


# Refused by the validation of one role.
CASES = {
    "malformed retention": (
        {"carbon_cache_storage_schemas": [schema("10s:6h,1m-6d")]},
        ["carbon_cache_storage_schemas", "stats", "1m-6d"],
    ),
    "unknown unit": (
        {"carbon_cache_storage_schemas": [schema("10s:6h,1q:6d")]},
        ["carbon_cache_storage_schemas", "stats", "1q"],
    ),
    "retention that does not divide": (
        {"carbon_cache_storage_schemas": [schema("10s:6h,25s:6d")]},
        ["carbon_cache_storage_schemas", "stats", "25"],
    ),
    "shadowed rule": (
        {
            "carbon_cache_storage_schemas": [
                schema("60s:1d", "default_1min_for_1day", ".*"),
                schema("10s:6h,1min:6d,10min:1800d", "stats", "^stats.*"),
            ]
        },
        ["carbon_cache_storage_schemas", "stats", "default_1min_for_1day"],
    ),
    "duplicate rule name": (
        {"carbon_cache_storage_schemas": [schema("10s:6h"), schema("60s:1d", "stats", "^other")]},
        ["carbon_cache_storage_schemas", "stats"],
    ),
    "pattern that is not a regular expression": (
        {"carbon_cache_storage_schemas": [schema("10s:6h", pattern="^stats(")]},
        ["carbon_cache_storage_schemas", "^stats("],
    ),
    "unknown key in a typed list": (
        {"carbon_cache_storage_schemas": [{**schema("10s:6h"), "retention": "10s:6h"}]},
        ["carbon_cache_storage_schemas", "retention"],
    ),
    "expected series of a rule that is not there": (
        {"carbon_cache_expected_series": {"stast": 10000}},
        ["carbon_cache_expected_series", "stast", "carbon_cache_storage_schemas", "carbon, stats, default"],
    ),
    "fewer series than none": ({"carbon_cache_expected_series": -10000}, ["carbon_cache_expected_series", "-10000"]),
    "expected series that are no number": (
        {"carbon_cache_expected_series": {"stats": "10k"}},
        ["carbon_cache_expected_series", "stats", "10k"],
    ),
    "data removed under a service that stays": (
        {"carbon_cache_remove_data": True},
        ["carbon_cache_remove_data", "carbon_cache_state", "absent"],
    ),
    "database removed under an application that stays": (
        {"graphite_web_remove_data": True},
        ["graphite_web_remove_data", "graphite_web_state", "absent"],
    ),
    "driver that the virtual environment lacks": (
        {"graphite_web_install_method": "venv", "graphite_web_database": {"engine": "django.db.backends.mysql", "name": "graphite"}},
        ["graphite_web_database", "mysql", "graphite_web_install_method"],
    ),
    "unknown install method": ({"carbon_cache_install_method": "pip"}, ["carbon_cache_install_method", "pip"]),
    "environment of pip that is no text": (
        {"graphite_venv_build_environment": {"PIP_RETRIES": 3}},
        ["graphite_venv_build_environment", "3"],
    ),
    "unknown state": ({"statsd_state": "gone"}, ["statsd_state", "gone"]),
    "port out of range": ({"statsd_port": 81250}, ["statsd_port", "81250"]),
    "port used twice": (
        {"carbon_cache_instances": [{"name": "a", "line_receiver_port": 2003, "cache_query_port": 2003}]},
        ["carbon_cache_instances", "2003"],
    ),
    "same place for two sites": (
        {"apache_wsgi_sites": [{"name": "other", "wsgi_script": "/other.wsgi", "user": "other", "group": "other"}]},
        ["apache_wsgi_sites", "other", "graphite"],
    ),
    "names as the server's name": ({"graphite_web_server_name": "a b"}, ["graphite_web_server_name", "a b"]),
    "address as the server's name": ({"graphite_web_server_name": "2001:db8::1"}, ["graphite_web_server_name", "2001:db8::1"]),
    "two hosts in one": ({"graphite_web_allowed_hosts": ["a b"]}, ["graphite_web_allowed_hosts", "a b"]),
    "script of a site without its path": (
        {"apache_wsgi_sites": [{"name": "other", "wsgi_script": "o.wsgi", "user": "other", "group": "other", "port": 81}]},
        ["apache_wsgi_sites", "other", "o.wsgi"],
    ),
    "empty secret key": ({"graphite_web_secret_key": ""}, ["graphite_web_secret_key"]),
    "secret key without a value": ({"graphite_web_secret_key": None}, ["graphite_web_secret_key"]),
    "whisper directory that holds everything": ({"carbon_cache_whisper_directory": "/srv"}, ["carbon_cache_whisper_directory", "/srv"]),
    "number for a name": ({"graphite_web_users": [{"name": 7}]}, ["graphite_web_users", "7"]),
    "setting that a variable owns": ({"statsd_config": {"flushInterval": 60000}}, ["statsd_config", "statsd_flush_interval"]),
    "time zone that does not exist": (
        {"graphite_web_time_zone": "Asia/Shangri-La"},
        ["graphite_web_time_zone", "Asia/Shangri-La"],
    ),
    "user without a password": (
        {"graphite_web_users": [{"name": "alice"}]},
        ["graphite_web_users", "alice", "password"],
    ),
    "unused for no time": ({"carbon_cache_prune": {"unused_for": "0d"}}, ["carbon_cache_prune", "unused_for", "0d"]),
}
# Refused because of what several roles have.
STACK_CASES = {
    "port of another service": ({"graphite_web_port": 2003}, ["graphite_web_port", "carbon_cache_instances", "2003"]),
    "flush interval that is not the finest retention": (
        {"statsd_flush_interval": 60000},
        ["statsd_flush_interval", "60000", "10000"],
    ),
    "timers that are kept otherwise": (
        {"carbon_cache_storage_schemas": [schema("60s:1d", "timers", r"^stats\.timers\."), schema("10s:6h", "rest", ".*")]},
        ["statsd_flush_interval", "stats.timers.requests"],
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bad_input")
    inventory = directory / "hosts"
    inventory.write_text(UNREACHABLE)

    def run(variables: dict, extra: dict | None = None) -> str:
        (directory / "host_vars").mkdir(exist_ok=True)
        (directory / "host_vars" / "web1.json").write_text(json.dumps(variables))
        result = subprocess.run(
            ["ansible-playbook", "-i", inventory, "-e", json.dumps(extra or {}), "playbooks/site.yml"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode != 0
        return result.stdout + result.stderr

    return run


# An argument spec and a list of problems, which are all the ways in which a role refuses something.
FRONT_DOOR_CASES = {name: CASES[name] for name in ("unknown state", "port used twice")} | STACK_CASES


@pytest.mark.parametrize(("variables", "named"), (CASES | STACK_CASES).values(), ids=(CASES | STACK_CASES).keys())
def test_refused_by_name(variables, named):
    """As playbooks/validate.yml asks for all roles and hosts at once."""
    messages = stack_problems({"all": ["web1"]}, {"web1": variables}, "web1")
    assert any(all(word in message for word in named) for message in messages), messages


def test_every_mistake_is_named_at_once():
    variables = {"statsd_port": 81250, "carbon_cache_whisper_directory": "/srv", "graphite_web_users": [{"name": "alice"}]}
    messages = "\n".join(stack_problems({"all": ["web1"]}, {"web1": variables}, "web1"))
    assert [name for name in variables if name not in messages] == []


@pytest.mark.parametrize(
    ("role", "variables", "named"),
    [
        ("apache_wsgi", {"apache_wsgi_sites": [{"name": "a b", "wsgi_script": "/a", "user": "a", "group": "a"}]}, "a b"),
        ("carbon_cache", {"carbon_cache_whisper_directory": "/srv"}, "carbon_cache_whisper_directory"),
        ("carbon_cache", {"carbon_cache_remove_data": True}, "carbon_cache_remove_data"),
        ("go_runtime_metrics", {"go_runtime_metrics_interval": 0}, "go_runtime_metrics_interval"),
        ("graphite_venv", {"graphite_venv_build_environment": {"PIP_RETRIES": 3}}, "PIP_RETRIES"),
        ("graphite_web", {"graphite_web_users": [{"name": "alice"}]}, "alice"),
        ("statsd", {"statsd_port": 81250}, "81250"),
    ],
)
def test_a_role_alone_refuses_as_well(role_validation, role, variables, named):
    assert named in "\n".join(role_validation.problems(role, variables))


def test_a_good_inventory_is_not_refused(role_validation):
    for role in sorted(path.parent.name for path in ROOT.glob("roles/*/meta")):
        assert role_validation.problems(role, {}) == []


@pytest.mark.parametrize(("variables", "named"), FRONT_DOOR_CASES.values(), ids=FRONT_DOOR_CASES.keys())
def test_refused_by_name_before_the_first_contact(site, variables, named):
    output = site(variables)
    assert "UNREACHABLE" not in output, output
    failure = " ".join(re.split(r"fa(?:tal|iled): \[", output, maxsplit=1)[-1].split())
    assert [word for word in named if word not in failure] == [], output


def test_a_stack_of_several_hosts_that_could_not_work_is_refused(tmp_path):
    def validate(**carbon):
        hosts = {"carbon": {"hosts": {"c1": carbon}}, "statsd": {"hosts": {"s1": None}}, "graphite_web": {"hosts": {"c1": None}}}
        inventory = tmp_path / "hosts.json"
        inventory.write_text(json.dumps({"all": {"children": hosts}}))
        result = subprocess.run(
            ["ansible-playbook", "-i", inventory, "playbooks/validate.yml"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return result.returncode, result.stdout + result.stderr

    status, output = validate()
    assert status != 0
    assert "carbon_cache_bind_address of c1" in " ".join(output.split())
    status, output = validate(carbon_cache_bind_address="10.0.0.5")
    assert status == 0, output


def test_sites_that_would_replace_graphites_are_refused(site):
    output = site({}, extra={"apache_wsgi_sites": []})
    assert "UNREACHABLE" not in output
    assert "apache_wsgi_sites" in output
    assert "inventory" in output


def test_good_input_gets_as_far_as_the_host(site):
    article = [
        schema("60s:90d", "carbon", r"^carbon\."),
        schema("10s:6h,1min:6d,10min:1800d"),
        schema("60s:1d", "rest", ".*"),
    ]
    assert "UNREACHABLE" in site({"carbon_cache_storage_schemas": article})
