"""How what belongs to an order is named and marked, and found by that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from providers.base import Tag

BROKER, ORDER = "anybinder-broker", "anybinder-order"
Filters = list[dict[str, Any]]


def name(order_id: str) -> str:
    """What an order's machine, group and schedule are called: one of a kind in an account."""
    return f"anybinder-{order_id}"


def specifications(tag: Tag, *kinds: str) -> list[dict[str, Any]]:
    """The tag, for the creating call of resources of these kinds."""
    labels = {**tag.as_labels(), "Name": name(tag.order)}
    tags = [{"Key": key, "Value": value} for key, value in labels.items()]
    return [{"ResourceType": kind, "Tags": tags} for kind in kinds]


def read(found: Mapping[str, Any]) -> Tag | None:
    """The tag of what EC2 describes; of interfaces it calls them otherwise than of all the rest."""
    tags = found.get("Tags") or found.get("TagSet") or []
    return Tag.from_labels({each["Key"]: each.get("Value", "") for each in tags})


def of_order(order_id: str) -> Filters:
    """What finds all that was made for this order."""
    return where(**{f"tag:{ORDER}": [order_id]})


def of_broker(broker: str) -> Filters:
    """What finds all that is this broker's."""
    return where(**{f"tag:{BROKER}": [broker]})


def where(**wanted: Iterable[str]) -> Filters:
    """Filters of EC2 by name: each of them has one of its values. `_` stands for `-`."""
    return [{"Name": key.replace("_", "-"), "Values": list(values)} for key, values in wanted.items()]
