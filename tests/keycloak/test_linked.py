"""A person's own token of another host, kept by Keycloak, opens their private repository; and nobody else's."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, closing
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.browser.shared import APP
from tests.doubles import git_repos
from tests.keycloak.conftest import launch, site, stop
from tests.keycloak.forge import Forge
from tests.servers import keycloak

pytestmark = pytest.mark.timeout(600)  # the first test waits for Keycloak to be fetched, built and started

HUB, FORGE = "hub", "forge"


@pytest.fixture(scope="module", params=["first interface", "second interface"])
def world(request, keycloak_server, browser, tmp_path_factory):
    """A broker whose Keycloak has a second realm behind it, which keeps people's accounts at a forge."""
    folder = tmp_path_factory.mktemp("linked")
    with ExitStack() as stack:
        second = request.param == "second interface"
        server = stack.enter_context(keycloak.running(keycloak.STORED_TOKENS_V2)) if second else keycloak_server
        secret = behind(server)
        upstreams = folder / "upstreams.toml"
        upstreams.touch(mode=0o600)
        upstreams.write_text(
            f'[forge]\ntitle = "The forge"\nissuer = "{server.issuer(FORGE)}"\nclient_id = "hub"\n'
            f'client_secret = "{secret}"\nrepositories = "gl"\n'
        )
        (folder / "forge").mkdir()
        forge = stack.enter_context(Forge(folder / "forge", server, FORGE))
        hosts = json.dumps({"gl": {"api": forge.api, "url": forge.url}})
        words = ("--upstreams", str(upstreams))
        at = stack.enter_context(site(server, browser, folder, realm=HUB, words=words, ANYBINDER_HOSTS=hosts))
        git_repos.make_repo(forge.root, "ada/secret.git", APP)
        forge.hide("ada/secret", "ada")
        yield at, forge


def behind(server: keycloak.Keycloak) -> str:
    """The realm behind, with Ada in it and the first as its client; that client's secret."""
    admin = server.add_realm(FORGE)
    back = f"{server.issuer(HUB)}/broker/forge/endpoint*"
    client = admin.create_client({"clientId": "hub", "redirectUris": [back], "publicClient": False})
    server.add_person(FORGE, "ada", attributes={})
    return str(admin.get_client_secrets(client)["value"])


def sign_in_by_the_forge(page, at):
    page.goto(f"{at.url}/login/keycloak")
    page.get_by_role("link", name="The forge").click()
    page.wait_for_url(f"**/realms/{FORGE}/**")
    at.ways["keycloak"].enter(page, "ada")
    page.wait_for_url(f"{at.url}/**")


def address(at):
    return f"{at.url}/?repo={quote('gl/ada/secret', safe='')}&ref=main&name=mine"


def test_a_linked_account_opens_the_persons_own_private_repository(world):
    at, forge = world
    with at.visitor() as page:
        sign_in_by_the_forge(page, at)
        page.goto(f"{at.url}/connect/repo/gl")
        expect(page.get_by_text("Nothing has to be copied: The university keeps the token")).to_be_visible()
        page.get_by_role("button", name="Check", exact=True).click()
        expect(page.get_by_role("heading", name="Connected, and it works")).to_be_visible()
        expect(page.locator("code.who")).to_have_text("ada")
        launch(page, address(at))
        stop(page, at)
        page.goto(f"{at.url}/account/uses")
        expect(page.get_by_text("Used your token from the linked account").first).to_be_visible()
    tokens = {secret for _, _, secret in forge.shown if secret}
    assert tokens, "the repository was opened with something"
    kept = at.broker.log() + dump(at) + "".join(files(at))
    assert not [token for token in tokens if token in kept]


def test_it_opens_nothing_for_anybody_else(world):
    at, _ = world
    with at.person("joan") as page:
        page.goto(address(at))
        page.get_by_role("button", name="Launch").click()
        expect(page.get_by_role("alert").first).to_contain_text("gl/ada/secret".removeprefix("gl/"))
        assert not page.request.get(f"{at.url}/api/launches").json()


def dump(at) -> str:
    with closing(sqlite3.connect(at.broker.home / "anybinder.sqlite", timeout=20)) as table:
        return "\n".join(table.iterdump())


def files(at):
    """Everything in the state folder, but for git's own packs and what was installed."""
    for path in at.broker.home.rglob("*"):
        if path.is_file() and path.stat().st_size < 5_000_000:
            yield path.read_bytes().decode(errors="replace")
