"""Sentences that people read, as they travel: plain English strings that know what they were made of.

Whatever takes a string takes these: rows, logs, JSON and tests see English. A page says them in the language of whoever
looks (`broker/web/language.py`), which needs the sentence as a whole and its values apart.

    say("It runs as you on %(place)s.", place="AWS")
    counted("%(count)s session is running.", "%(count)s sessions are running.", 3)

A value that is such a sentence is said in the same language; a number is written as that language writes numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any


class Sentence(str):
    """A sentence, or a part of one that stands alone, with its values."""

    template: str = ""
    plural: str = ""
    """The same for several; empty where it has no number."""
    count: float = 1
    values: Mapping[str, Any] = {}

    def __str__(self) -> str:
        """Itself: an error that was raised with it gives it back as it was."""
        return self


class Listed(str):
    """Several, said one after the other with the same sign between them."""

    parts: tuple[str, ...] = ()
    between: str = ""

    def __str__(self) -> str:
        """Itself, as a sentence."""
        return self


class Money(str):
    """A sum, or a price to the digit."""

    amount: Decimal = Decimal(0)
    currency: str = ""
    digits: int = 2
    """Behind the point, where its currency has a sign."""

    def __str__(self) -> str:
        """Itself, as a sentence."""
        return self


def say(template: str, /, **values: Any) -> Sentence:
    """This sentence. It is found by the name of this function when the catalogues of messages are made: write it out whole."""
    return _made(template, template, values)


def template(text: str) -> str:
    """One that `say` is given later, with its values: so that it is found for the catalogues as well."""
    return text


def counted(one: str, many: str, count: float, /, **values: Any) -> Sentence:
    """The same with a number that decides about its words; they name it `%(count)s`."""
    values = {**values, "count": count}
    sentence = _made(one if count == 1 else many, one, values)
    sentence.plural, sentence.count = many, count
    return sentence


def listed(parts: Iterable[str], between: str = ", ") -> Listed:
    """One after the other."""
    parts = tuple(parts)
    made = Listed(between.join(parts))
    made.parts, made.between = parts, between
    return made


def money(english: str, amount: Decimal, currency: str, digits: int) -> Money:
    """This much, which reads like this in English."""
    made = Money(english)
    made.amount, made.currency, made.digits = amount, currency, digits
    return made


def _made(english: str, template: str, values: Mapping[str, Any]) -> Sentence:
    made = Sentence(english % {name: written(value) for name, value in values.items()})
    made.template, made.values = template, values
    return made


def written(value: Any) -> str:
    """A value as English has it: a number without needless digits."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
