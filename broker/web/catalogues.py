"""The catalogues of messages: one `locale/<code>.po` a language, made from what the code says. For those who change either.

python -m broker.web.catalogues update      after a sentence was changed: what is new is empty, what is gone is left out
python -m broker.web.catalogues add de      begin another language
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages import extract, pofile
from babel.messages.catalog import Catalog

from broker import app, errors
from broker.web import language
from federation import errors as peers
from providers import errors as clouds

CLONE = Path(__file__).parent.parent.parent
PYTHON = {"say": None, "template": None, "counted": (1, 2)}
PAGES = {"_": None, "gettext": None, "ngettext": (1, 2)}
SCRIPTS = {"say": None}
KINDS = (
    ("python", "broker/**/*.py", PYTHON, {}),
    ("python", "federation/**/*.py", PYTHON, {}),
    ("python", "providers/**/*.py", PYTHON, {}),
    ("jinja2.ext:babel_extract", "broker/web/templates/*.html", PAGES, {"trimmed": "true", "silent": "false"}),
    ("javascript", "broker/web/static/*.js", SCRIPTS, {}),
)
"""How messages are found where, and by which words."""
SPOKEN = (errors.BrokerError, clouds.ProviderError, peers.PeerError)
"""Whose docstrings are sentences for people."""

Found = tuple[str, str | tuple[str, str]]


def extracted() -> Catalog:
    """Every message of the code, with the files that it is in."""
    catalogue = Catalog(project="Anybinder", charset="utf-8", fuzzy=False)
    for file, message in (*_written(), *_errors()):
        catalogue.add(message, locations=[(file, 1)])
    return catalogue


def read(code: str) -> Catalog:
    """The catalogue of this language, as it lies there."""
    with _file(code).open("rb") as file:
        return pofile.read_po(file, locale=code)


def update(code: str) -> None:
    """Write it anew: with every message that there is by now, and its translation where there was one."""
    catalogue = read(code) if _file(code).exists() else Catalog(locale=code, project="Anybinder", fuzzy=False)
    template = extracted()
    template.creation_date = catalogue.creation_date
    catalogue.update(template, no_fuzzy_matching=True)
    with _file(code).open("wb") as file:
        pofile.write_po(file, catalogue, width=120, sort_by_file=True, ignore_obsolete=True, include_lineno=False)


def _file(code: str) -> Path:
    return language.FOLDER / f"{code}.po"


def _written() -> Iterator[Found]:
    for method, pattern, keywords, options in KINDS:
        for path in sorted(each for each in CLONE.glob(pattern) if _speaks(each)):
            with path.open("rb") as file:
                for _line, message, _comments, _context in extract.extract(method, file, keywords, (), options):
                    yield str(path.relative_to(CLONE)), message


def _speaks(path: Path) -> bool:
    """Others have a `say` of their own: command lines, and what runs on instances."""
    return path.suffix != ".py" or "sentences" in path.read_text()


def _errors() -> Iterator[Found]:
    """What errors say that are raised without a word: the first paragraph of their docstrings."""
    assert app.create  # noqa: S101  every module that has errors of its own is read by now
    waiting = list(SPOKEN)
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        # A driver's own are raised with words, and whether one is read hangs on who has asked for it.
        if error.__module__.startswith(("broker.", "federation.", clouds.__name__)):
            yield f"{error.__module__.replace('.', '/')}.py", " ".join((error.__doc__ or "").split("\n\n")[0].split())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["update"]:
            for known in language.available()[1:]:
                update(known)
        case ["add", code]:
            update(code)
        case _:
            sys.exit(__doc__)
