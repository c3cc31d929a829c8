# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What the playbooks record of a host before they use it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def describe(tmp_path, ansible_command):
    """Describe the stack of the host web1, and evaluate an expression; return the exit status and the output."""
    for name in ("tasks", "vars"):
        (tmp_path / name).symlink_to(ROOT / "playbooks" / name)

    def run(hosts, expression):
        tasks = [{"ansible.builtin.include_tasks": "tasks/describe_stack.yml"}, {"ansible.builtin.debug": {"msg": expression}}]
        play = {"hosts": "web1", "gather_facts": False, "connection": "local", "tasks": tasks}
        inventory = {"all": {"hosts": hosts, "children": {group: {"hosts": dict.fromkeys(hosts)} for group in ("statsd", "graphite_web")}}}
        inventory["all"]["children"]["carbon"] = {"hosts": {list(hosts)[-1]: None}}
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory).replace("'!unsafe ", "!unsafe '"))
        (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
        return ansible_command("ansible-playbook", "-vvv", "-i", tmp_path / "hosts.yml", tmp_path / "play.yml")

    return run


def test_values_with_braces_stay_as_they_are(describe):
    title = "{{ of.no.variable }} {% nor %} {# comment #}"
    status, output = describe({"web1": {"statsd_config": {"title": f"!unsafe {title}"}}}, "{{ stack.statsd.config.title }}")
    assert status == 0, output
    # The topology has the configuration of StatsD, which may hold secrets: the value is shown by the last task alone.
    assert output.count(title) == 1


def test_the_reason_why_a_topology_cannot_be_described_is_shown(describe):
    status, output = describe({"web1": None, "store1": {"carbon_cache_instances": "auto"}}, "{{ stack }}")
    assert status != 0
    last = output.partition("Report why the topology cannot be described")[2]
    assert "the number of processors of store1 is not known in this play" in " ".join(last.split())
