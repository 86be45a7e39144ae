"""The exchange with AWS, by a real broker and boto3: what passes, what is refused and how the person hears of it, and that
none fails while keys rotate.

The double verifies as AWS does: through the keys that this broker publishes over HTTP, kept for an hour.
"""

from __future__ import annotations

import datetime as dt
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI
from joserfc import jws, jwt
from joserfc.jwk import RSAKey

from broker import backends, connections, identity, people, resealing, sealing, service, settings, uses
from broker.models import Connection, Profile, SigningKey
from broker.web import issuer
from providers import base
from providers.aws import AwsProvider, clients, guides
from providers.errors import BadCredential
from tests.broker.conftest import Clock
from tests.doubles.aws_double import ACCOUNT, Account, AwsDouble
from tests.waiting import until

HUB = "https://hub.example"
LAUNCH, REAP = base.Purpose
LITTLE = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}
OVERLAP_HOURS, KEPT_SECONDS = 2, 3600


class Presenting(AwsProvider):
    """Presents `instead`, where a test has set it, for the token that the broker made."""

    instead = ""

    def sign_in(self, connection: base.Connection, identity_token: str | None) -> base.Credential:
        return super().sign_in(connection, self.instead or identity_token)


class Front:
    """What the world can read of a broker as an issuer, on a port of its own."""

    def __init__(self, at: service.Service) -> None:
        web = FastAPI()
        web.state.service = at
        web.include_router(issuer.router)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(web, log_config=None, lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, args=([self._listening],), daemon=True)

    def __enter__(self) -> Front:
        self._thread.start()
        until(lambda: self._server.started, what="the front answers")
        return self

    def __exit__(self, *args: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listening.close()


@dataclass(kw_only=True)
class World:
    """A broker with a public address, AWS, and Ada, whose account trusts the broker."""

    at: service.Service
    aws: AwsDouble
    account: Account
    clock: Clock
    provider: Presenting
    ada: people.Person
    row: Connection

    def checked(self) -> Connection:
        """What Ada sees after “Check”."""
        return connections.check(self.at, self.ada, self.row.id)

    def token(self, at: service.Service | None = None, purpose: base.Purpose = LAUNCH, **claims: Any) -> str:
        """What a broker signs for Ada; this one, where no other is named."""
        asked = base.Assertion(audience=guides.AUDIENCE, claims=claims)
        return identity.token(at or self.at, identity.form(self.row.subject, purpose), asked)

    def sign_in(self, token: str) -> base.Credential:
        plain = base.Connection(kind="web_identity", settings={"account": ACCOUNT}, subject=self.row.subject)
        return AwsProvider(self.provider.configuration).sign_in(plain, token)


@pytest.fixture
def make_broker(home: Path, clock: Clock) -> Iterator[Callable[..., service.Service]]:
    """Brokers under the hub's address; two of one home are two workers of one broker."""
    made: list[service.Service] = []

    def make(folder: Path = home) -> service.Service:
        chosen = settings.Settings(
            home=folder, public_url=HUB, session_domain="sessions.example", issuer_overlap_hours=OVERLAP_HOURS
        )
        made.append(replace(service.build(chosen), now=clock))
        return made[-1]

    yield make
    for at in made:
        at.close()


@pytest.fixture
def world(make_broker: Callable[..., service.Service], clock: Clock) -> Iterator[World]:
    at = make_broker()
    with Front(at) as front, AwsDouble(clock=clock, issuers={HUB: front.url}, jwks_seconds=KEPT_SECONDS) as aws:
        provider = Presenting({"region": aws.region, "endpoint_url": aws.url})
        provider.place = replace(provider.place, read_seconds=60)  # 200 at once, on a computer with more to do
        offer(at, provider)
        ada, account = known(at, "ada"), aws.account()
        row = connect(at, ada)
        deploy(account, provider, identity.trust(at, row.subject))
        yield World(at=at, aws=aws, account=account, clock=clock, provider=provider, ada=ada, row=row)


def offer(at: service.Service, provider: AwsProvider) -> None:
    setting = settings.BackendSetting(name="aws", provider="aws")
    at.backends["aws"] = backends.Backend(name="aws", title="AWS", provider=provider, setting=setting)


def known(at: service.Service, name: str) -> people.Person:
    """Somebody who has just signed in."""
    with at.db.transaction() as session:
        session.add(Profile(id=name, name=name, created_at=at.now(), signed_in_at=at.now()))
    return people.known(at, name)


def connect(at: service.Service, person: people.Person, account: str = ACCOUNT) -> Connection:
    kinds = backends.named(at, "aws").provider.kinds
    return connections.connect(at, person, "backend:aws", kinds, "web_identity", {"account": account})


def deploy(account: Account, provider: AwsProvider, trust: base.Trust) -> None:
    """What pasting the script does."""
    account.deploy(provider.guide("web_identity", trust, {}).download[guides.TEMPLATE])


# --- what passes ----------------------------------------------------------------------------------------------------


def test_an_account_that_trusts_the_broker_is_connected_and_checked(world):
    seen = world.checked()
    assert (seen.works, seen.trouble) == (True, "")
    assert seen.who == f"arn:aws:sts::{ACCOUNT}:assumed-role/AnybinderLaunch-{world.row.subject}/anybinder-launch"
    found = {(each["purpose"], each["name"]): each["works"] for each in seen.findings}
    assert found["launch", "ec2:RunInstances"] is True
    assert found["reap", "ec2:DescribeInstances"] is True
    assert False not in found.values()
    assert [(use.what, use.outcome) for use in uses.of(world.at, world.ada)] == [("check", ""), ("check", "")]
    assert world.row.secret is None, "nothing is kept"


def test_what_is_missing_is_named_on_the_row_with_its_fix(world):
    role = f"AnybinderLaunch-{world.row.subject}"
    world.account.client("iam").put_role_policy(RoleName=role, PolicyName="launch", PolicyDocument=json.dumps(LITTLE))
    seen = world.checked()
    assert seen.works is False
    assert seen.trouble == "Something is missing in the account: ssm:GetParameters, ec2:CreateSecurityGroup."
    assert all(role in each["fix"] for each in seen.findings if each["works"] is False)


@pytest.mark.parametrize("minutes", [-5, 5])
def test_a_cloud_whose_clock_is_off_by_five_minutes_lets_the_person_in(world, minutes):
    ours = world.clock
    world.aws.clock = lambda: ours() + dt.timedelta(minutes=minutes)
    assert world.checked().works is True


def test_a_reap_token_needs_nobody_to_be_signed_in(world):
    world.clock.move(hours=24 * 30)
    backend = backends.named(world.at, "aws")
    assert connections.account(world.at, backend, world.row, REAP).credential.who.endswith("/anybinder-reap")


# --- what is refused, and what the person sees ----------------------------------------------------------------------


def wrong_audience(world: World) -> None:
    trusts(world, "somebody-else")


def trusts(world: World, *audiences: str) -> None:
    """The account knows the issuer for these audiences, or not at all."""
    iam = world.account.client("iam")
    for found in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]:
        iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=found["Arn"])
    if audiences:
        iam.create_open_id_connect_provider(Url=HUB, ClientIDList=list(audiences))


def other_subject(world: World) -> None:
    other = replace(identity.trust(world.at, world.row.subject), launch_subject="launch:ben", reap_subject="reap:ben")
    parameters = guides.stack_parameters(world.provider.place, other) | {"RoleSuffix": world.row.subject}
    world.account.deploy(guides.filled(parameters))


def expired(world: World) -> None:
    ours = world.clock
    world.aws.clock = lambda: ours() + dt.timedelta(minutes=15)


def not_yet(world: World) -> None:
    ours = world.clock
    world.aws.clock = lambda: ours() - dt.timedelta(minutes=10)


def other_issuers_key(world: World) -> None:
    """Somebody else signs in the broker's name, and even under the name of its key."""
    read = jwt.decode(world.token(), RSAKey.import_key(identity.jwks(world.at)["keys"][0]))
    theirs = RSAKey.generate_key(2048, {"kid": read.header["kid"]})
    world.provider.instead = jwt.encode(read.header, read.claims, theirs)


def unknown_issuers_key(world: World) -> None:
    """As after a broker has lost its table: it signs with a key that AWS has not read yet."""
    world.sign_in(world.token())
    with world.at.db.transaction() as session:
        session.execute(sa.delete(SigningKey))
    world.at.signing.clear()


def rotated_out_key(world: World) -> None:
    world.provider.instead = world.token()
    identity.rotate(world.at, at_once=True)


def replayed(world: World) -> None:
    world.provider.instead = world.token()
    world.sign_in(world.provider.instead)


def no_such_issuer(world: World) -> None:
    trusts(world)


def unsigned(world: World) -> None:
    head, body, _ = world.token().split(".")
    world.provider.instead = f"{head}.{body}."


@pytest.mark.parametrize(
    ("wrong", "code", "why", "do"),
    [
        (wrong_audience, "InvalidIdentityToken", "Incorrect token audience", "another audience than sts.amazonaws.com"),
        (other_subject, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity", "no role in this"),
        (expired, "ExpiredTokenException", "must be before the expiration", "clock of this broker is wrong"),
        (not_yet, "InvalidIdentityToken", "not valid yet", "does not take this broker's token"),
        (other_issuers_key, "InvalidIdentityToken", "signature of the token is invalid", "does not take this broker's"),
        (unknown_issuers_key, "InvalidIdentityToken", "Couldn't retrieve verification key", "Try again in an hour"),
        (rotated_out_key, "InvalidIdentityToken", "Couldn't retrieve verification key", "not among those that AWS has"),
        (replayed, "IDPRejectedClaim", "was used before", "with a fresh one"),
        (no_such_issuer, "InvalidIdentityToken", "No OpenIDConnect provider found", "does not know this broker"),
        (unsigned, "InvalidIdentityToken", "signature of the token is invalid", "does not take this broker's token"),
    ],
)
def test_each_wrong_token_is_refused_and_the_person_sees_why(world, wrong, code, why, do):
    wrong(world)
    seen = world.checked()
    assert seen.works is False
    for words in (code, why, do):
        assert words in seen.trouble
    assert seen.trouble.endswith(".")
    assert seen.trouble in [use.outcome for use in uses.of(world.at, world.ada)]
    assert not [part for part in world.provider.instead.split(".") if part and part in seen.trouble]
    assert connections.missing(world.at, world.ada, backends.named(world.at, "aws")) == seen.trouble


def test_another_person_who_knows_the_account_number_gets_nowhere(world):
    ben = known(world.at, "ben")
    row = connect(world.at, ben)
    seen = connections.check(world.at, ben, row.id)
    assert (seen.works, "no role in this account that trusts this broker for you" in seen.trouble) == (False, True)
    hers = base.Connection(kind="web_identity", settings={"account": ACCOUNT}, subject=world.row.subject)
    asked = world.provider.assertion(hers, {})
    with pytest.raises(BadCredential, match="AccessDenied"):  # nor at her role, with his own token
        world.provider.sign_in(hers, identity.token(world.at, identity.form(row.subject, LAUNCH), asked))


def test_what_is_mended_works_again(world):
    wrong_audience(world)
    assert world.checked().works is False
    trusts(world, guides.AUDIENCE)
    assert (world.checked().works, world.checked().trouble) == (True, "")


def test_another_broker_cannot_speak_in_this_ones_name(world, make_broker, tmp_path):
    impostor = make_broker(tmp_path / "impostor")
    with pytest.raises(BadCredential, match="Couldn't retrieve verification key"):
        world.sign_in(world.token(impostor))
    assert world.sign_in(world.token()).who


# --- keys rotate under load -----------------------------------------------------------------------------------------


@pytest.fixture
def waves(world, make_broker, monkeypatch) -> Iterator[Callable[[int], list[Future[str]]]]:
    """Starts so many exchanges, in turn by two workers of the broker, and returns when all of them are in the gate."""
    monkeypatch.setattr(clients, "READ_SECONDS", 200)  # the first of them are kept waiting until the last is there
    other = make_broker()
    offer(other, world.provider)
    pool = ThreadPoolExecutor(max_workers=200)

    def exchange(number: int) -> str:
        at, purpose = (world.at, other)[number % 2], (LAUNCH, REAP)[number // 2 % 2]
        return connections.account(at, backends.named(at, "aws"), world.row, purpose, fresh=True).credential.who

    def wave(count: int) -> list[Future[str]]:
        before = world.aws.waiting
        started = [pool.submit(exchange, number) for number in range(count)]
        if world.aws.gate:
            until(lambda: world.aws.waiting == before + count, seconds=90, what=f"{count} more are in the gate")
        return started

    yield wave
    pool.shutdown()


@pytest.mark.timeout(300)
def test_none_of_200_exchanges_in_flight_fails_while_keys_rotate_twice_and_the_sealing_key_once(world, waves):
    clock, at = world.clock, world.at
    signed = {kid_of(world.token())}
    assert all(
        each.result() for each in waves(4)
    )  # from now on AWS keeps the list with the first key alone, for an hour
    identity.rotate(at)
    clock.move(minutes=4)
    identity.rotate(at)
    clock.move(minutes=55)
    assert all(each.result() for each in waves(4)), "the list of before the rotations is still in force"
    clock.move(minutes=59)  # two minutes before the second key signs; AWS reads the list again with the next exchange
    assert world.sign_in(world.token())
    read = world.aws.issuers.fetched
    with world.aws.held():
        flying = waves(70)
        clock.move(minutes=3)  # the second key signs now
        signed.add(kid_of(world.token()))
        flying += waves(65)
        sealing.add_first(at.settings)
        resealed = resealing.reseal(at)
        clock.move(minutes=4)  # the third one does
        signed.add(kid_of(world.token()))
        flying += waves(65)
        assert (world.aws.waiting, len(flying)) == (200, 200)
    assert [each.exception() for each in flying if each.exception()] == []
    assert len(signed) == 3, "each of three keys has signed some of them"
    assert resealed.done["signing_keys"] == 3
    assert world.aws.issuers.fetched == read, "all by one list that AWS kept"
    clock.move(hours=2 * OVERLAP_HOURS)
    assert all(each.result() for each in waves(4))


def test_an_overlap_shorter_than_what_clouds_keep_would_fail(world, monkeypatch):
    """The load above proves something: with a list that AWS keeps for longer than the overlap, exchanges fail."""
    world.aws.issuers.keep_seconds = 3 * OVERLAP_HOURS * 3600
    world.sign_in(world.token())
    identity.rotate(world.at)
    world.clock.move(hours=OVERLAP_HOURS, minutes=1)
    assert "verification key" in world.checked().trouble


def test_a_stolen_key_is_out_at_once_where_lists_are_read_again(world):
    stolen = world.token()
    identity.rotate(world.at, at_once=True)
    world.clock.move(minutes=5)
    world.aws.issuers.forget()
    with pytest.raises(BadCredential, match="verification key"):
        world.sign_in(stolen)
    assert world.checked().works is True


def kid_of(token: str) -> str:
    return str(jws.extract_compact(token.encode()).headers()["kid"])
