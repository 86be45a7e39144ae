"""Budgets: what a launch may cost, promised before anything is bought and settled once it is gone.

What an order may cost is its price for its longest life, from when it is written down until its deadline. As long as it is
open that is promised; once it is closed, what the cloud can have billed is settled instead. The two together never
exceed the launch's budget: that is looked at again in the transaction that writes the order.

What nobody knows is unknown, and never nothing; sums in two currencies are never added up.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import sqlalchemy as sa
from sqlalchemy import orm

from broker import errors
from broker.models import Launch, Order
from providers import base, sentences
from providers.sentences import counted, say

EXACT = Decimal("0.000001")  # what a row keeps
CENT = Decimal("0.01")
SIGNS = {"USD": "$", "EUR": "€", "GBP": "£"}
WRITTEN = re.compile(r"\$?\s*(\d{1,9}(?:\.\d{1,6})?)\s*([A-Za-z]{2,3})?")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most that something may cost."""

    amount: Decimal
    currency: str = "USD"

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A budget, and how much of it is spoken for: promised to what is open, settled for what is closed."""

    whose: str
    """As a sentence goes on with it: `the budget of this launch`."""
    budget: Decimal
    currency: str | None
    """None: of whatever the offers are counted in."""
    taken: Decimal
    cure: str
    """What to do where it is too small, other than asking for less."""

    @property
    def left(self) -> Decimal:
        """What can still be promised."""
        return self.budget - self.taken


def read(text: str | float) -> Budget:
    """`2.50`, `2.50 EUR`, `500 SU`. Raises BadRequest."""
    found = WRITTEN.fullmatch(str(text).strip())
    if found is None:
        raise errors.BadRequest(
            f"“{str(text)[:40]}” is no budget. Write it like 2.50, or like 500 SU where service units are counted."
        )
    return Budget(amount=Decimal(found[1]), currency=(found[2] or "USD").upper())


def promised(offer: base.Offer, start: dt.datetime, end: dt.datetime) -> Decimal | None:
    """The most that this can cost from start to end; None where nobody knows its price."""
    return _cost(offer, start, end, ROUND_CEILING)


def settled(offer: base.Offer, start: dt.datetime | None, end: dt.datetime) -> Decimal | None:
    """What can have been billed from start to end, never more; nothing where it was never asked for, None where unknown."""
    return Decimal(0) if start is None else _cost(offer, start, end, ROUND_FLOOR)


def _cost(offer: base.Offer, start: dt.datetime, end: dt.datetime, rounding: str) -> Decimal | None:
    if offer.price_per_hour is None:
        return None
    hours = Decimal(max(0, (end - start) // dt.timedelta(microseconds=1))) / 3_600_000_000
    return (offer.price_per_hour * hours).quantize(EXACT, rounding)


def limits(session: orm.Session, launch: Launch, most: Decimal | None) -> list[Limit]:
    """What this launch may still spend: its person's budget and `most`, the operator's for one launch on its backend."""
    orders = session.scalars(sa.select(Order).where(Order.launch_id == launch.id)).all()
    found = []
    if launch.budget is not None:
        found.append(
            Limit(
                whose=say("the budget of this launch"),
                budget=launch.budget,
                currency=launch.currency,
                taken=_taken(orders),
                cure="raise the budget",
            )
        )
    if most is not None:
        found.append(
            Limit(
                whose="what one launch may cost there",
                budget=most,
                currency=None,
                taken=_taken(order for order in orders if order.backend == launch.backend),
                cure="choose another place",
            )
        )
    return found


def _taken(orders: Iterable[Order]) -> Decimal:
    """Promised where it is open, settled where it is closed. Under a limit all prices are known, and of one currency."""
    taken = (order.promised if order.closed_at is None else order.settled for order in orders)
    return sum((each for each in taken if each is not None), Decimal(0))


def affordable(
    offers: Sequence[base.Offer], limits: Sequence[Limit], start: dt.datetime, end: dt.datetime
) -> list[base.Offer]:
    """Those of these offers that fit all limits for their longest life, in the same order.

    Raises BudgetExceeded where there are some and none does, with a sentence that names the cheapest.
    """
    for limit in limits:
        fitting = [offer for offer in offers if _fits(offer, limit, start, end)]
        if offers and not fitting:
            raise errors.BudgetExceeded(_too_dear(offers, limit, start, end))
        offers = fitting
    return list(offers)


def _fits(offer: base.Offer, limit: Limit, start: dt.datetime, end: dt.datetime) -> bool:
    cost = promised(offer, start, end)
    return cost is not None and limit.currency in (None, offer.currency) and cost <= limit.left


def _too_dear(offers: Sequence[base.Offer], limit: Limit, start: dt.datetime, end: dt.datetime) -> str:
    known = [offer for offer in offers if offer.price_per_hour is not None]
    budget = f"{limit.whose} is {money(limit.budget, limit.currency or offers[0].currency)}"
    if not known:
        return f"Nobody knows what a machine there costs, and {budget}. Launch it without a budget, or choose another place."
    counted = [offer for offer in known if limit.currency in (None, offer.currency)]
    if not counted:
        counts = known[0].currency
        return (
            f"Machines there are counted in {counts}, and {budget}: the two cannot be compared. "
            f"Write the budget in {counts}, like 100 {counts}, or choose another place."
        )
    cheapest = min(counted, key=lambda offer: offer.price_per_hour or Decimal(0))
    cost = promised(cheapest, start, end) or Decimal(0)
    left = f", of which {money(max(limit.left, Decimal(0)), cheapest.currency)} is left" if limit.taken else ""
    needed = money(cost + limit.taken, cheapest.currency)
    cure = f"{limit.cure} to {needed}" if limit.currency else limit.cure
    return (
        f"The cheapest machine there that is left costs {rate(cheapest)}, "
        f"which is {money(cost, cheapest.currency)} for the {hours(end - start)} that it may last with getting "
        f"ready; {budget}{left}. Ask for fewer hours, or {cure}."
    )


def money(amount: Decimal, currency: str) -> sentences.Money:
    """A sum: `$2.50`, `500 SU`. Rounded up to cents, but below one cent exact: what is not nothing is never shown as that."""
    if currency not in SIGNS or 0 < amount < CENT:
        return _written(amount.quantize(EXACT, ROUND_CEILING).normalize(), currency, 0)
    return _written(amount.quantize(CENT, ROUND_CEILING), currency, 2)


def rate(offer: base.Offer) -> sentences.Sentence:
    """What an hour costs, exactly: `$0.0416 an hour`; `price unknown`; `free`."""
    if offer.price_per_hour is None:
        return say("price unknown")
    if not offer.price_per_hour:
        return say("free")
    return say("%(price)s an hour", price=exact(offer.price_per_hour, offer.currency))


def exact(price: Decimal, currency: str) -> sentences.Money:
    """A price to the digit: `$0.0416`, `8 SU`."""
    price = price.normalize()
    return _written(price, currency, 2)


def _written(amount: Decimal, currency: str, digits: int) -> sentences.Money:
    """With at least so many digits behind the point, and all that it has."""
    if currency not in SIGNS:
        return sentences.money(f"{amount:f} {currency}", amount, currency, 0)
    digits = max(digits, -int(amount.as_tuple().exponent))
    return sentences.money(f"{SIGNS[currency]}{amount:.{digits}f}", amount, currency, digits)


def hours(span: dt.timedelta) -> sentences.Sentence:
    """`14 hours`, `1 hour`, `0.5 hours`."""
    return counted("%(count)s hour", "%(count)s hours", round(span / dt.timedelta(hours=1), 1))
