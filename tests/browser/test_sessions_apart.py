"""Sessions, the broker and the rest of the web, kept apart by a real Chromium: what only a browser can show."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.shared import APP, World, elsewhere, world
from tests.servers import chromium

__all__ = ["elsewhere", "world"]  # fixtures, found by their names

MARK = "no byte of this may be read elsewhere"
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
LAB = {"secret.txt": MARK, "secret.js": f"window.leaked = '{MARK}'", "secret.css": "body{--leaked:1}", "dot.png": DOT}

EVIL_PATHS = (
    "https://evil.example/x",
    "//evil.example/x",
    "\\\\evil.example\\x",
    "/\\evil.example",
    "/%5cevil.example",
    "/%2f%2fevil.example",
    "/@evil.example/",
    "../../../x",
    "/../../x",
    "/#@evil.example",
    "javascript:alert(1)",
)

# Everything a page can try on an address it is no origin of; what came of it, as text.
ATTACK = """async ([files, socket]) => {
    const came = {};
    const loaded = (tag, name, more) => new Promise((done) => {
        const node = Object.assign(document.createElement(tag), more);
        node.onload = () => done("loaded");
        node.onerror = () => done("");
        document.body.append(node);
        setTimeout(() => done(""), 5000);
    });
    for (const mode of ["cors", "no-cors"]) {
        try {
            const answer = await fetch(`${files}/secret.txt`, {credentials: "include", mode});
            came[`fetch ${mode}`] = await answer.text();
        } catch { came[`fetch ${mode}`] = ""; }
    }
    came.image = await loaded("img", "src", {src: `${files}/dot.png`});
    came.script = await loaded("script", "src", {src: `${files}/secret.js`}) && String(window.leaked || "");
    came.style = await loaded("link", "href", {rel: "stylesheet", href: `${files}/secret.css`});
    came.socket = await new Promise((done) => {
        const one = new WebSocket(socket);
        one.onopen = () => done("open");
        one.onmessage = (message) => done(message.data);
        one.onerror = () => done("");
    });
    return came;
}"""


@pytest.fixture(scope="module")
def lab(world: World) -> Iterator[dict[str, Any]]:
    """A JupyterLab with something to steal."""
    launch = world.ready(world.repository("apart/lab", LAB), name="lab")
    yield launch
    world.stop(launch["id"])


@pytest.fixture(scope="module")
def app(world: World) -> Iterator[dict[str, Any]]:
    """Another session, whose code may be anybody's."""
    launch = world.ready(world.repository("apart/app", APP), name="app")
    yield launch
    world.stop(launch["id"])


def origin(world: World, launch: dict[str, Any]) -> str:
    return f"http://{launch['id']}.localhost:{world.port}"


def entered(world: World, context: BrowserContext, launch: dict[str, Any]) -> Page:
    """A tab in this session, with its cookie."""
    page = context.new_page()
    page.goto(f"{world.url}/launches/{launch['id']}/open")
    assert page.url.startswith(origin(world, launch))
    return page


def kernel_socket(world: World, lab: dict[str, Any]) -> str:
    """The address of a kernel's channels, for a browser."""
    headers = {"Authorization": f"token {lab['token']}"}
    kernel = (
        httpx.post(f"{lab['url']}api/kernels", headers=headers, json={}, timeout=30).raise_for_status().json()["id"]
    )
    return f"{origin(world, lab).replace('http', 'ws', 1)}/api/kernels/{kernel}/channels"


def test_no_page_of_another_origin_gets_a_byte_of_a_session(
    world: World, lab: dict[str, Any], app: dict[str, Any], elsewhere: int
) -> None:
    """Files, images, scripts, styles and a kernel's WebSocket; the session's own page gets them all."""
    socket, files = kernel_socket(world, lab), f"{origin(world, lab)}/files"
    pages = {
        "another site": f"http://127.0.0.1:{elsewhere}/",
        "another port": f"http://localhost:{elsewhere}/",
        "the session's name on another port": f"http://{lab['id']}.localhost:{elsewhere}/",
        "another session": f"{origin(world, app)}/",
    }
    with world.person() as page:
        entered(world, page.context, app).close()
        own = entered(world, page.context, lab)
        came = own.evaluate(ATTACK, [files, socket])
        assert (came["fetch cors"], came["image"], came["socket"]) == (MARK, "loaded", "open"), "or it shows nothing"
        for who, address in pages.items():
            page.goto(address)
            came = page.evaluate(ATTACK, [files, socket])
            assert {how: what for how, what in came.items() if what} == {}, who


def test_a_session_that_sets_cookies_for_everybody_changes_nothing(
    world: World, lab: dict[str, Any], app: dict[str, Any]
) -> None:
    with world.person() as page:
        neighbour = entered(world, page.context, lab)
        session = entered(world, page.context, app)
        spoil(session, origin(world, app))
        expect(session.get_by_role("heading")).to_have_text("hello from /cookies")
        for path in ("/sessions", f"/launches/{lab['id']}"):
            page.goto(world.url + path)
            expect(page.get_by_role("heading", level=1)).not_to_have_text("Please sign in first")
        answer = neighbour.goto(f"{origin(world, lab)}/files/secret.txt")
        assert answer is not None
        assert answer.text() == MARK
        session.goto(f"{origin(world, app)}/still")
        expect(session.get_by_role("heading")).to_have_text("hello from /still")


def test_a_session_that_sets_cookies_signs_nobody_in(world: World, lab: dict[str, Any], app: dict[str, Any]) -> None:
    with world.visitor() as context:
        page = context.new_page()
        page.goto(f"{origin(world, app)}/?token={app['token']}")
        spoil(page, origin(world, app))
        for address in (world.url, f"{origin(world, lab)}/files/secret.txt"):
            answer = page.goto(address)
            assert answer is not None
            assert answer.status in (401, 403)


def spoil(page: Page, at: str) -> None:
    """Our cookies' names, for as wide a domain as the browser lets it, by header and by script."""
    page.goto(f"{at}/cookies")
    page.evaluate(
        """() => {
            for (const name of ["anybinder", "anybinder-session"])
                for (const scope of ["; Domain=localhost", `; Domain=${location.hostname}`, "", "; Path=/still"])
                    document.cookie = `${name}=x${scope}`;
        }"""
    )


def test_a_name_that_is_made_to_resolve_to_us_is_refused(world: World, lab: dict[str, Any], browser: Browser) -> None:
    """DNS rebinding: the page's own host name turns into our address."""
    with browser.browser_type.launch(**chromium.options("--host-resolver-rules=MAP *.example 127.0.0.1")) as rebound:
        page = rebound.new_page()
        for host in ("evil.example", f"{lab['id']}.evil.example", f"{lab['id']}.localhost.example"):
            for path in (
                "/",
                "/api/launches",
                f"/s/{lab['id']}/files/secret.txt?token={lab['token']}",
                "/static/app.css",
            ):
                answer = page.goto(f"http://{host}:{world.port}{path}")
                assert answer is not None
                assert answer.status == 421, (host, path)
                assert MARK not in answer.text()


@pytest.mark.parametrize("path", EVIL_PATHS)
def test_nothing_typed_as_what_to_open_leads_out_of_the_session(world: World, path: str) -> None:
    repo = world.repository("apart/paths", APP)
    asked: list[str] = []
    with world.person() as page:
        page.context.on("request", lambda request: asked.append(request.url))
        page.goto(f"{world.url}/?repo={quote(repo)}")
        page.get_by_label("File or URL to open").fill(path)
        page.get_by_role("button", name="Launch").click()
        agree = page.get_by_role("button", name="Run it")
        page.wait_for_function("!document.querySelector('#go')")
        if agree.is_visible():
            agree.click()
        page.wait_for_url("http://*.localhost:*/**", timeout=90_000)
        expect(page.get_by_role("heading")).to_contain_text("hello from /")
        launch_id = page.url.split("//")[1].split(".")[0]
        allowed = {f"localhost:{world.port}", f"{launch_id}.localhost:{world.port}"}
        assert {urlsplit(url).netloc for url in asked} <= allowed
        assert "token" not in page.url
    world.broker.api("DELETE", f"/api/launches/{launch_id}")
