"""What Neutron keeps for an order besides the machine: its firewall, and where it needs one an address and its card."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from providers.base import Tag
from providers.openstack import labels
from providers.openstack.keystone import Query
from providers.openstack.services import Services

KINDS = {"floatingips": "floating address", "ports": "port", "security-groups": "security group"}
"""As Neutron's paths name them, in the order in which they can be deleted; and for people."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One that carries our tag."""

    kind: str
    id: str
    tag: Tag

    @property
    def title(self) -> str:
        """As people read it."""
        return f"{KINDS[self.kind]} {self.id}"


def listed(services: Services) -> list[Part]:
    """All that are ours, of any broker: by their description, which is in the creating call, and never by name."""
    return [part for kind in _kinds(services) for part in of_kind(services, kind)]


def of_kind(services: Services, kind: str) -> list[Part]:
    """The same of one kind. Their rules and addresses, which make the lists long, are not asked for."""
    asked: Query = {"project_id": services.project, "fields": ["id", "description"]}
    found = services.every("network", f"/{kind}", kind.replace("-", "_"), asked)
    tagged = ((str(each["id"]), labels.of_text(str(each.get("description") or ""))) for each in found)
    return [Part(kind=kind, id=each, tag=tag) for each, tag in tagged if tag is not None]


def delete(services: Services, found: Iterable[Part]) -> None:
    """What is still in use by a machine that ends is left; ask again."""
    order = list(KINDS)
    for part in sorted(found, key=lambda part: order.index(part.kind)):
        services.delete("network", f"/{part.kind}/{part.id}")


def _kinds(services: Services) -> list[str]:
    """Cards and addresses only where the token may delete any, which takes an access rule more than usual: the launch's grant
    has it, and the one for cleaning up, too, which may make none."""
    return [kind for kind in KINDS if kind == "security-groups" or services.allows("network", "DELETE", f"/{kind}/0")]
