# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Graphite-web under a prefix and behind proxies, as far as no host is needed; and what answers load balancers."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.metricstack.graphite.plugins.filter.stack import _defaults
from ansible_collections.metricstack.graphite.plugins.module_utils._host.apache import Examination
from ansible_collections.metricstack.graphite.plugins.plugin_utils._fields import url_prefix
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.apache_wsgi import apache_wsgi_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.graphite_web import graphite_web_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._topology import HostView, Inventory

ROLE_FILES = Path(__file__).resolve().parents[2] / "roles" / "graphite_web" / "files"
PROXIES = ["192.0.2.1", "2001:db8::/64"]
APPLICATION = {"wsgi_script": "/srv/a.wsgi", "user": "root", "group": "root"}
SITE_FILE = "/etc/apache2/sites-available/graphite.conf"


@pytest.mark.parametrize("given", ["tools/graphite", "/tools/graphite", "tools/graphite/", "/tools/graphite/"])
def test_slashes_at_the_ends_of_a_prefix_do_not_matter(role_validation, given):
    assert url_prefix(given) == "/tools/graphite"
    variables = {"graphite_web_url_prefix": given}
    assert role_validation.value("graphite_web", "__graphite_web_url_prefix", variables) == "/tools/graphite"


@pytest.mark.parametrize("given", ["", "/"])
def test_no_prefix_is_none(role_validation, given):
    assert url_prefix(given) == ""
    variables = {"graphite_web_url_prefix": given}
    assert role_validation.value("graphite_web", "__graphite_web_place_settings", variables) == {}
    assert role_validation.value("graphite_web", "__graphite_web_site", variables)["readiness_path"] == "/version/"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        *[
            ({"url_prefix": value}, f"graphite_web_url_prefix is '{value}'; give names of letters")
            for value in ("//", "//a", "a//b", "/a/../b", "/..", "/a b", "/a.b", "http://a", "/größe", "/a?b", "/a\n", "/a//")
        ],
        *[
            ({"url_prefix": value}, f"'{value.split('/')[-1]}' is a path of graphite-web or its site already")
            for value in ("/static", "/a/dashboard", "/graphite-health", "/s", "/render")
        ],
        ({"trusted_proxies": ["proxy.example.org"]}, "graphite_web_trusted_proxies has 'proxy.example.org'"),
        ({"trusted_proxies": ["192.0.2.1/24"]}, "has host bits set"),
        ({"trusted_proxies": ["::/0"]}, "graphite_web_trusted_proxies has '::/0', which is everybody"),
        ({"settings": {"URL_PREFIX": "/a"}}, "graphite_web_settings has URL_PREFIX; set graphite_web_url_prefix instead"),
        ({"url_prefix": "/Tools-1/graphite_web", "trusted_proxies": PROXIES}, None),
    ],
)
def test_what_cannot_be_a_prefix_or_a_proxy_is_refused(variables, words):
    defaults = {name.partition("graphite_web_")[2]: value for name, value in _defaults().items() if name.startswith("graphite_web_")}
    problems = graphite_web_problems({**defaults, **variables})
    assert len(problems) == bool(words), problems
    assert (words or "") in "".join(problems)


def test_what_cannot_be_a_health_path_or_a_proxy_of_a_site_is_refused():
    sites = [{"name": name, "port": port, **APPLICATION, "health_path": "/up"} for name, port in (("a", 80), ("b", 81))]
    (problem,) = apache_wsgi_problems({"sites": sites})
    assert "site 'b': health_path is that of site 'a' as well" in problem
    for wrong in ("up", "/up$", "/", "/a b"):
        (problem,) = apache_wsgi_problems({"sites": [{**sites[0], "health_path": wrong}]})
        assert f"health_path is '{wrong}'" in problem
    (problem,) = apache_wsgi_problems({"sites": [{**sites[0], "trusted_proxies": ["0.0.0.0/0"]}]})
    assert "site 'a': trusted_proxies has '0.0.0.0/0', which is everybody" in problem


def topology(host, groups, variables):
    everybody = list(dict.fromkeys(host for hosts in groups.values() for host in hosts))
    return HostView(Inventory({"all": everybody, **groups}, lambda name: variables.get(name, {}), _defaults()), host).topology()


@pytest.mark.parametrize(
    ("variables", "local", "public"),
    [
        ({}, "http://127.0.0.1:80/tools/graphite", "http://one:80/tools/graphite"),
        (
            {"graphite_web_server_name": "g.example.org", "graphite_web_tls": {"self_signed": True, "port": 8443}},
            "https://g.example.org:8443/tools/graphite",
            "https://g.example.org:8443/tools/graphite",
        ),
    ],
)
def test_whoever_asks_graphite_web_has_the_prefix(variables, local, public):
    shared = {"graphite_web_url_prefix": "tools/graphite/", "graphite_web_tags_enabled": True}
    one = topology("one", {"all": ["one"]}, {"one": {**shared, **variables}})
    assert (one["web"]["local_url"], one["web"]["public_url"], one["graphite_web"]["own_url"]) == (local, public, local)
    assert one["carbon"]["tags_url"] == local


def test_hosts_that_ask_a_store_have_no_prefix(role_validation):
    groups = {"carbon": ["c1", "c2"], "carbon_relay": ["r1"], "graphite_web": ["w1"]}
    variables = {
        host: {
            "graphite_web_url_prefix": "/graphite",
            "carbon_replicas": 2,
            **({"carbon_store_address": f"10.0.0.{number}"} if number else {}),
        }
        for number, host in ((1, "c1"), (2, "c2"), (0, "r1"), (0, "w1"))
    }
    assert topology("c1", groups, variables)["graphite_web"]["own_url"] == "http://10.0.0.1:8081"
    front = topology("w1", groups, variables)["graphite_web"]
    assert front["cluster_servers"] == ["10.0.0.1:8081", "10.0.0.2:8081"]
    assert front["own_url"].endswith("/graphite")
    store = role_validation.value(
        "graphite_web",
        "__graphite_web_store_site",
        {"graphite_web_url_prefix": "/graphite", "graphite_web_trusted_proxies": PROXIES, "graphite_web_store_address": "10.0.0.1"},
    )
    assert (store["readiness_path"], store["health_path"], store["trusted_proxies"]) == ("/version/", "", [])


def test_the_settings_say_where_graphite_web_is(role_validation):
    variables = {"graphite_web_url_prefix": "s2", "graphite_web_trusted_proxies": PROXIES}
    # Without STATIC_URL, graphite-web would take a prefix with the first letters of /static/ for one that is there already.
    assert role_validation.value("graphite_web", "__graphite_web_place_settings", variables) == {
        "URL_PREFIX": "/s2",
        "STATIC_URL": "/s2/static/",
        "SESSION_COOKIE_PATH": "/s2",
        "CSRF_COOKIE_PATH": "/s2",
        "SECURE_PROXY_SSL_HEADER": ["HTTP_X_FORWARDED_PROTO", "https"],
    }
    (alias,) = role_validation.value("graphite_web", "__graphite_web_site", variables)["aliases"]
    assert alias["url"] == "/s2/static/"


@pytest.fixture
def written(role_validation):
    """Return the virtual hosts of graphite-web's site, and what is before them."""

    def written(**variables):
        wanted = role_validation.value("graphite_web", "__graphite_web_site", variables)
        host = {"listens": {"graphite": []}, "server_aliases": {"graphite": []}, "ports_file": None, "module_files": []}
        host["recorded_module_files"] = []
        host["is_version_free"] = False
        variables = {"apache_wsgi_sites": [wanted], "__apache_wsgi_host": host, "__apache_wsgi_unwanted_sites": []}
        variables["__apache_wsgi_examination"] = {"paths": []}
        files = {file["path"]: file for file in role_validation.listed("apache_wsgi", "files.yml.j2", variables)}
        return files[SITE_FILE]["content"].split("<VirtualHost ")

    return written


def test_apache_believes_proxies_only(written):
    _server, plain = written(graphite_web_trusted_proxies=PROXIES)
    for proxy in PROXIES:
        assert f"    RemoteIPInternalProxy {proxy}\n" in plain
        assert f"    SetEnvIfExpr \"%{{CONN_REMOTE_ADDR}} -ipmatch '{proxy}'\" APACHE_WSGI_TRUSTED_PROXY\n" in plain
    assert "    RequestHeader unset X-Forwarded-Proto env=!APACHE_WSGI_TRUSTED_PROXY\n" in plain
    # On both ports.
    tls = {"graphite_web_server_name": "g.example.org", "graphite_web_tls": {"self_signed": True}}
    assert ["RemoteIPHeader" in part for part in written(graphite_web_trusted_proxies=PROXIES, **tls)] == [False, True, True]
    assert ["RemoteIPHeader" in part for part in written(**tls)] == [False, False, False]


def test_apache_answers_load_balancers_on_every_virtual_host_and_port(written):
    directives = ["<Location />", "Require valid-user", "</Location>"]
    tls = {"graphite_web_server_name": "g.example.org", "graphite_web_tls": {"self_signed": True}}
    server, plain, encrypted = written(graphite_web_extra_directives=directives, **tls)
    health = '<LocationMatch "^/graphite-health$">'
    assert 'AliasMatch "^/graphite-health$" "/etc/graphite/graphite.wsgi/graphite-health"' in server
    assert health in server
    assert '<LocationMatch "^/(?!\\.well-known/acme-challenge/|graphite-health$)">' in plain
    # The last section that applies decides who may enter.
    assert encrypted.index("Require valid-user") < encrypted.index(health) < encrypted.rindex("Require all granted")


def test_apache_has_the_modules_that_proxies_need(tmp_path):
    (tmp_path / "mods-enabled").mkdir()
    (tmp_path / "apache2.conf").touch()
    site = {"name": "a", **APPLICATION}

    def files(**options):
        return Examination(str(tmp_path), [{**site, **options}], [], "", list, False).module_files()

    assert files() == ["headers.load", "wsgi.load"]
    assert files(trusted_proxies=PROXIES) == ["headers.load", "remoteip.load", "setenvif.load", "wsgi.load"]
    assert files(health_path="/up") == ["alias.load", "headers.load", "wsgi.load"]


@pytest.fixture
def entrance(monkeypatch):
    """Return the module that stands in front of graphite-web."""
    monkeypatch.syspath_prepend(str(ROLE_FILES))
    monkeypatch.delitem(sys.modules, "graphite_entrance", raising=False)
    return importlib.import_module("graphite_entrance")


def test_one_thread_finds_out_for_all_who_ask(entrance):
    asked = []

    def find_problem():
        asked.append(threading.current_thread().name)
        time.sleep(0.2)
        return ""

    health = entrance.Health(find_problem)
    answers = []
    askers = [threading.Thread(target=lambda: answers.append(health.is_good())) for _number in range(50)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert answers == [True] * 50
    assert health.is_good()
    assert asked == ["graphite_entrance"]


def test_nobody_waits_for_long_and_the_truth_comes_back(entrance, monkeypatch):
    monkeypatch.setattr(entrance, "PATIENCE", 0.3)
    monkeypatch.setattr(entrance, "BAD_LIFETIME", 0.1)
    monkeypatch.setattr(entrance, "GOOD_LIFETIME", 0.1)
    hangs, problem = threading.Event(), ["the database is away"]

    def find_problem():
        hangs.wait(10)
        return problem[0]

    health = entrance.Health(find_problem)
    begin = time.monotonic()
    assert not health.is_good()
    assert 0.2 < time.monotonic() - begin < 5
    # Who comes later does not wait as long again.
    begin = time.monotonic()
    assert [health.is_good() for _time in range(100)] == [False] * 100
    assert time.monotonic() - begin < 0.3
    hangs.set()
    time.sleep(0.3)
    assert not health.is_good()
    problem[0] = ""
    time.sleep(0.2)
    assert health.is_good()


def test_the_entrance_adds_the_prefix_for_graphite_web_on_other_hosts(entrance, monkeypatch):
    monkeypatch.setattr(entrance, "settings", SimpleNamespace(URL_PREFIX="/tools/graphite"))
    seen = []
    application = entrance.Entrance(lambda environ, _start: seen.append(environ["PATH_INFO"]) or [b"graphite-web"])
    application._health = entrance.Health(lambda: "")
    started = []

    def ask(path, method="GET", group="graphite"):
        environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "mod_wsgi.process_group": group}
        return application(environ, lambda status, _headers: started.append(status))

    assert ask("/metrics/find/", group="graphite-store") == [b"graphite-web"]
    assert ask("/tools/graphite/render") == [b"graphite-web"]
    assert ask("/graphite-health") == [b"ok\n"]
    # Nothing else reaches graphite-web, past what its own site refuses.
    assert ask("/graphite-health", "POST") == [b"only GET and HEAD\n"]
    assert ask("/account/login", group="graphite-store") == [b"not here\n"]
    assert ask("/renderer", group="graphite-store") == [b"not here\n"]
    assert started == ["200 OK", "405 Method Not Allowed", "404 Not Found", "404 Not Found"]
    assert seen == ["/tools/graphite/metrics/find/", "/tools/graphite/render"]
