# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Graphite-web under a prefix, behind a proxy that has the certificate; and the path that load balancers ask."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
from urllib.parse import urlencode, urljoin, urlsplit

import pytest
import testinfra
from chromium import start
from conftest import PASSWORD

STACK = os.environ.get("MOLECULE_HOST", "metricstack-closed")
PEER = f"{STACK}-peer"
NAME = "graphite.test.example"
PEER_NAME = "peer.test.example"
PREFIX = "/tools/graphite"
PROXY = "10.213.78.21"
# An address that nobody has, and may post events.
GUEST = "192.0.2.55"
SHARED = {
    # Slashes at its ends do not matter.
    "graphite_web_url_prefix": "tools/graphite/",
    "graphite_web_allowed_hosts": [PEER_NAME],
    "graphite_web_access_without_login": [{"name": "somebody", "networks": [GUEST], "areas": ["events"]}],
}
# By the kind of the site: the port of the proxy that asks it, and its variables.
KINDS = {"over TLS": (8443, {}), "without TLS": (8444, {"graphite_web_tls": {}})}
FORM = "application/x-www-form-urlencoded"
HEALTH = "/graphite-health"

testinfra_hosts = [f"ansible://{STACK}"]


def address_of(name):
    (found,) = json.loads(subprocess.run(["docker", "inspect", name], check=True, capture_output=True).stdout)
    return next(iter(found["NetworkSettings"]["Networks"].values()))["IPAddress"]


def anybody():
    """Return a context that takes any certificate: who has which is a matter of other tests."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def ask(place, port, path, method="GET", body=None, secure=True, **headers):
    """Return status, headers and body; cookies are a list."""
    connection = (
        http.client.HTTPSConnection(place, port, timeout=30, context=anybody())
        if secure
        else http.client.HTTPConnection(place, port, timeout=30)
    )
    try:
        connection.request(method, path, body, {name.replace("__", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {**dict(answer.getheaders()), "cookies": answer.headers.get_all("Set-Cookie") or []}, answer.read()
    finally:
        connection.close()


def raw(place, port, request, secure=False):
    """Send a request as it is, and return the first line of the answer and its body."""
    with socket.create_connection((place, port), timeout=10) as plain:
        connection = anybody().wrap_socket(plain) if secure else plain
        connection.sendall(request)
        answer = b""
        while received := connection.recv(65536):
            answer += received
    head, _end, body = answer.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0].decode(), body


class Site:
    """The site by one way through the proxy, and as who is not the proxy sees it."""

    def __init__(self, kind):
        self.port, own = KINDS[kind]
        self.variables = {**SHARED, **own}
        self.is_secure = not own
        self.peer, self.stack = address_of(PEER), address_of(STACK)

    def proxied(self, path, method="GET", body=None, **headers):
        return ask(self.peer, self.port, path, method, body, Host=f"{PEER_NAME}:{self.port}", **headers)

    def direct(self, path, method="GET", body=None, **headers):
        port = 443 if self.is_secure else 80
        return ask(self.stack, port, path, method, body, self.is_secure, **{"Host": NAME, **headers})

    def log_in(self):
        """Return the cookie of the session of a user who logs in with the form."""
        form = urlencode({"username": "admin", "password": PASSWORD, "nextPage": f"{PREFIX}/dashboard"}).encode()
        origin = f"https://{PEER_NAME}:{self.port}"
        status, headers, _body = self.proxied(
            f"{PREFIX}/account/login", "POST", form, Content__Type=FORM, Origin=origin, Sec__Fetch__Site="same-origin"
        )
        assert (status, headers["Location"]) == (302, f"{PREFIX}/dashboard")
        (cookie,) = headers["cookies"]
        return cookie


@pytest.fixture(scope="module", params=KINDS)
def site(request, run_ansible):
    """A site whose variables have been applied."""
    found = Site(request.param)
    status, output, errors = run_ansible("ansible-playbook", "playbooks/site.yml", "-e", json.dumps(found.variables))
    assert status == 0, (output + errors)[-4000:]
    return found


@pytest.fixture(scope="module", autouse=True)
def restored(run_ansible):
    """Give the next file the site of the inventory."""
    yield
    assert run_ansible("ansible-playbook", "playbooks/site.yml")[0] == 0


@pytest.fixture
def last_in_log(host):
    """Return who sent the last request with a text, by the log of the site."""

    def address(text):
        lines = [line for line in host.file("/var/log/apache2/graphite_access.log").content_string.splitlines() if text in line]
        return lines[-1].split()[0]

    return address


def test_another_run_changes_nothing(site, playbook):
    status, output = playbook("site.yml", site.variables)
    assert status == 0, output[-4000:]
    assert re.search(r"changed=[1-9]", output.partition("PLAY RECAP")[2]) is None
    status, output = playbook("site.yml", site.variables, check=True)
    assert status == 0, output[-4000:]
    assert re.search(r"changed=[1-9]", output.partition("PLAY RECAP")[2]) is None
    assert not re.search(r"(?m)^\+\+\+ ", output)


def test_the_stack_is_verified_under_the_prefix(site, playbook, tmp_path):
    status, output = playbook("verify.yml", {**site.variables, "verify_artifacts_directory": str(tmp_path)})
    assert status == 0, output[-4000:]


def test_a_login_by_the_form_has_a_cookie_of_its_own(site):
    cookie = site.log_in()
    assert f"Path={PREFIX};" in f"{cookie};"
    assert "Secure" in cookie


def test_a_dashboard_is_saved_and_opened_with_all_that_its_page_needs(site):
    session = site.log_in().partition(";")[0]
    page = {"Cookie": session, "Sec__Fetch__Site": "same-origin", "Origin": f"https://{PEER_NAME}:{site.port}"}
    state = json.dumps({"name": "behind", "graphs": [["target=a", {"target": ["carbon.agents.*.cpuUsage"]}, "/render?target=a"]]})
    form = urlencode({"state": state}).encode()
    status, _headers, body = site.proxied(f"{PREFIX}/dashboard/save/behind", "POST", form, Content__Type=FORM, **page)
    assert (status, json.loads(body)) == (200, {"success": True})
    assert json.loads(site.proxied(f"{PREFIX}/dashboard/load/behind", **page)[2])["state"]["name"] == "behind"
    status, _headers, body = site.proxied(f"{PREFIX}/dashboard/behind", **page)
    assert status == 200
    text = body.decode()
    assert f'data-base-url="{PREFIX}/"' in text
    # The dashboard's own script forgets the prefix of these pictures.
    assert "/render?" in text.partition("</head>")[0]
    needed = {urljoin(f"{PREFIX}/dashboard/behind", path) for path in re.findall(r'(?:src|href)="([^"#]+)"', text)}
    assert len(needed) > 5
    for path in needed:
        assert path.startswith(f"{PREFIX}/static/")
        assert site.proxied(path)[0] == 200, path
    styles = site.proxied(f"{PREFIX}/static/css/dashboard.css")[2].decode()
    for path in re.findall(r"url\(([^)]+)\)", styles):
        assert site.proxied(urljoin(f"{PREFIX}/static/css/", path.strip("'\"")))[0] == 200
    for path in ("", "composer", "browser/header", "dashboard", "events/", "metrics/find/?query=*", "render?target=a&format=json"):
        assert site.proxied(f"{PREFIX}/{path}", **page)[0] == 200, path
    status, _headers, body = site.proxied(f"{PREFIX}/dashboard/delete/behind", "POST", b"", **page)
    assert (status, json.loads(body)) == (200, {"success": True})


@pytest.fixture
def page(playwright, site):
    """Return a page of a browser, for which the proxy is the site; at its end, no request and no script may have failed."""
    failures = []
    browser = start(playwright, f"--host-resolver-rules=MAP {PEER_NAME} {site.peer}")
    place = f"https://{PEER_NAME}:{site.port}"
    one = browser.new_context(base_url=place, ignore_https_errors=True, viewport={"width": 1280, "height": 1200}).new_page()
    one.on("response", lambda response: failures.append(f"{response.status} {response.url}") if response.status >= 400 else None)
    one.on("pageerror", lambda error: failures.append(str(error)))
    yield one
    browser.close()
    assert failures == []


def test_a_person_sees_the_dashboard_and_the_history_of_a_graph(page, wait_until):
    page.goto(f"{PREFIX}/account/login?nextPage={PREFIX}/dashboard/Carbon%20health")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_url(f"**{PREFIX}/dashboard/Carbon%20health**")

    def are_drawn(selector):
        script = "(all) => all.length > 3 && all.every((image) => image.complete && image.naturalWidth > 100)"
        return page.eval_on_selector_all(selector, script)

    wait_until(lambda: are_drawn("img.graph-img"), timeout=60, message="not every graph was drawn")
    page.evaluate("historyGraph(graphStore.getAt(0))")
    wait_until(lambda: are_drawn(".x-window img.graph-img"), timeout=60, message="not every graph of the history was drawn")


def test_redirects_stay_under_the_prefix(site):
    session = {"Cookie": site.log_in().partition(";")[0], "Sec__Fetch__Site": "same-origin"}
    for path in ("/", PREFIX):
        status, headers, _body = site.proxied(path)
        assert (status, headers["Location"]) == (302, f"{PREFIX}/")
    assert site.proxied("/version/")[0] == 404
    assert site.proxied("/static/css/dashboard.css")[0] == 404
    status, _headers, short = site.proxied(f"{PREFIX}/s/render/?target=a&format=json", **session)
    assert status == 200
    assert short.decode().startswith(f"{PREFIX}/S/")
    assert site.proxied(short.decode(), **session)[1]["Location"] == f"{PREFIX}/render/?target=a&format=json"
    status, headers, _body = site.proxied(f"{PREFIX}/account/logout", **session)
    assert (status, headers["Location"]) == (302, f"{PREFIX}/")
    status, headers, _body = site.proxied(f"{PREFIX}/admin/", Accept="text/html", Sec__Fetch__Mode="navigate")
    assert status == 302
    assert headers["Location"].startswith(f"{PREFIX}/")


def test_forms_of_the_admin_pages_are_taken_from_the_proxy(site):
    status, headers, body = site.proxied(f"{PREFIX}/admin/login/")
    assert status == 200
    token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', body)[1].decode()
    (cookie,) = headers["cookies"]
    assert "Secure" in cookie
    assert f"Path={PREFIX};" in f"{cookie};"
    form = urlencode({"username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": token, "next": f"{PREFIX}/admin/"}).encode()
    place = f"https://{PEER_NAME}:{site.port}"
    sent = {"Content__Type": FORM, "Cookie": cookie.partition(";")[0]}
    answers = [
        site.proxied(f"{PREFIX}/admin/login/", "POST", form, Origin=origin, Referer=f"{origin}{PREFIX}/admin/login/", **sent)[0]
        for origin in (place, "https://other.test.example")
    ]
    assert answers == [302, 403]


def test_the_client_is_who_the_proxy_says_and_nobody_else(site, last_in_log):
    event = json.dumps({"what": "proof", "data": ""}).encode()
    path = f"{PREFIX}/events/"
    site.direct(f"{PREFIX}/version/?plain")
    controller = last_in_log("version/?plain")
    # The controller is no proxy: what it claims counts for nothing, directly and through the proxy, which hands it on.
    for number, claim in enumerate(({}, {"X__Forwarded__For": GUEST}, {"X_Forwarded_For": GUEST, "X__Real__Ip": GUEST})):
        for way, ask_site in (("direct", site.direct), ("proxied", site.proxied)):
            assert ask_site(f"{path}?{way}{number}", "POST", event, **claim)[0] == 401
            assert last_in_log(f"{way}{number}") == controller
    # The proxy itself is believed.
    peer = testinfra.get_host(f"docker://{PEER}")
    place = f"{'https' if site.is_secure else 'http'}://{NAME}{path}"
    port = 443 if site.is_secure else 80
    command = f"curl --interface {PROXY} -sk -o /dev/null -w '%%{{http_code}}' --resolve %s:%s:%s -H %s -H 'Via: 1.1 proxy' --data %s %s"
    for client, status in ((GUEST, "200"), (f"{GUEST}, 192.0.2.56", "401"), (f"192.0.2.56, {GUEST}", "401"), ("unknown", "401")):
        asked = peer.check_output(command, NAME, str(port), site.stack, f"X-Forwarded-For: {client}", event.decode(), place)
        assert asked == status, client
    assert last_in_log("POST") == PROXY  # of whom it says nothing


def test_only_the_proxy_says_that_a_client_has_tls(site):
    form = urlencode({"username": "admin", "password": PASSWORD}).encode()
    for claim in ({}, {"X__Forwarded__Proto": "https"}, {"X_Forwarded_Proto": "https"}):
        _status, headers, _body = site.direct(f"{PREFIX}/account/login", "POST", form, Content__Type=FORM, **claim)
        (cookie,) = headers["cookies"]
        assert ("Secure" in cookie) == site.is_secure
    # Neither does a client that asks for a host by another header.
    assert site.direct(f"{PREFIX}/version/", Host="evil.example", X__Forwarded__Host=NAME)[0] == 400


def test_a_load_balancer_is_answered_whatever_it_asks_for(site):
    ports = {80: False, **({443: True} if site.is_secure else {})}
    for port, secure in ports.items():
        for request in (
            b"GET %s HTTP/1.0\r\n\r\n",
            b"GET %s HTTP/1.1\r\nHost: 203.0.113.9:8080\r\nConnection: close\r\n\r\n",
            b"GET %s HTTP/1.1\r\nHost: no_name.example\r\nConnection: close\r\n\r\n",
        ):
            assert raw(site.stack, port, request % HEALTH.encode(), secure) == ("HTTP/1.1 200 OK", b"ok\n")
        status, body = raw(site.stack, port, b"HEAD %s HTTP/1.0\r\n\r\n" % HEALTH.encode(), secure)
        assert (status, body) == ("HTTP/1.1 200 OK", b"")
    # By no other path, and no other path by such names.
    for path in (f"{HEALTH}/", f"{HEALTH}/x", f"{PREFIX}{HEALTH}"):
        assert site.direct(path)[0] == 404, path
    assert site.direct(f"{PREFIX}/version/", Host="203.0.113.9")[0] == 400
    assert site.proxied(HEALTH)[0] == 200


def test_a_load_balancer_is_answered_behind_another_site(site, host, wait_until):
    other = "<VirtualHost *:80>\nServerName other.test.example\nDocumentRoot /var/www/html\n</VirtualHost>\n"
    file = "/etc/apache2/sites-enabled/000-other.conf"
    host.run_expect([0], f"printf '{other}' > {file} && systemctl reload apache2")

    def status(path):
        return ask(site.stack, 80, path, secure=False, Host="nobody.test.example")[0]

    try:
        wait_until(lambda: status("/none") == 404, message="the other site is not in front")
        assert status(HEALTH) == 200
    finally:
        host.run_expect([0], f"rm {file} && systemctl reload apache2")


@pytest.mark.parametrize("path", ["/var/lib/graphite/whisper", "/var/lib/graphite/graphite.db"])
def test_a_site_that_cannot_answer_says_so(site, host, wait_until, carbon_stopped, path):
    mode = host.check_output("stat -c %%a %s", path)

    def answers(status):
        # Each process of the site finds out for itself.
        return {ask(site.stack, 80, HEALTH, secure=False)[::2] for _try in range(8)} == {status}

    # Carbon needs the same directory.
    with carbon_stopped():
        host.run_expect([0], f"chmod 000 {path}")
        try:
            wait_until(lambda: answers((503, b"unavailable\n")), timeout=20, message="a broken site says that it works")
        finally:
            host.run_expect([0], f"chmod {mode} {path}")
    wait_until(lambda: answers((200, b"ok\n")), timeout=20, message="the site does not recover")


def test_what_cannot_be_a_prefix_is_refused_before_the_first_change(site, playbook):
    wrong = {"graphite_web_url_prefix": "/a//b", "graphite_web_trusted_proxies": ["10.0.0.1/8", "0.0.0.0/0"]}
    status, output = playbook("site.yml", {**site.variables, **wrong})
    assert status != 0
    for words in ("graphite_web_url_prefix is '/a//b'", "has '10.0.0.1/8'", "has '0.0.0.0/0', which is everybody", "ok=0 "):
        assert words in output
    assert urlsplit(site.proxied("/")[1]["Location"]).path == f"{PREFIX}/"
