# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A person at a browser, which trusts the authority of the site and has to log in before it shows anything."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from chromium import failures_of, log_in, start, wait_for_graphs
from conftest import PASSWORD, ROOT
from playwright.sync_api import Error, expect

STACK = os.environ.get("MOLECULE_HOST", "metricstack-closed")
NAME = "graphite.test.example"
SITE = f"https://{NAME}"
AUTHORITY = "/etc/test-authority/root.pem"
FLAG = f"--host-resolver-rules=MAP {NAME} 10.213.78.10"
DASHBOARD = "a dashboard of mine"
GRAPHS = "img[src*='render?']"
STORED = """
import json, sqlite3, sys
connection = sqlite3.connect("file:/var/lib/graphite/graphite.db?mode=ro", uri=True)
print(json.dumps(connection.execute("SELECT state FROM dashboard_dashboard WHERE name = ?", sys.argv[1:]).fetchall()))
"""


def on_stack(*command):
    return subprocess.run(["docker", "exec", STACK, *command], check=True, capture_output=True, text=True).stdout


def start_at_home(playwright, home):
    return start(playwright, FLAG, env={**os.environ, "HOME": str(home)})


@pytest.fixture(scope="session")
def browser(playwright, tmp_path_factory):
    """Return a browser that trusts the authority as a person's does: it is in the person's database of certificates."""
    home = tmp_path_factory.mktemp("home")
    database = home / ".pki" / "nssdb"
    database.mkdir(parents=True)
    (home / "root.pem").write_text(on_stack("cat", AUTHORITY))
    for command in (["-N", "--empty-password"], ["-A", "-n", "tests", "-t", "C,,", "-i", str(home / "root.pem")]):
        subprocess.run(["certutil", "-d", f"sql:{database}", *command], check=True, capture_output=True)
    one = start_at_home(playwright, home)
    yield one
    one.close()


@pytest.fixture
def page(browser):
    """Return a page of a browser that nobody has used before; at its end, no request may have failed."""
    context = browser.new_context(base_url=SITE, viewport={"width": 1280, "height": 960})
    one = context.new_page()
    failures = failures_of(one)
    yield one
    context.close()
    assert failures == []


def shoot(page, name):
    (ROOT / "artifacts").mkdir(exist_ok=True)
    page.screenshot(path=ROOT / "artifacts" / f"closed-{name}.png")


def test_a_browser_without_the_authority_does_not_open_the_site(playwright, tmp_path):
    stranger = start_at_home(playwright, tmp_path)
    try:
        with pytest.raises(Error, match="ERR_CERT_AUTHORITY_INVALID"):
            stranger.new_page().goto(f"{SITE}/")
    finally:
        stranger.close()


def test_who_has_not_logged_in_is_led_to_the_form_and_back(page, wait_until):
    for path in ("/", "/composer", "/render?target=carbon.agents.*.cpuUsage"):
        page.goto(path)
        assert page.url.startswith(f"{SITE}/account/login?nextPage="), page.url
    page.goto("/dashboard/Carbon%20health")
    expect(page.locator("input[name=password]")).to_be_visible()
    shoot(page, "login")
    log_in(page, "alice", "the password of alice")
    # The page adds a fragment when it has loaded.
    assert page.url.partition("#")[0] == f"{SITE}/dashboard/Carbon%20health"
    wait_for_graphs(page.locator(GRAPHS), 11, wait_until)
    (cookie,) = [cookie for cookie in page.context.cookies() if cookie["name"] == "sessionid"]
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")


def test_http_leads_to_https(page):
    page.goto(f"http://{NAME}/account/login")
    assert page.url == f"{SITE}/account/login"


def test_a_person_saves_a_dashboard_and_logs_out(page, wait_until):
    page.goto("/dashboard/Carbon%20health")
    log_in(page, "admin", PASSWORD)
    wait_for_graphs(page.locator(GRAPHS), 11, wait_until)
    # As a click on a series in the list does, and the dialog "Save as".
    page.evaluate("() => { graphAreaToggle('carbon.agents.*.metricsReceived'); }")
    wait_for_graphs(page.locator(GRAPHS), 12, wait_until)
    page.evaluate("() => saveDashboard()")
    dialog = page.locator(".x-window").filter(has_text="Save Dashboard")
    dialog.locator("input").fill(DASHBOARD)
    with page.expect_response("**/dashboard/save/**") as saved:
        dialog.get_by_role("button", name="OK").click()
    assert saved.value.json() == {"success": True}
    ((state,),) = json.loads(on_stack("runuser", "-u", "_graphite", "--", "python3", "-c", STORED, DASHBOARD))
    targets = [graph[1]["target"] for graph in json.loads(state)["graphs"]]
    assert len(targets) == 12
    assert ["carbon.agents.*.metricsReceived"] in targets
    shoot(page, "dashboard")
    page.goto(f"/dashboard/{DASHBOARD}")
    wait_for_graphs(page.locator(GRAPHS), 12, wait_until)
    shoot(page, "saved")
    # The page would still ask for graphs while the next one is loaded.
    page.goto("about:blank")
    page.goto("/account/logout")
    page.goto(f"/dashboard/{DASHBOARD}")
    assert "/account/login?nextPage=" in page.url


def test_a_link_to_a_picture_runs_nothing(page):
    page.goto("/account/login")
    log_in(page, "alice", "the password of alice")
    said = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto("/render?format=svg&target=alias(carbon.agents.*.cpuUsage,%22]]%3E%3C/script%3E%3Cscript%3Ealert(1)%3C/script%3E%22)")
    shoot(page, "svg")
    assert said == []
    assert "<svg" in page.content()


def test_a_page_of_another_site_deletes_nothing(page, browser, tmp_path):
    page.goto("/account/login")
    log_in(page, "admin", PASSWORD)
    before = on_stack("runuser", "-u", "_graphite", "--", "python3", "-c", STORED, "Carbon health")
    other = page.context.new_page()
    other.route("https://evil.example/**", lambda route: route.fulfill(body="<html>", content_type="text/html"))
    other.goto("https://evil.example/")
    with other.expect_navigation():
        other.evaluate("(site) => { location = site + '/dashboard/delete/Carbon%20health'; }", SITE)
    assert "A page of another site has asked for this change." in other.content()
    assert on_stack("runuser", "-u", "_graphite", "--", "python3", "-c", STORED, "Carbon health") == before
