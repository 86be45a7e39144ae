"""The same thing at another place: which places there are besides those that were tried, and the form filled in for one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from broker import backends, errors, orders, placement
from broker.forwarding import rows
from broker.models import Launch, State
from broker.people import Person
from broker.service import Service
from broker.web import places, views
from providers import base
from providers.sentences import say

PLACES_MOST = 4  # more is a choice, which the form is made for
SIZES = {"cpu": "cpu", "memory": "memory_mb", "disk": "disk_gb", "gpu": "gpu"}
UNITS = {"memory": "M", "disk": "G"}


def filled(service: Service, found: Launch) -> views.Filled:
    """The form as it was for this launch, with how much it was to have where that is not what everything gets there."""
    return views.Filled(**{**views.typed_for(found), **_sizes(service, found)})


def others(service: Service, person: Person, found: Launch) -> list[placement.Place]:
    """The other places that this person could run it at now, the best first. Asks no cloud.

    Never a server of their own, which only they name, nor what publishes its launches where the repository is private.
    """
    gone = _tried(service, found)
    return [
        place
        for place in placement.places(service, person, filled(service, found).question(service, person))
        if place.closed is None
        and place.name not in gone
        and not place.own
        and not (place.publishes and found.repo_connection_id)
    ]


def there(service: Service, found: Launch, place: str) -> views.Filled:
    """The form for another place, as if somebody else's link had filled it in: nobody knows any more whose wish it was first.

    While the first one is still being ended, its name is not free: then it is told apart.
    """
    typed = filled(service, found).typed
    if typed["name"] and found.state is not State.STOPPED:
        typed["name"] = f"{typed['name'][:61]}-2"
    rest = ",".join(name for name in found.elsewhere if name != place)
    return views.Filled(**{**typed, "backend": place, "elsewhere": rest, "linked": "1"})


def offered(service: Service, person: Person, found: Launch) -> list[dict[str, Any]]:
    """The first of them, in words."""
    return [_told(place) for place in others(service, person, found)[:PLACES_MOST]]


def stream(service: Service, found: Launch) -> str:
    """Where the choice of places for this launch is told on, as clouds answer (`places.stream`)."""
    typed = filled(service, found).typed
    asked = {name: typed[name] for name in ("repo", "ref", *views.Filled.SIZES) if typed[name]}
    return f"/api/places/stream?{urlencode(asked)}"


# --- within ---------------------------------------------------------------------------------------------------------


def _told(place: placement.Place) -> dict[str, Any]:
    told = places.told(place)
    return {**told, "asks": [NEEDED[need] for need in place.needs if need in NEEDED]}


NEEDED = {
    "sign in": say("You are asked to sign in first."),
    "connect": say("You are asked to connect an account first."),
    "agree": say("You are asked to agree first."),
}


def _tried(service: Service, found: Launch) -> set[str]:
    """Where it has been, the last place among them."""
    with service.db.reading() as session:
        bought = {order.backend for order in orders.of_launch(session, found.id)}
    return {found.backend, *bought, *(each.peer for each in rows.of_launch(service, found.id))}


def _sizes(service: Service, found: Launch) -> dict[str, str]:
    usual, longest = _usual(service, found.backend)
    differing = {
        field: f"{getattr(found, column):.10g}{UNITS.get(field, '')}"
        for field, column in SIZES.items()
        if getattr(found, column) not in (None, getattr(usual, column))
    }
    return {**differing, **({"hours": f"{found.hours:g}"} if found.hours != longest else {})}


def _usual(service: Service, name: str) -> tuple[base.Resources, float]:
    """What everything gets there that asks for nothing."""
    try:
        backend = backends.named(service, name)
    except errors.BrokerError:
        return base.Resources(), service.settings.max_hours  # a peer, or a place that is none any more
    return backend.usual, backend.longest(service)
