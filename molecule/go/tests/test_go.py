# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Go programs of several versions on one host: their metrics, their images, the report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request

import pytest
import yaml
from conftest import ROOT, values

VERSIONS = {"1.19": 8019, "1.23": 8023, "1.24": 8024, "1.26": 8026}
# Those that the library go-runtime-metrics reports.
GAUGES = [
    f"{group}.{name}"
    for group, names in {
        "cpu": ["goroutines", "cgo_calls"],
        "mem": ["alloc", "total", "sys", "lookups", "malloc", "frees", "othersys"],
        "mem.heap": ["alloc", "sys", "idle", "inuse", "released", "objects"],
        "mem.stack": ["inuse", "sys", "mspan_inuse", "mspan_sys", "mcache_inuse", "mcache_sys"],
        "mem.gc": ["sys", "next", "last", "pause", "pause_total", "count"],
    }.items()
    for name in names
]


TITLES = [
    "Longest GC pause",
    "Median GC pause",
    "GC pauses",
    "GC share of the processors",
    "Allocation rate",
    "Memory allocations",
    "GC count",
    "Goroutines",
]
DASHBOARDS = yaml.safe_load((ROOT / "playbooks" / "vars" / "dashboards.yml").read_text())["dashboards_shipped"]
GRAPHS = next(dashboard["graphs"] for dashboard in DASHBOARDS if dashboard["name"] == "Go runtime")


def name_of(version):
    return "go" + version.replace(".", "-")


def prefix_of(host, version, kind="gauges"):
    return f"stats.{kind}.go.{host.backend.get_hostname()}-{name_of(version)}"


def ask(host, port):
    return host.run(f"python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/').read().decode())\"")


@pytest.fixture
def newest(host, render):
    """Return the newest value of a metric of a version, or None."""

    def value(version, metric):
        series = render(f"removeEmptySeries({prefix_of(host, version)}.{metric})")
        return next((value for value, _time in reversed(series[0]["datapoints"]) if value is not None), None) if series else None

    return value


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_reports_every_metric(host, version, newest, wait_until):
    assert f"go{version}" in ask(host, VERSIONS[version]).stdout

    def written(kind):
        directory = f"/var/lib/graphite/whisper/{prefix_of(host, version, kind).replace('.', '/')}"
        found = host.run(f"cd {directory}; find . -name '*.wsp' -printf '%P\\n'").stdout.split()
        return {path[: -len(".wsp")].replace("/", ".") for path in found}

    assert written("gauges") == set(GAUGES)
    cpu = [] if version == "1.19" else ["cpu.gc_seconds", "cpu.total_seconds"]
    assert written("counters") == {f"{name}.{value}" for name in ["mem.allocated", *cpu] for value in ("count", "rate")}
    pauses = {name.removeprefix("mem.gc.pause.") for name in written("timers")}
    assert pauses > {"count", "count_ps", "lower", "median", "upper_90", "upper_99", "upper", "histogram.bin_0_015", "histogram.bin_inf"}
    assert not [name for name in pauses if name.startswith("mem.")]
    assert wait_until(lambda: newest(version, "cpu.goroutines"), timeout=30) >= 3
    assert newest(version, "mem.sys") > 2**20


def test_the_toolchains_stay_off_the_host(host):
    assert host.run("find / -xdev -path '*/bin/go' -o -name 'golang*' -path '*/dpkg/info/*'").stdout == ""


@pytest.mark.parametrize("version", ["1.19", "1.26"])
def test_services_are_sandboxed_and_run_as_their_own_user(host, version):
    unit = f"go-runtime-metrics@{name_of(version)}"
    verdict = host.run(f"systemd-analyze security --no-pager {unit} | tail -n 1").stdout
    assert float(re.search(r"level for \S+: ([\d.]+)", verdict).group(1)) <= 2.0, verdict
    process = host.run(f"systemctl show --property MainPID --value {unit}").stdout.strip()
    assert host.run(f"ps -o user:20= -p {process}").stdout.strip() == "go-runtime-metrics"


def test_reporting_costs_less_than_a_hundredth_of_a_core(host):
    def spent():
        units = " ".join(f"go-runtime-metrics@{name_of(version)}" for version in VERSIONS)
        return [int(value) for value in host.run(f"systemctl show --property CPUUsageNSec --value {units}").stdout.split()]

    began, before = time.monotonic(), spent()
    time.sleep(30)
    shares = [(after - earlier) / 1e9 / (time.monotonic() - began) for earlier, after in zip(before, spent())]
    print("share of a core, reporting twice a second:", ", ".join(f"{version}: {share:.3%}" for version, share in zip(VERSIONS, shares)))
    assert max(shares) < 0.01


@pytest.mark.parametrize("version", VERSIONS)
def test_every_pause_since_the_start_is_counted(host, version, render, newest, wait_until):
    unit = f"go-runtime-metrics@{name_of(version)}"
    started = int(host.run(f"systemctl show --timestamp=unix --property ActiveEnterTimestamp --value {unit}").stdout.strip("@\n"))
    series = f"{prefix_of(host, version, 'timers')}.mem.gc.pause.count"
    # The server knows nothing of StatsD's count.
    wait_until(lambda: sum(values(render(series, **{"from": started - 1})[0])) == newest(version, "mem.gc.count"))


def test_a_program_that_ends_leaves_zeros(host, newest, wait_until):
    assert newest("1.23", "mem.alloc") > 0
    host.run("systemctl stop go-runtime-metrics@go1-23")
    wait_until(lambda: newest("1.23", "mem.alloc") == 0, timeout=30)
    assert host.run("systemctl show --property ExecMainStatus --value go-runtime-metrics@go1-23").stdout.strip() == "0"
    host.run("systemctl start go-runtime-metrics@go1-23")
    wait_until(lambda: newest("1.23", "mem.alloc") > 0, timeout=30)


def test_a_program_without_statsd_says_so_once_and_goes_on(host, newest, wait_until):
    since = host.run("date '+%F %T'").stdout.strip()
    host.run("systemctl stop statsd")
    time.sleep(18)
    log = f"journalctl --no-pager --output cat --since '{since}' --unit go-runtime-metrics@go1-24"
    assert host.run(log).stdout.count("is unreachable") == 1
    assert "go1.24" in ask(host, VERSIONS["1.24"]).stdout
    host.run("systemctl start statsd")
    wait_until(lambda: "is reachable again" in host.run(log).stdout, timeout=30)
    assert host.run(log).stdout.count("is unreachable") == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_the_multi_stage_image_is_small_and_serves(version, wait_until):
    def docker(*arguments):
        return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()

    image = f"metricstack-go-runtime-metrics:{version}"
    assert int(docker("image", "inspect", "--format", "{{.Size}}", image)) < 8_000_000
    container = docker("run", "--detach", "--read-only", "--cap-drop", "ALL", image)
    try:
        # The uid of its process, as the engine's machine sees it.
        assert docker("top", container, "-o", "pid,uid").split()[-1] != "0"
        address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container)

        def answer():
            try:
                return urllib.request.urlopen(f"http://{address}:8000/", timeout=5).read()
            except OSError:
                return b""  # the server has not opened its port yet

        assert f"go{version}".encode() in wait_until(answer)
    finally:
        docker("rm", "--force", container)


def test_the_report_has_every_figure_of_every_version():
    page = (ROOT / "artifacts" / "molecule-go.html").read_text()
    for title in TITLES:
        assert f'alt="{title} of each Go version over time"' in page
    assert page.count("data:image/png;base64,iVBOR") == len(TITLES) + 1, "the pictures and the dashboard"
    assert not re.search(r'(?:src|href)="(?!data:)', page), "everything is inside"
    data = json.loads((ROOT / "artifacts" / "molecule-go.json").read_text())
    for version, load, answer in zip(VERSIONS, data["versions"], data["series"], strict=True):
        assert load["go"].startswith(f"go{version}")
        assert load["go"] in page
        assert load["wrk"]["errors"] == 0
        assert load["wrk"]["requests"] > 1000
        runtime = load["runtime"]
        # In milliseconds: no pause is a microsecond, and all of them together are a part of the load.
        assert 0.001 < runtime["pause_mean"] < runtime["pause_longest"] < runtime["pause_total"] < 1000 * (load["ended"] - load["began"])
        assert runtime["goroutines_max"] > 50, "one for each connection"
        assert runtime["memory_max"] > 100_000
        assert runtime["allocated_per_second"] > 1_000_000
        assert runtime["gc_share"] is None if version == "1.19" else 0 < runtime["gc_share"] < 1
        assert {one["step"] for one in answer} == {1}
    for version in VERSIONS:
        road = [data["images"][f"metricstack-go-runtime-metrics:{version}{stage}"] for stage in ("-build", "-distribution", "")]
        assert road == sorted(road, reverse=True)


def growth(points, began, ended):
    """Return by how much a total has grown from the last flush before the load to the last one within a second after it."""
    return points[max(time for time in points if time <= ended + 1)] - points[max(time for time in points if time < began)]


@pytest.fixture
def loads(host, render):
    """Return each load of the report, its version, and a function that returns the points of its series as graphite-web has them."""
    data = json.loads((ROOT / "artifacts" / "molecule-go.json").read_text())

    def reader(version, load):
        def points(kind, name):
            window = {"from": load["began"] - 10, "until": load["ended"] + 2}
            found = render(f"{prefix_of(host, version, kind)}.{name}", **window)
            return {time: value for value, time in found[0]["datapoints"] if value is not None}

        return points

    return [(version, load, reader(version, load)) for version, load in zip(VERSIONS, data["versions"], strict=True)]


def test_every_pause_under_load_is_counted(loads):
    for _version, load, points in loads:
        began, ended = load["began"], load["ended"]
        collections = growth(points("gauges", "mem.gc.count"), began, ended)
        assert collections > 100
        assert load["runtime"]["collections"] == load["runtime"]["pauses"] == collections
        assert sum(load["runtime"]["pauses_below"].values()) == collections
        # StatsD adds up milliseconds as floating-point numbers.
        total = sum(value for time, value in points("timers", "mem.gc.pause.sum").items() if began <= time <= ended + 1)
        assert total == pytest.approx(growth(points("gauges", "mem.gc.pause_total"), began, ended) / 1e6)


def test_a_load_of_30_seconds_has_a_point_every_second(loads):
    for _version, load, points in loads:
        for kind, name in [("timers", "mem.gc.pause.upper"), ("timers", "mem.gc.pause.median"), ("gauges", "mem.gc.pause")]:
            assert len([time for time in points(kind, name) if load["began"] <= time <= load["ended"]]) >= 25, name


def test_the_table_has_what_follows_from_counts_and_totals(loads):
    page = (ROOT / "artifacts" / "molecule-go.html").read_text()
    tables = [re.findall(r"<tr>\s*<td>(go1.*?)</tr>", table, re.DOTALL) for table in page.split("<table>")[1:3]]
    rows = [[re.sub(r"<.*?>", "", cell).strip() for cell in row.split("</td>")] for row in tables[1]]
    for row, (_version, load, points) in zip(rows, loads, strict=True):
        began, ended = load["began"], load["ended"]
        count, total = (growth(points("gauges", f"mem.gc.{name}"), began, ended) for name in ("count", "pause_total"))
        longest = max(value for time, value in points("timers", "mem.gc.pause.upper").items() if began <= time <= ended + 1)
        allocated = growth(points("gauges", "mem.total"), began, ended) / 30
        assert row[0] == load["go"]
        assert row[1] == f"{count:,.0f}"
        assert row[2] == f"{total / count / 1000:,.0f} µs"
        assert row[3] == f"{longest * 1000:,.0f} µs"
        assert row[4] == f"{total / 1e6:,.1f} ms"
        assert row[6] == f"{allocated / 2**20:,.1f} MiB"


def test_the_lengths_of_the_pauses_are_drawn(loads):
    page = (ROOT / "artifacts" / "molecule-go.html").read_text()
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for chart, (version, load, _points) in zip(charts, loads, strict=True):
        assert f"Go {version}" in chart
        drawn = [int(count.replace(",", "")) for count in re.findall(r"<title>([\d,]+) pauses</title>", chart)]
        assert sum(drawn) == load["runtime"]["pauses"]
        heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', chart)]
        assert len(heights) == len(drawn)
        assert heights == pytest.approx([max(heights) * count / max(drawn) for count in drawn], abs=0.2)
    # One scale for all, in each direction.
    labels = [re.findall(r'<text (?:x="[\d.]+" y="212"|x="40") [^>]*>(.*?)</text>', chart) for chart in charts]
    assert len(labels[0]) >= 5
    assert labels == [labels[0]] * len(charts)


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph["title"])
def test_every_graph_of_the_dashboard_shows_every_server(host, graph, render):
    versions = [version for version in VERSIONS if version != "1.19" or "GC share" not in graph["title"]]
    endings = [", 90 %", ", 99 %"] if "percentiles" in graph["title"] else [""]
    shown = [series["target"] for target in graph["targets"] for series in render(target, **{"from": "-100min"}) if values(series)]
    names = [prefix_of(host, version).removeprefix("stats.gauges.go.") for version in versions]
    assert sorted(shown) == sorted(name + ending for name in names for ending in endings)


def test_each_load_is_an_event(host, http_get):
    events = json.loads(http_get("/events/get_data?tags=go_benchmark")[2])
    assert [event["what"] for event in events] == [f"Go {version} under load on {host.backend.get_hostname()}" for version in VERSIONS]
    assert [set(event["tags"]) for event in events] == [{"go_benchmark", version} for version in VERSIONS]


def test_an_interrupted_benchmark_leaves_no_load(host, wait_until, tmp_path):
    command = ["ansible-playbook", "-i", ROOT / "molecule" / "shared" / "inventory", ROOT / "playbooks" / "go_benchmark.yml"]
    command += ["-e", json.dumps({"go_benchmark_directory": str(tmp_path), "go_benchmark_duration": 300})]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as playbook:
        wait_until(lambda: host.run("pgrep -x wrk").rc == 0, timeout=120)
        os.killpg(playbook.pid, signal.SIGKILL)
    wait_until(lambda: host.run("pgrep -x wrk").rc != 0, timeout=45, message="wrk did not end")
    wait_until(lambda: host.run("systemctl is-active go-benchmark-load").rc != 0)


def test_what_cannot_be_built_is_refused_and_the_rest_goes_on(host, playbook):
    before = host.run("systemctl show --property MainPID 'go-runtime-metrics@*'").stdout
    status, output = playbook("go_runtime_metrics.yml", {"go_runtime_metrics_instances": [{"version": "1.99", "port": 8099}]})
    assert status != 0
    assert "Go 1.99 is not to be had" in " ".join(output.split())
    assert host.run("systemctl show --property MainPID 'go-runtime-metrics@*'").stdout == before


def test_a_port_that_another_service_has_is_refused(host, playbook):
    before = host.run("systemctl show --property MainPID 'go-runtime-metrics@*'").stdout
    status, output = playbook("go_runtime_metrics.yml", {"go_runtime_metrics_instances": [{"version": "1.24", "port": 8126}]})
    assert status != 0
    assert "statsd.service" in output
    assert host.run("systemctl show --property MainPID 'go-runtime-metrics@*'").stdout == before
