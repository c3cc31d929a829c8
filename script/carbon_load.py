# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What carbon stores with one and with two caches, and what it loses when it restarts. Runs as root on a host that site.yml has made.

carbon_load.py store [RUNS [SECONDS [LIMIT]]]
carbon_load.py restarts [NUMBER]

store: points that are stored per second by one cache, by one behind the relay, and by two behind the relay, one after the other and RUNS
times (default: 3). Each point goes to a series that has no other point waiting, so that it is one update of one whisper file. SERIES
points wait at any time, so that no cache ever runs out of points: the generator, this process, sends the next points of a group of series
when the last ones are in their files. The relay gives all series of a group to the same cache; otherwise one cache would wait for the
other. The generator sends lines that it has built before, and looks at each file once for each point. After WARM_UP
seconds, the points are counted whose files are written within SECONDS (default: 10). In the end, every point must be in its file. The host
needs carbon_cache_instances: 2, MAX_UPDATES_PER_SECOND: inf, the rule of script/bench for these series, and 4 GB for the files. Columns:

    points/s   points stored per second
    per CPU s  points stored per second of processor time of the caches and the relay, by the cgroups of their units
    carbon, relay, load, other  processors that the caches, the relay, the generator and the rest of the machine used
    awake      share of the time in which the writers of the caches had work and a processor, or waited for something else than a processor
    alone      points/s that the host would store if nothing else ran on it: points/s divided by awake, but no more than its processors
               allow at the measured processor time per point, the generator's included

On an idle machine, "alone" is points/s. Other programs also make each point dearer, because they push what carbon needs out of the caches
of the processors. So the last lines have, for each variant, the quarter of all slices of half a second in which the rest of the machine
used least, and compare their "alone". The exit status is 1 if two caches store less than LIMIT times (default: 1.6) as much as one, both
behind the relay.

restarts: NUMBER times (default: 20), carbon is restarted 0.15 s after an idle one has got 100 points, two seconds after each start while it
gets 2000 points a second, and while 100000 points wait in it to be written; each time sent to carbon directly, and through the relay.
Senders send anew what they cannot send or what the other side has not read to its end. The host needs one cache with the defaults of the
role. Prints how many points were sent, "waited", the mean number of points that were not in a file when a restart began, and how many are
missing in the end. The exit status is 1 if a point is missing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import whisper

WHISPER = Path("/var/lib/graphite/whisper")
RELAY_CONFIG = Path("/etc/carbon-relay.conf")
RELAY_PORT = 2003
CACHE_PORTS = {"a": 2103, "b": 2203}
CGROUPS = Path("/sys/fs/cgroup")
TICKS = os.sysconf("SC_CLK_TCK")
PROCESSORS = os.cpu_count() or 1
# Of the rule for these series in script/bench, and of that for stats in the defaults of the role: seconds between points, and for which
# they are kept.
STEP, KEPT = 10, 6 * 3600
# The relay hands lines on up to 0.4 s late, and a cache whose last point is written sleeps for a second: fewer series would let it.
GROUPS, GROUP = 120, 500
SERIES = GROUPS * GROUP
WARM_UP = 3
SLICE = 0.5
PATIENCE = 600


def written(path: str) -> int:
    """Return when the file was last written, in ns, or 0 if it does not exist."""
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def stored(path: str, after: int) -> int:
    """Return the number of points in the file whose times are later than ``after``."""
    try:
        _times, values = whisper.fetch(path, after, int(time.time()))
    except FileNotFoundError:
        return 0
    return sum(value is not None for value in values)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def connect(port: int) -> socket.socket:
    """Connect as soon as somebody listens. Raises ``TimeoutError``."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody listens on port {port}") from None
            time.sleep(0.05)


class Group:
    """Series that get their points at the same time."""

    def __init__(self, names: list[str]) -> None:
        self._lines = "".join(f"{name} 1 TTTTTTTTTT\n" for name in names).encode()
        self.paths = [f"{WHISPER}/{name.replace('.', '/')}.wsp" for name in names]
        self._written = [written(path) for path in self.paths]
        self._stored = GROUP
        self.when = 0

    def lines(self, when: int) -> bytes:
        """Return a point for each series."""
        self.when, self._stored = when, 0
        return self._lines.replace(b"TTTTTTTTTT", b"%d" % when)

    def newly_stored(self) -> list[int]:
        """Return when the files were written, in ns, that have got their points since the last call."""
        before = self._stored
        while self._stored < GROUP and (now := written(self.paths[self._stored])) != self._written[self._stored]:
            self._written[self._stored] = now
            self._stored += 1
        return self._written[before : self._stored]

    @property
    def is_stored(self) -> bool:
        return self._stored == GROUP


class Use(NamedTuple):
    """Seconds of processors, and seconds for which the writers waited for one."""

    time: float
    carbon: float
    relay: float
    load: float
    all: float
    waited: float

    def since(self, other: Use) -> Use:
        return Use(*(now - before for now, before in zip(self, other, strict=True)))


class Units:
    """The units of the caches and the relay that run."""

    def __init__(self) -> None:
        shown = run("systemctl", "show", "--property=ControlGroup,MainPID", "carbon-relay.service", "carbon-cache@*.service")
        units = [dict(line.split("=", 1) for line in unit.splitlines()) for unit in shown.strip().split("\n\n")]
        self._cgroups = [CGROUPS / unit["ControlGroup"].lstrip("/") / "cpu.stat" for unit in units if unit["MainPID"] != "0"]
        self._writers = []
        for unit in units[1:]:
            threads = [path for path in Path(f"/proc/{unit['MainPID']}/task").glob("*") if path.name != unit["MainPID"]]
            if threads:
                self._writers.append(max(threads, key=lambda path: int((path / "schedstat").read_text().split()[0])) / "schedstat")

    def use(self) -> Use:
        # The first number of the file is in microseconds.
        relay, *caches = (int(path.read_text().split()[1]) / 1e6 for path in self._cgroups)
        user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
        waited = statistics.mean(int(path.read_text().split()[1]) / 1e9 for path in self._writers)
        return Use(time.time(), sum(caches), relay, time.process_time(), (user + nice + system + irq + softirq) / TICKS, waited)


class Slice(NamedTuple):
    """Points that were stored, and what was used meanwhile."""

    points: int
    used: Use

    @property
    def other(self) -> float:
        """Processors that the rest of the machine used."""
        used = self.used
        return (used.all - used.carbon - used.relay - used.load) / used.time

    @classmethod
    def of(cls, slices: list[Slice]) -> Slice:
        return cls(sum(one.points for one in slices), Use(*map(sum, zip(*(one.used for one in slices), strict=True))))

    @property
    def per_processor_second(self) -> float:
        return self.points / (self.used.carbon + self.used.relay)

    @property
    def awake(self) -> float:
        return 1 - self.used.waited / self.used.time

    @property
    def alone(self) -> float:
        most = PROCESSORS * self.points / (self.used.carbon + self.used.relay + self.used.load)
        return min(self.points / self.used.time / self.awake, most)

    def row(self, name: str) -> str:
        used = self.used
        processors = "".join(f"{value:8.2f}" for value in (*(one / used.time for one in (used.carbon, used.relay, used.load)), self.other))
        rates = f"{self.points / used.time:10.0f}{self.per_processor_second:11.0f}"
        return f"{name:26}{rates}{processors}{self.awake:8.0%}{self.alone:8.0f}"


class Stream:
    """A connection over which series get a point each, and then the next one whenever the last one is stored."""

    def __init__(self, port: int, groups: list[Group], when: int) -> None:
        self._connection, self._groups = connect(port), groups
        self._written: list[int] = []
        self.sent = 0
        for group in groups:
            self._send(group, when)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._connection.close()

    def _send(self, group: Group, when: int) -> None:
        self._connection.sendall(group.lines(when))
        self.sent += GROUP

    def _look(self) -> list[Group]:
        """Return the groups that are stored."""
        time.sleep(0.02)
        for group in self._groups:
            self._written += [] if group.is_stored else group.newly_stored()
        return [group for group in self._groups if group.is_stored]

    def send(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for group in self._look():
                self._send(group, group.when + STEP)

    def finish(self) -> None:
        """Wait until every point is stored. Raises ``TimeoutError``."""
        end = time.monotonic() + PATIENCE
        while len(self._look()) < len(self._groups):
            if time.monotonic() > end:
                raise TimeoutError("not every point is stored")

    def stored(self, begin: float, end: float) -> int:
        """Return the number of points that were stored between these times, in seconds."""
        return sum(begin <= one / 1e9 < end for one in self._written)


def measure(port: int, groups: list[Group], seconds: float) -> list[Slice]:
    """Return what is stored in so many seconds, in slices. Raises ``RuntimeError`` if a point is missing in the end."""
    last, units = max(group.when for group in groups), Units()
    with Stream(port, groups, last + STEP) as stream:
        stream.send(WARM_UP)
        uses = [units.use()]
        while uses[-1].time < uses[0].time + seconds:
            stream.send(SLICE)
            uses.append(units.use())
        stream.finish()
    found = sum(stored(path, last) for group in groups for path in group.paths)
    if found != stream.sent:
        raise RuntimeError(f"{found} of {stream.sent} points are stored")
    return [Slice(stream.stored(before.time, after.time), after.since(before)) for before, after in itertools.pairwise(uses)]


@contextlib.contextmanager
def caches(number: int) -> Iterator[None]:
    """Run so many caches, and let the relay send to these."""
    before = RELAY_CONFIG.read_text()
    others = [f"carbon-cache@{name}" for name in list(CACHE_PORTS)[number:]]
    RELAY_CONFIG.write_text(re.sub(rf'\n.*="[{"".join(list(CACHE_PORTS)[number:]) or "-"}]"', "", before))
    try:
        if others:
            run("systemctl", "stop", *others)
        run("systemctl", "restart", "carbon-relay")
        connect(RELAY_PORT).close()
        yield
    finally:
        RELAY_CONFIG.write_text(before)
        if others:
            run("systemctl", "start", *others)
            connect(CACHE_PORTS["b"]).close()


def groups_of_caches() -> list[Group]:
    """Return as many groups for each cache, with the series that the relay sends to that cache."""
    names = [f"stats.counters.bench.g{number % GROUPS}.s{number}" for number in range(SERIES * 5 // 4)]
    command = ["/usr/bin/carbon-c-relay", "-t", "-f", str(RELAY_CONFIG)]
    said = subprocess.run(command, input="\n".join([*names, ""]), check=True, capture_output=True, text=True).stdout
    # The answer for a name begins with the name, and has a line for its member.
    homes = dict(re.findall(r"(?m)^ +\* -> (\S+)\n(?: .*\n)*? {8}\S*:(\d+)$", said))
    share = SERIES // len(CACHE_PORTS)
    groups = []
    for port in CACHE_PORTS.values():
        own = [name for name in names if homes[name] == str(port)][:share]
        groups += [Group(own[begin : begin + GROUP]) for begin in range(0, share, GROUP)]
    return groups


def store(runs: int, seconds: float, limit: float) -> bool:
    """Print what is stored. Return whether two caches store enough."""
    groups = groups_of_caches()
    begin = int(time.time()) // STEP * STEP - KEPT * 5 // 6
    with Stream(RELAY_PORT, groups, begin) as stream:
        stream.finish()
    variants = {
        "one cache": (1, CACHE_PORTS["a"]),
        "one cache behind the relay": (1, RELAY_PORT),
        "two caches behind the relay": (2, RELAY_PORT),
    }
    print(f"{'':27}{'points/s':>10}{'per CPU s':>11}{'carbon':>8}{'relay':>8}{'load':>8}{'other':>8}{'awake':>8}{'alone':>8}", flush=True)
    measured: dict[str, list[Slice]] = {name: [] for name in variants}
    for _number in range(runs):
        for name, (number, port) in variants.items():
            with caches(number):
                slices = measure(port, groups, seconds)
            measured[name] += slices
            print(Slice.of(slices).row(name), flush=True)
    print("quietest slices:")
    quietest = {}
    for name, slices in measured.items():
        quietest[name] = Slice.of(sorted(slices, key=lambda one: one.other)[: max(1, len(slices) // 4)])
        print(quietest[name].row(name))
    one, behind, two = (found.alone for found in quietest.values())
    print(f"ratio: two caches to one, both behind the relay: {two / behind:.2f}; to one without a relay: {two / one:.2f}")
    return two >= limit * behind


def deliver(port: int, lines: list[str]) -> None:
    """Send lines over a connection of their own, and anew until the other side has read it to its end."""
    data = "".join(f"{line}\n" for line in lines).encode()
    while True:
        with contextlib.suppress(OSError), connect(port) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            if not connection.recv(1):
                return
        time.sleep(0.05)


class Series:
    """Series whose points are counted."""

    def __init__(self, name: str, number: int) -> None:
        self._names = [f"stats.counters.{name}.s{one}" for one in range(number)]
        self._paths = [f"{WHISPER}/{one.replace('.', '/')}.wsp" for one in self._names]
        self._begin = int(time.time()) // STEP * STEP - KEPT * 5 // 6
        self._written: list[int] = []
        self.sent = 0

    def __len__(self) -> int:
        return len(self._names)

    def lines(self, points: int) -> list[str]:
        """Return the next so many points."""
        series = len(self._names)
        numbers = range(self.sent, self.sent + points)
        self.sent += points
        self._written = [written(path) for path in self._paths]
        return [f"{self._names[number % series]} 1 {self._begin + number // series * STEP}" for number in numbers]

    def unwritten(self) -> int:
        """Return the number of files that were not written since the last points."""
        return sum(written(path) == before for path, before in zip(self._paths, self._written, strict=True))

    def unstored(self) -> int:
        """Return the number of points that are not in a file."""
        return self.sent - sum(stored(path, self._begin - 1) for path in self._paths)


def settled(count: Callable[[], int]) -> int:
    """Return the number as soon as it is 0 or has not changed for 20 s."""
    last, changed = -1, time.monotonic()
    while (left := count()) and time.monotonic() < changed + 20:
        if left != last:
            last, changed = left, time.monotonic()
        time.sleep(0.5)
    return left


def restart() -> None:
    run("systemctl", "restart", "carbon-cache@a")


def restarts_after_bursts(series: Series, port: int, number: int, points: int) -> float:
    """Send points, restart carbon, and wait until each file is written. Return the mean number of points that waited."""
    waited = []
    for _number in range(number):
        connect(CACHE_PORTS["a"]).close()
        time.sleep(2)  # carbon has nothing to do, and sleeps
        deliver(port, series.lines(points))
        time.sleep(0.15)
        waited.append(series.unwritten() * points // len(series))
        restart()
        settled(series.unwritten)
    return statistics.mean(waited)


def restarts_under_load(series: Series, port: int, number: int, rate: int) -> float:
    """Restart carbon while points arrive, so many in a second. Return the mean number of points that waited."""
    waited, end = [], threading.Event()

    def load() -> None:
        begin = time.monotonic()
        while not end.is_set():
            deliver(port, series.lines(rate // 5))  # the relay takes a tenth of a second to end a connection
            time.sleep(max(0, begin + series.sent / rate - time.monotonic()))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _number in range(number):
            connect(CACHE_PORTS["a"]).close()
            time.sleep(2)
            waited.append(series.unstored())
            restart()
        time.sleep(2)
    finally:
        end.set()
        thread.join()
    return statistics.mean(waited)


def restarts(number: int) -> bool:
    """Print what is lost. Return whether that is nothing."""
    kinds = {
        "idle": (restarts_after_bursts, 10, 100),
        "2000 points/s": (restarts_under_load, 200, 2000),
        "100000 points wait": (restarts_after_bursts, 10000, 100000),
    }
    nothing = True
    print(f"{'':20}{'sent':>10}{'restarts':>10}{'points':>10}{'waited':>10}{'missing':>10}", flush=True)
    for kind, (restart_often, series_number, points) in kinds.items():
        for way, port in (("directly", CACHE_PORTS["a"]), ("to relay", RELAY_PORT)):
            series = Series(f"restart{int(time.time())}", series_number)
            waited = restart_often(series, port, number, points)
            missing = settled(series.unstored)
            nothing &= missing == 0
            print(f"{kind:20}{way:>10}{number:10}{series.sent:10}{waited:10.0f}{missing:10}", flush=True)
    return nothing


def main() -> None:
    command, *values = sys.argv[1:]
    if command == "store":
        runs, seconds, limit = (*values, *("3", "10", "1.6")[len(values) :])
        good = store(int(runs), float(seconds), float(limit))
    else:
        good = restarts(int(values[0]) if values else 20)
    sys.exit(not good)


if __name__ == "__main__":
    main()
