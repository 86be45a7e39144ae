"""The third net, alone."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from broker import launches, reaper
from broker.models import Event, Launch, Order
from providers import base
from providers import errors as clouds
from tests.broker.conftest import Bench, Clock


def stray(bench: Bench, *, broker: str | None = None, until: dt.datetime | None = None, order: str = "stray") -> None:
    """An instance the table knows nothing of."""
    tag = base.Tag(
        broker=broker or bench.at.keys.broker_id,
        launch="gone",
        order=order,
        until=until or bench.clock() + dt.timedelta(hours=1),
    )
    bench.cloud.instances_by_order[order] = base.Instance(id=f"i-{order}", tag=tag, state=base.InstanceState.RUNNING)


def test_what_a_launch_wants_is_left(bench: Bench) -> None:
    launch = bench.ready()
    (finding,) = reaper.sweep(bench.at)
    assert (finding.verdict, finding.ends) == ("wanted", False)
    assert launch.id in finding.why
    assert len(bench.cloud.instances_by_order) == 1


def test_what_came_back_after_its_order_was_closed_is_ended(bench: Bench) -> None:
    """A worker that slept through its lease buys after teardown: the first two nets are through, this one is not."""
    launch = bench.ready()
    kept = dict(bench.cloud.instances_by_order)
    launches.stop(bench.at, launch.id)
    bench.until_stopped(launch)
    bench.cloud.instances_by_order.update(kept)
    (finding,) = reaper.sweep(bench.at)
    assert finding.verdict == "unwanted"
    assert bench.cloud.instances_by_order == {}


def test_an_emptied_table_deletes_nothing_before_until(bench: Bench, clock: Clock) -> None:
    launch = bench.ready()
    with bench.at.db.transaction() as session:
        for table in (Event, Order, Launch):
            session.execute(sa.delete(table))
    (finding,) = reaper.sweep(bench.at)
    assert (finding.verdict, finding.ends) == ("unknown", False)
    clock.time = launch.deadline_at + dt.timedelta(days=1)
    (finding,) = reaper.sweep(bench.at)
    assert finding.verdict == "expired"
    assert bench.cloud.instances_by_order == {}


def test_another_brokers_instance_is_never_touched(bench: Bench, clock: Clock) -> None:
    stray(bench, broker="somebody-else", until=clock() - dt.timedelta(days=9))
    assert reaper.sweep(bench.at) == []
    assert len(bench.cloud.instances_by_order) == 1


def test_a_dry_run_ends_nothing(bench: Bench, clock: Clock) -> None:
    stray(bench, until=clock() - dt.timedelta(days=1))
    (finding,) = reaper.sweep(bench.at, dry_run=True)
    assert finding.ends
    assert "terminate" not in bench.cloud.calls


def test_a_cloud_out_of_reach_is_left_for_the_next_sweep(bench: Bench, clock: Clock) -> None:
    stray(bench, until=clock() - dt.timedelta(days=1))
    bench.cloud.refuse("instances", clouds.ProviderUnavailable("No answer."))
    assert reaper.sweep(bench.at) == []
    reaper.sweep(bench.at)
    assert bench.cloud.instances_by_order == {}
