"""What there is of our orders, by EC2's own lists: machines, and the parts that outlive or precede them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from providers.aws import marks, schedules
from providers.aws.clients import Caller
from providers.aws.marks import Filters
from providers.aws.schedules import Switch
from providers.base import Instance, InstanceState, Tag

STATES = {
    "pending": InstanceState.PENDING,
    "running": InstanceState.RUNNING,
    "shutting-down": InstanceState.STOPPING,
    "stopping": InstanceState.STOPPING,
    "stopped": InstanceState.STOPPING,
    "terminated": InstanceState.GONE,
}
PAGE = 500


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of part: how it is listed, and what its id is called in lists and in filters."""

    operation: str
    answer: str
    key: str
    filter: str
    prefix: str


KINDS = {
    "volume": Kind(operation="DescribeVolumes", answer="Volumes", key="VolumeId", filter="volume-id", prefix="vol-"),
    "interface": Kind(operation="DescribeNetworkInterfaces", answer="NetworkInterfaces", key="NetworkInterfaceId",
                      filter="network-interface-id", prefix="eni-"),
    "group": Kind(operation="DescribeSecurityGroups", answer="SecurityGroups", key="GroupId", filter="group-id",
                  prefix="sg-"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Part:
    """A volume, interface, group or schedule."""

    kind: str
    id: str
    tag: Tag | None
    free: bool = True
    """No machine uses it: it can be deleted now."""


@dataclass(kw_only=True)
class Holding:
    """All that there is of one order."""

    machines: list[Mapping[str, Any]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)

    @property
    def living(self) -> list[str]:
        """Machines that have not ended yet."""
        return [each["InstanceId"] for each in self.machines if _state(each) != "terminated"]


def machines(caller: Caller, filters: Filters) -> list[Mapping[str, Any]]:
    """By filter, never by id: an id that EC2 does not know is an empty list then, and no error."""
    return [
        machine
        for page in _pages(caller, "DescribeInstances", filters)
        for reservation in page["Reservations"]
        for machine in reservation["Instances"]
    ]


def of_order(caller: Caller, switch: Switch | None, order_id: str) -> Holding:
    """Its machines; and its parts once no machine is alive, for until then they are the machine's."""
    found = Holding(machines=machines(caller, marks.of_order(order_id)))
    if not found.living:
        found.parts = parts(caller, marks.of_order(order_id))
        found.parts += [_schedule(name) for name in (schedules.armed(caller, switch, order_id) if switch else ())]
    return found


def parts(caller: Caller, filters: Filters) -> list[Part]:
    """Of every kind that EC2 has."""
    return [part for kind in KINDS for part in _parts(caller, kind, filters)]


def described(caller: Caller, switch: Switch | None, instance_id: str) -> Instance:
    """By the id of a machine, or of the part that stands for an order without one."""
    kind = next((name for name, each in KINDS.items() if instance_id.startswith(each.prefix)), "")
    if kind:
        found = _parts(caller, kind, marks.where(**{KINDS[kind].filter: [instance_id]}))
        return _without_machine(found) if found else _unknown(instance_id)
    if switch and instance_id.startswith(marks.name("")):
        tag = schedules.tag(caller, switch, instance_id)
        return _without_machine([_schedule(instance_id, tag)]) if tag else _unknown(instance_id)
    known = machines(caller, marks.where(instance_id=[instance_id]))
    return _described(caller, switch, known[0]) if known else _unknown(instance_id)


def _described(caller: Caller, switch: Switch | None, machine: Mapping[str, Any]) -> Instance:
    tag = marks.read(machine)
    if _state(machine) != "terminated" or tag is None:
        return instance(machine)
    return instance(machine, of_order(caller, switch, tag.order).parts)


def listed(caller: Caller, switch: Switch | None, broker: str) -> list[Instance]:
    """Every order of which anything is there: its machine with its parts, or its parts alone."""
    orders: dict[str, Holding] = defaultdict(Holding)
    for machine in machines(caller, marks.of_broker(broker)):
        if tag := marks.read(machine):
            orders[tag.order].machines.append(machine)
    for part in parts(caller, marks.of_broker(broker)):
        if part.tag:
            orders[part.tag.order].parts.append(part)
    for part in _schedules(caller, switch, broker, orders):
        orders[part.id.removeprefix(marks.name(""))].parts.append(part)
    return [each for holding in orders.values() for each in _instances(holding) if each.state is not InstanceState.GONE]


def _schedules(caller: Caller, switch: Switch | None, broker: str, orders: Mapping[str, Holding]) -> Iterator[Part]:
    """Whose they are is asked of those alone that nothing else is left of."""
    for name in schedules.armed(caller, switch) if switch else ():
        if name.removeprefix(marks.name("")) in orders:
            yield _schedule(name)
        elif switch and (tag := schedules.tag(caller, switch, name)) and tag.broker == broker:
            yield _schedule(name, tag)


def _instances(holding: Holding) -> list[Instance]:
    """An order has one machine; what is left of it belongs to the last that is not alive, else to none."""
    if not holding.machines:
        return [_without_machine(holding.parts)]
    first, *others = sorted(holding.machines, key=lambda each: _state(each) == "terminated")
    return [instance(first, holding.parts), *map(instance, others)]


def instance(machine: Mapping[str, Any], left: Iterable[Part] = ()) -> Instance:
    """What EC2 says of a machine, in the contract's words. One that is terminated is gone only with all its parts."""
    names = tuple(part.id for part in left) or tuple(_attached(machine))
    state = STATES.get(_state(machine), InstanceState.STOPPING)
    return Instance(
        id=machine["InstanceId"],
        tag=marks.read(machine),
        state=InstanceState.STOPPING if state is InstanceState.GONE and names else state,
        detail=machine.get("StateReason", {}).get("Message", "") or machine.get("StateTransitionReason", ""),
        created_at=machine["LaunchTime"].astimezone(UTC) if "LaunchTime" in machine else None,
        parts=names,
    )


def _attached(machine: Mapping[str, Any]) -> Iterator[str]:
    """What a living machine says of its own parts."""
    if _state(machine) == "terminated":
        return
    yield from (each["Ebs"]["VolumeId"] for each in machine.get("BlockDeviceMappings", []))
    yield from (each["NetworkInterfaceId"] for each in machine.get("NetworkInterfaces", []))
    yield from (each["GroupId"] for each in machine.get("SecurityGroups", []))


def _without_machine(left: Sequence[Part]) -> Instance:
    tag = next((part.tag for part in left if part.tag), None)
    return Instance(
        id=left[0].id,
        tag=tag,
        state=InstanceState.STOPPING,
        detail="Nothing but parts of a machine is there.",
        parts=tuple(part.id for part in left),
    )


def _unknown(instance_id: str) -> Instance:
    return Instance(id=instance_id, tag=None, state=InstanceState.GONE, detail="AWS knows no such machine.")


def _parts(caller: Caller, kind: str, filters: Filters) -> list[Part]:
    listing = KINDS[kind]
    return [
        Part(kind=kind, id=found[listing.key], tag=marks.read(found), free=_is_free(kind, found))
        for page in _pages(caller, listing.operation, filters)
        for found in page[listing.answer]
    ]


def _is_free(kind: str, found: Mapping[str, Any]) -> bool:
    return kind == "group" or found.get("State" if kind == "volume" else "Status") in ("available", "error")


def _schedule(name: str, tag: Tag | None = None) -> Part:
    return Part(kind="schedule", id=name, tag=tag)


def _state(machine: Mapping[str, Any]) -> str:
    return str(machine["State"]["Name"])


def _pages(caller: Caller, operation: str, filters: Filters) -> Iterator[dict[str, Any]]:
    more: dict[str, Any] = {}
    while True:
        page = caller.ask("ec2", operation, Filters=filters, MaxResults=PAGE, **more)
        yield page
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}
