"""What could run a launch: one offer for each type, zone and way to pay, cheapest first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from providers.aws import networks, sizes
from providers.aws.clients import Caller
from providers.aws.sizes import Size
from providers.base import Offer, Price, Resources
from providers.errors import InvalidOrder

MOST = 12  # types: a page to choose from, and as many tries as anybody would wait for
# From RunInstances to an agent that has enrolled; a guess until this broker has measured its own.
USUAL_SECONDS, USUAL_SECONDS_WITH_GPU = 75.0, 120.0
RISK = "A spot machine: AWS may take it away at any time with a warning of two minutes, and what was not saved is lost."
SPOT = "spot"
NAMED = re.compile(r"(?P<machine>[a-z0-9-]+\.[a-z0-9-]+):(?P<zone>[a-z0-9-]+)(?P<spot>:spot)?")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What an offer's id says: all that is needed to buy it."""

    machine: str
    zone: str
    spot: bool

    @property
    def offer_id(self) -> str:
        return f"{self.machine}:{self.zone}{f':{SPOT}' if self.spot else ''}"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the operator lets be offered."""

    region: str
    architectures: Sequence[str]
    spot: bool
    disk_gb: int
    subnets: Sequence[str] = ()


def chosen(offer_id: str) -> Choice:
    """Raises InvalidOrder for what was never offered."""
    read = NAMED.fullmatch(offer_id)
    if not read:
        raise InvalidOrder("AWS offers no such machine. Choose another one.")
    return Choice(machine=read["machine"], zone=read["zone"], spot=bool(read["spot"]))


def architecture(offer: Offer) -> str:
    """Graviton machines bear a `g` after their generation: for offers that say nothing themselves."""
    return offer.architecture or ("arm64" if re.match(r"[a-z]+\d+g", offer.id) else "x86_64")


def made(caller: Caller, wanted: Wanted, asked: Resources, prices: Iterable[Price]) -> list[Offer]:
    """Cheapest first, the zones of one type together; what nobody knows the price of comes last."""
    fit = sizes.fitting(caller, asked, wanted.architectures)
    if not fit:
        return []
    known = {(price.machine, price.spot): price for price in prices}
    ways = _ways(fit, known, spot=wanted.spot)
    network = networks.found(caller, wanted.region, wanted.subnets)
    zones = sizes.zones(caller, {size.name for size, _, _ in ways})
    disk = max(asked.disk_gb or 0, wanted.disk_gb)
    return [
        _offer(size, zone, price, spot=spot, disk_gb=disk)
        for size, spot, price in ways
        for zone in zones.get(size.name, [])
        if zone in network.subnets
    ]


def _ways(
    fit: Sequence[Size], known: Mapping[tuple[str, bool], Price], *, spot: bool
) -> list[tuple[Size, bool, Price | None]]:
    """The cheapest types, each as it is and, where it can be had so, as a spot machine."""
    plain = sorted(((size, False, known.get((size.name, False))) for size in fit), key=lambda way: _rank(*way))[:MOST]
    risky = [(size, True, known.get((size.name, True))) for size, _, _ in plain if spot and size.spot]
    return sorted([*plain, *risky], key=lambda way: _rank(*way))


def _rank(size: Size, spot: bool, price: Price | None) -> tuple[object, ...]:
    """At one price the machine without a risk, then the architecture that most images are made for."""
    unknown, cost = price is None, price.price_per_hour if price else 0
    return (unknown, cost, spot, size.cpu, size.memory_mb, size.architecture != "x86_64", size.name)


def _offer(size: Size, zone: str, price: Price | None, *, spot: bool, disk_gb: int) -> Offer:
    return Offer(
        id=Choice(machine=size.name, zone=zone, spot=spot).offer_id,
        title=_title(size, zone, spot=spot),
        resources=Resources(cpu=size.cpu, memory_mb=size.memory_mb, disk_gb=disk_gb, gpu=size.gpu or None),
        price_per_hour=price.price_per_hour if price else None,
        currency=price.currency if price else "USD",
        zone=zone,
        usual_seconds=USUAL_SECONDS_WITH_GPU if size.gpu else USUAL_SECONDS,
        architecture=size.architecture,
        risk=RISK if spot else "",
        price_source=price.source if price else "",
        price_as_of=price.as_of if price else "",
    )


def _title(size: Size, zone: str, *, spot: bool) -> str:
    card = f", {size.gpu} × {size.gpu_name}" if size.gpu else ""
    arm = ", Arm" if size.architecture == "arm64" else ""
    memory = f"{size.memory_mb / 1024:g} GB"
    return f"{size.name}{' (spot)' if spot else ''}: {size.cpu} CPUs, {memory}{card}{arm}, in {zone}"
