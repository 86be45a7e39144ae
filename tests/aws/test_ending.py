"""What is left of an order, by EC2's own lists, and how it goes: the machine first, its group after it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from providers.base import InstanceState
from providers.errors import BadCredential, PermissionMissing, ProviderError, ProviderUnavailable
from tests.aws.purchases import OverPurchases, asked
from tests.providers.aws_account import BROKER, LAUNCH, REAP, TAG, token

STOPPING, GONE = InstanceState.STOPPING, InstanceState.GONE


class TestEnding(OverPurchases):
    def test_the_group_goes_after_the_machine(self, aws, account, provider, credential, buy, clock):
        bought = buy()
        provider.terminate(credential, bought.id, bought.tag.order)
        assert not asked(aws, "DeleteSecurityGroup"), "it would be refused"
        clock.advance(30)
        seen = provider.describe(credential, bought.id)
        assert (seen.state, sorted(part[:3] for part in seen.parts)) == (STOPPING, ["any", "sg-"])
        assert [each.id for each in provider.instances(credential, BROKER)] == [bought.id]
        provider.terminate(credential, bought.id, bought.tag.order)
        assert provider.describe(credential, bought.id).state is GONE
        assert (provider.instances(credential, BROKER), account.marked()) == ([], [])

    def test_a_group_that_a_machine_still_holds_is_no_error(self, aws, account, provider, credential, buy, clock, end):
        bought = buy()
        provider.terminate(credential, bought.id, bought.tag.order)
        clock.advance(30)
        aws.fail("DeleteSecurityGroup", 400, "DependencyViolation", "resource sg-1 has a dependent object", times=3)
        assert end(credential, bought) > 2
        assert account.marked() == []

    def test_a_machine_that_its_person_has_protected_says_so_and_is_ended_once_it_is_free(
        self, aws, provider, credential, buy, end
    ):
        bought = buy()
        aws.fail("TerminateInstances", 400, "OperationNotPermitted", "The instance 'i-1' may not be terminated.")
        with pytest.raises(PermissionMissing, match=r"may not be terminated\)\. .*Change termination protection"):
            provider.terminate(credential, bought.id, bought.tag.order)
        end(credential, bought)

    def test_switching_off_ends_the_bill_and_the_rest_is_told(
        self, aws, account, provider, credential, buy, clock, end
    ):
        bought = buy()
        clock.advance(30)
        provider.describe(credential, bought.id)
        aws.power_off(bought.id)
        clock.advance(30)
        seen = provider.describe(credential, bought.id)
        assert (seen.state, "Instance initiated shutdown" in seen.detail) == (STOPPING, True)
        assert [part for part in account.marked() if part.startswith(("i-", "vol-", "eni-"))] == [], "nothing is billed"
        end(credential, bought)

    def test_it_is_gone_when_ec2_has_forgotten_it(self, provider, buy, end, reaper, clock):
        bought = buy()
        end(reaper(), bought)
        clock.advance(timedelta(hours=2).total_seconds())
        assert provider.describe(self.kept(reaper, clock), bought.id).state is GONE

    def kept(self, reaper, clock):
        clock.ahead = timedelta(0)  # tokens are signed by our own clock
        return reaper()

    def test_who_may_only_end_finishes_every_end(self, provider, account, credential, reaper, buy, end):
        end(reaper(), buy())
        assert account.marked() == []

    def test_who_may_only_end_does_so_after_the_launchs_credential_is_over(
        self, aws, provider, account, issuer, credential, reaper, buy, end, clock
    ):
        bought = buy()
        ends = reaper()
        over = replace(aws.exchanges.principals[credential.secret["access_key_id"]], ends=clock())
        aws.exchanges.principals[credential.secret["access_key_id"]] = over
        with pytest.raises(BadCredential):
            provider.terminate(credential, bought.id, bought.tag.order)
        end(ends, bought)
        assert account.marked() == []

    def test_who_may_only_end_cannot_buy(self, provider, reaper, make_order):
        with pytest.raises(PermissionMissing):
            provider.provision(reaper(), make_order())

    def test_a_half_made_order_is_listed_and_ended_by_who_may_only_end(
        self, aws, provider, account, credential, reaper, make_order, clock
    ):
        aws.fault("RunInstances", "half")
        order = make_order()
        with pytest.raises(ProviderError):
            provider.provision(credential, order)
        (left,) = provider.instances(reaper(), BROKER)
        assert (left.tag, left.state) == (order.tag, STOPPING)
        assert {part[:3] for part in left.parts} == {"vol", "eni", "sg-"}
        assert provider.describe(reaper(), left.id).state is STOPPING
        for _ in range(2):
            provider.terminate(reaper(), left.id, order.id)
        assert provider.describe(reaper(), left.id).state is GONE
        assert account.marked() == []

    def test_a_schedule_that_is_left_alone_is_found(self, aws, provider, account, credential, reaper, buy, end, clock):
        bought = buy()
        aws.fail("DeleteSchedule", 500, "InternalServerException", "no", times=1)
        with pytest.raises(ProviderUnavailable):
            end(reaper(), bought)
        clock.advance(timedelta(minutes=1).total_seconds())
        left = provider.instances(reaper(), BROKER)
        assert [each.tag for each in left] == [bought.tag]
        end(reaper(), bought)
        assert account.marked() == []

    def test_a_schedule_alone_is_an_order_of_its_own(self, aws, provider, account, credential, reaper, buy, clock):
        bought = buy()
        aws.machines.lives[bought.id].ends_at = clock()
        aws.tick()
        group = next(part for part in account.marked() if part.startswith("sg-"))
        account.client("ec2").delete_security_group(GroupId=group)
        del aws.machines.lives[bought.id]
        from moto.ec2.models import ec2_backends

        ec2_backends[account.number][aws.region].reservations.clear()
        (left,) = provider.instances(reaper(), BROKER)
        assert (left.id, left.tag) == (f"anybinder-{bought.tag.order}", bought.tag)
        provider.terminate(reaper(), left.id, bought.tag.order)
        assert provider.describe(reaper(), left.id).state is GONE
        assert provider.instances(reaper(), BROKER) == []

    def test_a_launchs_credential_ends_no_other_launch(self, provider, account, issuer, credential, buy):
        other, mine = buy(launch="another"), buy(launch=TAG.launch)
        for connection in (replace(LAUNCH, tag=TAG), replace(REAP, tag=TAG)):
            narrow = provider.sign_in(connection, token(issuer, connection))
            with pytest.raises(PermissionMissing, match="ec2:TerminateInstances is not permitted"):
                provider.terminate(narrow, other.id, other.tag.order)
        provider.terminate(narrow, mine.id, mine.tag.order)
        assert provider.describe(credential, other.id).state is not STOPPING

    def test_the_persons_own_machines_are_never_seen(self, provider, account, credential):
        account.run()
        account.run(anybinder_broker="another")
        assert provider.instances(credential, BROKER) == []

    def test_more_than_a_page_of_machines_is_listed(self, aws, provider, account, credential, buy):
        """moto's own pages are of a hundred."""
        for _ in range(3):
            buy()
        ec2 = account.client("ec2")
        marks = [{"Key": key, "Value": value} for key, value in TAG.as_labels().items()]
        image = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
        for _ in range(2):
            ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.micro",
                              TagSpecifications=[{"ResourceType": "instance", "Tags": marks}])  # fmt: skip
        assert len(provider.instances(credential, BROKER)) == 5

    def test_the_console_of_a_machine_that_never_dials_out(self, aws, provider, credential, buy):
        bought = buy()
        assert provider.logs(credential, bought.id) == ""
        aws.write(bought.id, "anybinder: no network\n")
        assert provider.logs(credential, bought.id) == "anybinder: no network\n"
