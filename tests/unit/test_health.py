# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""graphite_health_info on real files, a real StatsD and the real kernel: what is a sign of loss, since when, and what is none."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import time

import pages
import pytest
import whisper
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.retention import parse_retentions
from ansible_collections.metricstack.graphite.plugins.module_utils._health import udp
from ansible_collections.metricstack.graphite.plugins.module_utils._health.carbon import Instance, Settings
from ansible_collections.metricstack.graphite.plugins.module_utils._health.certificates import check_certificates
from ansible_collections.metricstack.graphite.plugins.module_utils._health.clock import check_clock, kernel_status
from ansible_collections.metricstack.graphite.plugins.module_utils._health.findings import Limits, Report, iso_time
from ansible_collections.metricstack.graphite.plugins.module_utils._health.history import History
from ansible_collections.metricstack.graphite.plugins.module_utils._health.host import Examination
from ansible_collections.metricstack.graphite.plugins.module_utils._health.series import Survey
from ansible_collections.metricstack.graphite.plugins.module_utils._health.statsd import _check_backend
from ansible_collections.metricstack.graphite.plugins.module_utils._health.units import check_jobs, check_services
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.header import read_header
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.points import read_archive, read_points
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import open_tree
from ansible_collections.metricstack.graphite.plugins.plugin_utils._health import health_verdict

MINUTE, HOUR, DAY = 60, 3600, 86400
AGENT = f"carbon.agents.{socket.gethostname().replace('.', '_')}-a"
RELAY = f"carbon.relays.{socket.gethostname().replace('.', '_')}"
RULES = "[carbon]\npattern = ^carbon\\.\nretentions = 60s:90d\n[default]\npattern = .*\nretentions = 60s:1d\n"
LIMITS = Limits(recent=DAY, stopped=HOUR, disk_days=30, certificate_days=14, cache_share=0.8, clock=60, tree=60)
LAG, BAD_LINES = "stats.gauges.statsd.timestamp_lag", "stats.counters.statsd.bad_lines_seen.count"


class Host:
    """A tree of whisper files and carbon's configuration, and the module that looks at them."""

    def __init__(self, top, run_module):
        self.top = top
        self.conf = top.parent / "carbon"
        self.conf.mkdir()
        self.now = int(time.time())
        self._run_module = run_module
        self.configure("[cache]\nMAX_CACHE_SIZE = 1000\n", RULES)

    def configure(self, settings, rules=RULES, rules_age=0.0):
        (self.conf / "carbon.conf").write_text(settings)
        path = self.conf / "storage-schemas.conf"
        path.write_text(rules)
        os.utime(path, (self.now, self.now - rules_age))

    def series(self, metric, points, retentions="60s:90d", age=None):
        """Write points, pairs of seconds ago and value, hour by hour as carbon has written them; the last of equal times counts.

        The file is as old as the newest point, unless an age is given.
        """
        path = self.top / (metric.replace(".", "/") + ".wsp")
        path.parent.mkdir(parents=True, exist_ok=True)
        archives = [(archive.seconds_per_point, archive.points) for archive in parse_retentions(retentions)]
        path.unlink(missing_ok=True)
        whisper.create(str(path), archives, xFilesFactor=0, aggregationMethod="sum")
        step = archives[0][0]
        values = {(self.now - ago) // step * step: value for ago, value in points}
        hours: dict[int, list] = {}
        for when, value in sorted(values.items()):
            hours.setdefault(when // HOUR, []).append((when, value))
        for written in hours.values():
            whisper.update_many(str(path), written, now=written[-1][0])
        then = self.now - (min(ago for ago, _value in points) if age is None else age)
        os.utime(path, (then, then))
        return path

    def examine(self, statsd=(), relay=None, **arguments):
        instances = [{"name": "a", "cache_query_port": 1}]
        carbon = {"instances": instances, "whisper_directory": str(self.top), "conf_directory": str(self.conf), "statsd": list(statsd)}
        if relay:
            carbon["relay"] = relay
        result = self._run_module("graphite_health_info", carbon=carbon, **{"ignore": ["clock"], **arguments})
        assert "msg" not in result, result
        assert not result["changed"]
        return result

    def findings(self, **arguments):
        return [(one["check"], one["severity"], one["since"], one["value"]) for one in self.examine(**arguments)["findings"]]

    def time(self, ago, step=60):
        return iso_time((self.now - ago) // step * step)


@pytest.fixture
def host(tmp_path, run_module):
    top = tmp_path / "whisper"
    top.mkdir()
    return Host(top, run_module)


def every(step, newest, oldest, value=1.0):
    return [(ago, value) for ago in range(newest, oldest, step)]


def test_points_are_those_that_the_library_reads(tmp_path):
    """At each resolution, and across the end of the ring."""
    random.seed(7)
    path, now = str(tmp_path / "one.wsp"), int(time.time())
    whisper.create(path, [(10, 360), (60, 240), (600, 144)], xFilesFactor=0, aggregationMethod="sum")
    for start in range(now - 86000, now, 3500):
        whisper.update_many(path, [(start + random.randrange(3500), random.random()) for _number in range(200)], now=start + 3500)
    with open(path, "rb") as stream:
        header = read_header(stream.fileno())
        for index, archive in enumerate(header.archives):
            begin = now - archive.seconds + archive.seconds_per_point
            (first, _end, step), values = whisper.fetch(path, begin - 1, now=now, archiveToSelect=archive.seconds_per_point)
            expected = [(first + step * place, value) for place, value in enumerate(values) if value is not None]
            own = [point for point in read_archive(stream.fileno(), header, index, first, now) if point[0] >= first]
            assert own == expected
            assert len(own) > 100
        joined = read_points(stream.fileno(), header, now - 80000, now)
    times = [when for when, _value in joined]
    assert times == sorted(set(times))
    assert times[0] < now - 70000
    assert times[-1] > now - 3600
    # Each at the finest resolution that is kept of its time.
    assert any(when % 60 for when in times if when > now - 3500)
    assert all(when % 60 == 0 for when in times if when < now - 3600)
    assert all(when % 600 == 0 for when in times if when < now - 14400)


@pytest.mark.parametrize(
    ("metric", "check", "severity", "remedy"),
    [
        ("droppedCreates", "dropped_creates", "critical", "MAX_CREATES_PER_MINUTE"),
        ("cache.overflow", "cache_overflow", "critical", "MAX_CACHE_SIZE"),
        ("errors", "write_errors", "critical", "journalctl --unit carbon-cache@a"),
        ("invalidPoints", "invalid_points", "warning", "journalctl --unit carbon-cache@a --grep 'Not stored'"),
    ],
)
def test_each_counter_of_losses_is_a_finding(host, metric, check, severity, remedy):
    host.series(f"{AGENT}.{metric}", [*every(60, 60, 7200, 0.0), (300, 412.0), (600, 8.0)])
    (finding,) = host.examine()["findings"]
    assert (finding["check"], finding["severity"], finding["value"], finding["since"]) == (check, severity, 420, host.time(600))
    assert "420 times" in finding["message"]
    assert remedy in finding["message"]


@pytest.mark.parametrize(
    ("metric", "check", "severity", "remedy"),
    [
        ("metricsDropped", "relay_drops", "critical", "raise carbon_relay_queue_size"),
        ("metricsDiscarded", "relay_discards", "warning", "Correct the sender"),
    ],
)
def test_what_the_relay_loses_is_a_finding_where_there_is_a_relay(host, metric, check, severity, remedy):
    # The relay counts on until it starts again, two minutes ago.
    counts = [*every(60, 60, 7200, 0.0), *every(60, 60, 660, 8.0), *every(60, 60, 300, 420.0), (120, 0.0), (60, 3.0)]
    host.series(f"{RELAY}.{metric}", counts)
    (finding,) = host.examine(relay={"queue_size": 1000})["findings"]
    assert (finding["check"], finding["severity"], finding["value"], finding["since"]) == (check, severity, 423, host.time(600))
    assert finding["message"].startswith("carbon-relay.service ")
    assert remedy in finding["message"]
    assert host.findings() == []
    assert host.findings(relay={"statistics_prefixes": ["load.relays.one"]}) == []


def test_a_store_tells_what_any_relay_loses_whose_series_it_has(host):
    host.series("carbon.relays.r1.metricsDropped", [*every(60, 60, 7200, 0.0), (60, 5.0)])
    host.series("carbon.relays.r2.metricsQueued", every(60, 60, 7200, 850.0))
    dropped, queued = host.examine(relay={"statistics_prefixes": ["carbon.relays.*"], "queue_size": 1000})["findings"]
    assert (dropped["check"], queued["check"]) == ("relay_drops", "relay_queue_fills")
    assert dropped["message"].startswith("The relay r1 dropped points 5 times")
    assert "wait in the queues of the relay r2, of which" in queued["message"]


def test_a_queue_of_the_relay_that_fills_is_a_finding(host):
    host.series(f"{RELAY}.metricsQueued", every(60, 60, 7200, 850.0))
    assert host.findings(relay={"queue_size": 1000}) == [("relay_queue_fills", "warning", host.time(60), 850)]
    assert host.findings(relay={"queue_size": 1100}) == []


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([5 * MINUTE], ("critical", 5 * MINUTE, 1)),
        # It goes on no more.
        ([20 * MINUTE], ("warning", 20 * MINUTE, 1)),
        ([20 * HOUR, 40 * HOUR], ("warning", 40 * HOUR, 1)),
        # A day without is the end of an episode.
        ([2 * HOUR, 3 * DAY], ("warning", 2 * HOUR, 1)),
        ([2 * HOUR, 4 * HOUR, 26 * HOUR, 3 * DAY], ("warning", 26 * HOUR, 2)),
        ([25 * HOUR], None),
        ([7 * DAY], None),
    ],
    ids=str,
)
def test_a_loss_is_critical_while_it_goes_on_and_forgotten_after_a_day(host, losses, expected):
    host.series(f"{AGENT}.droppedCreates", [*every(60, 60, 8 * DAY, 0.0), *((ago, 1.0) for ago in losses)])
    found = [] if expected is None else [("dropped_creates", expected[0], host.time(expected[1]), expected[2])]
    assert host.findings() == found


def test_a_cache_that_fills_is_a_finding_and_one_that_was_full_is_none(host):
    sizes = every(60, 60, 600, 850.0) + every(60, 600, 7200, 10.0)
    host.series(f"{AGENT}.cache.size", sizes)
    assert host.findings() == [("cache_fills", "warning", host.time(540), 850)]
    assert host.findings(cache_share=0.9) == []
    host.configure("[cache]\nMAX_CACHE_SIZE = inf\n")
    assert host.findings() == []
    host.configure("[cache]\nMAX_CACHE_SIZE = inf\n[cache:a]\nMAX_CACHE_SIZE = 1000\n")
    assert host.findings() != []
    host.series(f"{AGENT}.cache.size", [(60, 10.0), *every(60, 120, 7200, 850.0)])
    assert host.findings() == []


@pytest.mark.parametrize("settings", ["[cache]\nMAX_CACHE_SIZE = 10M\n", "no section\n", "[cache]\n" * 2, None], ids=str)
def test_settings_that_cannot_be_read_hide_no_loss(host, settings):
    host.configure(settings or "")
    if settings is None:
        (host.conf / "carbon.conf").unlink()
    host.series(f"{AGENT}.errors", [(300, 4.0), (600, 0.0)])
    answer = host.examine()
    assert [one["check"] for one in answer["findings"]] == ["write_errors"]
    (reason,) = [one["reason"] for one in answer["unexamined"] if one["check"] == "cache_fills"]
    assert reason.startswith(f"{host.conf}/carbon.conf cannot be read: ")


def test_a_cache_without_any_room_ends_no_examination(host):
    host.configure("[cache]\nMAX_CACHE_SIZE = 0\n")
    host.series(f"{AGENT}.cache.size", every(60, 60, 600, 0.0))
    assert host.findings() == []


def test_a_cache_that_has_no_room_for_its_report_drops_points(host):
    """Without a point of cache.overflow, which a cache that is so full has dropped."""
    host.series(f"{AGENT}.cache.size", [(60, 10.0), (120, 998.0), (180, 991.0), (240, 990.0), *every(60, 360, 7200, 10.0), (300, 999.0)])
    # The limit was higher at the time of the fifth report.
    host.series(f"{AGENT}.cache.overflow", [(120, 30.0), *every(60, 300, 7200, 0.0)])
    assert host.findings() == [("cache_overflow", "critical", host.time(180), 31)]


@pytest.mark.parametrize(
    ("newest", "running", "expected"),
    [
        (2 * MINUTE, HOUR, None),
        (10 * MINUTE, HOUR, 10 * MINUTE),
        (None, HOUR, HOUR),
        # It has just started, or does not run, which is a finding of its own.
        (10 * MINUTE, 2 * MINUTE, None),
        (10 * MINUTE, None, None),
    ],
)
def test_a_carbon_that_runs_and_stores_nothing_is_critical(host, newest, running, expected):
    if newest is not None:
        host.series(f"{AGENT}.cache.size", every(60, newest, HOUR), "60s:2h")
    report, top = Report(), open_tree(str(host.top))
    instance = Instance("a", "carbon", Settings(1000, 60), History(top, [], host.now), host.now)
    instance.check(report, LIMITS, None if running is None else host.now - running)
    found = [(one.check, one.severity, one.since // 60) for one in report.findings if one.since is not None]
    assert found == ([] if expected is None else [("carbon_silent", "critical", (host.now - expected) // 60)])


def test_a_carbon_that_does_not_report_itself_is_not_called_healthy(host):
    host.configure("[cache]\nCARBON_METRIC_INTERVAL = 0\n")
    assert [one["reason"] for one in host.examine()["unexamined"] if "CARBON_METRIC_INTERVAL" in one["reason"]] != []


class Growth:
    """A file system of its own with series of 120 kB, and carbon's record of those that it has created."""

    def __init__(self, host, mount):
        self.host = host
        mount(host.top, "size=128m,nr_inodes=500000")
        for number in range(40):
            host.series(f"shop.s{number}", [(60, 1.0)], "60s:7d")

    def created(self, counts, step=HOUR):
        """Let carbon have created so many series in each of the last steps."""
        points = [(step * place + step // 2, float(count)) for place, count in enumerate(counts)]
        self.host.series(f"{AGENT}.creates", [(60, 0.0), *points, (step * len(counts), 0.0)], "60s:8d", age=60)

    def found(self):
        return [(one["check"], one["severity"], one["value"]) for one in self.host.examine()["findings"]]

    def room(self):
        status = os.statvfs(self.host.top)
        sizes = [path.stat().st_blocks * 512 for path in self.host.top.rglob("*.wsp")]
        return status.f_bavail * status.f_frsize / (sum(sizes) / len(sizes))


@pytest.fixture
def growth(host, file_system):
    return Growth(host, file_system)


def test_a_disk_that_will_be_full_is_a_finding(growth):
    growth.created([50] * 6, DAY)
    ((check, severity, days),) = growth.found()
    assert (check, severity) == ("disk", "warning")
    assert days == pytest.approx(growth.room() / 50, abs=0.2)
    growth.created([400] * 6, DAY)
    ((check, severity, days),) = growth.found()
    assert (check, severity) == ("disk", "critical")
    assert days < 3
    growth.created([20] * 6, DAY)
    assert growth.found() == []


def test_the_series_of_an_installation_are_no_trend(growth):
    growth.created([0, 0, 0, 0, 900], DAY)
    assert growth.found() == []
    growth.created([0, 0, 900], HOUR)
    assert growth.found() == []
    # There is no third hour to compare with.
    growth.created([900, 900], HOUR)
    result = growth.host.examine()
    assert result["findings"] == []
    assert "disk_growth" in [one["check"] for one in result["unexamined"]]


def test_a_disk_that_fills_within_a_day_is_found_on_the_first_day(growth):
    growth.created([100] * 4, HOUR)
    ((check, severity, days),) = growth.found()
    assert (check, severity) == ("disk", "critical")
    assert days < 1
    growth.created([2] * 4, HOUR)
    assert growth.found() == []


def test_a_file_system_without_room_is_a_finding_without_any_history(host, file_system):
    file_system(host.top, "size=6m,nr_inodes=100")
    for number in range(8):
        host.series(f"shop.s{number}", [(60, 1.0)], "60s:7d")
    # The worst comes first.
    host.configure("[cache]\n", rules_age=2 * DAY)
    disk, inodes, rule = host.examine()["findings"]
    assert [(one["check"], one["severity"]) for one in (disk, inodes)] == [("disk", "critical"), ("inodes", "critical")]
    assert (rule["check"], rule["severity"]) == ("unused_rule", "warning")
    assert all("carbon_cache_prune" in one["message"] for one in (disk, inodes))


RETENTIONS = "10s:6h,1m:7d,10m:30d"


@pytest.mark.parametrize(
    ("points", "retentions", "stopped"),
    [
        (every(10, 2 * HOUR, 6 * HOUR), RETENTIONS, True),
        (every(10, 2 * HOUR, 6 * HOUR), "10s:1h,1m:7d", True),
        (every(60, 2 * HOUR, 6 * HOUR), "60s:1d", True),
        # Not long enough ago, or too long.
        (every(10, HOUR // 2, 6 * HOUR), RETENTIONS, False),
        (every(60, 25 * HOUR, 40 * HOUR), RETENTIONS, False),
        # One that is sent more rarely than it could be kept; errors now and then; a counter that has lived for some minutes.
        (every(600, 2 * HOUR, 6 * HOUR), RETENTIONS, True),
        ([(2 * HOUR + pause * MINUTE, 1.0) for pause in (0, 3, 8, 10, 13, 17, 60, 64, 70, 77, 80, 130, 140, 170)], RETENTIONS, False),
        ([(2 * HOUR + pause * MINUTE, 1.0) for pause in range(0, 180, 45)], RETENTIONS, False),
        (every(10, 2 * HOUR, 2 * HOUR + 300), RETENTIONS, False),
        (every(10, 20 * HOUR, 20 * HOUR + 300), RETENTIONS, False),
        # The next point is not due yet.
        (every(HOUR, 2 * HOUR, 20 * HOUR), "1h:30d", False),
        # A shop that is closed at this time of the day; one that was open yesterday; one that is closed on this day of the week.
        (every(60, 2 * HOUR, 12 * HOUR) + every(60, 26 * HOUR, 36 * HOUR), RETENTIONS, False),
        (every(60, 2 * HOUR, 36 * HOUR), RETENTIONS, True),
        (every(60, 2 * HOUR, 6 * DAY) + every(60, 7 * DAY + 2 * HOUR, 8 * DAY), "1m:15d", False),
        (every(60, 2 * HOUR, 12 * HOUR) + every(60, 26 * HOUR, 36 * HOUR) + every(60, 7 * DAY - HOUR, 8 * DAY), "1m:15d", True),
    ],
    ids=range(15),
)
def test_a_steady_series_without_points_has_stopped(host, points, retentions, stopped):
    for number in range(3):
        host.series(f"app.running{number}", every(60, 60, 600), RETENTIONS)
    host.series("app.shop.requests", points, retentions)
    newest = min(ago for ago, _value in points)
    step = parse_retentions(retentions)[0].seconds_per_point
    assert host.findings() == ([("stopped_series", "warning", host.time(newest, step), 1)] if stopped else [])


def test_stopped_series_are_one_finding_for_each_sender_and_critical_if_most_have_stopped(host):
    for number in range(9):
        host.series(f"stats.timers.shop.s{number}.mean", every(10, 2 * HOUR + number * 10, 6 * HOUR), RETENTIONS)
    host.series("stats.counters.bank.count", every(10, 3 * HOUR, 6 * HOUR), RETENTIONS)
    for number in range(20):
        host.series(f"app.running{number}", every(60, 60, 600), RETENTIONS)
    shop, bank = host.examine()["findings"]
    assert (shop["value"], shop["severity"], shop["since"]) == (9, "warning", host.time(2 * HOUR + 80, 10))
    assert "stats.timers.shop.s0.mean, stats.timers.shop.s1.mean, stats.timers.shop.s2.mean and others" in shop["message"]
    assert (bank["value"], bank["since"]) == (1, host.time(3 * HOUR, 10))
    assert host.findings(stopped_hours=4) == []
    for number in range(15):
        (host.top / "app" / f"running{number}.wsp").unlink()
    assert {severity for _check, severity, _since, _value in host.findings()} == {"critical"}


def test_a_rule_that_matches_nothing_is_a_finding_after_a_day(host):
    rules = "[shop]\npattern = ^shop\\.\nretentions = 60s:1d\n[narrow]\npattern = ^app\\.one\\.\nretentions = 60s:1d\n"
    rules = f"[wide]\npattern = ^app\\.\nretentions = 60s:1d\n{rules}[default]\npattern = .*\nretentions = 60s:1d\n"
    host.series("app.one.requests", [(60, 1.0)])
    host.configure("[cache]\n", rules, rules_age=2 * DAY)
    found = host.examine()["findings"]
    assert [(one["check"], one["severity"], one["since"]) for one in found] == [("unused_rule", "warning", host.time(2 * DAY, 1))] * 2
    assert "'shop'" in found[0]["message"]
    assert "taken by the earlier rule 'wide'" in found[1]["message"]
    assert host.findings(ignore=["clock", "unused_rule"]) == []
    host.series("shop.orders", [(60, 1.0)])
    assert [one["message"].partition("'")[2][:6] for one in host.examine()["findings"]] == ["narrow"]
    host.configure("[cache]\n", rules, rules_age=HOUR)
    assert host.findings() == []


@pytest.fixture
def nobody():
    """Lose root's privileges, where the tests have them, until the end of the test."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_what_cannot_be_read_is_named_and_makes_no_rule_unused(host, request, mode):
    host.series("secret.orders", [(60, 1.0)])
    host.series("open.orders", [(60, 1.0)])
    os.chmod(host.top / "secret", mode)
    top, report = open_tree(str(host.top)), Report()
    survey = Survey(top, [{"name": "secret", "pattern": r"^secret\."}], host.now, LIMITS)
    request.getfixturevalue("nobody")
    survey.run()
    survey.report(report, host.now - 2 * DAY)
    assert (survey.series, report.findings) == (1, [])
    (skipped,) = report.skipped
    assert skipped["check"] == "series"
    assert skipped["reason"].startswith("1 name in the tree cannot be read, such as secret")


def test_points_ahead_of_the_clock_are_a_finding(host):
    path = host.series("app.ahead", [(60, 1.0)], "60s:1d", age=0)
    assert host.findings() == []
    whisper.update_many(str(path), [(host.now + 2 * HOUR, 1.0)], now=host.now + 3 * HOUR)
    (finding,) = host.examine()["findings"]
    assert (finding["check"], finding["severity"], finding["value"]) == ("future_points", "warning", 1)
    assert f"app.ahead at {host.time(-2 * HOUR)}" in finding["message"]
    assert host.findings(clock_seconds=3 * HOUR) == []


def test_sockets_that_root_alone_sees_are_not_called_healthy(monkeypatch):
    parameters = {**dict.fromkeys(("carbon", "statsd", "apache_directory", "reference_time")), "certificates": []}
    hours = {"recent_hours": 24, "stopped_hours": 1, "disk_days": 30, "certificate_days": 14, "clock_seconds": 60, "tree_seconds": 60}
    skipped = {}
    for user in (0, 1000):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        examination = Examination({**parameters, **hours, "cache_share": 0.8, "services": ["statsd.service"], "jobs": [], "memcached": []})
        examination.run()
        skipped[user] = [one["check"] for one in examination.report.skipped]
    assert "udp_drops" not in skipped[0]
    assert "udp_drops" in skipped[1000]


def test_statsds_own_series_show_bad_lines_late_and_missing_flushes(host):
    statsd = {"host": "s1", "flush_seconds": 10, "bad_lines": BAD_LINES, "timestamp_lag": LAG}
    host.series(BAD_LINES, every(10, 10, 6 * HOUR, 0.0), RETENTIONS)
    host.series(LAG, every(10, 10, 6 * HOUR, 0.0), RETENTIONS)
    assert host.findings(statsd=[statsd]) == []
    host.series(BAD_LINES, [*every(10, 10, 5000, 0.0), *every(10, 5200, 6 * HOUR, 0.0), (3600, 3.0), (7200, 4.0)], RETENTIONS)
    # Two late flushes are an accident, and those after many restarts have no lag.
    host.series(LAG, [*every(10, 10, 8000, 0.0), *every(10, 9000, 6 * HOUR, 0.0), (300, 6.0), (600, 9.0)], RETENTIONS)
    lines, holes = host.examine(statsd=[statsd])["findings"]
    assert (lines["check"], lines["severity"], lines["value"], lines["since"]) == ("bad_lines", "warning", 7, host.time(7200, 10))
    assert "StatsD on s1" in lines["message"]
    assert "journalctl --unit statsd --grep 'Bad line'" in lines["message"]
    assert (holes["check"], holes["since"]) == ("statsd_holes", host.time(5200, 10))
    assert 200 <= holes["value"] <= 220
    host.series(BAD_LINES, [*every(10, 10, 6 * HOUR, 0.0), (3600, 3.0), (7200, 4.0)], RETENTIONS)
    host.series(LAG, [*every(10, 10, 6 * HOUR, 0.0), (300, 6.0), (600, 9.0), (900, 5.0), (1200, 4.0)], RETENTIONS)
    assert host.findings(statsd=[statsd])[1] == ("statsd_lag", "warning", host.time(900, 10), 9)


def test_the_spacing_of_older_points_is_no_hole(host):
    statsd = {"host": "s1", "flush_seconds": 10, "timestamp_lag": LAG}
    host.series(LAG, every(10, 10, 2 * DAY, 0.0), "10s:1h,15m:10d")
    assert host.findings(statsd=[statsd]) == []


def test_a_tree_that_is_too_large_is_said_to_be(host):
    for number in range(5):
        host.series(f"app.s{number}", [(60, 1.0)])
    survey, report = Survey(open_tree(str(host.top)), [], host.now, LIMITS._replace(tree=0)), Report()
    survey.run()
    survey.report(report, 0)
    assert not survey.complete
    assert {one["check"] for one in report.skipped} >= {"stopped_series", "unused_rule"}
    assert "doctor_tree_seconds" in report.skipped[0]["reason"]


def test_what_is_no_whisper_file_does_not_end_the_examination(host):
    broken = host.top / "broken.wsp"
    broken.write_bytes(b"no header")
    os.utime(broken, (host.now, host.now - 2 * HOUR))
    (host.top / "now.wsp").write_bytes(b"")
    (host.top / "link.wsp").symlink_to("/etc/passwd")
    (host.top / AGENT.replace(".", "/")).mkdir(parents=True)
    (host.top / AGENT.replace(".", "/") / "errors.wsp").write_bytes(bytes(40))
    assert host.findings() == []


def test_a_missing_whisper_directory_is_critical(host):
    host.top.rmdir()
    ((check, severity, _since, _value),) = host.findings()
    assert (check, severity) == ("whisper_directory", "critical")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"disk_days": 0, "tree_seconds": -1}, ["disk_days is 0", "tree_seconds is -1"]),
        ({"cache_share": 80}, ["cache_share is 80"]),
        ({"stopped_hours": 24}, ["stopped_hours is 24 and recent_hours 24"]),
    ],
)
def test_limits_by_which_nothing_can_be_judged_are_refused(run_module, limits, words):
    message = run_module("graphite_health_info", **limits)["msg"]
    assert [word for word in words if word not in message] == []


def health(run_module, statsd, flush_seconds=1):
    found = run_module(
        "graphite_health_info", statsd={"management_port": statsd.management_port, "flush_seconds": flush_seconds}, ignore=["clock"]
    )
    return found, [(one["check"], one["severity"]) for one in found["findings"]]


def test_a_statsd_that_reaches_carbon_is_healthy_and_one_that_does_not_is_critical(run_module, statsd, flushing, receiver):
    one = statsd(**flushing())
    # As long as a StatsD that reaches nobody would need to be critical.
    receiver.wait_for("stats.statsd.numStats", number=9, timeout=40)
    result, found = health(run_module, one)
    assert found == []
    assert result["statsd"]["graphite"]["flush_length"] > 0
    receiver.close()
    deadline = time.monotonic() + 20
    result, found = health(run_module, one)
    while found != [("statsd_flush", "critical")]:
        assert found in ([], [("statsd_exception", "warning")])
        assert time.monotonic() < deadline
        time.sleep(0.5)
        result, found = health(run_module, one)
    assert re.match(r"20\d\d-", result["findings"][0]["since"])
    assert re.search(r"since \S+; \d+ flushes of \d+ bytes wait for it", result["findings"][0]["message"])


def test_an_exception_of_a_flush_is_a_finding(run_module, statsd, flushing):
    one = statsd(**flushing(graphitePort=70000))
    deadline = time.monotonic() + 15
    while ("statsd_exception", "warning") not in health(run_module, one)[1]:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_flushes_for_which_there_was_no_room_are_a_finding(run_module, statsd, flushing, receiver):
    receiver.close()
    one = statsd(**flushing(graphiteMaxUnsentBytes=0))
    deadline = time.monotonic() + 15
    while ("statsd_dropped", "critical") not in health(run_module, one)[1]:
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.parametrize(
    ("graphite", "found"),
    [
        ({"last_flush": 5, "last_exception": 20}, []),
        ({"last_flush": 5, "last_exception": 5}, []),  # within a second, and the flush was taken
        ({"last_flush": 15, "last_exception": 5}, [("statsd_exception", "warning")]),
        ({"last_flush": 95, "last_exception": 5}, [("statsd_flush", "critical")]),
        ({"last_flush": 5, "last_exception": 1000, "dropped_flushes": 3, "last_dropped": 1000}, [("statsd_dropped", "warning")]),
        ({"last_flush": 5, "last_exception": 9000, "dropped_flushes": 3, "last_dropped": 90000}, []),
    ],
)
def test_what_a_statsd_says_of_carbon_is_a_finding_while_something_is_amiss(graphite, found):
    report = Report()
    statistics = {"unsent_flushes": 1, "unsent_bytes": 5, "dropped_flushes": 0, "last_dropped": NOW, **graphite}
    _check_backend(report, LIMITS, statistics, 100000, 10, NOW)
    assert [(finding.check, finding.severity) for finding in report.findings] == found


def test_a_statsd_that_hangs_or_was_set_down_is_a_finding(run_module, statsd):
    one = statsd()
    assert one.ask("health") == "health: up\n"
    one.ask("health down")
    assert health(run_module, one)[1] == [("statsd_health", "warning")]
    one.process.kill()
    one.process.wait()
    assert health(run_module, one)[1] == [("statsd_management", "critical")]


STATISTICS = {"uptime": 100, "get_hits": 90, "get_misses": 10, "evictions": 0, "cmd_set": 100, "bytes": 9, "limit_maxbytes": 64 << 20}


@pytest.mark.parametrize(
    ("statistics", "found"),
    [
        (STATISTICS, []),
        ({**STATISTICS, "evictions": 1}, []),
        ({**STATISTICS, "evictions": 2}, [("memcached_evictions", "warning", 2)]),
        ({"version": "1.6.18"}, [("memcached", "warning", "unreachable")]),
    ],
)
def test_a_memcached_that_is_away_or_short_of_memory_is_a_warning(run_module, memcached, statistics, found):
    memcached.statistics.update({"pid": 1, "version": "1.6.18", **statistics})
    result = run_module("graphite_health_info", ignore=["clock"], memcached=[memcached.name])
    assert [(one["check"], one["severity"], one["value"]) for one in result["findings"]] == found
    assert result["memcached"] == ({memcached.name: STATISTICS} | {memcached.name: statistics} if "uptime" in statistics else {})
    memcached.close()
    result = run_module("graphite_health_info", ignore=["clock"], memcached=[memcached.name])
    assert [one["check"] for one in result["findings"]] == ["memcached"]
    assert memcached.name in result["findings"][0]["message"]


def test_drops_are_those_that_the_kernel_counts_here_for_this_process_in_place_of_a_units(monkeypatch):
    monkeypatch.setattr(udp, "processes_of", lambda _unit, _proc: [os.getpid()])
    known = {"statsd.service": {"ActiveEnterTimestamp": "Sat 2026-11-28 03:10:00 UTC"}}
    states = dict(known)

    def findings(before, after):
        report = Report()
        udp.check_drops(report, states, before, after)
        return [(one.severity, one.since, one.value) for one in report.findings]

    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as receiving, socket.socket(family, socket.SOCK_DGRAM) as sending:
            receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            receiving.bind((address, 0))
            before = udp.read_drops(["statsd.service"])
            assert findings(before, before) == []
            for _number in range(100):
                sending.sendto(b"x" * 200, receiving.getsockname()[:2])
            after = udp.read_drops(["statsd.service"])
            ((severity, since, drops),) = findings(before, after)
            assert (severity, since) == ("critical", 1795835400.0)
            assert 0 < drops < 100
            receiving.setblocking(False)
            received = 0
            with contextlib.suppress(BlockingIOError):
                while receiving.recv(1000):
                    received += 1
            assert drops == 100 - received
            states.clear()
            assert findings(before, after) == [("critical", None, drops)]
            # systemd keeps the socket while the unit restarts.
            states["statsd.service"] = {**known["statsd.service"], "NFileDescriptorStore": "1"}
            assert findings(before, after) == [("critical", None, drops)]
            states.update(known)
            # Nothing more was dropped between the two looks.
            assert findings(after, after) == [("warning", 1795835400.0, drops)]


NOW = 1795835400.0
RUNNING = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "NRestarts": "0"}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, []),
        ({"NRestarts": "1", "ActiveEnterTimestamp": "Sat 2026-11-28 02:10:00 UTC"}, [("unit_restarted", "warning", NOW - HOUR)]),
        ({"NRestarts": "9", "ActiveEnterTimestamp": "Sat 2026-11-28 02:10:00 UTC"}, [("unit_restarted", "warning", NOW - HOUR)]),
        ({"NRestarts": "2", "ActiveEnterTimestamp": "Sat 2026-11-28 03:09:00 UTC"}, [("unit_restarted", "warning", NOW - MINUTE)]),
        ({"NRestarts": "3", "ActiveEnterTimestamp": "Sat 2026-11-28 03:09:00 UTC"}, [("unit_restarted", "critical", NOW - MINUTE)]),
        ({"NRestarts": "9", "ActiveEnterTimestamp": "Fri 2026-11-27 03:09:00 UTC"}, []),
        (
            {"ActiveState": "failed", "SubState": "failed", "StateChangeTimestamp": "Sat 2026-11-28 03:09:00 UTC"},
            [("unit_down", "critical", NOW - MINUTE)],
        ),
        # It starts again and again; one that is being started for the first time may need its time.
        *(
            (
                {"ActiveState": "activating", "SubState": state, "NRestarts": "5", "StateChangeTimestamp": "Sat 2026-11-28 03:09:58 UTC"},
                [("unit_down", "critical", None)],
            )
            for state in ("auto-restart", "auto-restart-queued", "start-pre", "start")
        ),
        ({"ActiveState": "activating", "SubState": "auto-restart-queued"}, [("unit_down", "critical", None)]),
        ({"ActiveState": "activating", "SubState": "start-pre"}, []),
        ({"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}, [("unit_down", "critical", None)]),
    ],
)
def test_units(state, expected):
    report = Report()
    check_services(report, LIMITS, {"statsd.service": {**RUNNING, **state}}, NOW)
    assert [(one.check, one.severity, one.since) for one in report.findings] == expected


def test_a_job_may_rest_but_not_fail():
    report = Report()
    check_jobs(
        report, {"a.service": {**RUNNING, "ActiveState": "inactive"}, "b.service": {"LoadState": "not-found", "ActiveState": "inactive"}}
    )
    assert report.findings == []
    check_jobs(report, {"a.service": {**RUNNING, "ActiveState": "failed", "Result": "exit-code"}})
    assert [(one.check, one.severity, one.value) for one in report.findings] == [("job_failed", "warning", "exit-code")]


def test_a_clock_that_differs_from_the_controllers_is_critical(run_module):
    for ahead in (-120, 120):
        (finding,) = run_module("graphite_health_info", reference_time=time.time() - ahead)["findings"]
        assert (finding["check"], finding["severity"]) == ("clock", "critical")
        assert abs(finding["value"] - ahead) < 20
    assert run_module("graphite_health_info", reference_time=time.time() - 30, ignore=["clock"])["findings"] == []


def test_the_kernel_says_whether_its_clock_is_synchronized(tmp_path):
    status = kernel_status()
    assert status is not None
    container = tmp_path / "container"
    report = Report()
    check_clock(report, 60, time.time(), None, str(container))
    assert [one.value for one in report.findings] == (["unsynchronized"] if status & 0x40 else [])
    container.touch()
    report = Report()
    check_clock(report, 60, time.time(), None, str(container))
    assert (report.findings, len(report.skipped)) == ([], 1)


@pytest.fixture
def apache(tmp_path):
    """Return a configuration of Apache with a site whose certificate is valid for five days."""
    root = tmp_path / "apache2"
    (root / "sites-enabled").mkdir(parents=True)
    (root / "apache2.conf").write_text("IncludeOptional sites-enabled/*.conf\n")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "5", "-subj", "/CN=a.example"]
    subprocess.run([*command, "-keyout", root / "key.pem", "-out", root / "cert.pem"], check=True, capture_output=True)
    site = "<VirtualHost *:443>\n  SSLEngine on\n  SSLCertificateFile {}\n</VirtualHost>\n"
    (root / "sites-enabled" / "a.conf").write_text(site.format("cert.pem"))
    (root / "sites-enabled" / "b.conf").write_text(site.format(root / "cert.pem"))
    return root


def test_a_certificate_that_ends_soon_is_one_finding(apache):
    def findings(days, **limits):
        report = Report()
        check_certificates(report, LIMITS._replace(**limits), str(apache), time.time() + days * DAY)
        return [(one.severity, round(float(one.value)), one.since is not None) for one in report.findings]

    assert findings(0) == [("warning", 5, False)]
    assert findings(0, certificate_days=4) == []
    assert findings(3) == [("critical", 2, False)]
    assert findings(6) == [("critical", -1, True)]


def test_a_certificate_that_cannot_be_read_is_critical(apache):
    (apache / "cert.pem").write_text("none")
    report = Report()
    check_certificates(report, LIMITS, str(apache), time.time())
    assert [(one.severity, one.value) for one in report.findings] == [("critical", "unreadable")]
    (apache / "sites-enabled" / "a.conf").unlink()
    (apache / "sites-enabled" / "b.conf").unlink()
    report = Report()
    check_certificates(report, LIMITS, str(apache), time.time())
    assert report.findings == []


def test_a_certificate_between_hosts_is_looked_at_with_and_without_apache(apache, run_module):
    between_hosts = [str(apache / "cert.pem"), str(apache / "missing.pem")]
    report = Report()
    check_certificates(report, LIMITS, str(apache), time.time(), between_hosts)
    assert [(one.severity, one.value) for one in report.findings] == [("warning", 5.0), ("critical", "unreadable")]
    assert f"The certificate {between_hosts[0]} of TLS between hosts ends in 5 days" in report.findings[0].message
    found = run_module("graphite_health_info", certificates=between_hosts, certificate_days=4)["findings"]
    (found,) = [one for one in found if one["check"] == "certificate"]
    assert found["value"] == "unreadable"
    assert "run site.yml" in found["message"]


FINDING = {"check": "disk", "severity": "warning", "since": None, "value": 9, "message": "The disk fills."}
LOSS = {"check": "bad_lines", "severity": "critical", "since": "2026-11-28T03:10:00Z", "value": 9, "message": "Lines are bad."}


@pytest.mark.parametrize(
    ("answer", "fail_on", "expected"),
    [
        ({"findings": [], "series": 7}, "warning", [("h: OK, no sign of loss, 7 series", False)]),
        ({"findings": [], "series": None}, "warning", [("h: OK, no sign of loss", False)]),
        (
            {"findings": [LOSS, FINDING], "unexamined": [{"check": "clock", "reason": "none."}]},
            "critical",
            [
                ("h: CRITICAL bad_lines since 2026-11-28T03:10:00Z: Lines are bad.", True),
                ("h: WARNING disk: The disk fills.", False),
                ("h: NOT EXAMINED clock: none.", False),
            ],
        ),
        ({"findings": [FINDING]}, "warning", [("h: WARNING disk: The disk fills.", True)]),
        (
            {"unreachable": True, "msg": "no\nroute."},
            "critical",
            [("h: CRITICAL unreachable: no route. Look whether the host runs, and whether ansible -m ping reaches it.", True)],
        ),
        (
            {"failed": True, "msg": "bug"},
            "critical",
            [("h: CRITICAL unexamined: bug. Run doctor.yml with -vvv for the whole error.", True)],
        ),
    ],
)
def test_the_verdict_has_a_line_for_each_finding(answer, fail_on, expected):
    assert [(one["line"], one["is_failure"]) for one in health_verdict(answer, "h", fail_on)] == expected


PLAY = [
    {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {
                "ansible.builtin.assert": {"that": "not item.is_failure", "quiet": True},
                "loop": "{{ verdict }}",
                "loop_control": {"label": "{{ item.line }}"},
            }
        ],
    }
]


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Return a function that runs the Nagios plugin of docs/doctor.md on a verdict, in place of doctor.yml, as a user without settings."""
    script = tmp_path / "check_graphite"
    script.write_text(pages.block("docs/doctor.md", "nagios").text)
    play, variables = tmp_path / "play.yml", tmp_path / "verdict.json"
    play.write_text(json.dumps(PLAY))
    replacement = tmp_path / "bin" / "ansible-playbook"
    replacement.parent.mkdir()
    replacement.write_text(f"#!/bin/sh\n[ -e {variables} ] || exit 1\nexec {shutil.which('ansible-playbook')} {play} -e @{variables}\n")
    replacement.chmod(0o755)
    monkeypatch.setenv("PATH", f"{replacement.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("ANSIBLE_CONFIG", raising=False)

    def run(verdict=None):
        if verdict is not None:
            variables.write_text(json.dumps({"verdict": verdict}))
        result = subprocess.run(["sh", script, "hosts.yml"], cwd=tmp_path, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout.splitlines()

    return run


def test_the_plugin_for_nagios_prints_the_lines_and_nothing_else(plugin):
    late = {"line": "h: WARNING statsd_lag: Flushes were late. Let its senders sample (|@0.1).", "is_failure": False}
    full = {"line": "h: CRITICAL disk: It is full (soon). Remove series (carbon_cache_prune).", "is_failure": True}
    shown = [late["line"].replace("|", ","), full["line"]]
    assert plugin([{"line": "h: OK, no sign of loss, 7 series", "is_failure": False}]) == (0, ["h: OK, no sign of loss, 7 series"])
    assert plugin([late]) == (1, shown[:1])
    assert plugin([late, full]) == (2, shown)


def test_the_plugin_for_nagios_does_not_know_the_state_if_ansible_cannot_run(plugin):
    assert plugin() == (3, [""])
