# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The hosts of the scenario, a load of points whose loss is noticed, and playbooks with more hosts than the inventory has."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
import urllib.request
from urllib.parse import urlencode

import testinfra
from conftest import ROOT

NAME = os.environ.get("MOLECULE_HOST", "metricstack-instance")
ADDRESSES = {f"c{number}": f"10.213.77.1{number}" for number in (1, 2, 3)} | {
    "s1": "10.213.77.14",
    "f1": "10.213.77.21",
    "f2": "10.213.77.22",
    "r1": "10.213.77.31",
    "r2": "10.213.77.32",
}
STORES = ("c1", "c2", "c3")
SPARE = "s1"
RELAYS = ("r1", "r2")
FRONTS = ("f1", "f2")
# Points a second.
RATE = int(os.environ.get("CLUSTER_RATE", "1000"))


def on(part):
    """Return one of the hosts."""
    return testinfra.get_host(f"docker://{NAME}-{part}")


def docker(*command):
    subprocess.run(["docker", *command], check=True, capture_output=True)


def render(host, target, **parameters):
    """Return what a front shows, or a store by itself."""
    port = 80 if host in FRONTS else 8081
    query = urlencode({"target": target, "format": "json", "noCache": 1, "from": "-5min", **parameters})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{ADDRESSES[host]}:{port}/render?{query}", timeout=60) as response:
        return json.loads(response.read())


def points(host, pattern, begin, end):
    """Return the times and values of each series that match, between two seconds."""
    return {
        series["target"]: {when: value for value, when in series["datapoints"] if value is not None and begin <= when < end}
        for series in render(host, pattern, **{"from": begin - 1, "until": end})
    }


def copies(pattern, stores=STORES):
    """Return the stores that have a file of each series."""
    found = {}
    for store in stores:
        for path in on(store).run(f"find /var/lib/graphite/whisper -path '*/{pattern}*.wsp'").stdout.split():
            found.setdefault(path, []).append(store)
    return found


class Sender(threading.Thread):
    """Sends a point of each series a second to one relay, and what may be lost with it to the other one again."""

    KEPT = 10

    def __init__(self, name, relays, seconds, series=RATE):
        super().__init__()
        self.name, self._relays, self._series = name, list(relays), series
        self.begin = int(time.time()) + 1
        self.end = self.begin + seconds
        self._is_stopped = threading.Event()
        self._connection = None
        self._sent = []
        self.start()

    def run(self):
        for second in range(self.begin, self.end):
            if self._is_stopped.is_set():
                self.end = second
                break
            while time.time() < second:
                time.sleep(0.01)
            lines = "".join(f"load_test.{self.name}.s{number} {second % 1000} {second}\n" for number in range(self._series)).encode()
            self._sent = [*self._sent[1 - self.KEPT :], lines]
            self._send(lines)
        self._connection.shutdown(socket.SHUT_WR)
        self._connection.recv(1)

    def stop(self):
        self._is_stopped.set()
        self.join()

    def _send(self, data):
        deadline = time.monotonic() + 30
        while True:
            try:
                if self._connection is None:
                    self._connection = socket.create_connection((ADDRESSES[self._relays[0]], 2003), timeout=2)
                    self._connection.settimeout(5)
                self._connection.sendall(data)
            except OSError:
                assert time.monotonic() < deadline, "no relay takes points"
                self._connection = None
                self._relays.reverse()
                data = b"".join(self._sent)
            else:
                return

    def missing(self, host, numbers, until):
        """Return how many points a host lacks of some of the series, up to a second."""
        wanted = {second: second % 1000 for second in range(self.begin, until)}
        lacking = 0
        for begin in range(0, len(numbers), 200):  # as many as the line of a request has room for
            some = numbers[begin : begin + 200]
            shown = points(host, f"load_test.{self.name}.s{{{','.join(map(str, some))}}}", self.begin, until)
            lacking += sum(len(wanted.items() - shown.get(f"load_test.{self.name}.s{number}", {}).items()) for number in some)
        return lacking

    def at_home(self, store, numbers, stores=STORES):
        """Return those of some of the series that a store has."""
        found = copies(f"load_test/{self.name}/", stores)
        return [number for number in numbers if store in found.get(f"/var/lib/graphite/whisper/load_test/{self.name}/s{number}.wsp", [])]


def counted(front, name, minutes=5):
    """Return how much a front shows of what all StatsD have counted lately."""
    shown = render(front, f"stats.counters.{name}.count.*", **{"from": f"-{minutes}min"})
    return sum(value for series in shown for value, _when in series["datapoints"] if value)


def player(run_ansible, tmp_path):
    """Return a function that runs a playbook with more hosts of carbon than the inventory has, and returns its exit status and output."""

    def run(playbook, more=None, *options, **variables):
        inventory = tmp_path / "more.yml"
        inventory.write_text(json.dumps({"carbon": {"hosts": {f"{NAME}-{part}": values for part, values in (more or {}).items()}}}))
        arguments = [f"--inventory={inventory}"] if more else []
        status, output, errors = run_ansible(
            "ansible-playbook",
            *arguments,
            f"{ROOT}/playbooks/{playbook}.yml",
            "-e",
            json.dumps(variables),
            *options,
            MOLECULE_HOST=NAME,
        )
        return status, output + errors

    return run
