# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""The site over TLS, from outside of the host: what a client is offered, a renewal without a run, and back again."""

from __future__ import annotations

import hashlib
import http.client
import json
import shlex
import socket
import ssl
from urllib.parse import urlencode

import pytest
from conftest import PASSWORD

PAGE = "docs/tls_and_logins.md"
NAME = "graphite.test.example"
TLS = {"graphite_web_server_name": NAME, "graphite_web_tls": {"self_signed": True, "hsts": 300}}
DIRECTORY = "/etc/apache-wsgi"
CHALLENGE = "/var/www/html/.well-known/acme-challenge"
WEAK_CIPHERS = "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"
# Both halves of a renewal, the certificate first, as links that are replaced.
RENEWAL = """
set -eu
cd /etc/test-certificates
new=$1
mkdir "$new"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj "/CN=$2" -addext "subjectAltName=DNS:$2" \
  -keyout "$new/privkey.pem" -out "$new/fullchain.pem"
for name in fullchain privkey; do
  rm -f "$name.pem"
  ln -s "$new/$name.pem" "$name.pem"
  sleep 2
done
"""


@pytest.fixture(scope="module")
def state():
    """What the tests of this file leave for each other: they are one story."""
    return {}


@pytest.fixture
def trusted(host):
    """Return a context that trusts a certificate on the host."""

    def context(path=f"{DIRECTORY}/graphite.pem"):
        return ssl.create_default_context(cadata=host.file(path).content_string)

    return context


@pytest.fixture
def connect(address):
    """Shake hands with the site by its name; return the connection."""

    def connect(context):
        return context.wrap_socket(socket.create_connection((address(), 443), timeout=10), server_hostname=NAME)

    return connect


@pytest.fixture
def shown(connect):
    """Return the digest of the certificate that the site shows, whoever has signed it."""

    def digest():
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with connect(context) as connection:
            return hashlib.sha256(connection.getpeercert(binary_form=True)).hexdigest()

    return digest


@pytest.fixture
def get(connect):
    """Ask the site over TLS; return status, headers and body."""

    def get(path, context, method="GET", body=None, headers=None):
        connection = http.client.HTTPConnection(NAME, 443)
        connection.sock = connect(context)
        try:
            connection.request(method, path, body, {"Host": NAME, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    return get


def test_the_site_gets_a_certificate(playbook, documented, host):
    instead = {"graphite.example.org": NAME, "self_signed: true": "self_signed: true\n  hsts: 300"}
    documented(PAGE, "first-hour", instead)
    key = host.file(f"{DIRECTORY}/graphite.key")
    assert (key.user, key.group, key.mode) == ("root", "root", 0o600)
    status, output = playbook("site.yml", TLS)
    assert status == 0
    assert "changed=0 " in output.partition("PLAY RECAP")[2]


def test_only_good_versions_and_ciphers_are_offered(trusted, connect):
    for version in ("TLSv1_2", "TLSv1_3"):
        context = trusted()
        context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
        with connect(context) as connection:
            assert connection.version() == version.replace("_", ".")
            name, _version, bits = connection.cipher()
            assert bits >= 128
            assert "GCM" in name or "CHACHA20" in name
            assert connection.compression() is None
            ticket = connection.session.has_ticket if version == "TLSv1_2" else False
            assert not ticket
    for version, ciphers in (("TLSv1_1", "ALL:@SECLEVEL=0"), ("TLSv1_2", WEAK_CIPHERS)):
        context = trusted()
        context.set_ciphers(ciphers)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = getattr(ssl.TLSVersion, version)
        with pytest.raises(OSError, match=r"(?i)alert|protocol|eof|reset"):
            connect(context)


def test_http_redirects_and_lets_a_certificate_authority_through(host, http_get):
    for path in ("/render?target=a%20b&format=json", "/a%3fb%20c%0d%0ad?e=%2f"):
        status, headers, _body = http_get(path)
        assert (status, headers["Location"]) == (308, f"https://{NAME}{path}")
    assert http_get("/events/", data=b"{}")[0] == 308
    host.check_output(f"mkdir -p {CHALLENGE} && echo proof > {CHALLENGE}/token")
    status, _headers, body = http_get("/.well-known/acme-challenge/token")
    assert (status, body) == (200, b"proof\n")
    assert http_get("/.well-known/acme-challenge/none")[0] == 404


def test_browsers_are_told_to_stay_and_cookies_are_secure(trusted, get):
    status, headers, _body = get("/", trusted())
    assert (status, headers["Strict-Transport-Security"], headers["X-Content-Type-Options"]) == (200, "max-age=300", "nosniff")
    form = urlencode({"username": "admin", "password": PASSWORD, "nextPage": "/dashboard"}).encode()
    login = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"https://{NAME}"}
    status, headers, _body = get("/account/login", trusted(), "POST", form, login)
    assert status == 302
    assert "sessionid=" in headers["Set-Cookie"]
    assert "Secure" in headers["Set-Cookie"]


def test_the_stack_is_verified_over_tls(playbook, tmp_path):
    status, output = playbook("verify.yml", {**TLS, "verify_artifacts_directory": str(tmp_path)})
    assert status == 0, output[-4000:]
    (values,) = tmp_path.glob("*.json")
    assert json.loads(values.read_text())["series"]


def test_a_wrong_certificate_is_refused_before_the_first_change(playbook, host, shown):
    before = shown()
    wrong = {"certificate": f"{DIRECTORY}/graphite.pem", "key": "/etc/ssl/none.key", "ciphers": "AES128-SHA"}
    status, output = playbook("site.yml", {"graphite_web_server_name": "other.test.example", "graphite_web_tls": wrong})
    assert status != 0
    assert "graphite_web_tls: key is /etc/ssl/none.key, which cannot be read" in output
    assert f"which is for {NAME} and not for other.test.example" in output
    assert "graphite_web_tls: ciphers is 'AES128-SHA'" in output
    assert "Nothing was changed" in output
    assert shown() == before
    assert host.file(f"{DIRECTORY}/graphite.pem").exists


def test_a_renewed_certificate_is_served_without_a_run(playbook, documented, host, shown, wait_until, trusted, get, state):
    def renew(number):
        host.run_expect([0], "mkdir -p /etc/test-certificates")
        assert host.run("sh -c %s renewal %s %s", RENEWAL, str(number), NAME).rc == 0

    renew(1)
    live = "/etc/test-certificates"
    paths = {"certificate": f"{live}/fullchain.pem", "key": f"{live}/privkey.pem", "authority": f"{live}/fullchain.pem"}
    state["paths"] = {**TLS, "graphite_web_tls": {**paths, "redirect": False}}
    state["instead"] = {
        "/etc/letsencrypt/live/graphite.example.org": live,
        "graphite.example.org": NAME,
        # No authority of the system has signed it, and the next test is about the redirect.
        "key: ": f"redirect: false\n  authority: {paths['authority']}\n  key: ",
    }
    documented(PAGE, "tls", state["instead"])
    assert not host.file(f"{DIRECTORY}/graphite.key").exists
    before = shown()
    pid = host.file("/run/apache2/apache2.pid").content_string
    renew(2)
    wait_until(lambda: shown() != before, timeout=10, message="the renewed certificate is not served")
    assert get("/version/", trusted(f"{live}/fullchain.pem"))[0] == 200
    assert host.file("/run/apache2/apache2.pid").content_string == pid, "Apache was restarted"
    status, output = playbook("site.yml", state["paths"])
    assert status == 0
    assert "changed=0 " in output.partition("PLAY RECAP")[2]


def test_without_the_redirect_both_ports_serve_the_site(http_get, get, trusted):
    status, _headers, plain = http_get("/version/")
    assert status == 200
    assert get("/version/", trusted("/etc/test-certificates/fullchain.pem"))[2] == plain


def test_nobody_reads_without_a_login(documented, address, state):
    documented(PAGE, "logins", state["instead"], variables={"vault_graphite_admin_password": PASSWORD})
    curl = f"curl --resolve {NAME}:443:{address()} --insecure"
    instead = {**state["instead"], "curl --silent": f"{curl} --silent", '"admin:$PASSWORD"': shlex.quote(f"admin:{PASSWORD}")}
    assert documented(PAGE, "ask", instead).split() == ["401", "200"]


def test_texts_are_written_and_no_key_is_shown(playbook, host, shown):
    text = {
        part: host.file(f"/etc/test-certificates/{file}").content_string
        for part, file in (("certificate", "fullchain.pem"), ("key", "privkey.pem"))
    }
    tls = {**text, "authority": "/etc/test-certificates/fullchain.pem"}
    before = shown()
    status, output = playbook("graphite_web.yml", {"graphite_web_server_name": NAME, "graphite_web_tls": tls})
    assert status == 0, output[-4000:]
    secret = text["key"].splitlines()[1]
    assert secret not in output
    assert host.file(f"{DIRECTORY}/graphite.key").content_string == text["key"]
    assert host.file(f"{DIRECTORY}/graphite.key").mode == 0o600
    assert shown() == before


def test_without_the_variable_nothing_of_it_is_left(playbook, host, http_get):
    status, output = playbook("site.yml")
    assert status == 0, output[-4000:]
    assert http_get("/version/")[0] == 200
    assert ":443 " not in host.run("ss -Hltn").stdout
    assert not host.file(DIRECTORY).exists
    left = host.run("ls /etc/systemd/system/apache-wsgi* /etc/apache2/mods-enabled/ssl* /etc/apache2/mods-enabled/socache*")
    assert left.stdout == ""
    assert "apache-wsgi" not in host.run("systemctl list-units --all --no-legend").stdout
    assert "SECURE" not in host.file("/etc/graphite/local_settings.py").content_string
    host.run(f"rm -rf /etc/test-certificates {CHALLENGE}")
    status, output = playbook("site.yml")
    assert status == 0
    assert "changed=0 " in output.partition("PLAY RECAP")[2]
