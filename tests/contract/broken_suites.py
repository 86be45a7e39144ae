"""The contract's suite for each broken driver. Not collected by name: test_catches.py runs it, to see it fail."""

from __future__ import annotations

import pytest

from providers.contract import ProviderContract
from tests.contract.broken import BROKEN
from tests.contract.over_fake import OverTheFakeCloud


class Impatient(OverTheFakeCloud):
    """What a broken driver does not do in a second it never does."""

    @pytest.fixture
    def patience(self):
        return 1


for broken in BROKEN:
    name = f"Test{broken.__name__}"
    globals()[name] = type(name, (Impatient, ProviderContract), {"driver": broken, "__module__": __name__})
