# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""What Apache is told, on real files laid out as Debian lays them out, and what that means for sites to add."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.metricstack.graphite.plugins.module_utils._host import apache
from ansible_collections.metricstack.graphite.plugins.module_utils._host.sockets import parse_sockets
from ansible_collections.metricstack.graphite.plugins.plugin_utils._roles.apache_wsgi import apache_wsgi_problems
from ansible_collections.metricstack.graphite.plugins.plugin_utils._sites import certificates_of, complete_sites

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


def secure(name, port=443, **options):
    """A site as the role hands it on, with a certificate."""
    return site(name, tls={"port": port}, **options)


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
        ([secure("a")], ["80", "443"], {"a": []}),
        ([secure("a"), secure("b")], ["80"], {"a": ["443"], "b": []}),
        ([secure("a", port=8443, address="10.0.0.1")], ["80"], {"a": ["10.0.0.1:8443"]}),
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


def test_the_port_of_ssl_is_in_force_once_a_site_has_tls(examine):
    """Debian's ports.conf listens on it as soon as the module is there; a second directive would stop Apache."""
    assert [listen.argument for listen in examine([secure("a")]).elsewhere] == ["80", "443"]
    assert examine([secure("a")]).listens == {"a": []}
    assert examine([secure("a")], installed=False).listens == {"a": []}
    assert examine([secure("a", port=8443)]).listens == {"a": ["8443"]}
    assert [listen.argument for listen in examine([secure("a", state="absent")]).elsewhere] == ["80"]


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


@pytest.mark.parametrize("installed", [True, False])
def test_apache_does_not_listen_where_no_site_answers(examine, installed):
    """As on a store of a cluster. The directive comes back with a site that needs it, of whomever, and when the sites go."""
    store = site("graphite-store", port=8081, address="192.0.2.7")
    first = examine([store], installed=installed, disable_default_site=True)
    text = first.ports_file()["content"]
    assert "\n# Listen 80\n" in text
    assert "\tListen 443\n" in text
    assert first.listens == {"graphite-store": ["192.0.2.7:8081"]}
    taken = {"ports.conf": text}
    assert examine([store], taken, disable_default_site=True).ports_file() is None
    front = examine([store, site("graphite")], taken, disable_default_site=True)
    assert front.ports_file()["content"] == apache.PACKAGED_PORTS
    assert front.listens == {"graphite-store": ["192.0.2.7:8081"], "graphite": []}
    shop = {"sites-enabled/shop.conf": "<VirtualHost *:80>\n</VirtualHost>\n"}
    assert examine([store], {**taken, **shop}, disable_default_site=True).ports_file()["content"] == apache.PACKAGED_PORTS


def test_apache_listens_again_when_the_sites_are_gone(examine):
    store = site("graphite-store", port=8081, address="192.0.2.7")
    text = examine([store], disable_default_site=True).ports_file()["content"]
    gone = examine([{**store, "state": "absent"}], {"ports.conf": text})
    assert gone.ports_file()["content"] == apache.PACKAGED_PORTS
    # With a default site, another site, or a port of the administrator's, Apache listens as before.
    assert examine([store]).ports_file() is None
    shop = {"sites-enabled/shop.conf": "<VirtualHost *:8080>\n</VirtualHost>\n"}
    assert examine([store], shop, disable_default_site=True).ports_file() is None
    (Path(examine([store]).configuration.root) / "sites-enabled/shop.conf").unlink()
    assert examine([store], {"ports.conf": "Listen 80\nListen 90\n"}, disable_default_site=True).ports_file() is None


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


def test_the_port_of_tls_is_judged_like_the_other(examine):
    (problem,) = examine([secure("graphite")], sockets=NGINX.format(443) + APACHE).problems()
    assert "site 'graphite' has port 443, but nginx, process 12, unit nginx.service holds 0.0.0.0:443" in problem
    assert problem.endswith("or give the site another port (port in graphite_web_tls).")
    assert examine([secure("graphite")], sockets=NGINX.format(443) + APACHE).ports_file() is None
    # Its own port is another, and Debian's directive is in the way of a program that was there before.
    other = examine([secure("graphite", port=8443)], sockets=NGINX.format(443) + APACHE)
    assert other.problems() == []
    assert "\t# Listen 443\n" in other.ports_file()["content"]
    (problem,) = examine([secure("a", port=8443)], {"conf-enabled/more.conf": "Listen 127.0.0.2:8443\n"}).problems()
    assert "all addresses of port 8443" in problem


CERTBOT = f"""<IfModule mod_ssl.c>
<VirtualHost *:443>
    ServerName graphite.example
    WSGIScriptAlias / {SCRIPT} process-group=graphite application-group=%{{GLOBAL}}
SSLCertificateFile /etc/letsencrypt/live/graphite.example/fullchain.pem
SSLCertificateKeyFile /etc/letsencrypt/live/graphite.example/privkey.pem
Include /etc/letsencrypt/options-ssl-apache.conf
</VirtualHost>
</IfModule>
"""


def test_a_copy_of_certbot_is_refused_unless_the_site_has_its_certificate(examine, tmp_path):
    files = {**SSL, "sites-enabled/graphite-le-ssl.conf": CERTBOT}
    (problem,) = examine([site("graphite", replaces=[SCRIPT])], files).problems()
    assert problem.startswith(f"{tmp_path}/sites-enabled/graphite-le-ssl.conf (line 2) serves the application of site 'graphite' over TLS")
    assert "set graphite_web_server_name and graphite_web_tls" in problem
    live = "/etc/letsencrypt/live/graphite.example"
    assert f"{{certificate: {live}/fullchain.pem, key: {live}/privkey.pem}}" in problem
    assert "a2dissite graphite-le-ssl" in problem
    (problem,) = examine([site("wiki", replaces=[SCRIPT])], files).problems()
    assert "set server_name and tls of the site" in problem
    kept = examine([secure("graphite", replaces=[SCRIPT])], files)
    assert (kept.problems(), kept.replaced) == ([], ["graphite-le-ssl"])
    assert not any("le-ssl" in message for message in kept.shadows())
    assert examine([site("graphite", replaces=[SCRIPT], state="absent")], files).problems() == []


UPSTREAM = """<VirtualHost *:80>
    WSGIDaemonProcess graphite processes=5 threads=5
    WSGIScriptAlias / /opt/graphite/conf/graphite.wsgi
</VirtualHost>
"""


def test_a_group_of_processes_with_the_name_of_a_site_is_refused_before_apache_does(examine, tmp_path):
    files = {"sites-enabled/upstream.conf": UPSTREAM}
    (problem,) = examine([site("graphite")], files).problems()
    assert problem.startswith(f"{tmp_path}/sites-enabled/upstream.conf (line 2) has a WSGIDaemonProcess graphite")
    assert "The file serves /opt/graphite/conf/graphite.wsgi. Disable the file (a2dissite upstream), or" in problem
    assert examine([site("wiki")], files).problems() == []
    replaced = examine([site("graphite", replaces=["/opt/graphite/conf/graphite.wsgi"])], files)
    assert (replaced.problems(), replaced.replaced) == ([], ["upstream"])


def test_a_site_of_somebody_else_with_the_same_name_does_not_lose_its_certificate(examine):
    other = UPSTREAM.replace(":80>", ":443>\nSSLCertificateFile /etc/ssl/certs/ssl-cert-snakeoil.pem")
    wanted = site(
        "graphite", wsgi_script="/etc/graphite/graphite.wsgi", replaces=["/etc/graphite/graphite.wsgi", "/opt/graphite/conf/graphite.wsgi"]
    )
    (problem,) = examine([wanted], {**SSL, "sites-enabled/graphite.conf": other}).problems()
    assert "{certificate: /etc/ssl/certs/ssl-cert-snakeoil.pem}" in problem
    own = other.replace("/opt/graphite/conf", "/etc/graphite")
    assert examine([wanted], {**SSL, "sites-enabled/graphite.conf": own}).problems() == []


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


def test_another_site_on_the_port_of_tls_is_named_once(examine):
    ours = {**OURS, "tls": {"port": 443}}
    text = "<VirtualHost *:443>\nServerAlias *\n</VirtualHost>\n"
    (message,) = examine([ours], {**SSL, "sites-enabled/all.conf": text}, disable_default_site=True).shadows()
    assert "all.conf (line 1) answers for graphite.example, web1.example, localhost" in message
    both = text.replace("*:443", "*:80 *:443")
    assert len(examine([ours], {**SSL, "sites-enabled/all.conf": both}, disable_default_site=True).shadows()) == 1
    assert examine([OURS], {**SSL, "sites-enabled/all.conf": text}, disable_default_site=True).shadows() == []


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
        ({"home": "wiki"}, "home is 'wiki'"),
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


def test_a_user_without_a_home_directory_needs_a_directory_to_start_in(examine, monkeypatch):
    # Apache's own user has a home directory that the package makes; mod_wsgi does not look at it.
    homes = {"nobody": "/nonexistent", "alice": "/home/alice", "_graphite": "/nonexistent", "root": "/", "www-data": "/nonexistent"}
    monkeypatch.setattr(apache.pwd, "getpwnam", lambda name: SimpleNamespace(pw_dir=homes[name]))
    monkeypatch.setattr(apache.os.path, "isdir", lambda path: path != "/nonexistent")

    def problems(user, sandbox=False, **more):
        return examine([site("wiki", user=user, group="root", **more)]).problems(sandbox)

    (problem,) = problems("nobody", home="")
    assert problem.startswith("apache_wsgi_sites: the processes of site 'wiki' start in the home directory of the user 'nobody', ")
    assert problem.endswith(" which does not exist. Give the site a directory to start in, such as home: /.")
    (problem,) = problems("root", home="/nonexistent")
    assert problem == "apache_wsgi_sites: site 'wiki' has home /nonexistent, which does not exist. Create the directory first."
    assert problems("nobody", home="/") == problems("_graphite") == problems("www-data") == problems("root", sandbox=True) == []
    (problem,) = problems("alice", sandbox=True)
    assert "which apache_wsgi_sandbox hides" in problem
    assert problems("alice") == problems("alice", sandbox=True, readable=["/home/alice/wiki"]) == []
    assert problems("alice", sandbox=True, python_path="/home/alice") == []
    assert problems("alice", sandbox=True, writable=["/home/alice/data"]) == []


def test_modules_that_the_sites_need_are_enabled(examine):
    enabled = {f"mods-enabled/{name}.load": "" for name in ("alias", "headers", "wsgi")}
    available = {"mods-available/alias.conf": "", "mods-available/wsgi.conf": ""}
    plain, with_aliases = site("a"), site("b", aliases=[{"url": "/static/", "path": "/srv/static"}])
    assert examine([with_aliases], installed=False).module_files() == ["headers.load"]
    assert examine([site("a", state="absent")], available).module_files() == []
    assert examine([plain], available).module_files() == ["headers.load", "wsgi.conf", "wsgi.load"]
    assert examine([plain, with_aliases]).module_files() == ["alias.conf", "alias.load", "headers.load", "wsgi.conf", "wsgi.load"]
    assert examine([with_aliases], enabled).module_files() == []


def test_the_modules_of_tls_come_and_go_with_it(examine, tmp_path):
    recorded = ["socache_shmcb.load", "ssl.conf", "ssl.load"]
    enabled = {f"mods-enabled/{name}.load": "" for name in ("alias", "headers", "mime", "setenvif", "wsgi")}
    available = {**enabled, "mods-available/ssl.conf": ""}
    assert examine([secure("a")], installed=False).module_files() == ["headers.load", *recorded]
    first = examine([secure("a")], available)
    assert first.module_files() == first.recorded_module_files([]) == recorded
    assert first.unneeded_module_files(recorded) == []
    # Another run has nothing to enable, and remembers.
    files = {**available, "mods-enabled/socache_shmcb.load": "", "mods-enabled/ssl.load": SSL["mods-enabled/ssl.load"]}
    again = examine([secure("a")], files)
    assert (again.module_files(), again.recorded_module_files(recorded)) == ([], recorded)
    # What an administrator has enabled is not recorded.
    assert again.recorded_module_files([]) == []
    plain = examine([site("a")], files)
    assert plain.recorded_module_files(recorded) == []
    assert plain.unneeded_module_files(recorded) == ["socache_shmcb.load", "ssl.load"]
    other = examine([site("a")], {"sites-enabled/shop.conf": "<VirtualHost *:443>\nSSLCertificateFile /c\n</VirtualHost>\n"})
    assert other.unneeded_module_files(recorded) == []


def test_what_the_administrator_says_of_the_version_stays(examine):
    """Debian's own file says that the version is shown."""
    text = "ServerTokens OS\n"
    sums = {}

    def is_free(**files):
        examination = examine([site("graphite")], {f"conf-enabled/{name}.conf": text for name, text in files.items()})
        path = f"{examination.configuration.root}/conf-enabled/security.conf"
        sums.setdefault(path, apache.file_checksum(path))
        return examination.is_version_free(sums)

    assert is_free(security=text)
    assert not is_free(security="ServerTokens Full\n")
    assert is_free(security=text)
    assert not is_free(own=text)


def test_what_else_apache_serves_is_named_before_it_gets_a_sandbox(examine):
    files = {"sites-enabled/shop.conf": "<VirtualHost *:80>\n</VirtualHost>\n", "sites-enabled/graphite.conf": ""}
    examination = examine([site("graphite")], files, disable_default_site=True)
    (problem,) = examination.sandbox_problems(examination.customizations({}))
    assert "Apache also reads sites-enabled/shop.conf," in problem
    assert "apache_wsgi_sandbox" in problem


def test_the_configuration_of_a_module_that_sites_need_is_the_package_s(monkeypatch):
    owners = {"apache2": "security.conf", "libapache2-mod-auth-openidc": "auth_openidc.conf"}

    def dpkg(command):
        lines = [f" /etc/apache2/conf-available/{name} {'0' * 32}\n" for package, name in owners.items() if package in command]
        return SimpleNamespace(stdout="".join(lines))

    monkeypatch.setattr(apache, "run", dpkg)
    assert [path.rpartition("/")[2] for path in apache._packaged_checksums()] == [*owners.values()]


NAMED = {"graphite_web_server_name": "graphite.example.org"}
PATHS = {"certificate": "/etc/le/full.pem", "key": "/etc/le/key.pem"}


@pytest.fixture
def written(role_validation):
    """Return what the role writes for a site of graphite-web with TLS, by the path; and the units that it runs."""

    def written(**tls):
        wanted = role_validation.value("graphite_web", "__graphite_web_site", {**NAMED, "graphite_web_tls": tls})
        host = {"listens": {"graphite": []}, "server_aliases": {"graphite": ["web1"]}, "ports_file": None, "module_files": ["ssl.load"]}
        host["recorded_module_files"] = ["ssl.load"] if tls else []
        host["unneeded_module_files"] = [] if tls else ["ssl.load"]
        host["is_version_free"] = True
        variables = {"apache_wsgi_sites": [wanted], "__apache_wsgi_host": host, "__apache_wsgi_unwanted_sites": []}
        variables["__apache_wsgi_examination"] = {"paths": []}
        files = {file["path"]: file for file in role_validation.listed("apache_wsgi", "files.yml.j2", variables)}
        return files, role_validation.listed("apache_wsgi", "services.yml.j2", variables)

    return written


SITE_FILE = "/etc/apache2/sites-available/graphite.conf"


def test_a_site_with_tls_redirects_and_lets_the_authority_through(written):
    files, (apache2, watch) = written(**PATHS, hsts=300, port=8443)
    text = files[SITE_FILE]["content"]
    plain, encrypted = text.split("<VirtualHost ")[1:]
    assert plain.startswith("*:80>")
    assert '<LocationMatch "^/(?!\\.well-known/acme-challenge/|graphite-health$)">\n        Require all granted\n' in plain
    assert "Redirect 308 / https://graphite.example.org:8443/\n" in plain
    assert "Alias /.well-known/acme-challenge/ /var/www/html/.well-known/acme-challenge/" in plain
    assert "WSGIScriptAlias" not in plain
    assert encrypted.startswith("*:8443>")
    lines = ["SSLCertificateFile /etc/le/full.pem", "SSLCertificateKeyFile /etc/le/key.pem", "SSLProtocol -all +TLSv1.2 +TLSv1.3"]
    lines += ["SSLSessionTickets off", "SSLHonorCipherOrder off", 'Strict-Transport-Security "max-age=300"', "WSGIScriptAlias / /etc/"]
    assert [line for line in lines if line not in encrypted] == []
    assert "SSLCertificateChainFile" not in encrypted
    # Both share the processes.
    assert text.index("WSGIDaemonProcess graphite ") < text.index("<VirtualHost")
    assert text.count("WSGIDaemonProcess") == 1
    assert apache2["sockets"] == [{"port": 80}, {"port": 8443}]
    assert {*PATHS.values()} <= set(apache2["files"])
    unit = "/etc/systemd/system/apache-wsgi-graphite.path"
    assert watch == {"name": "apache-wsgi-graphite.path", "files": [unit]}
    assert "PathChanged=/etc/le/full.pem\nPathChanged=/etc/le/key.pem\n" in files[unit]["content"]
    assert "reload.py \\\n    /etc/le/full.pem /etc/le/key.pem\n" in files[unit.replace(".path", ".service")]["content"]
    assert files["/etc/apache-wsgi/modules"]["content"] == "ssl.load\n"


def test_a_site_with_tls_may_serve_without_as_well(written):
    files, _units = written(self_signed=True, redirect=False, minimum_version="TLSv1.3", ciphers="ECDHE+AESGCM")
    plain, encrypted = files[SITE_FILE]["content"].split("<VirtualHost ")[1:]
    assert "Redirect 308" not in plain
    assert "WSGIScriptAlias" in plain
    assert "Alias /.well-known/acme-challenge/" in plain
    assert "SSLCertificateFile /etc/apache-wsgi/graphite.pem" in encrypted
    assert "SSLProtocol -all +TLSv1.3\n    SSLCipherSuite ECDHE+AESGCM\n" in encrypted
    assert "Strict-Transport-Security" not in encrypted


def test_a_site_without_tls_has_nothing_of_it(written):
    files, units = written()
    assert len(units) == 1
    assert "SSL" not in files[SITE_FILE]["content"]
    assert "acme" not in files[SITE_FILE]["content"]
    assert files["/etc/apache2/mods-enabled/ssl.load"]["state"] == "absent"
    assert not any("apache-wsgi" in path for path in files)


def test_no_text_of_a_key_goes_where_it_is_shown(role_validation, written):
    key = "-----BEGIN PRIVATE KEY-----\nhidden\n-----END PRIVATE KEY-----\n"
    tls = {"certificate": "-----BEGIN CERTIFICATE-----\nmine\n-----END CERTIFICATE-----\n", "key": key}
    assert "hidden" not in str(written(**tls))
    sites = [site("graphite", tls=tls, server_name="graphite.example.org")]
    shown = role_validation.value("apache_wsgi", "__apache_wsgi_requirements", {"apache_wsgi_sites": sites})
    assert "hidden" not in str(shown)
    assert shown["apache"]["sites"][0]["tls"]["key_file"] == "/etc/apache-wsgi/graphite.key"
    (wanted,) = certificates_of(sites)
    assert (wanted["key_text"], wanted["variable"], "key" in wanted) == (key, "graphite_web_tls", False)
    (wanted,) = certificates_of([site("wiki", tls={**PATHS, "authority": "/ca"}, server_name="wiki.example:8080")])
    assert wanted["variable"] == "apache_wsgi_sites: tls of site 'wiki'"
    assert {"server_name": "wiki.example", "authority": "/ca", **PATHS}.items() <= wanted.items()
    assert certificates_of([site("a"), site("b", tls={"self_signed": True}, state="absent")]) == []


def test_what_is_left_of_a_certificate_is_removed(role_validation):
    of_ours = ["/etc/apache-wsgi/graphite.pem", "/etc/apache-wsgi/graphite.key", "/etc/systemd/system/apache-wsgi-graphite.path"]
    of_another = ["/etc/apache-wsgi/wiki.key", "/etc/systemd/system/apache-wsgi-wiki.path"]
    shared = ["/etc/apache-wsgi", "/etc/apache-wsgi/reload.py"]

    def remains(paths, **options):
        variables = {"apache_wsgi_sites": [site("graphite", server_name="a.example", **options)]}
        variables["__apache_wsgi_examination"] = {"paths": paths}
        return set(role_validation.value("apache_wsgi", "__apache_wsgi_remains", variables))

    assert remains(["/etc/apache2"]) == set()
    # With the directory, what it holds.
    assert remains([*of_ours, *shared]) == {*of_ours, "/etc/apache-wsgi"}
    assert remains([*of_ours, *shared, *of_another]) == {*of_ours}
    assert remains([*of_ours, *shared], tls={"self_signed": True}) == set()
    assert remains([*of_ours, *shared], tls=PATHS) == {*of_ours[:2]}


def test_a_site_is_asked_on_both_ports(role_validation):
    plain, encrypted = complete_sites([site("a", tls={"self_signed": True}, server_name="a.example", address="::1", port=81)])[0]["probes"]
    assert plain == {"url": "http://[::1]:81/", "host_header": "a.example"}
    file = "/etc/apache-wsgi/a.pem"
    assert encrypted == {"url": "https://a.example:443/", "connect_address": "::1", "ca_path": file, "certificate": file}
    assert complete_sites([site("a")])[0]["probes"] == [{"url": "http://127.0.0.1:80/", "host_header": "localhost"}]


def test_the_ports_of_sites_with_and_without_tls_differ():
    sites = [site("a", port=443, **APPLICATION), site("b", tls={"self_signed": True}, server_name="b.example", **APPLICATION)]
    (problem,) = apache_wsgi_problems({"sites": sites})
    assert "site 'b' has port 443 with TLS, and site 'a' has it without" in problem
    (problem,) = apache_wsgi_problems({"sites": [site("b", port=443, tls={"self_signed": True}, server_name="b.example", **APPLICATION)]})
    assert "site 'b': tls: port is 443, which is the port without TLS as well" in problem
    (problem,) = apache_wsgi_problems({"sites": [site("b", tls={"self_signed": True}, **APPLICATION)]})
    assert "tls is set, but server_name of site 'b' is not" in problem


def test_methods_and_directories_that_cannot_be_are_refused():
    wanted = site("a", **APPLICATION, methods=["GET", "post", 5], readable=["/srv/a", "b"], writable=["/srv/a b"])
    problems = apache_wsgi_problems({"sites": [wanted]})
    assert len(problems) == 4
    assert sum("methods has 'post'" in problem or "methods has '5'" in problem for problem in problems) == 2
    assert any("readable[1] is 'b'" in problem for problem in problems)
    assert any("writable[0] is '/srv/a b'" in problem for problem in problems)


def test_a_site_keeps_every_character(role_validation):
    directive = 'Header set X-Team "größe \U0001f680"'
    wanted = site("wiki", **APPLICATION, extra_directives=[directive], watched_files=["/srv/\U0001f680"])
    host = {"listens": {"wiki": []}, "server_aliases": {"wiki": []}, "ports_file": None, "module_files": ["headers.load"]}
    host["is_version_free"] = False
    variables = {"apache_wsgi_sites": [wanted], "__apache_wsgi_host": host, "__apache_wsgi_unwanted_sites": ["old"]}
    variables["__apache_wsgi_examination"] = {"paths": []}
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
