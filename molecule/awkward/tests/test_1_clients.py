# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What clients of others send, as they are by default, comes back from graphite-web; docs/clients.md says what they need.

The clients are in files/clients, at the versions of its lock files. The inventory has tags on, and StatsD on TCP as well as UDP.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from conftest import values

CLIENTS = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "files" / "clients"
BATCH = 1000
TIMES = {"latency.count": 3, "latency.mean": 30, "latency.upper": 60, "latency.sum": 90}
ALL = {"requests": 3, "sampled": 20, "queue": 12.5, "level": 12, "below": -7, **TIMES, "users": 2, "batch": BATCH}


def without(*names):
    return {name: value for name, value in ALL.items() if name not in names}


# What each of them can send. Others are asked to do by themselves what a client cannot.
SENT = {
    "statsd": ALL,
    "statsd-tcp": ALL,
    "datadog": without("level") | {"with_telemetry": 1},
    "python-statsd": without("users", "batch"),
    "bash": {"requests": 3},
    "hot-shots": ALL | {"in_container": 1},
    "hot-shots-tcp": ALL,
    "hot-shots-telegraf": ALL,
    "node-statsd": without("level", "batch"),
    "statsd-client": without("sampled"),
    "statsd-client-tcp": without("sampled"),
}
SEND_TAGS = ("datadog", "hot-shots", "hot-shots-tcp", "hot-shots-telegraf", "node-statsd", "statsd-client", "statsd-client-tcp")
# Bad lines of each, and the reasons.
REFUSED = {"datadog": 6, "python-statsd": 2, "hot-shots": 6, "node-statsd": 1, "statsd-client": 2, "statsd-client-tcp": 2}
REASONS = [
    r'refused_type: "h" is none of c, g, ms and s',
    r'refused_type: "d" is none of c, g, ms and s',
    r'refused_type: "a" is none of c, g, ms and s',
    r'refused_type: "r" is none of c, g, ms and s',
    "refused_name: an event of DogStatsD is no metric",
    "refused_name: a service check of DogStatsD is no metric",
    "refused_field: a timestamp of DogStatsD",
    r'refused_tags: "prod" is not a tag of Graphite',
]

# Its plugin statsd is another StatsD, whose metrics its plugin write_graphite sends to carbon.
COLLECTD = """
Hostname "HOST"
FQDNLookup false
Interval 10
LoadPlugin statsd
<LoadPlugin write_graphite>
  FlushInterval 1
</LoadPlugin>
<Plugin statsd>
  Host "127.0.0.1"
  Port "18125"
  CounterSum true
  TimerCount true
  TimerUpper true
</Plugin>
<Plugin write_graphite>
  <Node "carbon">
    Host "127.0.0.1"
    Port "2003"
    Prefix "load_test.collectd."
  </Node>
</Plugin>
"""


@pytest.fixture
def site_port():
    return 8080


@pytest.fixture(scope="module")
def clients(tmp_path_factory, run_ansible):
    """Install the clients of the lock files on the host."""
    directory = tmp_path_factory.mktemp("clients") / "clients"
    subprocess.run(["cp", "-r", CLIENTS, directory], check=True)
    wheels = ["pip", "download", "--quiet", "--no-deps", "--require-hashes", "--requirement", "requirements.txt"]
    for command in (wheels, ["npm", "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]):
        subprocess.run(command, cwd=directory, check=True, timeout=120)
    archive = directory.with_suffix(".tar.gz")
    subprocess.run(["tar", "-czf", archive, "-C", directory.parent, directory.name], check=True)
    arguments = json.dumps({"src": str(archive), "dest": "/opt"})
    status, output, errors = run_ansible("ansible", "all", "-m", "ansible.builtin.unarchive", "-a", arguments)
    assert status == 0, output + errors
    return "/opt/clients"


@pytest.fixture
def bad_lines(render):
    return lambda: sum(sum(values(series)) for series in render("stats.counters.statsd.bad_lines_seen.count", **{"from": "-1h"}))


@pytest.fixture
def sent(clients, host, render, bad_lines, wait_until, request):
    """Send with all clients, once for the module; return what has arrived and the number of bad lines."""
    module = request.node.getparent(pytest.Module)
    if not hasattr(module, "sent"):
        prefix, before = f"clients_{int(time.time())}", bad_lines()
        result = host.run(f"/usr/bin/python3 {clients}/clients.py {prefix}")
        assert result.rc == 0, result.stdout + result.stderr
        kinds = (f"counters.{prefix}.*.*.count", f"gauges.{prefix}.*.*", f"timers.{prefix}.*.latency.*", f"sets.{prefix}.*.users.count")
        target = f"group({','.join(f'stats.{kind}' for kind in kinds)})"
        last = f"stats.counters.{prefix}.statsd-client-tcp.batch.count"
        wait_until(lambda: last in [series["target"] for series in render(target)], timeout=40)
        module.sent = prefix, render(target), bad_lines() - before
    return module.sent


@pytest.mark.parametrize("client", SENT)
def test_each_value_comes_back_as_it_was_sent(client, sent):
    prefix, found, _bad_lines = sent
    begin = f".{prefix}.{client}."
    arrived = {}
    for series in found:
        if begin in series["target"]:
            kind, name = series["target"].split(begin)
            kept = values(series)
            # StatsD repeats no gauge that is idle, and the rest is of one interval.
            arrived[name.removesuffix(".count") if kind != "stats.timers" else name] = kept[0] if len(kept) == 1 else sum(kept)
    expected = SENT[client]
    assert {name: value for name, value in arrived.items() if name in expected or "latency" not in name} == expected


@pytest.mark.parametrize("client", SEND_TAGS)
def test_tags_find_what_was_sent_with_them(client, sent, render, wait_until):
    prefix, _found, _bad_lines = sent
    name = f"stats.counters.{prefix}.{client}.tagged.count"
    target = f"seriesByTag('name={name}', 'env=prod', 'region=eu')"
    wait_until(lambda: [sum(values(series)) for series in render(target)] == [4], message=f"the tags do not find {name}")


def test_what_a_client_reports_about_itself_arrives_with_its_tags(sent, render, wait_until):
    target = "seriesByTag('name=stats.counters.datadog.dogstatsd.client.metrics.count', 'client=py')"
    wait_until(lambda: sum(sum(values(series)) for series in render(target)) >= 1)


def test_what_statsd_has_not_is_a_bad_line_with_a_reason(sent, host):
    _prefix, _found, bad_lines = sent
    assert bad_lines == sum(REFUSED.values())
    for reason in REASONS:
        assert host.run("journalctl --unit statsd --grep %s", f"Bad line, {reason}").rc == 0, reason


@pytest.fixture
def collectd(host):
    """Start collectd, whose series have a point for each ten seconds; return where they are."""
    name = f"clients_{int(time.time())}"
    configuration = COLLECTD.replace("HOST", name)
    assert host.run(f"cat > /run/collectd.conf <<'END'\n{configuration}END").rc == 0
    assert host.run("systemd-run --unit=collectd-under-test collectd -f -C /run/collectd.conf").rc == 0
    yield f"load_test.collectd.{name}.statsd"
    host.run("systemctl stop collectd-under-test")


def test_collectd_writes_to_carbon(host, collectd, render, wait_until):
    wait_until(lambda: ":18125 " in host.run("ss -Hlun").stdout)
    metrics = r"requests:5|c\nqueue:12.5|g\nbelow:-7|g\nlatency:10|ms\nlatency:30|ms\nusers:a|s\nusers:b|s\nusers:a|s\n"
    assert host.run(f"bash -c \"printf '{metrics}' > /dev/udp/127.0.0.1/18125\"").rc == 0
    expected = {
        "count-requests": 5,
        "gauge-queue": 12.5,
        "gauge-below": -7,
        "latency-latency-average": 0.02,
        "latency-latency-upper": 0.03,
        "gauge-latency-count": 2,
        "objects-users": 2,
    }

    def arrived():
        found = {series["target"].rpartition(".")[2]: values(series) for series in render(f"{collectd}.*")}
        return {name: found[name][0] for name in expected if found.get(name)}

    wait_until(lambda: arrived() == pytest.approx(expected, rel=1e-4), timeout=40, message="the values of collectd have not arrived")
