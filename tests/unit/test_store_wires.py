# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""TLS between fronts and stores: who asks where, what Apache serves, and whom a front believes; with real certificates."""

from __future__ import annotations

import importlib
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import urllib3
from ansible_collections.metricstack.graphite.plugins.module_utils._host.apache import site_listeners
from ansible_collections.metricstack.graphite.plugins.plugin_utils._sites import certificates_of, complete_sites
from ansible_collections.metricstack.graphite.plugins.plugin_utils._topology import HostView
from test_topology import inventory, problems, topology

ROLE_FILES = Path(__file__).resolve().parents[2] / "roles" / "graphite_web" / "files"
GROUPS = {"carbon_relay": ["f1"], "graphite_web": ["f1", "c2"], "carbon": ["c1", "c2"]}
SITE_FILE = "/etc/apache2/sites-available/graphite-store.conf"
TLS = {
    "certificate": "/etc/graphite-tls/host.pem",
    "key": "/etc/graphite-tls/host.key",
    "authority": "/etc/graphite-tls/host.pem",
    "name": "c1",
    "port": 8444,
    "examine": False,
}


def variables(common=None, **hosts):
    shared = {"graphite_web_secret_key": "k" * 50, "graphite_web_database": {"engine": "django.db.backends.postgresql"}}
    return {
        host: {
            "carbon_replicas": 2,
            "stack_tls": True,
            "ansible_host": f"10.0.0.{number}",
            "carbon_relay_address": f"10.0.0.{number}",
            "memcached_address": f"10.0.0.{number}",
            **shared,
            **(common or {}),
            **hosts.get(host, {}),
        }
        for number, host in enumerate(("f1", "c1", "c2"), 1)
    }


def test_fronts_ask_stores_over_tls_by_the_names_in_their_certificates():
    front = topology("f1", GROUPS, **variables(c2={"stack_tls_store_web_port": 8500}))
    assert front["graphite_web"]["secure_cluster_servers"] == ["https://10.0.0.2:8444", "https://10.0.0.3:8500"]
    assert front["graphite_web"]["cluster_names"] == {"10.0.0.2": "c1", "10.0.0.3": "c2"}
    # Asked while the switch changes.
    assert front["graphite_web"]["cluster_servers"] == ["10.0.0.2:8081", "10.0.0.3:8081"]
    assert front["tls"]["senders"]["graphite_web"] == ["f1", "c2"]
    assert front["graphite_web"]["store_tls"] == {}
    store = topology("c1", GROUPS, **variables())
    assert store["graphite_web"]["store_tls"] == TLS
    place = {"own_url": "https://c1:8444", "own_connect_address": "10.0.0.2", "own_authority": TLS["certificate"]}
    assert place.items() <= store["graphite_web"].items()
    sockets = {(item["variable"], item["address"], item["port"]) for item in store["listens"] if item["component"] == "graphite_web"}
    assert sockets == {("stack_tls_store_web_port", "10.0.0.2", 8444)}
    for host in ("f1", "c1", "c2"):
        assert problems(host, GROUPS, **variables()) == []


def test_a_certificate_of_the_inventory_is_that_of_the_site():
    own = {"stack_tls_certificate": "/c.pem", "stack_tls_key": "/c.key", "stack_tls_authority": "/ca.pem"}
    found = topology("c1", GROUPS, **variables(own))["graphite_web"]["store_tls"]
    assert {"certificate": "/c.pem", "key": "/c.key", "authority": "/ca.pem"}.items() <= found.items()


def test_without_tls_a_store_is_asked_as_before():
    store = topology("c1", GROUPS, **variables({"stack_tls": False}))
    assert store["graphite_web"]["own_url"] == "http://10.0.0.2:8081"
    assert store["graphite_web"]["own_connect_address"] == ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (variables(f1={"stack_tls": False}), "stack_tls is false on f1 and true on c2. Set stack_tls once"),
        (variables(c1={"stack_tls_store_web_port": "x"}), "stack_tls_store_web_port is x"),
        (
            variables(c1={"stack_tls_store_web_port": 8081}),
            "stack_tls_store_web_port of c1 is 8081, which is carbon_store_web_port",
        ),
        (variables(c1={"stack_tls_store_web_port": 2413}), "use TCP port 2413 on the same host"),
    ],
)
def test_ports_and_switches_that_contradict_are_refused(given, words):
    assert words in "\n".join(problems("c1", GROUPS, **given))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"cluster_servers": ["https://10.0.0.2:8444", "10.0.0.3:8081"]}, None),
        ({"cluster_servers": ["ftp://10.0.0.2:1"]}, "graphite_web_cluster_servers has 'ftp://10.0.0.2:1'"),
        ({"cluster_tls": {"names": {}}}, "graphite_web_cluster_tls: authority is ''; give an absolute path"),
        ({"cluster_tls": {"authority": "ca.pem"}}, "graphite_web_cluster_tls: authority is 'ca.pem'"),
    ],
)
def test_what_a_front_is_given_is_validated(role_validation, variables, words):
    given = {f"graphite_web_{name}": value for name, value in variables.items()}
    found = "\n".join(role_validation.value("graphite_web", "__graphite_web_problems", given))
    assert words in found if words else not found


def test_a_site_can_do_without_a_port_without_tls(role_validation):
    given = {"graphite_web_store_address": "10.0.0.2", "graphite_web_store_tls": {**TLS, "only": True}}
    site = role_validation.value("graphite_web", "__graphite_web_store_site", given)
    (complete,) = complete_sites([site])
    assert site_listeners(complete) == [("10.0.0.2", "8444")]
    assert site_listeners(complete_sites([{**site, "tls": TLS}])[0]) == [("10.0.0.2", "8081"), ("10.0.0.2", "8444")]
    # Made after the examination.
    assert certificates_of([site]) == []
    (probe,) = complete["probes"]
    assert (probe["url"], probe["host_header"], probe["ca_path"]) == ("https://c1:8444/version/", "localhost", TLS["authority"])
    host = {"listens": {"graphite-store": ["10.0.0.2:8444"]}, "server_aliases": {"graphite-store": []}, "ports_file": None}
    host.update({"module_files": [], "recorded_module_files": [], "is_version_free": False})
    rendering = {"apache_wsgi_sites": [site], "__apache_wsgi_host": host, "__apache_wsgi_unwanted_sites": []}
    rendering["__apache_wsgi_examination"] = {"paths": []}
    files = {file["path"]: file for file in role_validation.listed("apache_wsgi", "files.yml.j2", rendering)}
    _before, *virtual_hosts = files[SITE_FILE]["content"].split("<VirtualHost ")
    assert [part.split(">")[0] for part in virtual_hosts] == ["10.0.0.2:8444"]
    assert "SSLCertificateFile /etc/graphite-tls/host.pem" in virtual_hosts[0]
    assert "Strict-Transport-Security" not in virtual_hosts[0]
    own = HostView(inventory(GROUPS, **variables()), "c1").own_site()
    assert role_validation.value("apache_wsgi", "__apache_wsgi_problems", {"apache_wsgi_sites": own}) == []


class Answer(BaseHTTPRequestHandler):
    # As mod_wsgi does while Apache is reloaded.
    refusals = 0

    def do_GET(self):
        self.send_response(503 if Answer.refusals else 200)
        Answer.refusals = max(0, Answer.refusals - 1)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def store(run_module, tmp_path):
    """Serve with the certificate of a host; return the port and the path of the certificate."""
    wanted = {"name": "host", "variable": "stack_tls", "server_name": "c1", "self_signed": True, "days": 7300}
    run_module("tls_certificates", certificates=[wanted], directory=str(tmp_path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "host.pem", tmp_path / "host.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, tmp_path / "host.pem"
    server.shutdown()
    server.server_close()


@pytest.fixture
def pools(monkeypatch):
    """Return a function that has the finder ask with what a front is given."""

    def pools(**tls):
        remote = ModuleType("graphite.finders.remote")
        remote.RemoteFinder = object
        finders = ModuleType("graphite.finders")
        finders.remote = remote
        configuration = ModuleType("django.conf")
        configuration.settings = SimpleNamespace(CLUSTER_TLS=tls)
        for name, module in {"graphite": ModuleType("graphite"), "graphite.finders": finders, "django.conf": configuration}.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.syspath_prepend(str(ROLE_FILES))
        monkeypatch.delitem(sys.modules, "graphite_stores", raising=False)
        importlib.import_module("graphite_stores")
        return remote.http

    yield pools
    sys.modules.pop("graphite_stores", None)


def test_a_front_believes_a_store_by_its_certificate_and_its_name(store, pools, tmp_path):
    port, certificate = store

    def ask(authority, names):
        return pools(authority=str(authority), names=names).request("GET", f"https://127.0.0.1:{port}/", timeout=5, retries=False).status

    assert ask(certificate, {"127.0.0.1": "c1"}) == 200
    for names in ({"127.0.0.1": "c2"}, {}):
        with pytest.raises(urllib3.exceptions.SSLError):
            ask(certificate, names)
    other = tmp_path / "other"
    other.write_text("")
    with pytest.raises((urllib3.exceptions.SSLError, ssl.SSLError)):
        ask(other, {"127.0.0.1": "c1"})


@pytest.mark.parametrize(("refusals", "status"), [(3, 200), (100, 503)])
def test_a_front_asks_a_store_again_while_apache_is_reloaded(monkeypatch, pools, refusals, status):
    monkeypatch.setattr(Answer, "refusals", refusals)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        # As the finder asks.
        answer = pools().request("GET", f"http://127.0.0.1:{server.server_port}/render/", timeout=5, preload_content=False)
        assert answer.status == status
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("settings", [{}, {"CLUSTER_SERVERS": ["10.0.0.2:8081"]}])
@pytest.mark.parametrize("servers", [[], ["10.0.0.2:8081"]])
def test_the_finder_is_there_wherever_it_is_named(role_validation, settings, servers):
    given = {"graphite_web_settings": settings, "graphite_web_cluster_servers": servers}
    files = {file["path"]: file for file in role_validation.value("graphite_web", "__graphite_web_files", given)}
    finders = role_validation.value("graphite_web", "__graphite_web_default_settings", given)["STORAGE_FINDERS"]
    is_there = files["/etc/graphite/graphite_stores.py"]["state"] == "present"
    assert is_there == ("graphite_stores.RemoteFinder" in finders) == bool(settings or servers)
