"""What a person does from beginning to end."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import READY_SECONDS, World, notebook

Picture = Callable[[Page, str], None]

LAB = {
    "index.ipynb": notebook(
        "import json, statistics\n"
        'magnitudes = json.load(open("lightcurve.json"))\n'
        'print(f"{len(magnitudes)} nights, mean magnitude {statistics.mean(magnitudes):.2f}")'
    ),
    "lightcurve.json": "[11.2, 11.9, 12.4, 11.7, 11.3]",
    "README.md": "# Light curves\n",
}
SHINY = {
    "requirements.txt": "shiny\nuvicorn\n",
    "start": '#!/bin/sh\nexec uvicorn app:app --uds "$ANYBINDER_SOCKET"\n',
    "app.py": (
        "from shiny import App, render, ui\n"
        "page = ui.page_fixed(\n"
        '    ui.h2("Light travel time"),\n'
        '    ui.input_numeric("parsecs", "Distance in parsecs", 10),\n'
        '    ui.output_text_verbatim("years"),\n'
        ")\n"
        "def server(input, output, session):\n"
        "    @render.text\n"
        '    def years(): return f"{(input.parsecs() or 0) * 3.26:.1f} years"\n'
        "app = App(page, server)\n"
    ),
}


def test_from_a_repository_to_a_computed_cell_and_to_nothing_left(world: World, picture: Picture) -> None:
    repo = world.repository("astro/lightcurves", LAB)
    with world.person(viewport={"width": 1280, "height": 860}) as page:
        page.get_by_label("Repository").fill(repo)
        page.get_by_label("File or URL to open").fill("index.ipynb")
        expect(page.locator("#repo-found")).to_contain_text(re.compile(r"^Found: .* at commit [0-9a-f]{7}"))
        picture(page, "launch")
        page.get_by_role("button", name="Launch").click()

        expect(page.get_by_role("heading", level=1)).to_have_text("Run this on your computer?")
        expect(page.get_by_text("it can read and change your files")).to_be_visible()
        picture(page, "consent")
        page.get_by_role("button", name="Run it").click()

        page.wait_for_url("**/launches/*", wait_until="commit")
        launch_id = page.url.rpartition("/")[2]
        expect(page.locator("#steps li.now")).to_have_text(re.compile("Fetching|Building|Launching"))
        page.locator("summary").click()
        picture(page, "progress")

        page.wait_for_url(f"http://{launch_id}.localhost:{world.port}/lab/**", timeout=READY_SECONDS * 1000)
        sockets: list[str] = []
        page.on("websocket", lambda socket: sockets.append(socket.url))
        run_first_cell(page)
        output = page.locator(".jp-OutputArea-output")
        expect(output.first).to_have_text("5 nights, mean magnitude 11.70", timeout=60_000)
        assert any(f"//{launch_id}.localhost:{world.port}/api/kernels/" in url for url in sockets)
        picture(page, "jupyterlab")

        other = page.context.new_page()
        other.goto(f"{world.url}/sessions")
        row = other.get_by_role("row").filter(has_text="lightcurves")
        expect(row).to_contain_text("Ready")
        picture(other, "sessions")
        row.get_by_role("button", name="Stop").click()
        expect(other.get_by_text("No session is running.")).to_be_visible()
        expect(other.get_by_text("Stopped at your wish.")).to_be_visible()

        answer = page.goto(page.url)
        assert answer is not None
        assert answer.status == 410
        expect(page.get_by_role("heading", level=1)).to_have_text("This session has ended")
    assert world.broker.left() == []


def run_first_cell(page: Page) -> None:
    cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
    cell.click(timeout=60_000)
    # A kernel that is still starting would swallow the cell.
    expect(page.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle", timeout=60_000)
    page.keyboard.press("Shift+Enter")


def test_a_shiny_app_reacts(world: World, picture: Picture) -> None:
    """An app that is no notebook; what it shows comes over its WebSocket."""
    launch = world.launch(world.repository("astro/light-time", SHINY), name="light-time")
    with world.person(viewport={"width": 1280, "height": 640}) as page:
        page.goto(f"{world.url}/launches/{launch['id']}")
        page.wait_for_url(f"http://{launch['id']}.localhost:{world.port}/**", timeout=READY_SECONDS * 1000)
        expect(page.locator("#years")).to_have_text("32.6 years", timeout=30_000)
        page.get_by_label("Distance in parsecs").fill("100")
        expect(page.locator("#years")).to_have_text("326.0 years")
        picture(page, "shiny")
    world.stop(launch["id"])
