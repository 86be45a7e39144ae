"""The page of one's account in a real browser: with and without JavaScript, on a phone, by keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from broker import api_tokens, devices, people, service, settings, signins
from tests.broker import guests
from tests.browser.conftest import DESK, PHONE, picture, wide_enough
from tests.browser.shared import World, running

SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Version/18.5 Mobile/15E148 Safari/604.1"
NAME = "Ada Lovelace"


class Hub:
    """A broker where people sign in, and its insides in this process: to sign them in, and to ask as a command line."""

    def __init__(self, world: World, at: service.Service) -> None:
        self.world, self.at = world, at

    @contextmanager
    def person(self, name: str = NAME, **options: Any) -> Iterator[Page]:
        """The page of somebody who has just signed in."""
        with self.world.visitor(**{"viewport": DESK, "locale": "en-GB", **options}) as context:
            cookie = {"name": "anybinder-sign-in", "value": guests.cookie(self.at, name), "url": self.world.url}
            context.add_cookies([{**cookie, "httpOnly": True, "sameSite": "Lax"}])  # type: ignore[list-item]
            yield context.new_page()

    def goto(self, page: Page, path: str) -> Page:
        page.goto(self.world.url + path)
        return page


@pytest.fixture(scope="module")
def hub(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("account")
    identities = [
        one.model_dump(include={"name", "title", "issuer", "client_id"}) for one in (guests.IDENTITY, guests.OTHER)
    ]
    with running(browser, folder, {"ANYBINDER_IDENTITIES": json.dumps(identities)}) as world:
        chosen = settings.Settings(home=folder / "home", identities=(guests.IDENTITY, guests.OTHER))
        at = service.build(chosen, migrate=False)
        yield Hub(world, at)
        at.close()


def test_a_token_is_made_copied_and_revoked(hub: Hub) -> None:
    with hub.person("Grace Hopper") as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        hub.goto(page, "/")
        page.get_by_role("link", name="My account: Grace Hopper").click()
        page.get_by_label("What it is for").fill("nightly tests")
        page.get_by_label("Days it is good for").fill("7")
        page.get_by_label("Launch, stop, and enter").uncheck()
        page.get_by_role("button", name="Make the token").click()
        expect(page.get_by_role("heading", name="Copy it now")).to_be_visible()
        text = page.get_by_label("The token").input_value()
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("status")).to_have_text("Copied.")
        assert page.evaluate("navigator.clipboard.readText()") == text
        answer = page.request.get(f"{hub.world.url}/api/me", headers={"authorization": f"Bearer {text}"}).json()
        assert (answer["name"], answer["scopes"]) == ("Grace Hopper", ["read"])
        page.get_by_role("link", name="I have it").click()
        expect(page.get_by_text("nightly tests").first).to_be_visible()
        assert text not in page.content()
        page.get_by_role("button", name="Revoke nightly tests").click()
        expect(page.get_by_text("You have none.")).to_be_visible()
        assert page.request.get(f"{hub.world.url}/api/me", headers={"authorization": f"Bearer {text}"}).status == 401


def test_everything_works_without_javascript(hub: Hub) -> None:
    with hub.person("Mary Jackson", java_script_enabled=False) as page, hub.person("Mary Jackson") as other:
        hub.goto(page, "/account")
        page.get_by_label("What it is for").fill("plain")
        page.get_by_role("button", name="Make the token").click()
        expect(page.get_by_role("button", name="Copy")).to_be_hidden()
        assert page.get_by_label("The token").input_value().startswith("abt_")
        page.get_by_role("link", name="I have it").click()
        page.get_by_role("button", name="Revoke plain").click()
        hub.goto(other, "/account")
        page.reload()
        page.get_by_role("button", name="Sign out everywhere else").click()
        expect(page.locator("section", has=page.get_by_role("heading", name="Where I am"))).to_contain_text("this one")
        hub.goto(other, "/account")
        expect(other).to_have_url(re.compile("/login"))
        page.get_by_role("button", name="Sign out everywhere", exact=True).click()
        expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def test_a_command_line_is_let_in_by_keyboard_alone(hub: Hub) -> None:
    begun = devices.begin(hub.at, name="ada-laptop", scopes=["read", "launch"], asked_from="here")
    with hub.person() as page:
        hub.goto(page, "/device")
        expect(page.get_by_label("The code")).to_be_focused()
        page.keyboard.type(begun.user_code.lower())
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Let this command line in?")
        expect(page.get_by_text("Only if you started this yourself")).to_be_visible()
        expect(page.locator(".facts")).to_contain_text("ada-laptop")
        assert begun.user_code not in page.url.upper()
        picture(page, "account-device")
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "Let it in":
                break
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("It is let in")
    token, _ = devices.collect(hub.at, begun.device_code)
    assert (token.name, token.scopes) == ("ada-laptop", "read launch")


def test_a_wrong_code_is_said_and_can_be_typed_again(hub: Hub) -> None:
    with hub.person() as page:
        hub.goto(page, "/device").get_by_label("The code").fill("BBBB-BBBB")
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("alert")).to_contain_text("No command line waits")
        expect(page.get_by_label("The code")).to_be_focused()
        expect(page.get_by_label("The code")).to_have_value("BBBB-BBBB")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_and_are_shown(hub: Hub, scheme: Any) -> None:
    ada = people.of(guests.person(hub.at, NAME))
    guests.person(hub.at, NAME, guests.OTHER.issuer)
    signins.end_all(hub.at, ada)
    guests.cookie(hub.at, NAME, agent=SAFARI)
    if not [one for one in api_tokens.of(hub.at, ada) if one.name == "nightly tests of the course"]:
        api_tokens.create(hub.at, ada, name="nightly tests of the course", scopes=["read"], days=7)
    with hub.person(color_scheme=scheme, reduced_motion="reduce") as page:
        for path in ("/account", "/device"):
            hub.goto(page, path)
            fits(page)
            if path == "/account" and scheme == "light":
                page.set_viewport_size({"width": DESK["width"], "height": 1700})
                picture(page, "account")
                page.set_viewport_size(PHONE)  # type: ignore[arg-type]
                picture(page, "account-phone")
        hub.goto(page, "/account")
        page.set_viewport_size(DESK)  # type: ignore[arg-type]
        page.get_by_label("What it is for").fill("a name")
        page.get_by_role("button", name="Make the token").click()
        fits(page)
        if scheme == "light":
            page.set_viewport_size(DESK)  # type: ignore[arg-type]
            page.get_by_label("The token").evaluate("field => { field.value = 'abt_' + 'x'.repeat(43) }")
            picture(page, "account-token")


def fits(page: Page) -> None:
    """No screen is too narrow, everything to press is as large as a finger, one heading of the first level."""
    for width in (320, 390, 640, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        wide_enough(page)
        small = page.evaluate(
            "[...document.querySelectorAll('button, .button, nav a, input:not([type=checkbox]):not([type=hidden])')]"
            ".filter(one => one.offsetParent && one.getBoundingClientRect().height < 44).map(one => one.outerHTML)"
        )
        assert small == []
    assert page.locator("h1").count() == 1


def test_the_one_local_person_finds_their_own_page(hub: Hub) -> None:
    with hub.world.person(viewport=DESK) as page:
        page.get_by_role("link", name="My account: you").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("My account")
        expect(page.get_by_text("You are the one person at this computer")).to_be_visible()
        expect(page.get_by_role("heading", name="Where I am signed in")).to_have_count(0)
        expect(page.get_by_role("button", name="Make the token")).to_be_visible()


def test_whoever_is_not_signed_in_is_led_to_sign_in(hub: Hub, tmp_path: Path) -> None:
    with hub.world.visitor() as context:
        page = hub.goto(context.new_page(), "/account")
        expect(page).to_have_url(re.compile(r"/login\?next=%2Faccount"))
        expect(page.get_by_role("link", name="Sign in")).to_be_visible()
