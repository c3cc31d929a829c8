# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Sends the same metrics with clients of others, each by its own interface and as it is by default.

``clients.py PREFIX`` runs all of them, also those of clients.js; ``clients.py PREFIX CLIENT`` runs one.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Two packages have a module of the same name, so that each client has a process of its own.
PACKAGES = {"statsd": "statsd", "statsd-tcp": "statsd", "datadog": "datadog", "python-statsd": "python_statsd"}
SCRIPTS = ("hot-shots", "hot-shots-tcp", "hot-shots-telegraf", "node-statsd", "statsd-client", "statsd-client-tcp")
BATCH = 1000


def statsd(prefix, transport="StatsClient", batches=({"maxudpsize": 60000},)):
    import statsd

    def send(client):
        client.incr("requests", 5)
        client.decr("requests", 2)
        for _number in range(10):
            client.incr("sampled", rate=0.5)
        client.gauge("queue", 12.5)
        client.gauge("level", 10)
        client.gauge("level", 5, delta=True)
        client.gauge("level", -3, delta=True)
        client.gauge("below", -7)
        for milliseconds in (10, 20, 60):
            client.timing("latency", milliseconds)
        for user in "aba":
            client.set("users", user)

    client = getattr(statsd, transport)
    send(client(prefix=prefix))
    for options in batches:
        with client(prefix=prefix, **options).pipeline() as batch:
            for _number in range(BATCH):
                batch.incr("batch")


def statsd_tcp(prefix):
    statsd(prefix, "TCPStatsClient", [{}])


def datadog(prefix):
    from datadog.dogstatsd import DogStatsd

    client = DogStatsd(namespace=prefix, disable_telemetry=True)
    client.increment("requests", 5)
    client.decrement("requests", 2)
    for _number in range(10):
        client.increment("sampled", sample_rate=0.5)
    client.gauge("queue", 12.5)
    client.gauge("below", 0)
    client.gauge("below", -7)
    for milliseconds in (10, 20, 60):
        client.timing("latency", milliseconds)
    for user in "aba":
        client.set("users", user)
    DogStatsd(namespace=prefix, disable_telemetry=True, container_id="abc").increment(
        "tagged", 4, tags=["env:prod", "region:eu"], cardinality="low"
    )
    with DogStatsd(namespace=prefix, disable_telemetry=True, disable_buffering=False, max_buffer_len=60000) as batch:
        for _number in range(BATCH):
            batch.increment("batch")
    # StatsD does not know these; they are bad lines.
    client.histogram("refused", 1)
    client.distribution("refused", 1)
    client.event("title", "text")
    client.service_check("refused", client.OK)
    client.gauge_with_timestamp("refused", 1, int(time.time()))
    client.increment("refused", tags=["prod"])
    # It reports about itself as well, with tags.
    DogStatsd(namespace=prefix, telemetry_min_flush_interval=0).increment("with_telemetry")


def python_statsd(prefix):
    import statsd

    counter = statsd.Counter(prefix)
    counter.increment("requests", 5)
    counter.decrement("requests", 2)
    sampled = statsd.Counter(prefix, statsd.Connection(sample_rate=0.5))
    for _number in range(10):
        sampled.increment("sampled")
    gauge = statsd.Gauge(prefix)
    gauge.send("queue", 12.5)
    gauge.send("level", 10)
    gauge.increment("level", 5)
    gauge.decrement("level", 3)
    gauge.set("below", -7)
    for seconds in (0.01, 0.02, 0.06):
        statsd.Timer(prefix).send("latency", seconds)
    # Bad lines.
    statsd.Average(prefix).send("refused", 1)
    statsd.Raw(prefix).send("refused", 1)


def wait_for_the_beginning_of_an_interval():
    """StatsD flushes each ten seconds; what belongs together is to be sent between two flushes."""
    while True:
        with socket.create_connection(("127.0.0.1", 8126)) as management:
            management.sendall(b"stats\n")
            answer = dict(line.split(": ") for line in iter(management.makefile().readline, "END\n"))
        uptime = int(answer["uptime"])
        if 1 <= uptime % 10 <= 5:
            return
        time.sleep(0.2)


def main(prefix, client=""):
    if client:
        random.random = lambda: 0.3  # what is sampled at a rate of 0.5 is sent, each time
        globals()[client.replace("-", "_")](prefix)
        return
    for client, package in PACKAGES.items():
        (wheel,) = HERE.glob(f"{package}-*.whl")
        wait_for_the_beginning_of_an_interval()
        command = [sys.executable, __file__, f"{prefix}.{client}", client]
        subprocess.run(command, check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(wheel)})
    wait_for_the_beginning_of_an_interval()
    subprocess.run(["bash", "-c", f"echo '{prefix}.bash.requests:3|c' > /dev/udp/127.0.0.1/8125"], check=True)
    for client in SCRIPTS:
        wait_for_the_beginning_of_an_interval()
        subprocess.run(["node", HERE / "clients.js", f"{prefix}.{client}", client], check=True, timeout=60)


if __name__ == "__main__":
    main(*sys.argv[1:])
