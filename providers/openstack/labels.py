"""How the four labels of a tag are written where there is room for one line of text only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers.base import Tag

NAME = "anybinder-"
TAKEN = "taken-"
"""What an order is called that runs on a server of its person's own. No verb that deletes knows this name."""


def named(order_id: str) -> str:
    """What everything of this order is called. For people to find: what it is found by is its tag."""
    return f"{NAME}{order_id}"


def order_of(name: str) -> str:
    """The order that is meant by such a name; empty where it is none of ours."""
    return name.removeprefix(NAME) if name.startswith(NAME) else ""


def taken(order_id: str) -> str:
    """What an order is called that bought nothing, and runs on a server of its person's own."""
    return f"{TAKEN}{order_id}"


def order_taken(name: str) -> str:
    """The order that is meant by such a name; empty where it is another kind of name."""
    return name.removeprefix(TAKEN) if name.startswith(TAKEN) else ""


def text(tag: Tag) -> str:
    """The tag as a description: below the 255 characters that Neutron takes."""
    return " ".join(f"{name}={value}" for name, value in tag.as_labels().items())


def of_text(description: str) -> Tag | None:
    """The tag in a description; None where there is none."""
    return Tag.from_labels(dict(word.partition("=")[::2] for word in description.split()))


def of_server(server: Mapping[str, Any]) -> Tag | None:
    """The tag in a server's metadata."""
    told = server.get("metadata")
    return Tag.from_labels(told) if isinstance(told, dict) else None
