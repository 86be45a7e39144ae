"""The whole journey by keyboard alone: from somebody's launch link into the session, back, and to its end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import BUILD_MS, DESK, PHONE, held_by
from tests.browser.shared import APP, World, world

__all__ = ["world"]  # a fixture, found by its name

STOPS_MOST = 60
# Where the keyboard is: what it is called, whether that is seen, and how far down the page it comes.
HERE = """() => {
    const one = document.activeElement;
    if (!one || one === document.body) return null;
    const box = (one.closest(".place, .size, .tick") || one).getBoundingClientRect();
    const style = getComputedStyle(one.closest(".place, .size") || one);
    const at = document.elementFromPoint(box.x + box.width / 2, box.y + Math.min(box.height, innerHeight - box.y) / 2);
    if (window.now !== one) [window.before, window.now] = [window.now, one];
    return {
        name: one.labels?.[0]?.innerText || one.getAttribute("aria-label") || one.innerText || one.name,
        ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
        seen: box.bottom > 0 && box.top < innerHeight &&
            (one.contains(at) || at?.contains(one) || !!at?.closest("label, .place")),
        follows: !window.before || !window.before.isConnected ||
            !!(window.before.compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING),
    };
}"""
HEARD = """() => {
    window.heard = [];
    for (const one of document.querySelectorAll("[role=status], [aria-live], [role=alert]"))
        new MutationObserver(() => window.heard.push(one.textContent)).observe(one,
            { childList: true, characterData: true, subtree: true });
}"""


class Hands:
    """Somebody who has a keyboard and nothing else. Wherever they come, they see where they are."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def to(self, name: str) -> None:
        """On with Tab to what is called so: forwards through the page, never back and never in a circle."""
        for _ in range(STOPS_MOST):
            if self.stop() == name:
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the keyboard does not come to {name!r}")

    def stop(self) -> str:
        """What it is called where they are; empty at the edge of the page."""
        here = self.page.evaluate(HERE)
        if here is None:
            return ""
        assert here["ring"], f"nothing shows that the focus is on {here['name']!r}"
        assert here["seen"], f"{here['name']!r} has the focus out of sight"
        assert here["follows"], f"{here['name']!r} comes before what it is reached from"
        return re.sub(r"\s+", " ", here["name"]).strip()

    def press(self, name: str) -> None:
        self.to(name)
        self.page.keyboard.press("Enter")

    def stops(self) -> list[str]:
        """Everything that the keyboard comes to, from the top of the page until it leaves it."""
        found: list[str] = []
        self.page.locator(".skip").focus()
        while name := self.stop():
            found.append(name)
            assert len(found) < STOPS_MOST, f"no way out of the page: {found[-5:]}"
            self.page.keyboard.press("Tab")
        return found


@pytest.fixture
def hands(world: World) -> Iterator[Hands]:
    with world.person(
        viewport=DESK, reduced_motion="reduce"
    ) as page:  # nothing is still scrolling when it is looked at
        yield Hands(page)


@pytest.mark.parametrize("path", ["/", "/sessions", "/connect", "/account", "/link", "/go", "/running"])
def test_the_keyboard_comes_through_every_page_and_out_of_it(hands: Hands, world: World, path: str) -> None:
    hands.page.goto(world.url + path)
    stops = hands.stops()
    assert stops[:2] == ["Skip to the content", "Anybinder"]
    assert stops[-1] == "Français", "the languages are the last thing on the page"
    assert "" not in stops


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_from_a_link_into_the_session_and_to_its_end(world: World, tmp_path: Path, size: dict[str, int]) -> None:
    gate = tmp_path / "gate"
    files = {**APP, "postBuild": held_by(gate), "README.md": str(size)}
    repo = world.repository(f"keys/app-{size['width']}", files)
    link = f"{world.url}/v2/git/{quote(repo, safe='')}/main?choose=1"
    with world.person(viewport=size, reduced_motion="reduce") as page:
        hands = Hands(page)
        page.goto(link)
        expect(page.get_by_text("Found:")).to_be_visible()
        page.evaluate("document.activeElement.blur()")

        # Past the header, to the place, and on.
        page.keyboard.press("Tab")
        assert hands.stop() == "Skip to the content"
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.keyboard.press("Tab")
        hands.to("Repository")
        hands.to("This computer")
        page.keyboard.press("Space")
        expect(page.get_by_role("radio", name="This computer")).to_be_checked()
        hands.press("Launch")

        # What is at stake is read, and agreed to.
        expect(page.get_by_role("heading", level=1)).to_have_text("Run this on your computer?")
        hands.press("Run it")

        # Waiting: what goes on is said, and the log unfolds.
        page.wait_for_url("**/launches/**")
        page.evaluate(HEARD)
        hands.press("Log")
        expect(page.locator("#log")).to_be_visible()
        page.keyboard.press("Tab")
        assert hands.stop() == "Log", "the log can be scrolled"
        launch = page.url
        gate.touch()
        page.wait_for_url(re.compile(r"^http://\w+\.localhost"), timeout=BUILD_MS)
        expect(page.get_by_role("heading", name="hello from /")).to_be_visible()

        # Back, and stopped.
        page.goto(f"{launch}?watch")
        expect(page.get_by_role("heading", level=2, name="Ready")).to_be_visible()
        page.evaluate(HEARD)
        page.keyboard.press("Tab")
        hands.press("Stop")
        expect(page.get_by_role("heading", name="This session has ended")).to_be_visible(timeout=30_000)
        page.keyboard.press("Tab")
        hands.to("Launch again")


def test_what_becomes_of_a_launch_is_said_to_who_does_not_look(world: World, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    launch = world.launch(world.repository("keys/heard", {**APP, "postBuild": held_by(gate) + "exit 1\n"}))
    with world.person() as page:
        page.goto(f"{world.url}/launches/{launch['id']}")
        page.evaluate(HEARD)
        gate.touch()
        expect(page.get_by_role("heading", name="This launch failed")).to_be_visible(timeout=60_000)
        assert page.evaluate("window.heard")[-1] == "This launch failed"


def test_what_was_wrong_is_where_the_focus_is(hands: Hands, world: World) -> None:
    repo = world.repository("keys/wrong", APP)
    hands.page.goto(f"{world.url}/?repo={quote(repo)}")
    hands.page.evaluate("document.activeElement.blur()")
    hands.to("Branch, tag or commit optional")
    hands.page.keyboard.type("no-such-branch")
    hands.page.keyboard.press("Enter")
    expect(hands.page.get_by_role("alert")).to_be_visible()
    assert hands.stop() == "Branch, tag or commit optional"
    field = hands.page.locator(":focus")
    said = field.evaluate(
        "one => one.getAttribute('aria-describedby').split(' ').map(id => document.getElementById(id).textContent)"
    )
    assert "no-such-branch" in said[0]


def test_nothing_on_these_pages_opens_over_them(world: World) -> None:
    """No dialog, so none to close with Escape and none to be caught in: what unfolds stays where it is in the page."""
    with world.person() as page:
        for path in ("/", "/sessions", "/account", "/link", "/go"):
            page.goto(world.url + path)
            assert page.locator("dialog, [role=dialog], [popover], [aria-haspopup]").count() == 0
