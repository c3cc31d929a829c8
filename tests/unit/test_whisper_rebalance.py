# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Series on their way between three stores: the module as Ansible runs it, rsync and the relay are real. Carbon's part is the library's."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import whisper
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.ring import Homes, Ring
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.remove import Stray, remove
from ansible_collections.metricstack.graphite.plugins.module_utils._rebalance.transfer import Link, Peer, Server
from ansible_collections.metricstack.graphite.plugins.module_utils._whisper.tree import open_tree

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "secret-of-the-test"
# Far enough back that no file counts as one that is being written to.
LONG_AGO = 100


class Cluster:
    """Trees of three stores, each served by an rsync daemon at an address of its own."""

    def __init__(self, place: Path, relay: str, run_module, port: int) -> None:
        self.relay, self._run_module, self._port, self._place = relay, run_module, port, place
        self.names = ["a", "b", "c"]
        self.leaving: set[str] = set()
        self._pass = 0
        self._daemons: list[subprocess.Popen] = []
        for name in self.names:
            self.tree(name).mkdir(parents=True)
            (place / name / "state" / "out").mkdir(parents=True)

    def tree(self, name: str) -> Path:
        return self._place / name / "whisper"

    def stores(self):
        return [
            {"name": name, "address": f"127.0.0.{number}", "port": 2013, "leaving": name in self.leaving}
            for number, name in enumerate(self.names, 1)
        ]

    @property
    def ring(self) -> Ring:
        return Ring.of({"replicas": 2, "stores": self.stores()})

    def serve(self) -> None:
        for number, name in enumerate(self.names, 1):
            peers = [Peer(store["name"], store["address"]) for store in self.stores() if store["name"] != name]
            link = Link(f"127.0.0.{number}", self._port, PASSWORD, 0)
            server = Server(str(self.tree(name)), str(self._place / name / "state" / "out"), link, peers, 60)
            secrets = self._place / name / "secrets"
            secrets.write_text(f"rebalance:{PASSWORD}\n")
            secrets.chmod(0o600)
            text = server.configuration().replace("/run/graphite-rebalance/secrets", str(secrets))
            (self._place / name / "rsyncd.conf").write_text(text.replace("/dev/stderr", str(self._place / name / "log")))
            command = ["rsync", "--daemon", "--no-detach", f"--config={self._place / name / 'rsyncd.conf'}"]
            self._daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        time.sleep(0.5)

    def close(self) -> None:
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait()

    def arguments(self, name: str, phase: str, **others):
        return {
            "phase": phase,
            "directory": str(self.tree(name)),
            "store": name,
            "cluster": {"replicas": 2, "stores": self.stores()},
            "state_directory": str(self._place / name / "state"),
            "run_directory": str(self._place / name / "run"),
            "relay": self.relay,
            "port": self._port,
            "password": PASSWORD,
            "pass_id": f"p{self._pass}",
            **others,
        }

    def phase(self, name: str, phase: str, *flags, **others):
        result = self._run_module("whisper_rebalance", *flags, **self.arguments(name, phase, **others))
        assert not str(result.get("msg", "")), result
        return result

    def one_pass(self, until=None):
        self._pass += 1
        more = {} if until is None else {"until": until}
        scans = {name: self.phase(name, "scan", **more) for name in self.names}
        if sum(scan["counts"]["strays"] for scan in scans.values()) or until:
            for phase in ("plan", "pull", "remove"):
                for name in self.names:
                    self.phase(name, phase, **more)
        return scans

    def passes(self, until=None):
        """Pass over the stores as the playbook does; return how often."""
        for number in range(1, 8):
            scans = self.one_pass(until if number == 1 else None)
            if number > 1 and not sum(scan["counts"]["strays"] for scan in scans.values()):
                return number
        raise AssertionError("no end")

    def homes(self, series):
        with Homes(self.ring, self.relay) as homes:
            return dict(zip(series, map(set, homes.of(series))))


@pytest.fixture
def cluster(tmp_path, relay, run_module, free_port):
    made = Cluster(tmp_path, relay, run_module, free_port)
    yield made
    made.close()


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def write(path, points, sparse=False):
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        whisper.create(str(path), [(10, 360), (60, 300)], 0, "sum", sparse=sparse)
    if points:
        whisper.update_many(str(path), points)
    then = time.time() - LONG_AGO
    os.utime(path, (then, then))


def path_of(series):
    return series.replace(".", "/") + ".wsp"


def points_in(path):
    now = int(time.time())
    (begin, _end, step), values = whisper.fetch(str(path), now - 3500, now)
    return {begin + step * place: value for place, value in enumerate(values) if value is not None}


def files_of(tree):
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}


def fill(cluster, number=40, seed=1):
    """Spread points of series over the stores; return what each series has on all of them together."""
    dice = random.Random(seed)
    now = int(time.time())
    moments = [now - now % 10 - 10 * back for back in range(1, 300)]
    expected = {}
    for index in range(number):
        series = f"top.m{index % 7}.x{index}"
        expected[series] = {}
        for store in dice.sample(cluster.names, dice.randint(1, 3)):
            drawn = {moment: float(moment % 1000) for moment in moments if dice.random() < dice.choice([0.1, 0.9])}
            write(cluster.tree(store) / path_of(series), list(drawn.items()), sparse=dice.random() < 0.3)
            expected[series].update(drawn)
    return expected


def check(cluster, expected):
    homes = cluster.homes(list(expected))
    for name in cluster.names:
        wanted = {path_of(series) for series in expected if name in homes[series]}
        assert files_of(cluster.tree(name)) == wanted, name
        for path in wanted:
            series = path[:-4].replace("/", ".")
            found = points_in(cluster.tree(name) / path)
            # Older points are not compared, because they are about to leave the archive while the stores are.
            oldest = time.time() - 2700
            assert found == {moment: value for moment, value in expected[series].items() if moment in found or moment > oldest}, (
                name,
                path,
            )


def test_every_series_comes_to_its_homes_with_all_of_its_points(cluster):
    expected = fill(cluster)
    cluster.serve()
    before = {name: {path: (cluster.tree(name) / path).read_bytes() for path in files_of(cluster.tree(name))} for name in cluster.names}
    looked = cluster.phase("a", "scan", "--check", until=int(time.time()))
    assert looked["counts"]["strays"] == sum(
        1 for series, own in cluster.homes(list(expected)).items() if "a" not in own and path_of(series) in before["a"]
    )
    assert looked["to"]
    assert before == {
        name: {path: (cluster.tree(name) / path).read_bytes() for path in files_of(cluster.tree(name))} for name in cluster.names
    }
    assert cluster.passes(until=int(time.time())) <= 3
    check(cluster, expected)
    modes = {(cluster.tree(name) / path).stat().st_mode & 0o777 for name in cluster.names for path in files_of(cluster.tree(name))}
    assert modes == {0o644}
    # All is as it should be: nothing travels.
    again = cluster.one_pass(until=int(time.time()))
    assert [scan["counts"]["strays"] for scan in again.values()] == [0, 0, 0]
    assert [cluster.phase(name, "plan")["series"] for name in cluster.names] == [0, 0, 0]


def test_a_replica_that_was_away_gets_what_it_has_missed(cluster):
    now = int(time.time())
    moments = [now - now % 10 - 10 * back for back in range(10, 300)]
    series = [f"m{number}" for number in range(12)]
    homes = cluster.homes(series)
    for name in series:
        one, other = sorted(homes[name])
        write(cluster.tree(one) / path_of(name), [(moment, 1.0) for moment in moments[:200]])
        write(cluster.tree(other) / path_of(name), [(moment, 1.0) for moment in moments[100:]])
    cluster.serve()
    assert cluster.passes(until=now) == 2
    check(cluster, {name: dict.fromkeys(moments, 1.0) for name in series})


def test_a_store_that_leaves_is_emptied(cluster):
    expected = fill(cluster, seed=4)
    write(cluster.tree("c") / "carbon/agents/c-a/cpuUsage.wsp", [])
    cluster.leaving = {"c"}
    cluster.serve()
    cluster.passes(until=int(time.time()))
    assert files_of(cluster.tree("c")) == {"carbon/agents/c-a/cpuUsage.wsp"}
    for name in ("a", "b"):
        # The history of the store stays readable.
        (cluster.tree(name) / "carbon/agents/c-a/cpuUsage.wsp").unlink()
    check_names = cluster.names
    cluster.names = ["a", "b"]
    check(cluster, expected)
    cluster.names = check_names


def test_a_copy_stays_as_long_as_a_home_does_not_have_exactly_its_state(cluster):
    (series,) = [name for name in (f"n{number}" for number in range(50)) if "a" not in cluster.homes([name])[name]][:1]
    now = int(time.time())
    stray = cluster.tree("a") / path_of(series)
    write(stray, [(now - 500, 1.0)])
    cluster.serve()
    cluster._pass += 1
    for phase in ("scan", "plan", "pull"):
        for name in cluster.names:
            cluster.phase(name, phase)
    # What a cache still had is written now.
    write(stray, [(now - 300, 2.0)])
    assert cluster.phase("a", "remove")["removed"] == 0
    assert stray.exists()
    cluster.passes()
    assert not stray.exists()
    for name in cluster.homes([series])[series]:
        assert sorted(points_in(cluster.tree(name) / path_of(series)).values()) == [1.0, 2.0]


def test_a_home_that_has_lost_what_it_had_merged_gets_it_again(cluster):
    """Such as one whose files were restored from a backup after an interrupted run."""
    (series,) = [name for name in (f"n{number}" for number in range(50)) if "a" not in cluster.homes([name])[name]][:1]
    write(cluster.tree("a") / path_of(series), [(int(time.time()) - 500, 1.0)])
    cluster.serve()
    cluster._pass += 1
    for phase in ("scan", "plan", "pull"):
        for name in cluster.names:
            cluster.phase(name, phase)
    lost = cluster.tree("b") / path_of(series)
    if not lost.exists():
        lost = cluster.tree("c") / path_of(series)
    lost.unlink()
    write(lost, [(int(time.time()) - 700, 5.0)])
    cluster.passes()
    assert sorted(points_in(lost).values()) == [1.0, 5.0]


def test_a_file_that_is_being_written_to_is_left_to_the_next_pass(cluster):
    (series,) = [name for name in (f"n{number}" for number in range(50)) if "a" not in cluster.homes([name])[name]][:1]
    stray = cluster.tree("a") / path_of(series)
    write(stray, [(int(time.time()) - 500, 1.0)])
    os.utime(stray)
    cluster._pass += 1
    counts = cluster.phase("a", "scan")["counts"]
    assert (counts["strays"], counts["unsettled"]) == (1, 1)
    assert not [line for path in (cluster.tree("a").parent / "state" / "out").rglob("*") if path.is_file() for line in path.open()]


def test_what_is_damaged_stays_and_is_named(cluster):
    expected = fill(cluster, 6, seed=2)
    series = next(name for name in (f"d{number}" for number in range(50)) if "a" not in cluster.homes([name])[name])
    broken = cluster.tree("a") / path_of(series)
    broken.write_bytes(b"noise" * 50)
    os.utime(broken, (1, 1))
    (cluster.tree("a") / "link.wsp").symlink_to("/etc/passwd")
    cluster.serve()
    scans = cluster.one_pass(until=int(time.time()))
    assert {item["path"] for item in scans["a"]["unreadable"]} == {path_of(series), "link.wsp"}
    cluster.one_pass()
    assert broken.read_bytes() == b"noise" * 50
    broken.unlink()
    (cluster.tree("a") / "link.wsp").unlink()
    check(cluster, expected)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_copied(cluster, file_system):
    fill(cluster, 60, seed=3)
    small = cluster.tree("c")
    shutil.rmtree(small)
    small.mkdir()
    file_system(small, "size=64k")
    cluster.serve()
    cluster._pass += 1
    for name in cluster.names:
        cluster.phase(name, "scan")
    result = cluster._run_module("whisper_rebalance", **cluster.arguments("c", "plan"))
    assert "are missing. Nothing was copied" in result["msg"]
    assert result["needed"] > result["available"]
    assert files_of(small) == set()


def test_another_password_or_address_is_refused(cluster, tmp_path):
    cluster.serve()
    fill(cluster, 3)
    cluster._pass += 1
    for name in cluster.names:
        cluster.phase(name, "scan")
    url = f"rsync://rebalance@127.0.0.2:{cluster._port}/whisper/"
    for password, address in (("wrong", "127.0.0.1"), (PASSWORD, "127.0.0.9")):
        done = subprocess.run(
            ["rsync", "--list-only", f"--address={address}", url],
            env={**os.environ, "RSYNC_PASSWORD": password},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 5, done
        assert "@ERROR" in done.stderr
    write_attempt = subprocess.run(
        ["rsync", "--address=127.0.0.1", "/etc/hostname", url],
        env={**os.environ, "RSYNC_PASSWORD": PASSWORD},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "read only" in write_attempt.stderr


def test_lists_that_name_a_file_elsewhere_are_refused(cluster):
    cluster.serve()
    fill(cluster, 3)
    cluster._pass += 1
    for name in cluster.names:
        cluster.phase(name, "scan")
    evil = next((cluster._place / "b" / "state" / "out").glob("p*/to/a/0"))
    for path in ("../../etc/passwd.wsp", "/etc/x.wsp", "a/.ssh/x.wsp", "x"):
        evil.write_text(json.dumps([path, 1, 1, 1, False, True, ""]) + "\n")
        result = cluster._run_module("whisper_rebalance", **cluster.arguments("a", "plan"))
        assert "names a file that is no whisper file" in result["msg"]


def test_what_is_behind_a_link_is_not_removed(tmp_path):
    elsewhere = tmp_path / "elsewhere" / "x.wsp"
    write(elsewhere, [(int(time.time()) - 60, 1.0)])
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to(elsewhere.parent)
    status = elsewhere.stat()
    top = open_tree(str(tmp_path / "top"))
    try:
        counts = remove(top, [Stray("link/x.wsp", status.st_mtime_ns, status.st_size)])
    finally:
        os.close(top)
    assert counts == {"stayed": 1}
    assert elsewhere.exists()


def test_series_with_tags_go_by_the_names_that_graphite_web_knows(cluster):
    names = ["load;host=a", "load;host=b.c", "cpu;host=a"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/tags/name":
                answer = {"tag": "name", "values": [{"value": "load"}, {"value": "cpu"}]}
            else:
                value = self.path.rpartition("%3D")[2]
                answer = [name for name in names if name.startswith(f"{value};")]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    paths = {}
    for name in [*names, "unknown;host=z"]:
        digest = hashlib.sha256(name.encode()).hexdigest()
        paths[name] = f"_tagged/{digest[:3]}/{digest[3:6]}/{digest}.wsp"
        write(cluster.tree("a") / paths[name], [(int(time.time()) - 500, 1.0)])
    plain = "mem;host=y"
    digest = hashlib.sha256(plain.encode()).hexdigest()
    paths[plain] = f"_tagged/{digest[:3]}/{digest[3:6]}/{plain}.wsp"
    write(cluster.tree("a") / paths[plain], [(int(time.time()) - 500, 1.0)])
    cluster.serve()
    for _pass in range(2):
        cluster._pass += 1
        scans = [cluster.phase(name, "scan", tags_url=url, until=int(time.time())) for name in cluster.names]
        for phase in ("plan", "pull", "remove"):
            for name in cluster.names:
                cluster.phase(name, phase)
    assert [scan["counts"]["unnamed"] for scan in scans] == [1, 0, 0]
    homes = cluster.homes([*names, plain])
    for name in cluster.names:
        wanted = {paths[series] for series, own in homes.items() if name in own}
        assert files_of(cluster.tree(name)) == wanted | ({paths["unknown;host=z"]} if name == "a" else set())
    # A store that leaves gives what nobody knows to all.
    cluster.leaving = {"a"}
    for _pass in range(2):
        cluster._pass += 1
        for name in cluster.names:
            cluster.phase(name, "scan", tags_url=url)
        for phase in ("plan", "pull", "remove"):
            for name in cluster.names:
                cluster.phase(name, phase)
    assert files_of(cluster.tree("a")) == set()
    assert files_of(cluster.tree("b")) == files_of(cluster.tree("c")) == set(paths.values())
    server.shutdown()


class Killed:
    """Phases that end with SIGKILL at a moment that nobody has chosen."""

    def __init__(self, cluster, dice):
        self._cluster, self._dice = cluster, dice
        self.count = 0

    def phase(self, name, phase):
        request = {**self._cluster.arguments(name, phase), "_ansible_remote_tmp": "/tmp", "_ansible_check_mode": False}
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "plugins" / "modules" / "whisper_rebalance.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT / ".ansible" / "collections")},
            start_new_session=True,
        )
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": request}).encode())
        process.stdin.close()
        # Not before it is at work, as the lock shows.
        lock = self._cluster.tree(name).parent / "state" / "lock"
        while process.poll() is None and not (lock.exists() and lock.read_text() == str(process.pid)):
            time.sleep(0.01)
        time.sleep(1.6 * self._dice.random() ** 2)
        if process.poll() is None:
            self.count += 1
            # All at once, as at the end of a host, or the first process alone.
            (os.killpg if self._dice.random() < 0.5 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()


def test_a_run_that_is_killed_at_any_moment_loses_nothing(cluster):
    expected: dict = {}
    cluster.serve()
    dice = random.Random(9)
    killed = Killed(cluster, dice)
    for attempt in range(6):
        # Always something to do.
        for series, points in fill(cluster, 30, seed=attempt).items():
            expected.setdefault(series, {}).update(points)
        cluster._pass += 1
        phase_of_death = ("pull", "remove", "scan")[attempt % 3]
        for phase in ("scan", "plan", "pull", "remove"):
            for name in cluster.names:
                (killed if phase == phase_of_death else cluster).phase(name, phase)
            if phase == phase_of_death:
                break
    assert killed.count >= 9
    cluster.passes(until=int(time.time()))
    check(cluster, expected)
