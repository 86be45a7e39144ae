"""The double of AWS, asked with boto3 alone: machines live, boot, end and are forgotten as EC2's do, by a clock of ours."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from tests.doubles import aws_images
from tests.doubles.aws_double import AwsDouble
from tests.providers.aws_account import Clock, OverAws


class TestMachines(OverAws):
    @pytest.fixture
    def ec2(self, account):
        return account.client("ec2")

    @pytest.fixture
    def run(self, aws, ec2):
        image = aws_images.image_of("/aws/service/debian/release/12/latest/amd64", aws.region)

        def run(**asked):
            wanted = {"ImageId": image, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, **asked}
            return ec2.run_instances(**wanted)["Instances"][0]

        return run

    @pytest.fixture
    def state(self, ec2):
        def state(number):
            return ec2.describe_instances(InstanceIds=[number])["Reservations"][0]["Instances"][0]["State"]["Name"]

        return state

    def test_one_boots_ends_and_is_forgotten(self, run, state, ec2, clock):
        number = run()["InstanceId"]
        assert state(number) == "pending"
        clock.advance(20)
        assert state(number) == "running"
        ec2.terminate_instances(InstanceIds=[number])
        assert state(number) == "shutting-down"
        assert ec2.describe_volumes()["Volumes"], "its disk is there for as long"
        clock.advance(20)
        assert state(number) == "terminated"
        assert (ec2.describe_volumes()["Volumes"], ec2.describe_network_interfaces()["NetworkInterfaces"]) == ([], [])
        clock.advance(3600)
        with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
            state(number)

    def test_ending_it_again_changes_nothing(self, run, state, ec2, clock):
        number = run()["InstanceId"]
        ec2.terminate_instances(InstanceIds=[number])
        clock.advance(15)
        ec2.terminate_instances(InstanceIds=[number])
        clock.advance(5)
        assert state(number) == "terminated"

    @pytest.mark.parametrize(("behaviour", "becomes"), [("terminate", "terminated"), ("stop", "stopped")])
    def test_switching_off_means_what_was_asked_at_birth(self, aws, run, state, clock, behaviour, becomes):
        number = run(InstanceInitiatedShutdownBehavior=behaviour)["InstanceId"]
        clock.advance(20)
        aws.tick()
        aws.power_off(number)
        clock.advance(20)
        assert state(number) == becomes

    def test_whoever_stands_for_the_machines_is_told(self, aws, run, ec2, clock):
        told = []
        aws.machines.on_running = lambda number, user_data, tags: told.append(("on", number, user_data, tags))
        aws.machines.on_end = lambda number: told.append(("off", number))
        marks = [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}]
        number = run(UserData="hello", TagSpecifications=marks)["InstanceId"]
        aws.tick()
        assert told == []
        clock.advance(20)
        aws.tick()
        assert told == [("on", number, "aGVsbG8=", {"a": "b"})]
        ec2.terminate_instances(InstanceIds=[number])
        ec2.terminate_instances(InstanceIds=[number])
        assert told[1:] == [("off", number)]

    def test_a_token_starts_one_machine_however_many_bring_it_at_once(self, run, ec2):
        with ThreadPoolExecutor(4) as threads:
            numbers = {found["InstanceId"] for found in threads.map(lambda _: run(ClientToken="one"), range(4))}
        assert len(numbers) == 1
        assert len(ec2.describe_instances()["Reservations"]) == 1

    def test_a_token_with_something_else_is_refused(self, run):
        run(ClientToken="one")
        with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
            run(ClientToken="one", InstanceType="t3.small")

    def test_a_token_starts_nothing_again_when_its_machine_has_ended(self, run, ec2, clock):
        number = run(ClientToken="one")["InstanceId"]
        ec2.terminate_instances(InstanceIds=[number])
        for _ in range(3):
            with pytest.raises(ClientError, match="IdempotentInstanceTerminated"):
                run(ClientToken="one")
            clock.advance(1800)

    def test_a_group_that_is_used_cannot_be_deleted(self, run, ec2, clock):
        group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
        number = run(SecurityGroupIds=[group])["InstanceId"]
        ec2.terminate_instances(InstanceIds=[number])
        with pytest.raises(ClientError, match="DependencyViolation"):
            ec2.delete_security_group(GroupId=group)
        clock.advance(20)
        ec2.delete_security_group(GroupId=group)

    @pytest.mark.parametrize(
        ("asked", "code"),
        [
            ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
            ({"InstanceType": "t4g.micro"}, "InvalidParameterValue"),
            ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
            ({"UserData": "x" * 16_390}, "InvalidParameterValue"),
        ],
    )
    def test_what_ec2_would_not_start_is_not_started(self, run, ec2, asked, code):
        with pytest.raises(ClientError, match=code):
            run(**asked)
        assert ec2.describe_instances()["Reservations"] == []

    def test_what_is_new_may_not_be_shown_yet(self, aws, run, ec2, clock):
        aws.machines.hide_seconds = 60
        group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
        number = run(SecurityGroupIds=[group])["InstanceId"]
        assert ec2.describe_instances()["Reservations"] == []
        assert ec2.describe_volumes()["Volumes"] == []
        assert group not in [each["GroupId"] for each in ec2.describe_security_groups()["SecurityGroups"]]
        with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
            ec2.describe_instances(InstanceIds=[number])
        clock.advance(60)
        assert len(ec2.describe_instances()["Reservations"]) == 1

    def test_accounts_do_not_see_one_another(self, aws, run, ec2):
        run()
        other = aws.account("999999999999").client("ec2")
        assert other.describe_instances()["Reservations"] == []

    def test_an_answer_can_be_lost_after_the_call_took_effect(self, aws, run, ec2):
        aws.fault("RunInstances", "lost")
        with pytest.raises(HTTPClientError):
            run(ClientToken="one")
        assert len(ec2.describe_instances()["Reservations"]) == 1

    def test_the_record_shows_no_secret(self, aws, run):
        run(UserData="a-secret")
        assert "a-secret" not in str(aws.requests)
        assert "YS1zZWNyZXQ" not in str(aws.requests)


class TestTheModels:
    """What AWS's own SDK does not describe is noticed, whoever asks it."""

    def test_a_parameter_that_aws_does_not_have_breaks_the_test(self):
        with pytest.raises(AssertionError, match="Telepathy"), AwsDouble(clock=Clock()) as aws:
            ec2 = aws.account().client("ec2")
            ec2.meta.events.register("before-call.ec2.DescribeInstances", spoil)
            with pytest.raises(ClientError, match="ValidationError"):
                ec2.describe_instances()

    def test_an_action_that_aws_does_not_have_breaks_the_test(self):
        with pytest.raises(AssertionError, match="has no"), AwsDouble(clock=Clock()) as aws:
            connection = http.client.HTTPConnection("127.0.0.1", int(aws.url.rpartition(":")[2]), timeout=10)
            scope = "AWS4-HMAC-SHA256 Credential=AKIAX/20261128/eu-central-1/ec2/aws4_request, SignedHeaders=host, Signature=0"
            headers = {"Authorization": scope, "Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", "/", "Action=ReadMinds", headers)
            assert connection.getresponse().status == 400
            connection.close()


def spoil(params, **_):
    params["body"]["Telepathy"] = "yes"
