"""The choice inside of an article on another origin, under a strict policy, in a real Chromium; and the pages around it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import shared
from tests.browser.conftest import IMAGES, SCREENSHOTS
from tests.browser.journal import Journal, publishing
from tests.browser.shared import APP, World
from tests.browser.test_pages import fits
from tests.doubles import confined_local, git_repos

OPEN = {"ANYBINDER_CORS_ALLOW_ORIGIN": "*", "ANYBINDER_RESOLVE_CACHE_SECONDS": "0"}


@pytest.fixture(scope="module")
def journal() -> Iterator[Journal]:
    with publishing() as made:
        yield made


@pytest.fixture(scope="module")
def world(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub that visitors may use, whose places pages elsewhere may read."""
    folder = tmp_path_factory.mktemp("embedding")
    staff = {"name": "staff", "provider": "confined", "title": "For staff", "open_to": ["group staff"]}
    second = {"name": "campus", "provider": "confined", "title": "Campus cluster"}
    mine = {"name": "local", "provider": "local", "title": "This computer"}
    environment = confined_local.installed(folder / "packages", beside=(second, staff, mine))  # type: ignore[arg-type]
    with shared.running(browser, folder, {**environment, **OPEN}) as made:
        yield made
        confined_local.end_all(made.broker.home)


@pytest.fixture
def snippets(world: World) -> dict[str, str]:
    """What the builder page makes of a repository, as somebody copies it."""
    with world.visitor() as context:
        page = context.new_page()
        page.goto(f"{world.url}/link?repo={quote(world.repository('embed/app', APP))}&path=/greetings")
        ids = ("url", "markdown", "html", "rst", "element", "listed")
        return {name: page.locator(f"textarea#{name}").input_value() for name in ids}


@pytest.fixture
def reader(world: World, journal: Journal) -> Iterator[Page]:
    """Somebody who reads the article. What their browser forbids or complains about fails the test."""
    journal.allow(world.url)
    complaints: list[str] = []
    with world.visitor(viewport={"width": 900, "height": 700}, locale="en-GB") as context:
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert [one for one in complaints if "favicon" not in one and "401" not in one] == []  # 401: asked to sign in


def picture(page: Page, name: str, **more: Any) -> None:
    """For the documentation."""
    if SCREENSHOTS:
        IMAGES.mkdir(exist_ok=True)
        page.screenshot(path=IMAGES / f"{name}.png", animations="disabled", **more)


def public_looking(page: Page, world: World) -> None:
    """The addresses of this test's servers as those of a hub and a forge would look."""
    names = {world.url: "https://hub.example.org", quote(world.git.url, safe=""): "https%3A%2F%2Fgit.example.org",
             world.git.url: "https://git.example.org", world.git.url.partition("//")[2]: "git.example.org"}  # fmt: skip
    page.evaluate(
        """names => {
            const said = (text) => names.reduce((told, [from, to]) => told.replaceAll(from, to), text);
            for (const field of document.querySelectorAll("textarea, input:not([type])")) field.value = said(field.value);
            const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (walk.nextNode()) walk.currentNode.data = said(walk.currentNode.data);
        }""",
        list(names.items()),
    )


def test_an_article_offers_the_choice(world: World, journal: Journal, reader: Page, snippets: dict[str, str]) -> None:
    reader.goto(journal.publish("/choice", snippets["element"]))
    box = reader.get_by_role("region", name="Run")
    expect(box.get_by_role("group", name="Where to run").get_by_role("radio")).to_have_count(2)
    expect(box.get_by_text("For staff")).to_have_count(0)
    expect(box.get_by_text("This computer")).to_have_count(0)
    expect(reader.get_by_role("img")).to_be_hidden()
    launch = box.get_by_role("link", name="Launch", exact=True)
    place = box.get_by_role("radio", name="Campus cluster")
    place.check()
    query = parse_qs(urlsplit(launch.get_attribute("href") or "").query)
    assert query == {"urlpath": ["greetings"], "backend": ["campus"], "choose": ["1"]}
    launch.click()
    expect(reader.get_by_role("heading", level=1)).to_contain_text("Sign in to choose where to run this")
    assert reader.url.startswith(f"{world.url}/v2/git/")


def test_what_it_looks_like(journal: Journal, reader: Page, snippets: dict[str, str]) -> None:
    """Nothing is asked of the repository, so any will do."""
    named = re.sub(r'repo="[^"]*"', 'repo="wadden-sea/tides"', snippets["element"])
    reader.goto(journal.publish("/looked-at", named))
    expect(reader.get_by_text("Run wadden-sea/tides")).to_be_visible()
    picture(reader, "embed")
    reader.emulate_media(color_scheme="dark")
    picture(reader, "embed-dark")
    reader.set_viewport_size({"width": 320, "height": 700})
    reader.emulate_media(color_scheme="light")
    picture(reader, "embed-phone")


def test_a_reader_comes_into_the_session(
    world: World, journal: Journal, reader: Page, snippets: dict[str, str]
) -> None:
    reader.goto(journal.publish("/whole", snippets["element"]))
    reader.get_by_role("radio").first.focus()
    names = reader.get_by_role("radio").evaluate_all("all => all.map(one => one.value)")
    reader.get_by_role("radio").nth(names.index("open")).check()
    reader.get_by_role("link", name="Launch", exact=True).click()
    reader.wait_for_url("**/greetings", timeout=60_000)
    expect(reader.get_by_role("heading")).to_have_text("hello from /greetings")
    confined_local.end_all(world.broker.home)


def test_it_is_used_by_the_keyboard_alone(journal: Journal, reader: Page, snippets: dict[str, str]) -> None:
    reader.goto(journal.publish("/keys", snippets["element"]))
    expect(reader.get_by_role("radio").first).to_be_visible()
    reader.keyboard.press("Tab")
    expect(reader.get_by_role("radio").first).to_be_focused()
    reader.keyboard.press("ArrowDown")
    expect(reader.get_by_role("radio").last).to_be_checked()
    reader.keyboard.press("Tab")
    expect(reader.get_by_role("link", name="Launch", exact=True)).to_be_focused()
    reader.keyboard.press("Enter")
    reader.wait_for_url("**/v2/**")


def test_it_speaks_the_language_of_the_article(journal: Journal, reader: Page, snippets: dict[str, str]) -> None:
    reader.goto(journal.publish("/fr", snippets["element"], lang="fr"))
    expect(reader.get_by_role("link", name="Lancer", exact=True)).to_be_visible()
    expect(reader.locator("anybinder-launch section")).to_have_attribute("lang", "fr")


def test_a_journal_gives_it_its_own_looks(journal: Journal, reader: Page, snippets: dict[str, str]) -> None:
    reader.goto(journal.publish("/looks", snippets["element"]))
    launch = reader.get_by_role("link", name="Launch", exact=True)
    reader.locator("anybinder-launch").evaluate("one => one.style.setProperty('--anybinder-accent', 'rgb(120, 0, 80)')")
    expect(launch).to_have_css("background-color", "rgb(120, 0, 80)")
    reader.evaluate(
        "const sheet = new CSSStyleSheet(); sheet.replaceSync('anybinder-launch::part(launch) { border-radius: 20px }');"
        "document.adoptedStyleSheets = [sheet]"
    )
    expect(launch).to_have_css("border-radius", "20px")


@pytest.mark.parametrize("width", [320, 900])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_where_it_is_put(
    journal: Journal, reader: Page, snippets: dict[str, str], width: int, theme: str
) -> None:
    reader.set_viewport_size({"width": width, "height": 700})
    reader.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    reader.goto(journal.publish("/fits", snippets["element"]))
    expect(reader.get_by_role("radio").first).to_be_visible()
    assert reader.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    short = reader.locator("anybinder-launch").evaluate(
        "one => [...one.shadowRoot.querySelectorAll('label, .launch')].filter(each => each.offsetHeight < 44).length"
    )
    assert short == 0


def test_without_a_script_there_is_the_link(world: World, journal: Journal, snippets: dict[str, str]) -> None:
    journal.allow(world.url)
    with world.visitor(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(journal.publish("/plain", snippets["element"]))
        expect(page.get_by_role("img", name="Launch")).to_be_visible()
        assert page.get_by_role("link").get_attribute("href") == snippets["url"]


def test_while_the_hub_is_away_there_is_the_link(world: World, journal: Journal, snippets: dict[str, str]) -> None:
    journal.allow(world.url)
    with world.visitor() as context:
        page = context.new_page()
        page.route("**/api/places?*", lambda route: route.abort())
        page.goto(journal.publish("/away", snippets["element"]))
        page.evaluate("customElements.whenDefined('anybinder-launch').then(() => true)")
        expect(page.get_by_role("img", name="Launch")).to_be_visible()
        expect(page.get_by_role("radio")).to_have_count(0)


def test_a_script_that_was_changed_on_the_way_is_not_run(
    world: World, journal: Journal, snippets: dict[str, str]
) -> None:
    journal.allow(world.url)
    with world.visitor() as context:
        page = context.new_page()
        headers = {"access-control-allow-origin": "*", "content-type": "text/javascript"}
        page.route("**/embed-1.js", lambda route: route.fulfill(body="document.title = 'evil'", headers=headers))
        page.goto(journal.publish("/changed", snippets["element"]))
        expect(page.get_by_role("img", name="Launch")).to_be_visible()
        expect(page).to_have_title("An article")


def test_the_list_without_a_script_leads_to_the_same_places(
    world: World, journal: Journal, reader: Page, snippets: dict[str, str]
) -> None:
    reader.goto(journal.publish("/list", snippets["listed"]))
    reader.get_by_role("link", name="Campus cluster").click()
    expect(reader.get_by_role("heading", level=1)).to_contain_text("Sign in to choose where to run this")
    assert "backend=campus" in reader.url


# --- the pages of the hub ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scripts", [True, False])
def test_an_author_makes_a_link(world: World, scripts: bool) -> None:
    repo = world.repository("embed/paper", APP)
    with world.visitor(java_script_enabled=scripts, viewport={"width": 1100, "height": 820}) as context:
        page = context.new_page()
        page.goto(f"{world.url}/link")
        page.get_by_label("Repository", exact=True).fill(repo)
        page.get_by_label("File or URL to open").fill("analysis/tides.ipynb")
        page.get_by_label("Campus cluster").check()
        page.get_by_role("button", name="Make the link").click()
        expect(page.get_by_text("This link follows what its repository becomes")).to_be_visible()
        page.get_by_role("link", name="Pin it to").click()
        expect(page.get_by_text("This link is pinned")).to_be_visible()
        url = page.get_by_label("Link", exact=True).input_value()
        assert parse_qs(urlsplit(url).query) == {"labpath": ["analysis/tides.ipynb"], "backends": ["campus"]}
        assert len(unquote(url).partition("?")[0].rpartition("/")[2]) == 40
        if scripts:
            context.grant_permissions(["clipboard-read", "clipboard-write"], origin=world.url)
            page.get_by_role("button", name="Copy the Markdown").click()
            expect(page.get_by_text("Copied.")).to_be_visible()
            assert page.evaluate("navigator.clipboard.readText()") == page.get_by_label("Markdown").input_value()
            public_looking(page, world)
            picture(page, "link-builder", full_page=True)
        else:
            expect(page.get_by_role("button", name="Copy the Markdown")).to_be_hidden()
        page.set_viewport_size({"width": 390, "height": 844})
        fits(page)


def test_a_link_of_mybinder_opens_here(world: World) -> None:
    with world.person(viewport={"width": 1100, "height": 820}) as page:
        page.goto(f"{world.url}/go")
        picture(page, "go")
        fits(page)
        page.set_viewport_size({"width": 1100, "height": 820})
        link = "https://mybinder.org/v2/gh/binder-examples/requirements/HEAD?labpath=index.ipynb"
        page.get_by_label("Binder link or repository").fill(link)
        page.get_by_role("button", name="Open it here").click()
        expect(page.get_by_label("Repository", exact=True)).to_have_value("binder-examples/requirements")
        expect(page.get_by_label("File or URL to open")).to_have_value("index.ipynb")
        expect(page.locator("input[name=backend]:checked")).to_have_count(1)
    assert world.launches() == []


def test_the_bookmarklet_brings_the_page_that_is_open(world: World, journal: Journal) -> None:
    journal.allow(world.url)
    with world.person() as page:
        page.goto(f"{world.url}/go")
        script = page.get_by_role("link", name="Open in Anybinder").get_attribute("href") or ""
        page.goto(journal.publish("/v2/gh/o/r/HEAD?urlpath=rstudio/", ""))
        with page.expect_navigation():
            page.evaluate(unquote(script.removeprefix("javascript:")))
        expect(page.get_by_label("Repository", exact=True)).to_have_value("o/r")
        expect(page.get_by_label("File or URL to open")).to_have_value("/rstudio/")


def test_what_is_no_link_is_said_beside_it(world: World) -> None:
    with world.visitor() as context:
        page = context.new_page()
        page.goto(f"{world.url}/go?link=https%3A%2F%2Fmybinder.org%2F")
        expect(page.get_by_role("alert")).to_contain_text("not of a repository")
        expect(page.get_by_label("Binder link or repository")).to_be_focused()
        fits(page)


def test_what_is_told_to_pages_elsewhere_is_nobodys(world: World, journal: Journal, reader: Page) -> None:
    """A page that its reader is signed in to this hub behind is told what anybody is told."""
    with world.person() as page:
        page.goto(journal.publish("/read", ""))
        told = page.evaluate(f"fetch('{world.url}/api/places').then(answer => answer.json())")
        assert {place["name"] for place in told["places"]} == {"open", "campus"}
        refused = page.evaluate(
            f"fetch('{world.url}/api/places', {{credentials: 'include'}}).then(() => 'read', error => String(error))"
        )
        assert "Failed to fetch" in refused, json.dumps(refused)


def test_a_pinned_commit_that_is_gone_is_said_to_be_and_another_offered(world: World) -> None:
    repo = world.repository("embed/rewritten", APP)
    bare = world.git.root / "embed" / "rewritten"
    old = git_repos.branch_tip(bare, "main")
    pinned = f"{world.url}/v2/git/{quote(repo, safe='')}/{old}?urlpath=plainly"
    with world.visitor(viewport={"width": 1100, "height": 820}) as context:
        page = context.new_page()
        page.goto(pinned)
        page.wait_for_url("**/plainly", timeout=60_000)
        confined_local.end_all(world.broker.home)
        git_repos.git(bare, "update-ref", "-d", "refs/heads/main")
        newest = git_repos.add_commit(bare, {**APP, "README.md": "Written anew"})
        git_repos.git(bare, "gc", "--quiet", "--prune=now")
        page.goto(pinned)
        expect(page.get_by_role("heading", level=2)).to_have_text("It could not be started")
        expect(page.locator("#instead")).to_contain_text(f"This hub opened commit {old[:7] if old else ''}")
        public_looking(page, world)
        picture(page, "link-lapsed")
        fits(page)
        page.get_by_role("link", name=f"Open the newest commit, {newest[:7]}").click()
        page.wait_for_url("**/plainly", timeout=60_000)
        confined_local.end_all(world.broker.home)
    with world.person(color_scheme="dark", viewport={"width": 1100, "height": 820}) as page:
        page.goto(f"{pinned}&choose=1")
        expect(page.locator("#instead")).to_contain_text("This hub opened commit")
        page.get_by_role("link", name=f"Open commit {newest[:7]}").click()
        expect(page.get_by_label("Branch, tag or commit")).to_have_value(newest)
        expect(page.get_by_label("File or URL to open")).to_have_value("/plainly")
