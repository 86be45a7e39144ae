"""The promises about what is offered, and what it costs."""

# ruff: noqa: S101
from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from providers.base import Offer, Resources
from providers.contract.fixtures import Fixtures


class OfferContract(Fixtures):
    """Part of `ProviderContract`."""

    def test_offers_come_cheapest_first(self, provider, credential):
        offers = provider.offers(credential, Resources())
        sold = [offer for offer in offers if not offer.taken]
        assert offers[: len(sold)] == sold, "what nobody need buy comes last"
        prices = [offer.price_per_hour for offer in sold if offer.price_per_hour is not None]
        assert prices == sorted(prices)
        assert all(isinstance(price, Decimal) and price >= 0 for price in prices)

    def test_offers_have_names_of_their_own(self, provider, credential):
        offers = provider.offers(credential, Resources())
        assert offers
        assert len({offer.id for offer in offers}) == len(offers)
        assert all(offer.title and offer.currency for offer in offers)

    def test_nothing_is_offered_where_nothing_fits(self, provider, credential):
        assert provider.offers(credential, Resources(memory_mb=10**9)) == []

    def test_what_is_offered_is_as_large_as_asked(self, provider, credential):
        asked = Resources(cpu=0.5, memory_mb=64)
        for offer in provider.offers(credential, asked):
            assert (offer.resources.cpu or asked.cpu) >= asked.cpu
            assert (offer.resources.memory_mb or asked.memory_mb) >= asked.memory_mb

    def test_a_lack_of_capacity_is_found_by_buying_not_by_asking(self, provider, credential, with_fault):
        with_fault("no_capacity", "provision")
        assert provider.offers(credential, Resources())

    def test_an_offer_speaks_in_words_that_are_the_same_everywhere(self, provider, credential):
        for offer in provider.offers(credential, Resources()):
            assert re.fullmatch(r"[A-Z]{3}|SU", offer.currency), offer
            assert offer.architecture in ("", "x86_64", "arm64"), offer
            assert offer.usual_seconds is None or offer.usual_seconds > 0, offer
            assert not offer.risk or offer.risk.endswith("."), f"{offer.id}: a risk is a sentence"
            assert not offer.beyond or offer.beyond.endswith("."), f"{offer.id}: a limit is said in a sentence"

    def test_what_may_be_taken_away_says_so(self, provider, credential):
        for offer in provider.offers(credential, Resources()):
            assert (
                offer.taken or offer.risk or not re.search(r"\b(spot|preemptible)", f"{offer.id} {offer.title}", re.I)
            ), offer

    def test_a_price_comes_with_its_source_and_its_day_or_is_unknown(self, provider, credential):
        """Nothing costs nothing: that something is free is told by somebody, too. What costs nothing has no day."""
        for offer in provider.offers(credential, Resources()):
            if offer.price_per_hour is None:
                assert (offer.price_source, offer.price_as_of) == ("", ""), f"{offer.id}: whose, where nobody knows it?"
            else:
                assert offer.price_source, f"{offer.id}: who says so?"
                assert offer.price_per_hour == 0 or is_a_day(offer.price_as_of), f"{offer.id}: since when?"

    def test_a_list_of_prices_says_by_whom_and_when(self, provider, real):
        lists = [*provider.prices(), *([] if real else provider.public_prices())]
        if not lists:
            pytest.skip("it has no list of prices")
        for price in lists:
            assert price.machine, price
            assert price.price_per_hour > 0, price
            assert price.source, price
            assert is_a_day(price.as_of), price

    def test_what_was_bought_is_in_the_zone_of_its_offer(self, provider, credential, make_order, bought_in):
        """Every zone that is offered is tried once."""
        if bought_in is None:
            pytest.skip("this cloud does not say where something is")
        for offer in one_of_each_zone(provider.offers(credential, Resources())):
            order = make_order(offer=offer)
            provider.provision(credential, order)
            assert bought_in(order.id) == offer.zone


def one_of_each_zone(offers: list[Offer]) -> list[Offer]:
    return list({offer.zone: offer for offer in offers if not offer.taken}.values())


def is_a_day(text: str) -> bool:
    """Whether this is a day, and not one that is still to come."""
    try:
        return date.fromisoformat(text) <= datetime.now(UTC).date() + timedelta(days=1)
    except ValueError:
        return False
