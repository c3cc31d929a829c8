# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Carbon stores what arrives at its ports: what it cannot take is lost by itself, logged and counted, and nothing is lost at a stop."""

from __future__ import annotations

import pickle
import re
import struct

import pytest
from conftest import PYTHON, values

SEND = """
import ast, socket, sys
for packet in ast.literal_eval(sys.argv[2]):
    with socket.socket(socket.AF_INET, {"tcp": 1, "udp": 2}[sys.argv[1]]) as sender:
        sender.connect(("127.0.0.1", int(sys.argv[3])))
        sender.sendall(packet)
"""
# Ends its connection when carbon does, and connects again. A sender that does not look sends line by line, and each anew that fails.
SEND_DURING_A_RESTART = """
import select, socket, subprocess, sys, threading, time

name, looks, (begin, seconds, points, series) = sys.argv[1], sys.argv[2] == "looks", map(float, sys.argv[3:])

def connect():
    while True:
        try:
            return socket.create_connection(("127.0.0.1", 12003))
        except ConnectionRefusedError:
            time.sleep(0.01)

connection = connect()
restart = threading.Timer(max(0.15, seconds / 2), subprocess.run, [["systemctl", "restart", "carbon-cache@under-test"]])
restart.start()
sent, start = 0, time.monotonic()
while sent < points:
    if looks and select.select([connection], [], [], 0)[0]:
        connection.close()
        connection = connect()
    last = int(min(points, sent + (100 if looks else 1)))
    lines = [f"{name}.{number % int(series)} 1 {int(begin) + number // int(series) * 10}" for number in range(sent, last)]
    try:
        connection.sendall("".join(line + chr(10) for line in lines).encode())
    except ConnectionError:
        connection = connect()
        continue
    sent = last
    time.sleep(max(0, start + seconds * sent / points - time.monotonic()))
connection.shutdown(socket.SHUT_WR)
connection.recv(1)
restart.join()
"""
# A line for each reason, and what is logged. NAME is that of a series that has good points as well.
REFUSED = [
    (b"receiver.\xff\xfe 5 NOW", r"b'receiver\.\\xff\\xfe 5 \d+' from \S+: the line is not UTF-8"),
    (b"receiver.infinity.bad infinity NOW", r"'receiver\.infinity\.bad inf \S+' from \S+: the value is infinite"),
    (b"NAME 5 inf", r"'NAME 5\.0 inf' from \S+: the time is no Unix time in seconds"),
    (b"NAME 5 NOW000", r"'NAME 5\.0 \d+000\.0' from \S+: the time is no Unix time in seconds"),
    (b"NAME: 5 at NOW", r"b'NAME: 5 at \d+' from \S+: the line is not a name, a number and a Unix time in seconds"),
    (b"receiver." + b"x" * 17000 + b" 5 NOW", r"b'receiver\.x{191}'\.\.\. from \S+: the line is longer than 16384 bytes"),
]
# Reports about itself in series that have a point for each ten seconds.
OTHER_INSTANCE = """
[cache:under-test]
LINE_RECEIVER_PORT = 12003
PICKLE_RECEIVER_PORT = 12004
CACHE_QUERY_PORT = 17002
ENABLE_UDP_LISTENER = True
UDP_RECEIVER_PORT = 12003
CARBON_METRIC_INTERVAL = 10
CARBON_METRIC_PREFIX = load_test
"""
OTHER_CARBON = "/srv/other-carbon"
DROP_IN = "/etc/systemd/system/carbon-cache@under-test.service.d"


@pytest.fixture
def now(host):
    return int(host.run("date +%s").stdout)


@pytest.fixture
def send_to_carbon(run_python):
    """Send each packet in a connection or a datagram of its own."""
    return lambda *packets, protocol="tcp", port=12003: run_python(SEND, protocol, repr(packets), str(port))


@pytest.fixture
def logged(host):
    """Return what the second instance has logged since its start. That of an earlier test may have ended within the same second."""
    invocation = "_SYSTEMD_INVOCATION_ID=$(systemctl show --property InvocationID --value carbon-cache@under-test)"
    return lambda: host.run(f"journalctl --output cat {invocation}").stdout


@pytest.fixture
def other_instance(host, wait_until):
    """Return a function that starts a second instance, whose log begins anew and which takes datagrams as well."""
    conf = "/etc/carbon/carbon.conf"
    assert host.run(f"cp -a {conf} {conf}.kept && cat >> {conf} <<'END'\n{OTHER_INSTANCE}\nEND").rc == 0

    def start():
        assert host.run("systemctl daemon-reload; systemctl restart carbon-cache@under-test").rc == 0
        wait_until(lambda: ":12003 " in host.run("ss -Hltn").stdout)

    yield start
    host.run(f"systemctl stop carbon-cache@under-test; mv {conf}.kept {conf}")
    host.run(f"rm -rf {OTHER_CARBON} {DROP_IN}; systemctl daemon-reload")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_line_that_carbon_cannot_take_is_lost_by_itself(protocol, now, send_to_carbon, logged, render, wait_until, other_instance):
    other_instance()
    names = [f"receiver.{protocol}_{now}_{number}" for number in range(len(REFUSED))]
    packets = []
    for name, (line, _said) in zip(names, REFUSED):
        lines = b"\n".join([b"NAME 1 BEFORE", line, b"NAME nan NOW", b"NAME 2 NOW", b""])
        for word, text in (("NAME", name), ("BEFORE", now - 60), ("NOW", now)):
            lines = lines.replace(word.encode(), str(text).encode())
        packets.append(lines)
    send_to_carbon(*packets, protocol=protocol)

    def stored():
        return {series["target"]: values(series) for series in render(f"receiver.{protocol}_{now}_*")}

    wait_until(lambda: stored() == {name: [1, 2] for name in names}, message="not both of the good points are stored")
    for name, (_line, said) in zip(names, REFUSED):
        assert len(re.findall("Not stored: " + said.replace("NAME", name), logged())) == 1, logged()
    assert logged().count("ot stored") == len(REFUSED), "what is not a number is no value, and no mistake"
    assert render("receiver.*.bad") == []


# Items of a pickle, and what is logged of each.
UNEXPECTED = [
    ((5, (0, 1)), r"'\(5, \(0, 1\)\)' from \S+: the item is not a name with a Unix time in seconds and a number"),
    (("receiver.none", (0, None)), r"\('receiver\.none', \(0, None\)\)"),
    (("receiver.short",), r"\('receiver\.short',\)"),
    (("receiver.huge", (0, 10**5000)), "an item with a number that is too long"),
    (("receiver.infinite", (0, float("inf"))), r"receiver\.infinite inf 0\.0' from \S+: the value is infinite"),
]


def pickled(content):
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=4)
    return struct.pack("!L", len(data)) + data


def test_what_carbon_cannot_take_of_a_pickle_is_lost_by_itself(now, send_to_carbon, logged, render, wait_until, other_instance):
    other_instance()
    name = f"receiver.pickle_{now}"
    items = [(name, (now - 60, 1)), *(item for item, _said in UNEXPECTED), (name.encode(), (now, 2))]
    packets = pickled(items), pickled(5), pickled(b"no pickle"), pickled([(name, (now - 120, 3))])
    send_to_carbon(b"".join(packets), b"receiver.wrong_port 1 1\n", port=12004)
    wait_until(lambda: [values(series) for series in render(name)] == [[3, 1, 2]], message="not all of the good points are stored")
    for _item, said in UNEXPECTED:
        assert len(re.findall("Not stored: .*" + said, logged())) == 1, logged()
    assert logged().count("no list can be read from the pickle") == 2
    assert "a pickle of 1919247205 bytes; PICKLE_RECEIVER_MAX_LENGTH is 1048576, and lines have a port of their own" in logged()


def test_a_line_that_a_connection_leaves_unfinished_is_logged(now, send_to_carbon, logged, wait_until, other_instance):
    other_instance()
    send_to_carbon(f"receiver.end.bad 5 {now}".encode())
    wait_until(lambda: f"Not stored: b'receiver.end.bad 5 {now}' from " in logged())
    assert "the connection ended within the line" in logged()


def test_a_sender_of_bad_lines_does_not_fill_the_log_and_all_are_counted(now, send_to_carbon, logged, render, wait_until, other_instance):
    other_instance()
    send_to_carbon(b"bad \xff\n" * 1000)
    wait_until(lambda: "More is not stored and not logged for a minute" in logged())
    assert logged().count("ot stored") == 11
    counter = "removeEmptySeries(load_test.agents.*.invalidPoints)"
    wait_until(lambda: [max(values(series)) for series in render(counter)] == [1000], message="the lines are not counted")


@pytest.mark.parametrize(
    ("state", "seconds", "points", "series"),
    [
        ("asleep", 0, 100, 10),
        ("asleep_again", 0, 100, 10),
        ("busy", 3, 6000, 30),
        ("behind", 0, 30000, 150),
        ("sent_blindly", 3, 3000, 30),
        ("sent_blindly_at_its_most", 1, 20000, 100),
    ],
)
def test_nothing_that_has_arrived_is_lost_at_a_stop(state, seconds, points, series, now, run_python, render, wait_until, other_instance):
    other_instance()
    begin = now // 10 * 10 - 2400
    name = f"stats.stop_{state}_{now}"
    sender = "looks" if "blindly" not in state else "does not look"
    run_python(SEND_DURING_A_RESTART, name, sender, *map(str, (begin, seconds, points, series)))

    def stored():
        return sum(len(values(found)) for found in render(f"{name}.*", **{"from": begin - 10, "until": now + 10}))

    wait_until(lambda: stored() == points, timeout=60, message=f"not all of {points} points are stored")


def test_a_carbon_of_other_parts_starts_unguarded_and_says_so(host, send_to_carbon, now, logged, render, wait_until, other_instance):
    """A function has another name in this copy of carbon."""
    environment = host.run("systemctl show --property Environment --value carbon-cache@a").stdout.strip()
    assert environment.startswith("PYTHONPATH=/")
    changed = environment.replace("PYTHONPATH=", f"PYTHONPATH={OTHER_CARBON}:")
    copied = host.run(
        f"mkdir -p {OTHER_CARBON} {DROP_IN} && cp -r $({PYTHON} -c 'import carbon; print(*carbon.__path__)') {OTHER_CARBON}"
        f" && sed -i s/recordMetrics/recordAll/ {OTHER_CARBON}/carbon/instrumentation.py"
        f" && printf '[Service]\nEnvironment={changed}\n' > {DROP_IN}/other.conf"
    )
    assert copied.rc == 0, copied.stderr
    other_instance()
    send_to_carbon(f"receiver.unguarded 3 {now}\n".encode())
    wait_until(lambda: [values(series) for series in render("receiver.unguarded")] == [[3]])
    assert "runs without it: module 'carbon.instrumentation' has no attribute 'recordMetrics'" in logged()
