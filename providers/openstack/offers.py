"""What a project can start: the cloud's flavors as they are now, with the price that is known of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from providers.base import Offer, Resources
from providers.openstack import refusals
from providers.openstack.clouds import Cloud, Rate
from providers.openstack.services import Services

MIB = 1024
BOOT_VOLUME_GB = 20  # a stock image, an environment of a few GB, and room for what a session writes
USUAL_BOOT_SECONDS = 90.0  # a guess until our own history of the backend says better


def listed(services: Services, cloud: Cloud, asked: Resources, *, zone: str, volume_gb: int) -> list[Offer]:
    """The cheapest first, what has no known price last, and by size among equals.

    What is beyond the project's quota is among them, for its price, and says so.
    """
    room = _room(services)
    found = (offer_of(flavor, cloud, room=room, zone=zone, volume_gb=volume_gb) for flavor in flavors(services))
    return sorted((offer for offer in found if fits(offer.resources, asked)), key=_cheapest)


def flavors(services: Services) -> list[dict[str, Any]]:
    """All that the project may use, as Nova tells them."""
    found = services.every("compute", "/flavors/detail", "flavors")
    return [each for each in found if not each.get("OS-FLV-DISABLED:disabled")]


def offer_of(flavor: Mapping[str, Any], cloud: Cloud, *, room: Mapping[str, int], zone: str, volume_gb: int) -> Offer:
    """One flavor as an offer."""
    try:
        cpus, memory = int(flavor["vcpus"]), int(flavor["ram"])
        disk = int(flavor["disk"])
        name, flavor_id = str(flavor["name"]), str(flavor["id"])
    except (KeyError, ValueError, TypeError):
        raise refusals.no_sense("compute") from None
    rate = rate_of(name, cloud)
    volume = volume_gb or (0 if disk else BOOT_VOLUME_GB)
    offer = Offer(
        id=f"{flavor_id}:{volume}" if volume else flavor_id,
        title=f"{name}: {cpus} vCPU, {memory / MIB:g} GiB",
        resources=Resources(cpu=cpus, memory_mb=memory, disk_gb=volume or disk, gpu=rate.gpu if rate else None),
        zone=zone or None,
        usual_seconds=USUAL_BOOT_SECONDS,
        architecture=cloud.architecture,
        beyond=_beyond(cpus, memory, room),
    )
    price = rate.price(cpus) if rate else None
    if rate is None or price is None:
        return offer
    return replace(
        offer, price_per_hour=price, currency=rate.currency, price_source=rate.source, price_as_of=rate.as_of
    )


def meant(offer_id: str) -> tuple[str, int]:
    """The flavor's id, and the size of the boot volume; 0: it boots from the flavor's own disk."""
    flavor, _, volume = offer_id.partition(":")  # which no flavor's id has in it
    return flavor, int(volume) if volume.isdigit() else 0


def rate_of(flavor: str, cloud: Cloud) -> Rate | None:
    """The first that names this flavor; None: nobody has told what it costs."""
    return next((rate for rate in cloud.rates if re.fullmatch(rate.flavor, flavor)), None)


def fits(has: Resources, asked: Resources) -> bool:
    """Whether it is as large as asked."""
    names = ("cpu", "memory_mb", "disk_gb", "gpu")
    return all((getattr(has, name) or 0) >= (getattr(asked, name) or 0) for name in names)


def _room(services: Services) -> dict[str, int]:
    """What is left of the quota; nothing where the cloud does not limit it, or does not say."""
    told = services.get("compute", "/limits").get("limits", {}).get("absolute", {})
    pairs = {
        "machines": ("maxTotalInstances", "totalInstancesUsed"),
        "vCPUs": ("maxTotalCores", "totalCoresUsed"),
        "MiB of memory": ("maxTotalRAMSize", "totalRAMUsed"),
    }
    return {
        what: max(0, told[most] - told[used])
        for what, (most, used) in pairs.items()
        if isinstance(told.get(most), int) and isinstance(told.get(used), int) and told[most] >= 0
    }


def _beyond(cpus: int, memory: int, room: Mapping[str, int]) -> str:
    needed = {"machines": 1, "vCPUs": cpus, "MiB of memory": memory}
    short = [what for what, much in needed.items() if what in room and room[what] < much]
    if not short:
        return ""
    return (
        f"Your project's quota has room for {room[short[0]]} more {short[0]} only. "
        "End something there, or ask the cloud for more."
    )


def _cheapest(offer: Offer) -> tuple[Decimal | float, float, int, str]:
    price = math.inf if offer.price_per_hour is None else offer.price_per_hour
    return price, offer.resources.cpu or 0, offer.resources.memory_mb or 0, offer.id
