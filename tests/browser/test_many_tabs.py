"""More pages at once than a browser has connections to one host."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import BUILD_MS, Person, Repos, held_by
from tests.journeys.test_launch import PLAIN_APP

TABS = 8  # Chromium keeps six connections to one host


def test_pages_of_ready_sessions_leave_the_browser_its_connections(person: Person, repos: Repos) -> None:
    (url, make), page = repos, person.page
    make("o/app", PLAIN_APP)
    person.launch(f"{url}/o/app")
    page.wait_for_url(re.compile(r"^http://\w+\.localhost"), timeout=BUILD_MS)
    address = f"{person.home}/launches/{person.launches()[0]['id']}"
    tabs = [person.context.new_page() for _ in range(TABS)]
    for tab in tabs:
        tab.goto(address)
        expect(tab.get_by_role("link", name="Open", exact=True)).to_be_visible()
    tabs[-1].get_by_role("button", name="Stop").click()
    for tab in tabs:
        expect(tab.get_by_text("Nothing of it is left").first).to_be_visible(timeout=30_000)
    assert person.complaints == []


def test_a_page_that_only_looks_on_is_opened_too(person: Person, repos: Repos, gate: Path) -> None:
    (url, make), page = repos, person.page
    make("o/slow", {"postBuild": held_by(gate), **PLAIN_APP})
    person.launch(f"{url}/o/slow")
    expect(page.locator("#log")).to_contain_text("line number 5", timeout=BUILD_MS)
    page.route("**/events?*", lambda route: route.fulfill(status=503))  # no stream gets through any more
    page.reload()
    gate.touch()
    page.wait_for_url(re.compile(r"^http://\w+\.localhost"), timeout=BUILD_MS)
