"""The provider contract as tests: every promise of `providers/base.py` is one, and its name is the sentence.

    class TestMyCloud(ProviderContract):
        @pytest.fixture
        def provider(self):
            return MyCloud({"region": "r1"})

A provider that cannot buy yet runs `AccountContract` alone. Override the fixtures (`fixtures.py`). A promise that needs a
fault is skipped, with the reason, where `faults` cannot arrange it. Comes with the extra `anybinder[contract]`.

Over a real cloud the fixture `real` says True: then what buys is skipped without `--contract-spend` (`spending.py`), and what is
bought costs no more than that.
"""

import pytest

PARTS = ("accounts", "fixtures", "machines", "offers", "suite")
pytest.register_assert_rewrite(*(f"providers.contract.{name}" for name in PARTS))

from providers.contract.accounts import AccountContract  # noqa: E402 - the asserts in there must be rewritten
from providers.contract.fixtures import TOKEN, Faults, new_id  # noqa: E402
from providers.contract.suite import ProviderContract  # noqa: E402

__all__ = ["TOKEN", "AccountContract", "Faults", "ProviderContract", "new_id"]
