"""Machines, as Nova knows them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from providers.base import InstanceState, Order, Tag
from providers.errors import InvalidOrder
from providers.openstack import labels, refusals
from providers.openstack.services import Services

CREATING_SECONDS = 14  # Nova asks its scheduler, Neutron and Glance before it answers
USER_DATA_MOST = 49_149
"""Bytes: Nova takes 65,535 characters, encoded in base64."""

RUNNING = {"ACTIVE", "REBOOT", "HARD_REBOOT", "PASSWORD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "REVERT_RESIZE", "MIGRATING",
           "UNKNOWN"}  # fmt: skip
STILL_BILLED = {
    "SHUTOFF": "It was shut down, which does not end its bill in most clouds",
    "SUSPENDED": "It was suspended, which does not end its bill",
    "PAUSED": "It was paused, which does not end its bill",
    "SHELVED": "It was shelved: its disk is kept",
    "SHELVED_OFFLOADED": "It was shelved: its disk is kept",
    "RESCUE": "It was booted for rescue",
    "SOFT_DELETED": "It was deleted, and the cloud keeps it for a while",
}


@dataclass(frozen=True, kw_only=True)
class Server:
    """One machine that carries our tag."""

    id: str
    tag: Tag
    state: InstanceState
    detail: str
    created: datetime


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What else the creating call says."""

    flavor: str
    image: str
    group: str
    """Id of the security group; unused where there is a port."""
    network: str
    port: str = ""
    volume_gb: int = 0
    """Size of a boot volume; 0: the flavor's own disk."""
    config_drive: bool = False


def create(services: Services, order: Order, wanted: Wanted) -> str:
    """The creating call, sent once. Its id; the tag is in it. Raises ProviderError."""
    made = services.ask("compute", "POST", "/servers", {"server": body(order, wanted)}, seconds=CREATING_SECONDS)
    try:
        return str(made["server"]["id"])
    except (KeyError, TypeError):
        raise refusals.no_sense("compute") from None


def body(order: Order, wanted: Wanted) -> dict[str, Any]:
    """As Nova's schema of `POST /servers` has it."""
    data = order.boot.user_data.encode()
    if len(data) > USER_DATA_MOST:
        raise InvalidOrder(
            f"What the machine is told at birth has {len(data)} bytes; OpenStack takes {USER_DATA_MOST}."
        )
    told: dict[str, Any] = {
        "name": labels.named(order.id),
        "flavorRef": wanted.flavor,
        "metadata": order.tag.as_labels(),
        "user_data": user_data(order),
        "networks": [{"port": wanted.port} if wanted.port else {"uuid": wanted.network}],
    }
    if not wanted.port:
        told["security_groups"] = [{"name": wanted.group}]  # the schema says name, and takes an id
    if wanted.config_drive:
        told["config_drive"] = True
    if order.offer.zone:
        told["availability_zone"] = order.offer.zone
    if not wanted.volume_gb:
        return {**told, "imageRef": wanted.image}
    return {**told, "imageRef": "", "block_device_mapping_v2": [_volume(wanted)]}


def user_data(order: Order) -> str:
    """What the machine is told at birth, as Nova takes it. Raises InvalidOrder where that is too long."""
    told = order.boot.user_data.encode()
    if len(told) > USER_DATA_MOST:
        raise InvalidOrder(
            f"What the machine is told at birth has {len(told)} bytes; OpenStack takes {USER_DATA_MOST}."
        )
    return base64.b64encode(told).decode()


def of_order(services: Services, order_id: str) -> list[Server]:
    """The machines of this order, the one that counts first: there may be a second after a request delivered twice."""
    return _in_order(server for server in _ours(services) if server.tag.order == order_id)


def of_broker(services: Services, broker: str) -> list[Server]:
    """The same of all orders of this broker."""
    return _in_order(server for server in _ours(services) if server.tag.broker == broker)


def settle(services: Services, order_id: str) -> list[Server]:
    """Of several machines of one order keep the first, and delete the others. Everyone who looks decides the same."""
    found = of_order(services, order_id)
    for twin in found[1:]:
        services.delete("compute", f"/servers/{twin.id}")
    return found


def read(told: Mapping[str, Any]) -> Server | None:
    """One entry of Nova's list; None where it carries no tag of ours. Raises ProviderUnavailable where it makes no sense."""
    tag = labels.of_server(told)
    if tag is None:
        return None
    try:
        state, detail = state_of(told)
        created = datetime.fromisoformat(str(told["created"]))
        return Server(id=str(told["id"]), tag=tag, state=state, detail=detail, created=created)
    except (KeyError, ValueError):
        raise refusals.no_sense("compute") from None


def state_of(told: Mapping[str, Any]) -> tuple[InstanceState, str]:
    """Ours for Nova's, and why. Whatever is no machine that runs or comes to run is to be ended."""
    status, task = str(told["status"]), told.get("OS-EXT-STS:task_state")
    if status == "DELETED":
        return InstanceState.GONE, ""
    if task in ("deleting", "soft-deleting"):
        return InstanceState.STOPPING, "The cloud is deleting it"
    if status == "BUILD":
        return InstanceState.PENDING, ""
    if status in RUNNING:
        return InstanceState.RUNNING, ""
    if status == "ERROR":
        return InstanceState.STOPPING, _fault(told)
    return InstanceState.STOPPING, STILL_BILLED.get(status, f"The cloud says {status}")


def _ours(services: Services) -> list[Server]:
    """By metadata and never by name, which a person may change on the dashboard."""
    listed = services.every("compute", "/servers/detail", "servers")
    found = (read(told) for told in listed)
    return [server for server in found if server is not None and server.state is not InstanceState.GONE]


def _in_order(found: Iterable[Server]) -> list[Server]:
    """What is not ending first; then the oldest."""
    return sorted(found, key=lambda server: (server.state is InstanceState.STOPPING, server.created, server.id))


def _fault(told: Mapping[str, Any]) -> str:
    fault = told.get("fault")
    said = str(fault.get("message", "")).strip().rstrip(".") if isinstance(fault, dict) else ""
    if refusals.CAPACITY.search(said):
        return f"The cloud had no room for it: {said}"
    return f"The cloud could not start it: {said}" if said else "The cloud could not start it, and does not say why"


def _volume(wanted: Wanted) -> dict[str, Any]:
    """Made with the machine from the image, and deleted with it by Nova itself."""
    return {
        "boot_index": 0,
        "uuid": wanted.image,
        "source_type": "image",
        "destination_type": "volume",
        "volume_size": wanted.volume_gb,
        "delete_on_termination": True,
    }
