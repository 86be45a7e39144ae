"""Which place comes first. Pure: the same places, in the same order before, come out in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from broker.placement.place import Place

ORDERS = ("best", "price", "soonest")
"""What a person may sort by."""


def ordered(places: Sequence[Place], by: str = "best") -> list[Place]:
    """Those that can be chosen first, whatever they are sorted by; what is unknown comes last; else the operator's order."""
    keys = {
        "price": lambda place: (_open(place), *_price(place)),
        "soonest": lambda place: (_open(place), _soon(place)),
    }
    return sorted(places, key=keys.get(by, _best))


def _best(place: Place) -> tuple[Any, ...]:
    """What is to be had before a server of their own, at once before what has to be signed in for, by price, and of the same
    price the soonest."""
    return (_open(place), place.own, "sign in" in place.needs, bool(place.news), *_price(place), _soon(place))


def _open(place: Place) -> int:
    """What something can be done about comes before what nothing can."""
    if place.closed is None:
        return 0
    return 1 if place.needs and set(place.needs) <= {"sign in", "connect", "agree"} else 2


def _price(place: Place) -> tuple[bool, bool, str, Decimal]:
    """Free before what costs money, and money before service units; prices in two currencies are never compared."""
    hourly = place.price_per_hour
    currency = place.currency if hourly else ""
    return hourly is None, currency == "SU", currency, hourly or Decimal(0)


def _soon(place: Place) -> tuple[bool, float]:
    return place.ready_seconds is None, place.ready_seconds or 0.0
