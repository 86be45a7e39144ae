"""This broker as an issuer: what clouds read of it, what its tokens say, and how its keys come and go."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from jwcrypto import jwk, jws, jwt

from broker import app, backends, connections, errors, identity, people, resealing, sealing, service, settings
from broker.models import Connection, Profile, SigningKey, Use
from providers import base
from providers.fake.driver import KINDS
from tests.broker.conftest import Bench, Clock
from tests.doubles.desk_cloud import DeskCloud

AUDIENCE = "sts.example"
PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "k", "oth"}  # members of a JWK that only its owner may have (RFC 7518)


@pytest.fixture
def at(bench: Bench) -> service.Service:
    return bench.at


@pytest.fixture
def keyless(make_bench: Callable[..., Bench]) -> Bench:
    """A backend that asks people for an account of their own, where nothing secret is kept."""
    cloud = DeskCloud()
    cloud.kinds = (KINDS["keyless"],)
    return make_bench(cloud)


def token(at: service.Service, sub: str = "launch:somebody", **claims: Any) -> str:
    return identity.token(at, sub, base.Assertion(audience=AUDIENCE, claims=claims))


def read(given: str, keys: dict[str, Any], now: dt.datetime) -> dict[str, Any]:
    """What a cloud reads in a token, with a library that is not ours. Raises where the list of keys does not fit it."""
    checked = jws.JWS()
    checked.allowed_algs = ["RS256"]
    checked.deserialize(given)
    kid = checked.jose_header["kid"]
    key = jwk.JWKSet.from_json(json.dumps(keys)).get_key(kid)
    if key is None:
        raise jws.InvalidJWSSignature(f"no key {kid}")
    checked.verify(key, alg="RS256")
    said: dict[str, Any] = json.loads(checked.payload)
    assert said["nbf"] <= now.timestamp() < said["exp"]
    return said


def header(given: str) -> dict[str, Any]:
    parsed = jwt.JWT()
    parsed.deserialize(given)
    said: dict[str, Any] = json.loads(parsed.token.objects["protected"])
    return said


def rows(at: service.Service) -> list[SigningKey]:
    with at.db.reading() as session:
        return list(session.scalars(sa.select(SigningKey).order_by(SigningKey.signs_at)))


def kids(at: service.Service) -> set[str]:
    return {key["kid"] for key in identity.jwks(at)["keys"]}


def somebody(at: service.Service, name: str = "ada", *, signed_in: dt.datetime | None = None) -> people.Person:
    """A person of the table."""
    with at.db.transaction() as session:
        when = signed_in or at.now()
        session.merge(Profile(id=name, name=name.title(), created_at=when, signed_in_at=when))
    return people.known(at, name)


def connected(bench: Bench, person: people.Person, **typed: str) -> Connection:
    provider = bench.cloud
    kind = provider.kinds[0].name
    return connections.connect(bench.at, person, "backend:desk", provider.kinds, kind, typed)


# --- what clouds read -----------------------------------------------------------------------------------------------


@pytest.fixture
def pages(at: service.Service) -> Iterator[TestClient]:
    """A cloud: it knows no key and no cookie."""
    with TestClient(app.create(at), base_url="http://localhost:8000", raise_server_exceptions=False) as client:
        yield client


def test_anybody_may_read_who_we_are_and_our_keys(pages: TestClient, at: service.Service) -> None:
    told = pages.get("/.well-known/openid-configuration")
    assert told.status_code == 200
    said = told.json()
    assert said["issuer"] == identity.issuer(at)
    assert said["jwks_uri"] == f"{identity.issuer(at)}/.well-known/jwks.json"
    assert (said["subject_types_supported"], said["id_token_signing_alg_values_supported"]) == (["pairwise"], ["RS256"])
    assert {"iss", "sub", "aud", "exp", "iat"} <= set(said["claims_supported"])
    listed = pages.get("/.well-known/jwks.json")
    assert listed.status_code == 200
    assert [(key["kty"], key["use"], key["alg"]) for key in listed.json()["keys"]] == [("RSA", "sig", "RS256")]


def test_the_list_of_keys_shows_nothing_private(pages: TestClient, at: service.Service) -> None:
    identity.rotate(at)
    listed = pages.get("/.well-known/jwks.json").json()["keys"]
    assert len(listed) == 2
    assert not [key for key in listed if PRIVATE & set(key)]
    assert all(set(key) == {"kty", "n", "e", "kid", "use", "alg"} for key in listed)
    assert all(len(key["n"]) >= 342 for key in listed), "2048 bits"


@pytest.mark.parametrize("hours", [1, 25])
def test_what_is_read_of_us_is_kept_for_less_than_the_overlap(make_bench: Callable[..., Bench], hours: float) -> None:
    at = make_bench(issuer_overlap_hours=hours).at
    client = TestClient(app.create(at), base_url="http://localhost:8000")
    for path in ("/.well-known/openid-configuration", "/.well-known/jwks.json"):
        kept = client.get(path).headers["cache-control"]
        assert kept.startswith("public, max-age=")
        assert 0 < int(kept.partition("max-age=")[2]) <= hours * 3600 / 2


@pytest.mark.parametrize(
    "spelled",
    [
        "https://hub.example.org",
        "https://hub.example.org/",
        "https://hub.example.org:443",
        "https://Hub.Example.ORG:443/",
    ],
)
def test_our_name_as_an_issuer_is_one_however_it_is_spelled(at: service.Service, spelled: str) -> None:
    """An account trusts the exact letters: a slash more, and nobody can sign in any more."""
    assert identity.issuer(replace(at, agent_url=spelled)) == "https://hub.example.org"


@pytest.mark.parametrize("exact", ["https://hub.example.org:8443", "http://[::1]:8000", "https://example.org/hub"])
def test_what_belongs_to_our_name_stays_in_it(at: service.Service, exact: str) -> None:
    assert identity.issuer(replace(at, agent_url=exact)) == exact


# --- what a token says ----------------------------------------------------------------------------------------------


def test_a_token_says_who_it_is_from_and_for_and_until_when(at: service.Service, clock: Clock) -> None:
    given = token(at, launch="l1", repo="gh/owner/name")
    assert header(given) == {"alg": "RS256", "typ": "JWT", "kid": next(iter(kids(at)))}
    said = read(given, identity.jwks(at), clock())
    assert (said["iss"], said["aud"], said["sub"]) == (identity.issuer(at), AUDIENCE, "launch:somebody")
    assert (said["launch"], said["repo"]) == ("l1", "gh/owner/name")
    assert said["exp"] - clock().timestamp() == identity.TOKEN_SECONDS <= 900, "minutes"
    assert said["iat"] <= clock().timestamp()
    assert set(said) == {"iss", "sub", "aud", "iat", "nbf", "exp", "jti", "launch", "repo"}


@pytest.mark.parametrize("behind", [-identity.SKEW_SECONDS, 0, identity.SKEW_SECONDS])
def test_a_cloud_whose_clock_differs_by_five_minutes_takes_it(at: service.Service, clock: Clock, behind: int) -> None:
    read(token(at), identity.jwks(at), clock() + dt.timedelta(seconds=behind))


def test_a_token_is_over_after_minutes(at: service.Service, clock: Clock) -> None:
    given = token(at)
    with pytest.raises(AssertionError):
        read(given, identity.jwks(at), clock() + dt.timedelta(seconds=identity.TOKEN_SECONDS))


def test_every_token_has_an_id_of_its_own(at: service.Service, clock: Clock) -> None:
    ids = {read(token(at), identity.jwks(at), clock())["jti"] for _ in range(20)}
    assert len(ids) == 20
    assert all(len(each) * 5 >= 128 for each in ids), "5 bits a letter: nobody guesses one"


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"])
def test_no_claim_of_a_provider_replaces_ours(at: service.Service, clock: Clock, name: str) -> None:
    given = identity.token(at, "launch:ada", base.Assertion(audience=AUDIENCE, claims={name: 4102444800}))
    assert read(given, identity.jwks(at), clock())[name] != 4102444800


def test_another_broker_with_the_same_words_is_not_believed(at: service.Service, clock: Clock, tmp_path: Path) -> None:
    other = service.build(settings.Settings(home=tmp_path / "other"))
    try:
        with pytest.raises(jws.InvalidJWSSignature):
            read(token(replace(other, now=clock)), identity.jwks(at), clock())
    finally:
        other.close()


def test_a_token_that_was_changed_is_not_believed(at: service.Service, clock: Clock) -> None:
    head, body, signature = token(at).split(".")
    other = token(at, sub="reap:somebody").split(".")[1]
    assert body != other
    with pytest.raises(jws.InvalidJWSSignature):
        read(f"{head}.{other}.{signature}", identity.jwks(at), clock())


# --- who somebody is ------------------------------------------------------------------------------------------------


def test_a_person_is_somebody_else_for_everybody_who_is_asked(at: service.Service) -> None:
    subjects = {
        identity.subject(at, person, target)
        for person in ("ada", "bob")
        for target in ("backend:aws", "backend:aws2", "repo:gh")
    }
    assert len(subjects) == 6
    assert not [each for each in subjects if "ada" in each or "bob" in each]
    assert identity.subject(at, "ada", "backend:aws") in subjects, "the same each time"


@pytest.mark.parametrize("purpose", base.Purpose)
def test_a_subject_fits_every_cloud(at: service.Service, purpose: base.Purpose) -> None:
    """Google takes 127 bytes; AWS, Azure and Keystone letters, digits and a colon."""
    sub = identity.form(identity.subject(at, "ada" * 80, "backend:" + "b" * 31), purpose)
    assert len(sub.encode()) <= 33
    assert sub.replace(":", "").isalnum()
    assert sub.isascii()


def test_an_account_is_told_to_trust_exactly_what_tokens_say(keyless: Bench) -> None:
    person = somebody(keyless.at)
    found = connected(keyless, person)
    trusted = identity.trust(keyless.at, found.subject)
    backend = backends.named(keyless.at, "desk")
    for purpose in base.Purpose:
        connections.account(keyless.at, backend, found, purpose)
    said = [read(given or "", identity.jwks(keyless.at), keyless.clock()) for _, given in keyless.cloud.signed_in]
    assert [each["sub"] for each in said] == [trusted.launch_subject, trusted.reap_subject]
    assert {each["iss"] for each in said} == {trusted.issuer}
    assert person.id not in json.dumps(said)


def test_two_people_who_name_one_account_are_two_to_it(keyless: Bench) -> None:
    """Whoever types somebody else's account number is not the one whom that account trusts."""
    ada, bob = somebody(keyless.at, "ada"), somebody(keyless.at, "bob")
    backend = backends.named(keyless.at, "desk")
    for person in (ada, bob):
        connections.account(keyless.at, backend, connected(keyless, person), base.Purpose.LAUNCH)
    said = [read(given or "", identity.jwks(keyless.at), keyless.clock()) for _, given in keyless.cloud.signed_in]
    assert said[0]["sub"] != said[1]["sub"]


# --- when -----------------------------------------------------------------------------------------------------------


def test_launching_needs_a_recent_sign_in_and_reaping_none(keyless: Bench) -> None:
    person = somebody(keyless.at)
    found, backend = connected(keyless, person), backends.named(keyless.at, "desk")
    keyless.clock.move(hours=keyless.at.settings.sign_in_hours, seconds=1)
    with pytest.raises(errors.SignInAgain):
        connections.account(keyless.at, backend, found, base.Purpose.LAUNCH)
    assert keyless.cloud.signed_in == [], "the cloud was not asked, and no token was made"
    connections.account(keyless.at, backend, found, base.Purpose.REAP)
    somebody(keyless.at)  # signs in again
    connections.account(keyless.at, backend, found, base.Purpose.LAUNCH)
    assert [given.purpose for given, _ in keyless.cloud.signed_in] == [base.Purpose.REAP, base.Purpose.LAUNCH]


def test_every_exchange_has_a_token_of_its_own_and_is_written_down(keyless: Bench) -> None:
    person = somebody(keyless.at)
    found, backend = connected(keyless, person), backends.named(keyless.at, "desk")
    for purpose in (base.Purpose.LAUNCH, base.Purpose.REAP, base.Purpose.REAP):
        keyless.at.accounts.clear()  # as if its credential had ended
        connections.account(keyless.at, backend, found, purpose)
    given = [each for _, each in keyless.cloud.signed_in]
    assert len(set(given)) == 3
    with keyless.at.db.reading() as session:
        written = [(use.person, use.what) for use in session.scalars(sa.select(Use).order_by(Use.id))]
    assert written == [("ada", "launch"), ("ada", "reap"), ("ada", "reap")]


# --- keys -----------------------------------------------------------------------------------------------------------


def test_the_first_key_signs_at_once(at: service.Service, clock: Clock) -> None:
    read(token(at), identity.jwks(at), clock())
    assert len(rows(at)) == 1


START = """
import sys
from broker import identity, service, settings
at = service.build(settings.Settings(home=sys.argv[1]))
sys.stdout.write(",".join(key["kid"] for key in identity.jwks(at)["keys"]))
at.close()
"""


def test_two_processes_that_start_at_once_make_one_key(home: Path) -> None:
    service.build(settings.Settings(home=home)).close()  # tables are made by one
    command = [sys.executable, "-c", START, str(home)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert told[0] == told[1]
    assert "," not in told[0]
    assert told[0]


def test_a_new_key_is_published_before_it_signs_and_an_old_one_after(at: service.Service, clock: Clock) -> None:
    first = header(token(at))["kid"]
    overlap = dt.timedelta(hours=at.settings.issuer_overlap_hours)
    second = identity.rotate(at)
    assert kids(at) == {first, second}, "published"
    assert header(token(at))["kid"] == first, "does not sign yet"
    clock.time += overlap - dt.timedelta(seconds=1)
    assert header(token(at))["kid"] == first
    lasting = token(at)
    clock.move(seconds=1)
    assert header(token(at))["kid"] == second
    assert kids(at) == {first, second}
    read(lasting, identity.jwks(at), clock())
    clock.time += overlap
    assert kids(at) == {first, second}, (
        "whoever read the list just before can still check the last token of the old one"
    )
    clock.move(seconds=identity.TOKEN_SECONDS)
    assert kids(at) == {second}


def test_whoever_keeps_an_old_list_can_check_every_token(at: service.Service, clock: Clock) -> None:
    """By the clock: a cloud that reads our list as seldom as the overlap allows, through three rotations."""
    read_at, listed = clock(), identity.jwks(at)
    overlap = dt.timedelta(hours=at.settings.issuer_overlap_hours)
    seen = set()
    for _ in range(int(100 * 24 / 4)):
        clock.move(hours=4)
        identity.keep(at)
        if clock() - read_at > overlap - dt.timedelta(hours=4):
            read_at, listed = clock(), identity.jwks(at)
        given = token(at)
        read(given, listed, clock())
        seen.add(header(given)["kid"])
    assert len(seen) == 4
    assert len(kids(at)) <= 2


def test_a_private_half_is_erased_when_it_no_longer_signs(at: service.Service, clock: Clock) -> None:
    token(at)
    identity.rotate(at)
    clock.move(hours=at.settings.issuer_overlap_hours)
    identity.keep(at)
    assert [key.private is None for key in rows(at)] == [False, False], "another of us may be a little behind"
    clock.move(seconds=identity.SKEW_SECONDS)
    identity.keep(at)
    assert [key.private is None for key in rows(at)] == [True, False]
    token(at)
    assert list(at.signing) == [rows(at)[1].kid], "nor is it kept in memory"


def test_a_broker_that_was_off_for_long_erases_what_went_out_of_use_meanwhile(
    at: service.Service, clock: Clock
) -> None:
    token(at)
    identity.rotate(at)
    clock.move(days=10)
    identity.keep(at)
    assert [key.private is None for key in rows(at)] == [True, False]


def test_a_broker_whose_clock_is_behind_signs_all_the_same(at: service.Service, clock: Clock) -> None:
    token(at)
    identity.rotate(at)
    clock.move(hours=at.settings.issuer_overlap_hours, seconds=identity.SKEW_SECONDS)
    identity.keep(at)
    behind = replace(at, now=lambda: clock() - dt.timedelta(seconds=2 * identity.SKEW_SECONDS), signing={})
    read(token(behind), identity.jwks(at), behind.now())


def test_keys_change_by_themselves_as_often_as_the_setting_says(make_bench: Callable[..., Bench], clock: Clock) -> None:
    at = make_bench(issuer_key_days=10).at
    began, first = clock(), header(token(at))["kid"]
    while header(token(at))["kid"] == first:
        clock.move(hours=1)
        identity.keep(at)
    assert clock() - began == dt.timedelta(days=10)


def test_nothing_is_made_where_nothing_was_ever_signed(at: service.Service) -> None:
    identity.keep(at)
    assert rows(at) == []


def test_several_who_see_at_once_that_it_is_time_publish_one_key(at: service.Service, clock: Clock) -> None:
    token(at)
    clock.move(days=at.settings.issuer_key_days)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: identity.keep(at), range(4)))
    assert len(rows(at)) == 2


def test_an_overlap_longer_than_a_keys_life_makes_no_flood_of_keys(make_bench: Callable[..., Bench]) -> None:
    at = make_bench(issuer_key_days=0.5).at
    token(at)
    for _ in range(5):
        identity.keep(at)
    assert len(rows(at)) == 2


def test_a_stolen_key_is_replaced_at_once(at: service.Service, clock: Clock) -> None:
    stolen = token(at)
    pending = identity.rotate(at)
    fresh = identity.rotate(at, at_once=True)
    assert kids(at) == {fresh}
    assert header(token(at))["kid"] == fresh
    assert [key.kid for key in rows(at) if key.private is not None] == [fresh]
    assert pending != fresh
    with pytest.raises(jws.InvalidJWSSignature):
        read(stolen, identity.jwks(at), clock())


def test_tokens_are_made_while_keys_change(at: service.Service, clock: Clock) -> None:
    """A cloud that asks for our list again when it meets a key it does not know finds it there."""
    token(at)

    def exchange(number: int) -> dict[str, Any]:
        if number in (20, 40):
            identity.rotate(at)
        return read(token(at), identity.jwks(at), clock())

    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(exchange, range(60)))) == 60


def test_the_private_half_is_nowhere_in_clear(at: service.Service) -> None:
    token(at)
    (opened,) = at.signing.values()
    private = opened.as_dict(private=True)
    (row,) = rows(at)
    assert row.private is not None
    everything = b"".join(path.read_bytes() for path in at.settings.home.rglob("*") if path.is_file())
    pem = opened.as_pem(private=True)
    lines = [line for line in pem.splitlines() if line and not line.startswith(b"-----")]
    assert lines
    assert not [line for line in lines if line in everything]
    assert not [name for name in PRIVATE & set(private) if str(private[name]).encode() in everything]
    assert row.public["n"].encode() in everything, (
        "and what is public is found, so it was looked for in the right place"
    )


def test_a_sealed_half_opens_in_its_own_place_only(at: service.Service) -> None:
    first = rows_after_two(at)
    with at.db.transaction() as session:
        both = list(session.scalars(sa.select(SigningKey)))
        both[0].private, both[1].private = both[1].private, both[0].private
    with pytest.raises(errors.BrokerError, match="wrong place"):
        token(replace(at, signing={}))
    assert len(first) == 2


def rows_after_two(at: service.Service) -> list[SigningKey]:
    token(at)
    identity.rotate(at)
    return rows(at)


def test_a_new_sealing_key_seals_every_half_again(at: service.Service) -> None:
    rows_after_two(at)
    ring = at.settings.home / "sealing.keys"
    ring.write_text(f"{sealing.new_line()}\n{ring.read_text()}")
    assert resealing.reseal(at).done == {"signing_keys": 2}
    ring.write_text(ring.read_text().splitlines()[0])
    fresh = replace(at, sealer=sealing.Sealer(at.settings), signing={})
    read(token(fresh), identity.jwks(at), at.now())
