# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What checking each line costs StatsD: its processor time with roles/statsd/files/preload.js and without, under the same load.

statsd_load.py RELEASE [SECONDS [RATE]]

RELEASE is a directory that roles/statsd/files/build.sh has filled. Both StatsDs get RATE metrics a second (default: 150000) over
loopback, in packets of ten, for SECONDS (default: 20), one after the other and twice. What the kernel drops, because StatsD is busy, is not
counted. Prints the processor time for each metric that was received, and the ratio of those with the guard to those without.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".ansible" / "collections"))

from ansible_collections.metricstack.graphite.plugins.module_utils._statsd.management import Management, ManagementError

TICKS = os.sysconf("SC_CLK_TCK")
KINDS = ("hits:1|c", "latency:{0}.5|ms", "level:{0}|g", "sampled:1|c|@0.1", "unique:u{0}|s")


def packets() -> list[bytes]:
    lines = [f"service.api.endpoint_{number % 200}.{KINDS[number % len(KINDS)].format(number % 97)}" for number in range(5000)]
    return ["\n".join(lines[start : start + 10]).encode() for start in range(0, len(lines), 10)]


class StatsD:
    """A StatsD on free ports, for the time of a with statement. Raises ``RuntimeError`` if it does not start or answer."""

    def __init__(self, release: Path, guarded: bool) -> None:
        with socket.socket() as stream, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
            stream.bind(("127.0.0.1", 0))
            datagram.bind(("127.0.0.1", 0))
            self.port, self._management_port = datagram.getsockname()[1], stream.getsockname()[1]
        config = {
            "address": "127.0.0.1",
            "port": self.port,
            "mgmt_address": "127.0.0.1",
            "mgmt_port": self._management_port,
            "backends": [],
        }
        file = release / f"load-{self.port}.js"
        file.write_text(json.dumps({**config, "flushInterval": 600000}))
        command = ["node", *(["--require=./preload.js"] if guarded else []), "node_modules/statsd/stats.js", str(file)]
        self._process = subprocess.Popen(command, cwd=release, stdout=subprocess.DEVNULL)

    def __enter__(self) -> StatsD:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.received()
                return self
            except ManagementError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise RuntimeError("StatsD does not answer") from error
            time.sleep(0.1)

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()
        self._process.wait()

    def received(self) -> int:
        """Return the number of metrics that StatsD has received. Raises ``ManagementError``."""
        with Management("127.0.0.1", self._management_port, timeout=30) as management:
            return management.metrics("counters")["statsd.metrics_received"]

    def processor_seconds(self) -> float:
        user, system = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / TICKS


def load(release: Path, guarded: bool, seconds: float, rate: int) -> float:
    """Return the processor time, in seconds, that StatsD takes for each metric that it receives."""
    data, sent = packets(), 0
    with StatsD(release, guarded) as statsd, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", statsd.port))
        before, began = statsd.processor_seconds(), time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            while sent * 10 < elapsed * rate:
                sender.send(data[sent % len(data)])
                sent += 1
            time.sleep(0.0005)
        received = -1
        while received != (received := statsd.received()):  # until nothing waits any more
            time.sleep(0.5)
        used = statsd.processor_seconds() - before
    print(
        f"{'with' if guarded else 'without'} the guard: {sent * 10 / elapsed:.0f} metrics/s sent, {received / (sent * 10):.2%} received,"
        f" {used / received * 1e6:.2f} us of processor time each",
        flush=True,
    )
    return used / received


def main() -> None:
    release = Path(sys.argv[1]).resolve()
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 20
    rate = int(sys.argv[3]) if len(sys.argv) > 3 else 150000
    costs: dict[bool, list[float]] = {False: [], True: []}
    for guarded in (False, True) * 2:
        costs[guarded].append(load(release, guarded, seconds, rate))
    print(f"ratio {sum(costs[True]) / sum(costs[False]):.3f}")


if __name__ == "__main__":
    main()
