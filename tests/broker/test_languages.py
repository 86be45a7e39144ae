"""Every sentence of a page can be said in another language, and is said in each that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
from babel.messages.catalog import Message
from jinja2 import nodes

from broker.web import catalogues, language, pages

TEMPLATES = Path(pages.__file__).parent / "templates"
OTHERS = language.available()[1:]
READ = ("title", "aria-label", "placeholder", "alt", "data-label", "data-wait", "data-notice", "data-asked")
"""Attributes that people read, or hear."""
NAMES = {"Anybinder", "https://github.com/owner/name", "notebooks/index.ipynb", "BCDF-GHJK", "GitHub"}
"""What is the same in every language."""
SILENT = ("code", "script", "style", "pre", "svg")
GETTEXT = ("_", "gettext", "ngettext")
IN_TAGS = ("aria", "onward")
"""Macros that write attributes, or a part of an address."""
WORD = re.compile(r"[A-Za-z]{2,}")
PLACEHOLDER = re.compile(r"%\(\w+\)s")
TAG = re.compile(r"</?\w+")


# --- the catalogues -------------------------------------------------------------------------------------------------


def messages(code: str) -> Iterator[Message]:
    return (message for message in catalogues.read(code) if message.id)


def said(message: Message) -> list[str]:
    return list(message.string) if isinstance(message.string, tuple | list) else [message.string]


def asked(message: Message) -> list[str]:
    return list(message.id) if isinstance(message.id, tuple | list) else [message.id]


@pytest.mark.parametrize("code", OTHERS)
def test_a_catalogue_has_every_message_and_none_that_is_gone(code):
    here, there = (
        {str(asked(each)) for each in found if each.id} for found in (catalogues.extracted(), messages(code))
    )
    assert (sorted(here - there), sorted(there - here)) == ([], []), "run python -m broker.web.catalogues update"


@pytest.mark.parametrize("code", OTHERS)
def test_a_catalogue_says_every_message(code):
    assert [asked(each) for each in messages(code) if each.fuzzy or not all(said(each))] == []


@pytest.mark.parametrize("code", OTHERS)
def test_a_translation_has_the_values_and_the_elements_of_its_message(code):
    wrong = []
    for each in messages(code):
        for form in said(each):
            for pattern in (PLACEHOLDER, TAG):
                found = sorted(pattern.findall(form))
                if found not in [sorted(pattern.findall(one)) for one in asked(each)]:
                    wrong.append((asked(each)[0], form))
    assert wrong == []


# --- the templates --------------------------------------------------------------------------------------------------


class Reading(HTMLParser):
    """The words that are left in a page whose expressions and translated parts are blanks."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [text for name, text in attrs if name in READ and text and is_english(text)]
        if tag in SILENT:
            self.silent.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.silent and tag == self.silent[-1]:
            self.silent.pop()

    def handle_data(self, data: str) -> None:
        if not self.silent and is_english(data):
            self.found.append(data.strip())


def is_english(text: str) -> bool:
    for name in NAMES:
        text = text.replace(name, "")
    return bool(WORD.search(text))


def untranslated(source: str) -> list[str]:
    """Words of this template that no `{% trans %}` and no `_()` is around: in the page itself, and in its expressions."""
    environment = jinja2.Environment(extensions=["jinja2.ext.i18n"], autoescape=True)
    environment.newstyle_gettext = True
    reading, spoken = Reading(), []
    for part in written(environment.parse(source)):
        if isinstance(part, nodes.TemplateData):
            spoken.append(part.data)
        elif isinstance(part, nodes.Const) and isinstance(part.value, str) and is_sentence(part.value):
            reading.found.append(part.value)
    reading.feed("".join(spoken))
    return reading.found


def written(node: nodes.Node) -> Iterator[nodes.Node]:
    """What ends up in the page, in its order. What is handed to a function or compared ends up elsewhere."""
    if isinstance(node, nodes.Call | nodes.Compare | nodes.Getitem | nodes.Filter):
        inner = node.node if isinstance(node, nodes.Filter | nodes.Getitem) else None
        if isinstance(node, nodes.Call) and not is_one_of(node, (*GETTEXT, *IN_TAGS)):
            yield from (part for arg in node.args for part in written(arg))
        if inner is not None:
            yield from written(inner)
        return
    if isinstance(node, nodes.Macro) and node.name in IN_TAGS:
        return
    if isinstance(node, nodes.TemplateData | nodes.Const):
        yield node
    for child in node.iter_child_nodes():
        yield from written(child)


def is_one_of(node: nodes.Call, names: tuple[str, ...]) -> bool:
    return isinstance(node.node, nodes.Name) and node.node.name in names


def is_sentence(text: str) -> bool:
    """Not a class, a key or a part of an address: words with a space between, or one with a capital."""
    return (
        text not in NAMES
        and bool(re.search(r"[A-Za-z]{2,}[,.:]? [A-Za-z]{2,}|^[A-Z][a-z]{2,}", text))
        and "=" not in text
    )


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.glob("*.html")))
def test_a_template_leaves_no_words_in_english(template):
    assert untranslated((TEMPLATES / template).read_text()) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("<p>Some words</p>", ["Some words"]),
        ("<p>{% trans %}Some words{% endtrans %}</p>", []),
        ("<p>{{ _('Some words') }} <code>some words</code></p>", []),
        ('<input placeholder="the newest">', ["the newest"]),
        ("""<input placeholder="{{ _('the newest') }}">""", []),
        ("<p>{{ 'Some words' if so else _('Other words') }}</p>", ["Some words"]),
        ("{% macro one(title) %}{{ title }}{% endmacro %}{{ one('Some words') }}", ["Some words"]),
        ("{% set words = {'ready': 'Ready'} %}<p>{{ words[s] }}</p>", ["Ready"]),
        ('<a class="{{ "some class" if so }}" href="/some">{{ name }}</a>', ["some class"]),
    ],
)
def test_words_in_english_are_found(source, found):
    assert untranslated(source) == found
