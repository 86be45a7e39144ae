"""The documentation says what the code says."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import models
from docs import generate

CLONE = Path(__file__).resolve().parent.parent
PAGES = sorted([CLONE / "README.md", *(CLONE / "docs").rglob("*.md")])
DECISIONS = sorted((CLONE / "docs" / "decisions").glob("*.md"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
HALF_A_PAGE = 45  # lines

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CLONE)))


def read(name: str) -> str:
    return (CLONE / "docs" / name).read_text()


@each_page
def test_links_lead_somewhere(page):
    prose = FENCE.sub("", page.read_text())
    local = [target for target in LINK.findall(prose) if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not leads_somewhere(page, target)] == []


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    aim = page if not path else page.parent / path
    return aim.exists() and (not anchor or aim.suffix != ".md" or anchor in anchors(aim))


def anchors(page: Path) -> set[str]:
    """The headings, as forges turn them into anchors."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_python_in_the_pages_is_python(page):
    for _, language, code in FENCE.findall(page.read_text()):
        if language in ("python", "py"):
            ast.parse(textwrap.dedent(code))


@each_page
def test_files_that_are_named_exist(page):
    prose = FENCE.sub("", page.read_text())
    named = re.findall(r"`((?:broker|providers|federation|tests|deploy|docs)/[\w./-]+)`", prose)
    assert [path for path in named if not (CLONE / path).exists()] == []


@each_page
def test_tests_that_are_named_exist(page):
    named = set(re.findall(r"`(?:tests/[\w./]+::)?(test_\w+)`", page.read_text()))
    assert named <= set(names_of_tests())


def names_of_tests() -> Iterator[str]:
    for path in (CLONE / "tests").rglob("test_*.py"):
        yield path.stem
        yield from re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", generate.PAGES)
def test_the_reference_is_what_the_code_would_make(name):
    assert (generate.REFERENCE / name).read_text() == generate.page(name), "run docs/generate.py"


def test_every_setting_is_explained():
    without = [name for name, _, meaning in generate.fields("Settings") if not meaning]
    assert without == []


def test_every_row_is_in_the_glossary():
    words = re.findall(r"^\| \*\*([^*]+)\*\*", read("glossary.md"), re.MULTILINE)
    tables = {mapper.class_.__name__ for mapper in models.Launch.registry.mappers}
    assert tables <= {word.replace(" ", "") for word in words}


@pytest.mark.parametrize("phase", models.Phase)
def test_every_phase_is_in_the_glossary(phase):
    assert f"`{phase.value}`" in read("glossary.md")


def test_the_state_diagram_draws_every_state():
    assert {state.value for state in models.State} == {state for edge in edges_drawn() for state in edge}


def test_every_edge_between_states_is_explained():
    assert edges_drawn() - edges_explained() == set()


def edges_drawn() -> set[tuple[str, str]]:
    diagram = next(code for _, _, code in FENCE.findall(read("architecture.md")) if "stateDiagram" in code)
    return set(re.findall(r"^\s*(\w+) --> (\w+)", diagram, re.MULTILINE))


def edges_explained() -> set[tuple[str, str]]:
    """Rows of the table: `| placed, starting → stopping | …`."""
    rows = re.findall(r"^\| ([\w, ]+) → (\w+) \|", read("architecture.md"), re.MULTILINE)
    return {(before.strip(), after) for befores, after in rows for before in befores.split(",")}


def test_decisions_are_numbered_without_a_gap():
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_is_half_a_page(page):
    assert len(page.read_text().splitlines()) <= HALF_A_PAGE
    assert re.match(r"# \d{4}: .+\n", page.read_text())
