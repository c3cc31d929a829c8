# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Sends for SECONDS what a service under a changing load would send to StatsD on this host: demo-traffic.py SECONDS."""

import math
import random
import socket
import sys
import time

STATSD = ("127.0.0.1", 8125)


def main(seconds: float) -> None:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    start = time.monotonic()
    told = 0
    while (elapsed := time.monotonic() - start) < seconds:
        load = 0.6 + 0.4 * math.sin(elapsed / 12)
        lines = []
        for _ in range(round(10 * load)):
            lines += ["demo.requests:1|c", f"demo.response_time:{random.gammavariate(4, 12) * (0.5 + load):.1f}|ms"]
        lines.append(f"demo.queue:{20 * load * load:.0f}|g")
        sender.sendto("\n".join(lines).encode(), STATSD)
        if elapsed >= told + 10:
            told += 10
            print(f"{told:3} s of {seconds:.0f} s", flush=True)
        time.sleep(0.2)


if __name__ == "__main__":
    main(float(sys.argv[1]))
