"""The three nets, each with the other two cut, in people's own accounts; what `tests/crashes/test_nets.py` does at random.

Over every cloud that there is a double of here: the same tests, and what differs is said by the world.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import pytest
import sqlalchemy as sa

from broker import connections, identity, launches, people, reaper, repos, settings, uses, wishes
from broker.models import Event, Launch, Order, Profile, State
from providers import base
from providers.aws import AwsProvider
from providers.fake import FakeCloud
from tests.broker.conftest import Bench, Clock
from tests.broker.test_exchange import HUB, Front, deploy
from tests.doubles.aws_double import ACCOUNT, AwsDouble

PATIENT = {"boot_minutes": 30, "silence_minutes": 60 * 48}


class World(Protocol):
    """A broker on the desk and a cloud, in which Ada has an account that trusts the broker."""

    bench: Bench

    def billed(self) -> list[str]:
        """What costs money at this moment, whatever it is."""

    def left(self) -> list[str]:
        """The same, and what carries our tag and costs nothing."""

    def passes(self, **time: float) -> None:
        """Time goes on, here and there."""

    def powers_off(self) -> None:
        """Every machine powers itself off, as its dead-man switch has it do."""


class OverFake:
    def __init__(self, bench: Bench, cloud: FakeCloud) -> None:
        self.bench, self.cloud = bench, cloud

    def billed(self) -> list[str]:
        return self.cloud.billed()

    def left(self) -> list[str]:
        return self.cloud.billed()

    def passes(self, **time: float) -> None:
        self.bench.clock.move(**time)
        self.cloud.advance(dt.timedelta(**time).total_seconds())

    def powers_off(self) -> None:
        for machine in self.cloud.instances():
            self.cloud.die(machine["id"])


class OverAws:
    def __init__(self, bench: Bench, aws: AwsDouble) -> None:
        self.bench, self.aws = bench, aws

    def billed(self) -> list[str]:
        """Security groups cost nothing, and so does a schedule of one call."""
        return [name for name in self.left() if name.startswith(("i-", "vol-", "eni-", "eipalloc-"))]

    def left(self) -> list[str]:
        return self.aws.account().marked()

    def passes(self, **time: float) -> None:
        self.bench.clock.move(**time)
        self.aws.tick()

    def powers_off(self) -> None:
        for name in self.billed():
            if name.startswith("i-"):
                self.aws.power_off(name)
        self.aws.tick()


class Near(AwsProvider):
    """AWS on this computer: its machines could reach a broker here."""

    dials_loopback = True


@pytest.fixture
def over_fake(make_bench: Callable[..., Bench], clock: Clock) -> Iterator[World]:
    with FakeCloud.start() as cloud:
        cloud.rate(0)
        cloud.fault("provision", "never_dials", times=None)
        clock.time = dt.datetime.fromtimestamp(cloud.now(), dt.UTC)
        bench = make_bench(cloud.provider(kinds="keyless", lists_within="1"), backends=(SETTING,), **PATIENT)
        connect(bench, "keyless")
        yield OverFake(bench, cloud)


@pytest.fixture
def over_aws(make_bench: Callable[..., Bench], clock: Clock) -> Iterator[World]:
    clock.time = dt.datetime.now(dt.UTC)
    bench = make_bench(backends=(SETTING,), public_url=HUB, session_domain="sessions.example", **PATIENT)
    here = repos.Resolver(bench.at.settings, allowed=(ipaddress.ip_network("127.0.0.0/8"),))
    bench.at = replace(bench.at, repos=here)  # a served broker looks into no private network
    with Front(bench.at) as front, AwsDouble(clock=clock, issuers={HUB: front.url}) as aws:
        provider = Near({"region": aws.region, "endpoint_url": aws.url})
        bench.at.backends["desk"] = replaced(bench, provider)
        made = connect(bench, "web_identity", account=ACCOUNT)
        deploy(aws.account(), provider, identity.trust(bench.at, made.subject))
        yield OverAws(bench, aws)


SETTING = settings.BackendSetting(name="desk", provider="fake")


def replaced(bench: Bench, provider: base.Provider) -> Any:
    return replace(bench.at.backends["desk"], provider=provider)


def connect(bench: Bench, kind: str, **typed: str) -> Any:
    with bench.at.db.transaction() as session:
        session.merge(Profile(id="ada", name="Ada", created_at=bench.clock(), signed_in_at=bench.clock()))
    kinds = bench.at.backends["desk"].provider.kinds
    return connections.connect(bench.at, people.known(bench.at, "ada"), "backend:desk", kinds, kind, typed)


@pytest.fixture(params=["fake", "aws"])
def world(request: pytest.FixtureRequest) -> World:
    found: World = request.getfixturevalue(f"over_{request.param}")
    return found


def runs(world: World) -> Launch:
    """A session of Ada's, in her account; she goes to bed."""
    wish = wishes.Wish(repo=world.bench.repo, backend="desk", hours=2)
    launch = world.bench.run(launches.request(world.bench.at, people.known(world.bench.at, "ada"), wish)[0])
    assert world.billed() != []
    return launch


def sweep(world: World) -> list[reaper.Finding]:
    return reaper.sweep(world.bench.at, everything=True)


def swept_clean(world: World) -> None:
    """Sweeps until nothing is left; a few are enough, since ending takes a cloud a moment."""
    for _ in range(10):
        sweep(world)
        if world.left() == []:
            return
        world.passes(minutes=1)
    raise AssertionError(f"still there: {world.left()}")


def forgets(world: World) -> None:
    """The table is as it was before anything was bought; people and their accounts are in it."""
    with world.bench.at.db.transaction() as session:
        for table in (Event, Order, Launch):
            session.execute(sa.delete(table))


def test_net_1_alone(world: World) -> None:
    """No sweep, no switch on the machine: the launch's own end, with the reap grant, while its person sleeps."""
    launch = runs(world)
    world.passes(hours=13)
    ada, asleep = people.known(world.bench.at, "ada"), world.bench.clock()
    assert not people.recent(world.bench.at, ada)
    assert world.bench.until_stopped(launch, looks=1000).state is State.STOPPED
    assert world.left() == []
    assert {use.what for use in uses.of(world.bench.at, ada) if use.at >= asleep} == {"reap"}


def test_net_2_alone(world: World) -> None:
    """The broker is killed for good once the session runs: the machine powers itself off, and the cloud ends its bill.

    What costs nothing may stay, until a broker is back.
    """
    launch = runs(world)
    world.powers_off()
    world.passes(minutes=5)
    assert world.billed() == []
    assert world.bench.until_stopped(launch, looks=1000).state is State.STOPPED
    assert world.left() == []


def test_net_3_alone(world: World) -> None:
    """The table believes that it is over, though nothing was ended; the machine's own switch is broken."""
    launch = runs(world)
    now = world.bench.clock()
    with world.bench.at.db.transaction() as session:
        session.execute(sa.update(Order).where(Order.launch_id == launch.id).values(closed_at=now))
        stopped = {"state": State.STOPPED, "stopped_at": now, "due_at": None}
        session.execute(sa.update(Launch).where(Launch.id == launch.id).values(**stopped))
    world.passes(hours=13)
    swept_clean(world)


def test_net_3_alone_after_the_table_was_lost(world: World) -> None:
    """Nothing is ended before its `until`, whatever the table says; after it, everything, with the reap grant."""
    launch = runs(world)
    forgets(world)
    there = world.billed()
    assert {finding.verdict for finding in sweep(world)} == {"unknown"}
    world.passes(seconds=(launch.deadline_at - world.bench.clock()).total_seconds() - 60)
    assert {finding.verdict for finding in sweep(world)} == {"unknown"}
    assert world.billed() == there
    world.passes(days=1)
    assert "expired" in {finding.verdict for finding in sweep(world)}
    swept_clean(world)


def test_what_runs_is_left_by_every_sweep(world: World) -> None:
    runs(world)
    there = world.billed()
    for _ in range(3):
        assert {finding.verdict for finding in sweep(world)} == {"wanted"}
        world.passes(minutes=1)
    assert world.billed() == there
