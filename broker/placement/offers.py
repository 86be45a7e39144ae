"""Which backend a launch takes, and which of its offers first."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from broker import backends, budgets, connections, errors, orders, readiness, resources
from broker.models import Launch
from broker.people import Person
from broker.service import Service
from providers import base
from providers import errors as clouds
from providers.sentences import say

IMAGES = "x86_64"


def choose(service: Service, person: Person, name: str | None) -> backends.Backend:
    """The backend of this name, or the first that is open to this person. Raises NoBackend with the reason."""
    named = name or (service.settings.binder_backend if person.anonymous else "")
    candidates = [backends.named(service, named)] if named else backends.offered(service)
    reasons = [closed(service, person, candidate) for candidate in candidates]
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
            say("Only machines that may be taken away are offered there. Allow them, or choose another place.")
        )
    if not tried and (much := resources.shown(wanted)):
        raise errors.NoOfferLeft(say("Nothing there has %(much)s. Ask for less, or choose another place.", much=much))
    raise errors.NoOfferLeft(launch.message or None)


def _own_server(launch: Launch, found: Sequence[base.Offer], tried: Sequence[str]) -> base.Offer:
    """The one that was named and no other: nobody else's machine, and none to buy."""
    if launch.offer in tried:
        raise errors.NoOfferLeft(launch.message or None)
    for offer in found:
        if offer.taken and offer.id == launch.offer:
            return offer
    raise errors.NoOfferLeft(
        say(
            "The server that you chose is not there any more, does not run, or is smaller than what was "
            "asked for. Start it on the cloud's dashboard, or choose another place."
        )
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


def closed(service: Service, person: Person, backend: backends.Backend) -> str | None:
    """Why this person can use nothing there now, in a sentence; None where they can."""
    return backend.closed_to(service, person) or connections.missing(service, person, backend)
