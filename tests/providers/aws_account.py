"""Fixtures over the AWS double: an account whose owner has deployed the template that the guide gives people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from providers.aws import AwsProvider, guides
from providers.base import Connection, Purpose, Tag, Trust
from tests.doubles.aws_double import ACCOUNT, Account, AwsDouble
from tests.doubles.issuer_double import IssuerDouble

SUBJECT = "abcdefghijklmnopqrstuvwxyz"
BROKER = "brokerbroker"
TRUST = Trust(
    issuer="https://issuer.example",
    launch_subject=f"launch:{SUBJECT}",
    reap_subject=f"reap:{SUBJECT}",
    broker=BROKER,
    name="issuer.example",
)
TAG = Tag(broker=BROKER, launch="launchlaunch", order="o", until=datetime.now(UTC) + timedelta(hours=1))
LAUNCH = Connection(kind="web_identity", settings={"account": ACCOUNT}, subject=SUBJECT, broker=BROKER)
REAP = replace(LAUNCH, purpose=Purpose.REAP)


class Clock:
    """The time in AWS: ours, and as much later as a test says."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


class OverAws:
    """Mixed in where tests need an account that is connected."""

    @pytest.fixture
    def issuer(self) -> Iterator[IssuerDouble]:
        with IssuerDouble() as issuer:
            yield issuer

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def aws(self, issuer: IssuerDouble, clock: Clock) -> Iterator[AwsDouble]:
        with AwsDouble(issuers={issuer.issuer: issuer.url}, clock=clock) as aws:
            yield aws

    @pytest.fixture
    def provider(self, aws: AwsDouble) -> AwsProvider:
        return AwsProvider({"region": aws.region, "endpoint_url": aws.url})

    @pytest.fixture
    def account(self, aws: AwsDouble, provider: AwsProvider) -> Account:
        account = aws.account()
        account.deploy(provider.guide("web_identity", TRUST, {}).download[guides.TEMPLATE])
        return account


def token(issuer: IssuerDouble, connection: Connection = LAUNCH, **claims: object) -> str:
    """What the broker would sign for this connection."""
    said = {"sub": f"{connection.purpose.value}:{SUBJECT}", "aud": guides.AUDIENCE, **claims}
    return issuer.token(**said)
