"""One-shot schedules of EventBridge that fire on the double's clock, as the role that was handed to them may."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from moto.iam.models import iam_backends
from moto.scheduler.models import scheduler_backends
from werkzeug.wrappers import Response

from tests.doubles import aws_exchanges, aws_policies
from tests.doubles.aws_machines import Machines
from tests.doubles.aws_models import Asked
from tests.doubles.aws_policies import Question
from tests.doubles.aws_tokens import Refused

TARGET = "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"
ONCE = re.compile(r"at\(([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})\)")


@dataclass(frozen=True, kw_only=True)
class Due:
    """One schedule."""

    account: str
    region: str
    group: str
    name: str
    at: dt.datetime
    role: str
    machines: tuple[str, ...]
    deletes_itself: bool


@dataclass(kw_only=False)
class Schedules:
    machines: Machines
    due: list[Due] = field(default_factory=list)
    fired: list[tuple[str, str]] = field(default_factory=list)
    """The name of each that fired, and what became of it: empty, or why not."""

    def create(self, asked: Asked, account: str, region: str, make: Callable[[], Response]) -> Response:
        """As AWS looks at it first. Raises Refused."""
        wanted = asked.parameters
        group, target = wanted.get("GroupName", "default"), wanted["Target"]
        if group not in scheduler_backends[account][region].schedule_groups:
            raise Refused(404, "ResourceNotFoundException", f"Schedule group {group} does not exist.")
        at = ONCE.fullmatch(wanted["ScheduleExpression"])
        if not at or target["Arn"] != TARGET or wanted["FlexibleTimeWindow"] != {"Mode": "OFF"}:
            raise Refused(
                400, "ValidationException", "this double knows schedules that end machines once, and no others"
            )
        if _role(account, target["RoleArn"], region, group) is None:
            raise Refused(400, "ValidationException", "The execution role you provide must allow AWS EventBridge Scheduler "
                          "to assume the role.")  # fmt: skip
        answer = make()
        if answer.status_code < 300:
            self.due.append(Due(
                account=account, region=region, group=group, name=wanted["Name"], role=target["RoleArn"],
                at=dt.datetime.fromisoformat(at[1]).replace(tzinfo=dt.UTC),
                machines=tuple(json.loads(target["Input"])["InstanceIds"]),
                deletes_itself=wanted.get("ActionAfterCompletion") == "DELETE",
            ))  # fmt: skip
        return answer

    def settle(self) -> None:
        """Fire what is due and still there."""
        now = self.machines.clock()
        for due in [each for each in self.due if each.at <= now]:
            self.due.remove(due)
            there = scheduler_backends[due.account][due.region].schedule_groups[due.group].schedules
            if due.name not in there:
                continue
            self.fired.append((due.name, self._fire(due)))
            if due.deletes_itself:
                del there[due.name]

    def _fire(self, due: Due) -> str:
        role = _role(due.account, due.role, due.region, due.group)
        if role is None:
            return "the role is gone"
        for number in due.machines:
            life = self.machines.lives.get(number)
            if life is None:
                return "there is no such machine"
            marked = {f"aws:ResourceTag/{key}": value for key, value in life.tags.items()}
            resource = f"arn:aws:ec2:{due.region}:{due.account}:instance/{number}"
            asked = Question(action="ec2:TerminateInstances", resource=resource, context=marked)
            if denied := aws_policies.first_denied(aws_exchanges.policies_of(role, due.account), None, [asked]):
                return denied[1]
            life.machine.terminate()
        return ""

    def of(self, account: str, name: str, value: str | None = None) -> list[str]:
        """The names of all that there are in this account, or of those whose description has this label with this value."""
        return [found for found, labels in self._labels(account) if value is None or labels.get(name) == value]

    def labels(self, account: str, order: str) -> dict[str, dict[str, str]]:
        """What the description of each schedule of this order says."""
        return {name: labels for name, labels in self._labels(account) if labels.get("anybinder-order") == order}

    def _labels(self, account: str) -> Iterator[tuple[str, dict[str, str]]]:
        for backend in scheduler_backends[account].values():
            for group in backend.schedule_groups.values():
                for each in group.schedules.values():
                    yield each.name, json.loads(each.description or "{}")


def _role(account: str, arn: str, region: str, group: str) -> object | None:
    """The role of this ARN, where it trusts the scheduler for this group."""
    role = next((each for each in iam_backends[account]["aws"].roles.values() if each.arn == arn), None)
    context = {"aws:SourceAccount": account,
               "aws:SourceArn": f"arn:aws:scheduler:{region}:{account}:schedule-group/{group}"}  # fmt: skip
    asked = Question(action="sts:AssumeRole", resource=arn, context=context)
    trusted = role and aws_policies.trusts(
        role.assume_role_policy_document, "scheduler.amazonaws.com", asked, kind="Service"
    )
    return role if trusted else None
