"""A switch of AWS's own that ends a machine at its hour: a one-shot schedule of EventBridge, which needs no broker.

The template makes a group for the schedules and a role that may end the broker's machines and nothing else; where the
account has neither, there is no schedule, and the machine's own switch and the broker's are left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError

from providers.aws import marks, refusals
from providers.aws.clients import Caller, Place
from providers.base import Credential, Order, Tag
from providers.errors import ProviderError

GRACE = timedelta(minutes=5)  # the machine's own switch and the broker's sweep come first
TARGET = "arn:{partition}:scheduler:::aws-sdk:ec2:terminateInstances"
WHO = re.compile(r"arn:[a-z-]+:sts::(?P<account>[0-9]{12}):assumed-role/Anybinder(?:Launch|Reap)-(?P<suffix>[^/]+)/.*")
MISSING = ("ResourceNotFoundException",)


@dataclass(frozen=True, kw_only=True)
class Switch:
    """Where this person's schedules are, and what they sign in as when their hour has come."""

    group: str
    role: str
    target: str


def switch(credential: Credential, place: Place) -> Switch | None:
    """None for who is signed in otherwise than by the template's roles."""
    who = WHO.fullmatch(credential.who)
    if not who:
        return None
    return Switch(
        group=f"anybinder-{who['suffix']}",
        role=f"arn:{place.partition}:iam::{who['account']}:role/AnybinderEnd-{who['suffix']}",
        target=TARGET.format(partition=place.partition),
    )


def arm(caller: Caller, switch: Switch, order: Order, machine: str) -> str:
    """Its name; empty where the account has none for us, or it cannot be made now: no launch waits for this."""
    at = (order.tag.until + GRACE).strftime("%Y-%m-%dT%H:%M:%S")
    try:
        caller.ask_plainly(
            "scheduler", "CreateSchedule", Name=marks.name(order.id), GroupName=switch.group,
            ClientToken=order.id, Description=json.dumps(order.tag.as_labels()),
            ScheduleExpression=f"at({at})", ScheduleExpressionTimezone="UTC", FlexibleTimeWindow={"Mode": "OFF"},
            ActionAfterCompletion="DELETE",
            Target={"Arn": switch.target, "RoleArn": switch.role, "Input": json.dumps({"InstanceIds": [machine]})},
        )  # fmt: skip
    except ClientError as refusal:
        return marks.name(order.id) if refusals.code_of(refusal) == "ConflictException" else ""
    except ProviderError:
        return ""
    return marks.name(order.id)


def disarm(caller: Caller, switch: Switch, order_id: str) -> None:
    """Delete it, if there is one. Deleting what is gone is success."""
    try:
        caller.ask_plainly("scheduler", "DeleteSchedule", Name=marks.name(order_id), GroupName=switch.group)
    except ClientError as refusal:
        if not _there_is_none(refusal):
            raise refusals.of_an_answer("scheduler:DeleteSchedule", refusal) from None


def armed(caller: Caller, switch: Switch, order_id: str = "") -> list[str]:
    """The names of those that there are, of this order or of any. AWS looks by the beginning of a name alone."""
    name = marks.name(order_id)
    return [found for found in _names(caller, switch, name) if not order_id or found == name]


def tag(caller: Caller, switch: Switch, name: str) -> Tag | None:
    """Schedules carry no tags: theirs is in the description."""
    try:
        found = caller.ask_plainly("scheduler", "GetSchedule", Name=name, GroupName=switch.group)
    except ClientError as refusal:
        if _there_is_none(refusal):
            return None
        raise refusals.of_an_answer("scheduler:GetSchedule", refusal) from None
    return _read(found.get("Description", ""))


def _read(text: str) -> Tag | None:
    try:
        labels = json.loads(text)
    except ValueError:
        return None
    return Tag.from_labels(labels) if isinstance(labels, Mapping) else None


def _names(caller: Caller, switch: Switch, prefix: str) -> Iterator[str]:
    more: dict[str, Any] = {}
    while True:
        try:
            page = caller.ask_plainly("scheduler", "ListSchedules", GroupName=switch.group, NamePrefix=prefix, **more)
        except ClientError as refusal:
            if _there_is_none(refusal):
                return
            raise refusals.of_an_answer("scheduler:ListSchedules", refusal) from None
        yield from (each["Name"] for each in page["Schedules"])
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}


def _there_is_none(refusal: ClientError) -> bool:
    """Not there, or not permitted: then none was made either."""
    code = refusals.code_of(refusal)
    return code in MISSING or code in refusals.DENIED
