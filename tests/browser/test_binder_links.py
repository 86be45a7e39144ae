"""Somebody follows a Binder link: from the address to a running session, or to the form with everything filled in."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import shared
from tests.browser.conftest import BUILD_MS, IMAGES, SCREENSHOTS
from tests.browser.shared import APP, FAILING, World
from tests.browser.test_pages import fits
from tests.doubles import confined_local

NARROW = {"width": 320, "height": 700}
SESSION = re.compile(r"^http://\w{12}\.localhost:\d+/")


@pytest.fixture(scope="module")
def world(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A broker whose links run for visitors, and where the one local person has a choice."""
    folder = tmp_path_factory.mktemp("links")
    mine = {"name": "local", "provider": "local", "title": "This computer"}
    environment = confined_local.installed(folder / "packages", beside=(mine,))
    with shared.running(browser, folder, environment) as made:
        yield made
        confined_local.end_all(made.broker.home)


@pytest.fixture
def visitor(world: World) -> Iterator[Page]:
    """Somebody who has only the link."""
    with world.visitor() as context:
        yield context.new_page()
    confined_local.end_all(world.broker.home)


def link(world: World, name: str, files: dict[str, Any], query: str = "", ref: str = "main") -> str:
    return f"{world.url}/v2/git/{quote(world.repository(name, files), safe='')}/{ref}{query}"


def picture(page: Page, name: str) -> None:
    """For whoever wants to look."""
    if SCREENSHOTS:
        IMAGES.mkdir(exist_ok=True)
        page.screenshot(path=IMAGES / f"{name}.png", animations="disabled")


def arrived(page: Page, path: str) -> None:
    page.wait_for_url(re.compile(SESSION.pattern + re.escape(path.lstrip("/"))), timeout=BUILD_MS)
    assert "token" not in page.url


def test_a_link_leads_a_visitor_into_the_session(world: World, visitor: Page) -> None:
    complaints: list[str] = []
    visitor.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    visitor.goto(link(world, "links/app", APP, "?urlpath=greetings/from%20here"))
    arrived(visitor, "/greetings/from%20here")
    expect(visitor.get_by_role("heading")).to_have_text("hello from /greetings/from%20here")
    assert [one for one in complaints if "favicon" not in one] == []


def test_a_newcomer_without_any_login_fills_the_form_in_and_is_in_the_session(world: World, visitor: Page) -> None:
    """Two things to do: paste, and press."""
    visitor.goto(world.url)
    visitor.get_by_label("Repository", exact=True).fill(world.repository("links/app", APP))
    picture(visitor, "visitor-form")
    fits(visitor)
    visitor.get_by_role("button", name="Launch").click()
    arrived(visitor, "/")
    expect(visitor.get_by_role("heading")).to_have_text("hello from /")


def test_what_looks_like_another_program_keeps_its_slash(world: World, visitor: Page) -> None:
    visitor.goto(link(world, "links/app", APP, "?urlpath=rstudio/"))
    arrived(visitor, "/rstudio/")
    expect(visitor.get_by_role("heading")).to_have_text("hello from /rstudio/")


@pytest.mark.parametrize(
    "evil", ["https://evil.example/x", "//evil.example/x", "\\\\evil.example\\x", "../../../hub/home"]
)
def test_a_link_leads_nowhere_but_into_the_session(world: World, visitor: Page, evil: str) -> None:
    asked: list[str] = []
    visitor.on("request", lambda request: asked.append(request.url))
    visitor.goto(link(world, "links/app", APP, f"?urlpath={quote(evil, safe='')}"))
    visitor.wait_for_url(SESSION, timeout=BUILD_MS)
    expect(visitor.get_by_role("heading")).to_contain_text("hello from /")
    assert [url for url in asked if "evil" in url.partition("?")[0]] == []


def test_the_script_itself_sends_no_token_elsewhere(world: World, visitor: Page) -> None:
    """The server has looked at it already; the script does not rely on that."""
    address = link(world, "links/app", APP)
    html = world.broker.api("GET", address.removeprefix(world.url), headers={"Authorization": ""}).text

    def spoiled(route: Any) -> None:
        answer = route.fetch()
        text = answer.text().replace('data-opens=""', 'data-opens="https://evil.example/x"')
        assert text != html and "evil.example" in text
        route.fulfill(response=answer, body=text)

    visitor.route(re.compile(r".*/v2/.*"), spoiled)
    asked: list[str] = []
    visitor.on("request", lambda request: asked.append(request.url))
    visitor.goto(address)
    visitor.wait_for_url(SESSION, timeout=BUILD_MS)
    assert not any(url.startswith("https://evil") for url in asked)


def test_a_notebook_opens_in_jupyterlab(world: World, visitor: Page) -> None:
    notebook = {
        "cells": [
            {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None, "source": "6 * 7"}
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    visitor.goto(link(world, "links/lab", {"a b.ipynb": json.dumps(notebook)}, "?labpath=a%20b.ipynb"))
    visitor.wait_for_url(re.compile(SESSION.pattern + r"(doc|lab)/tree/a%20b\.ipynb"), timeout=BUILD_MS)
    cell = visitor.locator(".jp-Notebook .jp-CodeCell").first
    expect(visitor.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60_000)  # before, nothing runs it
    cell.locator(".cm-content").click(timeout=60_000)
    visitor.keyboard.press("Shift+Enter")
    expect(cell.locator(".jp-OutputArea-output")).to_have_text("42", timeout=60_000)


def test_a_link_of_nbgitpuller_arrives_whole(world: World, visitor: Page) -> None:
    content = world.repository("links/content", {"index.ipynb": "{}"})
    inner = f"git-pull?repo={quote(content, safe='')}&urlpath=lab%2Ftree%2Fcontent%2Findex.ipynb&branch=main"
    visitor.goto(link(world, "links/app", APP, f"?urlpath={quote(inner, safe='')}"))
    visitor.wait_for_url(re.compile(SESSION.pattern + r"git-pull\?"), timeout=BUILD_MS)
    assert visitor.url.split("/", 3)[3] == inner


def test_the_page_says_how_far_it_is(world: World, visitor: Page, tmp_path_factory: pytest.TempPathFactory) -> None:
    gate = tmp_path_factory.mktemp("gate") / "gate"
    held = {
        **APP,
        "postBuild": f"#!/bin/sh\nfor i in 1 2 3; do echo line $i; done\nuntil [ -e {gate} ]; do sleep 0.05; done\n",
    }
    visitor.goto(link(world, "links/held", held))
    expect(visitor.get_by_role("heading", level=2)).to_have_text("Building its environment", timeout=30_000)
    expect(visitor.locator("[aria-current=step]")).to_have_text("Building")
    expect(visitor.get_by_role("status")).to_have_text("Building its environment")
    expect(visitor.locator("#log")).to_contain_text("line 3")
    expect(visitor.get_by_role("button", name="Start")).to_be_hidden()
    expect(visitor.get_by_role("button", name="Stop")).to_be_visible()
    assert visitor.title().startswith("Building its environment – ")
    visitor.locator("summary").click()
    picture(visitor, "binder-link")
    visitor.locator("summary").click()
    fits(visitor)
    visitor.set_viewport_size(NARROW)
    picture(visitor, "link-narrow")
    gate.touch()
    arrived(visitor, "/")


def test_a_visitor_may_stop_it(world: World, visitor: Page, tmp_path_factory: pytest.TempPathFactory) -> None:
    gate = tmp_path_factory.mktemp("gate") / "gate"
    visitor.goto(
        link(world, "links/stopped", {**APP, "postBuild": f"#!/bin/sh\nuntil [ -e {gate} ]; do sleep 0.05; done\n"})
    )
    visitor.get_by_role("button", name="Stop").click(timeout=30_000)
    expect(visitor.get_by_role("heading", level=2)).to_have_text(
        re.compile("Stopping|has ended|failed"), timeout=30_000
    )
    expect(visitor.get_by_role("heading", level=2)).to_have_text(re.compile("has ended|failed"), timeout=30_000)


def test_a_failure_says_why_and_what_to_do(world: World, visitor: Page) -> None:
    visitor.goto(link(world, "links/failing", FAILING))
    expect(visitor.get_by_role("heading", level=2)).to_have_text("It could not be started", timeout=60_000)
    expect(visitor.locator("#log")).to_contain_text("line 39 of the build")
    expect(visitor.get_by_role("button", name="Try again")).to_be_visible()
    expect(visitor.get_by_role("link", name="Choose another place")).to_be_visible()
    expect(visitor.get_by_role("status")).to_contain_text("It could not be started")
    picture(visitor, "link-failed")
    fits(visitor)


def test_a_branch_that_is_not_there_is_said_on_the_page(world: World, visitor: Page) -> None:
    visitor.goto(link(world, "links/app", APP, ref="no-such-branch"))
    expect(visitor.locator("#cause")).to_contain_text("Could not resolve ref", timeout=30_000)


def test_a_connection_that_fails_is_tried_again(world: World, visitor: Page) -> None:
    """Twice nothing comes of it; what is shown in the end is every line once, of one launch."""
    lines = "".join(f"echo counted {i}; sleep 0.2; " for i in range(20))
    cuts: list[str] = []

    def cut(route: Any) -> None:
        cuts.append(route.request.url)
        if len(cuts) <= 2:
            route.abort("connectionreset")
        else:
            route.continue_()

    visitor.route(re.compile(r".*/build/.*"), cut)
    visitor.goto(link(world, "links/cut", {**FAILING, "postBuild": f"#!/bin/sh\n{lines}\nexit 1\n"}))
    expect(visitor.get_by_role("heading", level=2)).to_have_text("It could not be started", timeout=60_000)
    text = visitor.locator("#log").inner_text()
    assert [text.count(f"counted {i}\n") for i in range(19)] == [1] * 19
    assert len(cuts) >= 3


def test_a_stream_that_the_browser_gives_up_is_taken_up_where_it_was(world: World, visitor: Page) -> None:
    """A proxy in between answers 502 once, which an EventSource takes for the end. The launch is one, its lines are told
    once, and an old build token does not matter any more."""
    asked: list[str] = []

    def broken(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:  # the beginning of the true stream, and then nothing
            first = httpx.stream(
                "GET", route.request.url, headers={**route.request.headers, "accept": "text/event-stream"}
            )
            with first as answer:
                body = "".join(itertools.islice(answer.iter_text(), 1))
            route.fulfill(status=200, headers={"content-type": "text/event-stream"}, body=body)
        elif len(asked) == 2:
            route.fulfill(status=502, body="no")
        else:
            route.fallback()

    visitor.route(re.compile(r".*/build/.*"), broken)
    visitor.goto(link(world, "links/resumed", {**FAILING, "postBuild": "#!/bin/sh\necho resumed once; exit 1\n"}))
    expect(visitor.get_by_role("heading", level=2)).to_have_text("It could not be started", timeout=60_000)
    assert "last_event_id=" in asked[2]
    log = visitor.locator("#log").inner_text()
    assert log.count("Waiting for build to start") == 1
    assert len([line for line in log.splitlines() if re.fullmatch(r" *[\d.]+ resumed once", line)]) == 1


def test_without_javascript_a_button_does_it(world: World) -> None:
    with world.visitor(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(link(world, "links/app", APP, "?urlpath=plainly"))
        picture(page, "link-plain")
        page.get_by_role("button", name="Start").click()
        arrived(page, "/plainly")
        expect(page.get_by_role("heading")).to_have_text("hello from /plainly")


def test_the_local_person_finds_the_form_filled_in(world: World) -> None:
    with world.person() as page:
        page.goto(
            link(world, "links/app", APP, "?urlpath=lab/tree/a.ipynb&memory=2G&hours=1&name=course&backend=local")
        )
        expect(page.get_by_label("Repository", exact=True)).to_have_value(re.compile("links/app$"))
        expect(page.get_by_label("Branch, tag or commit")).to_have_value("main")
        expect(page.get_by_label("File or URL to open")).to_have_value("a.ipynb")
        expect(page.get_by_label("Memory")).to_have_value("2G")
        expect(page.get_by_label("Hours")).to_have_value("1")
        expect(page.get_by_role("radio", name="This computer")).to_be_checked()
        expect(page.get_by_role("status").first).to_contain_text("Found:")
        picture(page, "link-form")
        fits(page)
        page.get_by_role("button", name="Launch").click()
        expect(page.get_by_role("button", name="Run it")).to_be_visible()


def test_an_author_may_leave_no_choice(world: World) -> None:
    with world.person() as page:
        page.goto(link(world, "links/app", APP, "?backends=open"))
        arrived(page, "/")
        mine = [one for one in world.launches() if one["backend"] == "open"]
        assert mine and mine[0]["state"] == "ready"


def test_a_link_that_says_things_wrongly_says_so_beside_them(world: World) -> None:
    with world.person() as page:
        page.goto(link(world, "links/app", APP, "?memory=lots&backends=mars"))
        expect(page.get_by_role("alert")).to_have_count(2)
        expect(page.get_by_label("Memory")).to_have_value("lots")
        picture(page, "link-wrong")
        fits(page)


def test_a_link_to_no_repository_says_so(world: World, visitor: Page) -> None:
    visitor.goto(f"{world.url}/v2/gh/only-an-owner")
    expect(visitor.get_by_role("heading", level=1)).to_have_text("This link cannot be followed")
    picture(visitor, "link-unreadable")
    fits(visitor)
