"""A security group for each order: nobody gets in. It goes with its order, once the machine in it is terminated."""

from __future__ import annotations

from botocore.exceptions import ClientError

from providers.aws import marks, networks, refusals
from providers.aws.clients import Caller
from providers.base import Order
from providers.errors import InvalidOrder, ProviderError, ProviderUnavailable

DESCRIPTION = "Anybinder: lets nobody in"
GONE = ("InvalidGroup.NotFound", "InvalidGroupId.Malformed")


def of_order(caller: Caller, order: Order, region: str, vpc: str = "") -> tuple[str, bool]:
    """Its id, and whether this call made it. Its name is one of a kind in a network, so no order has two."""
    try:
        made = caller.ask_plainly("ec2", "CreateSecurityGroup", GroupName=marks.name(order.id), Description=DESCRIPTION,
                                  TagSpecifications=marks.specifications(order.tag, "security-group"),
                                  **({"VpcId": vpc} if vpc else {}))  # fmt: skip
    except ClientError as refusal:
        if refusals.code_of(refusal) in networks.NONE:
            raise InvalidOrder(networks.missing(region)) from None
        if refusals.code_of(refusal) != "InvalidGroup.Duplicate":
            raise refusals.of_an_answer("ec2:CreateSecurityGroup", refusal) from None
        return _made_before(caller, order), False
    return str(made["GroupId"]), True


def _made_before(caller: Caller, order: Order) -> str:
    found = caller.ask("ec2", "DescribeSecurityGroups", Filters=marks.of_order(order.id))["SecurityGroups"]
    if not found:
        raise ProviderUnavailable("AWS has a security group for this launch and does not show it yet. Try again later.")
    return str(found[0]["GroupId"])


def delete(caller: Caller, group: str) -> bool:
    """False where a machine is still in it. Deleting what is gone is success."""
    try:
        caller.ask_plainly("ec2", "DeleteSecurityGroup", GroupId=group)
    except ClientError as refusal:
        if refusals.code_of(refusal) == "DependencyViolation":
            return False
        if refusals.code_of(refusal) not in GONE:
            raise refusals.of_an_answer("ec2:DeleteSecurityGroup", refusal) from None
    return True


def drop(caller: Caller, group: str) -> None:
    """Where nothing came of the order: delete it now. If that fails, `terminate` of the order does it."""
    try:
        delete(caller, group)
    except ProviderError:
        return
