"""One order, bought once: looked up, claimed, its firewall made, and then the one creating call.

What is left of a purchase that broke off carries the order's tag, so that `terminate` and the reaper find it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from providers.base import Instance, InstanceState, Order
from providers.errors import ProviderError, ProviderUnavailable
from providers.openstack import (
    addresses,
    claims,
    ending,
    groups,
    images,
    labels,
    looking,
    networks,
    offers,
    parts,
    refusals,
    servers,
)
from providers.openstack.clouds import Cloud
from providers.openstack.services import Services


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the operator has configured; empty: what the cloud's preset or the project says."""

    image: str = ""
    network: str = ""


def bought(services: Services, cloud: Cloud, choices: Choices, order: Order) -> Instance:
    """The order's instance, be it bought by this call or by another; GONE where it has ended. Raises ProviderError."""
    servers.user_data(order)  # too long is said before anything is made
    image = images.chosen(services, choices.image, cloud.image)
    network = networks.chosen(services, choices.network, cloud.network)
    flavor, volume_gb = offers.meant(order.offer.id)
    wanted = servers.Wanted(
        flavor=flavor,
        image=str(image["id"]),
        network=network,
        group="",
        volume_gb=max(volume_gb, int(image.get("min_disk") or 0)) if volume_gb else 0,
        config_drive=cloud.config_drive,
    )
    if claims.take(services, order):
        return _buy(services, order, wanted, number=0)
    return _bought_before(services, order, wanted)


def _bought_before(services: Services, order: Order, wanted: servers.Wanted) -> Instance:
    taken = claims.of_order(services, order.id)
    if found := servers.settle(services, order.id):
        if taken and taken[-1].state is claims.State.BEGUN:  # its holder died, or got no answer
            _say(services, order, taken[-1].number, claims.State.BOUGHT)
        return looking.instance(found)
    if not taken:
        return Instance(id=labels.named(order.id), tag=order.tag, state=InstanceState.GONE)
    if not _may_follow(taken[-1]):
        return looking.instance_of(looking.Held(claims=taken))
    number = taken[-1].number + 1
    if claims.take(services, order, number):
        return _buy(services, order, wanted, number=number)
    return _asked_for(order, "It is being asked for by another call")


def _may_follow(last: claims.Claim) -> bool:
    bought = last.state is claims.State.BOUGHT
    return not bought and last.settled(datetime.now(UTC)) and last.number < claims.NUMBERS_MOST


def _buy(services: Services, order: Order, wanted: servers.Wanted, *, number: int) -> Instance:
    """Where the cloud refuses, nothing is left. Where it is out of order, the next caller may try at once."""
    try:
        _create(services, order, wanted, again=number > 0)
    except refusals.Answered:
        _say(services, order, number, claims.State.OVER)
        raise
    except ProviderUnavailable:
        raise
    except ProviderError:
        with contextlib.suppress(ProviderError):
            ending.ended(services, order.id)
        raise
    _say(services, order, number, claims.State.BOUGHT)
    found = servers.settle(services, order.id)
    return looking.instance(found) if found else _asked_for(order, "The cloud has taken the order")


def _create(services: Services, order: Order, wanted: servers.Wanted, *, again: bool) -> None:
    """Its firewall, its address where nothing dials out without one, and the machine."""
    placed = replace(wanted, group=_group(services, order, again=again))
    if outside := services.cloudy.cloud.floating_network:
        placed = replace(placed, port=addresses.make(services, order, placed, outside, again=again))
    servers.create(services, order, placed)


def _say(services: Services, order: Order, number: int, state: claims.State) -> None:
    """Where it cannot be said, whoever comes next has to wait for as long as a request may be on its way."""
    with contextlib.suppress(ProviderError):
        claims.say(services, order, number, state)


def _group(services: Services, order: Order, *, again: bool) -> str:
    """A new one, or what an earlier try has made."""
    made = parts.of_kind(services, "security-groups") if again else []
    ours = [part.id for part in made if part.tag.order == order.id]
    return ours[0] if ours else groups.make(services, order)


def _asked_for(order: Order, detail: str) -> Instance:
    return Instance(id=labels.named(order.id), tag=order.tag, state=InstanceState.PENDING, detail=detail)
