# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""statsd_info and statsd_metrics, run as Ansible runs them, against StatsD as it is published, and against what is none."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._statsd.management import names_of, parse_dump

STRANGE_NAMES = ["it's", 'a "quoted" one', "`all' of\"them", "back\\slash", "tab\tand space", "计数器", "7", "tag;a=b"]


@pytest.fixture
def info(run_module):
    return lambda port, **arguments: run_module("statsd_info", port=port, **arguments)


@pytest.fixture
def forget(run_module):
    return lambda port, *flags, **arguments: run_module("statsd_metrics", *flags, port=port, state="absent", **arguments)


@pytest.fixture
def listener():
    """Start a server that treats each connection with a function; return its port."""
    servers = []

    def start(treat):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve():
            with suppress(OSError):
                while True:
                    connection, _address = server.accept()
                    with connection, suppress(OSError):
                        treat(connection)

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    yield start
    for server in servers:
        server.close()


def answering(**answers):
    """Answer each command as given, in pieces; hang up on others."""

    def treat(connection):
        while True:
            answer = answers.get(connection.recv(1000).decode().strip())
            if answer is None:
                return
            for piece in (answer[:7], answer[7:]):
                connection.sendall(piece.encode())
                time.sleep(0.05)

    return treat


def test_everything_that_statsd_holds_is_data(statsd, info, monkeypatch):
    monkeypatch.setenv("STATSD_TAGS", "1")
    one = statsd(keyNameSanitize=False)
    one.send(*(f"{name}:1.5|c" for name in STRANGE_NAMES))
    one.send(*("\n".join(f"many.c{number}:{number}|c" for number in range(start, start + 50)) for start in range(0, 500, 50)))
    one.send("down:-3|g", "tiny:1e-9|g", "endless:1e308|g\nendless:+1e308|g", "one:320|ms\none:0.5|ms")
    one.send(*["\n".join(["busy:7|ms"] * 50)] * 3)
    one.send("last:1|c")
    assert one.counts("last", 1)
    result = info(one.management_port)
    assert not result["changed"]
    assert result["health"] == "up"
    assert {name: result["counters"][name] for name in STRANGE_NAMES} == dict.fromkeys(STRANGE_NAMES, 1.5)
    assert [result["counters"][f"many.c{number}"] for number in range(500)] == list(range(500))
    assert (result["gauges"]["down"], result["gauges"]["tiny"], result["gauges"]["endless"]) == (-3, 1e-9, None)
    assert result["timers"]["one"] == {"count": 2, "values": [320, 0.5]}
    assert result["timers"]["busy"] == {"count": 150, "values": [7] * 100}


def test_health_and_statistics(statsd, info):
    one = statsd(backends=["./backends/graphite"])
    one.send("nonsense")
    assert one.counts("statsd.bad_lines_seen", 1)
    one.ask("health down")
    result = info(one.management_port, gather_subset=["stats"])
    assert result["health"] == "down"
    assert result["stats"]["messages"]["bad_lines_seen"] == 1
    assert result["stats"]["uptime"] >= 0
    assert result["stats"]["graphite"]["last_flush"] < 60
    assert "counters" not in result


def test_metrics_are_deleted_once(statsd, info, forget):
    one = statsd()
    one.send("shop.a:1|c\nshop.b.c:1|c\nshopping:1|c\nqueue:3|g\nshop.q:3|g\nshop.t:1|ms\nend:1|c")
    assert one.counts("end", 1)
    wanted = {"counters": ["shop.*", "nowhere", "toString", "o*"], "gauges": ["queue"], "timers": ["shop.t"]}
    deleted = {"counters": ["shop.a", "shop.b.c"], "gauges": ["queue"], "timers": ["shop.t"]}
    checked = forget(one.management_port, "--check", **wanted)
    assert checked["changed"]
    assert checked["deleted"] == deleted
    assert "shop.a" in info(one.management_port)["counters"]
    first = forget(one.management_port, **wanted)
    assert first["changed"]
    assert first["deleted"] == deleted
    assert "shop.b.c" in first["shown_diff"]
    left = info(one.management_port)
    assert {"shopping", "end"} <= left["counters"].keys()
    assert not {"shop.a", "shop.b.c"} & left["counters"].keys()
    assert "shop.q" in left["gauges"]
    assert "queue" not in left["gauges"]
    assert left["timers"] == {}
    second = forget(one.management_port, **wanted)
    assert not second["changed"]
    assert second["deleted"] == {"counters": [], "gauges": [], "timers": []}


def test_a_folder_goes_with_names_that_no_command_could_name(statsd, info, forget):
    one = statsd(keyNameSanitize=False)
    one.send("folder.with space:1|c", "folder.计数器:1|c", "end:1|c")
    assert one.counts("end", 1)
    assert forget(one.management_port, counters=["folder.*"])["deleted"]["counters"] == ["folder.with space", "folder.计数器"]
    assert not [name for name in info(one.management_port)["counters"] if name.startswith("folder")]


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_names_and_ipv6(statsd, info, host):
    one = statsd(mgmt_address=host)
    assert info(one.management_port, host=host, gather_subset=[])["health"] == "up"


@pytest.mark.parametrize("name", ["", "two words", "line\nfeed", "计数器", "n" * 1001])
def test_a_name_that_no_command_could_delete_is_refused(forget, name):
    message = forget(1, gauges=["good", name])["msg"]
    assert "gauges" in message
    assert "folder" in message


def test_nobody_listens(info, forget):
    for ask in (info, forget):
        assert "127.0.0.1:1 cannot be reached: Connection refused" in ask(1)["msg"]


def test_a_name_without_an_address(info):
    assert "nowhere.invalid" in info(8126, host="nowhere.invalid")["msg"]


def test_what_is_not_statsd(info, forget, listener):
    port = listener(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"))
    for ask in (info, forget):
        message = ask(port)["msg"]
        assert "is not StatsD's management interface" in message
        assert "SSH-2.0" in message


def test_who_does_not_answer(info, listener):
    port = listener(lambda connection: connection.recv(1000) and time.sleep(5))
    assert "did not answer 'health' within 1 s" in info(port, timeout=1)["msg"]


def test_who_never_ends(info, listener):
    def drip(connection):
        connection.recv(1000)
        connection.sendall(b"health: up\n")
        connection.recv(1000)
        for _number in range(30):
            connection.sendall(b"uptime: 1\n")
            time.sleep(0.1)

    message = info(listener(drip), timeout=1)["msg"]
    assert "did not answer 'stats' within 1 s, after" in message
    assert "uptime: 1" in message


def test_who_hangs_up(info, listener):
    port = listener(answering(health="health: up\n", stats="uptime: 1\nEND\n\n"))
    assert info(port, gather_subset=["stats"])["stats"] == {"uptime": 1}
    assert "hung up on 'counters'" in info(port)["msg"]


def test_the_proxy_has_no_metrics(info, listener):
    assert "its proxy" in info(listener(answering(health="health: up\n", stats="ERROR\n")))["msg"]


def test_a_dump_in_json_will_do(info, listener):
    dump = {"counters": {"a.b": 3, 'q"\\\n€': -1.5, "none": None}, "gauges": {}, "timers": {"t": [1, 2.5], "u": []}}
    answers = {kind: json.dumps(content) + "\nEND\n\n" for kind, content in dump.items()}
    result = info(listener(answering(health="health: up\n", **answers)), gather_subset=list(dump))
    assert result["counters"] == dump["counters"]
    assert result["timers"] == {"t": {"count": 2, "values": [1, 2.5]}, "u": {"count": 0, "values": []}}


def test_a_dump_of_another_kind_is_refused(info, listener):
    port = listener(answering(health="health: up\n", counters="{ a: [Object] }\nEND\n\n"))
    message = info(port, gather_subset=["counters"])["msg"]
    assert "answers 'counters' as StatsD 0.9.0 does not" in message
    assert "Object" in message


@pytest.mark.parametrize(
    "dump", ["", "{", "{ a", "{ a: }", "{ a: 1", "{ a: [ 1 }", "{ a: { b: 1 } }", "{} {}", "{ a: 'x' }", "{ [: 1 }", "[]"]
)
def test_what_is_no_dump_is_refused(dump):
    with pytest.raises(ValueError, match=r"is expected|goes on|could not convert"):
        parse_dump(dump)


def test_names_are_matched_as_statsd_does_it():
    held = dict.fromkeys(["a", "a.b", "a.b.c", "ab", "a*"])
    assert names_of(held, ["a.*"]) == ["a.b", "a.b.c"]
    assert names_of(held, ["a"]) == ["a"]
    assert names_of(held, ["a*"]) == ["a*"]
    assert names_of(held, [".*", "a.b.*"]) == ["a.b.c"]
    assert names_of(held, []) == []
