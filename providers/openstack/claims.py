"""Who may send the creating call of an order, and whether that order was ever bought: what Nova itself does not keep.

Nova takes no client token, lets two servers have one name, and forgets a deleted server at once. So an order is claimed
first, where OpenStack lets the caller choose an id that nobody can take twice: as an image in Glance. It is an image's
record without any content, so nothing is stored and nothing billed; it carries the tag, and goes with the order.

- Its id follows from the order. Glance's database refuses a second one (409), however many ask at once: whoever gets 201
  may send `POST /servers`, once. Whoever gets 409 looks whose it is, and answers with the same instance, by the same name.
- A deleted image's id is never free again (Glance keeps the row; operators purge it after weeks). So an order that has
  ended says 409 to a new claim and 404 to a look: it is never bought again.
- A claim whose holder died, or got no answer, must not block its order for good. After `SETTLE_SECONDS` nothing of it can
  be on its way any more: then the next number of the order's claims may be taken, again by one caller only. Where the cloud
  turned the request away, the holder says so in the claim, and the next may follow at once. Where the machine was
  bought it says that too: then nobody follows, also after somebody has deleted the machine.

What may still happen twice is one request delivered twice by the network, or by Nova after more than that time: then two
servers carry one order. Everyone keeps the older and deletes the other (`servers.settle`), and both are found by the tag.
"""

from __future__ import annotations

import enum
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from providers.base import Order, Tag
from providers.errors import ProviderUnavailable
from providers.openstack import labels, refusals
from providers.openstack.services import Services

SPACE = uuid.UUID("5d0b9b6a-5b0a-4b0e-9a43-9b5a2f0b7a11")
SETTLE_SECONDS = 60
"""Our own requests are given up sooner by half; Nova's answer to itself (`rpc_response_timeout`) is as long."""
NUMBERS_MOST = 20


class State(enum.StrEnum):
    """What its holder knows of it."""

    BEGUN = "begun"
    OVER = "over"
    """The cloud has answered that nothing came of it."""
    BOUGHT = "bought"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One right to send the creating call of an order."""

    id: str
    tag: Tag
    number: int
    asked: datetime
    holder: str
    state: State
    server: str = ""
    """The server of its person's own that the order runs on, where it buys none (`taking`)."""

    def settled(self, now: datetime) -> bool:
        """Whether nothing that was sent under it can be on its way any more."""
        return self.state is not State.BEGUN or now - self.asked > timedelta(seconds=SETTLE_SECONDS)


def take(services: Services, order: Order, number: int = 0, *, server: str = "") -> bool:
    """Whether the right with this number is the caller's; by one of all callers, ever. Raises ProviderError."""
    holder = secrets.token_hex(8)
    body = _body(order, number, holder) | ({"anybinder-server": server} if server else {})
    try:
        services.ask("image", "POST", "/images", body)
    except refusals.InUse:
        return _held_by(services, body["id"]) == holder  # our own request may have been delivered twice
    except refusals.Answered:
        raise
    except ProviderUnavailable:
        if _held_by(services, body["id"]) != holder:
            raise
    return True


def of_order(services: Services, order_id: str) -> list[Claim]:
    """The claims of this order that are not given back, the first first."""
    found = [claim for claim in _listed(services, "anybinder-order", order_id) if claim.tag.order == order_id]
    return sorted(found, key=lambda claim: claim.number)


def of_broker(services: Services, broker: str) -> list[Claim]:
    """The same of all orders of this broker."""
    return [claim for claim in _listed(services, "anybinder-broker", broker) if claim.tag.broker == broker]


def of_server(services: Services, server_id: str) -> list[Claim]:
    """The claims of all orders, of whatever broker, that run on this server of the project's own."""
    return [claim for claim in _listed(services, "anybinder-server", server_id) if claim.server == server_id]


def say(services: Services, order: Order, number: int, state: State) -> None:
    """What became of the creating call, for whoever comes next."""
    change = [{"op": "replace", "path": "/anybinder-state", "value": state.value}]
    services.ask("image", "PATCH", f"/images/{_id(order.id, number)}", change)


def give_back(services: Services, claim_id: str) -> None:
    """From now on this order counts as ended. Repeatable."""
    services.delete("image", f"/images/{claim_id}")


def _held_by(services: Services, claim_id: str) -> str:
    try:
        return str(services.get("image", f"/images/{claim_id}").get("anybinder-holder", ""))
    except refusals.Missing:
        return ""


def _listed(services: Services, label: str, value: str) -> list[Claim]:
    query = {label: value, "owner": services.project}
    found = (_read(image) for image in services.every("image", "/images", "images", query))
    return [claim for claim in found if claim is not None]


def _read(image: Mapping[str, Any]) -> Claim | None:
    tag = Tag.from_labels(image)
    if tag is None or "anybinder-number" not in image:
        return None
    try:
        return _of(image, tag)
    except (KeyError, ValueError, TypeError):
        raise refusals.no_sense("image") from None


def _of(image: Mapping[str, Any], tag: Tag) -> Claim:
    return Claim(
        id=str(image["id"]),
        tag=tag,
        number=int(image["anybinder-number"]),
        asked=datetime.fromisoformat(image["anybinder-asked"]),
        holder=str(image.get("anybinder-holder", "")),
        state=State(image.get("anybinder-state", State.BEGUN)),
        server=str(image.get("anybinder-server", "")),
    )


def _body(order: Order, number: int, holder: str) -> dict[str, Any]:
    return {
        "id": _id(order.id, number),
        "name": labels.named(order.id),
        "visibility": "private",
        "container_format": "bare",
        "disk_format": "raw",
        **order.tag.as_labels(),
        "anybinder-number": str(number),
        "anybinder-holder": holder,
        "anybinder-state": State.BEGUN.value,
        "anybinder-asked": datetime.now(UTC).isoformat(),
    }


def _id(order_id: str, number: int) -> str:
    return str(uuid.uuid5(SPACE, f"{order_id}/{number}"))
