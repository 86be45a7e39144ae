"""My work comes home, by a click."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import DESK, PHONE, WHOLE_WIDTH
from tests.browser.shared import World, world

__all__ = ["world"]
pytestmark = pytest.mark.timeout(400)

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
NOTEBOOK: dict[str, Any] = {"cells": [], "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}
FILES = {"requirements.txt": "six\n", "index.ipynb": json.dumps(NOTEBOOK)}
MINE = "# what I found out"


@pytest.fixture(scope="module")
def session(world: World) -> dict[str, Any]:
    """A session whose notebook has been changed and saved."""
    ready = world.ready(world.repository("stars", FILES), name="mine")
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": MINE}
    saved = {"type": "notebook", "format": "json", "content": {**NOTEBOOK, "cells": [cell]}}
    headers = {"Authorization": f"token {ready['token']}"}
    httpx.put(f"{ready['url']}api/contents/index.ipynb", headers=headers, json=saved).raise_for_status()
    return ready


def saved_by(page: Page, button: str, folder: Path) -> zipfile.ZipFile:
    """What a click on it puts on the disk."""
    with page.expect_download() as begun:
        page.locator(button).click()
    name = begun.value.suggested_filename
    assert name.startswith("stars-20")
    assert name.endswith(".zip")
    begun.value.save_as(folder / name)
    return zipfile.ZipFile(folder / name)


def test_a_click_saves_the_changed_notebook(world: World, session: dict[str, Any], tmp_path: Path) -> None:
    with world.person(viewport=DESK) as page:
        page.goto(f"{world.url}/launches/{session['id']}")
        expect(page.locator("#goes")).to_contain_text("is then deleted")
        found = saved_by(page, "#download", tmp_path)
        (notebook,) = (name for name in found.namelist() if name.endswith("index.ipynb"))
        assert json.loads(found.read(notebook))["cells"][0]["source"] == [MINE]
        expect(page.locator("#panel-title")).to_have_text("Ready")
        page.goto(f"{world.url}/sessions")
        expect(page.get_by_text("download what you want to keep")).to_be_visible()
        assert saved_by(page, f"#download-{session['id']}", tmp_path).testzip() is None
        assert page.evaluate(WHOLE_WIDTH)
        page.set_viewport_size(PHONE)
        assert page.evaluate(WHOLE_WIDTH)


def test_the_buttons_are_there_without_javascript(world: World, session: dict[str, Any], tmp_path: Path) -> None:
    with world.person(java_script_enabled=False) as page:
        page.goto(f"{world.url}/launches/{session['id']}")
        assert saved_by(page, "#download", tmp_path).testzip() is None


def test_a_link_on_somebody_elses_page_packs_nothing(world: World, session: dict[str, Any]) -> None:
    with world.person() as page:
        body = f"<a href='{world.url}/launches/{session['id']}/download'>x</a>"
        page.route("http://elsewhere.localhost/", lambda route: route.fulfill(content_type="text/html", body=body))
        page.goto("http://elsewhere.localhost/")
        page.get_by_role("link", name="x").click()
        page.wait_for_url(f"{world.url}/launches/{session['id']}")
        expect(page.locator("#panel-title")).to_have_text("Ready")


def test_once_it_has_ended_that_is_said(world: World) -> None:
    ready = world.ready(world.repository("stars", FILES), name="other")
    world.stop(ready["id"])
    with world.person() as page:
        page.goto(f"{world.url}/launches/{ready['id']}/download")
        expect(page.get_by_text("its files went with it")).to_be_visible()
