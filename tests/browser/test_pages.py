"""The pages, for whoever uses them in whichever way."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.browser.shared import APP, FAILING, World, world
from tests.waiting import until

__all__ = ["world"]  # a fixture, found by its name

WIDTHS = (320, 390, 640, 1280)  # the smallest phone, a phone, a 1280 px screen at 200 %, a screen


def test_the_skip_link_leads_past_the_header(world: World) -> None:
    with world.person() as page:
        page.goto(f"{world.url}/sessions")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_its_screen(world: World, scheme: str) -> None:
    long = "a-name-that-is-as-long-as-a-name-may-be-and-has-no-blank-at-all"[:63]
    running = world.ready(world.repository("wide/app", APP), name=f"{scheme}-{long}"[:63], path="/a/" + "b" * 90)
    failed = world.launch(world.repository("wide/failing", FAILING), name=f"{scheme}-failing")
    until(lambda: world.reached(failed["id"], "stopped"), seconds=60, what=world.broker.log())
    unseen = world.repository(f"wide/unseen-{scheme}-{'x' * 60}", APP)
    with world.person(color_scheme=scheme, reduced_motion="reduce") as page:
        for path in ("/", "/sessions", f"/launches/{running['id']}", f"/launches/{failed['id']}", "/nothing-here"):
            page.goto(world.url + path)
            fits(page)
        page.goto(f"{world.url}/?repo={quote(unseen)}")
        page.get_by_role("button", name="Launch").click()
        expect(page.get_by_role("button", name="Run it")).to_be_visible()
        fits(page)
    with world.visitor(color_scheme=scheme) as visitor:
        page = visitor.new_page()
        page.goto(world.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("Please sign in first")
        fits(page)
    world.stop(running["id"])


def fits(page: Page) -> None:
    """Nothing to scroll to the side, targets as large as a finger, one heading of the first level."""
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{page.url} is {over} px too wide at {width} px"
    small = page.evaluate(
        "[...document.querySelectorAll('button, .button, nav a, summary, input:not([type=radio]):not([type=hidden])')]"
        ".filter(one => one.offsetParent && (one.closest('label') || one).getBoundingClientRect().height < 44)"
        ".map(one => one.outerHTML)"
    )
    assert small == []
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1


def test_a_name_that_is_none_is_said_beside_the_name(world: World) -> None:
    with world.person() as page:
        page.goto(f"{world.url}/?repo=o/r&name=no+blanks")
        page.get_by_role("button", name="Launch").click()
        expect(page.get_by_role("alert")).to_contain_text("A name has letters")
        expect(page.get_by_label("Name")).to_be_focused()
        expect(page.get_by_label("Repository")).to_have_value("o/r")


def test_two_tabs_see_the_same_end(world: World) -> None:
    launch = world.ready(world.repository("tabs/app", APP))
    with world.person() as page:
        other = page.context.new_page()
        for tab in (page, other):
            tab.goto(f"{world.url}/launches/{launch['id']}")
            expect(tab.get_by_role("link", name="Open", exact=True)).to_be_visible()
        expect(page.locator("#steps")).to_contain_text("Building")
        page.get_by_role("button", name="Stop").click()
        for tab in (page, other):
            expect(tab.get_by_role("heading", name="This session has ended")).to_be_visible(timeout=30_000)


def test_words_of_a_build_are_text_and_nothing_else(world: World) -> None:
    """A stranger's repository writes into the log; no word of it becomes part of the page."""
    evil = "#!/bin/sh\necho '<img src=x onerror=alert(1)><h1>mine</h1></pre>'\nexit 1\n"
    launch = world.launch(world.repository("words/evil", {"postBuild": evil}), name="words")
    with world.person() as page:
        page.goto(f"{world.url}/launches/{launch['id']}")
        expect(page.locator(".panel.failed")).to_be_visible(timeout=60_000)
        expect(page.locator("#log")).to_contain_text("<img src=x onerror=alert(1)><h1>mine</h1></pre>")
        page.reload()
        expect(page.locator("#log")).to_contain_text("<img src=x onerror=alert(1)><h1>mine</h1></pre>")
        assert page.locator("h1").count() == 1
        assert page.locator("img").count() == 0


def test_what_has_a_version_is_kept_and_everything_else_asked_after(world: World) -> None:
    with world.person() as page:
        address = page.locator("link[rel=stylesheet]").evaluate("link => link.href")
        assert "immutable" in page.request.get(address).headers["cache-control"]
        for other in (f"{address}0", f"{world.url}/static/app.css"):
            assert page.request.get(other).headers["cache-control"] == "no-cache"
        assert page.request.get(world.url).headers["cache-control"] == "no-store"
