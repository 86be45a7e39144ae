"""Drivers that break a promise about looking, listing and ending."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from providers.base import InstanceState
from providers.errors import (
    BadCredential,
    ProviderError,
    ProviderUnavailable,
)
from providers.fake import FakeProvider

NEVER: dict[str, Any] = {"created_at": None, "parts": []}


class BuysAgainWhatHasEnded(FakeProvider):
    caught_by = ("an_order_that_has_ended_is_never_bought_again",)
    tries: ClassVar[dict[str, int]] = {}

    def provision(self, credential, order):
        bought = super().provision(credential, order)
        if bought.state is InstanceState.GONE:
            self.tries[order.id] = self.tries.get(order.id, 0) + 1
            return super().provision(credential, order)
        return bought

    def _creation(self, order):
        return {**super()._creation(order), "client_token": f"{order.id}-{self.tries.get(order.id, 0)}"}


class LeavesTheDisk(FakeProvider):
    caught_by = ("ending_it_ends_all_that_was_bought_with_it", "half_created_resources_are_ended_by_their_order")

    def _call(self, credential, name, body=None):
        return super()._call(credential, name, {**(body or {}), "parts": False} if name == "terminate" else body)


class EndsByNameOnly(FakeProvider):
    caught_by = (
        "it_is_ended_by_its_order_where_its_name_was_lost",
        "half_created_resources_are_ended_by_their_order",
    )

    def terminate(self, credential, instance_id, order_id):
        if instance_id:
            super().terminate(credential, instance_id, order_id)


class EndsByPrefix(FakeProvider):
    caught_by = ("other_orders_are_left_alone",)

    def terminate(self, credential, instance_id, order_id):
        super().terminate(credential, instance_id, order_id)
        for found in self._call(credential, "instances", {"labels": {}})["instances"]:
            if found["labels"].get("anybinder-order", "").startswith(order_id):
                super().terminate(credential, found["id"], found["labels"]["anybinder-order"])


class SwallowsAFailingEnd(FakeProvider):
    caught_by = ("a_failing_end_says_so_and_can_be_repeated", "an_end_whose_answer_was_lost_can_be_repeated")

    def terminate(self, credential, instance_id, order_id):
        try:
            super().terminate(credential, instance_id, order_id)
        except ProviderUnavailable:
            return


class EndsOnlyWhatIsThere(FakeProvider):
    caught_by = ("ending_what_never_was_is_success", "ending_twice_is_success")

    def terminate(self, credential, instance_id, order_id):
        if instance_id and self.describe(credential, instance_id).state is InstanceState.GONE:
            raise ProviderError("There is no such instance.")
        super().terminate(credential, instance_id, order_id)


class GoneTooSoon(FakeProvider):
    caught_by = ("ending_returns_without_waiting_and_gone_is_said_by_describe",)

    def _instance(self, found):
        return super()._instance({**found, "state": "gone", "parts": []} if found["state"] == "ending" else found)


class AnOutageIsGone(FakeProvider):
    caught_by = ("who_cannot_look_never_says_that_nothing_is_there",)

    def describe(self, credential, instance_id):
        try:
            return super().describe(credential, instance_id)
        except ProviderUnavailable:
            return self._instance({"id": instance_id, "state": "gone", "detail": "", "labels": {}, **NEVER})


class AnExpiredCredentialSeesNothing(FakeProvider):
    caught_by = ("who_cannot_look_never_says_that_nothing_is_there",)

    def instances(self, credential, broker):
        try:
            return super().instances(credential, broker)
        except BadCredential:
            return []


class AnUnknownInstanceIsAnError(FakeProvider):
    caught_by = ("an_unknown_instance_is_gone",)

    def describe(self, credential, instance_id):
        found = super().describe(credential, instance_id)
        if found.tag is None:
            raise ProviderError("There is no such instance.")
        return found


class RemembersThatItRan(FakeProvider):
    caught_by = ("a_machine_that_died_does_not_run",)
    seen: ClassVar[dict[str, Any]] = {}

    def describe(self, credential, instance_id):
        found = self.seen.get((self.configuration["socket"], instance_id)) or super().describe(credential, instance_id)
        if found.state is InstanceState.RUNNING:
            self.seen[self.configuration["socket"], instance_id] = found
        return found


class ForgetsTheHalfCreated(FakeProvider):
    caught_by = ("half_created_resources_are_listed",)

    def instances(self, credential, broker):
        return [found for found in super().instances(credential, broker) if found.id.startswith("machine")]


class ForgetsWhatStops(FakeProvider):
    caught_by = ("ending_returns_without_waiting_and_gone_is_said_by_describe",)

    def instances(self, credential, broker):
        return [i for i in super().instances(credential, broker) if i.state is not InstanceState.STOPPING]


class RemembersOnlyItsOwn(FakeProvider):
    caught_by = ("what_one_worker_bought_every_worker_sees",)

    def __init__(self, configuration):
        super().__init__(configuration)
        self.mine: set[str] = set()

    def provision(self, credential, order):
        self.mine.add(order.id)
        return super().provision(credential, order)

    def instances(self, credential, broker):
        return [found for found in super().instances(credential, broker) if found.tag.order in self.mine]


class BuysSomethingInstead(FakeProvider):
    caught_by = ("an_unknown_offer_is_an_invalid_order",)

    def _creation(self, order):
        known = order.offer.id in ("small-a", "small-b", "large-a", "spot-a")
        return {**super()._creation(order), "offer": order.offer.id if known else "small-a"}


class NeverSeesItRun(FakeProvider):
    caught_by = ("an_instance_comes_to_run",)

    def _instance(self, found):
        return super()._instance({**found, "state": "pending" if found["state"] == "running" else found["state"]})


class BringsBackTheDead(FakeProvider):
    """Only the worker that ended it knows that it is gone."""

    caught_by = ("what_is_gone_stays_gone",)

    def __init__(self, configuration):
        super().__init__(configuration)
        self.ended: set[str] = set()

    def terminate(self, credential, instance_id, order_id):
        self.ended.add(instance_id)
        super().terminate(credential, instance_id, order_id)

    def describe(self, credential, instance_id):
        found = super().describe(credential, instance_id)
        if found.tag and found.state is InstanceState.GONE and instance_id not in self.ended:
            return replace(found, state=InstanceState.STOPPING)
        return found


class EndsOnlyWhatRuns(FakeProvider):
    cloud_options: ClassVar[dict[str, Any]] = {"power_off": "keep"}
    caught_by = (
        "what_died_is_ended_with_what_it_left_behind",
        "a_machine_that_powers_itself_off_does_not_run_and_can_be_ended",
    )

    def terminate(self, credential, instance_id, order_id):
        busy = (InstanceState.PENDING, InstanceState.RUNNING)
        if instance_id and self.describe(credential, instance_id).state not in busy:
            return
        super().terminate(credential, instance_id, order_id)


class EndsOnlyWhatHasBooted(FakeProvider):
    caught_by = ("it_can_be_ended_before_it_has_booted",)

    def terminate(self, credential, instance_id, order_id):
        if instance_id and self.describe(credential, instance_id).state is InstanceState.PENDING:
            return
        super().terminate(credential, instance_id, order_id)


class WillNotEndWhatIsEnding(FakeProvider):
    caught_by = ("what_is_ending_can_be_ended_again",)

    def terminate(self, credential, instance_id, order_id):
        if instance_id and self.describe(credential, instance_id).state is InstanceState.STOPPING:
            raise ProviderError("It is being ended already.")
        super().terminate(credential, instance_id, order_id)


class ClaimsThatOffIsGone(FakeProvider):
    """As a cloud whose stopped machines go on being billed, taken for one that deletes them."""

    cloud_options: ClassVar[dict[str, Any]] = {"power_off": "keep"}
    caught_by = ("where_powering_off_is_said_to_end_the_bill_all_of_it_is_gone",)


class ClaimsThatTimeEndsIt(FakeProvider):
    cloud_options: ClassVar[dict[str, Any]] = {"dead_man_seconds": None}
    caught_by = ("where_the_cloud_is_said_to_end_it_at_its_time_it_is_gone_then",)


class ASwitchForTheWrongMachine(FakeProvider):
    caught_by = ("what_a_machine_holds_to_end_itself_ends_it_and_no_other",)

    def dead_man(self, credential, instance):
        others = [each for each in self.instances(credential, instance.tag.broker) if each.id != instance.id]
        return super().dead_man(credential, others[0] if others else instance)


class ASwitchThatHasEnded(FakeProvider):
    caught_by = ("what_a_machine_holds_ends_by_itself_and_works_twice",)

    def dead_man(self, credential, instance):
        return replace(super().dead_man(credential, instance), ends_at=datetime.fromtimestamp(0, UTC))
