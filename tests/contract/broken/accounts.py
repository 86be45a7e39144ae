"""Drivers that break a promise about accounts, or about the class itself."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from providers.base import Assertion, Connection, Purpose, Setting, Tier
from providers.errors import (
    BadCredential,
    ProviderUnavailable,
)
from providers.fake import FakeProvider

TRIED: dict[str, Any] = {"parts": [], "boot": {"agent": None, "config": {}, "builder": None}}


class ShowsItsSecret(FakeProvider):
    caught_by = ("a_credential_shows_no_secret",)

    def sign_in(self, connection, identity_token):
        credential = super().sign_in(connection, identity_token)
        return replace(credential, who=credential.secret["token"])


class LetsAnybodyIn(FakeProvider):
    caught_by = ("a_bad_connection_is_a_bad_credential",)

    def sign_in(self, connection, identity_token):
        return super().sign_in(Connection(kind="none"), None)


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


class IsNobody(FakeProvider):
    caught_by = ("a_credential_says_who_it_is_and_when_it_ends",)

    def sign_in(self, connection, identity_token):
        return replace(super().sign_in(connection, identity_token), who="")


class IsSomebodyElseEachTime(FakeProvider):
    caught_by = ("signing_in_is_repeatable",)

    def sign_in(self, connection, identity_token):
        return replace(super().sign_in(connection, identity_token), who=os.urandom(8).hex())


class NarrowsToNothing(FakeProvider):
    caught_by = ("one_signs_in_for_one_launch",)

    def sign_in(self, connection, identity_token):
        if connection.tag:
            raise BadCredential("There is no such launch.")
        return super().sign_in(connection, identity_token)


class AnOutageIsABadCredential(FakeProvider):
    caught_by = ("signing_in_says_when_the_cloud_cannot_be_asked",)

    def sign_in(self, connection, identity_token):
        try:
            return super().sign_in(connection, identity_token)
        except ProviderUnavailable as away:
            raise BadCredential("The key is not accepted.") from away


class RepeatsTheToken(FakeProvider):
    connects_by = "keyless"
    caught_by = ("a_refusal_repeats_no_token",)

    def sign_in(self, connection, identity_token):
        try:
            return super().sign_in(connection, identity_token)
        except BadCredential as refused:
            raise BadCredential(f"The token {identity_token} is not accepted.") from refused


class PutsTheSecretIntoTokens(FakeProvider):
    caught_by = ("no_secret_travels_in_a_token",)

    def assertion(self, connection, about):
        return Assertion(audience="fake-cloud", claims={"key": connection.secret})


class ChecksAloud(FakeProvider):
    caught_by = ("checking_shows_no_secret",)

    def check(self, connection, credential):
        return [replace(each, why=f"asked with {credential.secret}") for each in super().check(connection, credential)]


class NamelessKinds(FakeProvider):
    caught_by = ("every_kind_of_connection_introduces_itself",)

    def __init__(self, configuration):
        super().__init__(configuration)
        self.kinds = tuple(replace(kind, title="") for kind in self.kinds)


class Nameless(FakeProvider):
    title = ""
    caught_by = ("the_class_introduces_itself_to_people",)
