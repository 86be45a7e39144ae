"""Believing an identity provider: what it must say, how it must be signed, and what happens when it is late, wrong or gone.

Against a real little provider over HTTP; PKCE, codes and secrets are checked there too.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import OctKey, RSAKey

from broker import openid, settings
from broker.openid import asking, claims
from broker.openid.client import Grant
from tests.broker.conftest import Bench, Clock
from tests.doubles.openid_double import OTHER_KEYS, OpenIdDouble, query_of

FAULTS = ("down", "error", "garbage", "huge", "redirect")
STEPS = {"discovery": "its description of itself", "jwks": "its keys", "token": "its tokens"}


@pytest.fixture
def campus(clock: Clock) -> Iterator[OpenIdDouble]:
    with OpenIdDouble(now=clock) as double:
        yield double


@pytest.fixture
def hub(make_bench: Callable[..., Bench], campus: OpenIdDouble) -> Bench:
    return make_bench(identities=(campus.setting(),))


def walk(hub: Bench, campus: OpenIdDouble, *, who: str = "ada", **wanted: Any) -> openid.Vouched:
    """A whole sign-in without a browser."""
    identity = hub.at.settings.identities[0]
    attempt = openid.attempt(identity.name, hub.clock(), **wanted)
    back = campus.visit(openid.Client(hub.at, identity).address(attempt), who)
    return openid.Client(hub.at, identity).finish(attempt, query_of(back))


def client(hub: Bench, **more: Any) -> openid.Client:
    return openid.Client(hub.at, hub.at.settings.identities[0], **more)


# --- what is asked --------------------------------------------------------------------------------------------------


def test_the_browser_is_sent_with_pkce_state_and_nonce(hub: Bench, campus: OpenIdDouble) -> None:
    attempt = openid.attempt("campus", hub.clock())
    asked = query_of(client(hub).address(attempt))
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert (asked["state"], asked["nonce"]) == (attempt.state, attempt.nonce)
    assert attempt.verifier not in asked.values()
    assert asked["redirect_uri"] == "http://localhost:8000/login/campus/callback"
    assert "openid" in asked["scope"].split()


def test_no_two_attempts_share_a_secret(hub: Bench) -> None:
    one, other = (openid.attempt("campus", hub.clock()) for _ in range(2))
    assert {one.state, one.nonce, one.verifier}.isdisjoint({other.state, other.nonce, other.verifier})
    assert one.verifier not in repr(one)


def test_a_code_is_traded_for_who_it_is(hub: Bench, campus: OpenIdDouble) -> None:
    told = walk(hub, campus)
    assert (told.issuer, told.subject) == (campus.issuer, "ada-1")
    assert told.claims["name"] == "Ada Lovelace"
    assert not any(token in repr(told) for token in campus.tokens)


def test_a_client_without_a_secret_proves_itself_by_pkce_alone(
    make_bench: Callable[..., Bench], campus: OpenIdDouble
) -> None:
    campus.client_secret = ""
    hub = make_bench(identities=(campus.setting(),))
    assert walk(hub, campus).subject == "ada-1"


def test_a_wrong_secret_of_ours_is_told_to_whoever_runs_this_broker(hub: Bench, campus: OpenIdDouble) -> None:
    campus.client_secret = "another"
    with pytest.raises(openid.Refused, match="set `client_id` and `client_secret`"):
        walk(hub, campus)


def test_a_provider_that_takes_its_secret_in_the_body_gets_it_there(hub: Bench, campus: OpenIdDouble) -> None:
    campus.discovery_says = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert walk(hub, campus).subject == "ada-1"
    sent = next(headers for _, path, headers in campus.requests if path == "/token")
    assert "Authorization" not in sent


def test_the_verifier_is_really_needed(hub: Bench, campus: OpenIdDouble) -> None:
    attempt = openid.attempt("campus", hub.clock())
    back = query_of(campus.visit(client(hub).address(attempt)))
    other = openid.attempt("campus", hub.clock())
    with pytest.raises(openid.Refused, match="did not accept"):
        client(hub).finish(other, back)


def test_a_code_is_good_once(hub: Bench, campus: OpenIdDouble) -> None:
    attempt = openid.attempt("campus", hub.clock())
    back = query_of(campus.visit(client(hub).address(attempt)))
    client(hub).finish(attempt, back)
    with pytest.raises(openid.Refused, match="used up"):
        client(hub).finish(attempt, back)


def test_what_a_provider_says_of_itself_is_asked_once_in_five_minutes(
    hub: Bench, campus: OpenIdDouble, clock: Clock
) -> None:
    walk(hub, campus)
    walk(hub, campus)
    assert (campus.count("/.well-known/"), campus.count("/jwks")) == (1, 1)
    clock.move(minutes=6)
    walk(hub, campus)
    assert (campus.count("/.well-known/"), campus.count("/jwks")) == (2, 2)


# --- what is believed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "PS256"])
def test_other_good_signatures_are_believed(hub: Bench, campus: OpenIdDouble, algorithm: str) -> None:
    campus.key = OTHER_KEYS[algorithm]()
    campus.published = [campus.key]
    if algorithm == "PS256":
        campus.key = campus.published[0] = RSAKey.generate_key(2048, {"kid": "pss"})
    campus.header = {"alg": algorithm}
    assert walk(hub, campus).subject == "ada-1"


def test_a_key_that_is_not_understood_spoils_no_other(hub: Bench, campus: OpenIdDouble) -> None:
    class Odd:
        def as_dict(self, **_: Any) -> dict[str, Any]:
            return {"kty": "EC", "crv": "P-of-tomorrow", "x": "AA", "y": "AA", "kid": "odd"}

    campus.published.insert(0, Odd())
    try:
        assert walk(hub, campus).subject == "ada-1"
    finally:
        campus.published.pop(0)


def test_a_token_without_a_signature_is_not_believed(hub: Bench, campus: OpenIdDouble) -> None:
    campus.header = {"alg": "none"}
    with pytest.raises(openid.Refused):
        walk(hub, campus)


def test_a_token_signed_with_our_own_secret_is_not_believed(hub: Bench, campus: OpenIdDouble) -> None:
    campus.key = OctKey.import_key(campus.client_secret * 3, {"kid": "first"})
    with pytest.raises(openid.Refused):
        walk(hub, campus)


def test_a_token_signed_with_the_public_key_as_a_secret_is_not_believed(hub: Bench, campus: OpenIdDouble) -> None:
    published = campus.published[0].as_pem(private=False).decode().replace("-", "")
    campus.key = OctKey.import_key(published, {"kid": "first"})
    with pytest.raises(openid.Refused):
        walk(hub, campus)


def test_a_stranger_key_of_the_same_name_signs_nobody_in(hub: Bench, campus: OpenIdDouble) -> None:
    campus.key = RSAKey.generate_key(2048, {"kid": "first"})
    with pytest.raises(openid.Refused, match="not signed by it"):
        walk(hub, campus)


def test_keys_are_read_once_more_where_one_is_not_known(hub: Bench, campus: OpenIdDouble, clock: Clock) -> None:
    walk(hub, campus)
    campus.rotate()
    clock.move(seconds=6)
    assert walk(hub, campus).subject == "ada-1"
    assert campus.count("/jwks") == 2


def test_an_unknown_key_does_not_have_the_keys_read_over_and_over(hub: Bench, campus: OpenIdDouble) -> None:
    walk(hub, campus)
    campus.header = {"kid": "never-published"}
    for _ in range(5):
        with pytest.raises(openid.Refused):
            walk(hub, campus)
    assert campus.count("/jwks") <= 2


WRONG = {
    "another nonce": lambda told: {**told, "nonce": "other"},
    "no nonce": lambda told: {name: value for name, value in told.items() if name != "nonce"},
    "another issuer": lambda told: {**told, "iss": "https://evil.example"},
    "another audience": lambda told: {**told, "aud": "somebody-else"},
    "many audiences and no azp": lambda told: {**told, "aud": [told["aud"], "other"]},
    "for another party": lambda told: {**told, "azp": "other"},
    "no subject": lambda told: {name: value for name, value in told.items() if name != "sub"},
    "an empty subject": lambda told: {**told, "sub": ""},
    "a subject that is no text": lambda told: {**told, "sub": 7},
    "a subject that is too long": lambda told: {**told, "sub": "x" * 256},
    "no end": lambda told: {name: value for name, value in told.items() if name != "exp"},
    "no beginning": lambda told: {name: value for name, value in told.items() if name != "iat"},
    "a beginning that is no number": lambda told: {**told, "iat": "now"},
    "an end that is not a number": lambda told: {**told, "exp": float("nan")},
}


@pytest.mark.parametrize("what", WRONG)
def test_an_id_token_that_is_wrong_signs_nobody_in(hub: Bench, campus: OpenIdDouble, what: str) -> None:
    campus.tamper = WRONG[what]
    with pytest.raises(openid.Refused):
        walk(hub, campus)


def test_many_audiences_are_fine_where_it_says_who_asked(hub: Bench, campus: OpenIdDouble) -> None:
    campus.tamper = lambda told: {**told, "aud": ["other", told["aud"]], "azp": told["aud"]}
    assert walk(hub, campus).subject == "ada-1"


@pytest.mark.parametrize("skew", [-300, -299, -120, 120, 299, 300])
def test_a_clock_that_is_off_by_five_minutes_passes(hub: Bench, campus: OpenIdDouble, skew: int) -> None:
    campus.skew = skew
    assert walk(hub, campus).subject == "ada-1"


@pytest.mark.parametrize("skew", [-3600, -302, 302, 3600])
def test_a_clock_that_is_off_by_more_is_refused_with_that_reason(hub: Bench, campus: OpenIdDouble, skew: int) -> None:
    campus.skew = skew
    with pytest.raises(openid.Refused, match="more than five minutes"):
        walk(hub, campus)


@pytest.mark.parametrize("skew", [-290, 0, 290])
def test_a_difference_between_clocks_makes_nobodys_sign_in_older(hub: Bench, campus: OpenIdDouble, skew: int) -> None:
    campus.skew, campus.authenticated_ago = skew, 600
    assert walk(hub, campus).authenticated_at == hub.clock() - dt.timedelta(minutes=10)


def test_another_providers_answer_is_not_traded_at_this_one(hub: Bench, campus: OpenIdDouble) -> None:
    campus.says_issuer = "https://evil.example"
    with pytest.raises(openid.Refused, match="does not come from Campus"):
        walk(hub, campus)
    assert campus.count("/token") == 0


def test_an_answer_without_its_issuer_is_refused_where_the_provider_promised_one(
    hub: Bench, campus: OpenIdDouble, clock: Clock
) -> None:
    campus.says_issuer = ""
    with pytest.raises(openid.Refused):
        walk(hub, campus)
    campus.discovery_says = {"authorization_response_iss_parameter_supported": False}
    clock.move(minutes=6)
    assert walk(hub, campus).subject == "ada-1"


def test_a_provider_must_call_itself_exactly_what_the_operator_wrote(
    make_bench: Callable[..., Bench], campus: OpenIdDouble
) -> None:
    hub = make_bench(identities=(campus.setting(issuer=f"{campus.issuer}/"),))
    with pytest.raises(openid.Refused, match="another address"):
        walk(hub, campus)


def test_an_issuer_whose_name_ends_in_a_slash_is_taken_as_it_is(
    make_bench: Callable[..., Bench], campus: OpenIdDouble
) -> None:
    campus.issuer += "/"
    campus.discovery_says = {
        f"{name}_endpoint": campus.issuer + name for name in ("authorization", "token", "userinfo", "end_session")
    }
    campus.discovery_says["authorization_endpoint"] = f"{campus.issuer}authorize"
    campus.discovery_says["jwks_uri"] = f"{campus.issuer}jwks"
    hub = make_bench(identities=(campus.setting(),))
    assert walk(hub, campus).issuer.endswith("/")


@pytest.mark.parametrize(
    "address",
    ["http://id.example/token", "file:///etc/passwd", "", 7, None, "https://", "//x/y", "https://a/\n", "http://["],
)
def test_an_endpoint_that_may_not_be_asked_is_not(hub: Bench, campus: OpenIdDouble, address: Any) -> None:
    campus.discovery_says = {"token_endpoint": address}
    with pytest.raises(openid.Unavailable, match="token_endpoint"):
        walk(hub, campus)


# --- what it knows of a person --------------------------------------------------------------------------------------


def test_userinfo_is_asked_only_for_what_the_id_token_lacks(hub: Bench, campus: OpenIdDouble) -> None:
    campus.people["ada"] |= {"entitlements": [], "eduperson_scoped_affiliation": "staff@uni.example"}
    walk(hub, campus)
    assert campus.count("/userinfo") == 0
    campus.userinfo_only = ("groups",)
    assert walk(hub, campus).claims["groups"] == ["staff"]
    assert campus.count("/userinfo") == 1


def test_userinfo_about_somebody_else_is_refused(hub: Bench, campus: OpenIdDouble) -> None:
    campus.userinfo_says = {"sub": "bob-2", "groups": ["admins"]}
    with pytest.raises(openid.Refused, match="two different people"):
        walk(hub, campus)


def test_userinfo_overrules_nothing_that_was_signed(hub: Bench, campus: OpenIdDouble) -> None:
    campus.userinfo_says = {"groups": ["admins"]}
    assert walk(hub, campus).claims["groups"] == ["staff"]


def identity(**told: Any) -> settings.IdentitySetting:
    return settings.IdentitySetting(name="campus", issuer="https://id.example", client_id="x", **told)


def test_claims_are_found_along_dots_and_under_names_with_dots() -> None:
    told = {"realm_access": {"roles": ["a", "b"]}, "https://id.example/groups": "c", "groups": ["a", 7, "", None, {}]}
    asked = identity(groups=("realm_access.roles", "https://id.example/groups", "groups", "no.such", "groups.inner"))
    assert claims.words(asked, told)["groups"] == ["a", "b", "c"]


@pytest.mark.parametrize("odd", [None, 7, True, {"a": "b"}, [], [[]], "", "x" * 501, ["x" * 501]])
def test_claims_of_an_odd_form_are_no_words(odd: Any) -> None:
    assert claims.words(identity(), {"groups": odd}) == {"groups": [], "entitlements": [], "affiliations": []}


# --- how old, how strong --------------------------------------------------------------------------------------------


def test_a_fresh_sign_in_is_asked_for_and_had(hub: Bench, campus: OpenIdDouble) -> None:
    campus.authenticated_ago = 7200
    told = walk(hub, campus, max_age=600, level="gold")
    assert campus.asked[-1]["max_age"] == "600"
    assert campus.asked[-1]["acr_values"] == told.level == "gold"
    assert told.authenticated_at == hub.clock()


def test_a_provider_that_does_not_ask_again_signs_nobody_in(hub: Bench, campus: OpenIdDouble) -> None:
    campus.authenticated_ago, campus.heeds_max_age = 7200, False
    with pytest.raises(openid.Refused, match="did not ask you to sign in again"):
        walk(hub, campus, max_age=600)


def test_a_provider_that_does_not_say_when_is_refused_where_it_was_asked(hub: Bench, campus: OpenIdDouble) -> None:
    campus.says_auth_time = False
    assert walk(hub, campus).authenticated_at == hub.clock()
    with pytest.raises(openid.Refused, match="does not say when"):
        walk(hub, campus, max_age=600)


# --- late, gone, mad ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", [*STEPS, "userinfo"])
def test_a_provider_that_is_down_at_any_step_is_said_to_be(
    hub: Bench, campus: OpenIdDouble, step: str, fault: str
) -> None:
    campus.faults[step] = fault
    with pytest.raises(openid.Unavailable) as told:
        walk(hub, campus)
    assert STEPS.get(step, "what it knows of you") in str(told.value)
    assert told.value.status_code == 503


@pytest.mark.parametrize("fault", ["hang", "drip"])
@pytest.mark.parametrize("step", [*STEPS, "userinfo"])
def test_a_provider_that_hangs_hangs_nobody_here(
    hub: Bench, campus: OpenIdDouble, step: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.5)
    campus.faults[step] = fault
    begun = time.monotonic()
    with pytest.raises(openid.Unavailable):
        walk(hub, campus)
    assert time.monotonic() - begun < 3


def test_one_that_hangs_does_not_make_everybody_wait(
    hub: Bench, campus: OpenIdDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.5)
    campus.faults["discovery"] = "hang"
    for _ in range(3):
        with pytest.raises(openid.Unavailable):
            walk(hub, campus)
    assert campus.count("/.well-known/") == 1
    monkeypatch.setattr(asking, "QUIET_SECONDS", 0.0)
    hub.at.identities.clear()
    campus.faults.clear()
    assert walk(hub, campus).subject == "ada-1"


def test_one_sign_in_waits_ten_seconds_in_all_and_a_renewal_less() -> None:
    assert asking.SECONDS <= 10
    assert asking.RENEWAL_SECONDS < asking.SECONDS


def test_a_provider_is_asked_again_as_soon_as_it_is_back(hub: Bench, campus: OpenIdDouble) -> None:
    campus.faults["jwks"] = "error"
    with pytest.raises(openid.Unavailable):
        walk(hub, campus)
    campus.faults.clear()
    assert walk(hub, campus).subject == "ada-1"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("access_denied", openid.Cancelled),
        ("temporarily_unavailable", openid.Unavailable),
        ("server_error", openid.Unavailable),
        ("invalid_scope", openid.Refused),
        ("<script>alert(1)</script>", openid.Refused),
    ],
)
def test_what_a_provider_says_instead_of_a_code_is_told(
    hub: Bench, campus: OpenIdDouble, said: str, kind: type[Exception]
) -> None:
    campus.says_error = said
    with pytest.raises(kind) as told:
        walk(hub, campus)
    assert "<" not in str(told.value)
    assert campus.count("/token") == 0


# --- signing out ----------------------------------------------------------------------------------------------------


def test_the_provider_is_told_whom_to_sign_out_and_where_to_send_them(hub: Bench, campus: OpenIdDouble) -> None:
    told = walk(hub, campus)
    address = client(hub).end_address(told.grant, "http://localhost:8000/login/campus/loggedout")
    assert address is not None
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert asked["client_id"] == campus.client_id
    assert asked["post_logout_redirect_uri"].endswith("/login/campus/loggedout")
    assert asked["id_token_hint"].count(".") == 2


def test_a_provider_without_such_a_page_is_left_alone(hub: Bench, campus: OpenIdDouble) -> None:
    campus.discovery_says = {"end_session_endpoint": None}
    assert client(hub).end_address("", "http://localhost:8000/") is None


def test_a_log_out_by_the_provider_is_believed_once(hub: Bench, campus: OpenIdDouble) -> None:
    token = campus.logout_token(sid="s-1", sub="ada-1")
    told = client(hub).logged_out(token)
    assert (told.issuer, told.sid, told.subject) == (campus.issuer, "s-1", "ada-1")
    with pytest.raises(openid.Refused, match="used before"):
        client(hub).logged_out(token)


WRONG_LOGOUTS: dict[str, dict[str, Any]] = {
    "nobody named": {},
    "a nonce": {"sub": "ada-1", "nonce": "n"},
    "no event": {"sub": "ada-1", "without": ("events",)},
    "another event": {"sub": "ada-1", "events": {"http://example.org/other": {}}},
    "events that are a list": {"sub": "ada-1", "events": ["http://schemas.openid.net/event/backchannel-logout"]},
    "another audience": {"sub": "ada-1", "aud": "other"},
    "another issuer": {"sub": "ada-1", "iss": "https://evil.example"},
    "no id": {"sub": "ada-1", "without": ("jti",)},
    "run out": {"sub": "ada-1", "exp": 1},
    "too old": {"sub": "ada-1", "iat": 1},
}


@pytest.mark.parametrize("what", WRONG_LOGOUTS)
def test_a_log_out_token_that_is_wrong_signs_nobody_out(hub: Bench, campus: OpenIdDouble, what: str) -> None:
    with pytest.raises(openid.Refused):
        client(hub).logged_out(campus.logout_token(**WRONG_LOGOUTS[what]))


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é" * 50, "eyJhbGciOiJSUzI1NiJ9.e30.AA", "." * 5000])
def test_what_is_no_token_is_refused(hub: Bench, text: str) -> None:
    with pytest.raises(openid.Refused):
        client(hub).logged_out(text)


def test_an_id_token_is_no_log_out_and_a_log_out_no_id_token(hub: Bench, campus: OpenIdDouble) -> None:
    campus.header = {"typ": "logout+jwt"}
    with pytest.raises(openid.Refused):
        walk(hub, campus)
    campus.header = {}
    told = walk(hub, campus)
    with pytest.raises(openid.Refused):
        client(hub).logged_out(Grant.read(told.grant).hint)
