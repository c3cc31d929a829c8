# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""A headless Chromium as a person uses it, for the tests of all scenarios."""

from __future__ import annotations

import shutil

from playwright.sync_api import expect

# The sandbox needs rights that root in a container lacks; nothing but the host under test is looked at.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def start(playwright, *flags, **options):
    """Return a browser, with further flags of Chromium and options of ``launch``."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "install Chromium (Debian: apt-get install chromium)"
    return playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, *flags], **options)


def failures_of(page):
    """Return a list that gets every request and every script of a page that fails from now on."""
    failures = []
    page.on("response", lambda response: failures.append(f"{response.status} {response.url}") if response.status >= 400 else None)
    # "csp" is what the site's policy keeps in the browser: the font that graphite-web loads from a third party.
    expected = ("csp", "net::ERR_ABORTED")
    page.on(
        "requestfailed", lambda request: failures.append(f"{request.failure} {request.url}") if request.failure not in expected else None
    )
    # A mistake in graphite-web's own page, after it has saved.
    page.on("pageerror", lambda error: failures.append(str(error)) if "newURL is not defined" not in str(error) else None)
    return failures


def log_in(page, name, password):
    """Fill in graphite-web's form."""
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", password)
    page.press("input[name=password]", "Enter")
    page.wait_for_load_state("networkidle")


def wait_for_graphs(graphs, count, wait_until):
    """Wait until a page has so many graphs, given as a locator, and all pictures of graphite-web are drawn."""
    expect(graphs).to_have_count(count, timeout=30_000)
    drawn = "[...document.querySelectorAll('img[src*=\"render?\"]')].every((image) => image.complete && image.naturalWidth > 100)"
    wait_until(lambda: graphs.page.evaluate(drawn), message="not every graph was drawn")
