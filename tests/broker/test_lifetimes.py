"""How long credentials, sign-ins and secrets last, and what is done with whose grant."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from broker import (
    backends,
    connections,
    errors,
    identity,
    launches,
    orders,
    people,
    reaper,
    rounds,
    settings,
    tasks,
    wishes,
)
from broker.models import Connection, Launch, Profile, State, Use
from providers import base
from providers.errors import BadCredential, ProviderUnavailable
from providers.fake import FakeCloud
from tests.broker.conftest import Bench, Clock
from tests.doubles.desk_cloud import offer
from tests.doubles.strict_cloud import LIVES, StrictCloud

KEY = "a-key-of-adas-own-that-nobody-else-has"
LAUNCH, REAP = base.Purpose.LAUNCH, base.Purpose.REAP


class Accounts:
    """A broker on the desk whose backend wants accounts, and people who have them."""

    def __init__(self, bench: Bench, cloud: Any) -> None:
        self.bench, self.at, self.clock, self.cloud = bench, bench.at, bench.clock, cloud
        self.backend = backends.named(bench.at, "desk")

    def signs_in(self, name: str = "ada") -> people.Person:
        with self.at.db.transaction() as session:
            session.merge(Profile(id=name, name=name, created_at=self.clock(), signed_in_at=self.clock()))
        return people.known(self.at, name)

    def connects(self, name: str = "ada", kind: str = "keyless", **typed: str) -> Connection:
        """Signed in, and connected; at the cloud the person trusts what the guide says."""
        made = connections.connect(
            self.at, self.signs_in(name), "backend:desk", self.backend.provider.kinds, kind, typed
        )
        if isinstance(self.cloud, StrictCloud):
            told = identity.trust(self.at, made.subject)
            self.cloud.issuer = told.issuer
            self.cloud.trusted |= {told.launch_subject, told.reap_subject}
            self.cloud.secrets |= set(typed.values())
        return made

    def has_bought(self, name: str, **how: str) -> Connection:
        """Connected, and something was bought there once."""
        made = self.connects(name, **how)
        launch = self.bench.run(self.asks(name))
        launches.stop(self.at, launch.id)
        self.bench.until_stopped(launch)
        return made

    def disconnects(self, made: Connection) -> None:
        connections.disconnect(self.at, people.known(self.at, made.person), made.id)

    def asks(self, who: str = "ada", **wish: Any) -> Launch:
        wanted = wishes.Wish(**{"repo": self.bench.repo, "backend": "desk", **wish})
        return launches.request(self.at, people.known(self.at, who), wanted)[0]

    def row(self, made: Connection) -> Connection:
        found = connections.row(self.at, made.id)
        assert found is not None
        return found

    def uses(self) -> list[tuple[str, str, str | None]]:
        """Who, what for, which launch; the oldest first."""
        with self.at.db.reading() as session:
            return [(each.person, each.what, each.launch_id) for each in session.scalars(sa.select(Use))]

    def purposes(self) -> list[base.Purpose]:
        """What each sign-in was for."""
        return [connection.purpose for connection, _ in self.cloud.signed_in]


@pytest.fixture
def accounts(make_bench: Callable[..., Bench], clock: Clock) -> Accounts:
    bench: list[Bench] = []
    cloud = StrictCloud(keys=lambda: identity.jwks(bench[0].at), now=clock)
    bench.append(make_bench(cloud))
    return Accounts(bench[0], cloud)


# --- a credential that ends too soon ---------------------------------------------------------------------------------


def longest(accounts: Accounts, hours: float) -> dt.timedelta:
    """From now until the machine must be gone, in the worst case."""
    return wishes.preparing(accounts.at.settings) + dt.timedelta(hours=hours) + launches.waits.TEARDOWN


def test_a_launch_that_could_not_be_ended_is_refused_and_buys_nothing(accounts: Accounts) -> None:
    accounts.connects()
    accounts.cloud.reaches = accounts.clock() + longest(accounts, 2) - dt.timedelta(seconds=1)
    launch = accounts.bench.until_stopped(accounts.asks(hours=2))
    assert (launch.state, launch.reason) == (State.STOPPED, "credential_short")
    assert f"{accounts.cloud.reaches:%Y-%m-%d at %H:%M}" in launch.message, "it says when"
    assert accounts.cloud.bought == []
    assert accounts.bench.phases(launch)[-1] == "failed"


def test_one_that_lasts_until_everything_is_gone_is_enough(accounts: Accounts) -> None:
    accounts.connects()
    accounts.cloud.reaches = accounts.clock() + longest(accounts, 2)
    accounts.bench.advance(accounts.asks(hours=2))
    assert len(accounts.cloud.bought) == 1


def test_a_shorter_session_fits(accounts: Accounts) -> None:
    accounts.connects()
    accounts.cloud.reaches = accounts.clock() + longest(accounts, 1)
    assert accounts.bench.until_stopped(accounts.asks(hours=2)).reason == "credential_short"
    accounts.bench.advance(accounts.asks(hours=1))
    assert len(accounts.cloud.bought) == 1


def test_where_the_cloud_ends_machines_by_itself_it_may_end_sooner(accounts: Accounts) -> None:
    accounts.connects()
    accounts.cloud.reaches = accounts.clock() + dt.timedelta(minutes=1)
    accounts.cloud.ends_by_itself = True
    accounts.bench.advance(accounts.asks(hours=2))
    assert len(accounts.cloud.bought) == 1


def test_an_end_that_the_person_typed_counts(make_bench: Callable[..., Bench], clock: Clock) -> None:
    """The fake cloud's own driver: `until` of a delegated credential is what it reaches."""
    with FakeCloud.start() as cloud:
        clock.time = dt.datetime.fromtimestamp(cloud.now(), dt.UTC)
        accounts = Accounts(make_bench(cloud.provider(kinds="delegated"), **PATIENT), cloud)
        soon = (clock() + dt.timedelta(minutes=10)).isoformat()
        accounts.connects(kind="delegated", key="the-fake-key", until=soon)
        assert accounts.bench.until_stopped(accounts.asks(hours=2)).reason == "credential_short"
        assert cloud.bill() == []


# --- kept in memory, and asked for anew ------------------------------------------------------------------------------


def test_a_credential_is_used_until_shortly_before_it_ends(accounts: Accounts) -> None:
    made = accounts.connects()

    def reap() -> int:
        connections.account(accounts.at, accounts.backend, made, REAP)
        return len(accounts.cloud.signed_in)

    assert [reap(), reap()] == [1, 1]
    accounts.clock.time += LIVES - connections.MARGIN - dt.timedelta(seconds=1)
    assert reap() == 1
    accounts.clock.move(seconds=1)
    assert [reap(), reap()] == [2, 2]
    assert len({token for _, token in accounts.cloud.signed_in}) == 2, "with a fresh token"


def test_it_is_nowhere_but_in_memory(accounts: Accounts) -> None:
    made = accounts.connects()
    found = connections.account(accounts.at, accounts.backend, made, LAUNCH)
    (token,) = [token for _, token in accounts.cloud.signed_in]
    on_disk = b"".join(path.read_bytes() for path in accounts.at.settings.home.rglob("*") if path.is_file())
    assert token
    assert token.encode() not in on_disk
    assert found.credential.secret["ends"].encode() not in on_disk
    assert found.credential.secret["ends"] not in repr(found) + repr(accounts.at)


def test_what_one_launch_may_is_not_what_another_may(accounts: Accounts) -> None:
    """A credential is narrowed to its launch, so each has its own; two purposes are never one."""
    accounts.connects()
    first, second = accounts.asks(name="one"), accounts.asks(name="two")
    for launch in (first, second):
        accounts.bench.advance(launch)
    tags = {(c.purpose, c.tag.launch if c.tag else "") for c, _ in accounts.cloud.signed_in}
    assert {(LAUNCH, first.id), (LAUNCH, second.id)} <= tags
    assert len([c for c, _ in accounts.cloud.signed_in]) == len(tags), "and none is asked for twice"


def test_a_long_session_costs_few_sign_ins(accounts: Accounts) -> None:
    accounts.connects()
    launch = accounts.bench.run(accounts.asks(hours=2))
    at_ready = len(accounts.cloud.signed_in)
    for _ in range(60):
        accounts.clock.move(minutes=1)
        reaper.sweep(accounts.at)
        connections.of_order(accounts.at, accounts.bench.order(launch))
    minutes = (LIVES - connections.MARGIN).total_seconds() / 60
    assert len(accounts.cloud.signed_in) - at_ready <= 60 / minutes + 1
    assert set(accounts.purposes()[at_ready:]) <= {REAP}


# --- who may what, and when ------------------------------------------------------------------------------------------


def test_every_use_is_written_down_with_its_purpose_and_launch(accounts: Accounts) -> None:
    accounts.connects()
    launch = accounts.bench.run(accounts.asks())
    launches.stop(accounts.at, launch.id)
    accounts.bench.until_stopped(launch)
    uses = accounts.uses()
    assert ("ada", "launch", launch.id) in uses
    assert ("ada", "reap", launch.id) in uses or ("ada", "reap", None) in uses
    assert len(uses) == len(accounts.cloud.signed_in), "one line each"
    assert [use[1] for use in uses] == [purpose.value for purpose in accounts.purposes()]


def test_what_is_bought_with_the_one_grant_is_ended_with_the_other(accounts: Accounts) -> None:
    accounts.connects()
    launch = accounts.bench.run(accounts.asks())
    launches.stop(accounts.at, launch.id)
    accounts.bench.until_stopped(launch)
    grants = {
        verb: {purpose for done, purpose in accounts.cloud.done if done == verb} for verb, _ in accounts.cloud.done
    }
    assert grants["provision"] == grants["offers"] == {LAUNCH}
    assert grants["terminate"] == grants["instances"] == {REAP}


def test_it_is_ended_while_the_person_sleeps(accounts: Accounts) -> None:
    accounts.connects()
    launch = accounts.bench.run(accounts.asks(hours=24))
    accounts.clock.move(hours=13)
    with pytest.raises(errors.SignInAgain):
        connections.of_launch(accounts.at, launch, LAUNCH)
    stopped = accounts.bench.until_stopped(launch)
    assert stopped.state is State.STOPPED
    assert accounts.cloud.instances_by_order == {}
    assert accounts.cloud.done[-1][1] is REAP


def test_it_is_ended_after_the_account_was_disconnected(accounts: Accounts) -> None:
    made = accounts.connects(kind="kept", key=KEY)
    launch = accounts.bench.run(accounts.asks())
    accounts.clock.move(hours=13)
    accounts.disconnects(made)
    assert accounts.row(made).secret is not None, "still needed"
    assert accounts.bench.until_stopped(launch).state is State.STOPPED
    assert accounts.cloud.instances_by_order == {}
    tasks.keep(accounts.at)
    found = accounts.row(made)
    assert (found.secret, found.erased_at) == (None, accounts.clock())
    assert not [key for key in accounts.at.accounts if key[0] == made.id], "nor does a credential of it stay in memory"


def test_the_secret_goes_only_after_the_last_order_is_closed(accounts: Accounts) -> None:
    made = accounts.connects(kind="kept", key=KEY)
    launch = accounts.bench.run(accounts.asks())
    accounts.cloud.clings = 3
    accounts.disconnects(made)
    launches.stop(accounts.at, launch.id)
    accounts.bench.advance(launch)
    tasks.keep(accounts.at)
    assert orders.current(accounts.at, launch) is not None
    assert accounts.row(made).secret is not None, "the cloud has not said yet that it is gone"
    accounts.bench.until_stopped(launch)
    tasks.keep(accounts.at)
    assert accounts.row(made).secret is None


def test_a_secret_that_nothing_needs_goes_at_once(accounts: Accounts) -> None:
    made = accounts.connects(kind="kept", key=KEY)
    accounts.disconnects(made)
    assert accounts.row(made).secret is None


def test_nothing_new_is_begun_with_an_account_that_was_disconnected(accounts: Accounts) -> None:
    """Also not by a launch that had its place already."""
    made = accounts.connects()
    launch = accounts.asks()
    accounts.cloud.refuse("sign_in", ProviderUnavailable("The desk is closed."))
    accounts.bench.advance(launch)
    accounts.disconnects(made)
    stopped = accounts.bench.until_stopped(launch)
    assert stopped.reason
    assert accounts.cloud.bought == []


def test_connecting_again_leaves_the_old_way_to_end_what_runs(accounts: Accounts) -> None:
    made = accounts.connects(kind="kept", key=KEY)
    launch = accounts.bench.run(accounts.asks())
    fresh = accounts.connects(kind="keyless")
    assert fresh.subject == made.subject, "the person need not tell the cloud anew whom to trust"
    launches.stop(accounts.at, launch.id)
    accounts.bench.until_stopped(launch)
    assert accounts.cloud.instances_by_order == {}
    tasks.keep(accounts.at)
    assert accounts.row(made).secret is None


def test_whoever_waits_in_a_queue_too_long_signs_in_again(accounts: Accounts) -> None:
    accounts.at.backends["desk"] = backends.Backend(
        name="desk",
        title="Desk",
        provider=accounts.cloud,
        setting=accounts.backend.setting.model_copy(update={"max_sessions": 1}),
    )
    accounts.connects("bob")
    accounts.connects("ada")
    first = accounts.bench.run(accounts.asks("bob", hours=24))
    waits = accounts.bench.advance(accounts.asks("ada"))
    assert waits.state is State.WAITING
    accounts.clock.move(hours=13)
    accounts.bench.until_stopped(first)
    bought, stopped = len(accounts.cloud.bought), accounts.bench.until_stopped(waits)
    assert stopped.reason == errors.SignInAgain.reason
    assert "Sign in again" in stopped.message
    assert len(accounts.cloud.bought) == bought == 1
    assert accounts.bench.phases(stopped)[-1] == "failed"


# --- sweeping people's accounts ---------------------------------------------------------------------------------------


def test_an_account_that_does_not_let_us_in_keeps_no_other_from_being_swept(accounts: Accounts) -> None:
    first, second, third = (accounts.has_bought(name) for name in ("ada", "bob", "eve"))
    lost = accounts.bench.run(accounts.asks("bob"))
    told = identity.trust(accounts.at, first.subject)
    accounts.cloud.trusted -= {told.reap_subject}
    accounts.at.accounts.clear()
    order = accounts.bench.order(lost)
    with accounts.at.db.transaction() as session:  # the table believes that it is over, and it is not
        session.execute(sa.update(Launch).where(Launch.id == lost.id).values(state=State.STOPPED))
    found = [finding for finding in reaper.sweep(accounts.at) if finding.instance.tag]
    assert {finding.verdict for finding in found} == {"unwanted"}
    assert order.id not in accounts.cloud.instances_by_order, "ended all the same"
    unasked = {station.key[1]: standing for station, standing in rounds.unasked(accounts.at)}
    assert set(unasked) == {first.id}
    assert {second.id, third.id} <= {key[1] for key, each in accounts.at.standings.items() if each.asked_at}


def test_a_ring_that_lacks_a_key_keeps_no_other_account_from_being_swept(accounts: Accounts) -> None:
    made = accounts.has_bought("ada", kind="kept", key=KEY)
    other = accounts.has_bought("bob")
    accounts.at.accounts.clear()
    with accounts.at.db.transaction() as session:
        session.execute(sa.update(Connection).where(Connection.id == made.id).values(secret=b"\x01\x03old" + bytes(80)))
    reaper.sweep(accounts.at)
    assert [station.key[1] for station, _ in rounds.unasked(accounts.at)] == [made.id]
    assert accounts.at.standings["desk", other.id].asked_at == accounts.clock()


def test_a_sweep_signs_in_to_each_account_by_the_grant_that_ends(accounts: Accounts) -> None:
    accounts.has_bought("ada")
    accounts.has_bought("bob")
    accounts.clock.move(days=3)
    accounts.connects("eve")  # who has never bought anything: nothing is there to look for
    before = len(accounts.cloud.signed_in)
    reaper.sweep(accounts.at)
    reaper.sweep(accounts.at)
    assert accounts.purposes()[before:] == [REAP, REAP]


def test_an_account_from_which_all_is_gone_is_swept_no_more(accounts: Accounts) -> None:
    made = accounts.has_bought("ada")
    accounts.disconnects(made)
    before = len(accounts.cloud.signed_in)
    reaper.sweep(accounts.at)
    assert len(accounts.cloud.signed_in) == before


# --- with machines of the fake cloud -----------------------------------------------------------------------------------

PATIENT = {"boot_minutes": 30, "silence_minutes": 60 * 48}


@pytest.fixture
def fake(make_bench: Callable[..., Bench], clock: Clock) -> Iterator[Accounts]:
    """The fake cloud, keyless; its machines do not dial, the bench speaks for them. One clock for both."""
    with FakeCloud.start() as cloud:
        cloud.rate(0)
        cloud.fault("provision", "never_dials", times=None)
        clock.time = dt.datetime.fromtimestamp(cloud.now(), dt.UTC)
        setting = settings.BackendSetting(name="desk", provider="fake")
        bench = make_bench(cloud.provider(kinds="keyless,kept", lists_within="1"), backends=(setting,), **PATIENT)
        yield Accounts(bench, cloud)


def test_a_machine_on_a_keyless_account_is_ended_long_after_the_person_has_left(fake: Accounts) -> None:
    made = fake.connects()
    launch = fake.bench.run(fake.asks(hours=24))
    assert len(fake.cloud.billed()) == 3, "machine, disk and address"
    fake.clock.move(hours=13)
    fake.cloud.advance(13 * 3600)
    fake.disconnects(made)
    with pytest.raises((errors.SignInAgain, BadCredential)):
        connections.of_launch(fake.at, launch, LAUNCH)
    assert fake.bench.until_stopped(launch).state is State.STOPPED
    assert fake.cloud.billed() == []
    tasks.keep(fake.at)
    assert fake.row(made).erased_at == fake.clock()
    assert {what for _, what, _ in fake.uses()} == {"launch", "reap"}


def test_a_secret_of_a_kept_key_outlives_its_disconnection_until_the_machine_is_gone(fake: Accounts) -> None:
    made = fake.connects(kind="kept", key="the-fake-key")
    launch = fake.bench.run(fake.asks(hours=24))
    fake.disconnects(made)
    fake.cloud.fault("terminate", "unavailable", times=2)
    launches.stop(fake.at, launch.id)
    fake.bench.advance(launch)
    tasks.keep(fake.at)
    assert fake.row(made).secret is not None
    fake.bench.until_stopped(launch)
    tasks.keep(fake.at)
    assert fake.cloud.billed() == []
    assert fake.row(made).secret is None


def test_a_wrong_key_is_said_and_buys_nothing(fake: Accounts) -> None:
    made = fake.connects(kind="kept", key="not-the-fake-key")
    stopped = fake.bench.until_stopped(fake.asks())
    assert stopped.reason == BadCredential.reason
    assert "not-the-fake-key" not in stopped.message
    assert fake.cloud.bill() == []
    found = fake.row(made)
    assert found.works is False
    assert found.trouble


# --- a hedge whose account shuts -------------------------------------------------------------------------------------


def test_a_lost_answer_is_not_forgotten_because_the_account_was_disconnected_afterwards(
    accounts: Accounts, clock: Clock
) -> None:
    """The second machine was bought and its answer lost: that nobody may ask again is no word on whether it is there."""
    cloud = accounts.cloud
    cloud.lists_within = dt.timedelta(seconds=60)
    cloud.menu = [offer("first", "0.10", usual_seconds=60), offer("second", "0.20")]
    made = accounts.connects()
    launch = accounts.bench.advance(accounts.asks(hedge=True))
    cloud.lose("provision", ProviderUnavailable("No answer."))
    clock.move(seconds=61)
    launch = accounts.bench.advance(launch)
    first, second = orders.opened(accounts.at, launch)
    accounts.disconnects(made)
    unlisted = cloud.instances_by_order.pop(second.id)
    for _ in range(3):
        clock.move(seconds=launches.waits.RETRY_SECONDS)
        accounts.bench.advance(launch)
    assert {order.id for order in orders.opened(accounts.at, launch)} == {first.id, second.id}
    cloud.instances_by_order[second.id] = unlisted  # its list has caught up
    clock.move(seconds=60)
    launch = accounts.bench.advance(launch)
    assert [order.id for order in orders.opened(accounts.at, launch)] == [first.id]
    assert list(cloud.instances_by_order) == [first.id]
