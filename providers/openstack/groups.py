"""The firewall of one order: a security group of its own, which lets everything out and nothing in.

A project's default group is the person's: they may have opened it to their own machines or to the world. This one has the
two rules that Neutron gives each new group (everything may go out) and never gets another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from providers.base import Order, Tag
from providers.openstack import labels, refusals
from providers.openstack.services import Services


@dataclass(frozen=True, kw_only=True)
class Group:
    """One that carries our tag."""

    id: str
    tag: Tag


def make(services: Services, order: Order) -> str:
    """Its id. The tag is in the creating call, as the group's description."""
    told = {"name": labels.named(order.id), "description": labels.text(order.tag)}
    made = services.ask("network", "POST", "/security-groups", {"security_group": told})
    try:
        return str(made["security_group"]["id"])
    except (KeyError, TypeError):
        raise refusals.no_sense("network") from None


def of_order(services: Services, order_id: str) -> list[Group]:
    """The groups of this order: one, or two where the request was delivered twice."""
    return [group for group in _ours(services) if group.tag.order == order_id]


def of_broker(services: Services, broker: str) -> list[Group]:
    """The same of all orders of this broker."""
    return [group for group in _ours(services) if group.tag.broker == broker]


def delete(services: Services, found: Iterable[Group]) -> None:
    """What is still in use by a machine that ends is left; ask again."""
    for group in found:
        services.delete("network", f"/security-groups/{group.id}")


def detach(services: Services, server_id: str) -> None:
    """Take the groups off a machine's port, so that its group can be deleted while the machine still ends."""
    listed: list[dict[str, Any]] = services.get("network", "/ports", {"device_id": server_id}).get("ports") or []
    for port in listed:
        try:
            services.ask("network", "PUT", f"/ports/{port['id']}", {"port": {"security_groups": []}})
        except refusals.Missing:
            continue


def _ours(services: Services) -> list[Group]:
    """By description, never by name. Their rules, which make the list long, are not asked for."""
    asked = {"project_id": services.project, "fields": ["id", "description"]}
    listed = services.get("network", "/security-groups", asked).get("security_groups")
    if not isinstance(listed, list):
        raise refusals.no_sense("network")
    found = ((str(each["id"]), labels.of_text(str(each.get("description") or ""))) for each in listed)
    return [Group(id=each, tag=tag) for each, tag in found if tag is not None]
