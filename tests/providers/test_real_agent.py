"""Both providers with the real agent: it enrols, builds, serves, and nothing of it is left."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import providers.fake
from providers import processes
from providers.base import Boot, Connection, InstanceState, Order, Resources, Tag
from providers.contract import TOKEN, new_id
from providers.local import LocalProvider
from tests.providers.little_broker import LittleBroker
from tests.waiting import until

AGENT = str(Path(__file__).parent.parent.parent / "broker" / "agent.py")
TINY_BUILDER = (sys.executable, str(Path(providers.fake.__file__).with_name("build.py")))


@pytest.fixture
def broker():
    with LittleBroker() as broker:
        yield broker


@pytest.fixture
def local():
    folder = tempfile.mkdtemp(prefix="abl-", dir="/tmp")
    yield LocalProvider({"home": f"{folder}/home", "runtime": f"{folder}/run"})
    shutil.rmtree(folder)


@pytest.fixture(params=["fake", "local"])
def provider(request):
    return request.getfixturevalue("cloud").provider() if request.param == "fake" else request.getfixturevalue("local")


@pytest.fixture
def credential(provider):
    return provider.sign_in(Connection(kind="none"), None)


@pytest.fixture
def bought(provider, credential, broker):
    """An instance whose agent has reported that its server is up."""
    order_id = new_id()
    tag = Tag(broker="b1", launch="l1", order=order_id, until=datetime.now(UTC) + timedelta(hours=1))
    boot = Boot(user_data="", config=broker.config(order_id, TOKEN), agent=AGENT, builder=TINY_BUILDER)
    offer = provider.offers(credential, Resources())[0]
    bought = provider.provision(credential, Order(id=order_id, offer=offer, tag=tag, boot=boot))
    until(lambda: broker.status.get("server") == "up", seconds=30, what="the session is up")
    yield bought
    provider.terminate(credential, bought.id, order_id)
    until(lambda: provider.describe(credential, bought.id).state is InstanceState.GONE, seconds=30, what="it is gone")
    until(lambda: not everything_of(order_id), what="no process is left")


def everything_of(order_id):
    """The agent marks what it starts with its order, whatever the provider marked the agent with."""
    return processes.marked(order_id)


def test_the_agent_serves_a_session(provider, credential, bought, broker):
    assert [event["phase"] for event in broker.events if event["phase"]][-1] == "launching"
    assert broker.status["kind"] == "jupyter"
    assert provider.describe(credential, bought.id).state is InstanceState.RUNNING


def test_a_session_told_to_stop_ends_by_itself(provider, credential, bought, broker):
    broker.command = "stop"
    until(
        lambda: provider.describe(credential, bought.id).state is not InstanceState.RUNNING,
        seconds=20,
        what="the agent has ended",
    )
    until(lambda: not everything_of(bought.tag.order), what="no process is left")


def test_an_agent_that_is_killed_leaves_nothing_running(provider, credential, bought):
    agents = [process for process in everything_of(bought.tag.order) if AGENT in process.cmdline()]
    os.kill(agents[0].pid, signal.SIGKILL)
    until(lambda: not everything_of(bought.tag.order), seconds=20, what="no process is left")
