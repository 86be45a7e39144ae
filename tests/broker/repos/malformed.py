"""What a refusal must be, whatever was wrong with what somebody wrote: a sentence that says what to do, and no 5xx."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from broker import repos

DOING = re.compile(
    r"\b(Add|Ask|Begin|Check|Choose|Leave|Name|Open|Paste|Push|Search|Shorten|Take|Tell|Try|Use|Write)\b", re.IGNORECASE
)
"""The words by which our sentences tell people what to do."""
INNER = re.compile(
    r"Traceback|Error\b|Exception|NoneType|None\b|object at 0x|\\x|\{|File \"|KeyError|invalid literal|b'"
)
"""Words of programs, not of people."""
BAD_REFS = (
    "-x",
    "--upload-pack=touch%20x",
    "a..b",
    "a%20b",
    "main~1",
    "main^",
    "a%3Ab",
    "a%0Ab",
    "a%00b",
    "%ff",
    "main.lock",
    "@%7B1%7D",
    "a%5Cb",
    ".hidden",
    "main.",
    "%2Fmain",
    "a%2F%2Fb",
    "%E2%80%AEmain",
    "*",
    "x" * 2001,
)
"""What git takes for no branch, tag or commit; percent-encoded as in a link."""


def refused(act: Callable[[], object]) -> str:
    """The sentence by which this is refused. Fails where it is not, or by one that helps nobody."""
    with pytest.raises(repos.RepoError) as found:
        act()
    sentence = str(found.value)
    assert found.value.status_code < 500, sentence
    assert len(sentence) > 30, sentence
    assert len(sentence) < 500, sentence
    assert sentence.endswith("."), sentence
    assert sentence.isprintable(), sentence
    assert DOING.search(sentence), sentence
    assert not INNER.search(sentence), sentence
    assert "secret" not in sentence.replace("is secret", ""), sentence
    return sentence


def refused_to_parse(text: str) -> str:
    """The same for what cannot be read."""
    return refused(lambda: repos.RepoSpec.parse(text))
