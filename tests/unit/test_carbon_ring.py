# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The homes of series, as the real relay gives them, and the series that another ring moves."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time

import pytest
import whisper
from ansible_collections.metricstack.graphite.plugins.module_utils._carbon.ring import (
    CHARACTERS,
    Homes,
    Ring,
    RingError,
    Store,
    is_relayed,
    recorded_ring,
)

STORES = [{"name": name, "address": f"192.0.2.{number}", "port": 2013} for number, name in enumerate(["a", "b", "c", "d"], 1)]
NAMES = [f"servers.web{number % 100}.app{number}.requests" for number in range(25_000)]
NAMES += ["cpu;host=a.b;dc=x", "Größe.日本語.😀", "a.b#c", 'a."b".c', "a\\b", "a.%d.$HOME", "a,b", "a=b", "stats.counters.x~y.rate"]


def ring(names="abc", replicas=2):
    return Ring.of({"replicas": replicas, "stores": [store for store in STORES if store["name"] in names]})


def homes(relay, names, wanted):
    with Homes(wanted, relay) as known:
        return list(known.of(names))


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_each_series_has_as_many_homes_as_replicas(relay, replicas):
    found = homes(relay, NAMES, ring(replicas=replicas))
    assert len(found) == len(NAMES)
    assert {len(set(item)) for item in found} == {replicas}
    shares = [sum(1 for item in found if name in item) / len(NAMES) for name in "abc"]
    assert min(shares) > 0.6 * replicas / 3


def test_one_store_is_the_home_of_all_and_no_relay_is_asked():
    assert homes("/nowhere/relay", ["a", "b", "a b"], ring("a", 1)) == [("a",), ("a",), ()]


def test_names_that_no_relay_takes_have_no_home(relay):
    names = ["a b", "", "a\tb", "a\nb", "x" * 9000, "a.b"]
    assert [bool(item) for item in homes(relay, names, ring())] == [False] * 5 + [True]
    assert not is_relayed("a\rb")


def test_a_running_relay_sends_points_to_these_homes(relay, tmp_path):
    """Also for names that the relay would change without its list of characters."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _store in range(3)]
    ports = [listener.getsockname()[1] for listener in listeners]
    wanted = Ring(2, tuple(Store(name, "127.0.0.1", port) for name, port in zip("abc", ports)))
    names = NAMES[:300] + NAMES[-9:]
    expected = homes(relay, names, wanted)
    with Homes(wanted, relay) as known, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        configuration = tmp_path / "relay.conf"
        with open(known._file.name) as stream:
            configuration.write_text(stream.read() + f'listen type linemode "127.0.0.1:{port}" proto tcp ;\n')
    process = subprocess.Popen([relay, "-s", "-c", CHARACTERS, "-f", configuration], stdout=subprocess.DEVNULL)
    try:
        for _attempt in range(100):
            try:
                sender = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        sender.sendall("".join(f"{name} 1 {int(time.time())}\n" for name in names).encode())
        sender.close()
        got = [""] * 3
        for number, listener in enumerate(listeners):
            listener.settimeout(20)
            connection, _address = listener.accept()
            connection.settimeout(3)
            data = b""
            try:
                while part := connection.recv(1 << 16):
                    data += part
            except TimeoutError:
                pass
            got[number] = {line.split()[0] for line in data.decode().splitlines()}
    finally:
        process.kill()
        process.wait()
    assert [{"abc"[number] for number in range(3) if name in got[number]} for name in names] == [set(item) for item in expected]


def test_the_reason_is_told_if_the_relay_cannot_be_asked(tmp_path):
    with pytest.raises(RingError, match="carbon-c-relay has it"):
        homes("/nowhere/relay", ["a"], ring())
    broken = tmp_path / "relay"
    broken.write_text("#!/bin/sh\necho nonsense >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(RingError, match="does not take the ring a, b, c with 2 replicas: nonsense"):
        homes(str(broken), ["a"], ring())


def test_a_ring_file_of_another_form_is_refused(tmp_path):
    path = tmp_path / "ring.json"
    assert recorded_ring(str(path)) is None
    path.write_text(json.dumps(ring().as_data()))
    assert recorded_ring(str(path)) == ring()
    for text in ("", "[]", '{"replicas": 2}', '{"replicas": 2, "stores": [1]}'):
        path.write_text(text)
        with pytest.raises(RingError, match="does not hold a ring"):
            recorded_ring(str(path))


@pytest.fixture
def compare(run_module, relay, tmp_path):
    tree = tmp_path / "whisper"
    tree.mkdir()

    def run(names="abc", recorded=None, store="a", **options):
        path = tmp_path / "ring.json"
        if recorded:
            path.write_text(json.dumps(recorded.as_data()))
        cluster = {"replicas": 2, "stores": [{**item, "leaving": item["name"] not in names} for item in STORES]}
        options = {"relay": relay, "cluster": cluster, **options}
        return run_module("carbon_ring_info", directory=str(tree), store=store, ring_file=str(path), **options)

    run.tree = tree
    return run


def make(tree, names):
    for name in names:
        path = tree / (name.replace(".", "/") + ".wsp")
        path.parent.mkdir(parents=True, exist_ok=True)
        whisper.create(str(path), [(60, 10)], sparse=True)


def test_the_guard_counts_the_series_of_which_a_home_would_be_another_one(compare, relay):
    names = NAMES[:400]
    make(compare.tree, [*names, "carbon.agents.a-a.cpuUsage"])
    expected = [set(one) != set(other) for one, other in zip(homes(relay, names, ring("abc")), homes(relay, names, ring("abcd")))]
    result = compare("abcd", ring("abc"))
    assert (result["series"], result["moving"]) == (400, sum(expected))
    assert 50 < sum(expected) < 350
    assert f"carbon on a, now in the ring a, b, c with 2 replicas, has 400 series; {sum(expected)} of them" in result["message"]
    assert "-e carbon_ring_may_move=true" in result["message"]
    same = compare("abc", ring("abc"))
    assert (same["moving"], same["message"], same["recorded"] == same["wanted"]) == (0, "", True)


def test_a_host_without_a_record_had_its_series_alone(compare):
    make(compare.tree, NAMES[:50])
    result = compare()
    assert (result["series"], result["moving"], result["recorded"]) == (50, 50, None)
    assert "alone until now" in result["message"]


def test_a_store_without_series_needs_no_permission(compare):
    assert compare()["message"] == ""
    os.rmdir(compare.tree)
    assert compare()["message"] == ""


def test_series_count_whose_homes_cannot_be_known(compare):
    make(compare.tree, NAMES[:5])
    (compare.tree / "_tagged" / "abc" / "def").mkdir(parents=True)
    whisper.create(str(compare.tree / "_tagged" / "abc" / "def" / ("0" * 64 + ".wsp")), [(60, 10)])
    assert compare("abcd", ring("abc"))["moving"] >= 1
    assert compare("abcd", ring("abc"), relay="/nowhere/relay")["moving"] == 6
