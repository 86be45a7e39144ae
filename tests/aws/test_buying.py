"""What is asked of EC2 for one order, how often it is bought, and what a person reads when it is refused."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from providers.aws import AwsProvider, images, schedules
from providers.base import InstanceState, Resources
from providers.errors import InvalidOrder, NoCapacity, PermissionMissing, ProviderUnavailable, QuotaExceeded
from tests.aws.purchases import USER_DATA, OverPurchases, asked
from tests.doubles import aws_images
from tests.providers.aws_account import BROKER, LAUNCH, SUBJECT, TAG, token


class TestTheRequest(OverPurchases):
    @pytest.fixture
    def run(self, aws, buy):
        """The parameters of the one RunInstances."""
        buy()
        (request,) = asked(aws, "RunInstances")
        return request.parameters

    def test_the_orders_id_is_the_token(self, aws, provider, credential, make_order):
        order = make_order()
        provider.provision(credential, order)
        assert asked(aws, "RunInstances")[0].parameters["ClientToken"] == order.id

    def test_the_metadata_service_wants_a_session_and_answers_one_hop_far(self, run):
        assert run["MetadataOptions"] == {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        }

    def test_the_disk_is_encrypted_and_goes_with_the_machine(self, run, account):
        (disk,) = run["BlockDeviceMappings"]
        assert disk["DeviceName"] == "/dev/xvda"
        assert disk["Ebs"] == {"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True, "VolumeSize": 30}
        assert len(account.client("ec2").describe_volumes()["Volumes"]) == 1, "no second disk beside the image's own"

    def test_switching_itself_off_ends_it(self, run):
        assert run["InstanceInitiatedShutdownBehavior"] == "terminate"

    def test_nobody_can_sign_in_and_it_has_no_rights_in_the_account(self, run):
        assert not {"KeyName", "IamInstanceProfile"} & set(run)

    def test_its_group_lets_nobody_in(self, run, account):
        (group,) = account.client("ec2").describe_security_groups(GroupIds=run["SecurityGroupIds"])["SecurityGroups"]
        assert group["IpPermissions"] == []
        assert [machine["SecurityGroups"] for machine in machines(account)] == [
            [{"GroupId": group["GroupId"], "GroupName": group["GroupName"]}]
        ]

    def test_all_of_it_is_marked_by_the_creating_call(self, aws, run, account):
        assert {each["ResourceType"] for each in run["TagSpecifications"]} == {
            "instance",
            "volume",
            "network-interface",
        }
        assert account.unmarked() == []
        assert len(account.marked("anybinder-broker", BROKER)) == 5  # with its group and its schedule
        assert not [each for each in aws.requests if each.action == "CreateTags"]

    def test_user_data_is_handed_over_as_it_is(self, aws, run, buy):
        (life,) = aws.machines.lives.values()
        assert base64.b64decode(life.user_data).decode() == USER_DATA
        assert run["UserData"] == "…", "the record shows no secret"

    def test_user_data_that_ec2_would_refuse_is_not_sent(self, aws, buy):
        buy(user_data="x" * 16_384)
        with pytest.raises(InvalidOrder, match="longer than EC2 takes"):
            buy(user_data="x" * 16_385)

    def test_a_larger_disk_where_one_is_asked_for(self, aws, provider, credential, buy):
        offer = provider.offers(credential, Resources(disk_gb=200))[0]
        assert offer.resources.disk_gb == 200
        buy(offer)
        assert asked(aws, "RunInstances")[0].parameters["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 200

    def test_an_arm_machine_starts_from_an_image_for_arm(self, aws, provider, credential, buy):
        offer = next(each for each in provider.offers(credential, Resources()) if each.architecture == "arm64")
        buy(offer)
        image = asked(aws, "RunInstances")[0].parameters["ImageId"]
        assert image == aws_images.image_of("/aws/service/debian/release/13/latest/arm64", aws.region)

    def test_a_spot_machine_is_asked_for_once_and_ended_when_it_is_taken_away(
        self, aws, provider, credential, buy, end
    ):
        offer = next(each for each in provider.offers(credential, Resources()) if each.risk)
        bought = buy(offer)
        run = asked(aws, "RunInstances")[0].parameters
        assert run["InstanceMarketOptions"]["MarketType"] == "spot"
        assert run["InstanceMarketOptions"]["SpotOptions"]["SpotInstanceType"] == "one-time"
        assert "spot-instances-request" in {each["ResourceType"] for each in run["TagSpecifications"]}
        aws.take_away(bought.id)
        seen = provider.describe(credential, bought.id)
        assert (seen.state, "Spot instance termination" in seen.detail) == (InstanceState.STOPPING, True)
        end(credential, bought)

    def test_ubuntu_where_the_operator_says_so(self, aws, provider, credential, make_order):
        ubuntu = AwsProvider({**provider.configuration, "system": "ubuntu"})
        ubuntu.provision(credential, make_order())
        run = asked(aws, "RunInstances")[0].parameters
        assert run["BlockDeviceMappings"][0]["DeviceName"] == "/dev/sda1"
        assert len([life.machine.get_block_device_mapping for life in aws.machines.lives.values()]) == 1

    def test_named_subnets_bring_their_network(self, aws, provider, account, credential, make_order):
        subnet = account.client("ec2").describe_subnets()["Subnets"][0]
        there = AwsProvider({**provider.configuration, "subnets": subnet["SubnetId"]})
        offers = there.offers(credential, Resources())
        assert {offer.zone for offer in offers} == {subnet["AvailabilityZone"]}
        there.provision(credential, make_order(offers[0]))
        assert asked(aws, "RunInstances")[0].parameters["SubnetId"] == subnet["SubnetId"]
        assert asked(aws, "CreateSecurityGroup")[0].parameters["VpcId"] == subnet["VpcId"]


class TestOnce(OverPurchases):
    """However often it is asked for."""

    def test_a_machine_that_is_bought_twice_at_once_is_one(self, provider, account, credential, make_order):
        order = make_order()
        with ThreadPoolExecutor(3) as threads:
            bought = list(threads.map(lambda _: provider.provision(credential, order), range(3)))
        assert len({each.id for each in bought}) == 1
        assert len(machines(account)) == 1

    def test_a_newer_image_between_two_tries_buys_nothing_twice(self, aws, provider, account, credential, make_order):
        order = make_order()
        bought = provider.provision(credential, order)
        aws.withdrawn = set(images.parameters("debian", "arm64")[:1] + images.parameters("debian", "x86_64")[:1])
        assert provider.provision(credential, order).id == bought.id
        assert ("RunInstances", "IdempotentParameterMismatch") in aws.calls
        assert len(machines(account)) == 1

    def test_what_ec2_does_not_show_yet_is_asked_for_again_later(self, aws, provider, credential, make_order):
        order = make_order()
        aws.machines.hide_seconds = 60
        provider.provision(credential, order)
        with pytest.raises(ProviderUnavailable, match="does not show it yet"):
            provider.provision(credential, order)

    def test_a_group_that_ec2_does_not_know_yet_is_no_refusal_of_the_order(self, aws, provider, credential, make_order):
        aws.fail("RunInstances", 400, "InvalidGroup.NotFound", "The security group 'sg-1' does not exist")
        order = make_order()
        with pytest.raises(ProviderUnavailable):
            provider.provision(credential, order)
        assert provider.provision(credential, order).state is InstanceState.PENDING

    def test_an_order_that_ended_before_ec2_forgot_it_is_not_bought_again(
        self, provider, account, credential, make_order, end, clock
    ):
        order = make_order()
        end(credential, provider.provision(credential, order))
        clock.advance(2 * 3600)
        fresh = self.signed_in_again(provider, account)
        assert provider.provision(fresh, order).state is InstanceState.GONE
        assert account.marked() == []

    def signed_in_again(self, provider, account):
        key, secret = account.access_key()
        connection = replace(LAUNCH, kind="access_key", settings={"access_key_id": key}, secret=secret)
        return provider.sign_in(connection, None)


class TestRefusals(OverPurchases):
    @pytest.mark.parametrize(
        ("status", "code", "meant", "said"),
        [
            (500, "InsufficientInstanceCapacity", NoCapacity, "no such machine free there right now"),
            (400, "Unsupported", NoCapacity, "This zone has no such machines"),
            (400, "InsufficientFreeAddressesInSubnet", NoCapacity, "network of this zone is full"),
            (400, "SpotMaxPriceTooLow", NoCapacity, "not a spot machine"),
            (400, "VcpuLimitExceeded", QuotaExceeded, "“Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances”"),
            (400, "MaxSpotInstanceCountExceeded", QuotaExceeded, "“All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance"),
            (400, "VolumeLimitExceeded", QuotaExceeded, "“Storage for General Purpose SSD (gp3) volumes, in TiB”"),
            (400, "InvalidAMIID.NotFound", InvalidOrder, "image that machines start from is gone"),
            (400, "VPCIdNotSpecified", InvalidOrder, "aws ec2 create-default-vpc --region eu-central-1"),
            (403, "AuthFailure.ServiceLinkedRoleCreationNotPermitted", PermissionMissing, "create-service-linked-role"),
            (403, "UnauthorizedOperation", PermissionMissing, "ec2:RunInstances is not permitted"),
            (403, "OptInRequired", PermissionMissing, "not activated for EC2"),
            (503, "RequestLimitExceeded", ProviderUnavailable, "for now"),
        ],
    )  # fmt: skip
    def test_each_has_its_sentence_and_leaves_nothing(self, aws, account, buy, status, code, meant, said):
        aws.fail("RunInstances", status, code, "AWS's words")
        with pytest.raises(meant) as refused:
            buy()
        assert type(refused.value) is meant
        assert said in str(refused.value)
        assert str(refused.value).endswith(".")
        assert account.marked() == []

    def test_a_refused_group_names_its_quota(self, aws, buy):
        aws.fail("CreateSecurityGroup", 400, "SecurityGroupLimitExceeded")
        with pytest.raises(QuotaExceeded, match="VPC security groups per Region"):
            buy()

    def test_a_permission_is_named_as_aws_names_it(self, aws, buy):
        aws.fail(
            "RunInstances", 403, "UnauthorizedOperation", "User: x is not authorized to perform: ec2:CreateTags on y"
        )
        with pytest.raises(PermissionMissing, match="ec2:CreateTags is not permitted"):
            buy()

    def test_an_account_without_a_network_is_told_how_to_make_one(self, aws, buy):
        aws.fail("CreateSecurityGroup", 400, "VPCIdNotSpecified", "No default VPC for this user")
        with pytest.raises(InvalidOrder, match="create-default-vpc"):
            buy()

    def test_an_image_that_is_published_no_more_has_its_sentence(self, aws, buy):
        aws.withdrawn = set(aws_images.PUBLISHED)
        with pytest.raises(InvalidOrder, match="AWS lists no stock image of Debian"):
            buy()

    def test_a_launchs_credential_buys_for_that_launch_only(self, provider, account, issuer, make_order):
        mine = provider.sign_in(replace(LAUNCH, tag=TAG), token(issuer))
        provider.provision(mine, make_order(launch=TAG.launch))
        with pytest.raises(PermissionMissing):
            provider.provision(mine, make_order(launch="another"))


class TestSchedules(OverPurchases):
    """AWS's own switch."""

    def test_it_ends_the_machine_a_little_after_its_hour_and_deletes_itself(
        self, aws, account, provider, credential, buy, clock
    ):
        bought = buy()
        (made,) = asked(aws, "CreateSchedule")
        at = (bought.tag.until + schedules.GRACE).strftime("%Y-%m-%dT%H:%M:%S")
        assert made.parameters["ScheduleExpression"] == f"at({at})"
        assert made.parameters["Target"]["RoleArn"].endswith(f":role/AnybinderEnd-{SUBJECT}")
        assert json.loads(made.parameters["Target"]["Input"]) == {"InstanceIds": [bought.id]}
        clock.advance(timedelta(hours=1, minutes=6).total_seconds())
        aws.tick()
        assert aws.machines.lives[bought.id].state == "shutting-down"
        assert aws.schedules.fired == [(f"anybinder-{bought.tag.order}", "")]
        clock.advance(60)
        aws.tick()
        assert [each for each in account.marked() if not each.startswith("sg-")] == []

    def test_it_ends_nothing_that_is_not_the_brokers(self, aws, account, provider, buy, clock):
        """Whatever a schedule says: the role that it signs in as may end marked machines alone."""
        buy()
        mine = account.run()
        due = aws.schedules.due[0]
        aws.schedules.due[0] = replace(due, machines=(mine,))
        clock.advance(2 * 3600)
        aws.tick()
        assert aws.machines.lives[mine].state == "running"
        assert "no identity-based policy allows" in aws.schedules.fired[0][1]

    @pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException", "ThrottlingException"])
    def test_a_machine_is_bought_without_one_too(self, aws, buy, end, credential, code):
        aws.fail("CreateSchedule", 403, code, "no")
        bought = buy()
        assert bought.state is InstanceState.PENDING
        assert not [part for part in bought.parts if part.startswith("anybinder-")]
        end(credential, bought)

    def test_an_account_may_do_without(self, aws, account, provider, credential, make_order, end):
        account.deploy(self.template(provider), Schedules="no")
        found = {each.name: each for each in provider.check(LAUNCH, credential)}
        assert found["ec2:RunInstances"].works is True
        end(credential, provider.provision(credential, make_order()))

    def template(self, provider):
        from providers.aws import guides
        from tests.providers.aws_account import TRUST

        return provider.guide("web_identity", TRUST, {}).download[guides.TEMPLATE]


def machines(account):
    return [each for page in account.client("ec2").describe_instances()["Reservations"] for each in page["Instances"]]
