"""What is offered: types and zones that there are, cheapest first, each bound to one zone."""

from __future__ import annotations

from itertools import groupby

import pytest

from providers.aws import AwsProvider, offers, sizes
from providers.base import Resources
from providers.errors import InvalidOrder
from tests.aws.purchases import OverPurchases, asked


class TestOffers(OverPurchases):
    @pytest.fixture
    def found(self, provider, credential):
        return lambda **asked: provider.offers(credential, Resources(**asked))

    def test_the_zones_of_one_type_come_one_after_another(self, found):
        ways = [(offers.chosen(each.id).machine, bool(each.risk)) for each in found()]
        assert len([key for key, _ in groupby(ways)]) == len(set(ways))
        first = [each.zone for each in found()[:3]]
        assert first == ["eu-central-1a", "eu-central-1b", "eu-central-1c"]

    def test_a_price_has_its_source_and_its_day_and_what_is_not_known_comes_last(self, found):
        known = [each.price_per_hour is not None for each in found()]
        assert known == sorted(known, reverse=True)
        assert all(each.price_source and each.price_as_of for each in found() if each.price_per_hour is not None)
        assert 0 not in [each.price_per_hour for each in found()]

    def test_the_list_is_short(self, found):
        assert 0 < len({offers.chosen(each.id).machine for each in found()}) <= offers.MOST

    def test_a_spot_machine_names_its_risk(self, found):
        spot = [each for each in found() if offers.chosen(each.id).spot]
        assert spot
        assert all("may take it away" in each.risk for each in spot)
        assert not [each for each in found() if each.risk and not each.id.endswith(":spot")]

    def test_both_kinds_of_processors_unless_the_operator_says_otherwise(self, provider, credential, found):
        assert {each.architecture for each in found()} == {"x86_64", "arm64"}
        plain = AwsProvider({**provider.configuration, "architectures": "x86_64", "spot": "no"})
        offered = plain.offers(credential, Resources())
        assert {each.architecture for each in offered} == {"x86_64"}
        assert not [each for each in offered if each.risk]

    def test_a_graphics_card_only_for_whom_asks(self, found):
        assert not [each for each in found(memory_mb=16_000) if each.resources.gpu]
        with_card = found(gpu=1)
        assert with_card
        assert all((each.resources.gpu or 0) >= 1 and "NVIDIA" in each.title for each in with_card)

    def test_types_are_read_by_the_page(self, aws, found, monkeypatch):
        whole = found()
        monkeypatch.setattr(sizes, "PAGE", 10)
        assert found() == whole
        assert len(asked(aws, "DescribeInstanceTypes")) > 5

    def test_a_zone_without_a_subnet_is_not_offered(self, account, found):
        ec2 = account.client("ec2")
        gone = next(each for each in ec2.describe_subnets()["Subnets"] if each["AvailabilityZone"].endswith("a"))
        ec2.delete_subnet(SubnetId=gone["SubnetId"])
        assert {each.zone for each in found()} == {"eu-central-1b", "eu-central-1c"}

    def test_an_account_without_a_network_is_told_how_to_make_one(self, account, found):
        ec2 = account.client("ec2")
        for each in ec2.describe_subnets()["Subnets"]:
            ec2.delete_subnet(SubnetId=each["SubnetId"])
        with pytest.raises(InvalidOrder, match="aws ec2 create-default-vpc --region eu-central-1"):
            found()

    @pytest.mark.parametrize(
        ("name", "value"), [("architectures", "sparc"), ("spot", "maybe"), ("system", "hurd"), ("disk_gb", "much")]
    )
    def test_a_mistake_in_a_setting_is_named(self, name, value):
        with pytest.raises(InvalidOrder, match=f"{name}.*\\.$"):
            AwsProvider({"region": "eu-central-1", name: value})
