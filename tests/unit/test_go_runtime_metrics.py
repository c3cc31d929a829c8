# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The Go server: what its role refuses, how it is built, and its own tests in whatever Go is here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.go_runtime_metrics import (
    go_runtime_metrics_instances,
    go_runtime_metrics_problems,
)

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles" / "go_runtime_metrics" / "files"
GOOD = {
    "instances": [{"version": "1.19", "port": 8019}, {"version": "1.24", "port": "8024", "name": "canary_2"}],
    "listen_address": "127.0.0.1",
    "statsd_host": "statsd.example.org",
    "statsd_port": 8125,
    "interval": 5,
    "prefix": "go.web1",
    "builder": "auto",
    "images": False,
}
BAD = {
    "old version": ({"instances": [{"version": "1.18", "port": 8000}]}, ["go1-18", "version 1.18", "1.19"]),
    "patch release": ({"instances": [{"version": "1.24.4", "port": 8000}]}, ["1.24.4", "patch release"]),
    "version without quotes": ({"instances": [{"version": 1.20, "port": 8000}]}, ["version 1.2;", "in quotes"]),
    "no version": ({"instances": [{"version": "latest", "port": 8000}]}, ["version latest"]),
    "port out of range": ({"instances": [{"version": "1.24", "port": 81250}]}, ["go1-24", "81250"]),
    "port of root": ({"instances": [{"version": "1.24", "port": 80}]}, ["go1-24", "80", "1024"]),
    "port twice": (
        {"instances": [{"version": "1.23", "port": 8000}, {"version": "1.24", "port": 8000}]},
        ["go_runtime_metrics_instances", "8000", "2 times"],
    ),
    "name twice": (
        {"instances": [{"version": "1.24", "port": 8000}, {"version": "1.24", "port": 8001}]},
        ["2 instances 'go1-24'", "name of its own"],
    ),
    "name that names no unit": ({"instances": [{"version": "1.24", "port": 8000, "name": "a/b"}]}, ["'a/b'", "name"]),
    "name that is two nodes": ({"instances": [{"version": "1.24", "port": 8000, "name": "go1.24"}]}, ["'go1.24'", "name"]),
    "prefix with a colon": ({"prefix": "go:web1"}, ["go_runtime_metrics_prefix", "go:web1"]),
    "prefix with an empty part": ({"prefix": "go..web1"}, ["go_runtime_metrics_prefix", "go..web1"]),
    "prefix with a line feed": ({"prefix": "go.web1\n"}, ["go_runtime_metrics_prefix"]),
    "prefix that is too long": ({"prefix": "x" * 248}, ["canary_2", "255"]),
    "interval of nothing": ({"interval": 0}, ["go_runtime_metrics_interval is 0", "at least 0.1"]),
    "interval that the server refuses": ({"interval": 0.05}, ["go_runtime_metrics_interval is 0.05", "at least 0.1"]),
    "interval with a unit": ({"interval": "5s"}, ["go_runtime_metrics_interval is 5s"]),
    "address of nobody": ({"listen_address": "localhost"}, ["go_runtime_metrics_listen_address", "localhost"]),
    "StatsD without a name": ({"statsd_host": ""}, ["go_runtime_metrics_statsd_host"]),
    "StatsD with its port": ({"statsd_host": "a b"}, ["go_runtime_metrics_statsd_host", "a b"]),
    "port of StatsD": ({"statsd_port": 0}, ["go_runtime_metrics_statsd_port is 0"]),
    "builder that nobody knows": ({"builder": "build1"}, ["go_runtime_metrics_builder", "build1", "inventory"]),
    "images without an engine": ({"builder": "host", "images": True}, ["go_runtime_metrics_images", "container"]),
}


@pytest.mark.parametrize(
    "more", [{}, {"instances": []}, {"builder": "web2"}, {"builder": "localhost"}, {"statsd_host": "::1"}, {"interval": 0.5}]
)
def test_good_variables_are_taken(more):
    assert go_runtime_metrics_problems({**GOOD, **more, "hosts": ["web1", "web2"]}) == []


@pytest.mark.parametrize(("more", "named"), BAD.values(), ids=BAD.keys())
def test_bad_variables_are_refused_by_name(more, named):
    problems = go_runtime_metrics_problems({**GOOD, **more, "hosts": ["web1", "web2"]})
    assert len(problems) == 1, problems
    assert [word for word in named if word not in problems[0]] == []


def test_instances_are_called_after_their_version():
    assert go_runtime_metrics_instances([{"version": "1.24", "port": 8000}, {"version": "1.24", "port": 1, "name": "b"}], "go.web1") == [
        {"name": "go1-24", "version": "1.24", "port": 8000, "prefix": "go.web1-go1-24", "label": "Go 1.24 (go1-24)"},
        {"name": "b", "version": "1.24", "port": 1, "prefix": "go.web1-b", "label": "Go 1.24 (b)"},
    ]


def test_bad_input_is_refused_before_the_first_contact(ansible_command, tmp_path):
    inventory = tmp_path / "hosts"
    inventory.write_text(
        "web1 ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_common_args='-o ConnectTimeout=1'\n"
    )
    variables = {"go_runtime_metrics_instances": [{"version": "1.24", "port": 81250}]}
    command = ["ansible-playbook", "-i", inventory, "playbooks/go_runtime_metrics.yml", "-e"]
    _status, bad = ansible_command(*command, json.dumps(variables))
    assert "UNREACHABLE" not in bad
    assert "go_runtime_metrics_instances: instance 'go1-24': port is 81250" in bad
    _status, good = ansible_command(*command, "{}")
    assert "UNREACHABLE" in good


@pytest.fixture
def build(tmp_path):
    """Run build.sh with a Go of its own that says it is 1.24.4 and builds a text, and with nothing else of Go or apt."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "awk", "cat", "chmod", "cp", "dirname", "grep", "id", "mkdir", "mktemp", "mv", "rm", "sed", "sort", "tail", "xargs"):
        (tools / tool).symlink_to(shutil.which(tool))
    go = tools / "go"
    go.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = env ]; then echo go1.24.4; exit; fi\n'
        'while [ "$1" != -o ]; do shift; done\n'
        'echo "$CGO_ENABLED $GOARCH" > "$2"; exit "$STATUS"\n'
    )
    go.chmod(0o755)
    target = tmp_path / "out" / "server"

    def run(version: str, status: int = 0) -> subprocess.CompletedProcess:
        environment = {"PATH": str(tools), "HOME": str(tmp_path), "GOARCH": "arm64", "STATUS": str(status)}
        return subprocess.run(["sh", FILES / "build.sh", version, target], env=environment, capture_output=True, text=True, check=False)

    return run, target


def test_build_takes_the_go_on_the_path(build):
    run, target = build
    result = run("1.24")
    assert result.returncode == 0, result.stderr
    assert target.read_text() == "0 arm64\n"
    assert os.access(target, os.X_OK)
    assert list(target.parent.iterdir()) == [target]


def test_a_build_that_fails_leaves_nothing(build):
    run, target = build
    assert run("1.24", status=1).returncode != 0
    assert list(target.parent.iterdir()) == []


# 1.2 is no 1.24, and /usr/lib has neither.
@pytest.mark.parametrize("version", ["1.2", "1.99"])
def test_a_version_that_cannot_be_had_is_named(build, version):
    run, target = build
    result = run(version)
    assert result.returncode != 0
    assert f"build.sh: Go {version} is not to be had on " in result.stderr
    assert f"/usr/lib/go-{version}" in result.stderr
    assert "the path has go1.24.4" in result.stderr
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("command", [["gofmt", "-l", "."], ["go", "test", "-vet=all", "."]], ids=" ".join)
def test_go_approves_of_the_server(tmp_path_factory, command):
    cache = tmp_path_factory.getbasetemp() / "go"
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": str(cache),
        "GOENV": "off",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "HOME": str(cache),
    }
    result = subprocess.run(command, cwd=FILES / "server", env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert command[0] != "gofmt" or not result.stdout, result.stdout
