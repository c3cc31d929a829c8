# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Logins at an OpenID provider, on the peer. graphite_web_auth has openid_connect for these tests, in place of remote_user."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from conftest import PASSWORD, ROOT
from outside import reach

STACK = os.environ.get("MOLECULE_HOST", "metricstack-closed")
PEER = f"{STACK}-peer"
SECRET = "of-the-client-alone"
EVENT = json.dumps({"what": "a test of logins", "tags": "logins"})


def on_peer(*command):
    done = subprocess.run(["docker", "exec", PEER, *command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def site_with_a_provider(run_ansible):
    """Let users log in at the provider, and afterwards as the inventory says."""
    provider = {
        "metadata_url": f"https://{on_peer('hostname', '-I').split()[0]}:9443/.well-known/openid-configuration",
        "client_id": "graphite",
        "client_secret": SECRET,
        "ca_certificate": "/etc/ssl/directory.pem",
    }
    variables = json.dumps({"graphite_web_auth": {"openid_connect": provider}})
    status, output, errors = run_ansible("ansible-playbook", ROOT / "playbooks" / "site.yml", "-vvv", "-e", variables)
    assert status == 0, output + errors
    yield output + errors
    status, output, errors = run_ansible("ansible-playbook", ROOT / "playbooks" / "site.yml", "-vvv")
    assert status == 0, output + errors
    assert SECRET not in output + errors


class Browser:
    """Follows redirects and keeps cookies, as curl on the peer."""

    def __init__(self, site, name):
        self.url, self.options = site
        self.jar = f"/tmp/cookies-of-{name}"
        on_peer("rm", "-f", self.jar)

    def ask(self, url, *options):
        """Return the status, the address at the end and the body."""
        url = url if url.startswith("http") else self.url + url
        report = "\n%{http_code} %{url_effective}"
        jar = ("--cookie", self.jar, "--cookie-jar", self.jar, "--location", "--cacert", "/etc/ldap/tls/ca.pem")
        output = on_peer("curl", "--silent", "--show-error", "--max-time", "60", *jar, *self.options, "--write-out", report, *options, url)
        body, _newline, last = output.rpartition("\n")
        status, _space, address = last.partition(" ")
        return int(status), address, body

    def log_in(self, subject):
        """Go to the page of the login as graphite-web's own pages lead there; return the address at the end."""
        status, address, body = self.ask("/account/login?nextPage=/dashboard")
        assert (status, ":9443/oauth2/authorize?" in address) == (200, True), body
        return self.ask(address, "--data-urlencode", f"sub={subject}")[1]

    def post_event(self, *options):
        return self.ask("/events/", "--data", EVENT, *options)[0]


@pytest.fixture
def site(address):
    return reach(address())


def test_a_user_logs_in_at_the_provider_and_out(site):
    browser = Browser(site, "grace")
    assert browser.post_event() == 401
    assert browser.log_in("subject-of-grace") == f"{browser.url}/dashboard"
    assert browser.post_event() == 200
    assert "grace" in browser.ask("/dashboard")[2]
    browser.ask("/account/logout")
    assert browser.post_event() == 401
    browser.log_in("subject-of-grace")
    assert browser.post_event() == 200


def test_a_name_of_graphite_web_is_nobody_of_the_provider(site):
    browser = Browser(site, "admin")
    browser.log_in("subject-of-admin")
    assert browser.post_event() == 401


def test_who_has_no_session_at_the_provider_comes_in_as_before(site):
    browser = Browser(site, "nobody")
    assert browser.ask("/version/")[0] == 401
    assert browser.ask("/static/js/dashboard.js")[0] == 200
    assert browser.post_event("--user", f"admin:{PASSWORD}") == 200
    assert browser.post_event("--user", "admin:wrong") == 401
    assert browser.post_event("--header", "Remote-User: admin", "--header", "OIDC_CLAIM_preferred_username: admin") == 401
    assert browser.ask("/account/login?local")[0:2] == (200, f"{browser.url}/account/login?local")
    form = ["--data-urlencode", "username=admin", "--data-urlencode", f"password={PASSWORD}", "--data", "nextPage=/version/"]
    assert browser.ask("/account/login", *form)[0] == 200
    assert browser.post_event() == 200


@pytest.mark.parametrize("page", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_nobody_is_sent_to_another_site_after_a_login(site, page):
    browser = Browser(site, "grace")
    browser.log_in("subject-of-grace")
    report = ("--no-location", "--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}")
    jar = ("--cookie", browser.jar)
    answer = on_peer("curl", "--silent", *jar, *browser.options, *report, f"{browser.url}/account/openid/login?nextPage={page}")
    assert answer == f"302 {browser.url}/"


def test_the_secret_of_the_client_is_where_root_alone_reads_it(host, site_with_a_provider):
    assert SECRET not in site_with_a_provider
    found = host.run("grep -rlsF %s /etc /opt /root /run /srv /tmp /var", SECRET).stdout.splitlines()
    assert found == ["/etc/graphite/openid_connect.conf"]
    file = host.file(found[0])
    assert (file.user, file.mode) == ("root", 0o600)
