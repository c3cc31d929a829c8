# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Who is in the way of a port, read from what ss prints."""

from __future__ import annotations

import os
import socket as network
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._host.process import run, system_path
from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import (
    address_problem,
    overlap,
    parse_sockets,
    port_holders,
    with_control_group,
)

COLLECTIONS = str(Path(__file__).parents[2] / ".ansible" / "collections")
SOCKETS = """\
udp UNCONN 0      0            0.0.0.0:8125 0.0.0.0:* users:(("statsd goruntim",pid=2785,fd=23)) cgroup:/user.slice/session-3.scope
tcp LISTEN 0      50           0.0.0.0:7002 0.0.0.0:*                                            cgroup:/system.slice/carbon-cache.service
tcp LISTEN 0      511    127.0.0.1%lo:8126  0.0.0.0:* users:(("node",pid=9,fd=2),("node",pid=8,fd=2)) cgroup:/system.slice/stats.service
tcp LISTEN 0      511            [::1]:2003    [::]:* users:(("nc",pid=7,fd=2)) cgroup:/
tcp LISTEN 0      511                *:2004       *:*
"""


def wanted(protocol, address, port, units=""):
    return {"variable": "the_port", "protocol": protocol, "address": address, "ports": [port], "units": units}


@pytest.mark.parametrize(
    ("socket", "words"),
    [
        (wanted("udp", "127.0.0.1", 8125), "statsd goruntim, process 2785 holds 0.0.0.0:8125 (udp). Stop it (kill 2785)"),
        (wanted("tcp", "127.0.0.1", "8126"), "node, process 9, unit stats.service holds"),
        (wanted("tcp", "127.0.0.1", "8126"), "systemctl disable --now stats.service"),
        (wanted("tcp", "::1", 2003), "the_port has port 2003, but nc, process 7 holds [::1]:2003"),
        (wanted("tcp", "localhost", 2003), "nc"),
        (wanted("tcp", "::", 2003), "nc"),
        (wanted("tcp", "192.0.2.1", 2004), "another process holds *:2004"),
    ],
)
def test_who_is_in_the_way_is_named(socket, words):
    (holder,) = port_holders(parse_sockets(SOCKETS), {**socket, "units": r"statsd\.service"})
    assert words in holder["problem"]


@pytest.mark.parametrize(
    "socket",
    [
        wanted("tcp", "127.0.0.1", 8125),
        wanted("tcp", "127.0.0.1", 2003),
        wanted("tcp", "0.0.0.0", 2003),
        wanted("tcp", "127.0.0.1", 7002),
        wanted("tcp", "127.0.0.1", 80),
    ],
)
def test_others_and_ones_own_are_not_in_the_way(socket):
    assert port_holders(parse_sockets(SOCKETS), {**socket, "units": r"carbon-cache(@.+)?\.service"}) == []


def test_instances_of_a_template_are_their_own_units():
    line = r"tcp LISTEN 0 1 127.0.0.1:8019 0.0.0.0:* cgroup:/docker/1/system.slice/system-go\x2druntime.slice/go-runtime@old.service"
    (socket,) = parse_sockets(line)
    assert socket.unit == "go-runtime@old.service"
    assert port_holders([socket], wanted("tcp", "127.0.0.1", 8019, r"go-runtime@.+\.service")) == []


def test_a_socket_that_systemd_keeps_over_a_restart_is_the_services(tmp_path):
    tail = 'users:(("systemd",pid=1,fd=30),("node",pid=3690,fd=3)) cgroup:unreachable:503c9'
    (socket,) = parse_sockets(f"udp UNCONN 0 0 127.0.0.1:8125 0.0.0.0:* {tail}")
    assert (socket.program, socket.pids) == ("node", (3690,))
    (tmp_path / "3690").mkdir()
    assert with_control_group(socket, str(tmp_path)).unit == ""
    (tmp_path / "3690" / "cgroup").write_text("1:name=systemd:/docker/1\n0::/docker/1/system.slice/statsd.service\n")
    assert with_control_group(socket, str(tmp_path)).unit == "statsd.service"


@pytest.mark.parametrize(
    ("address", "held", "refused"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "*", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("0.0.0.0", "192.0.2.1", True),
        ("::", "127.0.0.1", True),
        ("*", "127.0.0.1", True),
        ("::1", "::", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("127.0.0.1", "192.0.2.1", False),
        ("127.0.0.1", "::", False),
        ("::1", "0.0.0.0", False),
    ],
)
def test_addresses_overlap_where_the_kernel_refuses_one_of_them(address, held, refused):
    assert overlap(address, held) == refused


@pytest.mark.parametrize("address", ["*", "0.0.0.0", "::", "127.0.0.1", "127.9.8.7", "::1", "localhost"])
def test_addresses_that_the_host_has_are_not_refused(address):
    assert address_problem("the_address", address) is None


@pytest.mark.parametrize("address", ["203.0.113.1", "2001:db8::1", "fe80::1", "no-such-name.invalid"])
def test_an_address_that_the_host_does_not_have_is_refused_with_those_that_it_has(address):
    problem = address_problem("the_address", address)
    assert f"the_address is {address}, which is not an address of this host" in problem
    assert "127.0.0.1" in problem
    assert "::1" in problem


def test_an_address_is_the_hosts_own_while_all_that_listens_there_is_in_use():
    with network.create_server(("127.0.0.1", 0)) as server:
        assert address_problem("the_address", server.getsockname()[0]) is None


def test_an_address_that_the_kernel_lets_a_program_bind_in_advance_is_not_refused():
    program = """
import subprocess
from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import address_problem
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
assert address_problem("the_address", "203.0.113.1")
with open("/proc/sys/net/ipv4/ip_nonlocal_bind", "w") as setting:
    setting.write("1")
assert address_problem("the_address", "203.0.113.1") is None
"""
    subprocess.run(["unshare", "--net", sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": COLLECTIONS}, check=True)


def test_the_examination_names_the_variable_of_the_address(run_module):
    socket = {**wanted("tcp", "203.0.113.1", 47113), "address_variable": "the_address"}
    sockets = [socket, {**socket, "protocol": "udp"}, {**wanted("tcp", "203.0.113.2", 47114)}]
    problems = run_module("host_requirements_info", components=[{"component": "store", "sockets": sockets}])["problems"]
    assert [problem.split(",")[0] for problem in problems if "203.0.113" in problem] == [
        "the_address is 203.0.113.1",
        "the_port is 203.0.113.2",
    ]
    # What a file says that the component does not open.
    sockets = [{**one, "unless_exists": ["/nonexistent", "/etc"]} for one in sockets]
    problems = run_module("host_requirements_info", components=[{"component": "store", "sockets": sockets}])["problems"]
    assert [problem for problem in problems if "203.0.113" in problem] == []


def test_programs_of_the_administration_are_found_without_their_directories_in_the_path(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert system_path("/usr/bin:/sbin") == "/usr/bin:/sbin:/usr/local/sbin:/usr/sbin"
    assert "/usr/sbin" in run(["sh", "-c", "echo $PATH"]).stdout
    assert run(["no-such-program"]).returncode == 127
