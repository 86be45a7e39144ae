"""The stock images that are published, as SSM's public parameters name them, and the types of machines, by the page.

moto knows the types and where they are offered; it pages neither, and knows the parameters of Amazon's own images only.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

from tests.doubles import aws_models
from tests.doubles.aws_models import Asked
from tests.doubles.aws_tokens import Refused

DEBIAN = "/aws/service/debian/release/{release}/latest/{architecture}"
UBUNTU = "/aws/service/canonical/ubuntu/server/{release}/stable/current/{architecture}/hvm/ebs-gp3/ami-id"
DEVICES = {DEBIAN: "/dev/xvda", UBUNTU: "/dev/sda1"}
RELEASES = {DEBIAN: ("12", "13"), UBUNTU: ("24.04", "26.04")}
CALLED = {"amd64": "x86_64", "arm64": "arm64"}
PUBLISHED = {
    form.format(release=release, architecture=architecture): (form, CALLED[architecture])
    for form, releases in RELEASES.items()
    for release in releases
    for architecture in CALLED
}


def image_of(parameter: str, region: str) -> str:
    """The image that this parameter names there."""
    return f"ami-{hashlib.sha256(f'{parameter} {region}'.encode()).hexdigest()[:17]}"


def publish(account: str, region: str) -> None:
    """Make the images known to this account, once."""
    backend = ec2_backends[account][region]
    for parameter, (form, architecture) in PUBLISHED.items():
        number = image_of(parameter, region)
        if number not in backend.amis:
            backend.amis[number] = Ami(
                backend, number, name=parameter.strip("/").replace("/", "-"), architecture=architecture, public=True,
                virtualization_type="hvm", root_device_type="ebs", root_device_name=DEVICES[form],
                owner_id="136693071363", hypervisor="xen", region_name=f"{region}a",
            )  # fmt: skip


def parameters(asked: Asked, region: str, withdrawn: set[str]) -> dict[str, Any]:
    """GetParameters, for the public ones."""
    names = list(asked.parameters["Names"])
    known = [name for name in names if name in PUBLISHED and name not in withdrawn]
    found = [
        {"Name": name, "Type": "String", "Value": image_of(name, region), "Version": 1,
         "ARN": f"arn:aws:ssm:{region}::parameter{name}", "DataType": "aws:ec2:image"}
        for name in known
    ]  # fmt: skip
    return {"Parameters": found, "InvalidParameters": [name for name in names if name not in known]}


# Types of machines.

FILTERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "instance-type": lambda found: found["InstanceType"],
    "current-generation": lambda found: found["CurrentGeneration"],
    "bare-metal": lambda found: found["BareMetal"],
    "processor-info.supported-architecture": lambda found: found["ProcessorInfo"]["SupportedArchitectures"],
    "supported-usage-class": lambda found: found["SupportedUsageClasses"],
}


def types(asked: Asked, region: str) -> str:
    """DescribeInstanceTypes by the page, as XML: of those that are offered in this region."""
    names = [name for name in _offered(region) if _passes(INSTANCE_TYPES[name], asked.parameters.get("Filters", []))]
    page, token = _page(asked, names)
    inner = "".join(f"<item>{_written(name)}</item>" for name in page)
    return _answer(asked, f"<instanceTypeSet>{inner}</instanceTypeSet>", token)


def offerings(asked: Asked, region: str) -> str:
    """DescribeInstanceTypeOfferings by the page, as XML."""
    by = asked.parameters.get("LocationType", "region")
    wanted = {each["Name"]: each["Values"] for each in asked.parameters.get("Filters", [])}
    assert set(wanted) <= {"instance-type", "location"}, f"this double knows no filters {set(wanted)}"
    found = [
        each
        for each in INSTANCE_TYPE_OFFERINGS[by].get(region, [])
        if _matches(wanted.get("instance-type"), each["InstanceType"])
        and _matches(wanted.get("location"), each["Location"])
    ]
    page, token = _page(asked, found)
    inner = "".join(
        f"<item><instanceType>{each['InstanceType']}</instanceType><locationType>{by}</locationType>"
        f"<location>{each['Location']}</location></item>"
        for each in page
    )
    return _answer(asked, f"<instanceTypeOfferingSet>{inner}</instanceTypeOfferingSet>", token)


@cache
def _offered(region: str) -> list[str]:
    there = {each["InstanceType"] for each in INSTANCE_TYPE_OFFERINGS["region"].get(region, [])}
    return sorted(there & set(INSTANCE_TYPES))


def _passes(found: Mapping[str, Any], filters: list[Mapping[str, Any]]) -> bool:
    for each in filters:
        value = FILTERS[each["Name"]](found)  # one that this double does not know fails here
        values = value if isinstance(value, list) else [str(value).lower() if isinstance(value, bool) else value]
        if not any(_matches(each["Values"], one) for one in values):
            return False
    return True


def _matches(patterns: list[str] | None, value: str) -> bool:
    return patterns is None or any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)


def _page(asked: Asked, found: list[Any]) -> tuple[list[Any], str]:
    """From 5 to 100 a page; a token that was not given is refused."""
    most, token = int(asked.parameters.get("MaxResults", 100)), asked.parameters.get("NextToken", "")
    if not 5 <= most <= 1000:
        raise Refused(400, "InvalidParameterValue", "MaxResults")
    if token and not token.startswith("after-"):
        raise Refused(400, "InvalidNextToken", "The token is not valid.")
    start = int(token.removeprefix("after-") or 0)
    end = start + min(most, 100)
    return found[start:end], f"after-{end}" if end < len(found) else ""


def _answer(asked: Asked, inner: str, token: str) -> str:
    more = f"<nextToken>{token}</nextToken>" if token else ""
    return f"<{asked.action}Response>{inner}{more}<requestId>0</requestId></{asked.action}Response>"


@cache
def _written(name: str) -> str:
    shape = aws_models.service("ec2").shape_for("InstanceTypeInfo")
    return aws_models.elements(shape, dict(_known(shape, INSTANCE_TYPES[name])))


def _known(shape: Any, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the SDK knows of it: moto's list may be newer."""
    for name, each in value.items():
        if name in shape.members:
            yield name, _cut(shape.members[name], each)


def _cut(shape: Any, value: Any) -> Any:
    if shape.type_name == "structure":
        return dict(_known(shape, value))
    if shape.type_name == "list":
        return [_cut(shape.member, each) for each in value]
    return value
