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
UNUSED_RULE = "[unused]\npattern = ^no_series_has_this_name\\.\nretentions = 60s:1d\n\n"
# A gauge that was sent every ten seconds until two hours ago.
STOPPED = """
import socket, time
now = int(time.time()) // 10 * 10
carbon = socket.create_connection(("127.0.0.1", 2003))
carbon.sendall(b"".join(b"stats.gauges.doctor_test.queue 1 %d\\n" % when for when in range(now - 20000, now - 7190, 10)))
carbon.close()
"""
DROPPED = "carbon/agents/*/droppedCreates.wsp"
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
BAD_LINE = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'no metric', ('127.0.0.1', 8125))"
SUM = "import glob, sys, time, whisper; print(sum(filter(None, whisper.fetch(glob.glob(sys.argv[1])[0], time.time() - 180)[1])))"
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
    f" {WHISPER}/stats/counters/statsd/bad_lines_seen"
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


def test_a_host_in_use_is_healthy(doctor):
    # The processors are shared with other tests, for which StatsD may have to wait.
    status, output, lines = doctor("--check", doctor_fail_on="warning", doctor_ignore=["statsd_lag", "statsd_holes"])
    assert status == 0, output
    assert re.fullmatch(rf"{HOST}: OK, no sign of loss, \d\d+ series", lines[0])
    assert [line for line in lines[1:] if "NOT EXAMINED" not in line] == []
    assert "changed=0" in output


def main_process(host):
    return host.run("systemctl show --property MainPID --value statsd").stdout.strip()


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
    restart = "systemctl restart carbon-cache@a && timeout 20 sh -c 'until ss -Hltn sport = :2003 | grep -q .; do sleep 0.2; done'"
    python = f"{PYTHON} -c"
    limits = "sed -i 's/^MAX_CREATES_PER_MINUTE.*/MAX_CREATES_PER_MINUTE = 1\\nCARBON_METRIC_INTERVAL = 2/' /etc/carbon/carbon.conf"
    rules = f"printf %s {shlex.quote(UNUSED_RULE)} | cat - /root/storage-schemas.conf > {SCHEMAS} && touch -d '2 days ago' {SCHEMAS}"

    def counted(path):
        """Return the sum of a series of the last minutes, 0 if there is none yet."""
        return float(host.run(f"{python} {shlex.quote(SUM)} '{WHISPER}/{path}'").stdout or 0)

    try:
        run(f"{python} {shlex.quote(STOPPED)}")
        killed = main_process(host)
        run("systemctl kill --signal=KILL statsd")
        wait_until(lambda: main_process(host) not in ("0", killed) and host.run("ss -Hltn sport = :8126").stdout)
        run(f"{python} {shlex.quote(BAD_LINE)}")
        process = main_process(host)
        run(f"kill -STOP {process}; {python} {shlex.quote(FLOOD)}; kill -CONT {process}")
        run(CERTIFICATE)
        with replaced(run, "/etc/carbon/carbon.conf", limits), replaced(run, SCHEMAS, rules):
            wait_until(lambda: counted("stats/counters/statsd/bad_lines_seen/count.wsp"))
            run(restart)
            wait_until(lambda: host.run(f"test -s {STOPPED_FILE} && touch -d '2 hours ago' {STOPPED_FILE}").rc == 0)
            run(f"systemd-run --unit doctor-test {python} {shlex.quote(NEW_SERIES)}")
            wait_until(lambda: counted(DROPPED))
            answer = doctor()
    finally:
        host.run("systemctl stop doctor-test")
        run(restart)
        run(f"{python} {shlex.quote(FORGET)} '{WHISPER}/{DROPPED}'")
        run("systemctl reset-failed; systemctl restart statsd")
        run(CLEAN)
    return answer


def test_a_host_that_loses_metrics_fails(sick):
    status, output, lines = sick
    assert status == 2, output
    assert not any(": OK" in line for line in lines)
    severities = [line.split(": ")[1].split()[0] for line in lines]
    assert severities == sorted(severities, key=["CRITICAL", "WARNING", "NOT"].index)


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
    ],
)
def test_each_loss_has_its_line(sick, check, severity, words):
    _status, output, lines = sick
    found = [line for line in lines if f": {severity} {check}" in line]
    assert any(all(word in line for word in words) for line in found), output
    if check != "certificate":
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
