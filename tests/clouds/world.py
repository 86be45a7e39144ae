"""Everything but the cloud: a broker that is reached by https, a campus that signs people in, git, and a person at a browser.

`aws.running` and `openstack.running` add the cloud whose machines boot.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page

from broker import settings
from tests.browser.conftest import DESK, IMAGES
from tests.doubles import git_repos
from tests.doubles.git_server import GitServer
from tests.doubles.machines import Machine
from tests.doubles.openid_double import OpenIdDouble
from tests.doubles.public_way import PublicWay
from tests.journeys.conftest import Broker
from tests.waiting import until

SCREENSHOTS = os.environ.get("ANYBINDER_SCREENSHOTS") == "1"  # read at once, before the first test clears the settings
HUB, GIT, SESSIONS = "hub.uni.example", "git.uni.example", "sessions.uni-hub.example"
START_SECONDS = 120  # of a broker, on a busy computer


@dataclass
class Site:
    """Where a broker will stand: what it is reached by, and what it reaches."""

    folder: Path
    way: PublicWay
    campus: OpenIdDouble
    git: GitServer
    stack: contextlib.ExitStack

    def broker(self, place: Mapping[str, Any], more: Mapping[str, str]) -> Broker:
        """A broker with this one backend; `more` are further settings. Ended with the site."""
        broker = Broker(self.folder / "home", self._environment(place) | dict(more))
        broker.start("up", "--no-browser", "--port", str(self.way.port))
        self.stack.callback(broker.close)
        until(lambda: (broker.home / "broker.json").exists(), seconds=START_SECONDS, what="the broker is up")
        broker.wait()
        return broker

    def _environment(self, place: Mapping[str, Any]) -> dict[str, str]:
        identity = self.campus.setting()
        told = {**identity.model_dump(mode="json"), "client_secret": identity.client_secret.get_secret_value()}
        return {
            "ANYBINDER_PUBLIC_URL": self.way.url,
            "ANYBINDER_SESSION_DOMAIN": SESSIONS,
            "ANYBINDER_IDENTITIES": json.dumps([told]),
            "ANYBINDER_BACKENDS": json.dumps([place]),
            "ANYBINDER_HOSTS": json.dumps({"git": {"url": f"https://{GIT}"}}),
            "ANYBINDER_BOOT_MINUTES": "15",
            "GIT_SSL_CAINFO": str(self.way.certificates),
            **self.way.environment,
        }


@contextlib.contextmanager
def site(folder: Path) -> Iterator[Site]:
    """In this empty folder."""
    (folder / "repos").mkdir()
    with contextlib.ExitStack() as stack:
        campus = stack.enter_context(OpenIdDouble(title="Campus"))
        git = stack.enter_context(GitServer(folder / "repos"))
        way = stack.enter_context(PublicWay(HUB, folder, sessions=SESSIONS, others={GIT: git.port}))
        way.port = settings.free_port()
        yield Site(folder, way, campus, git, stack)


@dataclass(kw_only=True)
class World:
    """A site with its broker, and people in front of it."""

    site: Site
    broker: Broker
    browser: Browser
    complaints: list[str] = field(default_factory=list)
    title = ""
    """What the launch page calls the place."""
    pictures = ""
    """How its pictures' names begin."""

    @property
    def url(self) -> str:
        return self.site.way.url

    def repository(self, name: str, files: Mapping[str, Any]) -> str:
        """Its address, the same for people, the broker and machines. Made when it is first asked for."""
        root = self.site.git.root
        if not (root / name).exists():
            git_repos.make_repo(root, name, dict(files))
        return f"https://{GIT}/{name}"

    @contextlib.contextmanager
    def person(self, **options: Any) -> Iterator[Page]:
        """Somebody at a desk, signed in at the campus, whose account in the cloud trusts this broker."""
        with self.visitor(**options) as context:
            page = context.new_page()
            page.goto(f"{self.url}/connect")
            self.connect(page)
            yield page

    def visitor(self, **options: Any) -> BrowserContext:
        """A browser of somebody who has never been here."""
        context = self.browser.new_context(
            **{
                "viewport": DESK,
                "locale": "en-GB",
                "proxy": {"server": self.site.way.proxy, "bypass": "127.0.0.1"},
                "ignore_https_errors": True,
                **options,
            }
        )
        context.set_default_timeout(60_000)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        return context

    def connect(self, page: Page) -> None:
        """Keyless: the account is told to trust this broker, and Check is pressed."""
        raise NotImplementedError

    def machines(self) -> list[Machine]:
        """All that ever had power, the newest last."""
        raise NotImplementedError

    def left(self) -> list[str]:
        """What the account still lists under our tag, and machines that still have power."""
        raise NotImplementedError

    def invalid(self) -> list[str]:
        """Requests of the broker that the vendor's own model does not know."""
        raise NotImplementedError


def picture(page: Page, name: str, *, whole: bool = False) -> None:
    """For the documentation, when it is asked for."""
    if SCREENSHOTS:
        IMAGES.mkdir(exist_ok=True)
        page.screenshot(path=IMAGES / f"{name}.png", animations="disabled", full_page=whole)
