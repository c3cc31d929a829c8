# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A person at a browser: logs in, opens the dashboards, sees graphs."""

from __future__ import annotations

import re

import chromium
import pytest
from chromium import failures_of, log_in, start
from conftest import PASSWORD, ROOT
from playwright.sync_api import expect


@pytest.fixture(scope="session")
def browser(playwright):
    one = start(playwright)
    yield one
    one.close()


@pytest.fixture
def page(browser, address):
    """Return a page of a browser that is logged in; at its end, no request may have failed."""
    context = browser.new_context(base_url=f"http://{address()}", viewport={"width": 1280, "height": 1860})
    one = context.new_page()
    failures = failures_of(one)
    one.goto("/account/login")
    log_in(one, "admin", PASSWORD)
    yield one
    context.close()
    assert failures == []


def graphs(page):
    return page.locator("img[src*='/render?'], img[src*='render?target']")


@pytest.fixture
def wait_for_graphs(wait_until):
    return lambda page, count: chromium.wait_for_graphs(graphs(page), count, wait_until)


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
