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
    "more caches than names": ({"carbon_cache_instances": 33}, ["carbon_cache_instances", "33", "1 to 32"]),
    "number of caches that is a word": ({"carbon_cache_instances": "many"}, ["carbon_cache_instances", "many", "auto"]),
    "route of the relay to a cluster that is not there": (
        {"carbon_relay_routes": [{"match": ["*"], "send_to": ["elsewhere"]}]},
        ["carbon_relay_routes", "elsewhere", "caches"],
    ),
    "route of the relay without a match": ({"carbon_relay_routes": [{"send_to": ["caches"]}]}, ["carbon_relay_routes[0]", "lacks match"]),
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
    "namespace of StatsD that is no dictionary": ({"statsd_config": {"graphite": "abc"}}, ["statsd_config", "graphite", "abc"]),
    "time zone that does not exist": (
        {"graphite_web_time_zone": "Asia/Shangri-La"},
        ["graphite_web_time_zone", "Asia/Shangri-La"],
    ),
    "user without a password": (
        {"graphite_web_users": [{"name": "alice"}]},
        ["graphite_web_users", "alice", "password"],
    ),
    "memcached for everybody": ({"memcached_address": "0.0.0.0"}, ["memcached_address", "0.0.0.0", "memcached_allow_public"]),
    "memcached without room for its answers": (
        {"memcached_memory_megabytes": 4},
        ["memcached_item_megabytes", "4", "memcached_memory_megabytes"],
    ),
    "memcached without its port": ({"graphite_web_memcached_hosts": ["10.0.0.5"]}, ["graphite_web_memcached_hosts", "10.0.0.5:11211"]),
    "answers that are kept for less than no time": ({"graphite_web_cache_duration": -1}, ["graphite_web_cache_duration", "-1"]),
    "unused for no time": ({"carbon_cache_prune": {"unused_for": "0d"}}, ["carbon_cache_prune", "unused_for", "0d"]),
}
# Refused because of what several roles have.
STACK_CASES = {
    "port of another service": ({"graphite_web_port": 2003}, ["graphite_web_port", "carbon_relay_port", "2003"]),
    "memcached on the port of another service": ({"memcached_port": 8126}, ["memcached_port", "statsd_management_port", "8126"]),
    "relay where an instance of carbon listens": (
        {
            "carbon_relay_state": "present",
            "carbon_cache_instances": [{"name": "a", "line_receiver_port": 2003, "cache_query_port": 7002}],
        },
        ["carbon_relay_port", "carbon_cache_instances", "2003"],
    ),
    "relay where an instance of a number listens": (
        {"carbon_cache_instances": 3, "carbon_relay_port": 2203},
        ["carbon_relay_port", "2203"],
    ),
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
def site(ansible_command, tmp_path_factory):
    directory = tmp_path_factory.mktemp("bad_input")
    inventory = directory / "hosts"
    inventory.write_text(UNREACHABLE)

    def run(variables: dict, extra: dict | None = None) -> str:
        (directory / "host_vars").mkdir(exist_ok=True)
        (directory / "host_vars" / "web1.json").write_text(json.dumps(variables))
        status, output = ansible_command("ansible-playbook", "-i", inventory, "-e", json.dumps(extra or {}), "playbooks/site.yml")
        assert status != 0
        return output

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
    ("variables", "messages"),
    [
        ({"statsd_port": "abc"}, ["statsd_port of web1 is 'abc'; give a whole number."]),
        ({"statsd_config": "abc"}, ["statsd_config of web1 is 'abc'; give a dictionary."]),
        ({"statsd_config": None}, ["statsd_config of web1 is null; give a dictionary, or leave the variable out to have its default."]),
        ({"statsd_state": "gone"}, ["statsd_state of web1 is 'gone'; give one of present, absent."]),
        ({"apache_wsgi_sites": "x"}, ["apache_wsgi_sites of web1 is of another type; give a list."]),
        ({"apache_wsgi_sites": ["x"]}, ["apache_wsgi_sites[0] of web1 is of another type; give a dictionary."]),
        ({"graphite_web_users": {"a": "b"}}, ["graphite_web_users of web1 is a dictionary; give a list."]),
        ({"graphite_web_users": "alice=hidden"}, ["graphite_web_users of web1 is of another type; give a list."]),
        ({"graphite_web_server_name": ["a"]}, ["graphite_web_server_name of web1 is a list; give a text."]),
        ({"carbon_cache_prune": {"max_share": "x"}}, ["carbon_cache_prune.max_share of web1 is 'x'; give a number."]),
        (
            {"carbon_cache_storage_schemas": [{"name": "a", "retentions": "10s:1d"}]},
            ["carbon_cache_storage_schemas[0] of web1 lacks pattern."],
        ),
    ],
)
def test_a_value_that_does_not_fit_its_specification_is_told_once(variables, messages):
    assert stack_problems({"all": ["web1"]}, {"web1": variables}, "web1") == messages


def test_independent_problems_are_all_told():
    variables = {
        "statsd_port": 99999,
        "statsd_flush_interval": 7000,
        "statsd_state": "gone",
        "carbon_cache_prune": "abc",
        "carbon_cache_bind_address": "nowhere",
    }
    messages = stack_problems({"all": ["web1"]}, {"web1": {**variables, "statsd_state": "present"}}, "web1")
    assert [message.split()[0] for message in messages] == [
        "statsd_port",
        "carbon_cache_prune",
        "carbon_cache_bind_address",
        "statsd_flush_interval",
    ]
    # Whether there is a StatsD to flush is not known.
    messages = stack_problems({"all": ["web1"]}, {"web1": variables}, "web1")
    assert [message.split()[0] for message in messages if message.startswith("statsd_")] == ["statsd_state", "statsd_port"]


@pytest.mark.parametrize(
    "variables",
    [
        {"graphite_web_port": 99999},
        {"carbon_cache_storage_schemas": "abc", "carbon_cache_expected_series": {"mine": 10}},
        {"carbon_cache_instances": []},
        {"carbon_cache_instances": "abc"},
        {"carbon_cache_settings": "abc"},
        {"statsd_config": "abc", "statsd_port": 8125},
    ],
)
def test_what_follows_from_a_refused_value_is_not_told(variables):
    messages = stack_problems({"all": ["web1"]}, {"web1": variables}, "web1")
    assert [message.split()[0].strip(":") for message in messages] == [next(iter(variables))]


def test_a_value_that_another_host_is_refused_for_is_not_told_again():
    groups = {"all": ["c1", "s1", "s2"], "carbon": ["c1"], "statsd": ["s1", "s2"], "graphite_web": ["c1"]}
    refused = {"carbon_cache_instances": [], "carbon_cache_bind_address": "10.0.0.1"}
    hostvars = {"c1": refused, "s1": {"statsd_config": {"graphite": 1}}, "s2": {}}
    assert {host: len(stack_problems(groups, hostvars, host)) for host in hostvars} == {"c1": 1, "s1": 1, "s2": 0}
    # Unless --limit leaves that host out.
    (message,) = stack_problems(groups, hostvars, "s2", validated=["s2"])
    assert message.startswith("On c1: carbon_cache_instances is empty")


@pytest.fixture
def playbook_output(ansible_command, tmp_path):
    """Run a playbook that contacts no host with an inventory; return its output on one line."""

    def run(inventory: dict, playbook="playbooks/validate.yml", *arguments: str) -> str:
        file = tmp_path / "hosts.json"
        file.write_text(json.dumps(inventory))
        _status, output = ansible_command("ansible-playbook", "-i", file, playbook, *arguments)
        return " ".join(output.split())

    return run


def test_templates_that_fail_are_named_with_all_other_problems(playbook_output):
    variables = {
        "graphite_web_port": "{{ undefined_thing }}",
        "graphite_web_users": [{"name": "alice", "password": "{{ vault_x }}"}],
        "statsd_port": "{{ other_port }}",
        "carbon_cache_expected_series": "{{ 1 / 0 }}",
        "carbon_cache_whisper_directory": "/srv",
        "graphite_web_processes": "{{ hostvars['web1'].processes }}",
        "processes": "{{ 'many' }}",
    }
    output = playbook_output({"all": {"hosts": {"web1": variables}}})
    for name, reason in {
        "graphite_web_port": "'undefined_thing' is undefined",
        "graphite_web_users": "'vault_x' is undefined",
        "statsd_port": "'other_port' is undefined",
    }.items():
        assert f"{name} of web1 cannot be evaluated: {reason}. Correct its template" in output
    assert re.search("carbon_cache_expected_series of web1 cannot be evaluated: [^.]*division by zero", output)
    assert "carbon_cache_whisper_directory is '/srv'" in output
    assert "graphite_web_processes of web1 is 'many'" in output


def test_tags_that_select_nothing_are_refused_unless_another_project_may_have_them(playbook_output, importing_playbook):
    refusal = "No task of site.yml has one of the tags {}. The tags of site.yml are carbon"
    inventory = {"all": {"hosts": {"web1": {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh"}}}}
    imported = importing_playbook("site")
    for playbook in ("playbooks/site.yml", "metricstack.graphite.site"):
        output = playbook_output(inventory, playbook, "--tags", "mine")
        assert refusal.format("mine") in output
        assert "UNREACHABLE" not in output
        assert "UNREACHABLE" in playbook_output(inventory, playbook, "--tags", "mine,statsd")
    output = playbook_output(inventory, imported, "--tags", "mine")
    assert "Mine runs." in output
    assert "No task" not in output
    assert refusal.format("graphite-web") in playbook_output(inventory, imported, "--tags", "graphite-web,mine")


@pytest.fixture
def importing_playbook(tmp_path):
    """Write a playbook of another project that imports one of the collection's, with variables; return its path."""

    def write(name: str, **variables: object) -> Path:
        playbook = tmp_path / "other_project.yml"
        imported = {"ansible.builtin.import_playbook": f"metricstack.graphite.{name}", "vars": variables}
        mine = {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": "Mine runs."}, "tags": ["mine"]}]}
        playbook.write_text(json.dumps([mine, imported]))
        return playbook

    return write


def test_variables_of_a_play_are_refused_because_other_plays_do_not_see_them(playbook_output, importing_playbook):
    playbook = importing_playbook("validate", graphite_web_port=8085, statsd_port="{{ undefined_thing }}", carbon_cache_state="present")
    inventory = {"all": {"hosts": {"web1": {"graphite_web_port": 8080, "carbon_cache_state": "present", "statsd_flush_interval": 7000}}}}
    output = playbook_output(inventory, playbook)
    for name in ("graphite_web_port", "statsd_port"):
        assert f"{name} is set by the vars of a play or of import_playbook" in output
    assert "--extra-vars" in output
    assert "carbon_cache_state is set" not in output
    assert "statsd_flush_interval is 7000" in output


def test_a_secret_without_the_password_of_the_vault_is_named(ansible_command, tmp_path):
    (tmp_path / "password").write_text("vault-password\n")
    command = ["ansible-vault", "encrypt_string", "--vault-password-file", tmp_path / "password", "hidden-key"]
    encrypted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.rstrip()
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(f"all:\n  hosts:\n    web1:\n      graphite_web_secret_key: {encrypted}\n")

    def validate(*arguments):
        _status, output = ansible_command("ansible-playbook", "-i", inventory, "playbooks/validate.yml", *arguments)
        return " ".join(output.split())

    assert "failed=0" in validate("--vault-password-file", tmp_path / "password")
    reason = "Attempting to decrypt but no vault secrets found"
    assert re.search(f"graphite_web_secret_key of web1 cannot be evaluated: [^.]*{reason}", validate())


def test_extra_variables_are_honoured_everywhere(playbook_output, importing_playbook):
    extra = json.dumps({"graphite_web_port": 8085, "carbon_cache_whisper_directory": "/srv/w"})
    assert "failed=0" in playbook_output({"all": {"hosts": {"web1": None}}}, importing_playbook("validate"), "-e", extra)


def test_the_topology_names_a_template_that_fails(playbook_output):
    """Where a part of the hosts is validated, the template of another one may fail."""
    groups = {"statsd": {"hosts": {"s1": None}}, "carbon": {"hosts": {"c1": {"carbon_cache_bind_address": "{{ undefined_thing }}"}}}}
    inventory = {"all": {"vars": {"ansible_connection": "local"}, "children": groups}}
    output = playbook_output(inventory, "playbooks/prove.yml", "--limit", "s1")
    assert "carbon_cache_bind_address of c1 cannot be evaluated: 'undefined_thing' is undefined" in output


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


def test_a_stack_of_several_hosts_that_could_not_work_is_refused(ansible_command, tmp_path):
    def validate(**carbon):
        hosts = {"carbon": {"hosts": {"c1": carbon}}, "statsd": {"hosts": {"s1": None}}, "graphite_web": {"hosts": {"c1": None}}}
        inventory = tmp_path / "hosts.json"
        inventory.write_text(json.dumps({"all": {"children": hosts}}))
        return ansible_command("ansible-playbook", "-i", inventory, "playbooks/validate.yml")

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


def test_no_host_is_contacted_before_all_are_validated_whatever_the_strategy(tmp_path, monkeypatch):
    here = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    hosts = {
        "carbon": {"hosts": {"good": here}},
        "graphite_web": {"hosts": {"good": here}},
        "statsd": {"hosts": {"bad": {**here, "statsd_port": 99999}}},
    }
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"all": {"children": hosts, "vars": {"carbon_cache_bind_address": "127.0.0.1"}}}))
    monkeypatch.setenv("ANSIBLE_STRATEGY", "free")
    result = subprocess.run(
        ["ansible-playbook", "-i", inventory, "playbooks/site.yml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "statsd_port" in result.stdout
    assert "UNREACHABLE" not in result.stdout
