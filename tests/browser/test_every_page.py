"""Every page in each of its states, as WCAG 2.2 AA wants it: axe finds nothing, nothing is cut off, the focus is seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import jinja2.meta
import pytest
from playwright.sync_api import Browser, Page

from broker.web import pages
from tests.browser import accessible, every_page
from tests.browser.every_page import IN_FRENCH, VISITS, Hub, Visit


@pytest.fixture(scope="module")
def hub(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with every_page.everything(browser, tmp_path_factory.mktemp("every")) as made:
        yield made


@pytest.fixture(scope="module")
def tabs() -> Iterator[ExitStack]:
    """Where the tabs of this module are closed."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def page(hub: Hub, tabs: ExitStack, visit: Visit) -> Page:
    """Somebody who has come to this page."""
    return hub.shown(tabs, visit)


@pytest.mark.parametrize("visit", VISITS, ids=str)
def test_nothing_is_in_anybodys_way(page: Page, visit: Visit) -> None:
    found = [
        *accessible.moving(page),
        *accessible.violations(page),
        *accessible.cut(page),
        *accessible.unseen_focus(page),
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", IN_FRENCH)
def test_nothing_is_cut_in_french(hub: Hub, tabs: ExitStack, path: str) -> None:
    page = hub.page(tabs, "person", locale="fr-FR")
    every_page.to(path)(hub, page)
    assert page.locator("html").get_attribute("lang") == "fr"
    found = accessible.cut(page)
    assert not found, "\n".join(found)


def test_no_page_was_left_out() -> None:
    """A new template fails here until somebody visits it above. What a page is made of is visited with it."""
    env = pages.templates.env
    visited = {visit.template for visit in VISITS} & set(env.list_templates())
    while more := {part for name in visited for part in parts(env, name)} - visited:
        visited |= more
    assert set(env.list_templates()) - visited == set()


def parts(env: jinja2.Environment, name: str) -> set[str]:
    assert env.loader
    source, _, _ = env.loader.get_source(env, name)
    return {part for part in jinja2.meta.find_referenced_templates(env.parse(source)) if part}
