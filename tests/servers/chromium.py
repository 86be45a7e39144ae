"""A real Chromium, driven by Playwright: the one Debian packages, because Playwright's own cannot be had everywhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright

from tests import servers

FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
)


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """One browser for several tests: each opens a context of its own (`browser.new_context()`) and closes it."""
    found = servers.CHROMIUM.found()
    assert found, "Chromium is not on this computer."
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else [*FLAGS]  # Chromium's sandbox refuses root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found[0], headless=True, args=flags)
        try:
            yield browser
        finally:
            browser.close()
