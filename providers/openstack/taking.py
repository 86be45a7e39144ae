"""A server that its person made on the dashboard: run on, and never touched.

Nothing here sends Nova anything but questions. That an order runs on a server stands in the order's claim in Glance, and
nowhere else: the server gets no tag, so nothing that deletes by tags can ever find it, and the order's name is of a kind that
only `released` takes, which deletes claims. One server is for one order at a time; among several that ask at once the
claims decide, each looking at the others' after its own is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from providers.base import Instance, InstanceState, Offer, Order, Resources
from providers.errors import InvalidOrder, ProviderUnavailable
from providers.openstack import claims, labels, looking, offers, refusals, servers
from providers.openstack.claims import Claim, State
from providers.openstack.clouds import Cloud
from providers.openstack.services import Services

KIND = "server:"  # begins the ids of such offers; no flavor's id has a colon in it
LOOKED_AT = 200  # newest servers of the project that are looked at
OFFERED_MOST = 20
NAME_MOST = 60  # characters


def offered(services: Services, cloud: Cloud, asked: Resources) -> list[Offer]:
    """The project's servers that run, are large enough and bear no tag of ours, by name; at most `OFFERED_MOST`."""
    listed = services.get("compute", "/servers/detail", {"status": "ACTIVE", "limit": str(LOOKED_AT)}).get("servers")
    if not isinstance(listed, list):
        raise refusals.no_sense("compute")
    own = [each for each in listed if is_free(each)]
    if not own:
        return []
    flavors = {str(each["id"]): each for each in offers.flavors(services)}
    found = (_offer(each, flavors, cloud) for each in own)
    fitting = (offer for offer in found if _fits(offer.resources, asked))
    return sorted(fitting, key=lambda offer: (offer.title, offer.id))[:OFFERED_MOST]


def is_free(server: Mapping[str, Any]) -> bool:
    """Whether it runs and nobody here has bought it: not even a part of our tag is on it."""
    tagged = any(str(name).startswith(labels.NAME) for name in server.get("metadata") or {})
    return not tagged and server.get("status") == "ACTIVE" and servers.state_of(server)[0] is InstanceState.RUNNING


def server_of(offer_id: str) -> str:
    """The id of the server that an offer means; empty where it is of a machine to buy."""
    return offer_id.removeprefix(KIND) if offer_id.startswith(KIND) else ""


def taken(services: Services, order: Order, server: str) -> Instance:
    """Note that this order runs on it; the same again where that is noted already, GONE where it was given back.

    Raises InvalidOrder where somebody else is on it or it does not run, ProviderUnavailable where that shows in a moment.
    """
    claims.take(services, order, server=server)
    mine = claims.of_order(services, order.id)
    if not mine:
        return Instance(id=labels.taken(order.id), tag=order.tag, state=InstanceState.GONE)
    if mine[0].state is not State.BOUGHT:
        _make_sure(services, order, server)
        claims.say(services, order, mine[0].number, State.BOUGHT)
    return seen(services, order.id)


def seen(services: Services, order_id: str) -> Instance:
    """How the order is now: ended where its server is deleted or does not run, GONE where it was given back."""
    noted = [claim for claim in claims.of_order(services, order_id) if claim.server]
    if not noted:
        return Instance(id=labels.taken(order_id), tag=None, state=InstanceState.GONE)
    return looking.taken(noted, _state(_found(services, noted[0].server)))


def released(services: Services, order_id: str) -> None:
    """The order is over, and its server stays as it is. Repeatable."""
    for claim in claims.of_order(services, order_id):
        if claim.server:
            claims.give_back(services, claim.id)


def _make_sure(services: Services, order: Order, server: str) -> None:
    """Nobody else is on it, and it runs; else the order is given back. Whoever looks has written its own claim before, so of two
    at once at least one sees the other: the later order goes, the earlier waits until it has gone."""
    others = [each for each in claims.of_server(services, server) if each.tag.order != order.id and _counts(each)]
    if any(each.state is State.BOUGHT or each.tag.order < order.id for each in others):
        released(services, order.id)
        raise InvalidOrder("Another session runs on that server already. Stop that one first, or choose another place.")
    if others:
        raise ProviderUnavailable("Another launch asks for that server at the same moment. It is tried again.")
    state, why = _state(_found(services, server))
    if state is not InstanceState.RUNNING:
        released(services, order.id)
        raise InvalidOrder(f"{why}. Start it on the cloud's dashboard and launch again, or choose another place.")


def _counts(claim: Claim) -> bool:
    """One whose holder died before it knew is no hindrance for ever."""
    return claim.state is State.BOUGHT or not claim.settled(datetime.now(UTC))


def _found(services: Services, server: str) -> Mapping[str, Any] | None:
    """As Nova tells it; None where it does not know it."""
    listed = services.every("compute", "/servers/detail", "servers", {"uuid": server})
    return next((each for each in listed if each.get("id") == server), None)


def _state(server: Mapping[str, Any] | None) -> tuple[InstanceState, str]:
    """Whether it can be run on, and why not. It is somebody's own: that it has stopped is no reason to do anything about it."""
    if server is None or servers.state_of(server)[0] is InstanceState.GONE:
        return InstanceState.STOPPING, "Your server is not there any more: it was deleted on the cloud's side"
    if servers.state_of(server)[0] is InstanceState.RUNNING:
        return InstanceState.RUNNING, ""
    return InstanceState.STOPPING, f"Your server does not run: the cloud says {server.get('status')}"


def _offer(server: Mapping[str, Any], flavors: Mapping[str, Mapping[str, Any]], cloud: Cloud) -> Offer:
    """Nova names its flavor by id alone; one that is no longer sold is not in the list, and its size unknown."""
    told = server.get("flavor")
    flavor = flavors.get(str(told.get("id")) if isinstance(told, dict) else "")
    size = offers.offer_of(flavor, cloud, room={}, zone="", volume_gb=0) if flavor else None
    name = "".join(char for char in str(server.get("name") or server["id"]) if char.isprintable())[:NAME_MOST]
    return Offer(
        id=f"{KIND}{server['id']}",
        title=f"Your server “{name}”" + (f" ({size.title})" if size else ""),
        resources=size.resources if size else Resources(),
        price_per_hour=Decimal(0),
        currency=cloud.rates[0].currency if cloud.rates else "USD",
        price_source="nothing is bought: it is yours already",
        taken=True,
    )


def _fits(has: Resources, asked: Resources) -> bool:
    """Its size as far as it is known. Nobody can see from outside how large its disk is: it may be a volume."""
    return has.cpu is None or offers.fits(has, Resources(cpu=asked.cpu, memory_mb=asked.memory_mb, gpu=asked.gpu))
