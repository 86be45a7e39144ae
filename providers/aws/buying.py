"""One purchase: a group that lets nobody in, and RunInstances with a token that EC2 takes once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from providers.aws import groups, holdings, marks, networks, offers, quotas, refusals
from providers.aws.clients import Caller
from providers.aws.images import Image
from providers.aws.networks import Network
from providers.base import Instance, InstanceState, Order
from providers.errors import InvalidOrder, ProviderError, ProviderUnavailable

CREATED = ("instance", "volume", "network-interface")
BOUGHT_BEFORE = ("IdempotentParameterMismatch", "IdempotentInstanceTerminated")
"""The token was used: with an image or group that has changed since, or for a machine that has ended since."""
USER_DATA_MOST = 16_384  # bytes, before base64


def buy(caller: Caller, order: Order, image: Image, network: Network | None, region: str) -> Instance:
    """The machine of this order, as it is now, however often it is asked for. Refused, it leaves nothing behind."""
    if len(order.boot.user_data.encode()) > USER_DATA_MOST:
        raise InvalidOrder(
            "What this machine would be told at birth is longer than EC2 takes; that is an error of ours."
        )
    group, is_new = groups.of_order(caller, order, region, network.vpc if network else "")
    try:
        machine = _run(caller, order, request(order, image, network, group), region, is_new=is_new)
    except NotAsked as refused:
        groups.drop(caller, group)
        raise refused.why from None
    if is_new and (machine is None or _has_ended(machine)):
        groups.drop(caller, group)
    if machine is None:
        return _long_gone(order)
    return holdings.instance(machine)


def _run(
    caller: Caller, order: Order, wanted: Mapping[str, Any], region: str, *, is_new: bool
) -> Mapping[str, Any] | None:
    """None where the machine has ended so long ago that EC2 does not show it any more.

    With a new group nothing of the order can be alive that was started before: its machine would hold its own group.
    """
    try:
        answer = caller.ask_plainly("ec2", "RunInstances", **wanted)
    except ClientError as refusal:
        code = refusals.code_of(refusal)
        if code in BOUGHT_BEFORE:
            return _bought_before(caller, order, ended=is_new or code == "IdempotentInstanceTerminated")
        raise _refused(refusal, order, region) from None
    return answer["Instances"][0]  # type: ignore[no-any-return]


def _refused(refusal: ClientError, order: Order, region: str) -> Exception:
    """What to raise: as NotAsked where it is certain that nothing was bought, else as it is, and the group stays with it."""
    code, choice = refusals.code_of(refusal), offers.chosen(order.offer.id)
    if code in networks.NONE:
        return NotAsked(InvalidOrder(networks.missing(region)))
    if quota := quotas.reached(code, choice.machine, spot=choice.spot):
        return NotAsked(quota)
    why = refusals.of_an_answer("ec2:RunInstances", refusal)
    return why if isinstance(why, ProviderUnavailable) and not refusals.THROTTLED.search(code) else NotAsked(why)


class NotAsked(Exception):
    """EC2 has said no before it did anything."""

    def __init__(self, why: ProviderError) -> None:
        super().__init__(str(why))
        self.why = why


def request(order: Order, image: Image, network: Network | None, group: str) -> dict[str, Any]:
    """What is asked of RunInstances: the same to the letter each time, for as long as image and group are the same."""
    choice = offers.chosen(order.offer.id)
    where = {"SubnetId": network.subnets[choice.zone]} if network else {"Placement": {"AvailabilityZone": choice.zone}}
    kinds = (*CREATED, *(["spot-instances-request"] if choice.spot else []))
    return {
        "ClientToken": order.id,
        "ImageId": image.id,
        "InstanceType": choice.machine,
        "MinCount": 1,
        "MaxCount": 1,
        "UserData": order.boot.user_data,
        "InstanceInitiatedShutdownBehavior": "terminate",
        # One hop: a container of a session's, which is a hop further away, does not reach it.
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [{"DeviceName": image.device, "Ebs": _disk(order)}],
        "SecurityGroupIds": [group],
        "TagSpecifications": marks.specifications(order.tag, *kinds),
        **where,
        **(SPOT if choice.spot else {}),
    }


SPOT = {
    "InstanceMarketOptions": {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
    }
}


def _disk(order: Order) -> dict[str, Any]:
    size = int(order.offer.resources.disk_gb or 0)
    return {
        "VolumeType": "gp3",
        "Encrypted": True,
        "DeleteOnTermination": True,
        **({"VolumeSize": size} if size else {}),
    }


def _bought_before(caller: Caller, order: Order, *, ended: bool) -> Mapping[str, Any] | None:
    found = holdings.machines(caller, marks.of_order(order.id))
    if found:
        return found[0]
    if ended:
        return None
    raise ProviderUnavailable("AWS has started this machine and does not show it yet. Try again later.")


def _has_ended(machine: Mapping[str, Any]) -> bool:
    return machine["State"]["Name"] in ("shutting-down", "terminated")


def _long_gone(order: Order) -> Instance:
    return Instance(
        id=marks.name(order.id),
        tag=order.tag,
        state=InstanceState.GONE,
        detail="AWS says that it was started and has ended.",
    )
