"""The contract, kept by the driver of AWS over a double that verifies as AWS does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from providers.base import Connection
from providers.contract import AccountContract, ProviderContract, new_id
from providers.contract.machines import MachineContract
from tests.providers.aws_account import BROKER, LAUNCH, TRUST, OverAws, token
from tests.providers.aws_faults import AwsFaults


class Contracted(OverAws):
    """What the double can arrange and say."""

    @pytest.fixture
    def fresh_token(self, issuer):
        return lambda connection: token(issuer, connection)

    @pytest.fixture
    def broker(self):
        return BROKER

    @pytest.fixture
    def faults(self, aws, provider):
        return AwsFaults(aws, provider)

    @pytest.fixture
    def advance(self, clock):
        return clock.advance

    @pytest.fixture
    def billed(self, account):
        return lambda order: account.marked("anybinder-order", order)

    @pytest.fixture
    def is_free(self):
        return lambda part: part.startswith(("sg-", "anybinder-"))

    @pytest.fixture
    def untagged(self, account):
        return account.unmarked

    @pytest.fixture
    def labelled(self, account):
        return account.labels

    @pytest.fixture
    def bought_in(self, aws):
        return lambda order: next(
            life.machine.placement.zone for life in aws.machines.lives.values() if life.tags["anybinder-order"] == order
        )

    @pytest.fixture
    def console_says(self, aws):
        aws.machines.on_running = lambda number, *_: aws.write(number, "anybinder: up\n")
        return "anybinder: up"

    @pytest.fixture
    def at_once(self):
        """A boot and an end take a minute of the double's clock."""
        return 15


class TestAws(Contracted, ProviderContract):
    """The contract, for somebody whose account trusts this broker."""

    @pytest.fixture
    def connection(self, account, broker):
        return replace(LAUNCH, broker=broker)

    @pytest.fixture
    def bad_connection(self, account):
        return replace(LAUNCH, settings={"account": "999999999999"})

    def test_another_brokers_instances_are_not_ours(self, provider, account, broker, make_order, orders_listed):
        """Our roles can neither buy nor end in another's name, so the account's owner buys."""
        ours, number = make_order(), new_id()
        theirs = replace(ours, id=number, tag=replace(ours.tag, broker=f"{broker}-2", order=number))
        key, secret = account.access_key(name="owner")
        owner = provider.sign_in(Connection(kind="access_key", settings={"access_key_id": key}, secret=secret), None)
        provider.provision(owner, ours)
        provider.provision(owner, theirs)
        assert orders_listed() == [ours.id]


class TestAwsWithAKey(Contracted, AccountContract, MachineContract):
    """For somebody who gave a key that may do what the guide says: the account, and machines from birth to end.

    What else the contract asks is asked of AWS in the same words, whoever's key signs them.
    """

    @pytest.fixture
    def connection(self, account, provider, broker):
        trust = replace(TRUST, broker=broker)
        key, secret = account.access_key(provider.guide("access_key", trust, {}).download["anybinder-policy.json"])
        return Connection(kind="access_key", settings={"access_key_id": key}, secret=secret, broker=broker)

    @pytest.fixture
    def bad_connection(self, connection):
        return replace(connection, settings={"access_key_id": "AKIANOBODYNOBODY"})
