"""How AWS decides: policies over actions, resources and conditions, as far as ours use them.

moto decides by action alone and takes no session policies; this reads every element it meets, and fails loudly at one
that it does not know, so that no policy passes because it was not understood.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.ec2.models import ec2_backends

from tests.doubles.aws_models import Asked

CREATED_BY_A_RUN = ("instance", "volume", "network-interface")
TARGETS = {"InstanceId": "instance", "GroupId": "security-group", "VolumeId": "volume", "ResourceId": "instance",
           "NetworkInterfaceId": "network-interface"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Question:
    """May this action be done on this resource?"""

    action: str
    resource: str = "*"
    context: Mapping[str, str] = field(default_factory=dict)


def first_denied(
    policies: Iterable[Any], session_policy: Any, questions: Iterable[Question]
) -> tuple[Question, str] | None:
    """The first that is not permitted, and why in AWS's words; None where all are."""
    read = [_document(policy) for policy in policies]
    for question in questions:
        verdicts = [_verdict(policy, question) for policy in read]
        if "Deny" in verdicts:
            return question, "with an explicit deny in an identity-based policy"
        if "Allow" not in verdicts:
            return question, f"because no identity-based policy allows the {question.action} action"
        if session_policy and _verdict(_document(session_policy), question) != "Allow":
            return question, f"because no session policy allows the {question.action} action"
    return None


def trusts(document: Any, principal: str, question: Question, *, kind: str = "Federated") -> bool:
    """Whether a role's trust policy lets this identity provider, or this service, do this."""
    return any(
        statement["Effect"] == "Allow"
        and principal in _list(statement["Principal"].get(kind, []))
        and _matches(statement["Action"], question.action)
        and _conditions_hold(statement.get("Condition", {}), question.context)
        for statement in _list(_document(document)["Statement"])
    )


def of_a_request(asked: Asked, form: Mapping[str, str], account: str, region: str) -> Iterator[Question]:
    """What AWS asks itself of one call to EC2, SSM or EventBridge Scheduler."""
    context, service, action = {"aws:RequestedRegion": region}, asked.service, asked.action
    if service == "scheduler":
        yield from _of_a_schedule(asked, account, region, context)
    elif service != "ec2":
        yield from _of_another(service, action, form, region, context)
    elif action == "RunInstances":
        yield from _of_a_run(form, account, region, context)
    elif action == "CreateSecurityGroup":
        yield from _created(action, "security-group", form, account, region, context)
        yield _on(action, "vpc", form.get("VpcId", "*"), account, region, context)
    elif target := next((name for name in TARGETS if f"{name}.1" in form or name in form), None):
        for number in _values(form, target):
            marked = {f"aws:ResourceTag/{k}": v for k, v in _tags_of(number, account, region).items()}
            requested = {f"aws:RequestTag/{k}": v for k, v in _pairs(form, "Tag").items()}
            yield _on(action, TARGETS[target], number, account, region, {**context, **marked, **requested})
    else:
        yield Question(action=f"ec2:{action}", context=context)


def _of_a_schedule(asked: Asked, account: str, region: str, context: Mapping[str, str]) -> Iterator[Question]:
    """Whoever makes one hands a role on, and is asked whether they may."""
    name, group = asked.parameters.get("Name"), asked.parameters.get("GroupName", "default")
    resource = f"arn:aws:scheduler:{region}:{account}:schedule/{group}/{name}" if name else "*"
    yield Question(action=f"scheduler:{asked.action}", resource=resource, context=context)
    if role := asked.parameters.get("Target", {}).get("RoleArn"):
        passed = {**context, "iam:PassedToService": "scheduler.amazonaws.com"}
        yield Question(action="iam:PassRole", resource=role, context=passed)


def _of_another(
    service: str, action: str, form: Mapping[str, str], region: str, context: Mapping[str, str]
) -> Iterator[Question]:
    names = [value for key, value in form.items() if key.startswith("Names.")] if service == "ssm" else []
    for name in names or [""]:
        resource = f"arn:aws:ssm:{region}::parameter{name}" if name else "*"
        yield Question(action=f"{service}:{action}", resource=resource, context=context)


def _of_a_run(form: Mapping[str, str], account: str, region: str, context: Mapping[str, str]) -> Iterator[Question]:
    spot = ["spot-instances-request"] if form.get("InstanceMarketOptions.MarketType") == "spot" else []
    for kind in (*CREATED_BY_A_RUN, *spot):
        yield from _created("RunInstances", kind, form, account, region, context)
    yield Question(
        action="ec2:RunInstances", resource=f"arn:aws:ec2:{region}::image/{form.get('ImageId', '')}", context=context
    )
    for kind in ("subnet", "security-group"):
        yield _on("RunInstances", kind, "*", account, region, context)


def _created(
    action: str, kind: str, form: Mapping[str, str], account: str, region: str, context: Mapping[str, str]
) -> Iterator[Question]:
    tags = {f"aws:RequestTag/{key}": value for key, value in _tags_for(form, kind).items()}
    yield _on(action, kind, "*", account, region, {**context, **tags})
    if tags:
        yield _on("CreateTags", kind, "*", account, region, {**context, **tags, "ec2:CreateAction": action})


def _on(action: str, kind: str, number: str, account: str, region: str, context: Mapping[str, str]) -> Question:
    return Question(action=f"ec2:{action}", resource=f"arn:aws:ec2:{region}:{account}:{kind}/{number}", context=context)


def _values(form: Mapping[str, str], name: str) -> list[str]:
    return [value for key, value in form.items() if key == name or key.startswith(f"{name}.")]


def _pairs(form: Mapping[str, str], prefix: str) -> dict[str, str]:
    keys = [key for key in form if key.startswith(f"{prefix}.") and key.endswith(".Key")]
    return {form[key]: form.get(f"{key[:-4]}.Value", "") for key in keys}


def _tags_for(form: Mapping[str, str], kind: str) -> dict[str, str]:
    for key, value in form.items():
        if key.startswith("TagSpecification.") and key.endswith(".ResourceType") and value == kind:
            return _pairs(form, f"{key.removesuffix('.ResourceType')}.Tag")
    return {}


def _tags_of(number: str, account: str, region: str) -> dict[str, str]:
    found = ec2_backends[account][region].describe_tags(filters={"resource-id": [number]})
    return {tag["key"]: tag["value"] for tag in found}


def _document(policy: Any) -> Any:
    return json.loads(policy) if isinstance(policy, str) else policy


def _verdict(policy: Any, question: Question) -> str:
    found = {statement["Effect"] for statement in _list(policy["Statement"]) if _concerns(statement, question)}
    return "Deny" if "Deny" in found else "Allow" if found else ""


def _concerns(statement: Mapping[str, Any], question: Question) -> bool:
    unknown = set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}
    if unknown:
        raise NotImplementedError(f"this double reads no {unknown} of a policy")
    return (
        _matches(statement["Action"], question.action)
        and _matches(statement["Resource"], question.resource)
        and _conditions_hold(statement.get("Condition", {}), question.context)
    )


def _matches(patterns: Any, value: str) -> bool:
    """`*` of a request's own resource stands for one that does not exist yet: every name of its kind matches it."""
    return any(fnmatch.fnmatchcase(value, pattern.replace("[", "[[]")) for pattern in _list(patterns))


def _conditions_hold(conditions: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    return all(
        _holds(operator, context.get(key), _list(wanted))
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, value: str | None, wanted: list[str]) -> bool:
    if operator == "StringEquals":
        return value in wanted
    if operator == "StringLike":
        return value is not None and any(fnmatch.fnmatchcase(value, pattern) for pattern in wanted)
    if operator == "StringNotEquals":
        return value not in wanted
    if operator == "Null":
        return (value is None) == (wanted == ["true"])
    raise NotImplementedError(f"this double knows no condition {operator}")


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]
