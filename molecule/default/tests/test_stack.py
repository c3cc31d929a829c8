# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A packet in, a value and a picture out; and nothing else open."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from functools import partial
from urllib.parse import urlencode

import pytest
import yaml
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import parse_retentions, whisper_size
from conftest import ROOT, SSH, values
from PIL import Image


def coloured_pixels(path):
    """Return how many points of a picture are neither of the grid nor of the legend."""
    with Image.open(path) as picture:
        # The legend of graphite-web is below the axis.
        plot = picture.convert("RGB").crop((0, 0, picture.width, picture.height * 3 // 4))
    return sum(number for number, colour in plot.getcolors(1 << 20) if max(colour) - min(colour) > 60)


def documented_ports():
    table = (ROOT / "docs" / "security.md").read_text().partition("<!-- BEGIN PORTS -->")[2].partition("<!-- END PORTS -->")[0]
    rows = re.findall(r"^\| (\d+) \| (tcp|udp) \| (.*?) \|", table, re.MULTILINE)
    return {(protocol, int(port)): bound for port, protocol, bound in rows}


def test_a_counter_comes_back_at_ten_seconds_and_is_summed(counter_comes_back, whisper_info):
    series = counter_comes_back("front_door.requests")
    assert sum(values(series)) == 7
    times = [time for _value, time in series["datapoints"]]
    assert {later - earlier for earlier, later in zip(times, times[1:])} == {10}
    header = whisper_info("stats.counters.front_door.requests.count")
    assert "aggregationMethod: sum" in header
    assert re.findall(r"secondsPerPoint: (\d+)", header) == ["10", "60", "600"]


def test_a_metric_of_a_reader_comes_back(documented, address, tmp_path, wait_until):
    page = partial(documented, "docs/first_stack.md", instead={"http://metrics.example.org/": f"http://{address()}/"})
    page("metric")

    def total():
        return sum(value or 0 for series in json.loads(page("number")) for value, _time in series["datapoints"])

    wait_until(lambda: total() == 30, timeout=40, message="hello.world did not come back")
    page("picture")
    assert coloured_pixels(tmp_path / "desk" / "hello.png") > 20


def test_a_part_of_the_stack_is_run(documented):
    output = documented("docs/own_hosts.md", "tags")
    assert "changed=0" in output
    assert "statsd : Run StatsD" in output
    assert "carbon_relay : Run" not in output


def test_a_file_has_the_size_that_whisper_size_tells(counter_comes_back, host):
    counter_comes_back("front_door.size")
    retentions = yaml.safe_load((ROOT / "molecule/shared/inventory/group_vars/all.yml").read_text())["carbon_cache_storage_schemas"]
    (stats,) = (rule["retentions"] for rule in retentions if rule["name"] == "stats")
    size = host.file("/var/lib/graphite/whisper/stats/counters/front_door/size/count.wsp").size
    assert size == whisper_size(parse_retentions(stats))


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


@pytest.mark.parametrize(("kind", "beginning"), [("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_a_picture_that_is_no_bitmap_comes_out(http_get, kind, beginning):
    status, _headers, body = http_get("/render?" + urlencode({"target": "carbon.agents.*.*", "title": "运行 ü", "format": kind}))
    assert status == 200, body
    assert body.startswith(beginning)


def test_only_documented_ports_listen_and_only_apache_outside(host, address):
    listening = {}
    for line in host.run("ss -Hlntu").stdout.splitlines():
        protocol, _state, _receive, _send, local = line.split()[:5]
        bound, _colon, port = local.rpartition(":")
        listening[protocol, int(port)] = bound
    if SSH:
        assert listening.pop(("tcp", 22))
    documented = documented_ports()
    assert set(listening) == set(documented)
    for key, bound in listening.items():
        assert (bound == "127.0.0.1") == (documented[key] == "127.0.0.1"), key
    for protocol, port in documented:
        if protocol == "tcp":
            with socket.socket() as outside:
                assert (outside.connect_ex((address(), port)) == 0) == (port == 80), port


@pytest.mark.parametrize("unit", ["carbon-cache@a.service", "carbon-relay.service", "statsd.service", "graphite-memcached.service"])
def test_services_are_sandboxed(host, unit):
    verdict = host.run(f"systemd-analyze security --no-pager {unit} | tail -n 1").stdout
    assert float(re.search(r"level for \S+: ([\d.]+)", verdict).group(1)) <= 2.0, verdict


def test_verify_leaves_nothing_behind(playbook, host, tmp_path):
    status, output = playbook("verify.yml", {"verify_artifacts_directory": str(tmp_path)})
    assert status == 0, output
    assert coloured_pixels(tmp_path / "verify.png") > 50
    time.sleep(12)
    assert host.run("find /var/lib/graphite/whisper -name 'metricstack_verify*'").stdout == ""


def test_verify_fails_when_the_stack_does_not_work(playbook, carbon_stopped, tmp_path):
    with carbon_stopped():
        status, output = playbook("verify.yml", {"verify_artifacts_directory": str(tmp_path), "verify_timeout": 12})
    assert status != 0, output
    assert list(tmp_path.iterdir()) == []


LOAD = """
import glob, os, socket, sys, time, whisper
def store(start, wave):
    carbon = socket.create_connection(("127.0.0.1", 2003))
    carbon.sendall(b"".join(b"load_test.r%d.s%d %d %d\\n" % (start, i, wave, start + 10 * wave) for i in range(10000)))
    carbon.close()
def files(start):
    return glob.glob("/var/lib/graphite/whisper/load_test/r%d/*.wsp" % start)
def points(file, start):
    try:
        return len([value for value in whisper.fetch(file, start - 20)[1] if value is not None])
    except whisper.WhisperException:  # carbon is making it just now
        return 0
def stored(start, waves):
    return sum(points(file, start) == waves for file in files(start))
"""


def test_ten_thousand_new_series_are_on_disk_in_seconds_and_outlive_a_stop(host, run_python, carbon_stopped):
    started = int(host.run("date +%s").stdout) // 10 * 10 - 60
    seconds = run_python(
        LOAD
        + """
began = time.monotonic()
store(int(sys.argv[1]), 1)
while stored(int(sys.argv[1]), 1) < 10000 and time.monotonic() < began + 60:
    time.sleep(0.2)
print(time.monotonic() - began)
""",
        str(started),
    )
    assert float(seconds) <= 15
    print(f"10000 new series were on disk after {float(seconds):.1f} s")
    run_python(LOAD + "store(int(sys.argv[1]), 2); time.sleep(1)", str(started))
    with carbon_stopped():
        count = run_python(LOAD + "print(stored(int(sys.argv[1]), 2))", str(started))
    assert int(count) == 10000


def main_process(host, unit):
    return host.run(f"systemctl show --property MainPID --value {unit}").stdout.strip()


@pytest.mark.parametrize(
    ("unit", "port"), [("carbon-cache@a", 2103), ("carbon-relay", 2003), ("statsd", 8126), ("graphite-memcached", 11211)]
)
def test_a_killed_service_comes_back(host, unit, port, wait_until, counter_comes_back):
    killed = main_process(host, unit)
    assert host.run(f"systemctl kill --signal=KILL {unit}").rc == 0
    wait_until(lambda: main_process(host, unit) not in ("0", killed) and f":{port} " in host.run("ss -Hltn").stdout)
    counter_comes_back(f"killed.{unit.partition('@')[0]}")


def test_packets_that_end_other_statsds_do_not_end_this_one(host, statsd_send, counter_comes_back):
    before = main_process(host, "statsd")
    statsd_send(*(f"{name}:1|{kind}" for name in ("constructor", "__proto__", "toString") for kind in ("c", "g", "ms", "s")))
    counter_comes_back("after_the_bad_ones")
    assert main_process(host, "statsd") == before
