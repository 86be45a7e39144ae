"""From the form to a running cell, and to the page that says it has ended."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import BUILD_MS, DESK, PHONE, Person, Repos, held_by, picture, wide_enough
from tests.journeys.test_launch import PLAIN_APP
from tests.waiting import until

NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": "one",
            "metadata": {},
            "outputs": [],
            "source": (
                "import json, statistics\n\n"
                'nights = json.load(open("lightcurve.json"))\n'
                'print(f"{len(nights)} nights, mean magnitude {statistics.mean(nights):.2f}")'
            ),
        }
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}
REPOSITORY = {
    "requirements.txt": "six\n",
    "index.ipynb": json.dumps(NOTEBOOK),
    "lightcurve.json": "[11.2, 11.9, 12.4, 11.7, 11.3]",
    "README.md": "# Light curves\n",
}
SHINY = {
    "requirements.txt": "shiny\nuvicorn\n",
    "start": '#!/bin/sh\nexec uvicorn app:app --uds "$ANYBINDER_SOCKET"\n',
    "app.py": (
        "from shiny import App, render, ui\n"
        "app_ui = ui.page_fluid(\n"
        "    ui.h2('A figure from the paper'),\n"
        "    ui.input_slider('n', 'Sample size', 1, 100, 20),\n"
        "    ui.input_text('who', 'Reader', 'nobody'),\n"
        "    ui.output_text_verbatim('said'),\n"
        ")\n"
        "def server(input, output, session):\n"
        "    @render.text\n"
        "    def said():\n"
        "        return f'{input.who()} sees n = {input.n()}'\n"
        "app = App(app_ui, server)\n"
    ),
}


def test_a_newcomer_launches_runs_a_cell_and_stops(person: Person, repos: Repos) -> None:
    (url, make), page = repos, person.page
    commit = make("astro/lightcurves", REPOSITORY)
    person.fill(f"{url}/astro/lightcurves", path="index.ipynb")
    expect(page.get_by_role("status")).to_contain_text(f"at commit {commit[:7]}")
    picture(page, "launch")
    page.get_by_role("button", name="Launch").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("Run this")
    expect(page.get_by_text(commit, exact=True).first).to_be_visible()
    expect(page.get_by_text("runs as you")).to_be_visible()
    picture(page, "consent")
    page.get_by_role("button", name="Run it").click()

    page.wait_for_url(re.compile(r"^http://\w+\.localhost:\d+/lab"), timeout=BUILD_MS)
    assert "token" not in page.url
    run_the_cell(page)
    picture(page, "jupyterlab")

    (launch,) = person.launches()
    session = page.url
    page.goto(f"{person.home}/sessions")
    row = page.get_by_role("row").filter(has_text=launch["name"])
    expect(row).to_contain_text("Ready")
    expect(row).to_contain_text("This computer")
    picture(page, "sessions")
    page.set_viewport_size(PHONE)
    picture(page, "phone")
    page.set_viewport_size(DESK)
    row.get_by_role("button", name="Stop").click()
    until(lambda: person.launches()[0]["state"] == "stopped", seconds=30)
    page.goto(session)
    expect(page.get_by_role("heading", name="This session has ended")).to_be_visible()
    assert person.complaints == []


def run_the_cell(page: Page) -> None:
    """Through the kernel's WebSocket: the output can come from nowhere else."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").first
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60_000)  # before, nothing runs it
    cell.locator(".cm-content").click(timeout=60_000)
    page.keyboard.press("Shift+Enter")
    expect(cell.locator(".jp-OutputArea-output")).to_have_text("5 nights, mean magnitude 11.70", timeout=60_000)


def test_a_shiny_app_answers_to_its_inputs(person: Person, repos: Repos) -> None:
    (url, make), page = repos, person.page
    make("o/app", SHINY)
    person.launch(f"{url}/o/app")
    page.wait_for_url(re.compile(r"^http://\w+\.localhost:\d+/$"), timeout=BUILD_MS)
    said = page.locator("#said")
    expect(said).to_have_text("nobody sees n = 20", timeout=30_000)
    page.get_by_label("Reader").fill("Ada")
    expect(said).to_have_text("Ada sees n = 20")
    page.set_viewport_size({**DESK, "height": 420})
    picture(page, "shiny")


def test_the_second_time_nothing_is_asked_and_nothing_is_built(person: Person, repos: Repos) -> None:
    (url, make), page = repos, person.page
    make("o/app", PLAIN_APP)
    person.launch(f"{url}/o/app")
    page.wait_for_url(re.compile(r"^http://\w+\.localhost"), timeout=BUILD_MS)
    person.fill(f"{url}/o/app")
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url(re.compile(r"^http://\w+\.localhost"), timeout=BUILD_MS)
    newest, oldest = person.launches()
    assert newest["id"] != oldest["id"]
    page.goto(f"{person.home}/launches/{newest['id']}")
    expect(page.get_by_text("already built", exact=False).first).to_be_visible()


def test_on_a_phone_nothing_sticks_out(person_at: Callable[..., Person], repos: Repos, gate: Path) -> None:
    url, make = repos
    make("o/a-repository-with-a-rather-long-name-indeed", {"postBuild": held_by(gate), **PLAIN_APP})
    for size in ({"width": 320, "height": 640}, PHONE):
        person = person_at(viewport=size, has_touch=True, is_mobile=True)
        page = person.page
        wide_enough(page)
        person.fill(f"{url}/o/a-repository-with-a-rather-long-name-indeed", path="notebooks/" + "x" * 80, name="m" * 60)
        wide_enough(page)
        page.get_by_role("button", name="Launch").click()
        if not person.launches():
            wide_enough(page)
            page.get_by_role("button", name="Run it").click()
        page.wait_for_url("**/launches/**")
        expect(page.locator("#log")).to_contain_text("line number 5")
        wide_enough(page)
        page.goto(f"{person.home}/sessions")
        expect(page.get_by_text("m" * 60).first).to_be_visible()
        wide_enough(page)
        page.goto(f"{person.home}/nothing/here")
        wide_enough(page)
    gate.touch()


def test_without_javascript_up_to_the_session(person_at: Callable[..., Person], repos: Repos) -> None:
    person = person_at(java_script_enabled=False)
    (url, make), page = repos, person.page
    make("o/app", PLAIN_APP)
    person.launch(f"{url}/o/app")
    page.wait_for_url("**/launches/**")
    page.get_by_role("link", name="Open", exact=True).click(
        timeout=BUILD_MS
    )  # the page renews itself until it is there
    expect(page.locator("body")).to_contain_text("hello from /")
    page.goto(f"{person.home}/sessions")
    page.get_by_role("button", name="Stop").click()
    until(lambda: person.launches()[0]["state"] == "stopped", seconds=30)


BYTES = "performance.getEntries().reduce((sum, one) => sum + (one.encodedBodySize || 0), 0)"


def test_a_first_visit_is_small_and_asks_nobody_else(person: Person) -> None:
    page = person.page
    person.requests.clear()
    page.goto(person.home, wait_until="networkidle")
    assert all(one.startswith(person.home) for one in person.requests)
    assert 5_000 < page.evaluate(BYTES) < 100_000
    assert person.complaints == []
