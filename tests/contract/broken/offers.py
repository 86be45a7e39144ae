"""Drivers that break a promise about offers, prices and places."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from providers.base import Price
from providers.fake import FakeProvider

TRIED: dict[str, Any] = {"parts": [], "boot": {"agent": None, "config": {}, "builder": None}}


class DearestFirst(FakeProvider):
    caught_by = ("offers_come_cheapest_first",)

    def offers(self, credential, resources):
        return super().offers(credential, resources)[::-1]


class OffersWhatDoesNotFit(FakeProvider):
    caught_by = ("nothing_is_offered_where_nothing_fits", "what_is_offered_is_as_large_as_asked")

    def offers(self, credential, resources):
        asked = type(resources)()
        return [replace(o, resources=replace(o.resources, cpu=0.1)) for o in super().offers(credential, asked)]


class AnUnknownPriceIsNothing(FakeProvider):
    caught_by = ("a_price_comes_with_its_source_and_its_day_or_is_unknown",)

    def offers(self, credential, resources):
        found = super().offers(credential, resources)
        return [replace(o, price_per_hour=Decimal(0), price_source="", price_as_of="") for o in found]


class APriceOfNoDay(FakeProvider):
    caught_by = ("a_price_comes_with_its_source_and_its_day_or_is_unknown",)

    def offers(self, credential, resources):
        return [replace(offer, price_as_of="lately") for offer in super().offers(credential, resources)]


class ListsPricesOfNobody(FakeProvider):
    caught_by = ("a_list_of_prices_says_by_whom_and_when",)

    def public_prices(self):
        return [Price(region="a", machine="small-a", price_per_hour=Decimal("0.05"), as_of="2026-11-28")]


class HidesTheRisk(FakeProvider):
    caught_by = ("what_may_be_taken_away_says_so",)

    def offers(self, credential, resources):
        return [replace(offer, risk="") for offer in super().offers(credential, resources)]


class SpeaksItsOwnWords(FakeProvider):
    caught_by = ("an_offer_speaks_in_words_that_are_the_same_everywhere",)

    def offers(self, credential, resources):
        return [replace(offer, architecture="amd64") for offer in super().offers(credential, resources)]


class TwoOffersOfOneName(FakeProvider):
    caught_by = ("offers_have_names_of_their_own",)

    def offers(self, credential, resources):
        return [replace(offer, id="small") for offer in super().offers(credential, resources)]


class TriesCapacityByAsking(FakeProvider):
    caught_by = ("a_lack_of_capacity_is_found_by_buying_not_by_asking",)

    def offers(self, credential, resources):
        found = super().offers(credential, resources)
        made = self._call(credential, "provision", {"client_token": None, "offer": found[-1].id, "labels": {}, **TRIED})
        self._call(credential, "terminate", {"id": made["id"], "labels": {"anybinder-order": "none"}, "parts": True})
        return found


class BuysInAnotherZone(FakeProvider):
    caught_by = ("what_was_bought_is_in_the_zone_of_its_offer",)

    def _creation(self, order):
        made = super()._creation(order)
        return {**made, "offer": "small-a" if made["offer"] == "small-b" else made["offer"]}
