"""The browser of these tests does not hear of the network devices that other suites make and remove."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root makes network devices")


def test_it_has_no_socket_on_which_it_would_be_told(browser: Browser) -> None:
    with browser.new_page() as page:
        page.goto("about:blank")
        chromium = [each for each in psutil.Process().children(recursive=True) if "chrom" in each.name()]
        assert chromium
        open_here = {link for each in chromium for link in links(each.pid)}
        assert open_here & routing_sockets() == set()


def links(process: int) -> set[str]:
    """What it has open; what it closes meanwhile is left out."""
    found = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(file.readlink()))
    return found


def routing_sockets() -> set[str]:
    """All of this computer's, as an open file's link names them."""
    lines = Path("/proc/net/netlink").read_text().splitlines()[1:]
    return {f"socket:[{line.split()[-1]}]" for line in lines if line.split()[1] == "0"}
