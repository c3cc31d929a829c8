# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What Grafana is told about graphite-web, compared with Grafana's own description of its formats."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pages
import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.metricstack.graphite.plugins.filter.grafana import (
    graphite_web_grafana_dashboards,
    graphite_web_grafana_datasource,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/grafana.md"
SHIPPED = yaml.safe_load((ROOT / "playbooks" / "vars" / "dashboards.yml").read_text())["dashboards_shipped"]
TOKEN = "a-token-of-twenty-characters"
GUEST = {"name": "grafana", "token": TOKEN, "areas": ["read"]}
BARE = {"graphiteVersion": "1.1", "graphiteType": "default"}

HASH = "pbkdf2_sha256$260000$saltsaltsalt$" + base64.b64encode(bytes(32)).decode()


def source(variables=None, groups=None, **options):
    groups = groups or {"graphite_web": ["web1"]}
    hosts = sorted({host for members in groups.values() for host in members})
    prefixed = {f"graphite_web_{name}": value for name, value in (variables or {}).items()}
    hostvars = {host: {"ansible_host": f"{host}.example.org", **prefixed} for host in hosts}
    return graphite_web_grafana_datasource({"all": hosts, **groups}, hostvars, **options)


TLS = {"server_name": "graphite.example.org", "tls": {"certificate": "/etc/a.pem", "key": "/etc/a.key"}}


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "http://web1.example.org:80"),
        ({"port": 8080, "url_prefix": "tools/graphite/"}, "http://web1.example.org:8080/tools/graphite"),
        (TLS, "https://graphite.example.org"),
        ({**TLS, "tls": {**TLS["tls"], "port": 8443}, "url_prefix": "/graphite"}, "https://graphite.example.org:8443/graphite"),
    ],
)
def test_the_address_is_that_of_the_site(variables, url):
    assert source(variables) == {
        "name": "Graphite",
        "uid": "graphite",
        "type": "graphite",
        "access": "proxy",
        "url": url,
        "jsonData": BARE,
        "secureJsonData": {},
    }


def test_a_host_without_graphite_web_has_the_first_one():
    groups = {"graphite_web": ["web1", "web2"], "statsd": ["collector"]}
    assert [source(groups=groups, host=host)["url"] for host in (None, "collector", "web2")] == [
        f"http://web{number}.example.org:80" for number in (1, 1, 2)
    ]


def test_secrets_are_in_the_secure_part_alone():
    users = [{"name": "reader", "password": "a 'password'"}]
    closed = {"access": {"read": "users"}, "access_without_login": [GUEST], "users": users}
    by_token = source(closed, login="grafana", name="Metrics", uid="metrics", ca_certificate="-----BEGIN CERTIFICATE-----")
    assert (by_token["name"], by_token["uid"]) == ("Metrics", "metrics")
    assert by_token["jsonData"] == {**BARE, "httpHeaderName1": "Authorization", "tlsAuthWithCACert": True}
    assert by_token["secureJsonData"] == {"httpHeaderValue1": f"Bearer {TOKEN}", "tlsCACert": "-----BEGIN CERTIFICATE-----"}
    by_password = source(closed, login="reader")
    assert (by_password["basicAuth"], by_password["basicAuthUser"]) == (True, "reader")
    assert by_password["jsonData"] == BARE
    assert by_password["secureJsonData"] == {"basicAuthPassword": "a 'password'"}
    for found in (by_token, by_password):
        shown = json.dumps({key: value for key, value in found.items() if key != "secureJsonData"})
        assert TOKEN not in shown
        assert "a 'password'" not in shown


def test_a_dollar_is_written_twice_where_grafana_expands_it():
    closed = {"access_without_login": [{**GUEST, "token": f"${TOKEN}$HOME"}]}
    sources = [source(closed, login="grafana", provisioning=provisioning) for provisioning in (False, True)]
    assert [found["secureJsonData"]["httpHeaderValue1"] for found in sources] == [f"Bearer ${TOKEN}$HOME", f"Bearer $${TOKEN}$$HOME"]


def guest(**changes):
    return {"access_without_login": [{**GUEST, **changes}]}


@pytest.mark.parametrize(
    ("variables", "options", "words"),
    [
        ({"access": {"read": "users"}}, {}, "does not let everybody read; give the name of an element"),
        ({}, {"login": "x"}, "login is 'x', which is neither in graphite_web_access_without_login nor in graphite_web_users"),
        (guest(), {"login": "Grafana"}, "give one of grafana"),
        (guest(areas=["events"]), {"login": "grafana"}, "'grafana' may not read; add read to its areas"),
        (guest(token=None, networks=["192.0.2.7"]), {"login": "grafana"}, "give it a token or forwards: true"),
        ({"users": [{"name": "a", "password_hash": HASH}]}, {"login": "a"}, "user 'a' of graphite_web_users has no password here"),
        ({**TLS, "tls": {"self_signed": True}}, {}, "give its text as ca_certificate"),
        ({"access": "users"}, {}, "graphite_web_access of web1"),
        ({"tls": TLS["tls"]}, {}, "graphite_web_tls is set, but graphite_web_server_name is not"),
    ],
)
def test_what_grafana_could_not_ask_with_is_refused(variables, options, words):
    with pytest.raises(AnsibleFilterError) as refused:
        source(variables, **options)
    assert words in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_networks_that_forward_need_no_secret():
    assert source(guest(token=None, networks=["192.0.2.7"], forwards=True), login="grafana")["secureJsonData"] == {}


def missing(given, known, where=""):
    """Return what Grafana's own description of a dashboard does not hold in the same way."""
    if isinstance(given, dict):
        return [problem for key, value in given.items() for problem in missing(value, known.get(key, "nothing"), f"{where}/{key}")]
    if isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        return [problem for number, pair in enumerate(zip(given, known)) for problem in missing(*pair, f"{where}/{number}")]
    return [] if given == known else [where]


@pytest.mark.parametrize("dashboard", graphite_web_grafana_dashboards(SHIPPED), ids=lambda dashboard: dashboard["title"])
def test_a_shipped_dashboard_is_one_of_grafana(dashboard):
    text = json.dumps(dashboard)
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(text))))
    # What an annotation asks is for the data source to know.
    assert {where for where in missing(dashboard, read) if not where.startswith("/annotations/list/0/target")} == set()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {
        (x, y) for panel in panels for grid in [panel["gridPos"]] for x in range(grid["x"], grid["x"] + grid["w"]) for y in [grid["y"]]
    }
    assert len(places) == sum(panel["gridPos"]["w"] for panel in panels)
    assert max(x for x, _y in places) < 24
    assert {panel["type"] for panel in panels} == {"timeseries"}
    for panel in panels:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
    (variable,) = dashboard["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "graphite")
    assert text.count('"uid": "${DS_GRAPHITE}"') == text.count('"datasource": {')
    assert variable["name"] == "DS_GRAPHITE"


def test_the_shipped_dashboards_show_the_same_series():
    shown = {
        dashboard["title"]: [(panel["title"], [target["target"] for target in panel["targets"]]) for panel in dashboard["panels"]]
        for dashboard in graphite_web_grafana_dashboards(SHIPPED)
    }
    assert shown == {
        dashboard["name"]: [(graph["title"], [target.strip() for target in graph["targets"]]) for graph in dashboard["graphs"]]
        for dashboard in SHIPPED
    }


def test_what_a_dashboard_says_grafana_does():
    graph = {"targets": [f"a.{number}" for number in range(28)], "options": {"yMin": 0, "yMax": "1e3", "hideLegend": True, "lineWidth": 3}}
    described = {"name": '商店 "shop"', "from": "-2months", "until": "-5min", "refresh": 90, "graphs": [graph, {"targets": ["b"]}]}
    (found,) = graphite_web_grafana_dashboards([described, {"name": "gone", "state": "absent"}], ["deployment"])
    assert found["title"] == '商店 "shop"'
    assert found["time"] == {"from": "now-2M", "to": "now-5m"}
    assert found["refresh"] == "90s"
    assert found["annotations"]["list"][0]["target"]["tags"] == ["deployment"]
    first, second = found["panels"]
    assert [target["refId"] for target in first["targets"]][24:] == ["Y", "Z", "A1", "B1"]
    assert first["fieldConfig"]["defaults"]["min"] == 0
    assert "max" not in first["fieldConfig"]["defaults"]
    assert [panel["options"]["legend"]["showLegend"] for panel in found["panels"]] == [False, True]
    assert second["title"] == ""


def test_an_address_of_a_dashboard_is_its_own_and_stays():
    names = ["Go runtime", "go runtime", "商店", "店商", "x" * 100]
    addresses = [found["uid"] for found in graphite_web_grafana_dashboards([{"name": name, "graphs": []} for name in names])]
    assert len(set(addresses)) == len(names)
    assert all(len(address) <= 40 and address.isascii() for address in addresses)
    assert addresses[0] == "graphite-go-runtime-440d76ac"


def test_a_dashboard_that_cannot_be_read_is_named():
    with pytest.raises(AnsibleFilterError, match="dashboard 'wrong' has a graph whose targets are"):
        graphite_web_grafana_dashboards([{"name": "wrong", "graphs": [{"targets": []}]}])


INVENTORY = {
    "graphite_web": {
        "hosts": {"web1": {"ansible_host": "192.0.2.10"}},
        "vars": {
            "graphite_web_url_prefix": "/graphite",
            "graphite_web_access": {"read": "users"},
            "graphite_web_access_without_login": [{**GUEST, "token": f"{TOKEN}$1"}],
        },
    },
    "grafana": {"hosts": {"shown": {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}}},
}


class StandIn(BaseHTTPRequestHandler):
    """Answers what the modules of community.grafana ask of a Grafana that has nothing yet, and keeps what they send."""

    def do_GET(self):
        known = {"/api/frontend/settings": {"buildInfo": {"version": "13.2.1"}}}
        known.update({f"/api/datasources/name/{sent['name']}": sent for path, sent in self.server.sent if path == "/api/datasources"})
        self.answer(known.get(self.path))

    def do_POST(self):
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.sent.append((self.path, json.loads(sent or "null")))
        self.answer({"status": "success", "message": "", "uid": "", "datasource": {}})

    def answer(self, found):
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(found or {}).encode())

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def grafana():
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        server.sent = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_playbooks_of_the_page_tell_grafana(grafana, tmp_path):
    """There is no Grafana here: a stand-in takes what would be sent to it, and nothing is restarted."""
    (tmp_path / "hosts.yml").write_text(json.dumps(INVENTORY))
    (provisioning,) = pages.variables(PAGE, "provisioning.yml")
    del provisioning["handlers"]
    for task in provisioning["tasks"]:
        task.pop("notify", None)
    (tmp_path / "provisioning.yml").write_text(json.dumps([provisioning]))
    (tmp_path / "grafana.yml").write_text(pages.block(PAGE, "grafana.yml").text)
    for name in ("datasources", "dashboards"):
        (tmp_path / "etc" / name).mkdir(parents=True)
    given = {
        "grafana_address": f"http://127.0.0.1:{grafana.server_port}",
        "vault_grafana_admin_password": "x",
        "grafana_configuration": str(tmp_path / "etc"),
        "grafana_files": str(tmp_path / "files"),
        "grafana_group": os.getgid(),
    }
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
    }
    (tmp_path / "given.yml").write_text(json.dumps(given))
    for _host, command in pages.commands(pages.block(PAGE, "add").text + pages.block(PAGE, "provision").text):
        text = re.sub(r"-e grafana_address=\S+", "", command).replace("-i hosts.yml", "-i hosts.yml -e @given.yml --diff -vvv")
        result = subprocess.run(["bash", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        assert TOKEN not in result.stdout + result.stderr

    titles = ["Carbon health", "Go runtime", "StatsD health"]
    files = sorted((tmp_path / "grafana_dashboards").iterdir())
    assert [json.loads(file.read_text())["title"] for file in files] == titles
    sent = [(path, content) for path, content in grafana.sent if path in ("/api/datasources", "/api/dashboards/db")]
    (source_path, data_source), *dashboards = sent
    assert source_path == "/api/datasources"
    assert data_source["url"] == "http://192.0.2.10:80/graphite"
    assert (data_source["uid"], data_source["type"], data_source["access"]) == ("graphite", "graphite", "proxy")
    assert data_source["secureJsonData"] == {"httpHeaderValue1": f"Bearer {TOKEN}$1"}
    assert {**BARE, "httpHeaderName1": "Authorization"}.items() <= data_source["jsonData"].items()
    assert sorted(content["dashboard"]["title"] for _path, content in dashboards) == titles

    (provisioned,) = yaml.safe_load((tmp_path / "etc" / "datasources" / "graphite.yml").read_text())["datasources"]
    assert provisioned["secureJsonData"] == {"httpHeaderValue1": f"Bearer {TOKEN}$$1"}
    assert provisioned["url"] == data_source["url"]
    (provider,) = yaml.safe_load((tmp_path / "etc" / "dashboards" / "graphite.yml").read_text())["providers"]
    assert provider["options"] == {"path": str(tmp_path / "files")}
    assert sorted(file.name for file in (tmp_path / "files").iterdir()) == [file.name for file in files]
