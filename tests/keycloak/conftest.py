"""People at a real Chromium who sign in to a real broker: with a real Keycloak, and with a provider by other people."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from broker import settings
from tests import servers
from tests.browser.conftest import DESK
from tests.conftest import wanted
from tests.doubles import confined_local, git_repos
from tests.doubles.git_server import GitServer
from tests.journeys.conftest import COMMAND, Broker
from tests.servers import keycloak, node_openid

SECRET = "a-client-secret-of-the-node-provider"
LONG_AGO = "2020-01-01"
expect.set_options(timeout=20_000)  # two cores, shared with Java


@pytest.fixture(scope="session")
def keycloak_server() -> Iterator[keycloak.Keycloak]:
    """One Keycloak for all tests; each file has realms of its own in it."""
    wanted(keycloak.NEED)
    with keycloak.running() as server:
        yield server


def init(server: keycloak.Keycloak, *words: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """`anybinder keycloak init`, to its end, as the administrator of this Keycloak."""
    administrator = {"ANYBINDER_KEYCLOAK_USER": keycloak.ADMIN, "ANYBINDER_KEYCLOAK_PASSWORD": server.password}
    ended = subprocess.run(
        [*COMMAND, "keycloak", "init", server.url, *words],
        env=os.environ | administrator | environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert ended.returncode == code, f"{ended.stdout}{ended.stderr}"
    return ended


# --- where people sign in -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AtKeycloak:
    """Signing in with Keycloak, as its pages want it."""

    server: keycloak.Keycloak
    realm: str
    people: dict[str, str] = field(default_factory=dict)
    name: str = "keycloak"

    def enrol(self, who: str) -> None:
        """They have an account there from now on."""
        if who not in self.people:
            self.people[who] = self.server.add_person(self.realm, who)

    def put_in(self, who: str, groups: Sequence[str]) -> None:
        """These are their groups from now on."""
        admin, person = self.server.admin(self.realm), self.people[who]
        for each in admin.get_user_groups(person):
            admin.group_user_remove(person, each["id"])
        for group in groups:
            self.server.join(self.realm, person, group)

    def asks(self, page: Page) -> bool:
        """Whether this page wants to know who is there."""
        return page.locator("#kc-login").count() == 1

    def enter(self, page: Page, who: str) -> None:
        """Name and password, up to being sent back."""
        page.locator("#username").fill(who)
        page.locator("#password").fill(who)
        page.locator("#kc-login").click()

    def leave(self, page: Page) -> None:
        """The provider's own way out, as one would find it there."""
        page.goto(f"{self.server.issuer(self.realm)}/protocol/openid-connect/logout")
        page.get_by_role("button", name="Logout").click()
        page.get_by_role("heading", name="You are logged out").wait_for()

    def agree_to_leave(self, page: Page) -> None:
        """Keycloak asks no more of those who come with their ID token."""


@dataclass(frozen=True, kw_only=True)
class AtNode:
    """The same with npm's `oidc-provider`."""

    server: node_openid.NodeOpenid
    name: str = "node"

    def enrol(self, who: str) -> None:
        """It takes anybody."""

    def put_in(self, who: str, groups: Sequence[str]) -> None:
        self.server.put_in(who, groups)

    def asks(self, page: Page) -> bool:
        return page.locator("input[name=login]").count() == 1

    def enter(self, page: Page, who: str) -> None:
        page.locator("input[name=login]").fill(who)
        page.locator("input[name=password]").fill(who)
        page.get_by_role("button", name="Sign-in").click()
        page.get_by_role("button", name="Continue").click()

    def leave(self, page: Page) -> None:
        page.goto(f"{self.server.url}/session/end")
        page.get_by_role("button", name="Yes, sign me out").click()
        page.wait_for_url("**/session/end/success*")

    def agree_to_leave(self, page: Page) -> None:
        """It asks everybody."""
        page.get_by_role("button", name="Yes, sign me out").click()


Way = AtKeycloak | AtNode


# --- the broker -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Site:
    """One broker, where people sign in with either provider."""

    broker: Broker
    url: str
    ways: dict[str, Way]
    git: GitServer
    browser: Browser

    @contextmanager
    def visitor(self) -> Iterator[Page]:
        """Somebody at a browser of their own, not signed in anywhere."""
        with self.browser.new_context(viewport=DESK, locale="en-GB") as context:
            stay_here(context)
            yield context.new_page()

    @contextmanager
    def person(self, who: str, way: str = "keycloak") -> Iterator[Page]:
        """The same, signed in."""
        with self.visitor() as page:
            self.sign_in(page, who, way)
            yield page

    def sign_in(self, page: Page, who: str, way: str) -> None:
        self.ways[way].enrol(who)
        page.goto(f"{self.url}/login/{way}")
        self.ways[way].enter(page, who)
        page.wait_for_url(f"{self.url}/**")

    def me(self, page: Page) -> dict[str, Any] | None:
        """What the broker says of who asks; None where nobody is signed in."""
        answer = page.request.get(f"{self.url}/api/me")
        return answer.json() if answer.ok else None

    def signed_in(self, page: Page) -> bool:
        return page.request.get(f"{self.url}/api/launches").ok

    def said(self, way: str) -> str:
        """What broker and provider wrote down, for a test that fails."""
        at = self.ways[way]
        return self.broker.log() + (at.server.log.read_text() if isinstance(at, AtNode) else "")

    def repository(self, name: str, files: dict[str, Any]) -> str:
        """Its address. Made when it is first asked for."""
        if not (self.git.root / name).exists():
            git_repos.make_repo(self.git.root, name, files)
        return f"{self.git.url}/{name}"

    def let_time_pass(self) -> None:
        """Every sign-in is old enough to be renewed the next time its browser is seen."""
        with closing(sqlite3.connect(self.broker.home / "anybinder.sqlite", timeout=20)) as table:
            table.execute("update sign_ins set refreshed_at = ? || substr(refreshed_at, 11)", (LONG_AGO,))
            table.commit()


def stay_here(context: BrowserContext) -> None:
    """Pages of providers want fonts from elsewhere, and would wait for them."""

    def decide(route: Route) -> None:
        route.continue_() if urlsplit(route.request.url).hostname in ("localhost", "127.0.0.1") else route.abort()

    context.route("**/*", decide)


@contextmanager
def site(
    server: keycloak.Keycloak, browser: Browser, folder: Path, *, realm: str, words: Sequence[str] = (), **more: str
) -> Iterator[Site]:
    """A broker with Keycloak, set up by its own command (with these `words`), and the other; `more` of its environment."""
    port = settings.free_port()
    url, home = f"http://localhost:{port}", folder / "home"
    home.mkdir(mode=0o700)
    (folder / "repos").mkdir()
    told = folder / "keycloak.toml"
    init(server, "--broker", url, "--realm", realm, "--into", str(told), *words)
    with ExitStack() as stack:
        node = stack.enter_context(
            node_openid.running(client_id="anybinder", client_secret=SECRET, broker=url, name="node")
        )
        ours = told.read_text().replace("[[identities]]", '[[identities]]\ntitle = "The university"')
        (home / "config.toml").write_text(f"{ours}\n{node_table(node)}")
        git = stack.enter_context(GitServer(folder / "repos"))
        broker = Broker(home, backends(folder) | more)
        stack.callback(broker.close)
        broker.start("up", "--no-browser", "--port", str(port))
        broker.wait()
        ways: dict[str, Way] = {"keycloak": AtKeycloak(server=server, realm=realm), "node": AtNode(server=node)}
        yield Site(broker=broker, url=url, ways=ways, git=git, browser=browser)


def node_table(node: node_openid.NodeOpenid) -> str:
    told = {
        "name": "node",
        "title": "The other place",
        "issuer": node.url,
        "client_id": "anybinder",
        "client_secret": SECRET,
        "scopes": "openid profile groups",
    }
    return "\n".join(["[[identities]]", *(f"{key} = {json.dumps(value)}" for key, value in told.items()), ""])


def backends(folder: Path) -> dict[str, str]:
    """One place for everybody who has signed in, and one for staff."""
    lab = {"name": "lab", "provider": "confined", "title": "The lab", "open_to": ["group staff"]}
    environment = confined_local.installed(folder / "packages", beside=(lab,))  # type: ignore[arg-type]
    del environment["ANYBINDER_BINDER_BACKEND"]
    return environment


def launch(page: Page, address: str) -> None:
    """From the filled form into the session, which greets."""
    page.goto(address)
    page.get_by_role("button", name="Launch").click()
    consent, greeting = page.get_by_role("button", name="Run it"), page.get_by_text("hello from /")
    consent.or_(greeting).first.wait_for(timeout=60_000)
    if consent.count():
        consent.click()
    expect(greeting).to_be_visible(timeout=60_000)


def stop(page: Page, site: Site) -> None:
    """The newest session of whoever is at this page."""
    page.goto(f"{site.url}/sessions")
    page.get_by_role("button", name="Stop").first.click()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)


@pytest.fixture(scope="module", autouse=True)
def everything_is_here() -> None:
    for need in (servers.GIT, servers.CHROMIUM, servers.NPM, keycloak.NEED):
        wanted(need)
