"""What newcomers do, counted while it is done; `docs/newcomers.md` must say the same numbers."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from broker import connections, people, service, settings
from providers.fake import FakeCloud
from providers.fake.driver import KINDS
from tests.browser import test_connecting
from tests.browser.conftest import BUILD_MS
from tests.browser.shared import APP, World, running
from tests.browser.test_connecting import world as amazon
from tests.doubles.aws_double import ACCOUNT
from tests.doubles.binderhub_double import BinderHubDouble

__all__ = ["amazon"]  # a fixture, found by its name
pytestmark = pytest.mark.timeout(400)

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "newcomers.md"
ROW = re.compile(r"^\| (\d)\. [^|]*\|(.*)\|$", re.MULTILINE)
COUNT = re.compile(r"(\d+) · (\d+)")
FILES = {"index.ipynb": "{}"}
README = "<h1>A paper</h1><a href='{link}'><img alt='launch binder'></a>"


@dataclass(frozen=True)
class Count:
    clicks: int
    decisions: int


class Newcomer:
    """Somebody at a page, who counts. A press, a choice and a filled field are clicks; what they have to know is a decision."""

    def __init__(self, page: Page) -> None:
        self.page, self.clicks, self.decisions = page, 0, 0

    @property
    def count(self) -> Count:
        return Count(self.clicks, self.decisions)

    def press(self, what: Locator) -> None:
        self.clicks += 1
        what.click()

    def decide(self, what: Locator) -> None:
        """Choose it, or agree to it."""
        self.decisions += 1
        self.press(what)

    def fill(self, label: str, text: str) -> None:
        self.clicks += 1
        self.decisions += 1
        self.page.get_by_label(label, exact=True).fill(text)

    def go_back(self) -> None:
        """To the page before, by the browser's own button."""
        self.clicks += 1
        self.page.go_back()

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)


def told() -> dict[str, list[Count | None]]:
    """The rows of the page: ours first, then the others'; None where it cannot be done there."""
    rows = {number: cells.split("|") for number, cells in ROW.findall(PAGE.read_text())}
    return {number: [_count(cell) for cell in cells] for number, cells in rows.items()}


def _count(cell: str) -> Count | None:
    found = COUNT.search(cell)
    return Count(int(found[1]), int(found[2])) if found else None


@pytest.fixture(scope="module")
def hub() -> Iterator[BinderHubDouble]:
    with BinderHubDouble() as double:
        yield double


@pytest.fixture(scope="module")
def cloud() -> Iterator[FakeCloud]:
    with FakeCloud.start() as started:
        yield started


@pytest.fixture(scope="module")
def world(
    browser: Browser, hub: BinderHubDouble, cloud: FakeCloud, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A broker with a free hub, this computer, and a cloud where the person has connected an account of their own."""
    folder = tmp_path_factory.mktemp("newcomers")
    mine = {"name": "mine", "title": "My cloud", "provider": "fake"}
    local = {"name": "local", "title": "This computer", "provider": "local"}
    environment = {
        "ANYBINDER_BACKENDS": json.dumps([{**mine, "configuration": {**cloud.configuration, "kinds": "kept"}}, local]),
        "ANYBINDER_PEERS": json.dumps([{"name": "free", "title": "A free hub", "url": hub.url}]),
        "ANYBINDER_BINDER_PEERS": "relay",
    }
    with running(browser, folder, environment) as made:
        at = service.build(settings.Settings(home=folder / "home"), migrate=False)
        connections.connect(at, people.LOCAL, "backend:mine", [KINDS["kept"]], "kept", {"key": "the-fake-key"})
        at.close()
        yield made
        for launch in made.launches():
            if launch["state"] != "stopped":
                made.stop(launch["id"])


def there(page: Page, hub: BinderHubDouble) -> None:
    page.wait_for_url(re.compile(re.escape(f"{hub.url}/user/")))


def test_a_launch_link_is_followed(world: World, hub: BinderHubDouble) -> None:
    link = f"{world.url}/v2/git/{quote(world.repository('o/paper', FILES), safe='')}/main?labpath=index.ipynb"
    with world.visitor() as context:
        page = context.new_page()
        body = README.format(link=link)
        page.route("http://readme.localhost/", lambda route: route.fulfill(content_type="text/html", body=body))
        page.goto("http://readme.localhost/")
        newcomer = Newcomer(page)
        newcomer.press(page.get_by_role("link"))
        there(page, hub)
    assert newcomer.count == told()["1"][0]


def test_a_repository_is_run_for_nothing(world: World, hub: BinderHubDouble) -> None:
    with world.visitor() as context:
        page = context.new_page()
        page.goto(world.url)
        newcomer = Newcomer(page)
        newcomer.fill("Repository", world.repository("o/free", FILES))
        newcomer.press(newcomer.button("Launch"))
        there(page, hub)
    assert newcomer.count == told()["2"][0]


def test_it_is_run_on_larger_compute_of_ones_own(world: World) -> None:
    with world.person() as page:
        newcomer = Newcomer(page)
        newcomer.fill("Repository", world.repository("o/large", FILES))
        expect(page.get_by_text("Found:")).to_be_visible()
        newcomer.decide(page.get_by_label("My cloud", exact=True))
        newcomer.decide(page.get_by_label("Large", exact=True))
        newcomer.press(newcomer.button("Launch"))
        expect(page.get_by_role("heading", level=1)).to_have_text("A session of the fake cloud", timeout=30_000)
        world.stop(world.launches()[0]["id"])
    assert newcomer.count == told()["3"][0]


@pytest.fixture
def inside(world: World) -> Iterator[Page]:
    """Somebody in the session that they launched, where a file is new."""
    with world.person() as page:
        page.get_by_label("Repository", exact=True).fill(world.repository("o/app", APP))
        page.get_by_label("This computer", exact=True).check()
        page.get_by_role("button", name="Launch", exact=True).click()
        page.get_by_role("button", name="Run it").click()
        page.wait_for_url(re.compile(r"^http://\w+\.localhost"), timeout=BUILD_MS)
        expect(page.get_by_role("heading")).to_contain_text("hello from")
        yield page


def test_ones_work_comes_home(inside: Page, tmp_path: Path) -> None:
    newcomer = Newcomer(inside)
    newcomer.go_back()
    with inside.expect_download() as begun:
        newcomer.press(inside.get_by_role("link", name="Download my work"))
    begun.value.save_as(tmp_path / "work.zip")
    assert any(name.endswith("app.py") for name in zipfile.ZipFile(tmp_path / "work.zip").namelist())
    assert newcomer.count == told()["4"][0]


def test_it_is_stopped_and_nothing_is_left(world: World, cloud: FakeCloud) -> None:
    with world.person() as page:
        page.get_by_label("Repository", exact=True).fill(world.repository("o/costs", FILES))
        page.get_by_label("My cloud", exact=True).check()
        page.get_by_role("button", name="Launch", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("A session of the fake cloud", timeout=30_000)
        assert cloud.instances()
        newcomer = Newcomer(page)
        newcomer.go_back()
        newcomer.press(newcomer.button("Stop"))
        expect(page.locator("#panel-title + p")).to_contain_text("Nothing of it is left.", timeout=30_000)
        assert cloud.instances() == []
    assert newcomer.count == told()["5"][0]


def test_a_badge_is_made(world: World) -> None:
    with world.visitor(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.goto(world.url)
        newcomer = Newcomer(page)
        newcomer.fill("Repository", world.repository("o/free", FILES))
        newcomer.press(page.get_by_role("link", name="Make a launch link"))
        newcomer.press(newcomer.button("Copy the Markdown"))
        expect(page.get_by_text("Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"\[!\[[^\]]+\]\(\S+/badge\.svg\)\]\(\S+/v2/git/\S+\)", copied.strip()), copied
    assert newcomer.count == told()["6"][0]


def test_an_account_is_connected(amazon: test_connecting.World) -> None:
    """Counted from the form to back at the form; what the cloud's own console asks is counted by the page, not here."""
    with amazon.visitor() as context:
        page = context.new_page()
        page.goto(f"{amazon.way.url}/?backend=aws")
        test_connecting.sign_in(page)
        page.goto(f"{amazon.way.url}/?backend=aws")
        newcomer = Newcomer(page)
        newcomer.press(page.get_by_role("link", name="Connect your account"))
        with context.expect_page() as opened:
            newcomer.press(page.get_by_role("link", name="Open AWS with everything filled in"))
        stack = test_connecting.create_stack(amazon, opened.value.url)
        newcomer.fill("Account number", ACCOUNT)
        newcomer.press(newcomer.button("Check"))
        expect(page.get_by_role("heading", name="Connected, and it works")).to_be_visible()
        newcomer.press(page.get_by_role("link", name="Back to your launch"))
        amazon.account.delete(stack)
    count = newcomer.count
    assert f"{count.clicks} clicks and {count.decisions} decision with us" in PAGE.read_text()


def test_ours_is_never_more() -> None:
    rows = told()
    assert list(rows) == ["1", "2", "3", "4", "5", "6"]
    for number, (ours, *others) in rows.items():
        assert ours is not None, number
        assert len(others) == 3, number
        for other in (each for each in others if each is not None):
            assert ours.clicks <= other.clicks, number
            assert ours.decisions <= other.decisions, number
