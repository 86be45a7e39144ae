"""What each page weighs and when something of it is seen first: ours, and beside them any other page, in one Chromium.

    python -m tests.bench.pages [--rounds 9] [--beside "BinderHub's page=http://localhost:8585/"]

Each page is loaded by a browser that has never been here, round by round in turn, over loopback. Bytes are all that came
over the wire, with headers; the first paint is Chromium's own `first-contentful-paint`; medians of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Browser, BrowserContext

from tests.browser import every_page
from tests.browser.conftest import DESK
from tests.browser.every_page import Hub
from tests.browser.shared import APP
from tests.servers import chromium

PAINTED = """new Promise(done => new PerformanceObserver(list => list.getEntriesByName("first-contentful-paint").forEach(
    one => done(one.startTime))).observe({ type: "paint", buffered: true }))"""
PAGES = {
    "launch form, a visitor": ("/", "visitor"),
    "launch form": ("/", "person"),
    "launch form, filled in": ("/?repo={app}", "person"),
    "a launch link": ("/v2/git/{held}/main", "visitor"),
    "waiting": ("/launches/{waiting}", "person"),
    "ready": ("/launches/{ready}?watch", "person"),
    "failed": ("/launches/{failed}", "person"),
    "my sessions": ("/sessions", "person"),
    "what I pay for": ("/running", "person"),
    "accounts": ("/connect", "person"),
    "an account to connect": ("/connect/other/kept", "person"),
    "my account": ("/account", "person"),
    "sign in": ("/login", "visitor"),
    "make a launch link": ("/link?repo={app}", "person"),
    "open any Binder link": ("/go", "visitor"),
}


@dataclass
class Seen:
    """One page, as often as it was loaded."""

    url: str
    state: Any = None
    """What a browser brings that is signed in."""
    bytes: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    painted: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        middle = statistics.median
        size = f"{middle(self.bytes) / 1000:.0f} kB"
        return f"| {name} | {size} | {middle(self.requests):.0f} | {middle(self.painted):.0f} ms |"


def load(browser: Browser, seen: Seen) -> None:
    """Once more, by a browser that keeps nothing from before."""
    with browser.new_context(viewport=DESK, locale="en-GB", storage_state=seen.state) as context:  # type: ignore[arg-type]
        came, asked = counted(context)
        page = context.pages[0]
        page.goto(seen.url, wait_until="load")
        painted = page.evaluate(PAINTED)
        page.wait_for_load_state("load")
        seen.bytes.append(sum(came.values()))
        seen.requests.append(len(asked))
        seen.painted.append(painted)


def counted(context: BrowserContext) -> tuple[dict[str, float], list[str]]:
    """What comes over the wire from now on, by request, and what is asked for."""
    came, asked = dict[str, float](), list[str]()
    network = context.new_cdp_session(context.new_page())
    network.on("Network.requestWillBeSent", lambda told: asked.append(told["request"]["url"]))
    network.on("Network.loadingFinished", lambda told: came.update({told["requestId"]: told["encodedDataLength"]}))
    network.send("Network.enable")
    return came, asked


def of_ours(browser: Browser, hub: Hub) -> dict[str, Seen]:
    """Each of PAGES, by whom it is for."""
    with browser.new_context() as visitor, browser.new_context() as person:
        person.new_page().goto(f"{hub.world.url}/?key={hub.world.key()}")
        states = {"visitor": visitor.storage_state(), "person": person.storage_state()}
    app, held = quote(hub.repository("app", APP), safe=""), quote(hub.held, safe="")
    address: Callable[[str], str] = lambda path: hub.world.url + path.format(app=app, held=held, **hub.launches)  # noqa: E731
    return {name: Seen(address(path), states[who]) for name, (path, who) in PAGES.items()}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=URL")
    told = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        chromium.running() as browser,
        every_page.everything(browser, Path(folder)) as hub,
    ):
        pages = {name: Seen(url) for name, _, url in (each.partition("=") for each in told.beside)}
        pages |= of_ours(browser, hub)
        for _ in range(told.rounds):
            for seen in pages.values():
                load(browser, seen)
    print("| | bytes | requests | first paint |\n|---|---:|---:|---:|")
    print("\n".join(seen.row(name) for name, seen in pages.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
