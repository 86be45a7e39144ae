"""What tests of buying on AWS are written in: an account that is connected, and orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from providers.aws import AwsProvider
from providers.base import Boot, Credential, Instance, InstanceState, Offer, Order, Resources, Tag
from providers.contract import new_id
from tests.doubles.aws_double import Account, AwsDouble, Recorded
from tests.doubles.issuer_double import IssuerDouble
from tests.providers.aws_account import BROKER, LAUNCH, REAP, Clock, OverAws, token

USER_DATA = "#cloud-config\nruncmd: [true]\n"


class OverPurchases(OverAws):
    """Mixed in where tests buy."""

    @pytest.fixture
    def credential(self, provider: AwsProvider, account: Account, issuer: IssuerDouble) -> Credential:
        return provider.sign_in(LAUNCH, token(issuer))

    @pytest.fixture
    def reaper(self, provider: AwsProvider, account: Account, issuer: IssuerDouble) -> Callable[[], Credential]:
        """Signs in as who may end, and nothing else."""
        return lambda: provider.sign_in(REAP, token(issuer, REAP))

    @pytest.fixture
    def offer(self, provider: AwsProvider, credential: Credential) -> Offer:
        return provider.offers(credential, Resources())[0]

    @pytest.fixture
    def make_order(self, offer: Offer, clock: Clock) -> Callable[..., Order]:
        def make(of: Offer = offer, launch: str = "launchlaunch", **boot: str) -> Order:
            order_id = new_id()
            until = clock().replace(microsecond=0) + timedelta(hours=1)
            tag = Tag(broker=BROKER, launch=launch, order=order_id, until=until)
            return Order(
                id=order_id, offer=of, tag=tag, boot=Boot(config={}, agent="", **{"user_data": USER_DATA, **boot})
            )

        return make

    @pytest.fixture
    def buy(
        self, provider: AwsProvider, credential: Credential, make_order: Callable[..., Order]
    ) -> Callable[..., Instance]:
        return lambda *given, **named: provider.provision(credential, make_order(*given, **named))

    @pytest.fixture
    def end(self, provider: AwsProvider, clock: Clock) -> Callable[..., int]:
        """Ends it as the broker does, again and again until it is gone; says how often it had to ask."""

        def end(credential: Credential, instance: Instance) -> int:
            assert instance.tag
            for asked in range(1, 20):
                provider.terminate(credential, instance.id, instance.tag.order)
                if provider.describe(credential, instance.id).state is InstanceState.GONE:
                    return asked
                clock.advance(10)
            raise AssertionError("it does not go")

        return end


def asked(aws: AwsDouble, action: str) -> list[Recorded]:
    """Every request of this kind that went well."""
    return [each for each in aws.requests if each.action == action and not each.code]


def cheap(offer: Offer, **other: str) -> Offer:
    """The same with another id."""
    return replace(offer, **other)


def now() -> datetime:
    return datetime.now(UTC)
