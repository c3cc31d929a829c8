# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Each example runs as it is, a second run changes nothing, and a metric comes back."""

from __future__ import annotations

import json
import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES, SCENARIO = ROOT / "examples", Path(__file__).resolve().parents[1]
ROW = os.environ["MOLECULE_HOST"]
# Those of the examples may be in use where the tests run.
DOCUMENTED, NETWORK = "192.0.2.", "10.213.179."


def run(*command, **variables):
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
        "ANSIBLE_ROLES_PATH": str(SCENARIO / "stand_ins"),
        "ANSIBLE_FORCE_COLOR": "0",
        **variables,
    }
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def in_host(name, *command):
    return run("docker", "exec", f"{ROW}-{name}", *command)


def page(name, path):
    """Ask the Apache of the host by a name."""
    ask = "import sys, urllib.request as u; print(u.urlopen(u.Request(sys.argv[1], headers={'Host': sys.argv[2]})).read())"
    return in_host("metrics", "python3", "-c", ask, f"http://127.0.0.1{path}", name)


@contextmanager
def hosts(**addresses):
    """Have hosts with these names and last numbers of addresses, at which they reach each other."""
    names = [f"{ROW}-{name}" for name in addresses]
    by_name = {f"{ROW}-{name}": f"{NETWORK}{number}" for name, number in addresses.items()}
    # The shared playbook names the host it is about item.
    address = "{{ " + json.dumps(by_name) + "[item] }}"
    subprocess.run(["docker", "network", "rm", ROW], capture_output=True, check=False)  # of a run that was ended
    try:
        subprocess.run(["docker", "network", "create", f"--subnet={NETWORK}0/24", ROW], capture_output=True, check=True)
        # Debian's memcached listens on ::1 as well, which Docker takes away in a network without IPv6.
        options = [f"--network={ROW}", f"--ip={address}", "--sysctl=net.ipv6.conf.lo.disable_ipv6=0"]
        variables = {"shared_hosts": names, "shared_options": options}
        run("ansible-playbook", "-i", "localhost,", "molecule/shared/create.yml", "-e", json.dumps(variables))
        # Of each by itself, because a template would name the container of another host in a task that is delegated.
        yield {"all": {"hosts": {f"{name}.example.org": {"ansible_docker_host": f"{ROW}-{name}"} for name in addresses}}}
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", *names], capture_output=True, check=False)
        subprocess.run(["docker", "network", "rm", ROW], capture_output=True, check=False)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Return a directory with the examples at the addresses of the hosts."""
    directory = tmp_path_factory.mktemp("examples")
    for path in EXAMPLES.rglob("*"):
        if path.is_file():
            (directory / path.relative_to(EXAMPLES)).parent.mkdir(parents=True, exist_ok=True)
            (directory / path.relative_to(EXAMPLES)).write_text(path.read_text().replace(DOCUMENTED, NETWORK))
    return directory


def run_example(directory, containers, **variables):
    """Run the playbook of an example twice, and the playbook that tests the whole way of a metric."""
    (directory / "containers.json").write_text(json.dumps(containers))
    passwords = {f"vault_graphite_{what}_password": f"{what} of the tests" for what in ("admin", "database")}
    inventory = [
        "-i",
        str(directory / "hosts.yml"),
        "-i",
        str(directory / "containers.json"),
        "-i",
        str(SCENARIO / "connection"),
        "-e",
        json.dumps(passwords),
    ]
    playbook = str(directory / "site.yml")
    run("ansible-playbook", *inventory, playbook, **variables)
    again = run("ansible-playbook", *inventory, playbook, "--diff", **variables)
    assert set(re.findall(r"changed=(\d+)", again)) == {"0"}, again
    run("ansible-playbook", *inventory, "metricstack.graphite.verify")


@pytest.mark.parametrize("example", ["one_host", "postgresql", "tls", "behind_nginx"])
def test_an_example_with_one_host(examples, example):
    with hosts(metrics=10) as containers:
        run_example(examples / example, containers)


def test_the_split_stack(examples):
    with hosts(collector=11, store=12, front=13) as containers:
        run_example(examples / "split", containers)


def test_the_cluster(examples):
    with hosts(relay=21, store1=31, store2=32, store3=33, front=41) as containers:
        run_example(examples / "cluster", containers)


def test_beside_roles_of_galaxy_which_stand_ins_are_in_the_place_of(examples):
    with hosts(metrics=10) as containers:
        run_example(examples / "beside_geerlingguy", containers)
        assert "Apache2 Debian Default Page" in page("www.example.org", "/")
        assert "1." in page("graphite.example.org", "/version/")
        count = ["psql", "-Atc", "SELECT count(*) FROM auth_user", "graphite"]
        assert int(in_host("metrics", "runuser", "-u", "postgres", "--", *count)) > 0


def test_beside_roles_of_debops(examples, tmp_path):
    requirements = EXAMPLES / "beside_debops" / "requirements.txt"
    run("pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), "--requirement", str(requirements))
    collections = f"{ROOT}/.ansible/collections:{tmp_path}/debops/_data/ansible/collections"
    with hosts(metrics=10) as containers:
        run_example(examples / "beside_debops", containers, ANSIBLE_COLLECTIONS_PATH=collections, ANSIBLE_INJECT_FACT_VARS="true")
        assert "1." in page("graphite.example.org", "/version/")
        assert in_host("metrics", "ls", "/etc/apache2/sites-enabled").split() == ["000-default.conf", "graphite.conf"]
