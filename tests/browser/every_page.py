"""A hub where every page can be come to, and the ways to them: `VISITS`, a page and a state of it each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, expect

from broker import devices, service, settings
from providers.fake import FakeCloud
from tests.browser.conftest import DESK, held_by
from tests.browser.journal import Journal, publishing
from tests.browser.shared import APP, FAILING, World, running
from tests.doubles import confined_local
from tests.doubles.binderhub_double import BUILT, BinderHubDouble
from tests.doubles.openid_double import OpenIdDouble
from tests.waiting import until

TERMS = "https://hub.example.org/terms"
KEY = "the-fake-key"
SCRIPTS = re.compile(r"<script.*?</script>|</?noscript>|<meta http-equiv=.refresh.*?>", re.DOTALL)


class Hub:
    """Everything a hub can have: clouds, accounts of one's own, peers, two identity providers, visitors; and an article."""

    def __init__(self, world: World, at: service.Service, campus: OpenIdDouble, journal: Journal, gate: Path) -> None:
        self.world, self.at, self.campus, self.journal, self.gate = world, at, campus, journal, gate
        self.launches: dict[str, str] = {}
        """Their ids, by what has become of them."""
        self._pages: dict[tuple[str, bool, str], Page] = {}

    def shown(self, stack: ExitStack, visit: Visit) -> Page:
        """Somebody who has come to this page. What one sees who has no JavaScript is shown with it, to be looked at."""
        page = self.page(stack, visit.who, scripts=visit.scripts)
        visit.go(self, page)
        expect(page.get_by_role("heading", level=1)).to_contain_text(visit.heading)
        if visit.scripts:
            return page
        looked_at, html = self.page(stack, "nobody", scripts=True), SCRIPTS.sub("", page.content())
        looked_at.route(page.url, lambda route: route.fulfill(body=html, content_type="text/html"))
        looked_at.goto(page.url)
        return looked_at

    def page(self, stack: ExitStack, who: str, *, scripts: bool = True, locale: str = "en-GB") -> Page:
        """The tab of the person at this computer, of Ada, or of a visitor."""
        if (who, scripts, locale) not in self._pages:
            options: dict[str, Any] = {"viewport": DESK, "locale": locale, "java_script_enabled": scripts}
            context = stack.enter_context(self.world.visitor(**options))
            self._pages[who, scripts, locale] = self._signed_in(context, who)
        return self._pages[who, scripts, locale]

    def _signed_in(self, context: BrowserContext, who: str) -> Page:
        page = context.new_page()
        if who == "person":
            page.goto(f"{self.world.url}/?key={self.world.key()}")
        if who == "ada":
            page.goto(f"{self.world.url}/login/campus")
        return page

    def goto(self, page: Page, path: str) -> Page:
        page.goto(self.world.url + path)
        return page

    def repository(self, name: str, files: dict[str, Any]) -> str:
        return self.world.repository(f"every/{name}", files)

    @property
    def held(self) -> str:
        """A repository whose build waits until all is over."""
        return self.repository("held", {"postBuild": held_by(self.gate), **APP})

    def link(self, repo: str, query: str = "") -> str:
        return f"/v2/git/{quote(repo, safe='')}/main{query}"


@contextmanager
def everything(browser: Browser, folder: Path) -> Iterator[Hub]:
    """That hub, with a launch in each state."""
    with ExitStack() as stack:
        common, own = stack.enter_context(FakeCloud.start()), stack.enter_context(FakeCloud.start())
        first, second = stack.enter_context(BinderHubDouble()), stack.enter_context(BinderHubDouble())
        campus, orcid = (stack.enter_context(OpenIdDouble(name, title=title)) for name, title in
                         (("campus", "Campus"), ("orcid", "ORCID")))  # fmt: skip
        common.fault("provision", "never_dials", times=None)
        told = _told(folder, common, own, (first, second), (campus, orcid))
        world = stack.enter_context(running(browser, folder, told))
        identities = tuple(each.setting() for each in (campus, orcid))
        at = service.build(settings.Settings(home=folder / "home", identities=identities), migrate=False)
        stack.callback(at.close)
        journal = stack.enter_context(publishing())
        journal.allow(world.url)
        hub = Hub(world, at, campus, journal, folder / "gate")
        stack.callback(confined_local.end_all, world.broker.home)
        stack.callback(hub.gate.touch)
        _launch(hub, first, second)
        yield hub
        second.go_on.set()


def _told(folder: Path, common: FakeCloud, own: FakeCloud, peers: Any, identities: Any) -> dict[str, str]:
    mine = {"name": "local", "provider": "local", "title": "This computer"}
    clouds = [("campus", "Campus cloud", common, "none"), ("mine", "Amazon in Oregon", own, "keyless,kept")]
    clouds += [("other", "Google in Oregon", own, "keyless,delegated,kept")]
    beside = [{"name": name, "title": title, "provider": "fake", "configuration": {**cloud.configuration, "kinds": kinds}}
              for name, title, cloud, kinds in clouds]  # fmt: skip
    environment = confined_local.installed(folder / "packages", beside=(mine, *beside))  # type: ignore[arg-type]
    hubs = [{"name": f"hub-{at}", "title": title, "url": peer.url, "terms_url": TERMS, "privacy_url": TERMS}
            for at, (title, peer) in enumerate(zip(("A public hub", "The institute's hub"), peers, strict=True))]  # fmt: skip
    known = [{"name": each.name, "title": each.title, "issuer": each.issuer, "client_id": each.client_id,
              "client_secret": each.client_secret} for each in identities]  # fmt: skip
    return {
        **environment,
        "ANYBINDER_PEERS": json.dumps(hubs),
        "ANYBINDER_BINDER_PEERS": "relay",
        "ANYBINDER_PEER_LOOK_SECONDS": "1",
        "ANYBINDER_IDENTITIES": json.dumps(known),
        "ANYBINDER_CORS_ALLOW_ORIGIN": "*",
    }


def _launch(hub: Hub, first: BinderHubDouble, second: BinderHubDouble) -> None:
    """One in each state. Those that take long begin first."""
    world, app = hub.world, hub.repository("app", APP)
    first.lines = [*BUILT[:3], "fail"]
    second.lines = [*BUILT[:3], "hold", *BUILT[3:]]
    connect(hub.world, "mine")
    wishes = {
        "moved": (hub.repository("moved", APP), "hub-0"),
        "failed": (hub.repository("failing", FAILING), "local"),
        "waiting": (hub.held, "local"),
        "ready": (app, "local"),
        "stopped": (app, "local"),
        "paid": (app, "campus"),
    }
    for name, (repo, backend) in wishes.items():
        hub.launches[name] = world.launch(repo, backend=backend, name=f"my-{name}", hours=1)["id"]
    second.go_on.set()
    for name, state in {"moved": "forwarded", "failed": "stopped", "ready": "ready", "stopped": "ready"}.items():
        until(lambda name=name, state=state: hub.world.reached(hub.launches[name], state),  # type: ignore[misc]
              seconds=90, what=name + world.broker.log())  # fmt: skip
    second.go_on.clear()
    hub.launches["forwarded"] = world.launch(hub.repository("forwarded", APP), backend="hub-1", name="my-forwarded")[
        "id"
    ]
    world.stop(hub.launches["stopped"])


def connect(world: World, backend: str, key: str = KEY) -> None:
    """An account of the person's own, as their form tells it."""
    cookies = httpx.get(f"{world.url}/?key={world.key()}", follow_redirects=False).cookies
    headers = {"origin": world.url, "sec-fetch-site": "same-origin"}
    sent = httpx.post(f"{world.url}/connect/{backend}/kept", data={"key": key}, cookies=cookies, headers=headers)
    assert sent.status_code == 303, sent.text


# --- the ways -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Visit:
    """How somebody comes to a page, and by which heading they know that they are there."""

    template: str
    state: str
    heading: str
    go: Callable[[Hub, Page], None]
    who: str = "person"
    scripts: bool = True

    def __str__(self) -> str:
        return f"{self.template.removesuffix('.html')}: {self.state}"


def to(path: str) -> Callable[[Hub, Page], None]:
    """By its address. `{name}` is the launch that has come so far."""
    return lambda hub, page: hub.goto(page, path.format(**hub.launches))


IN_FRENCH = (
    "/", "/?sort=price&name=a_b", "/launches/{waiting}", "/launches/{ready}?watch", "/launches/{failed}", "/launches/{stopped}",
    "/launches/{forwarded}", "/launches/{moved}/open", "/sessions", "/running", "/connect", "/connect/other/kept", "/account",
    "/account/uses", "/device", "/link", "/go?link=x", "/v2/gh/only", "/nothing/here",
)  # fmt: skip
"""Other words are longer ones."""


def form(hub: Hub, page: Page) -> None:
    hub.goto(page, f"/?repo={quote(hub.repository('app', APP))}&backend=campus&name=mine&cpu=2")
    expect(page.locator(".place", has_text="Amazon in Oregon")).to_contain_text("at most $")
    expect(page.get_by_text("Found:")).to_be_visible()


def limited(hub: Hub, page: Page) -> None:
    hub.goto(page, hub.link(hub.repository("app", APP), "?backends=campus,other&choose=1&memory=lots"))


def visitors_form(hub: Hub, page: Page) -> None:
    """Another hub was the last choice of nobody: what is open to visitors is shown with what signing in opens."""
    hub.goto(page, "/?backend=hub-1")


def refused(hub: Hub, page: Page) -> None:
    hub.goto(page, f"/?repo={quote(hub.repository('app', APP))}&ref=no-such-branch&backend=local")
    page.get_by_role("button", name="Launch", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()


def asked_by(backend: str) -> Callable[[Hub, Page], None]:
    def go(hub: Hub, page: Page) -> None:
        strange = hub.repository(f"strange-{backend}", {**APP, "README.md": backend})
        hub.goto(page, f"/?repo={quote(strange)}&backend={backend}")
        page.get_by_role("button", name="Launch", exact=True).click()

    return go


def gone(hub: Hub, page: Page) -> None:
    page.goto(f"http://{hub.launches['stopped']}.localhost:{hub.world.port}/")


def told(key: str) -> Callable[[Hub, Page], None]:
    """An account is connected with this key, whatever was told before."""

    def go(hub: Hub, page: Page) -> None:
        hub.goto(page, "/connect/other/kept?change=1")
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Check", exact=True).click()
        expect(page.locator("#outcome")).to_be_visible()

    return go


def untold(hub: Hub, page: Page) -> None:
    hub.goto(page, "/connect/other/delegated?change=1")
    page.get_by_label("Key", exact=True).fill(KEY)
    page.locator("#field-until").fill("tomorrow or so")
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_role("alert").first).to_be_visible()


def left(hub: Hub, page: Page) -> None:
    told(KEY)(hub, page)
    page.get_by_role("link", name="Disconnect").click()
    page.get_by_role("button", name="Disconnect").click()


def token(hub: Hub, page: Page) -> None:
    hub.goto(page, "/account")
    page.get_by_label("What it is for").fill("nightly tests")
    page.get_by_role("button", name="Make the token").click()


def code(hub: Hub, page: Page) -> None:
    begun = devices.begin(hub.at, name="ada-laptop", scopes=["read", "launch"], asked_from="here")
    hub.goto(page, "/device").get_by_label("The code").fill(begun.user_code)
    page.get_by_role("button", name="Continue").click()


def wrong_code(hub: Hub, page: Page) -> None:
    hub.goto(page, "/device").get_by_label("The code").fill("BBBB-BBBB")
    page.get_by_role("button", name="Continue").click()


def let_in(hub: Hub, page: Page) -> None:
    code(hub, page)
    page.get_by_role("button", name="Let it in").click()


def cancelled(hub: Hub, page: Page) -> None:
    hub.campus.says_error = "access_denied"
    hub.goto(page, "/login/campus")
    hub.campus.says_error = ""


def linked(hub: Hub, page: Page) -> None:
    hub.goto(page, f"/link?repo={quote(hub.repository('app', APP))}&path=/greetings&memory=2G")


def lapsed(hub: Hub, page: Page) -> None:
    hub.goto(page, f"/link?repo={quote(hub.repository('app', APP))}&ref=no-such-branch&memory=lots")


def building(hub: Hub, page: Page) -> None:
    hub.goto(page, hub.link(hub.held))
    expect(page.locator("#steps .now")).to_contain_text("Building")


def unbuilt(hub: Hub, page: Page) -> None:
    hub.goto(page, hub.link(hub.repository("failing", FAILING)))
    expect(page.get_by_role("button", name="Try again")).to_be_visible(timeout=60_000)


def by_hand(hub: Hub, page: Page) -> None:
    hub.goto(page, hub.link(hub.held))
    page.get_by_role("button", name="Start").click()


def article(hub: Hub, page: Page) -> None:
    linked(hub, page)
    page.goto(hub.journal.publish("/every", page.locator("#element").input_value()))
    expect(page.get_by_role("radio").first).to_be_visible()


LAUNCH, SIGN_IN = "Launch a repository", "Sign in"
VISITS = [
    Visit(template="home.html", state="empty", heading=LAUNCH, go=to("/")),
    Visit(template="home.html", state="filled in", heading=LAUNCH, go=form),
    Visit(template="home.html", state="by a link, limited and wrong", heading="Launch this repository", go=limited),
    Visit(template="home.html", state="refused", heading=LAUNCH, go=refused),
    Visit(template="home.html", state="for a visitor", heading=LAUNCH, go=visitors_form, who="visitor"),
    Visit(template="home.html", state="without JavaScript", heading=LAUNCH, go=to("/?repo=o/r"), scripts=False),
    Visit(template="trust.html", state="on this computer", heading="Run this on your computer?", go=asked_by("local")),
    Visit(template="trust.html", state="on one's account", heading="Run this in your account?", go=asked_by("mine")),
    Visit(template="progress.html", state="waiting", heading="every/held", go=to("/launches/{waiting}")),
    Visit(template="progress.html", state="a machine", heading="every/app", go=to("/launches/{paid}")),
    Visit(template="progress.html", state="ready", heading="every/app", go=to("/launches/{ready}")),
    Visit(template="progress.html", state="failed", heading="every/failing", go=to("/launches/{failed}")),
    Visit(template="progress.html", state="stopped", heading="every/app", go=to("/launches/{stopped}")),
    Visit(template="progress.html", state="at a peer", heading="every/forwarded", go=to("/launches/{forwarded}")),
    Visit(template="leaving.html", state="moved", heading="It runs at The institute's hub", go=to("/launches/{moved}/open")),
    Visit(template="sessions.html", state="some", heading="My sessions", go=to("/sessions")),
    Visit(template="sessions.html", state="none", heading="My sessions", go=to("/sessions"), who="ada"),
    Visit(template="running.html", state="some", heading="What I am paying for right now", go=to("/running")),
    Visit(template="running.html", state="none", heading="What I am paying for right now", go=to("/running"), who="ada"),
    Visit(template="connect.html", state="some", heading="Accounts", go=to("/connect")),
    Visit(template="connect.html", state="none", heading="Accounts", go=to("/connect?next=/%3Frepo=o/r"), who="ada"),
    Visit(template="connect_one.html", state="never seen", heading="Connect Google", go=to("/connect/other"), who="ada"),
    Visit(template="connect_one.html", state="a key", heading="Connect Google", go=to("/connect/other/kept"), who="ada"),
    Visit(template="connect_one.html", state="a field is wrong", heading="Connect Google", go=untold, who="ada"),
    Visit(template="connect_one.html", state="refused", heading="Your account at Google in Oregon", go=told("no key"), who="ada"),
    Visit(template="connect_one.html", state="works", heading="Your account at Google in Oregon", go=told(KEY), who="ada"),
    Visit(template="connect_one.html", state="a host of repositories", heading="Connect GitHub", go=to("/connect/repo/gh")),
    Visit(template="connect_one.html", state="a peer", heading="Connect A public hub", go=to("/connect/peer/hub-0")),
    Visit(template="connect_leave.html", state="asked", heading="Disconnect Amazon", go=to("/connect/mine/disconnect")),
    Visit(template="connect_left.html", state="done", heading="Google in Oregon is disconnected", go=left, who="ada"),
    Visit(template="connect_uses.html", state="some", heading="What was done with your accounts", go=to("/account/uses")),
    Visit(template="account.html", state="of the one here", heading="My account", go=to("/account")),
    Visit(template="account.html", state="of somebody signed in", heading="Ada Lovelace", go=to("/account"), who="ada"),
    Visit(template="account_token.html", state="made", heading="Copy it now", go=token, who="ada"),
    Visit(template="device.html", state="empty", heading="Let a command line in", go=to("/device")),
    Visit(template="device.html", state="a wrong code", heading="Let a command line in", go=wrong_code),
    Visit(template="device_confirm.html", state="asked", heading="Let this command line in?", go=code),
    Visit(template="device_done.html", state="let in", heading="It is let in", go=let_in),
    Visit(template="login.html", state="two ways", heading=SIGN_IN, go=to("/login?next=/sessions"), who="visitor"),
    Visit(template="login_problem.html", state="cancelled", heading="You were not signed in", go=cancelled, who="visitor"),
    Visit(template="login_out.html", state="at both", heading="signed out", go=to("/login/campus/loggedout"), who="visitor"),
    Visit(template="link.html", state="empty", heading="Make a launch link", go=to("/link")),
    Visit(template="link.html", state="made", heading="Make a launch link", go=linked),
    Visit(template="link.html", state="of what is gone", heading="Make a launch link", go=lapsed),
    Visit(template="go.html", state="empty", heading="Open any Binder link here", go=to("/go")),
    Visit(template="go.html", state="no link", heading="Open any Binder link here", go=to("/go?link=https://mybinder.org/")),
    Visit(template="v2.html", state="building", heading="every/held", go=building, who="visitor"),
    Visit(template="v2.html", state="failed", heading="every/failing", go=unbuilt, who="visitor"),
    Visit(template="v2.html", state="without JavaScript", heading="every/app", who="visitor", scripts=False,
          go=lambda hub, page: hub.goto(page, hub.link(hub.repository("app", APP)))),
    Visit(template="v2_progress.html", state="building", heading="every/held", go=by_hand, who="visitor", scripts=False),
    Visit(template="v2_closed.html", state="signed out", heading="Sign in to choose where to run this", who="visitor",
          go=lambda hub, page: hub.goto(page, hub.link(hub.held, "?choose=1"))),
    Visit(template="v2_wrong.html", state="no repository", heading="cannot be followed", go=to("/v2/gh/only"), who="visitor"),
    Visit(template="error.html", state="nothing here", heading="Nothing here", go=to("/nothing/here")),
    Visit(template="a session's own", state="not one's own", heading="This session is not open to you", go=gone),
    Visit(template="an article", state="the choice in it", heading="Tides of the Wadden Sea", go=article, who="visitor"),
]  # fmt: skip
