# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A packet in, a value and a picture out; and nothing else open."""

from __future__ import annotations

import re
import socket
import struct
import time
from urllib.parse import urlencode

import pytest
from conftest import ROOT


def values(series):
    return [value for value, _time in series["datapoints"] if value is not None]


def documented_ports():
    table = (ROOT / "README.md").read_text().partition("<!-- BEGIN PORTS -->")[2].partition("<!-- END PORTS -->")[0]
    rows = re.findall(r"^\| (\d+) \| (tcp|udp) \| (.*?) \|", table, re.MULTILINE)
    return {(protocol, int(port)): bound for port, protocol, bound in rows}


def test_a_counter_comes_back_at_ten_seconds(statsd_send, render, wait_until):
    statsd_send("front_door.requests:3|c\nfront_door.requests:4|c")
    series = wait_until(lambda: render("removeEmptySeries(stats.counters.front_door.requests.count)"), timeout=40)
    assert sum(values(series[0])) == 7
    times = [time for _value, time in series[0]["datapoints"]]
    assert {later - earlier for earlier, later in zip(times, times[1:])} == {10}


def test_gauge_and_timer_come_back(statsd_send, render, wait_until):
    statsd_send("front_door.queue:12.5|g\nfront_door.latency:10|ms\nfront_door.latency:30|ms")
    gauge = wait_until(lambda: render("removeEmptySeries(stats.gauges.front_door.queue)"), timeout=40)
    timer = wait_until(lambda: render("removeEmptySeries(stats.timers.front_door.latency.mean)"), timeout=40)
    assert values(gauge[0])[-1] == 12.5
    assert max(values(timer[0])) == 20


def test_a_picture_comes_out(http_get):
    status, headers, body = http_get("/render?" + urlencode({"target": "carbon.agents.*.*", "from": "-10min"}))
    assert status == 200
    assert headers["Content-Type"] == "image/png"
    width, height = struct.unpack(">II", body[16:24])
    assert body.startswith(b"\x89PNG")
    assert (width, height) == (330, 250)


def test_only_documented_ports_listen_and_only_apache_outside(host, address):
    listening = {}
    for line in host.run("ss -Hlntu").stdout.splitlines():
        protocol, _state, _receive, _send, local = line.split()[:5]
        bound, _, port = local.rpartition(":")
        listening[protocol, int(port)] = bound
    documented = documented_ports()
    assert set(listening) == set(documented)
    for key, bound in listening.items():
        assert (bound == "127.0.0.1") == (documented[key] == "127.0.0.1"), key
    for protocol, port in documented:
        if protocol == "tcp":
            with socket.socket() as outside:
                assert (outside.connect_ex((address, port)) == 0) == (port == 80), port


def test_check_mode_tells_the_truth_on_a_converged_host(playbook):
    status, output = playbook("playbooks/site.yml", check=True)
    assert status == 0, output
    assert "changed=0" in output, output


@pytest.mark.parametrize("unit", ["carbon-cache@a.service", "statsd.service"])
def test_services_are_sandboxed(host, unit):
    verdict = host.run(f"systemd-analyze security --no-pager {unit} | tail -n 1").stdout
    assert float(re.search(r"level for \S+: ([\d.]+)", verdict).group(1)) <= 2.0, verdict


def test_verify_leaves_nothing_behind(playbook, host, tmp_path):
    status, output = playbook("playbooks/verify.yml", {"verify_artifacts_directory": str(tmp_path)})
    assert status == 0, output
    assert (tmp_path / "verify.png").read_bytes().startswith(b"\x89PNG")
    time.sleep(12)
    assert host.run("find /var/lib/graphite/whisper -name 'metricstack_verify*'").stdout == ""


def test_verify_fails_when_the_stack_does_not_work(playbook, host, tmp_path):
    host.run("systemctl stop carbon-cache@a")
    variables = {"verify_artifacts_directory": str(tmp_path), "statsd_flush_interval": 1000}
    status, output = playbook("playbooks/verify.yml", variables)
    assert host.run("systemctl start carbon-cache@a").rc == 0
    assert status != 0, output
