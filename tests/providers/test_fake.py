"""The fake cloud: that each fault is what it says. The contract over it is in `tests/contract`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from providers import processes
from providers.base import Boot, Connection, InstanceState, Offer, Order, Tag
from providers.contract import TOKEN, new_id
from providers.errors import BadCredential, NoCapacity, ProviderUnavailable, QuotaExceeded
from providers.fake import FakeCloud
from tests.contract.over_fake import AGENT
from tests.waiting import until

PENDING, RUNNING, STOPPING, GONE = InstanceState


@pytest.fixture
def provider(cloud):
    return cloud.provider()


@pytest.fixture
def credential(provider):
    return provider.sign_in(Connection(kind="none"), None)


def order(*behave: str, offer: str = "small-a", until: datetime | None = None) -> Order:
    order_id = new_id()
    until = until or datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    boot = Boot(user_data="", config={"token": TOKEN, "behave": list(behave)}, agent=AGENT)
    tag = Tag(broker="b1", launch="l1", order=order_id, until=until)
    return Order(id=order_id, offer=Offer(id=offer, title="x"), tag=tag, boot=boot)


@pytest.fixture
def buy(provider, credential, cloud):
    """A machine whose agent has come up."""

    def buy(*behave, **more):
        bought = provider.provision(credential, order(*behave, **more))
        if "exit" not in behave:
            until(lambda: "standing in" in provider.logs(credential, bought.id), what="the agent is up")
        return bought

    return buy


@pytest.fixture
def state(provider, credential):
    return lambda instance: provider.describe(credential, instance.id).state


# --- its machines ---------------------------------------------------------------------------------------------------


def test_a_machine_runs_the_agent_with_what_it_was_told(cloud, buy):
    buy()
    (machine,) = cloud.instances()
    home = cloud.folder / "m" / machine["id"]
    command = psutil.Process(machine["pid"]).cmdline()
    assert AGENT in command
    assert not [word for word in command if TOKEN in word]
    assert home.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(cloud.folder / "r" / machine["id"] / "s.sock")) <= 107


def test_ending_a_machine_kills_its_whole_tree_and_removes_its_disk(cloud, buy, provider, credential):
    bought = buy("stubborn", "child", "washed")
    (machine,) = cloud.instances()
    tree = [psutil.Process(machine["pid"]), *psutil.Process(machine["pid"]).children(recursive=True)]
    assert len(tree) == 3
    provider.terminate(credential, bought.id, bought.tag.order)
    assert not [process for process in tree if processes.is_alive(process)]
    assert list((cloud.folder / "m").iterdir()) == []


def test_a_machine_whose_agent_ends_powers_itself_off_and_is_gone(cloud, buy, state):
    bought = buy("exit")
    until(lambda: state(bought) is GONE, what="it is gone")
    assert cloud.billed() == []


def test_where_power_off_keeps_the_disk_it_goes_on_being_billed(cloud, buy, state, provider, credential):
    cloud.options(power_off="keep")
    bought = buy("exit")
    until(lambda: state(bought) is STOPPING, what="it is off")
    assert len(cloud.billed(bought.tag.order)) == 2
    provider.terminate(credential, bought.id, bought.tag.order)
    assert cloud.billed() == []


def test_a_cloud_that_is_told_to_end_takes_its_machines_along():
    with FakeCloud.start() as cloud:
        provider = cloud.provider()
        provider.provision(provider.sign_in(Connection(kind="none"), None), order("stubborn"))
        until(lambda: cloud.instances()[0]["pid"], what="it has booted")
        agent = psutil.Process(cloud.instances()[0]["pid"])
        os.kill(cloud.pid, signal.SIGTERM)
        until(lambda: not processes.is_alive(agent), what="its machine is dead")
    assert not cloud.folder.exists()


def test_a_cloud_that_was_killed_leaves_no_machine_behind():
    with FakeCloud.start() as cloud:
        provider = cloud.provider()
        provider.provision(provider.sign_in(Connection(kind="none"), None), order("stubborn"))
        until(lambda: cloud.instances()[0]["pid"], what="it has booted")
        agent = psutil.Process(cloud.instances()[0]["pid"])
        os.kill(cloud.pid, signal.SIGKILL)
    until(lambda: not processes.is_alive(agent), what="its machine is dead")


def test_a_cloud_outlives_a_worker_that_is_killed(cloud, provider, credential):
    number = cloud.fault("provision", "hold", when="after")
    script = """
import sys
from tests.providers.test_fake import order
from providers.base import Connection
from providers.fake import FakeProvider
provider = FakeProvider({"socket": sys.argv[1]})
provider.provision(provider.sign_in(Connection(kind="none"), None), order())
"""
    with subprocess.Popen([sys.executable, "-c", script, cloud.configuration["socket"]], cwd=Path.cwd()) as worker:
        until(lambda: cloud.instances(), what="it has bought")
        worker.kill()
    cloud.release(number)
    (found,) = provider.instances(credential, "b1")
    provider.terminate(credential, None, found.tag.order)
    assert cloud.billed() == []


def test_it_starts_fast_enough_to_have_one_per_test():
    began = time.monotonic()
    with FakeCloud.start():
        took = time.monotonic() - began
    assert took < 2, "measured at 0.07 s on an idle computer"


# --- its clock and its bill -----------------------------------------------------------------------------------------


def test_what_is_bought_is_billed_by_the_clouds_own_clock(cloud, buy, provider, credential):
    bought = buy()
    cloud.advance(3600)
    again = provider.sign_in(Connection(kind="none"), None)
    provider.terminate(again, bought.id, bought.tag.order)
    cloud.advance(3600)
    assert [round(item["seconds"] / 3600) for item in cloud.bill(bought.tag.order)] == [1, 1, 1]


def test_time_can_stand_still_and_run(cloud):
    cloud.rate(0)
    assert cloud.now() == cloud.now()
    cloud.rate(1e6)
    before = cloud.now()
    until(lambda: cloud.now() > before + 1000, what="time runs")


def test_what_becomes_due_happens_without_being_asked(cloud, provider, credential):
    cloud.options(boot_seconds=60)
    provider.provision(credential, order())
    assert cloud.instances()[0]["pid"] is None
    cloud.rate(1000)
    until(lambda: cloud.instances()[0]["pid"], what="it has booted")


def test_a_credential_expires(cloud, provider, credential):
    cloud.advance(901)
    with pytest.raises(BadCredential):
        provider.instances(credential, "b1")


def test_the_dead_man_net_ends_a_machine_after_its_time(cloud, provider, credential, state):
    cloud.options(dead_man_seconds=600, credential_seconds=1e6)
    credential = provider.sign_in(Connection(kind="none"), None)
    bought = provider.provision(credential, order())
    cloud.advance(3600)
    assert provider.describe(credential, bought.id).state is RUNNING
    cloud.advance(601)
    assert provider.describe(credential, bought.id).state is GONE


def test_reset_makes_it_as_new(cloud, buy):
    buy("stubborn")
    agent = psutil.Process(cloud.instances()[0]["pid"])
    cloud.fault("offers", "unavailable")
    cloud.advance(1e6)
    cloud.reset()
    assert not processes.is_alive(agent)
    assert (cloud.everything(), cloud.bill(), cloud.faults(), cloud.calls()) == ([], [], [], [])
    assert abs(cloud.now() - time.time()) < 60


# --- its faults -----------------------------------------------------------------------------------------------------


def test_a_fault_that_nobody_could_meet_is_refused(cloud):
    with pytest.raises(ValueError, match="cannot meet"):
        cloud.fault("describe", "half_created")
    with pytest.raises(ValueError, match="cannot meet"):
        cloud.fault("provision", "misspelt")


def test_capacity_may_lack_in_one_zone_only(cloud, provider, credential):
    cloud.fault("provision", "no_capacity", times=None, where={"zone": "a"})
    for offer in ("small-a", "large-a"):
        with pytest.raises(NoCapacity):
            provider.provision(credential, order(offer=offer))
    provider.provision(credential, order(offer="small-b"))


def test_a_quota_is_named(cloud, provider, credential):
    cloud.fault("provision", "quota", quota="g5 vCPUs")
    with pytest.raises(QuotaExceeded, match="g5 vCPUs"):
        provider.provision(credential, order())


def test_a_request_that_arrives_late_buys_after_the_caller_has_given_up(cloud, provider, credential):
    cloud.fault("provision", "lost_response", late=30)
    with pytest.raises(ProviderUnavailable):
        provider.provision(credential, order())
    assert cloud.billed() == []
    cloud.advance(31)
    assert len(provider.instances(credential, "b1")) == 1


def test_a_lost_request_has_no_effect(cloud, provider, credential):
    cloud.fault("provision", "lost_request")
    with pytest.raises(ProviderUnavailable):
        provider.provision(credential, order())
    assert cloud.everything() == []


def test_a_garbled_answer_is_no_answer(cloud, provider, credential):
    cloud.fault("provision", "garbled")
    with pytest.raises(ProviderUnavailable):
        provider.provision(credential, order())
    assert len(cloud.instances()) == 1


def test_a_held_call_goes_on_when_it_is_released(cloud, provider, credential):
    number = cloud.fault("provision", "hold")
    buying = threading.Thread(target=provider.provision, args=(credential, order()))
    buying.start()
    until(lambda: cloud.faults()[0]["met"], what="the call is held")
    assert cloud.everything() == []
    cloud.release(number)
    buying.join(10)
    assert len(cloud.instances()) == 1


def test_a_hidden_instance_shows_late_and_cannot_be_ended_by_its_tag_before(cloud, provider, credential, state):
    cloud.fault("provision", "hidden", seconds=60)
    bought = provider.provision(credential, order())
    provider.terminate(credential, None, bought.tag.order)
    assert provider.instances(credential, "b1") == []
    cloud.advance(61)
    assert [found.id for found in provider.instances(credential, "b1")] == [bought.id]


def test_a_machine_that_never_dials_runs_and_is_billed(cloud, provider, credential, state):
    cloud.fault("provision", "never_dials")
    bought = provider.provision(credential, order())
    cloud.advance(1)
    assert state(bought) is RUNNING
    assert cloud.instances()[0]["pid"] is None
    assert len(cloud.billed()) == 3


def test_a_machine_that_dies_may_leave_its_disk(cloud, provider, credential, state):
    cloud.fault("provision", "dies", seconds=5, leaves=["disk"])
    bought = provider.provision(credential, order())
    cloud.advance(6)
    assert state(bought) is STOPPING
    (left,) = provider.instances(credential, "b1")
    assert left.tag == bought.tag
    provider.terminate(credential, bought.id, bought.tag.order)
    assert state(bought) is GONE
    assert cloud.billed() == []


def test_an_end_that_is_answered_and_ignored_shows(cloud, buy, provider, credential, state):
    bought = buy()
    cloud.fault("terminate", "ignored")
    provider.terminate(credential, bought.id, bought.tag.order)
    assert state(bought) is RUNNING


def test_an_instance_may_be_unknown_at_first(cloud, provider, credential, state):
    cloud.fault("provision", "unknown", seconds=5)
    bought = provider.provision(credential, order())
    assert state(bought) is GONE
    cloud.advance(6)
    assert state(bought) is RUNNING


def test_what_was_half_created_is_used_by_the_next_try(cloud, provider, credential):
    cloud.fault("provision", "half_created", answer="unavailable")
    asked = order()
    with pytest.raises(ProviderUnavailable):
        provider.provision(credential, asked)
    provider.provision(credential, asked)
    assert sorted(thing["kind"] for thing in cloud.everything()) == ["address", "disk", "machine"]


def test_the_log_tells_what_was_asked_and_what_was_lost(cloud, provider, credential):
    cloud.fault("provision", "lost_response")
    asked = order()
    with pytest.raises(ProviderUnavailable):
        provider.provision(credential, asked)
    (call,) = cloud.calls("provision")
    assert (call["order"], call["status"], call["faults"]) == (asked.id, "lost", ["lost_response"])
