"""Where a launch could run, and what it would try first."""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import sqlalchemy as sa

from broker import admission, backends, budgets, connections, errors, menus, orders, readiness, resources
from broker.models import Launch
from broker.people import Person
from broker.service import Service
from providers import base
from providers import errors as clouds

IMAGES = "x86_64"
ASKED_FOR = ("its price is being asked for: load this page again in a moment",)
OWN_SERVER = (
    "nothing is bought: it costs what it costs you already",
    "you start it by pasting one line into its shell, and it goes on running afterwards",
    "the code can read your files there, and reach the cloud's metadata and your other processes",
)
HISTORY = 20  # newest launches that an expectation is made from


@dataclass(frozen=True, kw_only=True)
class Place:
    """One line of the choice: where, for how much, how soon, or why not."""

    name: str
    """The backend's; and behind a slash the offer, where it is a server of the person's own."""
    title: str
    closed: str | None
    """Why it cannot be chosen, in a sentence; None where it can."""
    connect: str
    """Where this person connects or mends their own account; empty where none is needed or can be used."""
    connected: bool
    """They have an account of theirs connected there, whether it works or not."""
    confined: bool
    """False where it runs as the person, with all they may do."""
    price_per_hour: Decimal | None
    """Of the cheapest that it offered lately; None where nobody knows."""
    currency: str
    price: tuple[str, ...]
    """The same in words: an hour, the most that a launch may come to, and who says so."""
    ready_seconds: float | None
    """Median of what it took lately; None where it was never tried."""
    own: bool = False
    """A server of the person's own, which only they choose."""


def places(service: Service, person: Person) -> list[Place]:
    """Every backend, those that can be chosen first. Asks no cloud."""
    found = [place for backend in backends.offered(service) for place in _places(service, person, backend)]
    return sorted(found, key=lambda place: place.closed is not None)


def choose(service: Service, person: Person, name: str | None) -> backends.Backend:
    """The backend of this name, or the first that is open to this person. Raises NoBackend with the reason."""
    named = name or (service.settings.binder_backend if person.anonymous else "")
    candidates = [backends.named(service, named)] if named else backends.offered(service)
    reasons = [_closed(service, person, candidate) for candidate in candidates]
    for candidate, reason in zip(candidates, reasons, strict=True):
        if reason is None:
            return candidate
    raise errors.NoBackend(reasons[0] if reasons else None)


def next_offer(service: Service, launch: Launch, account: backends.Account) -> base.Offer:
    """The best offer that was not tried, in the order that the launch prefers, and that its budget covers.

    Asks the cloud; raises NoOfferLeft, BudgetExceeded, ProviderError.
    """
    wanted = base.Resources(
        cpu=launch.cpu, memory_mb=launch.memory_mb, disk_gb=launch.disk_gb, gpu=launch.gpu, hours=launch.hours
    )
    tried = orders.tried(service, launch)
    found = account.offers(wanted)
    if launch.offer:
        return _own_server(launch, found, tried)
    found = [offer for offer in found if _runs(launch, offer) and not offer.taken]
    if found and all(offer.beyond for offer in found):
        raise clouds.QuotaExceeded(found[0].beyond)
    found = [offer for offer in found if not offer.beyond]
    fresh = [offer for offer in found if offer.id not in tried and (launch.spot or not offer.risk)]
    limits, now = orders.limits(service, launch), service.now()
    if offers := budgets.affordable(ranked(service, launch, fresh), limits, now, launch.deadline_at):
        return offers[0]
    if found and not fresh and not tried:
        raise errors.NoOfferLeft(
            "Only machines that may be taken away are offered there. Allow them, or choose another place."
        )
    if not tried and (much := resources.shown(wanted)):
        raise errors.NoOfferLeft(f"Nothing there has {much}. Ask for less, or choose another place.")
    raise errors.NoOfferLeft(launch.message or None)


def _own_server(launch: Launch, found: Sequence[base.Offer], tried: Sequence[str]) -> base.Offer:
    """The one that was named and no other: nobody else's machine, and none to buy."""
    if launch.offer in tried:
        raise errors.NoOfferLeft(launch.message or None)
    for offer in found:
        if offer.taken and offer.id == launch.offer:
            return offer
    raise errors.NoOfferLeft(
        "The server that you chose is not there any more, does not run, or is smaller than what was asked for. "
        "Start it on the cloud's dashboard, or choose another place."
    )


def _runs(launch: Launch, offer: base.Offer) -> bool:
    """An image by name was made for one architecture, and nearly every one for this: nobody asks its registry which."""
    return launch.content.get("kind") != "image" or offer.architecture in ("", IMAGES)


def ranked(service: Service, launch: Launch, offers: Sequence[base.Offer]) -> list[base.Offer]:
    """The cheapest first, or the soonest ready where the launch prefers that; unknown last; else as the provider gave them,
    so that the zones of one kind of machine follow each other."""
    usual = readiness.of_launch(service, launch) if launch.prefer == "ready" else None

    def measure(offer: base.Offer) -> Decimal | float | None:
        return usual.seconds(offer) if usual else offer.price_per_hour

    def place(offer: base.Offer) -> tuple[bool, Decimal | float]:
        known = measure(offer)
        return known is None, known or 0

    return sorted(offers, key=place)


def _places(service: Service, person: Person, backend: backends.Backend) -> list[Place]:
    """The backend, and after it the servers of their own that were there when its cloud was last asked."""
    place = _place(service, person, backend)
    menu = menus.known(service, backend, connections.for_backend(service, person, backend))
    own = [offer for offer in menu.offers if offer.taken] if menu and place.closed is None else []
    about = {"connect": "", "confined": False, "price_per_hour": Decimal(0), "price": OWN_SERVER, "own": True}
    return [
        place,
        *(
            replace(place, name=f"{place.name}/{each.id}", title=f"{place.title}: {each.title}", **about)
            for each in own
        ),
    ]


def _place(service: Service, person: Person, backend: backends.Backend) -> Place:
    connection, closed = connections.for_backend(service, person, backend), _closed(service, person, backend)
    local = backend.provider.on_this_computer
    offer = base.Offer(id="", title="", price_per_hour=Decimal(0)) if local else None
    asked_for = closed is None and not local
    if asked_for:
        menus.want(service, backend, connection)
        menu = menus.known(service, backend, connection)
        offer, asked_for = (menu.cheapest, False) if menu else (None, True)
    return Place(
        name=backend.name,
        title=backend.title,
        closed=closed,
        connect=_connect(person, backend),
        connected=connection is not None,
        confined=backend.provider.confined,
        price_per_hour=offer.price_per_hour if offer else None,
        currency=offer.currency if offer else "USD",
        price=ASKED_FOR if asked_for else _price(service, backend, offer),
        ready_seconds=_usual_seconds(service, backend.name),
    )


def _price(service: Service, backend: backends.Backend, offer: base.Offer | None) -> tuple[str, ...]:
    """What is shown before a launch: the price, and what it comes to in the longest life that a launch may have there."""
    if offer is None or offer.price_per_hour is None:
        return ("price unknown",)
    if not offer.price_per_hour:
        return ("free",)
    hours = dt.timedelta(hours=backend.setting.max_hours or service.settings.max_hours)
    ready = service.settings.preparing
    now = service.now()
    most = budgets.promised(offer, now, now + hours + ready) or Decimal(0)
    said = f"price of {offer.price_as_of or 'today'}" + (f" by {offer.price_source}" if offer.price_source else "")
    span = f"{budgets.hours(hours)} and up to {budgets.hours(ready)} of getting ready"
    return (f"from {budgets.rate(offer)}", f"at most {budgets.money(most, offer.currency)} for {span}", said)


def _closed(service: Service, person: Person, backend: backends.Backend) -> str | None:
    return backend.closed_to(service, person) or connections.missing(service, person, backend)


def _connect(person: Person, backend: backends.Backend) -> str:
    """Also where it is closed for another reason than who they are: an account can be connected and checked all the same."""
    admitted = not person.anonymous and admission.admits(backend.setting.open_to, person)
    usable = backend.asks_for_account and admitted and backend.kinds_for(person)
    return f"/connect/{backend.name}" if usable else ""


def _usual_seconds(service: Service, backend: str) -> float | None:
    query = (
        sa.select(Launch.created_at, Launch.ready_at)
        .where(Launch.backend == backend, Launch.ready_at.is_not(None))
        .order_by(Launch.created_at.desc())
        .limit(HISTORY)
    )
    with service.db.reading() as session:
        took = [(ready - created).total_seconds() for created, ready in session.execute(query) if ready]
    return statistics.median(took) if took else None
