"""One order, bought once: looked up, claimed, its firewall made, and then the one creating call.

What is left of a purchase that broke off carries the order's tag, so that `terminate` and the reaper find it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from providers.base import Instance, InstanceState, Order
from providers.errors import InvalidOrder, ProviderError, ProviderUnavailable
from providers.openstack import claims, ending, groups, images, labels, looking, networks, offers, refusals, servers
from providers.openstack.clouds import Cloud
from providers.openstack.services import Services

BOOT_VOLUME_GB = 20  # a stock image, an environment of a few GB, and room for what a session writes


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the operator has configured; empty: what the cloud's preset or the project says."""

    image: str = ""
    network: str = ""
    volume_gb: int = 0


def bought(services: Services, cloud: Cloud, choices: Choices, order: Order) -> Instance:
    """The order's instance, be it bought by this call or by another; GONE where it has ended. Raises ProviderError."""
    flavor = _flavor(services, order)
    image = images.chosen(services, choices.image, cloud.image)
    network = networks.chosen(services, choices.network, cloud.network)
    wanted = servers.Wanted(
        flavor=order.offer.id,
        image=str(image["id"]),
        network=network,
        group="",
        volume_gb=_volume_gb(choices, flavor, image),
        config_drive=cloud.config_drive,
    )
    if claims.take(services, order):
        return _buy(services, order, wanted, number=0)
    return _bought_before(services, order, wanted)


def _bought_before(services: Services, order: Order, wanted: servers.Wanted) -> Instance:
    if found := servers.settle(services, order.id):
        return looking.instance(found)
    taken = claims.of_order(services, order.id)
    if not taken:
        return Instance(id=labels.named(order.id), tag=order.tag, state=InstanceState.GONE)
    number = taken[-1].number + 1
    if taken[-1].settled(datetime.now(UTC)) and number < claims.NUMBERS_MOST and claims.take(services, order, number):
        return _buy(services, order, wanted, number=number)
    return _asked_for(order, "It is being asked for by another call")


def _buy(services: Services, order: Order, wanted: servers.Wanted, *, number: int) -> Instance:
    """Where the cloud refuses, nothing is left. Where it is out of order, the next caller may try at once."""
    try:
        _create(services, order, wanted)
    except refusals.Answered:
        with contextlib.suppress(ProviderError):
            claims.say_over(services, order, number)
        raise
    except ProviderUnavailable:
        raise
    except ProviderError:
        with contextlib.suppress(ProviderError):
            ending.ended(services, order.id)
        raise
    found = servers.settle(services, order.id)
    return looking.instance(found) if found else _asked_for(order, "The cloud has taken the order")


def _create(services: Services, order: Order, wanted: servers.Wanted) -> None:
    group = _group(services, order)
    servers.create(services, order, replace(wanted, group=group))


def _group(services: Services, order: Order) -> str:
    """The one that an earlier try has made, or a new one."""
    ours = groups.of_order(services, order.id)
    return ours[0].id if ours else groups.make(services, order)


def _asked_for(order: Order, detail: str) -> Instance:
    return Instance(id=labels.named(order.id), tag=order.tag, state=InstanceState.PENDING, detail=detail)


def _flavor(services: Services, order: Order) -> Mapping[str, object]:
    for flavor in offers.flavors(services):
        if flavor.get("id") == order.offer.id:
            return flavor
    raise InvalidOrder(f"The cloud offers your project no machine “{order.offer.title}” any more. Choose another.")


def _volume_gb(choices: Choices, flavor: Mapping[str, object], image: Mapping[str, object]) -> int:
    """A flavor without a disk of its own boots from a volume, made for it and deleted with it."""
    if flavor.get("disk") and not choices.volume_gb:
        return 0
    return max(choices.volume_gb or BOOT_VOLUME_GB, int(str(image.get("min_disk") or 0)))
