"""The contract over the fake cloud, and the promises about accounts by the other kinds of connection."""

from __future__ import annotations

from providers.contract import AccountContract, ProviderContract
from tests.contract.over_fake import OverTheFakeCloud


class TestTheContract(OverTheFakeCloud, ProviderContract):
    pass


class TestKeyless(OverTheFakeCloud, AccountContract):
    connects_by = "keyless"


class TestDelegated(OverTheFakeCloud, AccountContract):
    connects_by = "delegated"
