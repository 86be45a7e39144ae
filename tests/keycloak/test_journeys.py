"""The same journeys with either provider: what a person does, and what that does at the other end."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import picture
from tests.browser.shared import APP
from tests.keycloak.conftest import launch, site, stop

pytestmark = pytest.mark.timeout(600)  # the first test waits for Keycloak to be fetched, built and started

WAYS = ("keycloak", "node")


@pytest.fixture(scope="module")
def world(keycloak_server, browser, tmp_path_factory):
    with site(keycloak_server, browser, tmp_path_factory.mktemp("journeys"), realm="journeys") as made:
        yield made


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


def lab(page):
    return page.get_by_label("The lab", exact=True)


def test_a_link_leads_through_signing_in_to_its_form(world, way):
    repo = world.repository("linked.git", APP)
    with world.visitor() as page:
        page.goto(f"{world.url}/?repo={quote(repo, safe='')}&ref=main&path=%2Fhello&name=mine")
        picture(page, "sign-in-1-choose")
        world.ways[way].enrol("ada")
        page.get_by_role("link", name={"keycloak": "The university", "node": "The other place"}[way]).click()
        if way == "keycloak":  # its words are there once its own fonts are
            page.wait_for_function("[...document.fonts].some(font => font.status === 'loaded')")
            picture(page, "sign-in-2-keycloak")
        world.ways[way].enter(page, "ada")
        expect(page.get_by_label("Repository", exact=True)).to_have_value(repo)
        expect(page.get_by_label("File or URL to open")).to_have_value("/hello")
        expect(page.get_by_label("Name")).to_have_value("mine")
        expect(page.get_by_role("link", name="Ada")).to_be_visible()
        picture(page, "sign-in-3-back")


def test_who_has_signed_in_launches_and_enters(world, way):
    repo = world.repository("app.git", APP)
    with world.person("grace", way) as page:
        launch(page, f"{world.url}/?repo={quote(repo, safe='')}&name=app-{way}")
        stop(page, world)


def test_groups_open_and_close_a_backend_without_signing_in_anew(world, way):
    with world.person(f"{way}-joan", way) as page:
        page.goto(world.url)
        expect(lab(page)).to_be_disabled()
        expect(page.get_by_text("It is open to others: group staff.")).to_be_visible()
        picture(page, "sign-in-4-closed")
        world.ways[way].put_in(f"{way}-joan", ["staff"])
        world.let_time_pass()
        page.reload()
        expect(lab(page)).to_be_enabled()
        picture(page, "sign-in-5-open")
        world.ways[way].put_in(f"{way}-joan", [])
        world.let_time_pass()
        page.reload()
        expect(lab(page)).to_be_disabled()


def test_signing_out_here_ends_the_session_there(world, way):
    with world.person("mary", way) as page:
        assert world.signed_in(page)
        page.goto(f"{world.url}/account")
        page.get_by_role("button", name="Sign out", exact=True).click()
        world.ways[way].agree_to_leave(page)
        page.get_by_text("You are signed out").wait_for()
        page.wait_for_url(f"{world.url}/login/{way}/loggedout*")
        picture(page, "sign-in-6-out")
        assert not world.signed_in(page)
        page.goto(f"{world.url}/login/{way}")
        assert world.ways[way].asks(page), page.url


def test_signing_out_there_ends_the_session_here(world, way):
    with world.person("rosa", way) as page, world.person("rosa", way) as elsewhere:
        world.ways[way].leave(page)
        page.goto(world.url)
        assert page.url.startswith(f"{world.url}/login"), world.said(way)
        assert not world.signed_in(page)
        assert world.signed_in(elsewhere)  # another browser, another session there


def test_two_accounts_become_one_person_after_signing_in_to_both(world):
    with world.person("edith", "keycloak") as page:
        first = world.me(page)
        page.goto(f"{world.url}/account")
        page.get_by_role("link", name="The other place").or_(
            page.get_by_role("button", name="The other place")
        ).first.click()
        world.ways["node"].enter(page, "edith-elsewhere")
        page.wait_for_url(f"{world.url}/account*")
        picture(page, "sign-in-7-linked")
        assert world.me(page)["id"] == first["id"]
    with world.person("edith-elsewhere", "node") as page:
        assert world.me(page)["id"] == first["id"]


def test_the_same_name_at_two_providers_is_two_people(world):
    with world.person("ada", "keycloak") as one, world.person("ada", "node") as other:
        assert world.me(one)["id"] != world.me(other)["id"]
