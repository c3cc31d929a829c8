# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A run that ends well says that points are stored and metrics counted: what runs and does not work makes it end badly."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

WHISPER = "/srv/graphite/whisper"


@pytest.fixture
def site_port():
    return 8080


@pytest.fixture
def red(run_ansible):
    """Run site.yml, or a part of it, which must end badly; return what it says, on one line."""

    def run(tag="all"):
        status, output, errors = run_ansible("ansible-playbook", ROOT / "playbooks" / "site.yml", "--tags", tag)
        assert status != 0, output
        return " ".join((output + errors).split())

    return run


@pytest.fixture
def carbon(host):
    """Return carbon's process; carbon is restarted afterwards."""
    yield host.run("systemctl show --property MainPID --value carbon-cache@a").stdout.strip()
    assert host.run("systemctl kill --signal CONT carbon-cache@a; systemctl restart carbon-cache@a").rc == 0


def test_a_carbon_that_takes_points_and_cannot_store_them(host, red, carbon):
    """Carbon alone sees the file system read-only, as by a drop-in of its unit; root on the host does not."""
    mount = host.run(f"nsenter --target {carbon} --mount mount -o remount,bind,ro {WHISPER}")
    assert mount.rc == 0, mount.stderr
    output = red("prove")
    assert f"is neither in its cache nor in {WHISPER}/metricstack_probe/a.wsp: points are lost" in output
    assert "carbon_cache_whisper_directory" in output
    assert host.run(f"ls {WHISPER}").stdout.count("metricstack_probe") == 0


def test_a_whisper_directory_that_nobody_can_write_to(host, red):
    assert host.run(f"mount --bind {WHISPER} {WHISPER} && mount -o remount,bind,ro {WHISPER}").rc == 0
    output = red()
    assert host.run(f"umount {WHISPER}").rc == 0
    assert f"carbon_cache_whisper_directory is {WHISPER}, but the file system of {WHISPER} is mounted read-only" in output


def test_a_carbon_that_does_not_answer(host, red, carbon):
    assert host.run("systemctl kill --signal STOP carbon-cache@a").rc == 0
    assert re.search(r"carbon-cache@a does not answer on its cache query port: 127\.0\.0\.1:7002: timed out", red("prove"))


def test_a_statsd_that_a_drop_in_has_listen_elsewhere(host, red):
    drop_in = "/etc/systemd/system/statsd.service.d"
    program = host.run("systemctl show --property ExecStart --value statsd").stdout.split("argv[]=")[1].split(" ;")[0]
    elsewhere = program.replace("/etc/statsd/config.js", "/etc/statsd/elsewhere.js")
    assert elsewhere != program
    host.run(
        f"mkdir {drop_in}; printf '[Service]\\nExecStart=\\nExecStart={elsewhere}\\n' > {drop_in}/elsewhere.conf;"
        " sed s/8125/8225/ /etc/statsd/config.js > /etc/statsd/elsewhere.js; systemctl daemon-reload; systemctl restart statsd"
    )
    output = red("statsd")
    host.run(f"rm -r {drop_in} /etc/statsd/elsewhere.js; systemctl daemon-reload; systemctl restart statsd")
    assert "statsd.service does not listen on port 8125" in output


def test_a_graphite_web_that_reads_another_directory(host, playbook):
    assert host.run("mkdir /srv/empty").rc == 0
    variables = {"graphite_web_whisper_directory": "/srv/empty", "graphite_web_carbonlink_hosts": ["127.0.0.1:7999:a"]}
    status, output = playbook("site.yml", variables)
    assert status != 0
    assert "does not show metricstack_probe.a" in " ".join(output.split())


def test_the_corrected_run_ends_well_with_every_receiver_bound(host, playbook, counter_comes_back):
    """After all that was refused and that failed, without anything removed by hand."""
    variables = {
        "carbon_cache_settings": {"PICKLE_RECEIVER_PORT": 2004, "ENABLE_UDP_LISTENER": True},
        "graphite_web_settings": {"DOCUMENTATION_URL": "http://docs.example.org/"},
    }
    status, output = playbook("site.yml", variables)
    assert status == 0, output
    listening = {(line.split()[0], line.split()[4]) for line in host.run("ss -Hltun").stdout.splitlines()}
    assert {("tcp", "127.0.0.1:2003"), ("tcp", "127.0.0.1:2103"), ("tcp", "127.0.0.1:2004"), ("udp", "127.0.0.1:2003")} <= listening
    assert "DOCUMENTATION_URL = 'http://docs.example.org/'" in host.run("cat /etc/graphite/local_settings.py").stdout
    counter_comes_back("awkward.healed")
