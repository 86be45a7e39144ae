"""Over a real cloud nothing is bought without a word about money, and never more than was said."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from providers.base import Offer
from providers.contract import ProviderContract
from providers.contract.spending import OPTION, Purse, _amount
from tests.contract.over_fake import OverTheFakeCloud

HOUR = timedelta(hours=1)
CHEAP = Offer(id="cheap", title="Cheap", price_per_hour=Decimal("0.20"))


class TestADryRun(OverTheFakeCloud, ProviderContract):
    """As over a real cloud."""

    @pytest.fixture
    def real(self):
        return True

    @pytest.fixture(autouse=True)
    def nothing_is_bought(self, cloud, request):
        yield
        if not request.config.getoption(OPTION):
            assert cloud.bill() == []


def test_more_than_was_said_is_not_promised():
    purse = Purse(Decimal("0.50"))
    purse.promise(CHEAP, HOUR)
    purse.promise(CHEAP, HOUR)
    with pytest.raises(pytest.skip.Exception, match=r"0\.40 of 0\.50 USD are promised, and this may cost 0\.20"):
        purse.promise(CHEAP, HOUR)
    purse.promise(CHEAP, HOUR / 2)
    assert purse.promised == Decimal("0.50")


@pytest.mark.parametrize(
    ("most", "offer", "why"), [("0", CHEAP, "without"), ("9", Offer(id="x", title="X"), "unknown")]
)
def test_nothing_is_promised_without_a_word_or_without_a_price(most, offer, why):
    with pytest.raises(pytest.skip.Exception, match=why):
        Purse(Decimal(most)).promise(offer, HOUR)


@pytest.mark.parametrize("text", ["a lot", "-1", "NaN", "Infinity"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(pytest.UsageError, match=r"takes an amount such as 0\.50"):
        _amount(text)
