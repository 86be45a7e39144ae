"""Peers as places to run, beside the backends. Asks no hub: what is known of them was seen beside the requests."""

from __future__ import annotations

from decimal import Decimal

from broker import people, readiness
from broker.forwarding import choosing
from broker.people import Person
from broker.placement.place import Place, Question, ready_in
from broker.service import Service
from providers.sentences import say


def places(service: Service, person: Person, question: Question) -> list[Place]:
    """Every peer as a line of the choice. What runs there costs nothing here; whose terms apply is said with it."""
    what = choosing.of(question.found) if question.found else None
    return [_place(service, person, option, question) for option in choosing.options(service, person, what)]


def _place(service: Service, person: Person, option: choosing.Option, question: Question) -> Place:
    peer = option.known.peer
    usual = readiness.usual(service, peer.name, question.found, keeps=True)
    longest = service.settings.max_hours
    return Place(
        name=peer.name,
        title=peer.title,
        closed=option.closed,
        connect=option.connect,
        connected=option.connection is not None,
        peer=True,
        publishes=peer.publishes,
        terms_url=peer.terms_url,
        privacy_url=peer.privacy_url,
        price_per_hour=Decimal(0),
        price_for_session=Decimal(0),
        price=(say("free"),),
        hours=min(question.wanted.hours or longest, longest),
        idle_minutes=service.settings.idle_minutes,
        ready_seconds=usual.seconds,
        built=usual.built,
        reasons=_reasons(usual),
        needs=_needs(service, person, option),
    )


def _reasons(usual: readiness.Usual) -> tuple[str, ...]:
    said = [say("free")]
    if usual.seconds is not None:
        said.append(ready_in(usual.seconds))
    if usual.built:
        said.append(say("image already there"))
    return tuple(said)


def _needs(service: Service, person: Person, option: choosing.Option) -> tuple[str, ...]:
    """Signing in before connecting: a token is somebody's."""
    visitor = person.anonymous and not service.settings.binder_peers
    signs_in = visitor or not (person.anonymous or people.recent(service, person))
    connects = bool(option.connect) and (option.connection is None or option.connection.works is False)
    return (*(("sign in",) if signs_in else ()), *(("connect",) if connects else ()))
