"""The pages, for whoever uses them in whichever way."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import APP, FAILING, LINES, READY_SECONDS, World
from tests.waiting import until

FIRST_PAGE_BYTES = 100_000
WIDTHS = (320, 390, 640, 1280)  # the smallest phone, a phone, a 1280 px screen at 200 %, a screen


def test_a_launch_by_keyboard_alone(world: World) -> None:
    repo = world.repository("keys/app", APP)
    with world.person() as page:
        expect(page.get_by_label("Repository")).to_be_focused()
        page.keyboard.type(repo)
        tab_to(page, "#go")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Run this on your computer?")
        tab_to(page, "main button")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r"//[a-z2-7]{12}\.localhost:"), timeout=READY_SECONDS * 1000)
        expect(page.get_by_role("heading", level=1)).to_have_text("hello from /")
        world.stop(page.url.split("//")[1].split(".")[0])


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until this has the focus, and see that it shows."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            return
    raise AssertionError(f"Tab does not lead to {selector}")


def test_the_skip_link_leads_past_the_header(world: World) -> None:
    with world.person() as page:
        page.goto(f"{world.url}/sessions")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_its_screen(world: World, scheme: str, picture: Callable[[Page, str], None]) -> None:
    long = "a-name-that-is-as-long-as-a-name-may-be-and-has-no-blank-at-all"[:63]
    running = world.ready(world.repository("wide/app", APP), name=f"{scheme}-{long}"[:63], path="/a/" + "b" * 90)
    failed = world.launch(world.repository("wide/failing", FAILING), name=f"{scheme}-failing")
    until(lambda: world.reached(failed["id"], "stopped"), seconds=60, what=world.broker.log())
    unseen = world.repository(f"wide/unseen-{scheme}-{'x' * 60}", APP)
    with world.person(color_scheme=scheme, reduced_motion="reduce") as page:
        for path in ("/", "/sessions", f"/launches/{running['id']}", f"/launches/{failed['id']}", "/nothing-here"):
            page.goto(world.url + path)
            fits(page)
            if scheme == "light" and path == "/sessions":
                page.set_viewport_size({"width": 390, "height": 844})
                picture(page, "phone")
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
    for details in page.locator("details:not([open]) > summary").all():
        details.click()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{page.url} is {over} px too wide at {width} px"
    small = page.evaluate(
        "[...document.querySelectorAll('button, .button, nav a, summary, input:not([type=radio]):not([type=hidden])')]"
        ".filter(one => one.offsetParent && one.getBoundingClientRect().height < 44).map(one => one.outerHTML)"
    )
    assert small == []
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1


def test_a_refused_repository_leaves_what_was_typed_and_says_why_beside_the_field(world: World) -> None:
    with world.person() as page:
        page.get_by_label("Repository").fill("https://example.invalid/no/such")
        page.get_by_label("Branch, tag or commit").fill("v1")
        page.get_by_label("File or URL to open").fill("a.ipynb")
        page.get_by_text("More", exact=True).click()
        page.get_by_label("Name").fill("mine")
        page.get_by_role("button", name="Launch").click()
        field = page.get_by_role("textbox", name="Repository")
        expect(page.get_by_role("alert")).to_be_visible()
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_be_focused()
        described = field.get_attribute("aria-describedby") or ""
        assert page.get_by_role("alert").get_attribute("id") in described.split()
        expect(field).to_have_value("https://example.invalid/no/such")
        expect(page.get_by_label("Branch, tag or commit")).to_have_value("v1")
        expect(page.get_by_label("File or URL to open")).to_have_value("a.ipynb")
        expect(page.get_by_label("Name")).to_have_value("mine")
        expect(page.get_by_label("This computer")).to_be_checked()


def test_a_name_that_is_none_is_said_beside_the_name(world: World) -> None:
    with world.person() as page:
        page.goto(f"{world.url}/?repo=o/r&name=no+blanks")
        page.get_by_role("button", name="Launch").click()
        expect(page.get_by_role("alert")).to_contain_text("A name has letters")
        expect(page.get_by_label("Name")).to_be_focused()
        expect(page.get_by_label("Repository")).to_have_value("o/r")


def test_a_branch_that_is_none_is_said_beside_the_branch(world: World) -> None:
    with world.person() as page:
        page.goto(f"{world.url}/?repo={quote(world.repository('refs/app', APP))}&ref=no-such-branch")
        expect(page.locator("#repo-found")).to_contain_text("no-such-branch")
        page.get_by_role("button", name="Launch").click()
        expect(page.get_by_label("Branch, tag or commit")).to_be_focused()
        expect(page.locator("#ref-problem")).to_be_visible()


def test_without_javascript_a_launch_gets_to_ready_and_opens(world: World) -> None:
    repo = world.repository("plain/app", APP)
    with world.person(java_script_enabled=False) as page:
        page.get_by_label("Repository").fill(repo)
        page.get_by_role("button", name="Launch").click()
        page.get_by_role("button", name="Run it").click()
        page.get_by_role("link", name="Open", exact=True).click(timeout=READY_SECONDS * 1000)
        expect(page.get_by_role("heading", level=1)).to_have_text("hello from /")
        page.goto(f"{world.url}/sessions")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("No session is running.")).to_be_visible(timeout=30_000)


def test_reloading_the_progress_page_doubles_no_line(world: World) -> None:
    launch = world.launch(world.repository("again/failing", FAILING))
    with world.person() as page:
        page.goto(f"{world.url}/launches/{launch['id']}")
        for at in (5, LINES // 2):
            page.locator("#log .line", has_text=f"line {at} of the build").wait_for(state="attached", timeout=60_000)
            page.reload()
        expect(page.locator(".panel.failed")).to_be_visible(timeout=30_000)
        until(lambda: world.reached(launch["id"], "stopped"), seconds=30, what=world.broker.log())
        expect(page.locator("#log .line").last).to_contain_text("Nothing of it is left.")
        shown = page.locator("#log .line").evaluate_all("lines => lines.map(line => Number(line.dataset.id))")
    events = world.broker.api("GET", f"/api/launches/{launch['id']}/events", headers={"Accept": "application/json"})
    assert shown == [event["id"] for event in events.json() if event["message"]]


def test_a_failed_build_offers_to_try_again_with_everything_kept(world: World) -> None:
    repo = world.repository("fail/failing", FAILING)
    with world.person() as page:
        page.goto(f"{world.url}/?repo={quote(repo)}&ref=main&path=a.ipynb&name=kept")
        page.get_by_role("button", name="Launch").click()
        page.get_by_role("button", name="Run it").click()
        expect(page.get_by_role("heading", name="This launch failed")).to_be_visible(timeout=60_000)
        expect(page.locator("#steps li.failed")).to_contain_text("Building")
        expect(page.locator("#log")).to_be_visible()
        page.get_by_role("link", name="Try again").click()
        for label, value in {"Repository": repo, "Branch, tag or commit": "main", "File or URL to open": "a.ipynb",
                             "Name": "kept"}.items():  # fmt: skip
            expect(page.get_by_label(label, exact=label in ("Name", "Repository"))).to_have_value(value)
        expect(page.locator("#recent-list")).to_contain_text("fail/failing")
        page.get_by_role("button", name=re.compile("^Remove .*fail/failing")).click()
        expect(page.locator("#recent")).to_be_hidden()


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


def test_a_commit_that_was_built_says_so(world: World) -> None:
    repo = world.repository("warm/app", APP)
    for _ in range(2):
        launch = world.ready(repo)
        world.stop(launch["id"])
    with world.person() as page:
        page.goto(f"{world.url}/launches/{launch['id']}")
        expect(page.locator("#steps li").nth(2)).to_contain_text("already built")


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


def test_the_first_page_is_light_and_keeps_to_this_computer(world: World) -> None:
    with world.person() as page:
        sizes: dict[str, int] = {}
        page.on("response", lambda answer: sizes.update({answer.url: len(answer.body())}))
        said: list[str] = []
        page.on("console", lambda line: said.append(line.text))
        page.goto(world.url, wait_until="networkidle")
        assert sum(sizes.values()) < FIRST_PAGE_BYTES
        assert all(url.startswith(f"{world.url}/") for url in sizes)
        assert said == []
        kept = page.request.get(page.locator("link[rel=stylesheet]").evaluate("link => link.href"))
        assert "immutable" in kept.headers["cache-control"]
        assert page.request.get(f"{world.url}/static/app.css").headers["cache-control"] == "no-cache"
