# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""doctor.yml: what is lost on a real host is found, with its time and its remedy, and a healthy host is healthy."""

from __future__ import annotations

import json
import os
import re
import shlex
from contextlib import contextmanager

import pytest
import yaml
from conftest import PYTHON, ROOT

HOST = os.environ.get("MOLECULE_HOST", "")
WHISPER = "/var/lib/graphite/whisper"
SCHEMAS = "/etc/carbon/storage-schemas.conf"
# The instances under test report themselves every two seconds, and each report is a point.
RULES = """
[unused]
pattern = ^no_series_has_this_name\\.
retentions = 60s:1d

[doctor]
pattern = (-doctor|^doctor_test)\\.
retentions = 2s:6h

"""
# A gauge that was sent every ten seconds until two hours ago, one whose sender's clock is an hour ahead, and what StatsD has flushed
# until an hour ago: two minutes are the shortest hole that is reported.
SENT = """
import socket, time
now = int(time.time()) // 10 * 10
carbon = socket.create_connection(("127.0.0.1", 2003))
carbon.sendall(b"".join(b"stats.gauges.doctor_test.queue 1 %d\\n" % when for when in range(now - 20000, now - 7190, 10)))
carbon.sendall(b"doctor_test.ahead 1 %d\\n" % (now + 3600))
flushed = b"stats.counters.statsd.bad_lines_seen.count 0 %d\\n"
carbon.sendall(b"".join(flushed % when for when in range(now - 4500, now - 3600, 10)))
carbon.close()
"""
# Beside the instance of the host: one whose cache is small and whose disk is slow, and one that cannot start.
INSTANCES = [
    {"name": "a", "line_receiver_port": 2103, "cache_query_port": 7002},
    {"name": "doctor", "line_receiver_port": 12003, "cache_query_port": 17002},
    {"name": "doctor-loop", "line_receiver_port": 12004, "cache_query_port": 17004},
]
OTHER_INSTANCES = """
[cache:doctor]
LINE_RECEIVER_PORT = 12003
CACHE_QUERY_PORT = 17002
MAX_CREATES_PER_MINUTE = inf
USE_FLOW_CONTROL = False
CACHE_WRITE_STRATEGY = max
"""
SMALL_CACHE = "MAX_CACHE_SIZE = 20000\nMAX_UPDATES_PER_SECOND = 1\n"
OTHER_SERIES = f"{WHISPER}/carbon/agents/*-doctor"
# Growth is extrapolated from at least three hours, so that carbon gets its counts of the hours before through its port: in each hour, six
# times as many series as would have room if a series took 4 KiB. The directory of the last series belongs to root.
GROWTH = f"""
import glob, os, socket, time
(path,) = glob.glob("{OTHER_SERIES}")
status = os.statvfs(path)
room = status.f_bavail * status.f_frsize // 4096
with socket.create_connection(("127.0.0.1", 12003)) as carbon:
    for ago in range(600, 5 * 3600, 600):
        carbon.sendall(b"carbon.agents.%s.creates %d %d\\n" % (os.path.basename(path).encode(), room, time.time() - ago))
    carbon.sendall(b"doctor_test.foreign.series 1 %d\\n" % time.time())
"""
# Half as many points again as the small cache holds, of which one series each second is written.
BURST = """
import socket, time
with socket.create_connection(("127.0.0.1", 12003)) as carbon:
    for number in range(1000):
        carbon.sendall(b"".join(b"doctor_test.burst.s%d 1 %d\\n" % (number, time.time() - 2 * ago) for ago in range(30)))
"""
# StatsD flushes every four seconds and is stopped for eight, so that flushes are late, and each has a bad line.
FLUSH_OFTEN = "sed -i '/flushInterval/s/10000/4000/' /etc/statsd/config.js"
BUSY = """
import socket, subprocess, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for signal, seconds in (("STOP", 7.7), ("CONT", 1.0)):
        subprocess.run(["systemctl", "kill", "--signal", signal, "statsd"], check=True)
        sender.sendto(b"no metric", ("127.0.0.1", 8125))
        time.sleep(seconds)
"""
LAG = "stats/gauges/statsd/timestamp_lag.wsp"
DROP_IN = "/run/systemd/system/{}.d/doctor.conf"
DROP_INS = {
    "carbon-cache@doctor.service": "[Service]\nRestartSec=200ms\n",
    "carbon-cache@doctor-loop.service": "[Service]\nRestartSec=200ms\nExecStartPre=/bin/false\n",
    "graphite_build_search_index.service": "[Service]\nExecStart=\nExecStart=/bin/false\n",
    "graphite_build_search_index.timer": "[Timer]\nRandomizedDelaySec=0\nAccuracySec=1s\n",
}
DROPPED = "carbon/agents/*-a/droppedCreates.wsp"
STOPPED_FILE = f"{WHISPER}/stats/gauges/doctor_test/queue.wsp"
# Twenty new series each half a second.
NEW_SERIES = """
import itertools, socket, time
carbon = socket.create_connection(("127.0.0.1", 2003))
for number in itertools.count():
    carbon.sendall(b"".join(b"doctor_test.new.s%d 1 %d\\n" % (20 * number + place, time.time()) for place in range(20)))
    time.sleep(0.5)
"""
FLOOD = """
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _number in range(12000):
    sender.sendto(b"\\n".join([b"doctor_test:1|c"] * 80), ("127.0.0.1", 8125))
"""
SUM = "import glob, sys, time, whisper; print(sum(filter(None, whisper.fetch(glob.glob(sys.argv[1])[0], time.time() - 180)[1])))"
LATE = "import sys, time, whisper; print(sum((lag or 0) >= 2 for lag in whisper.fetch(sys.argv[1], time.time() - 180)[1]))"
# Not without the file, which a carbon that creates no series would not make anew.
FORGET = """
import glob, sys, time, whisper
now = int(time.time())
whisper.update_many(glob.glob(sys.argv[1])[0], [(now - ago, 0.0) for ago in range(0, 600, 60)])
"""
CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 5 -subj /CN=doctor.example -keyout /root/doctor.key -out /root/doctor.pem"
    " && echo SSLCertificateFile /root/doctor.pem > /etc/apache2/sites-enabled/doctor.conf"
)
CLEAN = (
    "rm -rf /root/doctor.key /root/doctor.pem /etc/apache2/sites-enabled/doctor.conf /root/carbon.conf /root/storage-schemas.conf"
    f" {WHISPER}/doctor_test {WHISPER}/stats/gauges/doctor_test {WHISPER}/stats/counters/doctor_test"
    f" {WHISPER}/stats/counters/statsd/bad_lines_seen {WHISPER}/{LAG} {OTHER_SERIES}"
)


@pytest.fixture(scope="module")
def doctor(run_ansible):
    """Run doctor.yml; return its exit status, its output, and the lines of its verdict by host."""

    def run(*options, **variables):
        command = ["ansible-playbook", ROOT / "playbooks" / "doctor.yml", "-e", json.dumps(variables), *options]
        # The time is the same there, whatever the clock shows.
        status, output, errors = run_ansible(*command, TZ="Asia/Tokyo")
        assert "PLAY RECAP" in output, errors
        return status, output + errors, re.findall(r"\(item=(.*?: (?:OK|WARNING|CRITICAL|NOT EXAMINED)\b.*)\)", output)

    return run


@pytest.fixture(scope="module")
def run(host):
    def command(line):
        result = host.run(line)
        assert result.rc == 0, f"{line}: {result.stderr}"
        return result.stdout

    return command


def test_a_host_in_use_is_healthy(doctor, documented):
    assert f"{HOST}: " in documented("docs/doctor.md", "doctor", variables={"doctor_ignore": ["statsd_lag", "statsd_holes"]})
    # The processors are shared with other tests, for which StatsD may have to wait.
    status, output, lines = doctor("--check", doctor_fail_on="warning", doctor_ignore=["statsd_lag", "statsd_holes"])
    assert status == 0, output
    assert re.fullmatch(rf"{HOST}: OK, no sign of loss, \d\d+ series", lines[0])
    assert [line for line in lines[1:] if "NOT EXAMINED" not in line] == []
    assert "changed=0" in output


@contextmanager
def replaced(run, path, command):
    """Change a file inside of a with statement, without a change of its times."""
    copy = f"/root/{os.path.basename(path)}"
    run(f"cp -p {path} {copy}")
    try:
        run(command)
        yield
    finally:
        run(f"cp -p {copy} {path}")


@pytest.fixture(scope="module")
def sick(host, run, doctor, wait_until):
    """Let the host lose metrics in every way that takes less than a minute; return the lines of the verdict, by check."""
    restart = "systemctl restart carbon-cache@a && timeout 20 sh -c 'until ss -Hltn sport = :2103 | grep -q .; do sleep 0.2; done'"
    python = f"{PYTHON} -c"
    limits = "s/^MAX_CREATES_PER_MINUTE.*/MAX_CREATES_PER_MINUTE = 1\\nCARBON_METRIC_INTERVAL = 2/"
    others = shlex.quote(OTHER_INSTANCES)
    limits = f"sed -i '{limits}' /etc/carbon/carbon.conf && printf %s {others} >> /etc/carbon/carbon.conf"
    rules = f"printf %s {shlex.quote(RULES)} | cat - /root/storage-schemas.conf > {SCHEMAS} && touch -d '2 days ago' {SCHEMAS}"

    def counted(path):
        """Return the sum of a series of the last minutes, 0 if there is none yet."""
        return float(host.run(f"{python} {shlex.quote(SUM)} '{WHISPER}/{path}'").stdout or 0)

    def late_flushes():
        return int(host.run(f"{python} {shlex.quote(LATE)} {WHISPER}/{LAG}").stdout or 0)

    def main_process(unit):
        return host.run(f"systemctl show --property MainPID --value {unit}").stdout.strip()

    def kill(unit):
        killed = main_process(unit)
        run(f"systemctl kill --signal=KILL {unit}")
        return wait_until(lambda: next((pid for pid in [main_process(unit)] if pid not in ("0", killed)), None))

    try:
        with replaced(run, "/etc/carbon/carbon.conf", limits), replaced(run, SCHEMAS, rules):
            for unit, text in DROP_INS.items():
                path = DROP_IN.format(unit)
                run(f"mkdir -p {os.path.dirname(path)} && printf %s {shlex.quote(text)} > {path}")
            run("systemctl daemon-reload && systemctl restart graphite_build_search_index.timer")
            run("systemctl start carbon-cache@doctor && systemctl start --no-block carbon-cache@doctor-loop")
            run(f"{python} {shlex.quote(SENT)}")
            with replaced(run, "/etc/statsd/config.js", FLUSH_OFTEN):
                kill("statsd")
                wait_until(lambda: host.run("ss -Hltn sport = :8126").stdout)
            process = main_process("statsd")
            run(f"kill -STOP {process}; {python} {shlex.quote(FLOOD)}; kill -CONT {process}")
            run(f"systemd-run --unit doctor-busy {python} {shlex.quote(BUSY)}")
            run(CERTIFICATE)
            wait_until(lambda: counted("carbon/agents/*-doctor/creates.wsp"))
            run(f"cd {WHISPER} && mkdir -p doctor_test/foreign && chown --reference=. doctor_test")
            run(f"{python} {shlex.quote(GROWTH)}")
            wait_until(lambda: counted("carbon/agents/*-doctor/errors.wsp"))
            run(f"printf %s {shlex.quote(SMALL_CACHE)} >> /etc/carbon/carbon.conf")
            for _time in range(3):
                kill("carbon-cache@doctor")
            wait_until(lambda: host.run("ss -Hltn sport = :12003").stdout)
            run(f"{python} {shlex.quote(BURST)}")
            wait_until(lambda: counted("stats/counters/statsd/bad_lines_seen/count.wsp"), timeout=60)
            run(restart)
            wait_until(lambda: host.run(f"test -s {STOPPED_FILE} && touch -d '2 hours ago' {STOPPED_FILE}").rc == 0)
            run(f"systemd-run --unit doctor-test {python} {shlex.quote(NEW_SERIES)}")
            wait_until(lambda: counted(DROPPED))
            wait_until(lambda: host.run("systemctl is-failed graphite_build_search_index").rc == 0)
            wait_until(lambda: late_flushes() >= 3, timeout=60)
            answer = doctor(carbon_cache_instances=INSTANCES, statsd_flush_interval=4000)
    finally:
        host.run("systemctl stop doctor-busy doctor-test carbon-cache@doctor-loop; systemctl kill --signal=KILL carbon-cache@doctor")
        # Nothing is left in its cache.
        host.run("systemctl stop carbon-cache@doctor")
        run(f"rm -rf {' '.join(os.path.dirname(DROP_IN.format(unit)) for unit in DROP_INS)} && systemctl daemon-reload")
        # StatsD sends what it has counted when it ends, and carbon writes that when it ends. The next StatsD would send it again, and have
        # the same socket after a restart, with its drops.
        run("systemctl reset-failed; systemctl stop statsd; rm -f /var/lib/statsd/held.json; systemctl start statsd")
        run("systemctl restart graphite_build_search_index.timer")
        run(restart)
        run(f"{python} {shlex.quote(FORGET)} '{WHISPER}/{DROPPED}'")
        run(CLEAN)
    return answer


def test_a_host_that_loses_metrics_fails(sick):
    status, output, lines = sick
    assert status == 2, output
    assert not any(": OK" in line for line in lines)
    severities = [line.split(": ")[1].split()[0] for line in lines]
    assert severities == sorted(severities, key=["CRITICAL", "WARNING", "NOT"].index)


# Nothing records when these have begun.
UNDATED = ("certificate", "disk", "future_points", "udp_drops", "unit_down")


@pytest.mark.parametrize(
    ("check", "severity", "words"),
    [
        ("dropped_creates", "CRITICAL", ["carbon-cache@a.service dropped", "carbon_cache_settings"]),
        ("unit_restarted", "WARNING", ["statsd.service 1 time", "journalctl --unit statsd.service"]),
        ("bad_lines", "WARNING", ["StatsD on", "has refused", "journalctl --unit statsd --grep 'Bad line'"]),
        ("udp_drops", "WARNING", ["UDP port 8125 of statsd.service", "statsd_receive_buffer_bytes"]),
        ("stopped_series", "WARNING", ["stats.gauges.doctor_test.queue"]),
        ("unused_rule", "WARNING", ["The rule 'unused'", "carbon_cache_storage_schemas"]),
        ("certificate", "WARNING", ["/root/doctor.pem", "sites-enabled/doctor.conf"]),
        ("statsd_lag", "WARNING", ["came late", "sample (|@0.1)"]),
        ("statsd_holes", "WARNING", ["Carbon has no point of StatsD on", "StatsD or carbon did not run"]),
        ("cache_overflow", "CRITICAL", ["carbon-cache@doctor.service dropped points", "MAX_CACHE_SIZE"]),
        ("cache_fills", "WARNING", ["carbon-cache@doctor.service holds", "% of MAX_CACHE_SIZE"]),
        ("write_errors", "CRITICAL", ["carbon-cache@doctor.service failed to write", "journalctl --unit carbon-cache@doctor"]),
        ("disk", "CRITICAL", ["new series a day, the median of the last 4 hours, it is full in"]),
        ("future_points", "WARNING", ["points ahead of the clock, such as doctor_test.ahead at"]),
        ("job_failed", "WARNING", ["The last run of graphite_build_search_index.service has failed (exit-code)"]),
        ("unit_restarted", "CRITICAL", ["carbon-cache@doctor.service 3 times"]),
        ("unit_down", "CRITICAL", ["carbon-cache@doctor-loop.service is activating", "restarts by systemd"]),
    ],
)
def test_each_loss_has_its_line(sick, check, severity, words):
    _status, output, lines = sick
    found = [line for line in lines if f": {severity} {check}" in line]
    assert any(all(word in line for word in words) for line in found), output
    if check not in UNDATED:
        assert all(re.search(r" since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ: ", line) for line in found)


def test_a_file_system_without_room_is_critical(run, doctor):
    run("mkdir /root/small && mount -t tmpfs -o size=20m,nr_inodes=60 tmpfs /root/small")
    try:
        run(f"cp {WHISPER}/stats/statsd/*.wsp /root/small")
        status, output, lines = doctor(carbon_cache_whisper_directory="/root/small")
    finally:
        run("umount /root/small && rmdir /root/small")
    assert status == 2, output
    for check in ("disk", "inodes"):
        (line,) = [line for line in lines if f": CRITICAL {check}: The file system of /root/small" in line]
        assert "carbon_cache_prune" in line


def test_warnings_fail_a_host_only_if_they_are_to(run, doctor):
    run(CERTIFICATE)
    try:
        answers = [doctor(doctor_fail_on=severity, doctor_ignore=["statsd_lag", "statsd_holes"]) for severity in ("critical", "warning")]
    finally:
        run(CLEAN)
    assert [status for status, _output, _lines in answers] == [0, 2]
    for _status, _output, lines in answers:
        assert lines[0].startswith(f"{HOST}: WARNING certificate: The certificate /root/doctor.pem")


def test_a_statsd_that_is_down_is_critical_and_a_host_that_cannot_be_reached_hides_no_other(run, doctor, tmp_path):
    nowhere = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    groups = {"statsd": {"hosts": {"nowhere": nowhere, HOST: {}}}, "carbon": {"hosts": {HOST: {}}}, "graphite_web": {"hosts": {HOST: {}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    run("systemctl stop statsd")
    try:
        status, output, lines = doctor(f"--inventory={tmp_path / 'hosts.yml'}")
    finally:
        run("systemctl start statsd")
    assert status == 2, output
    found = [line.partition(" since ")[0] for line in lines]
    assert f"{HOST}: CRITICAL unit_down" in found
    assert any(line.startswith(f"{HOST}: CRITICAL statsd_management") for line in found)
    assert any(line.startswith("nowhere: CRITICAL unreachable") for line in found)


def test_variables_that_nothing_can_be_judged_by_are_refused_before_the_first_contact(doctor):
    status, output, lines = doctor(doctor_fail_on="info", doctor_disk_days="a month", doctor_cache_share=80, doctor_stopped_hours=48)
    assert status == 2
    assert lines == []
    for message in (
        "doctor_fail_on is 'info'; write critical or warning.",
        "doctor_disk_days is 'a month'",
        "doctor_cache_share is '80'",
        "doctor_stopped_hours is 48 and doctor_recent_hours 24",
    ):
        assert message in output


def test_a_host_that_cannot_be_examined_is_critical(doctor):
    status, output, lines = doctor(doctor_ignore=["no_such_check"])
    assert status == 2, output
    (line,) = lines
    assert line.startswith(f"{HOST}: CRITICAL unexamined: value of ignore must be one or more of: bad_lines, ")
