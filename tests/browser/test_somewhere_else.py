"""What failed runs at another place with one click; while one waits, the page says how long it takes and who provides it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from providers.fake import FakeCloud
from tests.browser.conftest import DESK, PHONE, held_by, picture, wide_enough
from tests.browser.shared import APP, FAILING, World, running
from tests.waiting import until

TALL = {**DESK, "height": 1200}
HIDDEN = "Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true}); window.away = true"
TOLD = "window.told = []; window.Notification = class { static permission = 'granted'; constructor(word) { told.push(word); } }"
BACK = "window.away = false; document.dispatchEvent(new Event('visibilitychange'))"


@pytest.fixture(scope="module")
def cloud() -> Iterator[FakeCloud]:
    with FakeCloud.start() as started:
        yield started


@pytest.fixture(scope="module")
def two(browser: Browser, cloud: FakeCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A broker with two places: this computer, and a cloud of its operator's."""
    told = {**cloud.configuration, "kinds": "none"}
    backends = [
        {"name": "local", "title": "This computer", "provider": "local"},
        {"name": "campus", "title": "Campus cloud", "provider": "fake", "configuration": told},
    ]
    folder = tmp_path_factory.mktemp("two")
    with running(browser, folder, {"ANYBINDER_BACKENDS": json.dumps(backends)}) as world:
        yield world


def test_one_click_after_a_failure_runs_it_somewhere_else(two: World) -> None:
    failed = two.launch(two.repository("o/bad", FAILING), backend="local", path="kept.ipynb", name="mine")
    with two.person(viewport=TALL) as page:
        page.goto(f"{two.url}/launches/{failed['id']}")
        expect(page.locator(".panel.failed")).to_be_visible(timeout=60_000)
        expect(page.locator("#others")).to_have_text("Run it somewhere else")
        picture(page, "somewhere-else")
        for name, size, scheme in (("phone", PHONE, "light"), ("dark", TALL, "dark")):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            wide_enough(page)
            picture(page, f"somewhere-else-{name}")
        page.get_by_role("button", name="Run it here (Campus cloud)").click()
        page.wait_for_url(lambda url: failed["id"] not in url)
        again = two.reached(page.url.rpartition("/")[2], "stopped") or two.launches()[0]
        assert (again["backend"], again["path"]) == ("campus", "kept.ipynb")


def test_the_other_places_go_on_by_themselves_as_clouds_answer(two: World, cloud: FakeCloud) -> None:
    failed = two.launch(two.repository("o/bad", FAILING), backend="local", cpu=2)
    number = cloud.fault("offers", "hold", times=None)
    with two.person(viewport=TALL) as page:
        page.goto(f"{two.url}/launches/{failed['id']}")
        row = page.locator(".others li")
        expect(page.locator(".panel.failed")).to_be_visible(timeout=60_000)
        expect(row).to_contain_text("asking for its price")
        cloud.release(number)
        expect(row).to_contain_text("at most $")
    cloud.clear()


def test_without_javascript_a_failure_is_seen_and_run_somewhere_else(two: World) -> None:
    """The page loads itself anew while it waits, and the places after the failure are forms."""
    failed = two.launch(two.repository("o/plainly-bad", FAILING), backend="local", name="plainly")
    with two.person(java_script_enabled=False) as page:
        page.goto(f"{two.url}/launches/{failed['id']}")
        expect(page.get_by_role("heading", name="This launch failed")).to_be_visible(timeout=60_000)
        expect(page.locator("#log")).to_contain_text("line 40 of the build")
        page.get_by_role("button", name="Run it here (Campus cloud)").click()
        page.wait_for_url(lambda url: failed["id"] not in url)
        expect(page.locator(".meta")).to_contain_text("on Campus cloud")


def test_while_one_waits_and_looks_elsewhere_the_browser_tells_and_waits(two: World, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    two.ready(two.repository("o/quick", APP), backend="local")  # how long it usually takes is known from then on
    launch = two.launch(two.repository("o/slow", {"postBuild": held_by(gate), **APP}), backend="local", hours=1)
    with two.person(viewport=TALL) as page:
        page.add_init_script(f"{TOLD}; {HIDDEN}")
        page.goto(f"{two.url}/launches/{launch['id']}")
        expect(page.locator("#log")).to_contain_text("line number 5", timeout=60_000)
        expect(page.locator("progress")).to_be_visible()
        expect(page.locator("#provided")).to_have_text("The computer that this hub runs on provides the compute.")
        expect(page.locator("#noticed")).to_be_visible()
        picture(page, "waiting")
        gate.touch()
        until(lambda: page.evaluate("told.length") == 1, seconds=60, what=two.broker.log())
        assert page.evaluate("told[0]").startswith("Ready: ")
        assert f"/launches/{launch['id']}" in page.url
        page.evaluate(BACK)
        page.wait_for_url(lambda url: url.startswith("http://" + launch["id"]))
        page.goto(f"{two.url}/launches/{launch['id']}?watch")
        page.get_by_role("button", name="30 minutes", exact=True).click()
        expect(page.locator("#log")).to_contain_text("It may last 30 minutes longer, at your wish.")
        picture(page, "ready")
        page.set_viewport_size(PHONE)
        page.emulate_media(color_scheme="dark")
        wide_enough(page)
        picture(page, "ready-phone-dark")
