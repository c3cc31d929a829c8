# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""TLS between StatsD, relays and stores: who sends where, what is refused, and whom a host trusts; with real certificates."""

from __future__ import annotations

import os
import re
import socket
import ssl
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.carbon_relay import relay_command, relay_listeners
from ansible_collections.metricstack.graphite.plugins.plugin_utils._topology import HostView
from conftest import Receiver
from test_topology import inventory, problems, topology

# A relay with StatsD, two stores, and a StatsD without a relay.
HOSTS = ["r1", "r2", "c1", "c2", "s1"]
GROUPS = {"carbon_relay": ["r1", "r2"], "carbon": ["c1", "c2"], "statsd": ["r1", "s1"]}
ALL = {"carbon_replicas": 2, "stack_tls": True}
TLS = {"port": 2403, "certificate": "/etc/graphite-tls/relay.pem"}
MEMBER = {"address": "192.0.2.1", "tls": True}
NO_RELAY = {"carbon_relay_state": "absent", "carbon_replicas": 0, "carbon_cache_bind_address": "10.0.0.3"}
OWN = {"stack_tls_certificate": "/c.pem", "stack_tls_key": "/c.key", "stack_tls_authority": "/ca.pem"}


def variables(common=None, **hosts):
    """Return the variables of each host: of all, an address, and its own."""
    found = {}
    for number, host in enumerate(HOSTS):
        address = f"10.0.0.{number + 1}"
        suffix = {"statsd_config": {"graphite": {"globalSuffix": host}}}
        found[host] = {**ALL, "ansible_host": address, "carbon_relay_address": address, **suffix, **(common or {}), **hosts.get(host, {})}
    return found


def test_points_go_to_ports_of_tls_on_other_hosts_and_over_loopback_on_the_same():
    one = topology("r1", GROUPS, **variables())
    assert [(member["address"], member["port"], member["tls"]) for member in one["relay"]["clusters"][0]["members"]] == [
        ("10.0.0.3", 2413, True),
        ("10.0.0.4", 2413, True),
    ]
    target = {"component": "carbon_relay", "host": "r1"}
    assert one["sends_to"]["statsd"] == {**target, "address": "127.0.0.1", "port": 2003}
    assert one["statsd_alternatives"] == [{"host": "10.0.0.2", "port": 2403, "server_name": "r2"}]
    other = topology("s1", GROUPS, **variables({"stack_tls_port": 2500}))
    assert other["sends_to"]["statsd"] == {**target, "address": "10.0.0.1", "port": 2500, "server_name": "r1"}
    store = topology("c1", GROUPS, **variables())
    assert store["store_relay"]["local_address"] == "127.0.0.1"
    assert {(item["variable"], item["address"], item["port"]) for item in store["listens"] if item["component"] == "store_relay"} == {
        ("carbon_store_port", "127.0.0.1", 2013),
        ("stack_tls_store_port", "10.0.0.3", 2413),
    }
    for host in HOSTS:
        assert problems(host, GROUPS, **variables()) == []


def test_without_tls_nothing_differs():
    plain = {"stack_tls": False}
    one = topology("r1", GROUPS, **variables(plain))
    assert [member["port"] for member in one["relay"]["clusters"][0]["members"]] == [2013, 2013]
    assert one["sends_to"]["statsd"]["address"] == "10.0.0.1"
    assert one["statsd_alternatives"] == [{"host": "10.0.0.2", "port": 2003}]
    assert topology("c1", GROUPS, **variables(plain))["store_relay"]["local_address"] == "10.0.0.3"
    assert not one["tls"]["enabled"]


def test_clusters_of_the_inventory_have_the_certificates_of_the_stack():
    clusters = [{"name": "elsewhere", "type": "any_of", "members": [MEMBER]}]
    view = HostView(inventory(GROUPS, **variables(r1={"carbon_relay_clusters": clusters})), "r1")
    assert view.own_relay() == {"carbon_relay_tls": TLS}


@pytest.mark.parametrize(
    ("host", "groups", "given", "words"),
    [
        ("r1", GROUPS, variables(c2={"stack_tls": False}), "stack_tls is true on c1 and false on c2. Set stack_tls once"),
        ("r1", GROUPS, variables({"stack_tls": False}, r1=OWN), "stack_tls_key of r1 has no effect without stack_tls"),
        ("r1", GROUPS, variables(r1={"stack_tls_key": "/c.key"}), "needs stack_tls_certificate and stack_tls_authority as well"),
        ("r1", GROUPS, variables(r1={**OWN, "stack_tls_key": "c.key"}), "stack_tls_key of r1 is 'c.key'; give an absolute path"),
        ("r1", GROUPS, variables(r1={"stack_tls_port": "x"}), "stack_tls_port is x"),
        ("r1", GROUPS, variables(r1={"stack_tls_port": 2003}), "stack_tls_port of r1 is 2003, which is carbon_relay_port as well"),
        (
            "s1",
            GROUPS,
            variables(s1={"statsd_graphite_host": "192.0.2.9"}),
            "StatsD on s1 sends to 192.0.2.9, which is none of the inventory",
        ),
        ("s1", GROUPS, variables(s1={"statsd_config": {"graphiteProtocol": "pickle"}}), "StatsD on s1 sends pickles to another host"),
        ("s1", {**GROUPS, "carbon_relay": ["c1"]}, variables(c1=NO_RELAY), "of which the inventory does not say that it has TLS"),
        (
            "r1",
            {**GROUPS, "carbon": ["c1"]},
            variables({"carbon_replicas": None}),
            "the relay on r1 sends to the caches on c1, and carbon has",
        ),
        (
            "s1",
            {**GROUPS, "graphite_web": ["s1"]},
            variables(s1={"graphite_web_settings": {"CLUSTER_SERVERS": ["192.0.2.12:80", "https://192.0.2.13:443"]}}),
            "graphite-web on s1 asks 192.0.2.12:80 without TLS. In",
        ),
    ],
    ids=["not everywhere", "off", "incomplete", "relative", "no port", "taken", "unknown", "pickles", "no relay", "no store", "no cluster"],
)
def test_what_would_stay_without_tls_is_refused(host, groups, given, words):
    assert words in " ".join(problems(host, groups, **given))


@pytest.fixture
def listeners(role_validation):
    """Return what the configuration of a relay has for each listener, and the options of the members."""

    def write(**given):
        text = role_validation.rendered(
            "carbon_relay", "carbon-relay.conf.j2", {f"carbon_relay_{key}": value for key, value in given.items()}
        )
        return [" ".join(statement.split()) for statement in re.findall(r"^listen\n(.+?);$", text, re.DOTALL | re.MULTILINE)], text

    return write


SECURE = 'type linemode transport plain ssl "/etc/graphite-tls/relay.pem"'


def test_a_relay_takes_points_without_tls_from_its_own_host_only(listeners):
    clusters = [{"name": "stores", "type": "fnv1a_ch", "members": [{"address": "192.0.2.1", "port": 2413, "instance": "a", "tls": True}]}]
    written, text = listeners(address="192.0.2.7", tls=TLS, clusters=clusters)
    assert written == ['type linemode "127.0.0.1:2003" proto tcp', f'{SECURE} "192.0.2.7:2403" proto tcp']
    assert '"192.0.2.1:2413"="a" proto tcp transport plain ssl\n' in text
    both, _text = listeners(address="192.0.2.7", tls={**TLS, "only": False}, clusters=clusters)
    assert both == [written[0], 'type linemode "192.0.2.7:2003" proto tcp', written[1]]
    options = {"config": "/c", "queue_size": 1, "workers": 1, "backlog": 1, "stalls": 1}
    assert " -C /etc/graphite-tls/relay.pem " in relay_command({**options, "authority": TLS["certificate"]})
    assert " -C " not in relay_command({**options, "authority": ""})


@pytest.mark.parametrize(
    ("address", "only", "plain"),
    [("0.0.0.0", True, ["127.0.0.1"]), ("0.0.0.0", False, ["0.0.0.0"]), ("127.0.0.1", False, ["127.0.0.1"]), ("::1", True, ["::1"])],
)
def test_a_port_is_bound_once(address, only, plain):
    sockets = relay_listeners(address, 2003, {**TLS, "only": only})
    assert [item["address"] for item in sockets if not item["certificate"]] == plain


@pytest.mark.parametrize(
    ("tls", "member", "words"),
    [
        ({}, MEMBER, "'stores' has a member with tls, but carbon_relay_tls is empty"),
        (TLS, {**MEMBER, "protocol": "udp"}, "a member with tls and the protocol udp"),
        ({"port": 2403}, {"address": "192.0.2.1"}, "carbon_relay_tls lacks certificate"),
        ({**TLS, "port": 2003}, MEMBER, "port is 2003, which is carbon_relay_port as well"),
        ({**TLS, "authority": "ca.pem"}, MEMBER, "authority is 'ca.pem'; give an absolute path"),
    ],
    ids=["no tls", "udp", "no certificate", "same port", "relative"],
)
def test_tls_that_a_relay_could_not_have_is_refused(role_validation, tls, member, words):
    clusters = [{"name": "stores", "type": "any_of", "members": [member]}]
    routes = [{"match": ["*"], "send_to": ["stores"], "stop": True}]
    given = {"carbon_relay_tls": tls, "carbon_relay_clusters": clusters, "carbon_relay_routes": routes}
    assert words in " ".join(role_validation.problems("carbon_relay", given))


def test_statsd_needs_certificates_to_trust(role_validation):
    found = role_validation.problems("statsd", {"statsd_graphite_tls": {"server_name": "r1"}})
    assert "statsd_graphite_tls: authority is ''; give the absolute path" in " ".join(found)


def test_a_package_that_is_built_without_tls_is_refused(run_module):
    # Both are on every machine that runs these tests.
    wanted = [{"package": package, "library": "^libssl", "problem": f"{package} has no TLS"} for package in ("openssl", "bash")]
    found = run_module("host_requirements_info", components=[{"component": "relay", "dependencies": wanted}], lock_timeout=0)
    assert [problem for problem in found["problems"] if "has no TLS" in problem] == ["bash has no TLS"]


@pytest.fixture
def made(run_module, tmp_path):
    """Make the key and the certificate of a host as tls.yml does; return their paths and the certificate."""

    def make(host):
        directory = tmp_path / host
        wanted = {"name": "host", "variable": "stack_tls", "server_name": host, "self_signed": True, "days": 7300}
        answer = run_module("tls_certificates", certificates=[wanted], directory=str(directory))
        return directory, answer["certificates"]["host"]

    return make


def test_a_run_on_some_hosts_takes_trust_from_none(run_module, made, tmp_path):
    (own, first), (_directory, second), (_other, third) = (made(host) for host in ("r1", "r2", "c1"))
    path = tmp_path / "trust" / "trusted.pem"
    combined = {
        "path": str(tmp_path / "trust/relay.pem"),
        "certificate": str(own / "host.pem"),
        "key": str(own / "host.key"),
        "group": "root",
    }
    known = ["r1", "r2", "c1"]

    def trust(*flags, **given):
        return run_module("tls_trust", *flags, path=str(path), combined=combined, known=known, **given)

    planned = trust("--check", certificates={"r1": first, "r2": second})
    assert planned["changed_paths"] == [str(path), combined["path"]]
    assert not path.parent.exists()
    assert trust(certificates={"r1": first, "r2": second})["trusted"] == ["r1", "r2"]
    assert trust(certificates={"r1": first, "c1": third})["trusted"] == ["c1", "r1", "r2"]
    assert not trust(certificates={"r1": first})["changed"]
    # By all of them, and with the key for the relay alone.
    assert ssl.create_default_context(cafile=str(path)).cert_store_stats()["x509"] == 3
    text = Path(combined["path"]).read_text()
    assert text.startswith(first.strip())
    assert "PRIVATE KEY" in text
    assert "PRIVATE KEY" not in path.read_text()
    assert [stat.S_IMODE(Path(name).stat().st_mode) for name in (path, combined["path"])] == [0o644, 0o640]
    if os.geteuid() == 0:  # who else could give the file to another group
        os.chown(combined["path"], -1, 1)
        assert trust(certificates={"r1": first})["changed_paths"] == [combined["path"]]
        assert Path(combined["path"]).stat().st_gid == 0
    # A host that the inventory has no more.
    known.remove("r2")
    assert trust(certificates={"r1": first})["trusted"] == ["c1", "r1"]
    assert second.strip() not in path.read_text()


def test_an_authority_is_trusted_in_place_of_hosts(run_module, made, tmp_path):
    _own, certificate = made("r1")
    authority = tmp_path / "ca.pem"
    authority.write_text(certificate)
    path = tmp_path / "trusted.pem"
    answer = run_module("tls_trust", path=str(path), authority=str(authority))
    assert answer["trusted"] == []
    assert path.read_text().strip() == certificate.strip()
    authority.write_text("nothing")
    assert run_module("tls_trust", path=str(path), authority=str(authority))["msg"] == f"{authority} has no certificate"


class SecureReceiver(Receiver):
    """The same with a certificate. It closes connections without a farewell of TLS, as carbon-c-relay does."""

    def __init__(self, certificate, port=0):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate / "host.pem", certificate / "host.key")
        self.failures = []
        super().__init__(port)

    def _receive(self):
        while True:
            try:
                stream = self._server.accept()[0]
            except OSError:
                return
            try:
                with self._context.wrap_socket(stream, server_side=True) as secure, suppress(ssl.SSLEOFError):
                    self.sent.extend(self._lines(secure.makefile("rb")))
            except (ssl.SSLError, OSError) as error:
                self.failures.append(str(error))


def wait_until(condition, timeout=20):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("presented", ["r2", "r1 again"], ids=["another host", "an unknown certificate"])
def test_what_a_relay_that_is_not_trusted_would_get_is_kept(statsd, flushing, receiver, made, tmp_path, presented):
    right, certificate = made("r1")
    wrong, other = made(presented.split()[0] if presented == "r2" else "r3")
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(certificate + (other if presented == "r2" else ""))
    receiver.close()
    bad = SecureReceiver(wrong, receiver.port)
    tls = {"authority": str(trusted), "server_name": "r1"}
    one = statsd(**flushing(deleteIdleStats=True, graphiteTls=tls))
    one.send("m:1|c")
    wait_until(lambda: "does not take a flush" in one.log.read_text())
    bad.close()
    assert bad.sent == []
    good = SecureReceiver(right, receiver.port)
    one.send("m:2|c")
    good.wait_for("stats.counters.m.count", number=2)
    assert good.values("stats.counters.m.count") == [1, 2]
    good.close()


def test_another_relay_takes_over_tls_what_the_first_one_does_not(statsd, flushing, receiver, made, tmp_path):
    _first, certificate = made("r1")
    second, other = made("r2")
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(certificate + other)
    receiver.close()
    relay = SecureReceiver(second)
    alternatives = [{"host": "127.0.0.1", "port": relay.port, "server_name": "r2"}]
    tls = {"authority": str(trusted), "server_name": "r1"}
    one = statsd(**flushing(deleteIdleStats=True, graphiteTls=tls, graphiteAlternatives=alternatives))
    one.send("m:1|c")
    relay.wait_for("stats.counters.m.count")
    # It has read to the end, which StatsD takes for the receipt.
    time.sleep(2)
    assert relay.values("stats.counters.m.count") == [1]
    relay.close()


def test_a_relay_that_answers_no_handshake_does_not_hold_statsd(statsd, flushing, receiver, made, tmp_path):
    _directory, certificate = made("r1")
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(certificate)
    receiver.close()
    kept = []
    with socket.create_server(("127.0.0.1", receiver.port)) as mute:
        threading.Thread(target=lambda: kept.append(mute.accept()), daemon=True).start()
        one = statsd(**flushing(graphiteTls={"authority": str(trusted), "server_name": "r1"}))
        one.send("m:1|c")
        wait_until(lambda: "no answer for 5 s" in one.log.read_text())
