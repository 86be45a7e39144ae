"""“What am I paying for?” in a real browser: with and without JavaScript, on a phone, by keyboard, in the dark."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from broker import connections, crypto, people, service, settings
from providers import base
from providers.fake import FakeCloud
from providers.fake.driver import KINDS
from tests.browser.conftest import DESK, PHONE, picture, wide_enough
from tests.browser.shared import FAILING, World, running
from tests.waiting import until

TALL = {**DESK, "height": 1180}  # all of it is in the picture


class Clouds:
    """A broker with two places: a cloud of its operator's, and one where the person has an account of their own."""

    def __init__(self, world: World, common: FakeCloud, own: FakeCloud) -> None:
        self.world, self.common, self.own = world, common, own

    def buys_unknown(self) -> None:
        """Something in the person's account that the table knows nothing of."""
        provider = self.own.provider()
        connection = base.Connection(kind="kept", secret="the-fake-key")
        credential = provider.sign_in(connection, None)
        tag = base.Tag(
            broker=crypto.Keyring(self.world.broker.home).broker_id,
            launch="gone",
            order="stray",
            until=dt.datetime.now(dt.UTC) + dt.timedelta(hours=3),
        )
        boot = base.Boot(user_data="", config={}, agent="")
        offer = provider.offers(credential, base.Resources())[0]
        provider.provision(credential, base.Order(id="stray", offer=offer, tag=tag, boot=boot))

    def launches(self, backend: str, name: str) -> str:
        """A session whose machine never comes up: it stays, and costs."""
        wish = {"repo": self.world.repository("paid", FAILING), "backend": backend, "name": name, "consent": True}
        found = self.world.broker.api("POST", "/api/launches", json=wish).raise_for_status().json()
        return found["id"]


@pytest.fixture(scope="module")
def clouds(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    folder = tmp_path_factory.mktemp("running")
    with FakeCloud.start() as common, FakeCloud.start() as own:
        for cloud in (common, own):
            cloud.fault("provision", "never_dials", times=None)
        backends = [
            {"name": "common", "title": "Campus cloud", "provider": "fake",
             "configuration": {**common.configuration, "kinds": "none"}},
            {"name": "mine", "title": "Amazon in Oregon", "provider": "fake",
             "configuration": {**own.configuration, "kinds": "kept"}},
        ]  # fmt: skip
        with running(browser, folder, {"ANYBINDER_BACKENDS": json.dumps(backends)}) as world:
            at = service.build(settings.Settings(home=folder / "home"), migrate=False)
            kinds = [KINDS["kept"]]
            connections.connect(at, people.LOCAL, "backend:mine", kinds, "kept", {"key": "the-fake-key"})
            at.close()
            made = Clouds(world, common, own)
            for backend in ("common", "mine"):
                made.launches(backend, f"analysis-{backend}")
            made.buys_unknown()
            until(lambda: len(common.instances()) == 1 and len(own.instances()) == 2, seconds=60)
            yield made
            own.clear()


def opened(page: Page, clouds: Clouds) -> Page:
    page.goto(f"{clouds.world.url}/running")
    return page


@pytest.mark.parametrize(("viewport", "scheme"), [(TALL, "light"), (PHONE, "dark")], ids=["desk", "phone in the dark"])
def test_every_cloud_is_asked_and_said_as_it_answers(clouds: Clouds, viewport: dict[str, int], scheme: str) -> None:
    with clouds.world.person(viewport=viewport, color_scheme=scheme, locale="en-GB") as page:
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        opened(page, clouds)
        expect(page.get_by_role("status")).to_contain_text("Every place was asked.")
        mine = page.get_by_role("region", name="Amazon in Oregon")
        expect(mine).to_contain_text("As its cloud lists it now.")
        expect(mine).to_contain_text("No launch of yours knows this.")
        expect(mine.get_by_role("link", name="analysis-mine")).to_be_visible()
        expect(page.locator("#total")).to_contain_text("without a known price")
        expect(page.locator("#by")).to_contain_text("By the clouds’ own lists")
        wide_enough(page)
        if scheme == "light":
            picture(page, "running")
        assert complaints == []


def test_without_javascript_each_is_asked_by_its_link(clouds: Clouds) -> None:
    with clouds.world.person(java_script_enabled=False) as page:
        opened(page, clouds)
        mine = page.get_by_role("region", name="Amazon in Oregon")
        expect(mine).to_contain_text("As this hub wrote it down.")
        mine.get_by_role("link", name="Ask the cloud now about Amazon in Oregon").click()
        expect(page.get_by_role("region", name="Amazon in Oregon")).to_contain_text("As its cloud lists it now.")
        expect(page.get_by_role("region", name="Campus cloud")).to_contain_text("As this hub wrote it down.")


def test_the_script_sums_up_as_the_server_does(clouds: Clouds) -> None:
    with clouds.world.person() as page:
        page.goto(f"{clouds.world.url}/running?look=mine")
        before = page.locator("#total").text_content() or ""
        page.get_by_role("link", name="Ask again about Amazon in Oregon").click()
        expect(page.get_by_role("status")).to_contain_text("$0.10 an hour")
        after = page.locator("#total").text_content() or ""
        without_cents = re.compile(r"\$[\d.]+ so far")
        assert without_cents.sub("", before) == without_cents.sub("", after)


def test_a_cloud_that_does_not_answer_says_so_in_its_place_alone(clouds: Clouds) -> None:
    number = clouds.own.fault("instances", "unavailable", times=None)
    with clouds.world.person() as page:
        opened(page, clouds)
        expect(page.get_by_role("status")).to_contain_text("1 of 2 places could not be asked.")
        mine = page.get_by_role("region", name="Amazon in Oregon")
        expect(mine).to_contain_text("It could not be asked, since")
        expect(mine).to_contain_text("analysis-mine")
        expect(page.get_by_role("region", name="Campus cloud")).to_contain_text("As its cloud lists it now.")
    assert number
    clouds.own.clear()
    clouds.own.fault("provision", "never_dials", times=None)


def test_one_is_stopped_from_there_by_keyboard(clouds: Clouds) -> None:
    with clouds.world.person() as page:
        opened(page, clouds)
        expect(page.get_by_role("status")).to_contain_text("Every place was asked.")
        stop = page.get_by_role("button", name="Stop analysis-common")
        stop.focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/running")
        expect(page.get_by_role("button", name="Stop analysis-common")).to_have_count(0)
        until(lambda: clouds.common.billed() == [], seconds=60)


def test_it_is_found_from_my_sessions(clouds: Clouds) -> None:
    with clouds.world.person() as page:
        page.goto(f"{clouds.world.url}/sessions")
        page.get_by_role("link", name="What I am paying for right now").click()
        expect(page.get_by_role("heading", name="What I am paying for right now")).to_be_visible()
