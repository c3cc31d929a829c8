# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Faults at random, one at a time, under load: what docs/reliability.md says is lost, and no more, and every service is back in 5 s.

FAULT_MINUTES says for how many minutes (default: 2), and FAULT_SEED repeats a sequence of faults.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from contextlib import contextmanager

import pytest
from cluster import FRONTS, NAME, RATE, RELAYS, STORES, Sender, counted, on, player

testinfra_hosts = [f"ansible://{NAME}-f1"]

MINUTES = float(os.environ.get("FAULT_MINUTES", "2"))
SEED = os.environ.get("FAULT_SEED") or str(random.randrange(10**6))
# Seconds: for which a host is cut off, its disk is full or its clock is wrong; between two faults; until a service that was killed answers;
# and for which points may wait in a cache, so that no other store may lose its caches meanwhile.
CUT, PAUSE, BACK, WAITING = 8, 4, 5, 60
# By the first letter of a host: what is killed, and the port at which each answers again.
DAEMONS = {
    "c": {"carbon-cache@a": 2103, "carbon-cache@b": 2203, "carbon-store-relay": 2013, "apache2": 8081},
    "r": {"carbon-relay": 2003, "statsd": 8126},
    "f": {"apache2": 80, "graphite-memcached": 11211},
}
COUNTS_PER_SECOND = 10
FLUSH_INTERVAL = 10

KILL = """
import os, signal, socket, subprocess, sys, time
unit, port = sys.argv[1], int(sys.argv[2])
def main_process():
    return int(subprocess.check_output(["systemctl", "show", "--property=MainPID", "--value", unit]))
def addresses():
    listening = subprocess.check_output(["ss", "-Hltn", f"sport = :{port}"], text=True).split()[3::5]
    return [address.rpartition(":")[0].strip("[]").replace("*", "127.0.0.1").replace("0.0.0.0", "127.0.0.1") for address in listening]
def answers(address):
    with socket.create_connection((address, port), timeout=5) as connection:
        if unit != "apache2":
            return True
        connection.settimeout(30)
        connection.sendall(b"GET /version/ HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
        return b" 200 " in connection.recv(100)
killed, began = main_process(), time.monotonic()
assert killed, f"{unit} does not run"
os.kill(killed, signal.SIGKILL)
while time.monotonic() - began < 60:
    try:
        if main_process() not in (0, killed) and any(map(answers, addresses())):
            break
    except (OSError, ValueError):
        pass
    time.sleep(0.05)
print(time.monotonic() - began)
"""
# Counts until the time is over; a packet that was refused is sent again.
COUNT = """
import socket, sys, time
name, rate, end = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
sent, statsd = 0, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
statsd.connect(("127.0.0.1", 8125))
while time.time() < end:
    try:
        statsd.send(f"{name}:1|c".encode())
        sent += 1
    except ConnectionRefusedError:
        pass
    time.sleep(1 / rate)
print(sent, file=open("/run/counted", "w"))
"""
SMALL_DISK = """
cd /var/lib/graphite
findmnt whisper && exit
systemctl stop 'carbon-cache@*'
mv whisper /run/series && mkdir whisper && mount -t tmpfs -o size=2G,mode=0755 tmpfs whisper && chown _graphite:_graphite whisper
cp -a /run/series/. whisper && rm -r /run/series
systemctl start carbon-cache@a carbon-cache@b && systemctl restart apache2
"""
CLOCK = """[Service]
Environment=LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=/etc/wrong_clock FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1
"""


@contextmanager
def cut_off(part):
    """Take the network of a host down inside of a with statement, from outside of the host."""
    process = subprocess.check_output(["docker", "inspect", "--format", "{{.State.Pid}}", f"{NAME}-{part}"], text=True).strip()

    def ip(*arguments):
        return subprocess.check_output(["nsenter", "--target", process, "--net", "ip", *arguments], text=True)

    default = ip("route", "show", "default").split()
    ip("link", "set", "eth0", "down")
    try:
        yield
    finally:
        ip("link", "set", "eth0", "up")
        ip("route", "replace", *default)  # it went with the link


class Faults:
    """Makes faults, and keeps what each has cost."""

    def __init__(self):
        self._random = random.Random(SEED)
        self._caches_lost = {}
        self.log, self.slow, self.senders = [], [], []
        # Points that may be lost: those that a relay had sent, and nobody had acknowledged yet, when its host was cut off.
        self.lost_points = 0
        # Counts that may be lost, by the host of their StatsD.
        self.lost_counts = dict.fromkeys(RELAYS, 0)

    def make_one(self):
        getattr(self, self._random.choice(("kill", "kill", "kill", "cut", "fill", "step")))()

    def kill(self):
        part = self._random.choice((*STORES, *RELAYS, *FRONTS))
        unit, port = self._random.choice(list(DAEMONS[part[0]].items()))
        if part in STORES and unit.startswith("carbon"):
            # What waits in the memory of one store is in the other copy, until another store loses its memory as well.
            others = [when for store, when in self._caches_lost.items() if store != part]
            if time.monotonic() < max(others, default=-WAITING) + WAITING:
                return
            self._caches_lost[part] = time.monotonic()
        if part in RELAYS:
            self.lost_counts[part] += (FLUSH_INTERVAL + BACK) * COUNTS_PER_SECOND
        took = float(on(part).check_output("/usr/bin/python3 -c %s %s %s", KILL, unit, str(port)))
        self._record(f"{unit} of {part} was killed, and answered after {took:.1f} s")
        if took > BACK:
            self.slow.append(self.log[-1])

    def cut(self):
        part = self._random.choice((*STORES, *RELAYS, *FRONTS))
        if part in RELAYS:
            self.lost_points += RATE
        with cut_off(part):
            time.sleep(CUT)
        self._record(f"{part} was cut off for {CUT} s")

    def fill(self):
        part = self._random.choice(STORES)
        on(part).check_output("dd if=/dev/zero of=/var/lib/graphite/whisper/.full bs=1M 2> /dev/null; true")
        sender = Sender(f"full{len(self.senders)}", RELAYS, CUT, series=50)
        sender.join()
        on(part).check_output("rm /var/lib/graphite/whisper/.full")
        self.senders.append(sender)
        self._record(f"the disk of {part} was full for {CUT} s")

    def step(self):
        part, seconds = self._random.choice((*STORES, *RELAYS)), self._random.choice((-30, 30))
        if part in RELAYS:
            self.lost_counts[part] += 2 * (abs(seconds) + FLUSH_INTERVAL) * COUNTS_PER_SECOND
        for offset in (seconds, 0):
            on(part).check_output("echo %s > /etc/wrong_clock", f"{offset:+}")
            time.sleep(CUT)
        self._record(f"the clock of {part} was set by {seconds} s, and back")

    def _record(self, what):
        self.log.append(f"{time.strftime('%H:%M:%S')} {what}")
        print(self.log[-1], flush=True)


@pytest.fixture
def play(run_ansible, tmp_path):
    return player(run_ansible, tmp_path)


@pytest.fixture
def hosts_with_faults():
    """Give stores a file system of their own that can be full, and stores and StatsD a clock that can be wrong."""
    for part in (*STORES, *RELAYS):
        unit = "carbon-cache@" if part in STORES else "statsd"
        on(part).check_output("DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libfaketime > /dev/null")
        library = on(part).check_output("find /usr/lib -name libfaketimeMT.so.1")
        on(part).check_output(f"mkdir -p /etc/systemd/system/{unit}.service.d && echo +0 > /etc/wrong_clock")
        on(part).check_output(f"printf %s > /etc/systemd/system/{unit}.service.d/wrong_clock.conf", CLOCK % library)
        on(part).check_output("systemctl daemon-reload")
    for store in STORES:
        on(store).check_output(SMALL_DISK)
    for relay in RELAYS:
        on(relay).check_output("systemctl restart statsd")


@pytest.mark.usefixtures("hosts_with_faults")
def test_what_was_accepted_survives_faults_at_random(wait_until, play):
    print(f"FAULT_SEED={SEED}")
    faults, end = Faults(), time.time() + MINUTES * 60
    for relay in RELAYS:
        on(relay).check_output("systemd-run /usr/bin/python3 -c %s faults %s %s", COUNT, str(COUNTS_PER_SECOND), str(end + 30))
    sender = Sender("faults", RELAYS, 100000)
    while time.time() < end:
        faults.make_one()
        time.sleep(PAUSE)
    time.sleep(max(0, end + 40 - time.time()))
    sender.stop()
    time.sleep(WAITING)  # points of the last minute may be in caches, and are not compared
    status, output = play("rebalance")
    assert status == 0, output
    for front in FRONTS:
        for load in faults.senders:
            wait_until(lambda load=load, front=front: load.missing(front, range(50), load.end) == 0, message=f"{load.name} lacks points")
        missing = sender.missing(front, range(RATE), sender.end)
        print(f"{front} lacks {missing} of {RATE * (sender.end - sender.begin)} points, and may lack {faults.lost_points}")
        assert missing <= faults.lost_points, faults.log
    sent = sum(int(on(relay).file("/run/counted").content_string) for relay in RELAYS)
    lost = sent - counted(FRONTS[0], "faults", minutes=int(MINUTES) + 10)
    print(f"{len(faults.log)} faults; of {sent} counts, {lost} were lost, and {sum(faults.lost_counts.values())} may be")
    assert 0 <= lost <= sum(faults.lost_counts.values()), faults.log
    assert not faults.slow
