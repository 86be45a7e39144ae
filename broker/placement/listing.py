"""Every place for one person and one question: price, readiness, and what is missing. Asks no cloud and no repository host."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from broker import admission, backends, budgets, connections, errors, menus, people, readiness, resources
from broker.models import Connection
from broker.people import Person
from broker.placement import hubs, offers, ranking
from broker.placement.place import ASKED_FOR, OWN_SERVER, Place, Question, ready_in
from broker.service import Service
from providers import base
from providers.sentences import say

SLOW = dt.timedelta(seconds=3)  # a cloud that answers sooner needs no words
FREE = base.Offer(id="", title="", price_per_hour=Decimal(0))
SIZES = ("cpu", "memory_mb", "disk_gb", "gpu")


def places(service: Service, person: Person, question: Question = Question()) -> list[Place]:
    """Every place to run, the best first; those that cannot be chosen last. Asks no cloud; says which it would like to."""
    offered = [backend for backend in backends.offered(service) if backend.shown_to(service, person)]
    found = [place for backend in offered for place in _places(service, person, backend, question)]
    return ranking.ordered([*found, *hubs.places(service, person, question)])


def ready_seconds(service: Service, backend: str) -> float | None:
    """How long launches usually took there lately; None where it was never tried."""
    return readiness.usual(service, backend).seconds


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What is known of the offers of one place."""

    offer: base.Offer | None = None
    """The cheapest."""
    asking: bool = False
    news: str = ""
    offers: Sequence[base.Offer] | None = None
    """All of them, the servers of the person's own among them; None where its cloud has not said."""

    def closed(self, needed: base.Resources) -> str | None:
        """Why nothing can be bought there, in a sentence; None where something can, or nobody knows."""
        if self.offers is None:
            return None
        sold = [offer for offer in self.offers if not offer.taken]
        if not sold:
            if what := resources.plainly(needed):
                return say("Nothing there has %(what)s. Ask for less, or choose another place.", what=what)
            return say("Nothing there has what is asked for. Ask for less, or choose another place.")
        return sold[0].beyond if all(offer.beyond for offer in sold) else None


def _places(service: Service, person: Person, backend: backends.Backend, question: Question) -> list[Place]:
    """The backend, and after it the servers of their own that were there when its cloud was last asked."""
    place, offers_there = _place(service, person, backend, question)
    about: dict[str, Any] = {
        "connect": "",
        "confined": False,
        "price_per_hour": Decimal(0),
        "price_for_session": Decimal(0),
        "ready_seconds": None,
        "price": OWN_SERVER[:1],
        "reasons": (*OWN_SERVER, say("runs as you")),
        "own": True,
        "own_account": False,
        "closed": None,
        "needs": ("agree",),
        "news": "",
        "asking": False,
        "sizes": (),
    }
    own = [offer for offer in offers_there if offer.taken]
    return [
        place,
        *(
            replace(place, name=f"{place.name}/{each.id}", title=f"{place.title}: {each.title}", **about)
            for each in own
        ),
    ]


def _place(
    service: Service, person: Person, backend: backends.Backend, question: Question
) -> tuple[Place, Sequence[base.Offer]]:
    """The backend's own line, and all that its cloud offered."""
    connection = connections.for_backend(service, person, backend)
    needed, lowered, closed = _needed(person, backend, question)
    closed = offers.closed(service, person, backend) or closed
    told = _told(service, backend, connection, needed) if closed is None else _Told()
    closed = closed or told.closed(needed)
    usual = readiness.usual(service, backend.name, question.found, keeps=backend.provider.keeps() is not None)
    guess = told.offer.usual_seconds if told.offer else None
    seconds = guess if usual.seconds is None else usual.seconds
    longest = backend.longest(service)
    hours = min(question.wanted.hours or longest, longest)
    place = Place(
        name=backend.name,
        title=backend.title,
        closed=closed,
        connect=_connect(person, backend),
        connected=connection is not None,
        confined=backend.provider.confined,
        own_account=backend.asks_for_account,
        price_per_hour=told.offer.price_per_hour if told.offer else None,
        price_for_session=_for_session(service, told.offer, hours),
        hours=hours,
        idle_minutes=backend.idle_minutes(service),
        currency=told.offer.currency if told.offer else "USD",
        price=_price(service, told, hours),
        ready_seconds=seconds,
        built=usual.built,
        reasons=(*_reasons(backend, told, seconds, built=usual.built), *lowered),
        needs=_needs(service, person, backend, connection),
        asking=told.asking,
        news=told.news,
        sizes=_sizes(service, person, backend, connection),
    )
    return place, told.offers or ()


# --- what it has ----------------------------------------------------------------------------------------------------


def _needed(
    person: Person, backend: backends.Backend, question: Question
) -> tuple[base.Resources, list[str], str | None]:
    """What the session would have there, sentences on what is less than was wanted, and why it cannot be had at all."""
    default, most = backend.usual, backend.most(person)
    chosen, _raised = resources.settle(question.asked, question.wanted, default)
    try:
        chosen, lowered = resources.within(chosen, most, question.asked)
    except errors.NoBackend:
        return chosen, [], _too_big(question.asked.required, most)
    return chosen, lowered, None


def _too_big(required: base.Resources, most: base.Resources) -> str:
    limits = ((name, getattr(required, name), getattr(most, name)) for name in SIZES)
    name, needs, has = next(each for each in limits if each[1] and each[2] is not None and each[1] > each[2])
    return say(
        "This repository needs %(needs)s: too much for this place, where a session has at most %(most)s.",
        needs=resources.amount(name, needs),
        most=resources.amount(name, has),
    )


def _sizes(
    service: Service, person: Person, backend: backends.Backend, connection: Connection | None
) -> tuple[str, ...]:
    """The plain sizes that a session can have there, as far as anybody knows."""
    most = backend.most(person)
    return tuple(
        size.name
        for size in service.settings.sizes
        if all(
            limit is None or wanted is None or wanted <= limit
            for limit, wanted in ((getattr(most, name), getattr(size, name)) for name in SIZES)
        )
        and not _known_to_have_none(service, backend, connection, size.resources)
    )


def _known_to_have_none(
    service: Service, backend: backends.Backend, connection: Connection | None, size: base.Resources
) -> bool:
    menu = menus.known(service, backend, connection, size)
    return menu is not None and not menu.trouble and not menu.offers


# --- what it costs --------------------------------------------------------------------------------------------------


def _told(service: Service, backend: backends.Backend, connection: Connection | None, needed: base.Resources) -> _Told:
    """What its cloud said lately, and what it is doing now."""
    if backend.provider.on_this_computer:
        return _Told(offer=FREE)
    menus.want(service, backend, connection, needed)
    menu = menus.known(service, backend, connection, needed)
    waited = menus.waited(service, backend, connection, needed)
    slow = waited is not None and waited >= SLOW
    news = _slow(backend, waited) if waited and slow else ""
    if menu is None:
        return _Told(asking=True, news=news)
    return _Told(
        offer=menu.cheapest,
        asking=waited is not None,
        news=news or menu.trouble,
        offers=menu.offers if menu.offers or not menu.trouble else None,
    )


def _slow(backend: backends.Backend, waited: dt.timedelta) -> str:
    return say(
        "%(place)s has not answered for %(seconds)s s.", place=backend.title, seconds=round(waited.total_seconds())
    )


def _for_session(service: Service, offer: base.Offer | None, hours: float) -> Decimal | None:
    """The most that it can come to, as an order of it would promise."""
    now = service.now()
    return budgets.promised(offer, now, now + dt.timedelta(hours=hours) + service.settings.preparing) if offer else None


def _price(service: Service, told: _Told, hours: float) -> tuple[str, ...]:
    """What is shown before a launch: the price, and what it comes to in the longest life that a launch may have there."""
    offer = told.offer
    if offer is None and told.asking:
        return ASKED_FOR
    if offer is None or offer.price_per_hour is None:
        return (say("price unknown"),)
    if not offer.price_per_hour:
        return (say("free"),)
    most = _for_session(service, offer, hours) or Decimal(0)
    return (
        say("from %(rate)s", rate=budgets.rate(offer)),
        say(
            "at most %(cost)s for %(time)s and up to %(preparing)s of getting ready",
            cost=budgets.money(most, offer.currency),
            time=budgets.hours(dt.timedelta(hours=hours)),
            preparing=budgets.hours(service.settings.preparing),
        ),
        _by_whose_word(offer),
    )


def _by_whose_word(offer: base.Offer) -> str:
    day = offer.price_as_of or say("today")
    if offer.price_source:
        return say("price of %(day)s by %(source)s", day=day, source=offer.price_source)
    return say("price of %(day)s", day=day)


# --- in words -------------------------------------------------------------------------------------------------------


def _reasons(backend: backends.Backend, told: _Told, seconds: float | None, *, built: bool) -> tuple[str, ...]:
    """Why one would take it, or not, the weightiest first."""
    said = []
    if told.offer and told.offer.price_per_hour is not None:
        said.append(budgets.rate(told.offer))
    elif not told.asking:
        said.append(say("price unknown"))
    if backend.asks_for_account:
        said.append(say("on your own account"))
    if seconds is not None:
        said.append(ready_in(seconds))
    if built:
        said.append(say("image already there"))
    if not backend.provider.confined:
        said.append(say("runs as you"))
    return tuple(said)


# --- what is missing ------------------------------------------------------------------------------------------------


def _needs(
    service: Service, person: Person, backend: backends.Backend, connection: Connection | None
) -> tuple[str, ...]:
    """What this person does before it can run there, in that order."""
    needs = []
    if not _signed_in_lately(service, person, backend):
        needs.append("sign in")
    if backend.asks_for_account and (connection is None or connection.works is False):
        needs.append("connect")
    if not backend.provider.confined:
        needs.append("agree")
    return tuple(needs)


def _signed_in_lately(service: Service, person: Person, backend: backends.Backend) -> bool:
    if person.anonymous:
        return backend.name == service.settings.binder_backend
    try:
        backend.require_recent_sign_in(service, person)
    except errors.SignInAgain:
        return False
    return not backend.asks_for_account or people.recent(service, person)


def _connect(person: Person, backend: backends.Backend) -> str:
    """Also where it is closed for another reason than who they are: an account can be connected and checked all the same."""
    admitted = not person.anonymous and admission.admits(backend.setting.open_to, person)
    usable = backend.asks_for_account and admitted and backend.kinds_for(person)
    return f"/connect/{backend.name}" if usable else ""
