"""While one waits, and when it goes wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, expect

from tests.browser.conftest import BUILD_MS, DESK, Person, Repos, held_by, picture
from tests.journeys.test_launch import PLAIN_APP
from tests.waiting import until


def test_a_reload_continues_the_log_without_a_doubled_line(person: Person, repos: Repos, gate: Path) -> None:
    (url, make), page = repos, person.page
    make("astro/survey", {"postBuild": held_by(gate), **PLAIN_APP})
    person.launch(f"{url}/astro/survey")
    expect(page.locator("#log")).to_contain_text("line number 5", timeout=BUILD_MS)
    page.locator("summary").click()
    page.set_viewport_size({**DESK, "height": 1100})
    picture(page, "progress")
    page.reload()
    expect(page.locator("#log")).to_contain_text("line number 5")
    other = person.context.new_page()
    other.goto(f"{page.url}?watch")  # one that only looks on
    gate.touch()
    for each in (page, other):
        each.wait_for_url(re.compile(r"^http://\w+\.localhost"), timeout=BUILD_MS)
    page.goto(f"{person.home}/launches/{person.launches()[0]['id']}")
    assert_each_line_once(page)


def test_the_stream_that_breaks_goes_on_where_it_was(person: Person, repos: Repos, gate: Path) -> None:
    (url, make), page = repos, person.page
    make("o/slow", {"postBuild": held_by(gate), **PLAIN_APP})
    person.launch(f"{url}/o/slow")
    expect(page.locator("#log")).to_contain_text("line number 5", timeout=BUILD_MS)
    port = str(person.broker.address["port"])
    person.broker.kill(person.broker.processes[0])
    expect(page.get_by_text("reconnecting", exact=False)).to_be_attached()
    person.broker.start("up", "--no-browser", "--port", port)
    expect(page.get_by_text("reconnecting", exact=False)).to_be_hidden(timeout=60_000)
    assert_each_line_once(page)
    gate.touch()
    page.wait_for_url(re.compile(r"^http://\w+\.localhost"), timeout=BUILD_MS)


def assert_each_line_once(page: Page) -> None:
    lines = page.locator("#log").text_content() or ""
    for number in range(1, 6):
        assert lines.count(f"line number {number}") == 1


def test_a_closed_page_ends_nothing(person: Person, repos: Repos, gate: Path) -> None:
    (url, make), page = repos, person.page
    make("o/slow", {"postBuild": held_by(gate), **PLAIN_APP})
    person.launch(f"{url}/o/slow")
    expect(page.locator("#log")).to_contain_text("line number 5", timeout=BUILD_MS)
    page.close()
    gate.touch()
    until(lambda: person.launches()[0]["state"] == "ready", seconds=BUILD_MS / 1000)


def test_stopping_while_it_builds(person: Person, repos: Repos, gate: Path) -> None:
    (url, make), page = repos, person.page
    make("o/slow", {"postBuild": held_by(gate), **PLAIN_APP})
    person.launch(f"{url}/o/slow")
    expect(page.locator("#log")).to_contain_text("line number 5", timeout=BUILD_MS)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("link", name="Launch again")).to_be_visible(timeout=30_000)
    until(lambda: person.launches()[0]["state"] == "stopped", seconds=30)
    expect(page.get_by_text("Nothing of it is left").first).to_be_visible()
    assert person.launches()[0]["reason"] == "asked"


def test_a_failed_build_says_why_and_keeps_what_was_typed(person: Person, repos: Repos) -> None:
    (url, make), page = repos, person.page
    make("o/bad", {"environment.yml": "dependencies: [python]"})
    person.launch(f"{url}/o/bad", path="a b.ipynb", name="my-try")
    expect(page.get_by_text("environment.yml").first).to_be_visible(timeout=30_000)
    picture(page, "failed")
    page.get_by_role("link", name="Try again").click()
    expect(page.get_by_label("Repository", exact=True)).to_have_value(f"{url}/o/bad")
    expect(page.get_by_label("File or URL to open")).to_have_value("a b.ipynb")
    expect(page.get_by_label("Name")).to_have_value("my-try")


def test_what_cannot_be_found_is_said_beside_the_field(person: Person, repos: Repos) -> None:
    (url, make), page = repos, person.page
    make("o/r", PLAIN_APP)
    person.fill(f"{url}/o/none", path="x.ipynb", name="kept")
    page.get_by_role("button", name="Launch").click()
    assert_refused(page, "Repository", f"{url}/o/none")
    expect(page.get_by_label("Name")).to_have_value("kept")

    person.fill(f"{url}/o/r")
    page.get_by_label("Branch, tag or commit").fill("no-such-branch")
    page.get_by_role("button", name="Launch").click()
    assert_refused(page, "Branch, tag or commit", "no-such-branch")
    assert person.launches() == []


def assert_refused(page: Page, label: str, value: str) -> None:
    """The sentence is announced, tied to its field, and the focus is there."""
    field = page.get_by_label(re.compile(f"^{label}( optional)?$"))
    expect(page.get_by_role("alert")).not_to_be_empty()
    expect(field).to_have_value(value)
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    described = (field.get_attribute("aria-describedby") or "").split()
    assert page.get_by_role("alert").get_attribute("id") in described


def test_a_name_in_use_is_the_names_fault(person: Person, repos: Repos) -> None:
    (url, make), page = repos, person.page
    make("o/app", PLAIN_APP)
    make("o/other", {**PLAIN_APP, "README.md": "another"})
    person.launch(f"{url}/o/app", name="mine")
    person.fill(f"{url}/o/other", name="mine")
    page.get_by_role("button", name="Launch").click()
    page.get_by_role("button", name="Run it").click()
    assert_refused(page, "Name", "mine")


def test_a_link_fills_the_form_in_and_starts_nothing(person: Person, repos: Repos) -> None:
    (url, make), page = repos, person.page
    make("o/app", PLAIN_APP)
    page.goto(f"{person.home}/?repo={url}/o/app&ref=main&path=app.py&name=from-a-link")
    expect(page.get_by_label("Repository", exact=True)).to_have_value(f"{url}/o/app")
    expect(page.get_by_label("Branch, tag or commit")).to_have_value("main")
    expect(page.get_by_label("Name")).to_have_value("from-a-link")
    page.get_by_role("button", name="Launch").click()
    expect(page.get_by_role("button", name="Run it")).to_be_visible()
    assert person.launches() == []
    page.get_by_role("link", name="Change").click()
    asked = parse_qs(urlsplit(page.url).query)
    assert asked["repo"] == [f"{url}/o/app"]
    assert asked["name"] == ["from-a-link"]


def test_what_was_launched_is_offered_again_until_it_is_removed(person: Person, repos: Repos) -> None:
    (url, make), page = repos, person.page
    make("o/app", PLAIN_APP)
    person.launch(f"{url}/o/app")
    page.wait_for_url(re.compile(r"^http://\w+\.localhost"), timeout=BUILD_MS)
    page.goto(person.home)
    recent = page.get_by_role("link", name="o/app")
    expect(recent).to_be_visible()
    page.get_by_role("button", name="o/app from this list").click()
    expect(recent).to_be_hidden()
    page.reload()
    expect(page.get_by_role("button", name="Launch")).to_be_visible()
    expect(recent).to_be_hidden()


def test_who_is_not_signed_in_is_told_how(person_at: Callable[..., Person]) -> None:
    person = person_at()
    page = person.page
    person.context.clear_cookies()
    for path in ("/", "/sessions", "/launches/abcdefghijkl"):
        answer = page.goto(f"{person.home}{path}")
        assert answer is not None
        assert answer.status == 401
        expect(page.get_by_text("anybinder up").first).to_be_visible()


def test_unknown_pages_look_like_the_others(person: Person) -> None:
    page = person.page
    for path in ("/nothing/here", "/launches/abcdefghijkl"):
        answer = page.goto(f"{person.home}{path}")
        assert answer is not None
        assert answer.status == 404
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.get_by_role("link", name="My sessions").first).to_be_visible()
