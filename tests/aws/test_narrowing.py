"""What a credential can really do in the account, and how a person is told what is missing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from providers.aws import clients, narrowing
from providers.base import Connection, Purpose
from providers.errors import (
    PermissionMissing,
)
from tests.providers.aws_account import BROKER, LAUNCH, REAP, SUBJECT, TAG, TRUST, OverAws, token


class TestNarrowing(OverAws):
    """What a credential can really do in the account, tried with boto3."""

    @pytest.fixture
    def tags(self):
        names = {"anybinder-broker": BROKER, "anybinder-launch": TAG.launch}
        return [{"Key": name, "Value": value} for name, value in names.items()]

    def run(self, caller, tags, kinds=("instance", "volume", "network-interface")):
        marks = [{"ResourceType": kind, "Tags": tags} for kind in kinds]
        image = caller.ask("ssm", "GetParameters", Names=["/aws/service/debian/release/13/latest/amd64"])
        return caller.ask("ec2", "RunInstances", ImageId=image["Parameters"][0]["Value"], InstanceType="t3.micro",
                          MinCount=1, MaxCount=1, TagSpecifications=marks)["Instances"][0]["InstanceId"]  # fmt: skip

    def signed_in(self, provider, issuer, connection=LAUNCH):
        credential = provider.sign_in(connection, token(issuer, connection))
        return clients.Caller(provider.place, credential.secret)

    def test_it_starts_and_ends_what_is_marked(self, provider, account, issuer, tags):
        caller = self.signed_in(provider, issuer)
        machine = self.run(caller, tags)
        caller.ask("ec2", "TerminateInstances", InstanceIds=[machine])

    def test_it_starts_nothing_unmarked_and_touches_nothing_else(self, provider, account, issuer, tags):
        caller, mine = self.signed_in(provider, issuer), account.run()
        refused = (
            lambda: self.run(caller, tags, kinds=("instance",)),
            lambda: self.run(caller, [{"Key": "anybinder-broker", "Value": "another"}]),
            lambda: caller.ask("ec2", "TerminateInstances", InstanceIds=[mine]),
            lambda: caller.ask("ec2", "CreateTags", Resources=[mine], Tags=tags),
            lambda: caller.ask("iam", "ListUsers"),
            lambda: caller.ask("s3", "ListBuckets"),
        )
        for attempt in refused:
            with pytest.raises(PermissionMissing):
                attempt()

    def test_it_does_nothing_in_another_region(self, provider, account, issuer, tags):
        credential = provider.sign_in(LAUNCH, token(issuer))
        elsewhere = clients.Caller(replace(provider.place, region="us-east-1"), credential.secret)
        with pytest.raises(PermissionMissing):
            elsewhere.ask("ec2", "DescribeInstances")

    def test_who_ends_cannot_start(self, provider, account, issuer, tags):
        machine = account.run(anybinder_broker=BROKER)
        caller = self.signed_in(provider, issuer, REAP)
        caller.ask("ec2", "DescribeInstances")
        with pytest.raises(PermissionMissing):
            self.run(caller, tags)
        caller.ask("ec2", "TerminateInstances", InstanceIds=[machine])

    def test_a_launchs_credential_reaches_that_launch_only(self, provider, account, issuer, tags):
        another = account.run(anybinder_broker=BROKER, anybinder_launch="another")
        caller = self.signed_in(provider, issuer, replace(LAUNCH, tag=TAG))
        machine = self.run(caller, tags)
        with pytest.raises(PermissionMissing):
            caller.ask("ec2", "TerminateInstances", InstanceIds=[another])
        with pytest.raises(PermissionMissing):
            self.run(caller, [{"Key": "anybinder-broker", "Value": BROKER}, {"Key": "anybinder-launch", "Value": "x"}])
        caller.ask("ec2", "DescribeInstances")
        caller.ask("ec2", "TerminateInstances", InstanceIds=[machine])

    def test_the_limits_are_as_short_as_aws_takes_them(self):
        longest = replace(TAG, broker="b" * 64, launch="l" * 64)
        assert all(len(narrowing.policy(longest, purpose)) <= narrowing.POLICY_MOST for purpose in Purpose)


class TestChecking(OverAws):
    def check(self, provider, issuer, connection=LAUNCH):
        return provider.check(connection, provider.sign_in(connection, token(issuer, connection)))

    def test_everything_is_there(self, provider, account, issuer):
        found = {each.name: each.works for each in self.check(provider, issuer)}
        assert found == {
            "sts:GetCallerIdentity": True,
            "ec2:DescribeInstances": True,
            "ec2:DescribeVolumes": True,
            "ec2:DescribeNetworkInterfaces": True,
            "ec2:DescribeSecurityGroups": True,
            "ec2:DescribeInstanceTypes": True,
            "ec2:DescribeInstanceTypeOfferings": True,
            "ec2:DescribeSubnets": True,
            "ssm:GetParameters": True,
            "ec2:CreateSecurityGroup": True,
            "ec2:RunInstances": True,
            "ec2:CreateTags": True,
            "ec2:TerminateInstances": None,
            "ec2:DeleteSecurityGroup": None,
            "scheduler:ListSchedules": True,
        }
        assert [each.name for each in self.check(provider, issuer, REAP)][:2] == [
            "sts:GetCallerIdentity",
            "ec2:DescribeInstances",
        ]

    def test_ending_is_tried_on_what_is_there(self, provider, account, issuer):
        account.run(anybinder_broker=BROKER)
        assert {each.name: each.works for each in self.check(provider, issuer, REAP)}["ec2:TerminateInstances"] is True

    def test_nothing_is_made(self, provider, account, issuer):
        ec2 = account.client("ec2")
        before = len(ec2.describe_instances()["Reservations"]), len(ec2.describe_security_groups()["SecurityGroups"])
        self.check(provider, issuer)
        assert before == (
            len(ec2.describe_instances()["Reservations"]),
            len(ec2.describe_security_groups()["SecurityGroups"]),
        )

    @pytest.mark.parametrize(
        ("removed", "named"),
        [
            ("ec2:RunInstances", "ec2:RunInstances"),
            ("ec2:CreateTags", "ec2:CreateTags"),
            ("ssm:GetParameters", "ssm:GetParameters"),
            ("ec2:Describe*", "ec2:DescribeSubnets"),
            ("ec2:CreateSecurityGroup", "ec2:CreateSecurityGroup"),
        ],
    )
    def test_what_is_missing_is_named_with_its_fix(self, provider, account, issuer, removed, named):
        iam, name = account.client("iam"), f"AnybinderLaunch-{SUBJECT}"
        document = iam.get_role_policy(RoleName=name, PolicyName="launch")["PolicyDocument"]
        for statement in document["Statement"]:
            statement["Action"] = [each for each in statement["Action"] if each != removed] or ["ec2:Nothing"]
        iam.put_role_policy(RoleName=name, PolicyName="launch", PolicyDocument=json.dumps(document))
        found = {each.name: each for each in self.check(provider, issuer)}
        assert found[named].works is False
        assert found[named].fix == f"Run the script again: it gives {named} back to the role {name}."
        assert found[named].fix.endswith(".")

    def test_an_account_without_a_network_is_told_how_to_make_one(self, provider, account, issuer, aws):
        aws.fail("RunInstances", 400, "VPCIdNotSpecified", "No default VPC for this user")
        found = {each.name: each for each in self.check(provider, issuer)}["ec2:RunInstances"]
        assert (found.works, "aws ec2 create-default-vpc --region eu-central-1" in found.fix) == (False, True)

    def test_what_cannot_be_told_is_not_guessed(self, provider, account, issuer, aws):
        aws.fail("RunInstances", 400, "InvalidParameterCombination", "Not like this")
        found = {each.name: each for each in self.check(provider, issuer)}["ec2:RunInstances"]
        assert (found.works, "InvalidParameterCombination" in found.fix) == (None, True)

    def test_the_users_policy_of_the_guide_is_enough_for_a_key(self, provider, account):
        policy = provider.guide("access_key", TRUST, {}).download["anybinder-policy.json"]
        key, secret = account.access_key(policy)
        connection = Connection(kind="access_key", settings={"access_key_id": key}, secret=secret, broker=BROKER)
        assert False not in [each.works for each in provider.check(connection, provider.sign_in(connection, None))]
