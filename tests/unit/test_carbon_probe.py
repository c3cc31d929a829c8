# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""carbon_probe against a stand-in for carbon-cache, which takes points and answers queries, and can be told to lose or keep points."""

from __future__ import annotations

import getpass
import pickle
import socketserver
import struct
import threading

import pytest


class Carbon:
    """A stand-in for an instance: ``fate`` says what becomes of a point (``store``, ``lose`` or ``keep``)."""

    def __init__(self, directory, fate):
        self._directory, self._fate = directory, fate
        self._cache = {}
        self._servers = [socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) for handler in (self._receive(), self._answer())]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()

    @property
    def instance(self):
        receiver, query = (server.server_address[1] for server in self._servers)
        return {"name": "a", "line_receiver_port": receiver, "cache_query_port": query}

    def close(self):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _receive(self):
        carbon = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                for line in self.rfile:
                    metric, value, when = line.split()
                    carbon._cache[metric.decode()] = [(int(when), float(value))]

        return Handler

    def _answer(self):
        carbon = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while head := self.rfile.read(4):
                    request = pickle.loads(self.rfile.read(struct.unpack("!I", head)[0]))
                    answer = pickle.dumps({"datapointsByMetric": {name: carbon._cache.get(name, []) for name in request["metrics"]}})
                    self.wfile.write(struct.pack("!I", len(answer)) + answer)
                    carbon._write()

        return Handler

    def _write(self):
        """What follows the first answer that has the point."""
        if self._fate == "keep":
            return
        for metric, points in self._cache.items():
            path = self._directory / f"{metric.replace('.', '/')}.wsp"
            if points and self._fate == "store":
                with path.open("r+b") as stream:
                    stream.seek(28)
                    stream.write(struct.pack("!Ld", *points[0]))
        self._cache.clear()


@pytest.fixture
def carbon(tmp_path):
    """Return a function that starts a stand-in with a whisper directory."""
    started = []

    def start(fate):
        started.append(Carbon(tmp_path, fate))
        return started[-1]

    yield start
    for stand_in in started:
        stand_in.close()


@pytest.fixture
def probe(run_module, tmp_path):
    def run(stand_in, **arguments):
        given = {"instances": [stand_in.instance], **arguments}
        return run_module("carbon_probe", directory=str(tmp_path), user=getpass.getuser(), timeout=1, **given)

    return run


def test_a_point_that_is_stored_leaves_nothing(carbon, probe, tmp_path):
    stand_in = carbon("store")
    assert probe(stand_in)["series"] == ["metricstack_probe.a"]
    assert "msg" not in probe(stand_in, state="absent")
    assert list(tmp_path.iterdir()) == []


def test_a_point_that_is_lost_after_it_was_taken_is_a_failure_that_names_the_path(carbon, probe, tmp_path):
    stand_in = carbon("lose")
    assert "msg" not in probe(stand_in)
    message = probe(stand_in, state="absent")["msg"]
    assert f"is neither in its cache nor in {tmp_path}/metricstack_probe/a.wsp" in message
    assert "carbon_cache_whisper_directory" in message
    assert list(tmp_path.iterdir()) == []


def test_a_busy_instance_is_no_failure_and_keeps_the_file_until_the_next_run(carbon, probe, tmp_path):
    stand_in = carbon("keep")
    probe(stand_in)
    result = probe(stand_in, state="absent")
    assert "msg" not in result
    assert "has not written the point of metricstack_probe.a after 1 s" in str(result["warnings"])
    assert (tmp_path / "metricstack_probe" / "a.wsp").exists()


def test_a_point_that_is_sent_to_the_relay_is_expected_in_any_instance(carbon, probe, tmp_path):
    """The stand-in takes what the relay would hand on; another one, which is asked as well, never has it."""
    other, stand_in = carbon("store"), carbon("store")
    relay = {"address": "127.0.0.1", "port": stand_in.instance["line_receiver_port"]}
    instances = [{**other.instance, "name": "b"}, stand_in.instance]
    assert probe(stand_in, instances=instances, relay=relay)["series"] == [
        "metricstack_probe.b",
        "metricstack_probe.a",
        "metricstack_probe.carbon_relay",
    ]
    assert "msg" not in probe(stand_in, instances=instances, relay=relay, state="absent")
    assert list(tmp_path.iterdir()) == []
    # One that hands on nothing.
    sink = carbon("lose")
    message = probe(stand_in, relay={"address": "127.0.0.1", "port": sink.instance["line_receiver_port"]})["msg"]
    assert "carbon-relay has not taken the point of metricstack_probe.carbon_relay after 1 s" in message


def test_lines_are_sent_to_the_address_of_the_line_receivers(carbon, probe):
    assert "does not receive points on TCP port" in probe(carbon("store"), line_receiver_address="127.0.0.99")["msg"]


def test_a_directory_that_cannot_be_written_to_is_named(carbon, run_module, tmp_path):
    path = tmp_path / "nowhere"
    result = run_module("carbon_probe", instances=[carbon("store").instance], directory=str(path), user=getpass.getuser())
    assert f"cannot be written to {path} (carbon_cache_whisper_directory)" in result["msg"]
