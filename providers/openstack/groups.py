"""The firewall of one order: a security group of its own, which lets everything out and nothing in.

A project's default group is the person's: they may have opened it to their own machines or to the world. This one has the
two rules that Neutron gives each new group (everything may go out) and never gets another.
"""

from __future__ import annotations

from typing import Any

from providers.base import Order
from providers.openstack import labels, refusals
from providers.openstack.services import Services


def make(services: Services, order: Order) -> str:
    """Its id. The tag is in the creating call, as the group's description."""
    told = {"name": labels.named(order.id), "description": labels.text(order.tag)}
    made = services.ask("network", "POST", "/security-groups", {"security_group": told})
    try:
        return str(made["security_group"]["id"])
    except (KeyError, TypeError):
        raise refusals.no_sense("network") from None


def detach(services: Services, server_id: str) -> None:
    """Take the groups off a machine's port, so that its group can be deleted while the machine still ends."""
    listed: list[dict[str, Any]] = services.get("network", "/ports", {"device_id": server_id}).get("ports") or []
    for port in listed:
        try:
            services.ask("network", "PUT", f"/ports/{port['id']}", {"port": {"security_groups": []}})
        except refusals.Missing:
            continue
