# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A person at a browser: logs in, opens the dashboards, sees graphs."""

from __future__ import annotations

import re
import shutil

import pytest
from conftest import PASSWORD, ROOT
from playwright.sync_api import expect, sync_playwright

# The sandbox needs rights that root in a container lacks; nothing but the host under test is looked at.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "install Chromium (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield one
        one.close()


@pytest.fixture
def page(browser, address):
    """Return a page of a browser that is logged in; at its end, no request may have failed."""
    context = browser.new_context(base_url=f"http://{address()}", viewport={"width": 1280, "height": 1860})
    one = context.new_page()
    failures = []
    one.on("response", lambda response: failures.append(f"{response.status} {response.url}") if response.status >= 400 else None)
    # "csp" is what the site's policy keeps in the browser: the font that graphite-web loads from a third party.
    expected = ("csp", "net::ERR_ABORTED")
    one.on(
        "requestfailed", lambda request: failures.append(f"{request.failure} {request.url}") if request.failure not in expected else None
    )
    # A mistake in graphite-web's own page, after it has saved.
    one.on("pageerror", lambda error: failures.append(str(error)) if "newURL is not defined" not in str(error) else None)
    one.goto("/account/login")
    one.fill("input[name=username]", "admin")
    one.fill("input[name=password]", PASSWORD)
    one.press("input[name=password]", "Enter")
    one.wait_for_load_state("networkidle")
    yield one
    context.close()
    assert failures == []


def graphs(page):
    return page.locator("img[src*='/render?'], img[src*='render?target']")


@pytest.fixture
def wait_for_graphs(wait_until):
    return lambda page, count: _wait_for_graphs(page, count, wait_until)


def _wait_for_graphs(page, count, wait_until):
    expect(graphs(page)).to_have_count(count, timeout=30_000)
    drawn = "[...document.querySelectorAll('img[src*=\"render?\"]')].every((image) => image.complete && image.naturalWidth > 100)"
    wait_until(lambda: page.evaluate(drawn), message="not every graph was drawn")


def test_the_go_dashboard_is_drawn(page, wait_for_graphs):
    page.goto("/dashboard/Go%20runtime")
    wait_for_graphs(page, 11)
    page.wait_for_load_state("networkidle")
    expect(page).to_have_title(re.compile("Go runtime"))
    expect(page.get_by_text("Now showing the past 1 hours")).to_be_visible()
    titles = page.evaluate(
        "() => [...document.querySelectorAll('img[src*=\"render?\"]')].map((image) => new URL(image.src).searchParams.get('title'))"
    )
    assert titles == [
        "Longest GC pause",
        "GC pause, percentiles",
        "Median GC pause",
        "GC pauses",
        "GC share of the processors",
        "Allocation rate",
        "Latest GC pause",
        "GC count",
        "Goroutines",
        "Memory allocations",
        "Memory taken from the system",
    ]
    (ROOT / "artifacts").mkdir(exist_ok=True)
    page.screenshot(path=ROOT / "artifacts" / "go-dashboard.png")


@pytest.mark.parametrize(("name", "count"), [("StatsD health", 6), ("Carbon health", 11), ("运行时", 1)])
def test_the_other_dashboards_are_drawn(page, wait_for_graphs, name, count):
    page.goto(f"/dashboard/{name}")
    wait_for_graphs(page, count)
    page.screenshot(path=ROOT / "artifacts" / f"dashboard-{count}.png")


def test_a_dashboard_that_a_browser_saves_unchanged_is_no_change(page, wait_for_graphs, playbook):
    page.goto("/dashboard/Go%20runtime")
    wait_for_graphs(page, 11)
    with page.expect_response("**/dashboard/save/**") as saved:
        page.evaluate("() => sendSaveRequest('Go runtime')")
    assert saved.value.json() == {"success": True}
    status, output = playbook("graphite_web.yml", check=True)
    assert status == 0, output
    assert "changed=0" in output, output
