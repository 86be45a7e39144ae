"""Thebe, as published, in a real Chromium: the cells of a static page on another origin run in a session of ours."""

from __future__ import annotations

import functools
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.clients.conftest import Hub

READY_MS = 90_000  # a cold environment, on a slow index
PAGE = """<!doctype html>
<meta charset="utf-8"><title>a static page</title>
<script type="text/x-thebe-config">{config}</script>
<script src="thebe/index.js"></script>
<pre data-executable="true" data-language="python">import os
print(6 * 7, os.environ["BINDER_REQUEST"])</pre>
<script>
window.started = new Promise((done) => addEventListener("load", () => done(thebelab.bootstrap({{requestKernel: true}}))));
</script>
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture
def static(tmp_path: Path, thebe: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address it is served at: the page's own, which is not the hub's."""
    site = tmp_path / "site"
    site.mkdir()
    shutil.copytree(thebe, site / "thebe")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield site, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_cell_of_a_static_page_runs(hub: Hub, browser: Browser, static: tuple[Path, str]) -> None:
    site, url = static
    config = {
        "binderOptions": {
            "repo": hub.repository("clients/thebe", {"README.md": "x"}),
            "ref": "main",
            "binderUrl": f"http://localhost:{hub.port}",
            "repoProvider": "git",
            "savedSession": {"enabled": False},
        },
        "kernelOptions": {"name": "python3"},
    }
    (site / "index.html").write_text(PAGE.format(config=json.dumps(config)))
    with browser.new_context() as context:
        context.set_default_timeout(READY_MS)
        page = context.new_page()
        page.goto(url)
        page.evaluate("started.then(() => true)")
        page.get_by_role("button", name="run", exact=True).first.click()
        expect(page.locator(".jp-OutputArea-output").first).to_contain_text("42 v2/git/", timeout=60_000)
