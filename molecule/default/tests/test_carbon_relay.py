# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The relay in front of carbon: no point is lost while carbon, or the number of its instances, changes behind it."""

from __future__ import annotations

import hashlib
import re

import pytest
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_cache import INSTANCE_NAMES
from conftest import PYTHON, values

CONFIG = "/etc/carbon-relay.conf"
WHISPER = "/var/lib/graphite/whisper"
# Sends so many points in a second, each connection with a tenth of them, until it is told to end. A connection that the other side has
# not read to its end is sent again, as a sender does that loses nothing. Prints the number of points.
SENDER = """
import os, socket, sys, time
name, (rate, series, begin) = sys.argv[1], map(int, sys.argv[2:])
sent, start = 0, time.monotonic()
while not os.path.exists("/run/end-of-load"):
    lines = [f"{name}.{number % series} 1 {begin + number // series * 10}" for number in range(sent, sent + rate // 10)]
    try:
        with socket.create_connection(("127.0.0.1", 2003), timeout=30) as connection:
            connection.sendall("".join(line + chr(10) for line in lines).encode())
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
    except OSError:
        time.sleep(0.05)
        continue
    sent += len(lines)
    time.sleep(max(0, start + sent / rate - time.monotonic()))
print(sent)
"""
# One connection that stays, which nobody tells of anything.
STREAM = """
import socket, sys, time
name, (rate, series, begin, points) = sys.argv[1], map(int, sys.argv[2:])
connection, sent, start = socket.create_connection(("127.0.0.1", 2003)), 0, time.monotonic()
while sent < points:
    lines = [f"{name}.{number % series} 1 {begin + number // series * 10}" for number in range(sent, min(points, sent + rate // 20))]
    connection.sendall("".join(line + chr(10) for line in lines).encode())
    sent += len(lines)
    time.sleep(max(0, start + sent / rate - time.monotonic()))
connection.shutdown(socket.SHUT_WR)
connection.recv(1)
"""
# One connection that stays, as that of another relay; what cannot be written to it is written to the next one. What is written is sent
# at once, so that an error leaves nothing of it in the sender's kernel.
RELAYED = """
import socket, sys, time
name, (rate, series, begin, points) = sys.argv[1], map(int, sys.argv[2:])
connection, start = None, time.monotonic()
for number in range(points):
    time.sleep(max(0, start + number / rate - time.monotonic()))
    line = f"{name}.{number % series} 1 {begin + number // series * 10}" + chr(10)
    while line:
        try:
            connection = connection or socket.create_connection(("127.0.0.1", 2003), timeout=30)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(line.encode())
            line = ""
        except OSError:
            connection = None
            time.sleep(0.05)
"""
STORED = """
import glob, sys, time, whisper
directory, begin = sys.argv[1], int(sys.argv[2])
print(sum(value is not None for path in glob.glob(directory + "/*.wsp") for value in whisper.fetch(path, begin - 10)[1]))
"""
RING = """
import re, subprocess, sys, tempfile
sys.path.append("/opt/graphite/webapp")
from graphite.render.hashing import ConsistentHashRing
names = sys.argv[1:]
series = [f"stats.counters.web{number % 97}.requests.n{number}.count" for number in range(10000)]
with tempfile.NamedTemporaryFile("w") as config:
    members = " ".join(f"127.0.0.1:{port}={name}" for port, name in enumerate(names, 1000))
    print(f"cluster caches fnv1a_ch {members}; match * send to caches stop;", file=config, flush=True)
    lines = "".join(f"{name} 1 1" + chr(10) for name in series)
    output = subprocess.run(["carbon-c-relay", "-t", "-f", config.name], input=lines, capture_output=True, text=True, check=True).stdout
relayed = [names[int(port) - 1000] for port in re.findall(r"^ +127[.]0[.]0[.]1:(\\d+)$", output, re.MULTILINE)]
ring = ConsistentHashRing([("127.0.0.1", name) for name in names], hash_type="fnv1a_ch")
asked = [ring.get_node(name)[1] for name in series]
print(len(relayed), sum(one != other for one, other in zip(relayed, asked)), len(set(asked)))
"""
# Files that are there, of which each gets one point that waits to be written.
WAITING = """
import os, pwd, socket, sys, time, whisper
directory, now = sys.argv[1], int(time.time())
owner = pwd.getpwnam("_graphite")
for path in (os.path.dirname(directory), directory):
    os.makedirs(path, exist_ok=True)
    os.chown(path, owner.pw_uid, owner.pw_gid)
for number in range(100):
    whisper.create(f"{directory}/{number}.wsp", [(10, 2160)])
    os.chown(f"{directory}/{number}.wsp", owner.pw_uid, owner.pw_gid)
with socket.create_connection(("127.0.0.1", 2003)) as connection:
    connection.sendall("".join(f"stats.waiting.s{sys.argv[2]}.{number} {number + 1} {now}" + chr(10) for number in range(100)).encode())
"""


@pytest.fixture
def now(host):
    return int(host.run("date +%s").stdout)


@pytest.fixture
def stored(run_python):
    """Return the number of points that are in the files of series."""
    return lambda name, begin: int(run_python(STORED, f"{WHISPER}/{name.replace('.', '/')}", str(begin)))


@pytest.fixture
def all_stored(stored, wait_until):
    def check(name, begin, points):
        message = f"not all of {points} points are stored"
        wait_until(lambda: stored(name, begin) >= points, timeout=240, interval=2, message=message)
        assert stored(name, begin) == points

    return check


@pytest.fixture
def load(host, wait_until):
    """Send points in the background; return a function that ends this and returns their number."""
    units = []

    def begin(*arguments):
        host.run("rm -f /run/end-of-load")
        command = ["systemd-run", "--unit=load-test", "--property=RemainAfterExit=yes", PYTHON, "-c", SENDER, *arguments]
        assert host.run(" ".join(["%s"] * len(command)), *command).rc == 0
        units.append("load-test")

        def end():
            host.run("touch /run/end-of-load")
            wait_until(lambda: host.run("systemctl show --property SubState --value load-test").stdout.strip() == "exited")
            return int(host.run("journalctl --unit load-test --output cat --grep '^[0-9]+$' --lines 1").stdout)

        return end

    yield begin
    if units:
        host.run("touch /run/end-of-load; sleep 1; systemctl stop load-test; systemctl reset-failed load-test; rm /run/end-of-load")


@pytest.fixture
def another_configuration(host):
    """Give the relay a configuration with one more route, without a reload."""
    before = host.file(CONFIG).content_string
    assert host.run(f"cp -p {CONFIG} {CONFIG}.kept && sed -i 's/^match /match ^another. send to \"caches\" stop;\\n&/' {CONFIG}").rc == 0
    assert host.file(CONFIG).content_string != before
    yield
    assert host.run(f"mv {CONFIG}.kept {CONFIG} && systemctl reload carbon-relay").rc == 0


def test_restarts_of_carbon_lose_nothing(host, run_python, now, all_stored):
    """Of an idle carbon, which sleeps for a second when it has nothing to write, and under load."""
    begin = now // 10 * 10 - 7200
    for number in range(5):
        run_python(STREAM, f"stats.idle{now}_{number}", "2000", "10", str(begin), "100")
        assert host.run("sleep 0.15; systemctl restart carbon-cache@a").rc == 0
        all_stored(f"stats.idle{now}_{number}", begin, 100)
    restarts = "for number in 1 2 3 4; do sleep 2; systemctl restart carbon-cache@a; done"
    assert host.run(f"systemd-run --collect --unit restarts sh -c '{restarts}'").rc == 0
    run_python(STREAM, f"stats.busy{now}", "2000", "200", str(begin), "30000")
    all_stored(f"stats.busy{now}", begin, 30000)


def test_restarts_of_the_relay_lose_next_to_nothing_of_another_relay(host, run_python, now, stored, wait_until):
    """Without the reset of connections, four restarts lose some ten seconds of points; a busy machine may lose half a second in each."""
    begin = now // 10 * 10 - 7200
    restarts = "for number in 1 2 3 4; do sleep 2; systemctl restart carbon-relay; done"
    assert host.run(f"systemd-run --unit relay-restarts sh -ec '{restarts}'").rc == 0
    run_python(RELAYED, f"stats.relayed{now}", "300", "10", str(begin), "7000")
    wait_until(lambda: stored(f"stats.relayed{now}", begin) >= 7000 - 600, timeout=60, message="points are missing")
    stops = f"journalctl --unit carbon-relay --since @{now} --output cat --grep '^Stopped '"
    assert len(host.check_output(stops).splitlines()) == 4


def test_check_mode_foretells_a_stack_without_the_relay(playbook):
    status, output = playbook("carbon.yml", {"carbon_relay_state": "absent"}, check=True)
    assert status == 0, output


def test_a_reload_keeps_what_waits_and_what_arrives(host, run_python, now, all_stored, wait_until, carbon_stopped, another_configuration):
    begin = now // 10 * 10 - 12000
    process = host.run("systemctl show --property MainPID --value carbon-relay").stdout
    with carbon_stopped():
        run_python(STREAM, f"stats.queue{now}", "100000", "100", str(begin), "100000")
        assert host.run("systemd-run --collect --unit reload sh -c 'sleep 1; systemctl reload carbon-relay'").rc == 0
        run_python(STREAM, f"stats.reload{now}", "2000", "200", str(begin), "6000")
        reloaded = f"journalctl --unit carbon-relay --since @{now} --grep 'SIGHUP handler complete'"
        wait_until(lambda: host.run(reloaded).rc == 0)
    all_stored(f"stats.queue{now}", begin, 100000)
    all_stored(f"stats.reload{now}", begin, 6000)
    assert host.run("systemctl show --property MainPID --value carbon-relay").stdout == process


def test_what_waits_is_delivered_before_the_relay_stops(host, run_python, now, all_stored, wait_until):
    begin = now // 10 * 10 - 7200
    assert host.run("systemctl stop carbon-cache@a").rc == 0
    run_python(STREAM, f"stats.stop{now}", "100000", "100", str(begin), "50000")
    # As at a shutdown, in the order of the units.
    assert host.run("systemctl start carbon-cache@a").rc == 0
    delivering = "journalctl --unit carbon-relay --output cat --lines 1 --grep '(failed to|OK)'"
    wait_until(lambda: "OK" in host.run(delivering).stdout)
    assert host.run("systemctl stop carbon-relay").rc == 0
    assert host.run("systemctl start carbon-relay").rc == 0
    all_stored(f"stats.stop{now}", begin, 50000)
    for unit, later in (("carbon-cache@a", "carbon-relay.service"), ("carbon-relay", "statsd.service")):
        assert later in host.run(f"systemctl show --property Before --value {unit}").stdout


def test_names_arrive_as_they_were_sent(host, run_python, now, wait_until):
    sent = "import socket, sys; socket.create_connection(('127.0.0.1', 2003)).sendall(sys.argv[1].encode())"
    names = [f"größe{now}.日本", f"signs{now}.a%b+c@d~e=f", f"tags{now};host=a/b;zone=ü"]
    run_python(sent, "".join(f"{name} 7 {now}\n" for name in names))
    for name in names[:2]:
        wait_until(lambda name=name: host.run("ls %s", f"{WHISPER}/{name.replace('.', '/')}.wsp").rc == 0, message=name)
    # Carbon keeps series with tags by a hash of the name.
    path = WHISPER + "/_tagged/{0:.3}/{1:.3}/{0}.wsp"
    digest = hashlib.sha256(names[2].encode()).hexdigest()
    wait_until(lambda: host.run("ls %s", path.format(digest, digest[3:])).rc == 0, message=names[2])
    # doctor.yml cannot compare the rules with series whose names it cannot tell.
    assert host.run("rm -r %s", f"{WHISPER}/_tagged").rc == 0


def test_relay_and_graphite_web_agree_on_the_instance_of_ten_thousand_series(run_python):
    for number in (2, 3, 4, 8, 16, 32):
        assert run_python(RING, *INSTANCE_NAMES[:number]).split() == ["10000", "0", str(number)]


def test_the_number_of_caches_changes_under_load(host, playbook, now, load, all_stored, run_python, render, counter_comes_back):
    begin = now // 10 * 10 - 18000
    end = load(f"stats.number{now}", "500", "200", str(begin))
    # So that points wait to be written.
    slow = {"MAX_UPDATES_PER_SECOND": 1}
    status, output = playbook("site.yml", {"carbon_cache_instances": 2, "carbon_cache_settings": slow})
    assert status == 0, output
    assert '"127.0.0.1:2203"="b"' in output
    settings = host.file("/etc/graphite/local_settings.py").content_string
    assert "CARBONLINK_HOSTS = ['127.0.0.1:7002:a', '127.0.0.1:7102:b']" in settings
    assert "CARBONLINK_HASHING_TYPE = 'fnv1a_ch'" in settings
    run_python(WAITING, f"{WHISPER}/stats/waiting/s{now}", str(now))

    def shown():
        # A writer has the points of one series in its hands.
        found = [values(series) for series in render(f"stats.waiting.s{now}.*")]
        return sum(len(one) == 1 for one in found)

    run_python("import time; time.sleep(2)")
    assert shown() >= 96
    on_disk = int(run_python(STORED, f"{WHISPER}/stats/waiting/s{now}", str(now - 600)))
    assert on_disk < 50, "the points do not wait any more"

    # The inventory of a host from the time when carbon itself had the port.
    first = {"name": "a", "line_receiver_port": 2003, "cache_query_port": 7002}
    status, output = playbook("carbon.yml", {"carbon_cache_instances": [first]})
    assert status == 0, output
    assert shown() == 100
    assert host.run("systemctl is-active carbon-relay carbon-cache@b").stdout.split() == ["inactive", "inactive"]
    assert host.run("ss -Hltnp sport = :2003").stdout.count("carbon-cache") == 1

    status, output = playbook("site.yml")
    assert status == 0, output
    assert host.run("systemctl is-active carbon-relay").stdout.strip() == "active"
    assert host.run("systemctl is-enabled carbon-cache@b").stdout.strip() == "disabled"
    all_stored(f"stats.number{now}", begin, end())
    counter_comes_back("instances.one")


def test_a_relay_with_rules_of_its_own(host, playbook, run_python, now, render, wait_until):
    """Everything that the role writes, as the program takes it."""
    variables = {
        "carbon_relay_clusters": [
            {"name": "caches", "type": "fnv1a_ch", "members": [{"address": "127.0.0.1", "port": 2103, "instance": "a"}]},
            {
                "name": "far",
                "type": "any_of",
                "members": [{"address": "::1", "port": 9}, {"address": "localhost", "port": 9, "protocol": "udp"}],
            },
        ],
        "carbon_relay_rewrites": [{"match": r'^old"#;\.(.*)$', "into": r"new.\1"}],
        "carbon_relay_aggregations": [
            {
                "match": [rf"^rules\.web[0-9]+\.r{now}$"],
                "interval": 1,
                "expiry": 2,
                "compute": [{"function": "sum", "write_to": f"rules.all.r{now}"}, {"function": "percentile95", "write_to": "rules.p95"}],
                "send_to": ["caches"],
            }
        ],
        "carbon_relay_routes": [
            {"match": [r"^rules\.dropped\."], "send_to": ["blackhole"]},
            {"match": [r"^far\."], "send_to": ["far"], "stop": True},
            {"match": ["*"], "send_to": ["caches"], "stop": True},
        ],
    }
    process = host.run("systemctl show --property MainPID --value carbon-relay").stdout
    status, output = playbook("carbon_relay.yml", variables)
    assert status == 0, output
    assert host.run("systemctl show --property MainPID --value carbon-relay").stdout == process, "the relay was not reloaded"
    # Of points that are older than the expiry, nothing is computed.
    when = host.run("date +%s").stdout.strip()
    lines = [f"rules.web{number}.r{now} 2 {when}" for number in range(3)]
    lines += [f'old"#;.r{now} 5 {when}', f"rules.dropped.r{now} 1 {when}", f"rules.kept.r{now} 1 {when}"]
    run_python("import socket, sys; socket.create_connection(('127.0.0.1', 2003)).sendall(sys.argv[1].encode())", "\n".join([*lines, ""]))
    for name, value in ((f"rules.all.r{now}", 6), (f"new.r{now}", 5), (f"rules.kept.r{now}", 1)):
        wait_until(
            lambda name=name, value=value: [values(series) for series in render(name)] == [[value]], message=f"{name} is not {value}"
        )
    assert render(f"rules.dropped.r{now}") == []
    # What the program refuses does not replace what runs.
    refused = {**variables, "carbon_relay_rewrites": [{"match": "[[:nothing:]]", "into": "a"}]}
    before = host.file(CONFIG).content_string
    status, output = playbook("carbon_relay.yml", refused)
    assert status != 0
    assert f"{CONFIG} was left as it is: its test refuses the new content" in re.sub(r"\s+", " ", output)
    assert host.file(CONFIG).content_string == before
    status, output = playbook("carbon_relay.yml")
    assert status == 0, output


def test_the_relay_reports_about_itself(host, render, wait_until):
    prefix = f"carbon.relays.{host.run('hostname').stdout.strip()}"
    wait_until(lambda: render(f"removeEmptySeries({prefix}.metricsReceived)"), timeout=70)
    found = {series["target"].rpartition(".")[2] for series in render(f"{prefix}.destinations.127_0_0_1:2103.*")}
    assert {"sent", "queued", "stalls", "dropped"} <= found
    # Also of the first minute after each of its starts.
    (discarded,) = render(f"{prefix}.metricsDiscarded", **{"from": "-1h"})
    assert max(values(discarded)) < 1000
