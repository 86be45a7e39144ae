"""How a credential is limited to one launch: by AWS itself, in the exchange."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from providers.base import Purpose, Tag

TAGS_CLAIM = "https://aws.amazon.com/tags"
TAG_MOST = 256  # AWS's own limit for a value
NOT_IN_TAGS = re.compile(r"[^\w .:/=+@-]")
POLICY_MOST = 2048  # AWS's own limit for a policy that comes with an exchange
CREATED = ("instance", "volume", "network-interface", "spot-instances-request")


def tags(about: Mapping[str, str]) -> dict[str, Any]:
    """The claim by which AWS tags the session: `anybinder-launch` and the like, for its log and for conditions on it."""
    named = {f"anybinder-{name}": [NOT_IN_TAGS.sub("_", value)[:TAG_MOST]] for name, value in about.items() if value}
    return {TAGS_CLAIM: {"principal_tags": named, "transitive_tag_keys": sorted(named)}} if named else {}


def policy(tag: Tag, purpose: Purpose) -> str:
    """What a session of this launch may at most do; AWS grants what this and the role both permit."""
    mine = {"StringEquals": {f"aws:ResourceTag/{name}": value for name, value in _owner(tag).items()}}
    made = {"StringEquals": {f"aws:RequestTag/{name}": value for name, value in _owner(tag).items()}}
    look = _allow(["ec2:Describe*", "ssm:GetParameters", "scheduler:ListSchedules"], ["*"])
    end = _allow(["ec2:TerminateInstances", "ec2:Delete*", "ec2:GetConsoleOutput"], ["*"], mine)
    schedule = _allow(["scheduler:*Schedule"], ["*"])  # the role limits it to the person's own group of schedules
    buy = [
        _allow(["ec2:RunInstances", "ec2:CreateTags"], [_any(kind) for kind in CREATED], made),
        _allow(["ec2:CreateSecurityGroup", "ec2:CreateTags"], [_any("security-group")], made),
        _allow(["ec2:RunInstances", "ec2:CreateSecurityGroup"], [_any(k) for k in ("image", "subnet", "vpc")]),
        _allow(["ec2:RunInstances"], [_any("security-group")]),
        _allow(["iam:PassRole"], ["arn:*:iam::*:role/AnybinderEnd-*"]),
    ]
    statements = [look, end, schedule, *(buy if purpose is Purpose.LAUNCH else ())]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def _owner(tag: Tag) -> dict[str, str]:
    return {"anybinder-broker": tag.broker, "anybinder-launch": tag.launch}


def _any(kind: str) -> str:
    return f"arn:*:ec2:*:*:{kind}/*"


def _allow(actions: list[str], resources: list[str], condition: Mapping[str, Any] | None = None) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return statement | ({"Condition": condition} if condition else {})
