# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""TLS between StatsD, relays, stores and fronts: switched on and off under load, and with a host that is not trusted."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from urllib.parse import urlencode

import pages
import pytest
import testinfra
from conftest import ROOT

NAME = os.environ.get("MOLECULE_HOST", "metricstack-instance")
FRONT, FIRST, SECOND = ADDRESSES = [f"10.213.176.1{number}" for number in (1, 2, 3)]
TRUSTED = "/etc/graphite-tls/trusted.pem"
SERIES = 200
# Of each store one, which no other store has.
OF_STORES = "carbon.agents.*.cpuUsage"
# For which a front waits for a store, in seconds: FETCH_TIMEOUT of graphite-web.
PATIENCE = 6

testinfra_hosts = [f"ansible://{NAME}-1"]

# Each second, a point of each series in a connection of its own, until the relay has read it.
SEND = """
import socket, sys, time
name, series, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for second in range(int(time.time()) + 1, int(time.time()) + 1 + seconds):
    time.sleep(max(0, second - time.time()))
    lines = "".join(f"load_test.{name}.s{number} {second % 1000} {second}\\n" for number in range(series)).encode()
    is_read = False
    while not is_read:
        for address in ("127.0.0.1", sys.argv[4]):
            try:
                with socket.create_connection((address, 2003), timeout=2) as stream:
                    stream.sendall(lines)
                    stream.shutdown(socket.SHUT_WR)
                    is_read = is_read or stream.recv(1) == b""
            except OSError:
                time.sleep(0.1)
            if is_read:
                break
    print(second, flush=True)
"""
COUNT = """
import socket, time
for _ in range(600):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"switched:1|c", ("127.0.0.1", 8125))
    time.sleep(0.1)
"""

# What a host and the front say to each other in some seconds: the ports of the host, and whether anybody on the way can read a word.
LISTEN = """
import json, socket, sys, time
front, word, seconds = socket.inet_aton(sys.argv[1]), sys.argv[2].encode(), float(sys.argv[3])
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x0800))
packets.bind(("eth0", 0x0800))
packets.settimeout(0.2)
ports, is_readable, end = set(), False, time.time() + seconds
while time.time() < end:
    try:
        packet = packets.recv(65535)[14:]
    except socket.timeout:
        continue
    if packet[9] == 6 and front in (packet[12:16], packet[16:20]):
        start = 4 * (packet[0] & 15) + (2 if packet[12:16] == front else 0)
        ports.add(int.from_bytes(packet[start : start + 2], "big"))
        is_readable = is_readable or word in packet
print(json.dumps([sorted(ports), is_readable]))
"""


def on(number):
    """Return one of the hosts."""
    return testinfra.get_host(f"docker://{NAME}-{number}")


def ask(address, path):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    place = f"http://{address}" if address == FRONT else f"https://{address}:8444" if is_open(address, 8444) else f"http://{address}:8081"
    with opener.open(f"{place}{path}", timeout=60) as response:
        return response.read()


def is_open(address, port):
    with socket.socket() as connection:
        return connection.connect_ex((address, port)) == 0


def shown(address, target, **parameters):
    """Return the values by time of each series that a front or a store shows."""
    query = urlencode({"target": target, "format": "json", "noCache": 1, "from": "-5min", **parameters})
    return {
        series["target"]: {when: value for value, when in series["datapoints"] if value is not None}
        for series in json.loads(ask(address, f"/render?{query}"))
    }


def stores_shown():
    return shown(FRONT, OF_STORES, **{"from": "-10min"})


def shows_all_stores():
    return len(stores_shown()) == 2


class Sender:
    """Sends to the relay from its own host."""

    def __init__(self, name, seconds):
        self._name = name
        self._log = f"/root/{name}.log"
        command = f"/usr/bin/python3 -c '{SEND}' {name} {SERIES} {seconds} {FRONT} > {self._log}"
        assert on(1).run("systemd-run --quiet --unit=send-%s /bin/sh -c %s", name, command).rc == 0

    def stop(self):
        """Return the seconds whose points the relay has read."""
        on(1).run("systemctl stop send-%s", self._name)
        return [int(second) for second in on(1).file(self._log).content_string.split()]

    def missing(self, address, seconds):
        series = shown(address, f"load_test.{self._name}.s*", **{"from": seconds[0] - 1, "until": seconds[-1] + 1})
        wanted = {second: second % 1000 for second in seconds}
        return sum(len(wanted.items() - series.get(f"load_test.{self._name}.s{number}", {}).items()) for number in range(SERIES))


class Asker:
    """Asks the front for a series of each store, several times a second, as long as the block lasts.

    A front that has marked a store as failed answers at once, and without that store. One that has waited for a busy machine has not.
    """

    def __init__(self):
        self.answers = 0
        self.failures = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self):
        while not self._is_over.wait(0.1):
            began = time.monotonic()
            try:
                found = len(stores_shown())
            except (OSError, ValueError) as error:
                found = error
            self.answers += 1
            if found != 2 and (isinstance(found, Exception) or time.monotonic() - began < PATIENCE):
                self.failures.append((time.strftime("%T"), found))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exception):
        self._is_over.set()
        self._thread.join()


@pytest.fixture
def tried_site(run_ansible):
    """Run site.yml; return its exit status and its output."""

    def run(*options, **variables):
        status, output, errors = run_ansible(
            "ansible-playbook", f"{ROOT}/playbooks/site.yml", "-e", json.dumps(variables), *options, MOLECULE_HOST=NAME
        )
        return status, output + errors

    return run


@pytest.fixture
def site(tried_site):
    """Run site.yml; return its output, and the number of changes of each host."""

    def run(*options, **variables):
        status, output = tried_site(*options, **variables)
        assert status == 0, output
        return output, [int(number) for number in re.findall(r"changed=(\d+)", output)]

    return run


def counted():
    return sum(
        value for values in shown(FRONT, "stats.counters.switched.count.*", **{"from": "-20min"}).values() for value in values.values()
    )


def listening(number):
    return {line.split()[3] for line in on(number).run("ss -Hltn").stdout.splitlines()}


def test_tls_is_switched_on_without_a_loss(site, wait_until):
    wait_until(shows_all_stores, timeout=90)
    sender = Sender("on", 1800)
    for number in (1, 2):
        assert on(number).run("systemd-run --quiet /usr/bin/python3 -c %s", COUNT).rc == 0
    with Asker() as asker:
        site(stack_tls=True)
        time.sleep(10)
    seconds = sender.stop()
    assert asker.answers > 100
    assert asker.failures == []
    for address in ADDRESSES:
        wait_until(lambda address=address: sender.missing(address, seconds) == 0, timeout=60, message=f"{address} lacks points")
    wait_until(lambda: counted() == 1200, timeout=60, message="counts were lost")


def test_a_second_run_changes_nothing(site):
    _output, changes = site(stack_tls=True)
    assert changes == [0, 0, 0]


def test_a_run_on_one_host_leaves_the_others_trusted(documented):
    before = on(2).file(TRUSTED).content_string
    switch = pages.variables("docs/own_hosts.md", "tls")
    output = documented("docs/own_hosts.md", "limit", instead={"collector.example.org": f"{NAME}-2"}, variables=switch)
    assert re.findall(r"changed=(\d+)", output) == ["0"]
    assert re.findall("^# (.+)$", on(2).file(TRUSTED).content_string, re.MULTILINE) == [f"{NAME}-{number}" for number in (1, 2, 3)]
    assert on(2).file(TRUSTED).content_string == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what is refused
@pytest.mark.parametrize(("number", "port", "plain"), [(1, 2403, 2003), (2, 2413, 2013), (3, 2413, 2013)])
def test_nobody_is_heard_without_tls(number, port, plain):
    address = ADDRESSES[number - 1]
    assert {f"{address}:{port}", f"127.0.0.1:{plain}"} <= listening(number)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, plain), timeout=5)
    # Whoever connects from another host verifies the certificate by what that host trusts.
    command = f"openssl s_client -connect {address}:{port} -CAfile {TRUSTED} -verify_hostname {NAME}-{number} -verify_return_error"
    verified = on(number % 3 + 1).run(f"{command} < /dev/null")
    assert verified.rc == 0, verified.stderr
    assert "Verify return code: 0 (ok)" in verified.stdout
    with socket.create_connection((address, port), timeout=5) as stream:
        stream.sendall(b"plain.text 1 %d\n" % time.time())
        with suppress(ConnectionResetError):
            assert stream.recv(100) == b""
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with socket.create_connection((address, port), timeout=5) as stream, pytest.raises(OSError):  # noqa: PT011  # an alert or a reset
            context.wrap_socket(stream)


def test_a_packet_comes_back_as_a_value_and_as_a_picture(wait_until):
    assert "10.213.176.11:2403" not in listening(2)
    program = "import socket; socket.socket(2, 2).sendto(b'wired:5|c', ('127.0.0.1', 8125))"
    assert on(2).run(f'/usr/bin/python3 -c "{program}"').rc == 0
    wait_until(lambda: 5 in shown(FRONT, "stats.counters.wired.count.2").get("stats.counters.wired.count.2", {}).values(), timeout=40)
    assert ask(FRONT, "/render?target=stats.counters.wired.count.2").startswith(b"\x89PNG")
    assert not shown(FRONT, "plain.text")


@pytest.mark.parametrize("number", [2, 3])
def test_stores_answer_fronts_over_tls_only(number):
    address = ADDRESSES[number - 1]
    assert f"{address}:8444" in listening(number)
    assert not is_open(address, 8081)
    command = f"openssl s_client -connect {address}:8444 -CAfile {TRUSTED} -verify_hostname {NAME}-{number} -verify_return_error"
    verified = on(1).run(f"{command} < /dev/null")
    assert verified.rc == 0, verified.stderr
    assert "Verify return code: 0 (ok)" in verified.stdout
    with socket.create_connection((address, 8444), timeout=5) as stream:
        stream.sendall(b"GET /render/?target=stats.*&format=json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert stream.recv(100).startswith(b"HTTP/1.1 400 ")


def spoken(number, seconds=5):
    """Return on which ports a store and the front speak while the front is asked, and whether the question can be read on the way."""
    with Asker():
        return json.loads(on(number).check_output("/usr/bin/python3 -c %s %s cpuUsage %s", LISTEN, FRONT, str(seconds)))


@pytest.mark.parametrize("number", [2, 3])
def test_nobody_on_the_way_reads_what_a_front_asks(number):
    ports, is_readable = spoken(number)
    assert 8444 in ports
    assert not {2013, 8081} & set(ports)
    assert not is_readable


# Of the authority, and of the host, in /root: ended, and of an authority that the others do not have.
CERTIFICATES = """
set -e; cd /root
for name in authority stranger; do
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 9 -subj /CN=$name -keyout $name.key -out $name.pem
done
printf 'subjectAltName=DNS:%s\n' "$(hostname)" > names
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=host -keyout own.key -out own.csr
openssl x509 -req -in own.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 9 -extfile names -out own.pem
openssl x509 -req -in own.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 0 -extfile names -out ended.pem
chmod 0600 own.key
"""


@pytest.mark.parametrize(
    ("certificate", "authority", "words"),
    [
        ("ended", "authority", "stack_tls: certificate is /root/ended.pem, which has ended at"),
        ("own", "stranger", "stack_tls: authority is /root/stranger.pem, which does not verify the certificate /root/own.pem"),
    ],
)
def test_a_certificate_that_a_front_would_not_trust_is_refused_before_the_first_change(tried_site, certificate, authority, words):
    for number in (1, 2, 3):
        on(number).check_output(CERTIFICATES.replace("$(hostname)", f"{NAME}-{number}"))
    files = {"certificate": f"/root/{certificate}.pem", "key": "/root/own.key", "authority": f"/root/{authority}.pem"}
    status, output = tried_site(stack_tls=True, **{f"stack_tls_{name}": path for name, path in files.items()})
    assert status == 2, output
    assert f"Nothing was changed on {NAME}-2" in output
    assert words in output
    assert set(re.findall(r"changed=(\d+)", output)) == {"0"}


def test_the_front_shows_nothing_of_stores_that_it_does_not_trust(wait_until):
    front, series = on(1), "stats.counters.wired.count.2"
    assert series in shown(FRONT, series)
    front.check_output(f"cp --archive {TRUSTED} /root/trusted.pem")
    # Only its own certificate stays. What is established lasts until Apache of the store ends it.
    front.check_output(f"cp /etc/graphite-tls/host.pem {TRUSTED}")
    try:
        time.sleep(6)
        wait_until(lambda: not shown(FRONT, series), timeout=30, message="the front asks stores that it does not trust")
    finally:
        front.check_output(f"cp --archive /root/trusted.pem {TRUSTED}")
    log = front.check_output("cd /var/log/apache2 && tail --lines=2000 error.log graphite_error.log")
    assert re.search(r"Error requesting https://10\.213\.176\.12:8444/", log)
    assert "CERTIFICATE_VERIFY_FAILED" in log
    # Each process of the front leaves a server that has failed out for a minute.
    wait_until(lambda: all(shows_all_stores() for _time in range(10)), timeout=120, message="the front does not come back")


def test_points_for_a_store_that_is_not_trusted_wait(wait_until):
    with_key = "/etc/graphite-tls/relay.pem"
    store = on(3)
    store.check_output(f"cp --archive {with_key} /root/relay.pem")
    store.check_output(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=stranger -keyout /root/s.key -out"
        f" /root/s.pem && cat /root/s.pem /root/s.key > {with_key}"
    )
    store.check_output("systemctl reload carbon-store-relay")
    # What is established stays; the relay connects anew when it has sent nothing for seconds.
    wait_until(lambda: "SIGHUP handler complete" in store.run("journalctl --unit carbon-store-relay --lines 5").stdout)
    on(1).check_output("sleep 8")
    sender = Sender("waiting", 5)
    time.sleep(8)
    seconds = sender.stop()
    assert len(seconds) == 5
    wait_until(lambda: sender.missing(FIRST, seconds) == 0)
    assert sender.missing(FRONT, seconds) == 0
    assert shown(SECOND, "load_test.waiting.s*") == {}
    assert "certificate verify failed" in on(1).run("journalctl --unit carbon-relay --lines 20").stdout
    store.check_output(f"cp --archive /root/relay.pem {with_key}; touch {with_key}; systemctl reload carbon-store-relay")
    wait_until(lambda: sender.missing(SECOND, seconds) == 0, timeout=30, message="the points do not arrive")


def test_the_front_misses_nothing_while_a_host_gets_a_new_certificate(site, wait_until):
    sender = Sender("renewed", 1800)
    before = on(3).file("/etc/graphite-tls/host.pem").content_string
    on(3).check_output("rm /etc/graphite-tls/host.pem /etc/graphite-tls/host.key")
    site(stack_tls=True, carbon_store_allowed_networks=ADDRESSES)
    time.sleep(10)
    seconds = sender.stop()
    for number in (1, 2, 3):
        assert before not in on(number).file(TRUSTED).content_string
    # A store whose relay had to be restarted may lack what was on its way; the other one has it. A front that has asked a store before it
    # knew the new certificate leaves the store out for a minute.
    wait_until(lambda: sender.missing(FRONT, seconds) == 0, timeout=90, message="points were lost")
    wait_until(shows_all_stores, timeout=90)
    # This machine is none of those that may ask.
    with pytest.raises(urllib.error.HTTPError, match="403"):
        ask(SECOND, "/render?target=load_test.renewed.s1")


def test_tls_is_switched_off_and_graphs_stay_whole(site, wait_until):
    sender = Sender("off", 1800)
    # A run that leaves hosts out ends nothing.
    with Asker() as asker:
        output, _changes = site("--limit", f"{NAME}-2,{NAME}-3")
        assert "take points with and without TLS" in output
        assert {f"{FIRST}:{port}" for port in (2013, 2413, 8081, 8444)} <= listening(2)
        site()
        time.sleep(10)
    seconds = sender.stop()
    assert asker.failures == []
    wait_until(lambda: sender.missing(FRONT, seconds) == 0, timeout=60, message="points are missing")
    # A relay that is restarted in the instant of a write may lose that of its store.
    assert all(sender.missing(address, seconds) <= SERIES for address in (FIRST, SECOND))
    assert {f"{FIRST}:2013", f"{FIRST}:8081"} <= listening(2)
    assert not {f"{FIRST}:2413", f"{FIRST}:8444"} & listening(2)
    ports, is_readable = spoken(2)
    assert 8081 in ports
    assert is_readable
    for number in (1, 2, 3):
        assert not on(number).file("/etc/graphite-tls").exists


def test_a_port_that_a_store_needs_for_a_time_is_refused_before_the_first_change(tried_site):
    third = on(3)
    third.check_output("systemctl stop apache2")
    third.check_output(f"systemd-run --unit squatter python3 -m http.server --bind {SECOND} 8081")
    try:
        status, output = tried_site("--limit", f"{NAME}-3", stack_tls=True)
    finally:
        third.check_output("systemctl stop squatter; systemctl start apache2")
    assert status != 0
    assert re.search(r"carbon_store_web_port.* 8081.* squatter\.service", " ".join(output.split())), output
    assert "changed=0 " in output.partition("PLAY RECAP")[2], output


def test_a_bare_host_gets_tls_by_a_run_for_one_component(site):
    bare = on(3)
    bare.check_output("systemctl disable --now carbon-store-relay")
    bare.check_output("DEBIAN_FRONTEND=noninteractive apt-get purge --yes carbon-c-relay")
    bare.run("userdel carbon-c-relay; groupdel carbon-c-relay")
    site("--limit", f"{NAME}-3", "--tags", "carbon", stack_tls=True)
    assert {f"{SECOND}:2013", f"{SECOND}:2413"} <= listening(3)
