"""An address of the outside for one machine, only where the cloud lets nothing dial out without one (`floating_network`).

It belongs to a network card that is made before the machine, so that both carry the tag from their creating calls. Nothing dials
in: the card is in the order's own security group.
"""

from __future__ import annotations

from providers.base import Order
from providers.openstack import labels, networks, parts, refusals, servers
from providers.openstack.services import Services


def make(services: Services, order: Order, wanted: servers.Wanted, outside: str, *, again: bool) -> str:
    """The id of the card, which has the address; of an earlier try what that has made."""
    found = [part for part in parts.listed(services) if part.tag.order == order.id] if again else []
    port = next((part.id for part in found if part.kind == "ports"), "") or _port(services, order, wanted)
    if not any(part.kind == "floatingips" for part in found):
        _address(services, order, port, networks.outside(services, outside))
    return port


def _port(services: Services, order: Order, wanted: servers.Wanted) -> str:
    told = {
        "name": labels.named(order.id),
        "description": labels.text(order.tag),
        "network_id": wanted.network,
        "security_groups": [wanted.group],
    }
    made = services.ask("network", "POST", "/ports", {"port": told})
    try:
        return str(made["port"]["id"])
    except (KeyError, TypeError):
        raise refusals.no_sense("network") from None


def _address(services: Services, order: Order, port: str, outside: str) -> None:
    told = {"floating_network_id": outside, "port_id": port, "description": labels.text(order.tag)}
    services.ask("network", "POST", "/floatingips", {"floatingip": told})
