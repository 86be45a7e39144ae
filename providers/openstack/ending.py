"""The way out: everything that carries an order's tag is deleted, in whatever state, any number of times."""

from __future__ import annotations

from collections.abc import Iterable

from providers.base import Instance, InstanceState
from providers.errors import ProviderUnavailable
from providers.openstack import claims, groups, labels, looking, parts, refusals, servers, taking
from providers.openstack.services import Services


def ended(services: Services, order_id: str, *, bought: bool = False) -> None:
    """Begin to end it. What cannot be deleted while its machine still ends is deleted by `seen`, or by the next call.

    The machine alone costs money, so it does not wait for what keeps the rest. `bought`: by its name it is a machine of ours,
    which is deleted also while nobody can read its claim. Raises Locked once all else is done, where somebody has locked it.
    """
    found = servers.of_order(services, order_id)
    try:
        held = looking.Held(servers=found, claims=claims.of_order(services, order_id))
    except ProviderUnavailable:
        if bought:
            _delete(services, found)
        raise
    if held.taken:  # a server of somebody's own: not even one that bears our tag, by whatever hand, is deleted
        taking.released(services, order_id)
        return
    locked = _delete(services, found)
    for claim in reversed(held.claims):  # the first one last: it says that this order was ever bought
        claims.give_back(services, claim.id)
    for server in found:
        groups.detach(services, server.id)
    made = [part for part in parts.listed(services) if part.tag.order == order_id]
    # A card that a machine still has cannot be deleted by its project: Neutron keeps that to Nova.
    parts.delete(services, [part for part in made if part.kind != "ports" or not found])
    if locked:
        raise locked


def _delete(services: Services, found: Iterable[servers.Server]) -> refusals.Locked | None:
    """Why one of them is not, where nothing but its person can mend it."""
    locked = None
    for server in found:
        try:
            services.ask("compute", "DELETE", f"/servers/{server.id}")
        except refusals.Missing:
            continue
        except refusals.InUse as refusal:
            locked = locked or refusals.locked(refusal, server.id)
    return locked


def seen(services: Services, order_id: str) -> Instance:
    """How the order is now. Once its machine is gone, what an end that was begun has left over is deleted on the way."""
    held = looking.of_order(services, order_id)
    if held.parts and not held.servers and not held.claims:
        parts.delete(services, held.parts)
        held = looking.of_order(services, order_id)
    if not held:
        return Instance(id=labels.named(order_id), tag=None, state=InstanceState.GONE)
    return looking.instance_of(held)
