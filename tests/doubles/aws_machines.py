"""The life of machines in EC2, on a clock that is handed in, over moto, whose machines are there and gone at once.

pending → running → shutting-down → terminated, and an hour later EC2 knows it no more. Volumes and interfaces go when it
is terminated, a group can go after that. A token starts one machine, whoever brings it, how often and at what time.
"""

from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

from tests.doubles import aws_images
from tests.doubles.aws_models import Asked
from tests.doubles.aws_tokens import Refused

SHOWN_FOR = dt.timedelta(hours=1)  # a terminated machine stays in lists for about as long
CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
IDS = {"instance": "instanceId", "volume": "volumeId", "interface": "networkInterfaceId", "group": "groupId"}
USER_DATA_MOST = 16_384

Ask = Callable[[], Any]


@dataclass(kw_only=True)
class Life:
    """What becomes of one machine, and when."""

    account: str
    region: str
    machine: Any
    user_data: str
    boots_at: dt.datetime
    ends_at: dt.datetime | None = None
    gone_at: dt.datetime | None = None
    wrote: str = ""
    """What its console shows."""

    @property
    def id(self) -> str:
        return str(self.machine.id)

    @property
    def tags(self) -> dict[str, str]:
        return {tag["key"]: tag["value"] for tag in self.machine.get_tags()}

    @property
    def state(self) -> str:
        return str(self.machine.state)


@dataclass(kw_only=True)
class Token:
    """What a client token was used for."""

    asked: str
    machine: str


@dataclass(kw_only=True)
class Machines:
    """All machines that were ever started in this AWS. Its owner holds one lock around every call."""

    clock: Callable[[], dt.datetime]
    boot_seconds: float = 20
    end_seconds: float = 20
    hide_seconds: float = 0
    """For how long what is made from now on is not shown."""
    on_running: Callable[[str, str, Mapping[str, str]], object] = lambda *_: None
    on_end: Callable[[str], object] = lambda _: None
    lives: dict[str, Life] = field(default_factory=dict)
    tokens: dict[tuple[str, str, str], Token] = field(default_factory=dict)
    hidden: dict[str, dt.datetime] = field(default_factory=dict)
    told: list[Callable[[], object]] = field(default_factory=list)
    """What is to be told to whoever stands for the machines, once the lock is free."""

    # What happens by itself.

    def settle(self) -> None:
        """Let everything happen that is due."""
        now = self.clock()
        for life in list(self.lives.values()):
            if life.state == "pending" and life.boots_at <= now:
                self._becomes(life, "running")
                self.told.append(lambda life=life: self.on_running(life.id, life.user_data, life.tags))
            if life.ends_at and life.ends_at <= now and not life.gone_at:
                self._terminated(life, life.ends_at)
            if life.gone_at and life.gone_at + SHOWN_FOR <= now:
                self._forgotten(life)
        self.hidden = {number: until for number, until in self.hidden.items() if until > now}

    def _becomes(self, life: Life, state: str) -> None:
        life.machine._state.name, life.machine._state.code = state, CODES[state]

    def _terminated(self, life: Life, at: dt.datetime) -> None:
        """Disks and interfaces go with it, as each of them was asked to at birth."""
        reason, why = life.machine._reason, life.machine.state_reason
        type(life.machine).terminate(life.machine)
        life.machine._reason, life.machine.state_reason = reason, why
        life.machine.security_groups = []
        life.gone_at = at

    def _forgotten(self, life: Life) -> None:
        backend = ec2_backends[life.account][life.region]
        for number, reservation in list(backend.reservations.items()):
            if life.machine in reservation.instances:
                del backend.reservations[number]
        del self.lives[life.id]

    # What is asked.

    def run(self, asked: Asked, account: str, region: str, start: Ask) -> str:
        """The id of the machine of this token: started now by `start`, or before. Raises Refused."""
        aws_images.publish(account, region)
        given = asked.parameters.get("ClientToken", "")
        key, said = (account, region, given), json.dumps(asked.parameters, sort_keys=True, default=str)
        if given and (used := self.tokens.get(key)):
            return self._started_before(used, said)
        self._require_startable(asked, account, region)
        before = set(ec2_backends[account][region].reservations)
        start()
        made = [each for each in ec2_backends[account][region].reservations if each not in before]
        if not made:
            return ""  # moto has refused
        (machine,) = ec2_backends[account][region].reservations[made[0]].instances
        self._born(asked, account, region, machine)
        if given:
            self.tokens[key] = Token(asked=said, machine=machine.id)
        return str(machine.id)

    def _started_before(self, used: Token, said: str) -> str:
        if used.asked != said:
            raise Refused(400, "IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent with "
                          "arguments used in previous request(s).")  # fmt: skip
        life = self.lives.get(used.machine)
        if life is None or life.state in ("shutting-down", "terminated"):
            raise Refused(400, "IdempotentInstanceTerminated", "The instance of this token has been terminated.")
        return used.machine

    def _require_startable(self, asked: Asked, account: str, region: str) -> None:
        """As AWS looks at it before it starts anything."""
        backend, wanted = ec2_backends[account][region], asked.parameters
        image = backend.amis.get(wanted.get("ImageId", ""))
        if image is None:
            raise Refused(400, "InvalidAMIID.NotFound", f"The image id '[{wanted.get('ImageId')}]' does not exist")
        size = INSTANCE_TYPES.get(wanted.get("InstanceType", "m1.small"))
        if size is None:
            raise Refused(400, "InvalidParameterValue", f"Invalid value '{wanted['InstanceType']}' for InstanceType.")
        if image.architecture not in size["ProcessorInfo"]["SupportedArchitectures"]:
            raise Refused(
                400, "InvalidParameterValue", "The architecture of the instance type does not match that of the AMI"
            )
        if len(wanted.get("UserData", "")) * 3 // 4 > USER_DATA_MOST + 2:
            raise Refused(400, "InvalidParameterValue", "User data is limited to 16384 bytes")
        for group in wanted.get("SecurityGroupIds", []):
            if backend.get_security_group_from_id(group) is None:
                raise Refused(400, "InvalidGroup.NotFound", f"The security group '{group}' does not exist")
        zone = wanted.get("Placement", {}).get("AvailabilityZone")
        offered = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
        if zone and not any((e["InstanceType"], e["Location"]) == (size["InstanceType"], zone) for e in offered):
            raise Refused(400, "Unsupported", "Your requested instance type is not supported in this Availability Zone")

    def _born(self, asked: Asked, account: str, region: str, machine: Any) -> None:
        """As AWS makes it, where moto differs: it boots, takes its interface along, and all that it made is marked."""
        marks = {each["ResourceType"]: {tag["Key"]: tag["Value"] for tag in each["Tags"]}
                 for each in asked.parameters.get("TagSpecifications", [])}  # fmt: skip
        backend = ec2_backends[account][region]
        if machine.root_device_name not in dict(machine.get_block_device_mapping):
            machine.add_block_device(8, machine.root_device_name, None, False, True, None, "gp2")
        for nic in machine.nics.values():
            nic.delete_on_termination = True
            nic.add_tags(marks.get("network-interface", {}))
        volumes = [block.volume_id for _, block in machine.get_block_device_mapping]
        for number in volumes:
            backend.volumes[number].add_tags(marks.get("volume", {}))
        machine.launch_time = self.clock().replace(tzinfo=None)
        life = Life(account=account, region=region, machine=machine, user_data=asked.parameters.get("UserData", ""),
                    boots_at=self.clock() + dt.timedelta(seconds=self.boot_seconds))  # fmt: skip
        self._becomes(life, "pending")
        machine.terminate = lambda: self._begin_to_end(life, "Client.UserInitiatedShutdown: User initiated shutdown")
        self.lives[life.id] = life
        self.hide(life.id, *volumes, *(nic.id for nic in machine.nics.values()))

    def hide(self, *numbers: str) -> None:
        """What was just made is not shown for a while, if so asked."""
        if self.hide_seconds:
            until = self.clock() + dt.timedelta(seconds=self.hide_seconds)
            self.hidden |= dict.fromkeys(numbers, until)

    def _begin_to_end(self, life: Life, why: str) -> Any:
        """What moto's TerminateInstances calls of a machine."""
        before = copy.copy(life.machine._state)
        if life.ends_at is None:
            self._becomes(life, "shutting-down")
            life.machine.state_reason.code, _, life.machine.state_reason.message = why.partition(": ")
            life.machine._reason = "User initiated" if why.startswith("Client") else "Service initiated"
            life.ends_at = self.clock() + dt.timedelta(seconds=self.end_seconds)
            self.told.append(lambda: self.on_end(life.id))
        return before

    def power_off(self, number: str) -> None:
        """The machine has switched itself off: it ends, or stays as it is, switched off, whatever was asked at its birth."""
        life = self.lives[number]
        if life.ends_at:
            return
        if life.machine.instance_initiated_shutdown_behavior == "terminate":
            self._begin_to_end(life, "Client.InstanceInitiatedShutdown: Instance initiated shutdown")
        else:
            self._becomes(life, "stopped")
            self.told.append(lambda: self.on_end(life.id))

    def taken_away(self, number: str) -> None:
        """AWS has taken a spot machine back."""
        self._begin_to_end(self.lives[number], "Server.SpotInstanceTermination: Spot instance termination")

    def half_made(self, asked: Asked, account: str, region: str) -> None:
        """A disk and an interface, marked as asked, and no machine."""
        aws_images.publish(account, region)
        backend = ec2_backends[account][region]
        marks = {each["ResourceType"]: {tag["Key"]: tag["Value"] for tag in each["Tags"]}
                 for each in asked.parameters["TagSpecifications"]}  # fmt: skip
        zone = asked.parameters.get("Placement", {}).get("AvailabilityZone", f"{region}a")
        backend.create_volume(size=8, zone_name=zone, encrypted=True).add_tags(marks["volume"])
        subnet = next(each for each in backend.get_default_subnets().values())
        nic = backend.create_network_interface(subnet, None, group_ids=asked.parameters.get("SecurityGroupIds", []))
        nic.add_tags(marks["network-interface"])

    def require_unused(self, group: str, account: str, region: str) -> None:
        """No machine is in this group that has not ended, and no interface."""
        backend = ec2_backends[account][region]
        machines = [
            life
            for life in self.lives.values()
            if not life.gone_at and (life.account, life.region) == (account, region)
        ]
        used = [each.id for life in machines for each in life.machine.security_groups]
        used += [each.id for nic in backend.enis.values() for each in nic.group_set]
        if group in used:
            raise Refused(400, "DependencyViolation", f"resource {group} has a dependent object")

    # What is shown.

    def require_shown(self, asked: Asked) -> None:
        """By its id, what EC2 does not show yet does not exist."""
        for number in (*asked.parameters.get("InstanceIds", []), asked.parameters.get("InstanceId", "")):
            if number in self.hidden or (number and not re.fullmatch(r"i-[0-9a-f]{8,17}", number)):
                code = "NotFound" if number in self.hidden else "Malformed"
                raise Refused(400, f"InvalidInstanceID.{code}", f"The instance ID '{number}' does not exist")

    def without_hidden(self, text: str) -> str:
        """A list, without what it does not show yet."""
        for number in self.hidden:
            text = _without(text, number)
        return text

    def console(self, life: Life) -> dict[str, Any]:
        """What GetConsoleOutput answers."""
        text = base64.b64encode(life.wrote.encode()).decode()
        return {"InstanceId": life.id, "Timestamp": self.clock().strftime("%Y-%m-%dT%H:%M:%SZ"), "Output": text}

    def left(self, account: str | None = None) -> list[str]:
        """All machines that have not ended."""
        return [life.id for life in self.lives.values() if not life.gone_at and account in (None, life.account)]


def _without(text: str, number: str) -> str:
    names = "|".join(IDS.values())
    if not (found := re.search(rf"<({names})>{number}</\1>", text)):
        return text
    start, end = _item_around(text, found.start())
    if text[start:].startswith("<item>") and (outer := _reservation_around(text, start)):
        start, end = outer
    return _without(text[:start] + text[end:], number)


def _reservation_around(text: str, at: int) -> tuple[int, int] | None:
    """A machine's entry lies in that of its reservation."""
    if not text[:at].rstrip().endswith("<instancesSet>"):
        return None
    return _item_around(text, at)


def _item_around(text: str, at: int) -> tuple[int, int]:
    """Where the innermost `<item>` around this place begins and ends."""
    depth, start = 0, at
    for each in reversed(list(re.finditer(r"</?item>", text[:at]))):
        depth += -1 if each[0] == "<item>" else 1
        if depth < 0:
            start = each.start()
            break
    depth = 0
    for each in re.finditer(r"</?item>", text[start:]):
        depth += 1 if each[0] == "<item>" else -1
        if depth == 0:
            return start, start + each.end()
    raise ValueError("no item there")


def instance_ids(text: str) -> Iterator[str]:
    yield from re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", text)
