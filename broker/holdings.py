"""What a person has right now, everywhere, and what it costs: by the clouds' own lists.

Until a cloud has answered, and where it does not, our table says what should be there.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa

from broker import backends, people, reaper, rounds
from broker.models import Launch, Order
from broker.service import Service
from providers import base

SECONDS = 20.0  # what does not answer by then is looked at again

Bought = Mapping[tuple[str, str], Sequence[reaper.Finding]]
"""By account: the key of its station."""


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What one account has of this person's."""

    station: rounds.Station
    things: Sequence[reaper.Finding]
    asked: bool
    """The cloud itself said so; else it is what our table knows."""
    trouble: str = ""
    """Why it could not be asked."""
    unasked_since: dt.datetime | None = None
    """Since when it cannot be."""


def known(service: Service, person: people.Person, backend: str | None = None) -> list[Holding]:
    """What the table says of every account of theirs, or of those with one backend. Asks no cloud."""
    stations = _stations(service, person, backend)
    bought = _bought(service, person)
    return [_as_known(service, station, bought) for station in stations]


def look(service: Service, person: people.Person, backend: str | None = None) -> list[Holding]:
    """What their accounts list, asked now, side by side, by the reap grant: each is a use that the person sees.

    Within SECONDS; of what could not be asked by then it is what the table knows, and why.
    """
    stations = _stations(service, person, backend)
    bought = _bought(service, person)

    def list_(station: rounds.Station, account: backends.Account) -> list[reaper.Finding]:
        found = reaper.listed(service, station, account)
        return [each for each in found if _is_theirs(person, station, each)]

    return [
        Holding(station=answer.station, things=answer.found, asked=True)
        if answer.found is not None
        else _as_known(service, answer.station, bought, trouble=answer.trouble)
        for answer in rounds.ask(service, stations, list_, what="look", seconds=SECONDS)
    ]


def totals(holdings: Iterable[Holding], now: dt.datetime) -> dict[str, tuple[Decimal, Decimal]]:
    """What all of it costs an hour, and has cost so far, by currency; without what has no known price."""
    sums: dict[str, tuple[Decimal, Decimal]] = defaultdict(lambda: (Decimal(0), Decimal(0)))
    for thing in (thing for holding in holdings for thing in holding.things):
        if thing.price_per_hour:
            hourly, so_far = sums[thing.currency]
            sums[thing.currency] = hourly + thing.price_per_hour, so_far + (thing.cost(now) or Decimal(0))
    return dict(sums)


def unpriced(holdings: Iterable[Holding]) -> int:
    """How many machines there are whose price nobody knows."""
    return sum(thing.price_per_hour is None for holding in holdings for thing in holding.things)


def of_launch(service: Service, launch: Launch) -> list[reaper.Finding]:
    """What one launch has bought and not yet given back, as the table has it."""
    query = sa.select(Order).where(Order.launch_id == launch.id, Order.closed_at.is_(None), Order.asked_at.is_not(None))
    with service.db.reading() as session:
        return [_as_bought(order, launch) for order in session.scalars(query)]


def _stations(service: Service, person: people.Person, backend: str | None) -> list[rounds.Station]:
    found = rounds.of(service, person)
    return [station for station in found if backend in (None, station.backend.name)]


def _is_theirs(person: people.Person, station: rounds.Station, thing: reaper.Finding) -> bool:
    """All of it in their own account. Of the operator's, what they launched; whoever runs this broker sees the rest too."""
    return station.connection is not None or thing.person == person.id or person.local


def _as_known(service: Service, station: rounds.Station, bought: Bought, *, trouble: str = "") -> Holding:
    lately = rounds.standing(service, station)
    return Holding(
        station=station,
        things=bought.get(station.key, ()),
        asked=False,
        trouble=trouble or lately.trouble,
        unasked_since=lately.unasked_since,
    )


def _bought(service: Service, person: people.Person) -> Bought:
    """What should be there, by account."""
    query = (
        sa.select(Order, Launch)
        .join(Launch, Launch.id == Order.launch_id)
        .where(Launch.person == person.id, Order.closed_at.is_(None), Order.asked_at.is_not(None))
    )
    found: dict[tuple[str, str], list[reaper.Finding]] = defaultdict(list)
    with service.db.reading() as session:
        for order, launch in session.execute(query):
            found[order.backend, order.connection_id or ""].append(_as_bought(order, launch))
    return found


def _as_bought(order: Order, launch: Launch) -> reaper.Finding:
    return reaper.Finding(
        backend=order.backend,
        instance=base.Instance(id=order.instance or "", tag=None, state=base.InstanceState.PENDING),
        verdict="wanted",
        why="",
        person=launch.person,
        launch=launch.id,
        since=order.asked_at,
        **reaper.rate(order),
    )
