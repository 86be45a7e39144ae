"""Which peer is asked first: the same everywhere, by weight, past what is nearly full, where the image is."""

from __future__ import annotations

from collections import Counter

import pytest

from federation import routing
from federation.routing import Candidate

KEYS = [f"gh/owner-{number}/name" for number in range(4000)]


def first(key: str, *candidates: Candidate) -> str:
    return routing.order(key, candidates)[0].name


def named(*names: str, **weights: float) -> list[Candidate]:
    return [Candidate(name=name, weight=weights.get(name, 1.0)) for name in names]


def test_the_order_is_the_same_whatever_order_they_are_named_in() -> None:
    there, back = named("a", "b", "c", "d"), named("d", "c", "b", "a")
    assert all(routing.order(key, there) == routing.order(key, back) for key in KEYS[:100])


def test_shares_follow_the_weights() -> None:
    chosen = Counter(first(key, *named("a", "b", "c", a=2.0)) for key in KEYS)
    assert chosen["a"] / len(KEYS) == pytest.approx(1 / 2, abs=0.03)
    assert chosen["b"] / len(KEYS) == pytest.approx(1 / 4, abs=0.03)


def test_a_peer_that_goes_moves_only_what_was_its_own() -> None:
    before = {key: first(key, *named("a", "b", "c", "d")) for key in KEYS}
    after = {key: first(key, *named("a", "b", "c")) for key in KEYS}
    assert {before[key] for key in KEYS if before[key] != after[key]} == {"d"}


def test_without_a_weight_nothing_is_sent() -> None:
    assert [each.name for each in routing.order("k", named("a", "b", a=0))] == ["b"]


def test_what_is_nearly_full_comes_after_all_that_is_not() -> None:
    tight, roomy = Candidate(name="a", weight=100, room=0.05), Candidate(name="b", room=0.4)
    assert {first(key, tight, roomy) for key in KEYS[:50]} == {"b"}


def test_where_the_image_is_goes_before_where_it_is_not_while_there_is_room() -> None:
    there, other = Candidate(name="a", has_image=True, room=0.3), Candidate(name="b", weight=50)
    assert {first(key, there, other) for key in KEYS[:50]} == {"a"}
    full = Candidate(name="a", has_image=True, room=0.01)
    assert {first(key, full, other) for key in KEYS[:50]} == {"b"}


def test_what_nobody_has_looked_at_comes_after_what_is_known_to_be_well() -> None:
    new, known = Candidate(name="a", weight=50, known=False), Candidate(name="b")
    assert {first(key, new, known) for key in KEYS[:50]} == {"b"}
