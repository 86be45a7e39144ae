"""What a launch and its end need in an account, each tried by a dry run where AWS has one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from providers.aws import buying, images, networks, refusals, schedules
from providers.aws.clients import Caller, Place
from providers.aws.schedules import Switch
from providers.base import Connection, Credential, Permission, Purpose
from providers.errors import InvalidOrder, NoCapacity, PermissionMissing, QuotaExceeded
from providers.sentences import say

SMALL = "t3.micro"  # any size would do: it is not started


def tried(
    caller: Caller, place: Place, connection: Connection, credential: Credential, system: str
) -> list[Permission]:
    """In the order in which a launch needs them. Raises BadCredential, ProviderUnavailable."""
    return list(_Check(caller, place, connection, schedules.switch(credential, place), system).all())


class _Check:
    def __init__(
        self, caller: Caller, place: Place, connection: Connection, switch: Switch | None, system: str
    ) -> None:
        self.caller, self.place, self.connection = caller, place, connection
        self.switch, self.system = switch, system
        self.purpose = connection.purpose

    def all(self) -> Iterator[Permission]:
        self.caller.ask("sts", "GetCallerIdentity")
        yield self._found("sts:GetCallerIdentity", say("to be told who it is there"), True)
        yield self._look("DescribeInstances", say("to see the machines that it started"))
        yield self._look("DescribeVolumes", say("to see their disks"))
        yield self._look("DescribeNetworkInterfaces", say("to see what else is left of them"))
        yield self._look("DescribeSecurityGroups", say("to see what shuts them off from your others"))
        if self.purpose is Purpose.LAUNCH:
            yield from self._buying()
        yield self._ending(
            "TerminateInstances", say("to end its machines"), self._ours("DescribeInstances"), "InstanceIds"
        )
        yield self._ending("DeleteSecurityGroup", say("to remove what it made for a machine"), "", "GroupId")
        if self.switch:
            yield self._scheduling(self.switch)

    def _scheduling(self, switch: Switch) -> Permission:
        """Nobody has to permit this: it is one net more."""
        name, why = "scheduler:ListSchedules", say("to have AWS itself end a machine at its hour")
        try:
            self.caller.ask_plainly("scheduler", "ListSchedules", GroupName=switch.group)
        except ClientError as refusal:
            if refusals.code_of(refusal) not in refusals.DENIED:
                return self._refused(name, why, refusal)
            return self._found(
                name,
                why,
                None,
                say("Not needed. Update the stack in your account with the script of this page to have this net, too."),
            )
        return self._found(name, why, True)

    def _buying(self) -> Iterator[Permission]:
        yield self._look("DescribeInstanceTypes", say("to see which sizes there are"))
        yield self._look("DescribeInstanceTypeOfferings", say("to see which sizes there are in each zone"))
        yield self._look("DescribeSubnets", say("to find a network"))
        image, permission = self._image()
        yield permission
        yield self._dry("CreateSecurityGroup", say("to shut a machine off from your others"), GroupName="anybinder-check",
                        Description="A dry run", TagSpecifications=self._tags("security-group"))  # fmt: skip
        if image:
            yield from self._run(image)
        else:
            yield self._found(
                "ec2:RunInstances", say("to start a machine"), None, say("It can be tried once an image is found.")
            )

    def _run(self, image: str) -> Iterator[Permission]:
        """One dry run decides on starting and on tagging both: AWS asks for the two together."""
        run = self._dry("RunInstances", say("to start a machine"), ImageId=image, InstanceType=SMALL, MinCount=1, MaxCount=1,
                        TagSpecifications=self._tags(*buying.CREATED))  # fmt: skip
        why = say("to mark what it starts, so that it is found and ended")
        if run.name == "ec2:CreateTags":
            yield self._found(
                "ec2:RunInstances", say("to start a machine"), None, say("It can be tried once tagging works.")
            )
            yield self._found(run.name, why, False, run.fix)
        else:
            yield run
            tags = "It can be tried once starting works." if run.works is False else ""
            yield self._found("ec2:CreateTags", why, run.works and True if not tags else None, tags)

    def _image(self) -> tuple[str, Permission]:
        why = say("to find the current image of the operating system")
        try:
            found = self.caller.ask_plainly("ssm", "GetParameters", Names=images.parameters(self.system, "x86_64"))
        except ClientError as refusal:
            return "", self._refused("ssm:GetParameters", why, refusal)
        image = next((each["Value"] for each in found["Parameters"]), "")
        return image, self._found("ssm:GetParameters", why, True)

    def _look(self, operation: str, why: str) -> Permission:
        return self._dry(operation, why)

    def _ending(self, operation: str, why: str, target: str, name: str) -> Permission:
        """Permitted for what carries our tag only, so there must be something of ours to try it on."""
        if not target:
            return self._found(f"ec2:{operation}", why, None, say("It is tried as soon as something of ours is there."))
        return self._dry(operation, why, **{name: [target]})

    def _ours(self, operation: str) -> str:
        marked = [{"Name": "tag:anybinder-broker", "Values": [self.connection.broker or "-"]}]
        try:
            found = self.caller.ask_plainly("ec2", operation, Filters=marked)
        except ClientError:
            return ""
        machines = (machine for each in found["Reservations"] for machine in each["Instances"])
        return next((each["InstanceId"] for each in machines if each["State"]["Name"] != "terminated"), "")

    def _tags(self, *kinds: str) -> list[dict[str, Any]]:
        names = {"anybinder-broker": self.connection.broker, "anybinder-launch": "check"}
        tags = [{"Key": name, "Value": value} for name, value in names.items()]
        return [{"ResourceType": kind, "Tags": tags} for kind in kinds]

    def _dry(self, operation: str, why: str, **parameters: Any) -> Permission:
        name = f"ec2:{operation}"
        try:
            self.caller.ask_plainly("ec2", operation, DryRun=True, **parameters)
        except ClientError as refusal:
            return self._refused(name, why, refusal)
        return self._found(name, why, True)

    def _refused(self, name: str, why: str, refusal: ClientError) -> Permission:
        code = refusals.code_of(refusal)
        if code == "DryRunOperation":
            return self._found(name, why, True)
        if code in refusals.DENIED:
            return self._denied(name, why, refusal)
        if code in networks.NONE:
            return self._found(name, why, False, networks.missing(self.place.region))
        try:
            with refusals.meant(name):
                raise refusal
        except InvalidOrder as odd:
            return self._found(name, why, None, str(odd))
        except NoCapacity:
            return self._found(name, why, True)  # permitted, and nothing was free for the dry run
        except (PermissionMissing, QuotaExceeded) as missing:
            return self._found(name, why, False, str(missing))

    def _denied(self, name: str, why: str, refusal: ClientError) -> Permission:
        """AWS may name another action than was asked: starting a machine tags it, too."""
        name = refusals.lacking(refusal) or name
        role = "Launch" if self.purpose is Purpose.LAUNCH else "Reap"
        if self.connection.kind == "web_identity":
            fix = say(
                "Run the script again: it gives %(name)s back to the role Anybinder%(role)s-%(subject)s.",
                name=name,
                role=role,
                subject=self.connection.subject,
            )
            if "explicit deny" in refusals.words_of(refusal):
                fix = say(
                    "A policy of your organisation denies %(name)s. Ask whoever looks after your AWS organisation.",
                    name=name,
                )
        else:
            fix = say(
                "Permit %(name)s in %(region)s to the user of this key (IAM → Users → Add permissions).",
                name=name,
                region=self.place.region,
            )
        return self._found(name, why, False, fix)

    def _found(self, name: str, why: str, works: bool | None, fix: str = "") -> Permission:
        return Permission(name=name, purpose=self.purpose, why=why, works=works, fix=fix)
