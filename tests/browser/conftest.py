"""A person at a real Chromium, in front of a really running broker. Labels and roles are what they find things by.

Run with ANYBINDER_SCREENSHOTS=1, the journeys leave their screenshots under docs/images/.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.journeys.conftest import Broker, repos, start_broker

__all__ = ["repos", "start_broker"]  # fixtures, found by their names

# Read at once: the settings of whoever runs the tests are cleared before the first test.
SCREENSHOTS = os.environ.get("ANYBINDER_SCREENSHOTS") == "1"
IMAGES = Path(__file__).resolve().parent.parent.parent / "docs" / "images"
DESK, PHONE = {"width": 1100, "height": 820}, {"width": 390, "height": 844}
BUILD_MS = 240_000  # a cold JupyterLab, on a slow index
expect.set_options(timeout=15_000)  # two cores, shared

Repos = tuple[str, Callable[[str, dict[str, Any]], str]]

WHOLE_WIDTH = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


class Person:
    """Somebody at this computer, signed in. What their browser complains about is kept in `complaints`."""

    def __init__(self, broker: Broker, context: BrowserContext) -> None:
        self.broker = broker
        self.context = context
        self.complaints: list[str] = []
        self.requests: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("console", self._heard)
        self.page = context.new_page()

    @property
    def home(self) -> str:
        """The address of the broker's pages."""
        return f"http://localhost:{self.broker.address['port']}"

    def sign_in(self) -> Page:
        """By the link that `anybinder up` prints."""
        key = self.broker.api("POST", "/api/keys").raise_for_status().json()["key"]
        self.page.goto(f"{self.home}/?key={key}")
        return self.page

    def launches(self) -> list[dict[str, Any]]:
        """What the broker says they have launched."""
        found: list[dict[str, Any]] = self.broker.api("GET", "/api/launches").raise_for_status().json()
        return found

    def fill(self, repo: str, *, path: str = "", name: str = "") -> Page:
        """The form, as far as it is given."""
        page = self.page
        page.goto(self.home)
        page.get_by_label("Repository", exact=True).fill(repo)
        if path:
            page.get_by_label("File or URL to open").fill(path)
        if name:
            page.locator("summary", has_text="More").click()
            page.get_by_label("Name").fill(name)
        return page

    def launch(self, repo: str, *, path: str = "", name: str = "") -> Page:
        """Through form and consent, up to the progress page or what comes after it."""
        page = self.fill(repo, path=path, name=name)
        page.get_by_role("button", name="Launch").click()
        page.get_by_role("button", name="Run it").click()
        page.wait_for_url(lambda url: "/launch?" not in url and not url.endswith("/launch"))
        return page

    def _heard(self, message: Any) -> None:
        if message.type == "error" and self.home in (message.location or {}).get("url", ""):
            self.complaints.append(message.text)


@pytest.fixture
def person_at(start_broker: Callable[..., Broker], browser: Browser) -> Iterator[Callable[..., Person]]:
    """Somebody at a browser like this (Playwright's `new_context` options), in front of a broker of their own."""
    contexts: list[BrowserContext] = []
    broker: list[Broker] = []

    def sit_down(**options: Any) -> Person:
        if not broker:
            broker.append(start_broker())
        context = browser.new_context(**{"viewport": DESK, "locale": "en-GB", **options})
        contexts.append(context)
        person = Person(broker[0], context)
        person.sign_in()
        return person

    yield sit_down
    for context in contexts:
        context.close()


@pytest.fixture
def person(person_at: Callable[..., Person]) -> Person:
    """Somebody at a desk."""
    return person_at()


def picture(page: Page, name: str) -> None:
    """For the documentation, when it is asked for."""
    if SCREENSHOTS:
        IMAGES.mkdir(exist_ok=True)
        page.screenshot(path=IMAGES / f"{name}.png", animations="disabled")


def wide_enough(page: Page) -> None:
    """Nothing sticks out to the right."""
    assert page.evaluate(WHOLE_WIDTH), f"{page.url} is wider than {page.viewport_size}"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that a build waits for: `gate.touch()` lets it go on."""
    return tmp_path / "gate"


def held_by(gate: Path, lines: int = 5) -> str:
    """A `postBuild` that says so many lines, and then waits for the gate."""
    return (
        "#!/bin/sh\n"
        f"for i in $(seq {lines}); do echo line number $i; done\n"
        f"until [ -e {gate} ]; do sleep 0.05; done\n"
        "echo through the gate\n"
    )
