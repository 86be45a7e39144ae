"""Pages of other origins, open in the very browser that is signed in: they start nothing and read no byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Person
from tests.browser.shared import World, elsewhere, world
from tests.journeys.test_launch import PLAIN_APP

__all__ = ["elsewhere", "world"]  # fixtures, found by their names

ECHO = {
    "start": PLAIN_APP["start"],
    "app.py": PLAIN_APP["app.py"].replace(
        "body = b'hello from ' + self.path.encode()\n",
        "body = b'secret of the session ' + str(self.headers).encode()\n",
    ),
}
"""Says what it was sent: its visitor's headers."""
assert ECHO["app.py"] != PLAIN_APP["app.py"]

Stranger = Callable[[Person], Page]
READ_MS = 3000


@pytest.fixture(scope="module")
def victim(world: World) -> Iterator[dict[str, Any]]:
    """The one launch there is."""
    launch = world.ready(world.repository("o/app", ECHO))
    yield launch
    world.stop(launch["id"])


@pytest.fixture
def person(world: World) -> Iterator[Person]:
    """Somebody signed in to the broker of this file."""
    with world.browser.new_context() as context:
        person = Person(world.broker, context)
        person.sign_in()
        yield person


@pytest.fixture
def launched(world: World, victim: dict[str, Any], person: Person) -> str:
    """A session this browser is in, with its cookie: the session's origin."""
    person.page.goto(f"{world.url}/launches/{victim['id']}/open")
    expect(person.page.locator("body")).to_contain_text("secret of the session")
    return person.page.url.rstrip("/")


@pytest.fixture(params=["another site", "another port", "a sister name", "the session itself"])
def stranger(request: pytest.FixtureRequest, person: Person, elsewhere: int, launched: str) -> Page:
    """A page in the same browser, of an origin that may do nothing here."""
    page = person.context.new_page()
    page.goto({
        "another site": f"http://127.0.0.1:{elsewhere}/",
        "another port": f"http://localhost:{elsewhere}/",
        "a sister name": f"http://sister.localhost:{elsewhere}/",
        "the session itself": f"{launched}/",
    }[request.param])  # fmt: skip
    return page


FETCHED = """async ([url, options]) => {
    try {
        const answer = await fetch(url, {credentials: "include", ...options});
        return answer.type === "opaque" ? "" : await answer.text();
    } catch { return "" }
}"""
HEARD = """([kind, url, wait]) => new Promise((done) => {
    const heard = [], end = () => done(heard.join(""));
    const each = kind === "EventSource" ? new EventSource(url, {withCredentials: true}) : new WebSocket(url);
    each.onmessage = (message) => { heard.push(String(message.data)); end() };
    each.onopen = () => heard.push("open");
    each.onerror = end;
    setTimeout(end, wait);
})"""
SEEN = """(url) => new Promise((done) => {
    const image = new Image();
    image.onload = () => done("loaded");
    image.onerror = () => done("");
    image.src = url;
})"""
POSTED = """([url, fields]) => {
    const form = document.createElement("form");
    form.method = "post"; form.action = url; form.target = "_blank";
    for (const [name, value] of Object.entries(fields)) {
        const field = document.createElement("input");
        field.name = name; field.value = value; form.append(field);
    }
    document.body.append(form);
    form.submit();
}"""
FRAMED = """(url) => new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.onload = () => { try { done(frame.contentDocument?.body.innerText || "") } catch { done("") } };
    frame.src = url;
    document.body.append(frame);
})"""


def test_another_pages_form_starts_and_stops_nothing(person: Person, world: World, stranger: Page) -> None:
    url = world.git.url
    before = person.launches()
    wish = {"repo": f"{url}/o/app", "consent": before[0]["commit"]}
    for path, fields in (("/launch", wish), (f"/launches/{before[0]['id']}/stop", {}), ("/api/reap", {})):
        with person.context.expect_page() as opened:
            stranger.evaluate(POSTED, [f"{person.home}{path}", fields])
        expect(opened.value.get_by_text("Another page tried to do this", exact=False)).to_be_visible()
        opened.value.close()
    assert [(one["id"], one["state"]) for one in person.launches()] == [(one["id"], "ready") for one in before]


def test_another_pages_fetch_starts_and_reads_nothing(person: Person, world: World, stranger: Page) -> None:
    url = world.git.url
    before = [(one["id"], one["state"]) for one in person.launches()]
    wish = json.dumps({"repo": f"{url}/o/app", "consent": True})
    launch = f"{person.home}/api/launches/{before[0][0]}"
    for options in (
        {"method": "POST", "body": wish, "mode": "no-cors"},
        {"method": "POST", "body": wish, "mode": "cors", "headers": {"content-type": "application/json"}},
    ):
        assert stranger.evaluate(FETCHED, [f"{person.home}/api/launches", options]) == ""
    assert stranger.evaluate(FETCHED, [launch, {"method": "DELETE"}]) == ""
    for path in ("/", "/sessions", "/api/launches", f"/launches/{before[0][0]}", "/api/resolve?repo=o/r", "/metrics"):
        for mode in ("cors", "no-cors"):
            assert stranger.evaluate(FETCHED, [f"{person.home}{path}", {"mode": mode}]) == ""
    assert [(one["id"], one["state"]) for one in person.launches()] == before


def test_no_other_way_of_asking_reads_the_broker(person: Person, stranger: Page) -> None:
    launch = person.launches()[0]["id"]
    stream = f"{person.home}/api/launches/{launch}/events"
    assert stranger.evaluate(HEARD, ["EventSource", stream, READ_MS]) == ""
    assert stranger.evaluate(HEARD, ["WebSocket", stream.replace("http", "ws", 1), READ_MS]) == ""
    for path in ("/static/logo.svg", "/launches", "/"):
        assert stranger.evaluate(SEEN, f"{person.home}{path}") == ""
    for path in ("/", f"/launches/{launch}"):
        assert stranger.evaluate(FRAMED, f"{person.home}{path}") == ""


def test_another_page_reads_no_byte_of_a_session(person: Person, launched: str, stranger: Page) -> None:
    if stranger.url.startswith(launched):
        assert "anybinder=" not in stranger.content(), "the broker's cookie reached a session"
        return
    for options in ({"mode": "cors"}, {"mode": "no-cors"}, {"method": "POST", "mode": "no-cors", "body": "x"}):
        assert stranger.evaluate(FETCHED, [f"{launched}/", options]) == ""
    assert stranger.evaluate(HEARD, ["EventSource", f"{launched}/", READ_MS]) == ""
    assert stranger.evaluate(HEARD, ["WebSocket", f"{launched.replace('http', 'ws', 1)}/ws", READ_MS]) == ""
    assert stranger.evaluate(FRAMED, f"{launched}/") == ""
    assert stranger.evaluate(SEEN, f"{launched}/") == ""


def test_a_link_from_elsewhere_only_fills_the_form_in(person: Person, world: World, stranger: Page) -> None:
    url = world.git.url
    before = len(person.launches())
    stranger.evaluate("(url) => { location.href = url }", f"{person.home}/?repo={url}/o/app&consent=true")
    expect(stranger.get_by_role("button", name="Launch")).to_be_visible()
    assert len(person.launches()) == before
