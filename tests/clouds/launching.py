"""What a person does with a launch, in a real browser: the form, the wait, a cell, the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from playwright.sync_api import Error, Page, expect

from tests.clouds.world import SESSIONS, World, picture
from tests.doubles.machines import Machine
from tests.waiting import until

NOTEBOOKS = {"requirements.txt": "tabulate==0.9.0\n", "README.md": "# Squares\n"}
CELL = "import tabulate, getpass; print(sum(n * n for n in range(10)), getpass.getuser(), tabulate.__version__)"
SAID = "285 anybinder 0.9.0"
READY_MS = 420_000  # a machine boots and installs JupyterLab from the index, on two shared cores


@dataclass
class Session:
    """A launch that somebody is in."""

    page: Page
    progress: str
    machine: Machine


@contextmanager
def entered(world: World) -> Iterator[Session]:
    """Signed in at the campus, connected without any key, launched, waited for, entered."""
    with world.person() as page:
        fill(world, page)
        progress = begin(page)
        until(world.machines, seconds=120, what="a machine was started")
        page.locator("summary", has_text="Log").click()
        expect(page.locator("main")).to_contain_text("ready to build", timeout=READY_MS)
        picture(page, f"{world.pictures}-2-progress")
        arrive(page, progress)
        yield Session(page, progress, world.machines()[-1])


def fill(world: World, page: Page, repo: str = "squares.git") -> None:
    """The form, up to its button."""
    page.goto(world.url)
    page.get_by_label("Repository", exact=True).fill(world.repository(repo, NOTEBOOKS))
    page.get_by_label(world.title, exact=True).check()


def begin(page: Page) -> str:
    """Through consent to the progress page; its address."""
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url(lambda url: "/launch" in url)
    if page.get_by_role("button", name="Run it").count():
        page.get_by_role("button", name="Run it").click()
    page.wait_for_url("**/launches/*")
    return page.url


def arrive(page: Page, progress: str) -> None:
    """In JupyterLab, on an origin of the session's own, where the progress page leads by itself.

    Chromium drops what it loads whenever a network device of this computer comes or goes, as other machines' do; a person
    would open the page again.
    """
    card = page.locator(".jp-LauncherCard", has_text="Python 3").first
    with suppress(Error, AssertionError):
        page.wait_for_url(f"https://*.{SESSIONS}/**", timeout=READY_MS)
        expect(card).to_be_visible(timeout=60_000)
        return
    page.goto(progress)
    page.get_by_role("link", name="Open", exact=True).click()
    expect(card).to_be_visible(timeout=120_000)


def run_a_cell(page: Page, code: str = CELL, said: str = SAID) -> None:
    """A new notebook, a line, Shift and Enter."""
    page.locator(".jp-LauncherCard", has_text="Python 3").first.click()
    expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=120_000)
    cell = page.locator(".jp-NotebookPanel .jp-Cell .cm-content").first
    cell.click()
    page.keyboard.insert_text(code)
    expect(cell).to_contain_text(code)
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-OutputArea-output").first).to_contain_text(said, timeout=90_000)


def stop(page: Page, progress: str) -> None:
    """On the launch's page."""
    page.goto(progress)
    page.get_by_role("button", name="Stop").first.click()
