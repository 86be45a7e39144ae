"""How an order's things are: the machine, and what else carries its tag."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from providers.base import Instance, InstanceState, Tag
from providers.openstack import claims, labels, parts, servers
from providers.openstack.claims import Claim, State
from providers.openstack.parts import Part
from providers.openstack.servers import Server
from providers.openstack.services import Services


@dataclass
class Held:
    """All that there is of one order."""

    servers: list[Server] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.servers or self.claims or self.parts)

    @property
    def tag(self) -> Tag | None:
        """Any of them says it."""
        return next((each.tag for each in (*self.servers, *self.claims, *self.parts)), None)

    @property
    def taken(self) -> bool:
        """It runs on a server of its person's own: nothing was bought, so nothing is to be deleted."""
        return any(claim.server for claim in self.claims)


def of_order(services: Services, order_id: str) -> Held:
    """By its tag. Raises ProviderError: who cannot look at one kind of thing never says that nothing is there."""
    return Held(
        servers=servers.of_order(services, order_id),
        claims=claims.of_order(services, order_id),
        parts=[part for part in parts.listed(services) if part.tag.order == order_id],
    )


def of_broker(services: Services, broker: str) -> list[Instance]:
    """Each order of this broker of which anything is there."""
    orders: dict[str, Held] = {}

    def of(tag: Tag) -> Held:
        return orders.setdefault(tag.order, Held())

    for claim in claims.of_broker(services, broker):
        of(claim.tag).claims.append(claim)
    for part in parts.listed(services):
        if part.tag.broker == broker:
            of(part.tag).parts.append(part)
    for server in servers.of_broker(services, broker):  # last: what was just bought is missed by none of the lists
        of(server.tag).servers.append(server)
    return [instance_of(held) for held in orders.values()]


def instance_of(held: Held) -> Instance:
    """One order as one instance: its machine, or what is left of it or there of it so far."""
    if held.taken:
        return taken(held.claims)
    others = (*(f"server {server.id}" for server in held.servers[1:]), *(part.title for part in held.parts))
    if held.servers:
        return instance(held.servers, others)
    tag = held.tag
    if tag is None:
        return Instance(id="", tag=None, state=InstanceState.GONE)
    state, detail = _without_a_server(held.claims)
    return Instance(id=labels.named(tag.order), tag=tag, state=state, detail=detail, parts=others)


def instance(found: list[Server], others: Iterable[str] = ()) -> Instance:
    """The first of an order's machines counts. Its id is its name, which follows from the order."""
    first = found[0]
    return Instance(
        id=labels.named(first.tag.order),
        tag=first.tag,
        state=first.state,
        detail=first.detail,
        created_at=first.created,
        parts=tuple(others),
    )


def taken(noted: list[Claim], server: tuple[InstanceState, str] = (InstanceState.RUNNING, "")) -> Instance:
    """An order that runs on a server of its person's own, which is in this state."""
    first = noted[0]
    state, detail = server
    return Instance(
        id=labels.taken(first.tag.order),
        tag=first.tag,
        state=state,
        detail=detail or "On a server of your own: nothing was bought",
        created_at=first.asked,
    )


def _without_a_server(taken: list[Claim]) -> tuple[InstanceState, str]:
    if not taken:
        return InstanceState.STOPPING, "Its machine is gone, and its firewall is left"
    last = max(taken, key=lambda claim: claim.number)
    if last.state is State.BOUGHT:
        return InstanceState.STOPPING, "Its machine was deleted: by itself, or by somebody on the cloud's side"
    if last.settled(datetime.now(UTC)):
        return InstanceState.STOPPING, "No machine came of its order"
    return InstanceState.PENDING, "It is being asked for"
