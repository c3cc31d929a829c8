# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The variables of the role go_runtime_metrics. This file is private to the collection."""

from __future__ import annotations

import re
from collections import Counter

from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import address_problem, port_problem

_VERSION = re.compile(r"1\.(\d\d+)\Z")
_OLDEST = 19
_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
# StatsD rewrites other characters or takes them for syntax; the server refuses them as well.
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")
_PREFIX_LENGTH = 255
# Seconds; the server refuses less.
_SHORTEST_INTERVAL = 0.1
_HOST = re.compile(r"[A-Za-z0-9_.:%-]+\Z")
_BUILDERS = ("auto", "container", "host")


def go_runtime_metrics_instances(instances: list[dict], prefix: str = "go") -> list[dict]:
    """Return the instances with the name, the prefix of the metrics and the label in legends that each of them has."""
    versions = Counter(str(instance["version"]) for instance in instances)
    complete = []
    for instance in instances:
        version = str(instance["version"])
        name = str(instance.get("name") or "go" + version.replace(".", "-"))
        label = f"Go {version}" if versions[version] == 1 else f"Go {version} ({name})"
        complete.append({"name": name, "version": version, "port": instance["port"], "prefix": f"{prefix}-{name}", "label": label})
    return complete


def go_runtime_metrics_problems(variables: dict) -> list[str]:
    """Return one sentence for each mistake in the role's variables, given without the prefix ``go_runtime_metrics_``.

    ``hosts`` among them are the names in the inventory.
    """
    if variables.get("state") == "absent":
        return []
    problems = [
        address_problem("go_runtime_metrics_listen_address", variables["listen_address"]),
        port_problem("go_runtime_metrics_statsd_port", variables["statsd_port"]),
    ]
    if not _HOST.match(str(variables["statsd_host"])):
        problems.append(f"go_runtime_metrics_statsd_host is '{variables['statsd_host']}'; give a host's name or IP address.")
    interval = str(variables["interval"])
    if not re.match(r"\d+(\.\d+)?\Z", interval) or float(interval) < _SHORTEST_INTERVAL:
        problems.append(f"go_runtime_metrics_interval is {interval}; give seconds, at least {_SHORTEST_INTERVAL}.")
    if not _PREFIX.match(str(variables["prefix"])):
        problems.append(
            f"go_runtime_metrics_prefix is '{variables['prefix']}', which StatsD would misread; give parts of letters, digits, '_' and '-'"
            " that are joined by dots, such as go.web1."
        )
    builder = variables["builder"]
    if builder not in (*_BUILDERS, "localhost", *variables["hosts"]):
        problems.append(
            f"go_runtime_metrics_builder is '{builder}', which is no host of the inventory; give one, or {', '.join(_BUILDERS[:-1])}"
            f" or {_BUILDERS[-1]}."
        )
    if variables["images"] and builder not in ("auto", "container"):
        problems.append(
            f"go_runtime_metrics_images needs a build in a container; set go_runtime_metrics_builder to container, not {builder}."
        )
    return [problem for problem in problems + _instance_problems(variables) if problem]


def _instance_problems(variables: dict) -> list[str | None]:
    problems: list[str | None] = []
    instances = go_runtime_metrics_instances(variables["instances"], variables["prefix"])
    for instance in instances:
        where = f"go_runtime_metrics_instances: instance '{instance['name']}'"
        version = _VERSION.match(instance["version"])
        if not version or int(version.group(1)) < _OLDEST:
            problems.append(
                f"{where} has version {instance['version']}; give a text in quotes such as '1.24', of 1.{_OLDEST} or later, without the"
                " patch release."
            )
        if not _NAME.match(instance["name"]):
            problems.append(f"{where} has a name that cannot name a unit and a metric; use letters, digits, '_' and '-'.")
        if len(instance["prefix"]) > _PREFIX_LENGTH:
            problems.append(f"{where} reports as {instance['prefix']}, which is longer than {_PREFIX_LENGTH} characters; shorten it.")
        problem = port_problem(f"{where}: port", instance["port"])
        if not problem and int(instance["port"]) < 1024:
            problem = f"{where} has port {instance['port']}, which only root may listen on; give one from 1024 on."
        problems.append(problem)
    for port, count in Counter(str(instance["port"]) for instance in instances).items():
        if count > 1:
            problems.append(f"go_runtime_metrics_instances uses port {port} {count} times; give each instance a port of its own.")
    for name, count in Counter(instance["name"] for instance in instances).items():
        if count > 1:
            problems.append(f"go_runtime_metrics_instances has {count} instances '{name}'; give each a name of its own.")
    return problems
