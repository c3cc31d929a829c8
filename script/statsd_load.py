#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What the guard before StatsD costs: the processor time of StatsD with it and without it, under the same load.

statsd_load.py RELEASE [SECONDS [RATE]]

RELEASE is a directory that roles/statsd/files/build.sh has filled. Both StatsDs get RATE metrics a second (default: 150000) over
loopback, in packets of ten, for SECONDS (default: 20), one after the other and twice. Prints one line for each, and the ratio of the sums.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
KINDS = ("hits:1|c", "latency:{0}.5|ms", "level:{0}|g", "sampled:1|c|@0.1", "unique:u{0}|s")


def packets() -> list[bytes]:
    lines = [f"service.api.endpoint_{number % 200}.{KINDS[number % len(KINDS)].format(number % 97)}" for number in range(5000)]
    return ["\n".join(lines[start : start + 10]).encode() for start in range(0, len(lines), 10)]


class StatsD:
    """A StatsD on a free port, with a receive buffer that lets no packet fall."""

    def __init__(self, release: Path, guarded: bool) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.management = ("127.0.0.1", probe.getsockname()[1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = {"address": "127.0.0.1", "port": self.port, "mgmt_address": "127.0.0.1", "mgmt_port": self.management[1], "backends": []}
        file = release / f"load-{self.port}.js"
        file.write_text(json.dumps({**config, "flushInterval": 600000}))
        command = ["node", *(["--require=./preload.js"] if guarded else []), "node_modules/statsd/stats.js", str(file)]
        self.process = subprocess.Popen(command, cwd=release, stdout=subprocess.DEVNULL)
        while not self.counters():
            time.sleep(0.1)

    def counters(self) -> str:
        try:
            with socket.create_connection(self.management, timeout=10) as management:
                management.sendall(b"counters")
                answer = b""
                while not answer.endswith(b"END\n\n"):
                    answer += management.recv(65536)
                return answer.decode()
        except OSError:
            return ""

    def received(self) -> int:
        return int(self.counters().partition("'statsd.metrics_received': ")[2].partition(",")[0].partition("\n")[0])

    def processor_seconds(self) -> float:
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / TICKS


def load(release: Path, guarded: bool, seconds: float, rate: int) -> float:
    """Return the processor time of StatsD for each second of the load, for what it has received of the rate."""
    statsd, sent, data = StatsD(release, guarded), 0, packets()
    before, began = statsd.processor_seconds(), time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", statsd.port))
        while (elapsed := time.monotonic() - began) < seconds:
            while sent * 10 < elapsed * rate:
                sender.send(data[sent % len(data)])
                sent += 1
            time.sleep(0.0005)
    used = statsd.processor_seconds() - before
    received = statsd.received()
    statsd.process.kill()
    statsd.process.wait()
    share = received / (sent * 10)
    print(
        f"{'with' if guarded else 'without'} the guard: {sent * 10 / elapsed:.0f} metrics/s sent, {share:.2%} received,"
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
