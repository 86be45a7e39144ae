"""Signing in and out in a real browser, with two identity providers that ask who one is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import DESK, PHONE, picture, wide_enough
from tests.browser.shared import World, running
from tests.doubles.openid_double import OpenIdDouble


class Hub:
    """A broker that both providers vouch to."""

    def __init__(self, world: World, campus: OpenIdDouble, orcid: OpenIdDouble) -> None:
        self.world, self.campus, self.orcid = world, campus, orcid

    def sign_in(self, page: Page, at: str = "Campus", who: str = "ada") -> None:
        """From the page of choosing to wherever it leads."""
        page.get_by_role("link", name=at, exact=True).click()
        page.get_by_role("link", name=who).click()


@pytest.fixture(scope="module")
def hub(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with ExitStack() as stack:
        doubles = [stack.enter_context(OpenIdDouble(name, title=title)) for name, title in
                   (("campus", "Campus"), ("orcid", "ORCID"))]  # fmt: skip
        for double in doubles:
            double.asks = True
        doubles[1].people = {"lovelace": {"sub": "0000-0001", "name": "A. Lovelace"}}
        told = [
            {"name": each.name, "title": each.title, "issuer": each.issuer, "client_id": each.client_id,
             "client_secret": each.client_secret}
            for each in doubles
        ]  # fmt: skip
        world = stack.enter_context(
            running(browser, tmp_path_factory.mktemp("signing-in"), {"ANYBINDER_IDENTITIES": json.dumps(told)})
        )
        yield Hub(world, *doubles)


@pytest.mark.parametrize("options", [{}, {"java_script_enabled": False}, {"viewport": PHONE, "color_scheme": "dark"}])
def test_what_a_link_filled_in_is_kept_and_signing_out_ends_it_at_both(hub: Hub, options: dict[str, Any]) -> None:
    with hub.world.visitor(**{"viewport": DESK, "locale": "en-GB", **options}) as context:
        page = context.new_page()
        page.goto(f"{hub.world.url}/?repo=https%3A%2F%2Fgithub.com%2Fo%2Fr&path=a.ipynb")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        wide_enough(page)
        if options.get("viewport") != PHONE:
            picture(page, "login")
        hub.sign_in(page)
        expect(page.get_by_label("Repository", exact=True)).to_have_value("https://github.com/o/r")
        expect(page.get_by_label("File or URL to open")).to_have_value("a.ipynb")
        seen = [headers.get("Referer", "") for _, _, headers in hub.campus.requests]
        assert not [referer for referer in seen if referer.startswith(hub.world.url)]
        assert hub.campus.sessions
        page.goto(f"{hub.world.url}/account")
        page.get_by_role("button", name="Sign out", exact=True).click()
        page.wait_for_url("**/login/campus/loggedout")
        expect(page.get_by_text("Here, and at Campus.")).to_be_visible()
        wide_enough(page)
        assert not hub.campus.sessions
        page.goto(f"{hub.world.url}/sessions")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_cancelling_says_so_and_another_way_is_offered(hub: Hub) -> None:
    with hub.world.visitor(viewport=DESK) as context:
        page = context.new_page()
        page.goto(f"{hub.world.url}/sessions")
        hub.campus.says_error = "access_denied"
        try:
            hub.sign_in(page)
        finally:
            hub.campus.says_error = ""
        expect(page.get_by_role("heading", level=1)).to_have_text("You were not signed in")
        page.get_by_role("link", name="Sign in another way").click()
        hub.sign_in(page, "ORCID", "lovelace")
        page.wait_for_url("**/sessions")


def test_a_second_account_is_added_from_the_page_of_the_account(hub: Hub) -> None:
    with hub.world.visitor(viewport=DESK) as context:
        page = context.new_page()
        page.goto(f"{hub.world.url}/account")
        hub.sign_in(page, who="bob")
        page.wait_for_url("**/account")
        page.get_by_role("link", name="ORCID").click()
        page.get_by_role("link", name="lovelace").click()
        page.wait_for_url("**/account")
        expect(page.get_by_text("A. Lovelace").first).to_be_visible()


def test_the_provider_signs_a_browser_out_by_itself(hub: Hub) -> None:
    with hub.world.visitor(viewport=DESK) as context:
        page = context.new_page()
        page.goto(f"{hub.world.url}/sessions")
        hub.sign_in(page)
        page.wait_for_url("**/sessions")
        told = hub.campus.send_logout(f"{hub.world.url}/login/campus/backchannel", sub="ada-1")
        assert told.status_code == 200, told.text
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
