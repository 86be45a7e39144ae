"""The contract over this computer, its sessions as processes. Over containers it is in `tests/docker`."""

from __future__ import annotations

from providers.contract import ProviderContract
from tests.contract.over_local import OverThisComputer


class TestTheContract(OverThisComputer, ProviderContract):
    pass
