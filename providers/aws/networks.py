"""Where a machine is attached: a subnet of each zone, of the account's default network or as the operator named them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from providers.aws.clients import Caller
from providers.errors import InvalidOrder

NONE = (
    "VPCIdNotSpecified",
    "MissingInput",
    "InvalidSubnetID.NotFound",
    "DefaultVpcDoesNotExist",
    "InvalidVpcID.NotFound",
)
"""Codes by which EC2 says that there is no network to start in."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network, with the subnet to use in each zone."""

    vpc: str
    subnets: Mapping[str, str]
    """By zone."""


def found(caller: Caller, region: str, named: Sequence[str] = ()) -> Network:
    """Raises InvalidOrder with a sentence where the account has none there."""
    asked = {"SubnetIds": list(named)} if named else {"Filters": [{"Name": "default-for-az", "Values": ["true"]}]}
    subnets = caller.ask("ec2", "DescribeSubnets", **asked)["Subnets"]
    usable = [each for each in subnets if each["State"] == "available"]
    if not usable:
        raise InvalidOrder(missing(region))
    vpc = usable[0]["VpcId"]
    return Network(
        vpc=vpc, subnets={each["AvailabilityZone"]: each["SubnetId"] for each in usable if each["VpcId"] == vpc}
    )


def missing(region: str) -> str:
    """What a person reads whose account has no network there."""
    return (
        f"Your AWS account has no default network in {region}. Make one with `aws ec2 create-default-vpc --region {region}`, "
        "or ask whoever runs this broker to name subnets."
    )
