"""The pages in French, in a real browser that asks for it: a whole journey without a word of English, and the way to choose."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from broker.web import catalogues
from providers.fake import FakeCloud
from tests.browser.conftest import DESK, PHONE, picture, wide_enough
from tests.browser.shared import APP, World, running
from tests.waiting import until

FRENCH = {"locale": "fr-FR", "viewport": DESK}
BYTES_MOST = 100_000
SEEN = """() => {
  const found = [document.title];
  const walk = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode())
    if (!node.parentElement.closest('#log, code, script, style, noscript, textarea')) found.push(node.textContent);
  for (const one of document.querySelectorAll('[title], [aria-label], [placeholder], [alt], [data-label], [data-ends]'))
    for (const name of ['title', 'aria-label', 'placeholder', 'alt', 'data-label', 'data-ends'])
      if (one.hasAttribute(name)) found.push(one.getAttribute(name));
  return found.map((text) => text.replace(/\\s+/g, ' ').trim()).filter(Boolean);
}"""
SENT = "performance.getEntries().filter(one => 'encodedBodySize' in one).reduce((sum, one) => sum + one.encodedBodySize, 0)"


def english() -> list[re.Pattern[str]]:
    """Every message whose French is another, as it looks with values in it; those with elements in them part by part."""
    forms = set()
    for message in catalogues.read("fr"):
        ours = message.id if isinstance(message.id, tuple | list) else [message.id]
        theirs = message.string if isinstance(message.string, tuple | list) else [message.string]
        forms |= {part.strip() for one in ours for part in re.split(r"<[^<>]*>", one) if one not in theirs}
    parts = [form for form in forms if len(re.findall(r"[a-z]{2,}", re.sub(r"%\(\w+\)s", "", form), re.IGNORECASE)) > 1]
    return [re.compile(re.sub(r"%\\\(\w+\\\)s", ".+", re.escape(part))) for part in parts]


ENGLISH = english()


def is_french(page: Page) -> None:
    """The page says that it is, and nothing on it is a sentence of ours in English."""
    assert page.evaluate("document.documentElement.lang") == "fr"
    left = [text for text in page.evaluate(SEEN) for pattern in ENGLISH if pattern.fullmatch(text)]
    assert left == [], page.url


@pytest.fixture(scope="module")
def world(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """This computer, and a cloud that costs something."""
    with FakeCloud.start() as cloud:
        backends = [
            {"name": "local", "title": "This computer", "provider": "local"},
            {
                "name": "campus",
                "title": "Nuage du campus",
                "provider": "fake",
                "configuration": {**cloud.configuration, "kinds": "none"},
            },
        ]
        settings = {"ANYBINDER_BACKENDS": json.dumps(backends)}
        with running(browser, tmp_path_factory.mktemp("languages"), settings) as made:
            yield made


def test_from_the_form_to_the_end_all_is_french(world: World) -> None:
    repo = world.repository("astro/lumiere", APP)
    with world.person(**FRENCH) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Lancer un dépôt")
        expect(page.get_by_label("Cet ordinateur", exact=True)).to_be_checked()
        campus = page.locator(".place").filter(has=page.get_by_label("Nuage du campus", exact=True))
        expect(campus).to_contain_text(re.compile(r"au plus \d+,\d\d\s\$US"))
        page.get_by_label("Dépôt", exact=True).fill(repo)
        expect(page.get_by_role("status").first).to_contain_text(re.compile(r"^Trouvé\s: .* au commit [0-9a-f]{7}$"))
        is_french(page)
        assert page.evaluate(SENT) < BYTES_MOST
        picture(page, "french")
        page.get_by_role("button", name="Lancer", exact=True).click()

        expect(page.get_by_role("heading", level=1)).to_have_text("L’exécuter sur votre ordinateur\u202f?")
        is_french(page)
        page.get_by_role("button", name="L’exécuter").click()

        page.wait_for_url(re.compile(r"/launches/|\.localhost"))
        launch = until(lambda: world.launches()[0])
        until(lambda: world.reached(launch["id"], "ready"), seconds=90, what=world.broker.log())
        page.goto(f"{world.url}/launches/{launch['id']}")
        expect(page.get_by_role("heading", name="Prêt")).to_be_visible()
        expect(page.locator("#steps")).to_contain_text("Construction")
        page.wait_for_timeout(1500)  # what scripts say of times has replaced what the server said
        is_french(page)
        page.goto(f"{world.url}/sessions")
        expect(page.get_by_role("cell", name=re.compile("^dans "))).to_be_visible()
        is_french(page)
        page.goto(f"{world.url}/launches/{launch['id']}")
        page.get_by_role("button", name="Arrêter").click()
        expect(page.get_by_role("heading", name="Cette session est terminée")).to_be_visible(timeout=30_000)
        expect(page.locator("#panel")).to_contain_text("Arrêtée à votre demande.")
        is_french(page)


@pytest.mark.parametrize(
    "path",
    ["/connect", "/account", "/account/uses", "/device", "/running", "/sessions", "/link", "/link?repo=o/r", "/go",
     "/go?link=nothing", "/nowhere", "/?repo=o/r&backends=nowhere&cpu=many&name=no+blanks", "/v2/gh/o/r/x%3F%3F"],
)  # fmt: skip
def test_a_page_is_french(world: World, path: str) -> None:
    with world.person(**FRENCH) as page:
        page.goto(f"{world.url}{path}")
        is_french(page)
        wide_enough(page)


def test_the_switch_keeps_the_form_and_its_address(world: World) -> None:
    with world.person(locale="en-GB") as page:
        page.goto(f"{world.url}/?repo=o/r&path=index.ipynb&backend=campus")
        assert page.evaluate("document.documentElement.lang") == "en"
        page.get_by_label("Branch, tag or commit").fill("main")
        page.get_by_role("button", name="Français").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Lancer un dépôt")
        assert "lang=" not in page.url and page.url.startswith(f"{world.url}/?repo=o%2Fr")
        expect(page.get_by_label("Dépôt", exact=True)).to_have_value("o/r")
        expect(page.get_by_label("Branche, étiquette ou commit")).to_have_value("main")
        expect(page.get_by_label("Fichier ou URL à ouvrir")).to_have_value("index.ipynb")
        expect(page.get_by_label("Nuage du campus", exact=True)).to_be_checked()
        page.goto(f"{world.url}/account/uses?sweeps=1")
        expect(page.get_by_role("heading", level=1)).to_have_text("Ce qui a été fait avec vos comptes")
        page.get_by_role("link", name="English").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("What was done with your accounts")
        assert page.url == f"{world.url}/account/uses?sweeps=1"


def test_the_switch_needs_no_script_and_fits_a_phone(world: World) -> None:
    with world.person(locale="en-GB", java_script_enabled=False, viewport=PHONE) as page:
        page.goto(f"{world.url}/?repo=o/r")
        page.get_by_label("File or URL to open").fill("a.ipynb")
        page.get_by_role("button", name="Français").click()
        expect(page.get_by_label("Fichier ou URL à ouvrir")).to_have_value("a.ipynb")
        page.get_by_role("link", name="Mes sessions").first.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Mes sessions")
        page.get_by_role("link", name="English").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("My sessions")
        assert page.url == f"{world.url}/sessions"


def test_caches_are_told_what_a_page_hangs_on(world: World) -> None:
    with world.person(**FRENCH) as page:
        head = page.request.get(world.url, headers={"accept": "text/html", "accept-language": "fr"}).headers
        assert (head["content-language"], head["vary"].lower()) == ("fr", "accept-language, cookie")
