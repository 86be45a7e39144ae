"""What a machine may delete itself with: asked for once, sealed, handed over until it is held, erased with the order."""

from __future__ import annotations

import datetime as dt

import pytest

from broker import orders, resealing, sealing
from broker.models import Order, State
from providers import base
from providers import errors as clouds
from tests.broker.conftest import AGENT
from tests.doubles.desk_cloud import DeskCloud

KEY = "what-may-delete-this-server-and-nothing-else"


class WillingCloud(DeskCloud):
    """Lets each machine delete itself."""

    gives = True

    def dead_man(self, credential: base.Credential, instance: base.Instance) -> base.DeadMan | None:
        self._called("dead_man")
        if not self.gives:
            return None
        request = base.Request(method="DELETE", url=f"https://cloud.example/{instance.id}", headers={"X-Key": KEY})
        return base.DeadMan(requests=(request,), ends_at=dt.datetime(2026, 11, 22, tzinfo=dt.UTC))


@pytest.fixture
def bench(make_bench):
    return make_bench(WillingCloud())


def row(bench, order: Order) -> Order:
    with bench.at.db.reading() as session:
        found = session.get(Order, order.id)
    assert found is not None
    return found


def look(bench, launch):
    bench.clock.move(seconds=5)
    return bench.advance(launch)


def test_it_is_asked_for_once_the_machine_is_bought_and_once_only(bench):
    launch = look(bench, bench.advance(bench.request()))
    look(bench, launch)
    assert bench.cloud.calls.count("dead_man") == 1


def test_it_is_sealed_where_it_stands(bench):
    launch = look(bench, bench.advance(bench.request()))
    sealed = row(bench, bench.order(launch)).dead_man
    assert sealed
    assert KEY.encode() not in sealed
    assert KEY in bench.at.sealer.open(sealed, f"orders/{bench.order(launch).id}")


def test_it_is_put_under_a_new_key_with_all_that_is_sealed(bench):
    launch = look(bench, bench.advance(bench.request()))
    sealing.add_first(bench.at.settings)
    assert resealing.reseal(bench.at).done["orders"] == 1
    assert KEY in bench.at.sealer.open(row(bench, bench.order(launch)).dead_man, f"orders/{bench.order(launch).id}")


def test_an_agent_is_told_until_it_says_that_it_has_it(bench):
    launch = look(bench, bench.advance(bench.request()))
    bench.enrol(launch)
    answers = [bench.report(launch, dead_man=held) for held in (None, False, False, True)]
    assert ["dead_man" in answer for answer in answers] == [False, True, True, False]
    assert answers[1]["dead_man"]["requests"][0]["headers"] == {"X-Key": KEY}
    assert AGENT not in str(answers)


def test_it_is_erased_with_the_order(bench):
    launch = bench.run(look(bench, bench.advance(bench.request())))
    order = bench.order(launch)
    assert row(bench, order).dead_man
    bench.clock.move(hours=20)
    assert bench.until_stopped(launch).state is State.STOPPED
    assert row(bench, order).dead_man is None


def test_a_machine_that_was_ready_before_anybody_looked_gets_it_too(bench):
    launch = bench.ready()
    assert "dead_man" in bench.report(launch, dead_man=False)


def test_a_cloud_that_has_none_is_asked_once(bench):
    bench.cloud.gives = False
    launch = look(bench, look(bench, bench.advance(bench.request())))
    bench.enrol(launch)
    assert bench.cloud.calls.count("dead_man") == 1
    assert "dead_man" not in bench.report(launch, dead_man=False)
    assert resealing.reseal(bench.at).done["orders"] == 0


def test_one_that_is_out_of_reach_is_asked_again(bench):
    bench.cloud.refuse("dead_man", clouds.ProviderUnavailable("not now"))
    launch = look(bench, bench.advance(bench.request()))
    assert launch.state is State.STARTING
    look(bench, launch)
    assert row(bench, bench.order(launch)).dead_man


def test_one_that_refuses_ends_no_launch(bench):
    bench.cloud.refuse("dead_man", clouds.PermissionMissing("You may not make application credentials."))
    launch = bench.run(look(bench, bench.advance(bench.request())))
    assert launch.state is State.READY
    assert orders.current(bench.at, launch) is not None
