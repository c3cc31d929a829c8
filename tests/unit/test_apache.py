# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What Apache is told, on real files laid out as Debian lays them out, and what that means for sites to add."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apache
from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import parse_sockets
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.apache_wsgi import apache_wsgi_problems

ROOT = Path(__file__).resolve().parents[2]
MAIN = """\
DefaultRuntimeDir ${APACHE_RUN_DIR}
IncludeOptional mods-enabled/*.load
IncludeOptional mods-enabled/*.conf
Include ports.conf
<Directory /usr/share>
    Require all granted
</Directory>
IncludeOptional conf-enabled/*.conf
IncludeOptional sites-enabled/*.conf
"""
DEFAULT_SITE = "<VirtualHost *:80>\n    DocumentRoot /var/www/html\n</VirtualHost>\n"
NGINX = 'tcp LISTEN 0 511 0.0.0.0:{0} 0.0.0.0:* users:(("nginx",pid=12,fd=5)) cgroup:/system.slice/nginx.service\n'
APACHE = 'tcp LISTEN 0 511 *:80 *:* users:(("apache2",pid=9,fd=4)) cgroup:/system.slice/apache2.service\n'
SCRIPT = "/usr/share/graphite-web/graphite.wsgi"
SSL = {"mods-enabled/ssl.load": "LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so\n"}


@pytest.fixture
def examine(tmp_path):
    """Examine a directory with the given files, beside those that the package brings."""

    def examine(sites=(), files=None, sockets="", installed=True, disable_default_site=False):
        if installed:
            packaged = {"apache2.conf": MAIN, "ports.conf": apache.PACKAGED_PORTS, "sites-available/000-default.conf": DEFAULT_SITE}
            for name, text in {**packaged, "sites-enabled/000-default.conf": DEFAULT_SITE, **(files or {})}.items():
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).write_text(text)
        (tmp_path / "packaged").write_text(DEFAULT_SITE)
        checksum = apache.file_checksum(f"{tmp_path}/packaged")
        return apache.Examination(
            str(tmp_path), list(sites), parse_sockets(sockets), checksum, lambda: ["web1.example"], disable_default_site
        )

    return examine


def site(name, **options):
    return {"name": name, **options}


@pytest.mark.parametrize(
    ("sites", "elsewhere", "expected"),
    [
        ([site("a")], ["80"], {"a": []}),
        ([site("a", port=81), site("b", port=81)], ["80"], {"a": ["81"], "b": []}),
        ([site("a", port=81)], ["80", "0.0.0.0:81"], {"a": []}),
        ([site("a", port=81, address="10.0.0.1"), site("b", port=81)], ["80"], {"a": ["81"], "b": []}),
        ([site("a", port=81, address="10.0.0.1"), site("b", port=81, address="::1")], [], {"a": ["10.0.0.1:81"], "b": ["[::1]:81"]}),
        ([site("a", port=81, address="::1")], ["[::1]:81"], {"a": []}),
        ([site("a", address="10.0.0.1")], ["80"], {"a": []}),
        ([site("a", port="443")], ["80", "443"], {"a": []}),
    ],
)
def test_apache_is_told_everything_once(sites, elsewhere, expected):
    assert apache.listens_of_sites(sites, elsewhere) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ["80"]),
        (SSL, ["80", "443"]),
        (
            {"ports.conf": "Listen 80\n<IfModule !mod_ssl.c>\nListen 81\n</IfModule>\n<IfModule mod_so.c>\nListen 82\n</IfModule>\n"},
            ["80", "81", "82"],
        ),
        ({"conf-enabled/more.conf": "# Listen 1\nlisten \\\n  127.0.0.1:8443 https\n"}, ["80", "127.0.0.1:8443"]),
        ({"conf-enabled/more.conf": "Define PORT 8081\n<IfDefine PORT>\nListen 10.0.0.1:${PORT}\n</IfDefine>\n"}, ["80", "10.0.0.1:8081"]),
        ({"sites-enabled/own.conf": "Listen 8080\n", "sites-available/off.conf": "Listen 1\n"}, ["80"]),
        ({"conf-enabled/more.conf": "Include extra/*.conf\n", "extra/a.conf": "Listen 8082\n"}, ["80", "8082"]),
        ({"conf-enabled/more.conf": "Include conf-enabled/more.conf\nListen 8083\n"}, ["80", "8083"]),
    ],
)
def test_listen_directives_in_force_are_found_wherever_they_are(examine, files, expected):
    assert [listen.argument for listen in examine([site("own", port=8080)], files).elsewhere] == expected


def test_the_defaults_of_the_package_count_where_there_is_no_apache(examine):
    examination = examine([site("a")], installed=False)
    assert [listen.argument for listen in examination.elsewhere] == ["80"]
    assert examination.enabled_sites() == ["000-default"]
    assert not examination.default_site_changed
    assert examination.listens == {"a": []}


def test_sites_that_serve_the_same_application_are_found(examine):
    files = {
        "sites-enabled/hand.conf": f'<VirtualHost *:80>\n  wsgiscriptalias / "{SCRIPT}"\n</VirtualHost>\nListen 90\n',
        "sites-enabled/other.conf": "<VirtualHost *:80>\n  WSGIScriptAlias / /srv/other.wsgi\n</VirtualHost>\n",
    }
    examination = examine([site("graphite", replaces=[SCRIPT])], files)
    assert examination.replaced == ["hand"]
    assert [listen.argument for listen in examination.elsewhere] == ["80"]


@pytest.mark.parametrize("installed", [True, False])
def test_a_packaged_port_that_nobody_needs_makes_way_for_its_holder(examine, installed, tmp_path):
    examination = examine([site("graphite", port=8080)], sockets=NGINX.format(80), installed=installed)
    assert examination.problems() == []
    assert [(listen.argument, holder.unit) for listen, holder in examination.unused] == [("80", "nginx.service")]
    changed = examination.ports_file()
    assert changed["path"] == f"{tmp_path}/ports.conf"
    assert "\n# Listen 80\n" in f"\n{changed['content']}"
    assert "nginx, process 12, unit nginx.service" in changed["content"]
    assert "\tListen 443\n" in changed["content"]
    again = examine([site("graphite", port=8080)], {"ports.conf": changed["content"]}, NGINX.format(80))
    assert (again.unused, again.ports_file(), again.problems()) == ([], None, [])
    assert again.listens == {"graphite": ["8080"]}


def test_the_port_of_ssl_makes_way_as_well(examine):
    examination = examine([site("graphite")], SSL, NGINX.format(443) + APACHE)
    assert examination.problems() == []
    assert "\t# Listen 443\n" in examination.ports_file()["content"]
    assert "\nListen 80\n" in f"\n{examination.ports_file()['content']}"
    # The section of another module stays.
    assert examination.ports_file()["content"].count("\tListen 443\n") == 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"sites-enabled/shop.conf": "<VirtualHost *:80>\nServerName shop.example\n</VirtualHost>\n"}, ["port 80", "ports.conf"]),
        ({"sites-available/000-default.conf": "# ours\n" + DEFAULT_SITE}, ["port 80", "ports.conf"]),
        ({"ports.conf": "Listen 127.0.0.2:80\n"}, ["port 80", "line 1"]),
        ({"conf-enabled/more.conf": "Listen 80\n", "ports.conf": ""}, ["port 80", "more.conf"]),
    ],
)
def test_a_port_that_somebody_has_asked_for_is_refused_with_its_holder(examine, files, words):
    examination = examine([site("graphite", port=8080)], files, NGINX.format(80))
    (problem,) = examination.problems()
    assert [word for word in [*words, "nginx, process 12", "systemctl disable --now nginx.service"] if word not in problem] == []
    assert examination.ports_file() is None


def test_a_site_on_a_port_that_another_service_has_is_refused(examine):
    (problem,) = examine([site("a", port=81), site("b")], sockets=NGINX.format(81) + APACHE).problems()
    assert "site 'a' has port 81, but nginx, process 12, unit nginx.service holds 0.0.0.0:81" in problem
    assert examine([site("a")], sockets=APACHE).problems() == []
    (problem,) = examine([site("graphite", port=81)], sockets=NGINX.format(81)).problems()
    assert problem.endswith("or give the site another port (graphite_web_port).")
    assert (
        examine([site("a", port=81, address="127.0.0.2")], sockets=NGINX.format(81).replace("0.0.0.0:81", "127.0.0.1:81")).problems() == []
    )


def test_all_addresses_beside_one_of_them_is_refused(examine):
    (problem,) = examine([site("a", port=81)], {"conf-enabled/more.conf": "Listen 127.0.0.2:81\n"}).problems()
    assert "127.0.0.2" in problem


def test_addresses_that_the_host_does_not_have_are_refused_before_they_stop_apache(examine, tmp_path):
    (problem,) = examine([site("a", port=81, address="203.0.113.1"), site("b", port=81, address="127.0.0.2")]).problems()
    assert "apache_wsgi_sites: address of site 'a' is 203.0.113.1, which is not an address of this host" in problem
    # Also where Apache listens on all addresses already, for the site would get no request.
    (problem,) = examine([site("a", address="203.0.113.1")]).problems()
    assert "site 'a'" in problem
    assert examine([site("a", address="203.0.113.1", state="absent")]).problems() == []
    files = {"conf-enabled/more.conf": "Listen 203.0.113.1:82\nListen ${ADDRESS}:83\nListen localhost:84\n"}
    (problem,) = examine([site("b", port=81)], files).problems()
    assert f"Listen 203.0.113.1:82 ({tmp_path}/conf-enabled/more.conf, line 1) is 203.0.113.1" in problem


DERIVED = "a name that Apache derives from the host's name or address"
OURS = site("graphite", server_name="graphite.example", server_aliases=["web1.example", "graphite.example", "localhost"])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("zzz", "<VirtualHost 192.0.2.1:80>\n</VirtualHost>\n", ["every name at 192.0.2.1", "zzz.conf (line 1)", "a2dissite zzz"]),
        (
            "all",
            "<VirtualHost *:80>\nServerAlias *\nRedirect / https://x/\n</VirtualHost>\n",
            ["redirect for graphite.example, web1"],
        ),
        ("all", "<VirtualHost *>\nRedirect / https://x/\n</VirtualHost>\n", [DERIVED]),
        ("all", "<VirtualHost *:80>\nServerAlias localhost\n</VirtualHost>\n", [f"for localhost, {DERIVED} in place"]),
        ("all", "<VirtualHost *:80>\nServerName http://GRAPHITE.example:80\n</VirtualHost>\n", ["for graphite.example in place"]),
    ],
)
def test_another_site_that_answers_for_ours_is_named(examine, name, text, words):
    (message,) = examine([OURS], {f"sites-enabled/{name}.conf": text}, disable_default_site=True).shadows()
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zzz", "<VirtualHost *:80>\nServerAlias *\n</VirtualHost>\n"),
        ("all", "<VirtualHost *:80>\nServerName other.example\n</VirtualHost>\n"),
        ("all", "<VirtualHost *:81 192.0.2.1:82>\n</VirtualHost>\n"),
        ("graphite", "<VirtualHost 192.0.2.1:80>\n</VirtualHost>\n"),
    ],
)
def test_a_site_that_does_not_is_not(examine, name, text):
    assert examine([OURS], {f"sites-enabled/{name}.conf": text}, disable_default_site=True).shadows() == []


def test_a_site_without_a_name_has_that_of_the_server_or_one_derived_from_the_host(examine):
    unnamed = {"sites-enabled/all.conf": "<VirtualHost *:80>\n</VirtualHost>\n"}
    by_address = site("graphite", server_name="192.0.2.1")
    (message,) = examine([by_address], unnamed, disable_default_site=True).shadows()
    assert f"answers for {DERIVED} in place" in message
    named = {**unnamed, "conf-enabled/name.conf": "ServerName http://graphite.example:80\n"}
    assert examine([by_address], named, disable_default_site=True).shadows() == []
    (message,) = examine([OURS], named, disable_default_site=True).shadows()
    assert "answers for graphite.example in place" in message


def test_what_differs_from_the_package_is_found(examine, tmp_path):
    files = {f"conf-enabled/{name}.conf": name for name in ("own", "changed", "packaged")}
    found = examine([site("graphite", state="absent")], {**files, "sites-enabled/graphite.conf": ""})
    (tmp_path / "sites-enabled" / "000-default.conf").unlink()
    (tmp_path / "sites-enabled" / "000-default.conf").symlink_to("../sites-available/000-default.conf")
    (tmp_path / "sites-enabled" / "dangling.conf").symlink_to("nowhere")
    sums = {path: apache.file_checksum(path) for path in map(str, tmp_path.glob("*/*.conf")) if not path.endswith("/own.conf")}
    (tmp_path / "conf-enabled" / "changed.conf").write_text("otherwise")
    assert found.customizations(sums) == ["conf-enabled/changed.conf", "conf-enabled/own.conf"]
    # What is as another file of the package is not that file.
    (tmp_path / "sites-enabled" / "copy.conf").write_text(DEFAULT_SITE)
    assert "sites-enabled/copy.conf" in found.customizations(sums)


def test_the_account_of_apache_is_read(tmp_path):
    assert apache.run_account(str(tmp_path)) == {"user": "www-data", "group": "www-data"}
    (tmp_path / "envvars").write_text("unset HOME\nexport APACHE_RUN_USER=_graphite\nexport APACHE_RUN_GROUP='staff'\n")
    assert apache.run_account(str(tmp_path)) == {"user": "_graphite", "group": "staff"}


def test_the_module_returns_what_the_role_needs(run_module, tmp_path):
    wanted = {"sites": [site("graphite", port=47113)], "directory": str(tmp_path)}
    result = run_module("host_requirements_info", "--check", components=[{"component": "web", "apache": wanted}, {"component": "other"}])
    found = result["apache"]
    assert found["listens"] == {"graphite": ["47113"]}
    assert (found["installed"], found["problems"], found["enabled_modules"]) == (False, [], [])


def test_two_sites_at_the_same_place_are_refused():
    application = {"wsgi_script": "/a", "user": "a", "group": "a"}
    sites = [site("a", **application), site("b", port=80, **application), site("c", port=81, **application)]
    (problem,) = apache_wsgi_problems({"sites": sites})
    assert "'b'" in problem


APPLICATION = {"wsgi_script": "/srv/a.wsgi", "user": "root", "group": "root"}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"server_name": "a b"}, "server_name is 'a b'"),
        ({"server_name": "2001:db8::1"}, "server_name is '2001:db8::1'"),
        ({"server_aliases": ["good", "a b"]}, "server_aliases has 'a b'"),
        ({"wsgi_script": "a.wsgi"}, "wsgi_script is 'a.wsgi'"),
        ({"wsgi_script": "/srv/my wiki/a.wsgi"}, "wsgi_script is '/srv/my wiki/a.wsgi'"),
        ({"python_path": "/srv/my wiki"}, "python_path is '/srv/my wiki'"),
        ({"python_home": "venv"}, "python_home is 'venv'"),
        ({"aliases": [{"url": "/static/", "path": "/srv/my wiki"}]}, "path of alias /static/ is '/srv/my wiki'"),
    ],
)
def test_what_a_directive_cannot_hold_is_refused(options, word):
    (problem,) = apache_wsgi_problems({"sites": [site("wiki", **{**APPLICATION, **options})]})
    assert problem.startswith(f"apache_wsgi_sites: site 'wiki': {word}; give ")


def test_names_and_paths_that_work_are_not_refused():
    names = {"server_name": "wiki.example:8080", "server_aliases": ["*.example", "[2001:db8::1]", "größe.example"]}
    paths = {"python_path": "/srv/größe", "python_home": "", "aliases": [{"url": "/static/", "path": "/srv/static/"}]}
    assert apache_wsgi_problems({"sites": [site("wiki", **APPLICATION, **names, **paths)]}) == []


def test_a_site_answers_to_the_names_of_the_host(monkeypatch, tmp_path):
    monkeypatch.setattr(apache, "own_names", lambda: ["web1", "web1.example"])
    monkeypatch.setattr(apache, "own_addresses", lambda: ["127.0.0.1", "192.0.2.7", "2001:db8::7"])
    (tmp_path / "sites-enabled").mkdir()
    (tmp_path / "apache2.conf").write_text("IncludeOptional sites-enabled/*.conf\n")
    (tmp_path / "sites-enabled/all.conf").write_text("<VirtualHost *:80>\nServerName web1.example\n</VirtualHost>\n")
    sites = [site("own", server_aliases=["alias", "web1"], names_of_host=True), site("wiki", server_aliases=["wiki"])]
    found = apache.describe(str(tmp_path), sites, [], disable_default_site=False)
    assert found["server_aliases"] == {"own": ["alias", "web1", "web1.example", "127.0.0.1", "192.0.2.7"], "wiki": ["wiki"]}
    (shadow,) = found["shadows"]
    assert "answers for web1.example in place of site 'own'" in shadow


def test_an_account_that_the_host_neither_knows_nor_gets_is_refused(examine):
    def problems(**accounts):
        return examine([site("wiki", **accounts)]).problems()

    assert problems(user="root", group="root") == []
    assert problems(user="_graphite", group="_graphite") == []
    assert problems(user="#65534", group="#65534") == []
    assert problems(user="no such", group="none", state="absent") == []
    of_group, of_user = problems(user="no such", group="none")
    assert "site 'wiki' has user 'no such', which the host does not know" in of_user
    assert "site 'wiki' has group 'none', which the host does not know" in of_group


def test_modules_that_the_sites_need_are_enabled(examine):
    enabled = {f"mods-enabled/{name}.load": "" for name in ("alias", "headers", "wsgi")}
    available = {"mods-available/alias.conf": "", "mods-available/wsgi.conf": ""}
    plain, with_aliases = site("a"), site("b", aliases=[{"url": "/static/", "path": "/srv/static"}])
    assert examine([with_aliases], installed=False).module_files() == ["headers.load"]
    assert examine([site("a", state="absent")], available).module_files() == []
    assert examine([plain], available).module_files() == ["headers.load", "wsgi.conf", "wsgi.load"]
    assert examine([plain, with_aliases]).module_files() == ["alias.conf", "alias.load", "headers.load", "wsgi.conf", "wsgi.load"]
    assert examine([with_aliases], enabled).module_files() == []


def test_a_site_keeps_every_character(role_validation):
    directive = 'Header set X-Team "größe \U0001f680"'
    wanted = site("wiki", **APPLICATION, extra_directives=[directive], watched_files=["/srv/\U0001f680"])
    host = {"listens": {"wiki": []}, "server_aliases": {"wiki": []}, "ports_file": None, "module_files": ["headers.load"]}
    variables = {"apache_wsgi_sites": [wanted], "__apache_wsgi_host": host, "__apache_wsgi_unwanted_sites": ["old"]}
    link, written, *_rest, old = role_validation.listed("apache_wsgi", "files.yml.j2", variables)
    assert link["path"] == "/etc/apache2/mods-enabled/headers.load"
    assert f"    {directive}\n</VirtualHost>" in written["content"]
    assert old == {"path": "/etc/apache2/sites-enabled/old.conf", "state": "absent"}
    (unit,) = role_validation.listed("apache_wsgi", "services.yml.j2", variables)
    assert "/srv/\U0001f680" in unit["files"]


@pytest.mark.parametrize("template", sorted(ROOT.glob("roles/*/templates/*.yml.j2")), ids=lambda path: "/".join(path.parts[-3::2]))
def test_templates_of_yaml_have_no_surrogates(template):
    # JSON writes a character beyond the Basic Multilingual Plane as two, which YAML does not join.
    text = template.read_text()
    assert text.count("to_json") == text.count("to_json(ensure_ascii=false)")
