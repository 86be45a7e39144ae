"""French: how it says what the code says, and that it is set as French is."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from babel.messages.catalog import Message

from broker import budgets
from broker.web import catalogues, language
from providers.sentences import counted, listed, say


def test_french_is_set_as_french_is():
    """A space before a double sign never ends a line, and quotation marks are its own."""
    bad = re.compile(r"[^\u00a0\u202f\s\d/.`(]([;!?»]|:(?!//))(?=\s|$)| [;:!?»]|« |“|”|(?<=[a-zA-Z])'(?=[a-zA-ZÀ-ÿ])")
    forms = [form for each in catalogues.read("fr") if each.id for form in wordings(each)]
    wrong = [form for form in forms if bad.search(TAGS.sub("", form))]
    assert wrong == []


def wordings(message: Message) -> list[str]:
    return list(message.string) if isinstance(message.string, tuple | list) else [message.string]


TAGS = re.compile(r"<[^<>]*>|&\w+;|`[^`]*`|Contents: Read-only")


@pytest.mark.parametrize(
    ("header", "cookie", "query", "expected"),
    [
        ("", "", "", "en"),
        ("fr", "", "", "fr"),
        ("fr-CH, fr;q=0.9, en;q=0.8, *;q=0.5", "", "", "fr"),
        ("de, en;q=0.7, fr;q=0.3", "", "", "en"),
        ("en;q=0.2, fr;q=0.9", "", "", "fr"),
        ("fr;q=0", "", "", "en"),
        (";;,q=,fr;q=x,\x00", "", "", "en"),
        ("fr", "anybinder-lang=en", "", "en"),
        ("en", "anybinder-lang=fr", "", "fr"),
        ("fr", "anybinder-lang=xx", "", "fr"),
        ("en", "", "lang=fr", "fr"),
        ("en", "", "lang=../../etc/passwd", "en"),
    ],
)
def test_a_choice_goes_before_the_browsers_wish_and_that_before_english(header, cookie, query, expected):
    headers = [(b"accept-language", header.encode()), (b"cookie", cookie.encode())]
    assert language.negotiated({"type": "http", "headers": headers, "query_string": query.encode()}) == expected


def in_french(told):
    return language.of_code("fr").say(told)


@pytest.mark.parametrize(
    ("amount", "currency", "english", "french"),
    [
        (Decimal("0.04"), "USD", "$0.04", "0,04 $US"),
        (Decimal("1234.5"), "EUR", "€1234.50", "1 234,50 €"),
        (Decimal("500"), "SU", "500 SU", "500 SU"),
        (Decimal("0.000416"), "USD", "$0.000416", "0,000416 $US"),
    ],
)
def test_money_is_written_as_each_language_writes_it(amount, currency, english, french):
    told = budgets.money(amount, currency)
    assert (told, in_french(told).replace("\u00a0", " ").replace("\u202f", " ")) == (english, french)


def test_a_sentence_is_english_to_whoever_takes_it_for_a_string():
    told = say("at most %(cost)s", cost=budgets.money(Decimal("2.5"), "USD"))
    assert told == "at most $2.50"
    assert str(ValueError(told)) == told
    assert in_french(told) == "au plus 2,50\u00a0$US"
    assert in_french(str(ValueError(told))) == "au plus 2,50\u00a0$US"


def test_what_is_counted_has_the_plural_of_its_language():
    hours = [counted("%(count)s hour", "%(count)s hours", number) for number in (0, 1, 1.5, 2)]
    assert hours == ["0 hours", "1 hour", "1.5 hours", "2 hours"]
    assert [in_french(each) for each in hours] == ["0 heure", "1 heure", "1,5 heure", "2 heures"]


def test_what_is_listed_is_said_part_by_part():
    told = listed([say("free"), "AWS"], "; ")
    assert (told, in_french(told)) == ("free; AWS", "gratuit; AWS")


def test_a_name_that_happens_to_be_a_word_of_ours_stays_a_name():
    assert (in_french("Ready"), language.of_code("fr").known("Ready")) == ("Ready", "Prêt")


def test_what_a_row_has_kept_is_said_with_what_is_in_it():
    french = language.of_code("fr")
    assert french.known("Stopped at your wish.") == "Arrêtée à votre demande."
    assert french.known("Its 2 hours are over.") == "Sa durée de 2 heures est écoulée."
    assert french.known("InsufficientInstanceCapacity") == "InsufficientInstanceCapacity"
