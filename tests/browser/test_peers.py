"""Somebody runs a repository at another hub, in a real browser: chosen, failed over, entered there; and a visitor by a link."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import DESK, PHONE, picture, wide_enough
from tests.browser.shared import World, running
from tests.doubles.binderhub_double import BUILT, BinderHubDouble

FILES = {"index.ipynb": "{}"}
TERMS = "https://hub.example.org/terms"


@pytest.fixture(scope="module")
def hubs() -> Iterator[tuple[BinderHubDouble, BinderHubDouble]]:
    with BinderHubDouble() as first, BinderHubDouble() as second:
        yield first, second


@pytest.fixture(scope="module")
def world(
    browser: Browser, hubs: tuple[BinderHubDouble, BinderHubDouble], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    told = [
        {"name": "mybinder", "title": "A public hub", "url": hubs[0].url, "terms_url": TERMS, "privacy_url": TERMS},
        {"name": "institute", "title": "The institute's hub", "url": hubs[1].url, "terms_url": TERMS},
    ]
    chosen = {
        "ANYBINDER_PEERS": json.dumps(told),
        "ANYBINDER_BINDER_PEERS": "relay",
        "ANYBINDER_PEER_LOOK_SECONDS": "1",
    }
    with running(browser, tmp_path_factory.mktemp("peers"), chosen) as made:
        yield made
        for launch in made.launches():
            if launch["state"] != "stopped":
                made.stop(launch["id"])


@pytest.fixture(autouse=True)
def calm(hubs: tuple[BinderHubDouble, BinderHubDouble]) -> None:
    for hub in hubs:
        hub.lines = list(BUILT)
        hub.go_on.clear()


def there(page: Page, hub: BinderHubDouble) -> None:
    page.wait_for_url(re.compile(re.escape(f"{hub.url}/user/")))


def test_a_peer_is_chosen_with_its_terms_and_entered(
    world: World, hubs: tuple[BinderHubDouble, BinderHubDouble]
) -> None:
    repo = world.repository("o/chosen", FILES)
    hubs[0].lines = [*BUILT[:3], "hold", *BUILT[3:]]
    with world.person(viewport={**DESK, "height": 1300}) as page:
        page.goto(f"{world.url}/?repo={repo}&path=index.ipynb")
        page.get_by_label("A public hub", exact=True).check()
        expect(page.locator(".place").filter(has_text="A public hub")).to_contain_text(
            "What is launched there is public."
        )
        picture(page, "peers-choice")
        page.get_by_role("button", name="Launch", exact=True).click()
        expect(page.locator("#peer")).to_contain_text("Another hub runs this: A public hub.")
        expect(page.locator("#peer").get_by_role("link", name="Its terms of use")).to_have_attribute("href", TERMS)
        expect(page.locator("#steps .now")).to_contain_text("Building")
        picture(page, "peers-progress")
        wide_enough(page)
        page.set_viewport_size(PHONE)
        wide_enough(page)
        picture(page, "peers-progress-phone")
        hubs[0].go_on.set()
        there(page, hubs[0])
        assert "/lab/tree/index.ipynb?token=" in page.url


def test_a_newcomer_who_knows_nobody_here_launches_free_at_a_peer(
    world: World, hubs: tuple[BinderHubDouble, BinderHubDouble]
) -> None:
    """No sign-in, no account, nothing to pay: paste, choose, press."""
    with world.visitor(viewport={**DESK, "height": 1100}) as context:
        page = context.new_page()
        page.goto(world.url)
        page.get_by_label("Repository", exact=True).fill(world.repository("o/newcomer", FILES))
        page.get_by_label("The institute's hub", exact=True).check()
        expect(page.locator(".place").filter(has_text="The institute's hub")).to_contain_text("free")
        picture(page, "newcomer")
        page.get_by_role("button", name="Launch", exact=True).click()
        there(page, hubs[1])


def test_a_hub_that_fails_on_the_way_is_followed_by_the_next(
    world: World, hubs: tuple[BinderHubDouble, BinderHubDouble]
) -> None:
    repo = world.repository("o/failing", FILES)
    hubs[0].lines = [*BUILT[:3], "fail"]
    hubs[1].lines = [*BUILT[:4], "hold", *BUILT[4:]]
    with world.person(viewport=DESK) as page:
        page.goto(f"{world.url}/?repo={repo}")
        page.get_by_label("A public hub", exact=True).check()
        page.get_by_role("button", name="Launch", exact=True).click()
        expect(page.locator("#log")).to_contain_text("A public hub: Build failed, see the log.")
        expect(page.locator("#log")).to_contain_text("The institute's hub is asked to run it")
        expect(page.locator("#peer")).to_contain_text("Another hub runs this: The institute's hub.")
        expect(page.locator("#where")).not_to_contain_text("A public hub")
        picture(page, "peers-failed-over")
        hubs[1].go_on.set()
        expect(page.get_by_role("heading", name="It runs at The institute's hub")).to_be_visible()
        expect(page.get_by_role("link", name="Its terms of use")).to_have_attribute("href", TERMS)
        picture(page, "peers-leaving")
        wide_enough(page)
        page.get_by_role("link", name="Open it there").click()
        there(page, hubs[1])


def test_a_visitor_by_a_link_is_told_who_runs_it_and_led_there(
    world: World, hubs: tuple[BinderHubDouble, BinderHubDouble]
) -> None:
    target = quote(world.repository("o/visited", FILES), safe="")
    for hub in hubs:
        hub.lines = [*BUILT[:3], "hold", *BUILT[3:]]
    with world.visitor(viewport=DESK) as context:
        page = context.new_page()
        page.goto(f"{world.url}/v2/git/{target}/main?labpath=index.ipynb")
        expect(page.locator("#peers")).to_contain_text("The institute's hub")
        expect(page.locator("#steps .now")).to_contain_text("Building")
        picture(page, "peers-visitor")
        for hub in hubs:
            hub.go_on.set()
        page.wait_for_url(re.compile("|".join(re.escape(f"{hub.url}/user/") for hub in hubs)))
        assert "/doc/tree/index.ipynb?token=" in page.url
