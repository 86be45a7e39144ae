"""Giving back all that an order has brought into being. Each call does what can be done now; the next one does the rest."""

from __future__ import annotations

from collections.abc import Callable

from botocore.exceptions import ClientError

from providers.aws import groups, holdings, marks, refusals, schedules
from providers.aws.clients import Caller
from providers.aws.holdings import Part
from providers.aws.schedules import Switch

GONE = {"InvalidInstanceID.NotFound", "InvalidVolume.NotFound", "InvalidNetworkInterfaceID.NotFound"}
IN_USE = {"VolumeInUse", "IncorrectState", "InvalidNetworkInterface.InUse", "InvalidParameterValue"}
"""A volume or interface that its machine holds, or lets go just now: the machine's own end takes it along."""


def end(caller: Caller, switch: Switch | None, instance_id: str | None, order_id: str) -> None:
    """The machine first: disk and interface go with it, and its group can only go after it."""
    held = holdings.of_order(caller, switch, order_id)
    alive = held.living or _unmarked(caller, instance_id, [each["InstanceId"] for each in held.machines])
    if alive:
        _quietly(caller, "TerminateInstances", InstanceIds=alive)
        return
    for part in held.parts:
        if part.free:
            _end_part(caller, switch, part, order_id)


def _unmarked(caller: Caller, instance_id: str | None, known: list[str]) -> list[str]:
    """A machine that lists do not show by its tag, yet or any more."""
    if not (instance_id or "").startswith("i-") or instance_id in known:
        return []
    found = holdings.machines(caller, marks.where(instance_id=[str(instance_id)]))
    return holdings.Holding(machines=found).living


def _end_part(caller: Caller, switch: Switch | None, part: Part, order_id: str) -> None:
    ends: dict[str, Callable[[], object]] = {
        "volume": lambda: _quietly(caller, "DeleteVolume", VolumeId=part.id),
        "interface": lambda: _quietly(caller, "DeleteNetworkInterface", NetworkInterfaceId=part.id),
        "group": lambda: groups.delete(caller, part.id),
        "schedule": lambda: schedules.disarm(caller, switch, order_id) if switch else None,
    }
    ends[part.kind]()


def _quietly(caller: Caller, operation: str, **parameters: object) -> None:
    """What is gone already, or goes by itself, is no error."""
    try:
        caller.ask_plainly("ec2", operation, **parameters)
    except ClientError as refusal:
        if refusals.code_of(refusal) not in GONE | IN_USE:
            raise refusals.of_an_answer(f"ec2:{operation}", refusal) from None
