"""The mode for a real cloud: without a word about money nothing is bought, and never more than was said.

A pytest plugin: `pytest_plugins = ["providers.contract.spending"]` in the outermost `conftest.py` brings `--contract-spend`.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal, InvalidOperation

import pytest

from providers.base import Offer

OPTION = "--contract-spend"
PURSE = pytest.StashKey["Purse"]()


class Purse:
    """What may be spent in this run, and what has been promised of it: price times the longest life of each order."""

    def __init__(self, most: Decimal) -> None:
        self.most, self.promised = most, Decimal(0)

    def promise(self, offer: Offer, lasts: timedelta) -> None:
        """Skips the test that would cost more than is left, or nobody knows how much."""
        if not self.most:
            pytest.skip(f"nothing is bought from a real cloud without {OPTION}")
        if offer.price_per_hour is None:
            pytest.skip("its price is unknown, so no limit could be kept")
        costs = offer.price_per_hour * Decimal(lasts.total_seconds()) / 3600
        if self.promised + costs > self.most:
            pytest.skip(
                f"{self.promised:.2f} of {self.most} {offer.currency} are promised, and this may cost {costs:.2f}"
            )
        self.promised += costs


def of_this_run(config: pytest.Config) -> Purse:
    """One for all tests of it."""
    if PURSE not in config.stash:
        config.stash[PURSE] = Purse(config.getoption(OPTION, default=Decimal(0)))
    return config.stash[PURSE]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        OPTION,
        type=_amount,
        default=Decimal(0),
        metavar="AMOUNT",
        help="the most that the contract may spend on real clouds, in the currency of their offers; 0 buys nothing",
    )


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise pytest.UsageError(f"{OPTION} takes an amount such as 0.50, not {text!r}.") from None
    if not amount.is_finite() or amount < 0:
        raise pytest.UsageError(f"{OPTION} takes an amount such as 0.50, not {text!r}.")
    return amount
