"""Drivers of the fake cloud, each broken in one way that real drivers are broken in. `caught_by` names who must notice."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import Any, ClassVar

from providers.base import Assertion, Connection, InstanceState, Purpose, Setting, Tier
from providers.errors import BadCredential, NoCapacity, ProviderError, ProviderUnavailable
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


NEVER: dict[str, Any] = {"created_at": None, "parts": []}


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


class ShowsItsSecret(FakeProvider):
    caught_by = ("a_credential_shows_no_secret",)

    def sign_in(self, connection, identity_token):
        credential = super().sign_in(connection, identity_token)
        return replace(credential, who=credential.secret["token"])


class LetsAnybodyIn(FakeProvider):
    caught_by = ("a_bad_connection_is_a_bad_credential",)

    def sign_in(self, connection, identity_token):
        return super().sign_in(Connection(kind="none"), None)


class DearestFirst(FakeProvider):
    caught_by = ("offers_come_cheapest_first",)

    def offers(self, credential, resources):
        return super().offers(credential, resources)[::-1]


class OffersWhatDoesNotFit(FakeProvider):
    caught_by = ("nothing_is_offered_where_nothing_fits", "what_is_offered_is_as_large_as_asked")

    def offers(self, credential, resources):
        asked = type(resources)()
        return [replace(o, resources=replace(o.resources, cpu=0.1)) for o in super().offers(credential, asked)]


class ReadsTheEnvironment(FakeProvider):
    caught_by = ("no_setting_is_read_from_the_process_environment",)

    def offers(self, credential, resources):
        return super().offers(credential, resources) if "PYTEST_CURRENT_TEST" in os.environ else []


class CallsHomeWhenMade(FakeProvider):
    caught_by = ("making_one_touches_no_network",)

    def __init__(self, configuration):
        super().__init__(configuration)
        self._call(None, "sign_in", {"kind": "none", "proof": ""})


class TakesAnyConfiguration(FakeProvider):
    caught_by = ("a_missing_required_setting_is_refused_with_a_sentence",)

    def __init__(self, configuration):
        super().__init__({"socket": "/nowhere", **configuration})


class KeepsStateBetweenCalls(FakeProvider):
    caught_by = ("verbs_may_be_called_from_several_threads_at_once",)

    def provision(self, credential, order):
        self._order = order
        threading.Event().wait(0.1)
        return super().provision(credential, self._order)


class TakesNoTokenForOne(FakeProvider):
    connects_by = "keyless"
    caught_by = ("who_brings_no_token_is_not_let_in",)

    def sign_in(self, connection, identity_token):
        return super().sign_in(connection, identity_token or "nobody's")


class RepeatsTheSecret(FakeProvider):
    caught_by = ("a_wrong_secret_is_a_bad_credential_that_repeats_it_nowhere",)

    def sign_in(self, connection, identity_token):
        try:
            return super().sign_in(connection, identity_token)
        except BadCredential as refused:
            raise BadCredential(f"The key {connection.secret} is not accepted.") from refused


class LeavesTheSecretInTheCause(FakeProvider):
    """The sentence is well; the traceback is not."""

    caught_by = ("a_wrong_secret_is_a_bad_credential_that_repeats_it_nowhere",)

    def sign_in(self, connection, identity_token):
        try:
            return super().sign_in(connection, identity_token)
        except BadCredential:
            raise BadCredential("The key is not accepted.") from ValueError(
                f"401 for {connection}, {connection.secret}"
            )


class TakesAnySecret(FakeProvider):
    caught_by = ("a_wrong_secret_is_a_bad_credential_that_repeats_it_nowhere", "a_bad_connection_is_a_bad_credential")

    def sign_in(self, connection, identity_token):
        return super().sign_in(replace(connection, secret="the-fake-key"), identity_token)


class TakesWhatLiesAbout(FakeProvider):
    """As an SDK does that is left to look for credentials by itself."""

    caught_by = ("nothing_that_lies_about_signs_in",)

    def sign_in(self, connection, identity_token):
        found = os.environ.get("AWS_SECRET_ACCESS_KEY")
        return super().sign_in(replace(connection, secret=found) if found else connection, identity_token)


class FallsBackToWhatLiesAbout(FakeProvider):
    """Only where the person's own is refused."""

    caught_by = ("nothing_that_lies_about_signs_in",)

    def sign_in(self, connection, identity_token):
        try:
            return super().sign_in(connection, identity_token)
        except BadCredential:
            if "AWS_PROFILE" not in os.environ:
                raise
            return super().sign_in(Connection(kind="none"), None)


class ForgetsToReap(FakeProvider):
    caught_by = ("one_signs_in_for_either_purpose", "a_check_says_what_is_missing_and_how_it_is_mended")

    def sign_in(self, connection, identity_token):
        if connection.purpose is Purpose.REAP:
            raise BadCredential("Nobody is signed in.")
        return super().sign_in(connection, identity_token)


class ChecksByBuying(FakeProvider):
    caught_by = ("checking_buys_nothing",)

    def check(self, connection, credential):
        made = self._call(credential, "provision", {"client_token": None, "offer": "small-a", "labels": {}, **TRIED})
        self._call(credential, "terminate", {"id": made["id"], "labels": {"anybinder-order": "none"}, "parts": True})
        return super().check(connection, credential)


TRIED: dict[str, Any] = {"parts": [], "boot": {"agent": None, "config": {}, "builder": None}}


class FindsNoFix(FakeProvider):
    caught_by = ("a_check_says_what_is_missing_and_how_it_is_mended",)

    def check(self, connection, credential):
        return [replace(each, works=False, fix="") for each in super().check(connection, credential)]


class WantsToBuyToReap(FakeProvider):
    caught_by = ("a_check_says_what_is_missing_and_how_it_is_mended",)

    def check(self, connection, credential):
        return super().check(replace(connection, purpose=Purpose.LAUNCH), credential)


class AnyAudience(FakeProvider):
    connects_by = "keyless"
    caught_by = ("a_token_is_made_out_to_exactly_one_audience",)

    def assertion(self, connection, about):
        return Assertion(audience="", claims=about)


class SaysWhoSomebodyIs(FakeProvider):
    connects_by = "keyless"
    caught_by = ("a_token_is_made_out_to_exactly_one_audience",)

    def assertion(self, connection, about):
        return Assertion(audience="fake-cloud", claims={**about, "sub": "launch:everybody"})


class NeedsALaunchToSignIn(FakeProvider):
    connects_by = "keyless"
    caught_by = ("a_token_can_be_asked_for_before_there_is_a_launch",)

    def assertion(self, connection, about):
        return Assertion(audience="fake-cloud", claims=about) if about.get("launch") else None


class MuteGuide(FakeProvider):
    caught_by = ("the_guide_of_every_kind_is_for_people",)

    def guide(self, kind, trust, settings):
        return replace(super().guide(kind, trust, settings), revoke=())


class GuidesToAnything(FakeProvider):
    caught_by = ("there_is_no_guide_for_a_kind_that_is_not_taken",)

    def guide(self, kind, trust, settings):
        return super().guide("kept", trust, settings)


class AsksTheCloudForItsGuide(FakeProvider):
    caught_by = ("the_guide_of_every_kind_is_for_people", "a_guide_is_the_same_each_time")

    def guide(self, kind, trust, settings):
        self._call(None, "sign_in", {"kind": "none", "proof": ""})
        return super().guide(kind, trust, settings)


class KeepsTwoSecrets(FakeProvider):
    caught_by = ("a_connection_has_one_secret_at_most",)

    def __init__(self, configuration):
        super().__init__(configuration)
        more = Setting(name="other", help="Another.", secret=True)
        self.kinds = tuple(replace(kind, fields=(*kind.fields, more)) for kind in self.kinds)


class KeylessWithAKey(FakeProvider):
    caught_by = ("a_connection_has_one_secret_at_most",)

    def __init__(self, configuration):
        super().__init__(configuration)
        self.kinds = tuple(replace(kind, tier=Tier.KEYLESS) for kind in self.kinds)


class AnExampleThatIsRefused(FakeProvider):
    caught_by = ("every_field_of_a_connection_can_be_filled_in",)

    def __init__(self, configuration):
        super().__init__(configuration)
        wrong = Setting(name="account", help="Twelve digits.", pattern=r"\d{12}", example="1234-5678-9012")
        self.kinds = tuple(replace(kind, fields=(wrong,)) for kind in self.kinds)


BROKEN = [driver for driver in list(globals().values()) if isinstance(driver, type) and hasattr(driver, "caught_by")]
