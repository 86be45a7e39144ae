"""Drivers that break a promise about buying."""

from __future__ import annotations

import base64
import os
import threading
from dataclasses import replace
from typing import ClassVar

from providers.base import InstanceState
from providers.errors import (
    NoCapacity,
    PermissionMissing,
    ProviderError,
    ProviderUnavailable,
    QuotaExceeded,
)
from providers.fake import FakeProvider
from providers.fake.wire import ask


class WithoutIdempotencyKey(FakeProvider):
    caught_by = ("one_order_bought_twice_is_one_instance", "two_callers_at_once_get_one_instance")

    def _creation(self, order):
        return {**super()._creation(order), "client_token": None}


class NewKeyEveryCall(FakeProvider):
    caught_by = (
        "a_lost_response_is_unavailable_and_repeating_finds_the_same_instance",
        "one_order_bought_twice_is_one_instance",
    )

    def _creation(self, order):
        return {**super()._creation(order), "client_token": os.urandom(8).hex()}


class NoKeyAndDeliveredTwice(WithoutIdempotencyKey):
    caught_by = ("an_order_delivered_twice_is_one_instance",)


class LooksBeforeItBuys(WithoutIdempotencyKey):
    """Lists instead of handing over a key: two callers at once both find nothing."""

    caught_by = ("two_callers_at_once_get_one_instance",)

    def provision(self, credential, order):
        found = [i for i in self.instances(credential, order.tag.broker) if i.tag == order.tag]
        threading.Event().wait(0.1)
        return found[0] if found else super().provision(credential, order)


class UntaggedPart(FakeProvider):
    caught_by = ("everything_bought_is_tagged_by_the_creating_call",)

    def _creation(self, order):
        made = super()._creation(order)
        made["parts"][1]["labels"] = {}
        return made


class CoarseTag(FakeProvider):
    caught_by = ("an_instance_carries_its_orders_tag",)

    def _creation(self, order):
        tag = replace(order.tag, until=order.tag.until.replace(microsecond=0, second=0, minute=0))
        return super()._creation(replace(order, tag=tag))


class SaysItRunsAtOnce(FakeProvider):
    caught_by = ("provision_returns_before_it_has_booted",)

    def provision(self, credential, order):
        return replace(super().provision(credential, order), state=InstanceState.RUNNING)


class ListsEverybodys(FakeProvider):
    caught_by = ("another_brokers_instances_are_not_ours",)

    def _call(self, credential, name, body=None):
        return super()._call(credential, name, {"labels": {}} if name == "instances" else body)


class PromisesListsTooSoon(FakeProvider):
    caught_by = ("a_new_instance_shows_within_the_time_promised",)

    def __init__(self, configuration):
        super().__init__({**configuration, "lists_within": "1"})


class AQuotaIsALackOfCapacity(FakeProvider):
    caught_by = ("a_refusal_says_what_to_do_next_and_leaves_nothing",)

    def _call(self, credential, name, body=None):
        try:
            return super()._call(credential, name, body)
        except ProviderError as refused:
            if refused.reason == "quota":
                raise NoCapacity(str(refused)) from refused
            raise


class TellsTheToken(FakeProvider):
    caught_by = ("a_refusal_says_what_to_do_next_and_leaves_nothing",)

    def _call(self, credential, name, body=None):
        try:
            return super()._call(credential, name, body)
        except ProviderError as refused:
            raise type(refused)(f"The cloud did not like {body}.") from refused


class LetsNetworkErrorsThrough(FakeProvider):
    caught_by = (
        "a_cloud_that_never_answers_is_unavailable_in_time",
        "a_lost_response_is_unavailable_and_repeating_finds_the_same_instance",
    )

    def _call(self, credential, name, body=None):
        token = credential.secret["token"] if credential else ""
        answer = ask(self.configuration["socket"], f"/{name}", body or {}, token=token, seconds=self._timeout)
        return answer[1] if answer[0] == 200 else super()._call(credential, name, body)


class KeepsStateBetweenCalls(FakeProvider):
    caught_by = ("verbs_may_be_called_from_several_threads_at_once",)

    def provision(self, credential, order):
        self._order = order
        threading.Event().wait(0.1)
        return super().provision(credential, self._order)


class TagsOnePartWithAnotherOrder(FakeProvider):
    caught_by = ("every_part_carries_its_orders_tag",)

    def _creation(self, order):
        made = super()._creation(order)
        made["parts"][0]["labels"] = {**made["parts"][0]["labels"], "anybinder-order": "another"}
        return made


class NamesNoQuota(FakeProvider):
    caught_by = ("a_refusal_says_what_to_do_next_and_leaves_nothing",)

    def provision(self, credential, order):
        try:
            return super().provision(credential, order)
        except QuotaExceeded as refused:
            raise QuotaExceeded("A limit of this account is reached.") from refused


class NamesNoPermission(FakeProvider):
    caught_by = ("a_refusal_says_what_to_do_next_and_leaves_nothing",)

    def provision(self, credential, order):
        try:
            return super().provision(credential, order)
        except PermissionMissing as refused:
            raise PermissionMissing("This is not permitted.") from refused


class GivesUpAfterAnOutage(FakeProvider):
    caught_by = ("after_an_outage_the_same_order_is_bought",)
    given_up: ClassVar[set[str]] = set()

    def provision(self, credential, order):
        if order.id in self.given_up:
            raise NoCapacity("This order was tried before.")
        try:
            return super().provision(credential, order)
        except ProviderUnavailable:
            self.given_up.add(order.id)
            raise


class OneMachineForEverybody(FakeProvider):
    caught_by = ("two_orders_are_two_instances",)

    def _creation(self, order):
        return {**super()._creation(order), "client_token": order.tag.broker}


class CutsOffUserData(FakeProvider):
    caught_by = ("boot_data_that_is_too_large_is_refused_before_anything_is_bought",)

    def _creation(self, order):
        made = super()._creation(order)
        return {**made, "user_data": made["user_data"][: self.user_data_most]}


class EncodesUserDataFirst(FakeProvider):
    """Base64 makes a third more of it, and the cloud counts that."""

    caught_by = ("boot_data_as_large_as_the_cloud_takes_is_taken",)

    def _creation(self, order):
        made = super()._creation(order)
        return {**made, "user_data": base64.b64encode(made["user_data"].encode()).decode()}


class SaysNothingOfItsConsole(FakeProvider):
    caught_by = ("its_console_tells_what_it_wrote",)

    def logs(self, credential, instance_id):
        return ""


class ConsoleOfNothingIsAnError(FakeProvider):
    caught_by = ("the_console_of_nothing_is_empty",)

    def logs(self, credential, instance_id):
        if self.describe(credential, instance_id).tag is None:
            raise ProviderError("There is no such instance.")
        return super().logs(credential, instance_id)
