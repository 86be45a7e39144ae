"""A real Chromium, driven by Playwright: the one Debian packages, because Playwright's own cannot be had everywhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
UNDISTURBED = Path(__file__).with_name("undisturbed.py")


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """One browser for several tests: each opens a context of its own (`browser.new_context()`) and closes it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(headless=True, **options())
        try:
            yield browser
        finally:
            browser.close()


def options(*flags: str) -> dict[str, Any]:
    """For Playwright's `launch`: which program, and what it is told."""
    found = servers.CHROMIUM.found()
    assert found, "Chromium is not on this computer."
    if os.geteuid() != 0 or not Path("/proc/net/netlink").exists():
        return {"executable_path": found[0], "args": [*FLAGS, *flags]}
    return {
        "executable_path": UNDISTURBED,  # where other suites can make network devices
        "env": {**os.environ, "ANYBINDER_CHROMIUM": found[0]},
        "args": [*FLAGS, "--no-sandbox", *flags],  # Chromium's sandbox refuses root
    }
