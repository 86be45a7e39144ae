"""CloudFormation as far as our template needs it: parameters, conditions, `Ref`, `Fn::Sub`, and four kinds of resources.

moto has one, which knows no identity providers and wants more packages. This reads the very template that people are
given and makes what it says by IAM's own API. What it does not know fails here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

MADE = {"AWS::IAM::OIDCProvider", "AWS::IAM::Role", "AWS::IAM::Policy", "AWS::Scheduler::ScheduleGroup"}


class Stacks:
    """The stacks of one account; `iam` and `scheduler` are its owner's clients."""

    def __init__(self, iam: Any, scheduler: Any, account: str, region: str) -> None:
        self.iam, self.scheduler, self.account, self.region = iam, scheduler, account, region
        self.made: dict[str, dict[str, tuple[str, str, bool]]] = {}
        """By stack and resource: its kind, its name, and whether it stays when the stack goes."""

    def deploy(self, stack: str, template: str, parameters: Mapping[str, str]) -> None:
        """Make the stack, or bring it up to date. Raises IAM's refusals, as for a provider that the account has already."""
        read = yaml.safe_load(template)
        values = _values(read["Parameters"], parameters) | {
            "AWS::AccountId": self.account,
            "AWS::Partition": "aws",
            "AWS::Region": self.region,
        }
        holds = {name: _holds(condition, values) for name, condition in read.get("Conditions", {}).items()}
        had = self.made.setdefault(stack, {})
        for name, resource in read["Resources"].items():
            assert resource["Type"] in MADE, resource["Type"]
            if not holds.get(resource.get("Condition"), True):
                continue
            stays = str(resource.get("DeletionPolicy", "")).startswith("Retain")
            asked = _resolved(resource["Properties"], values)
            made = self._make(resource["Type"], asked, known=name in had)
            values[name] = made  # what `Ref` means of it
            had[name] = (resource["Type"], made, stays)

    def delete(self, stack: str) -> None:
        """Remove what it made, but for what its template says is to stay."""
        for kind, name, stays in reversed(self.made.pop(stack).values()):
            if stays or kind.endswith("Policy"):  # which goes with its role
                continue
            if kind.endswith("ScheduleGroup"):
                self.scheduler.delete_schedule_group(Name=name)
            elif kind.endswith("Role"):
                for policy in self.iam.list_role_policies(RoleName=name)["PolicyNames"]:
                    self.iam.delete_role_policy(RoleName=name, PolicyName=policy)
                self.iam.delete_role(RoleName=name)
            else:
                self.iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=name)

    def _make(self, kind: str, asked: Mapping[str, Any], *, known: bool) -> str:
        makers = {
            "OIDCProvider": self._provider,
            "Role": self._role,
            "Policy": self._policy,
            "ScheduleGroup": self._group,
        }
        return makers[kind.rpartition("::")[2]](asked, known=known)

    def _policy(self, asked: Mapping[str, Any], *, known: bool) -> str:
        for role in asked["Roles"]:
            document = _text(asked["PolicyDocument"])
            self.iam.put_role_policy(RoleName=role, PolicyName=asked["PolicyName"], PolicyDocument=document)
        return str(asked["PolicyName"])

    def _group(self, asked: Mapping[str, Any], *, known: bool) -> str:
        if not known:
            self.scheduler.create_schedule_group(Name=asked["Name"])
        return str(asked["Name"])

    def _provider(self, asked: Mapping[str, Any], *, known: bool) -> str:
        if known:
            return f"arn:aws:iam::{self.account}:oidc-provider/{asked['Url'].partition('://')[2]}"
        made = self.iam.create_open_id_connect_provider(Url=asked["Url"], ClientIDList=asked["ClientIdList"])
        return str(made["OpenIDConnectProviderArn"])

    def _role(self, asked: Mapping[str, Any], *, known: bool) -> str:
        name, trust = asked["RoleName"], _text(asked["AssumeRolePolicyDocument"])
        if known:
            self.iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
        else:
            self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Description=asked["Description"],
                                 MaxSessionDuration=asked["MaxSessionDuration"])  # fmt: skip
        for policy in asked["Policies"]:
            document = _text(policy["PolicyDocument"])
            self.iam.put_role_policy(RoleName=name, PolicyName=policy["PolicyName"], PolicyDocument=document)
        return name


def _values(declared: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """As CloudFormation takes them: each fits its pattern and its choice, and none is unknown."""
    assert set(given) <= set(declared), f"unknown parameters: {set(given) - set(declared)}"
    values = {name: given.get(name, asked.get("Default")) for name, asked in declared.items()}
    for name, value in values.items():
        assert value is not None, f"the parameter {name} has no value"
        assert re.fullmatch(declared[name].get("AllowedPattern", ".*"), value), f"{name} is {value!r}"
        assert value in declared[name].get("AllowedValues", [value]), f"{name} is {value!r}"
    return values


def _holds(condition: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    one, other = (_resolved(each, values) for each in condition["Fn::Equals"])
    return bool(one == other)


def _resolved(node: Any, values: Mapping[str, str]) -> Any:
    if isinstance(node, list):
        return [_resolved(each, values) for each in node]
    if not isinstance(node, dict):
        return node
    if set(node) == {"Ref"}:
        return values[node["Ref"]]
    if set(node) == {"Fn::Sub"}:
        return re.sub(r"\$\{([^}]+)\}", lambda found: values[found[1]], node["Fn::Sub"])
    assert not any(name.startswith("Fn::") for name in node), f"this double knows no {set(node)}"
    return {name: _resolved(each, values) for name, each in node.items()}


def _text(document: Any) -> str:
    return document if isinstance(document, str) else json.dumps(document)
