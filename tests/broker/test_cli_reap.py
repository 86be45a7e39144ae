"""`anybinder reap`: with a broker and without one."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import crypto, settings
from broker.cli import reaping
from providers import base
from providers.fake import FakeCloud
from tests.journeys.conftest import Broker
from tests.waiting import until

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    with FakeCloud.start() as cloud:
        cloud.fault("provision", "never_dials", times=None)
        yield cloud


@pytest.fixture
def broker(home: Path, cloud: FakeCloud) -> Iterator[Broker]:
    """Not started. It sweeps by itself once, when it starts."""
    backends = [{"name": "moon", "provider": "fake", "configuration": {**cloud.configuration, "kinds": "none"}}]
    made = Broker(home, {"ANYBINDER_BACKENDS": json.dumps(backends), "ANYBINDER_SWEEP_SECONDS": "3600"})
    settings.private_folder(home)
    yield made
    made.close()


def buy(cloud: FakeCloud, home: Path, order: str, until: dt.datetime) -> str:
    """Something that carries this broker's tag, and that its table knows nothing of."""
    provider = cloud.provider()
    credential = provider.sign_in(base.Connection(kind="none"), None)
    tag = base.Tag(broker=crypto.Keyring(home).broker_id, launch="gone", order=order, until=until)
    boot = base.Boot(user_data="", config={}, agent="")
    offer = provider.offers(credential, base.Resources())[0]
    return provider.provision(credential, base.Order(id=order, offer=offer, tag=tag, boot=boot)).id


def listed(broker: Broker, *words: str, code: int = 0) -> dict[str, dict[str, object]]:
    lines = broker.run("reap", "--json", *words, code=code).stdout.splitlines()
    return {one["instance"]: one for one in map(json.loads, lines)}


@pytest.mark.parametrize("running", [False, True], ids=["no broker", "a broker"])
def test_it_shows_everything_and_ends_what_nobody_can_want(
    broker: Broker, cloud: FakeCloud, home: Path, *, running: bool
) -> None:
    if running:
        broker.start("up", "--no-browser", "--port", "0")
        broker.wait()
        until(lambda: cloud.calls("instances") != [], seconds=20)
    over = buy(cloud, home, "over", NOW - dt.timedelta(hours=1))
    lost = buy(cloud, home, "lost", NOW + dt.timedelta(hours=1))
    dry = listed(broker, "--dry-run")
    assert [(dry[name]["verdict"], dry[name]["ends"]) for name in (over, lost)] == [
        ("expired", True),
        ("unknown", False),
    ]
    assert len(cloud.billed()) == 6, "two machines, and each its disk and address"
    assert dry[lost]["since"]
    assert dry[lost]["ends_at"]
    assert dry[lost]["price_per_hour"] is None
    table = broker.run("reap", "--dry-run").stdout
    assert "would end" in table
    assert "nobody known" in table
    assert "unknown" in table
    broker.run("reap")
    until(lambda: len(cloud.billed()) == 3, seconds=20)
    assert list(listed(broker)) == [lost]


def test_a_cloud_that_cannot_be_asked_is_an_exit_status_and_a_sentence(broker: Broker, cloud: FakeCloud) -> None:
    cloud.fault("instances", "unavailable", times=None)
    said = broker.run("reap", code=1)
    assert "moon: could not be asked, since 0 min." in said.stderr
    assert [one["verdict"] for one in listed(broker, code=1).values()] == ["unasked"]


def test_what_cannot_be_ended_is_an_exit_status_too(broker: Broker, cloud: FakeCloud, home: Path) -> None:
    over = buy(cloud, home, "over", NOW - dt.timedelta(hours=1))
    cloud.fault("terminate", "unavailable", times=1)
    assert "could not end" in broker.run("reap", code=1).stdout
    broker.run("reap")
    until(lambda: cloud.billed() == [], seconds=20)
    assert over not in listed(broker)


@pytest.mark.parametrize(
    ("amount", "currency", "said"),
    [
        (None, "USD", "unknown"),
        ("0.000000", "USD", "free"),
        ("0.000001", "USD", "$0.000001"),
        ("0.0416", "USD", "$0.0416"),
        ("1234567.500000", "SU", "1234567.5 SU"),
    ],
)
def test_sums_are_written_as_people_write_them(amount: str | None, currency: str, said: str) -> None:
    assert reaping._money(amount, currency) == said
