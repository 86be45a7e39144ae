"""Many accounts asked at once, some of which hang."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import REGISTRY

from broker import connections, people, reaper, rounds, uses
from broker.models import Connection, Profile
from providers import base
from providers.errors import ProviderUnavailable
from providers.fake.driver import KINDS
from tests.broker.conftest import Bench, Clock
from tests.doubles.desk_cloud import DeskCloud
from tests.waiting import until


class ManyAccounts(DeskCloud):
    """Each key is an account of its own, with one machine in it that nobody wants any more. Some hang until they are let go."""

    kinds = (KINDS["kept"],)

    def __init__(self) -> None:
        super().__init__()
        self.hanging: set[str] = set()
        self.broken: set[str] = set()
        self.letting_go = threading.Event()
        self.broker, self.over = "", dt.datetime.min.replace(tzinfo=dt.UTC)
        self.asked_for: list[str] = []
        self.ended: list[str] = []

    def sign_in(self, connection: base.Connection, identity_token: str | None) -> base.Credential:
        return base.Credential(who="", secret={"key": connection.secret or ""})

    def instances(self, credential: base.Credential, broker: str) -> list[base.Instance]:
        key = credential.secret["key"]
        self.asked_for.append(key)
        if key in self.hanging and not self.letting_go.wait(timeout=60):
            raise AssertionError("nobody let go")
        if key in self.broken:
            raise ProviderUnavailable(f"Nobody answers at {key}.")
        if f"i-{key}" in self.ended:
            return []
        tag = base.Tag(broker=broker, launch="gone", order=f"order{key}", until=self.over)
        return [base.Instance(id=f"i-{key}", tag=tag, state=base.InstanceState.RUNNING)]

    def terminate(self, credential: base.Credential, instance_id: str | None, order_id: str) -> None:
        key = credential.secret["key"]
        if key in self.broken:
            raise ProviderUnavailable(f"Nobody answers at {key}.")
        self.ended.append(instance_id or "")


class Many:
    def __init__(self, bench: Bench, cloud: ManyAccounts) -> None:
        self.bench, self.at, self.cloud, self.clock = bench, bench.at, cloud, bench.clock

    def connect(self, key: str) -> Connection:
        with self.at.db.transaction() as session:
            session.merge(Profile(id=key, name=key, created_at=self.clock(), signed_in_at=self.clock()))
        person = people.known(self.at, key)
        return connections.connect(self.at, person, "backend:desk", self.cloud.kinds, "kept", {"key": key})

    def unasked(self) -> dict[str, rounds.Standing]:
        return {station.connection.person: known for station, known in rounds.unasked(self.at) if station.connection}


@pytest.fixture
def many(make_bench: Callable[..., Bench]) -> Iterator[Many]:
    cloud = ManyAccounts()
    yield Many(make_bench(cloud), cloud)
    cloud.letting_go.set()
    until(lambda: not [each for each in threading.enumerate() if each.name.startswith("round-")], seconds=10)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "SECONDS", 0.5)


def test_accounts_that_hang_keep_no_other_from_being_swept(many: Many) -> None:
    names = [f"n{number:02}" for number in range(50)]
    for name in names:
        many.connect(name)
    many.cloud.hanging = set(names[:5])
    sweep = threading.Thread(target=reaper.sweep, args=(many.at,), kwargs={"everything": True})
    sweep.start()
    until(lambda: len(many.cloud.ended) == 45, seconds=45)  # while five of them hang
    assert set(many.cloud.ended) == {f"i-{name}" for name in names[5:]}
    many.cloud.letting_go.set()
    sweep.join(60)
    assert len(many.cloud.ended) == 50


@pytest.mark.usefixtures("impatient")
def test_however_many_hang_they_are_in_nobodys_way_the_next_time(many: Many) -> None:
    """At first they take every thread of their backend; afterwards they have threads of their own."""
    hanging = [f"h{number:02}" for number in range(rounds.THREADS + 3)]
    for name in [*hanging, "last"]:
        many.connect(name)
    many.cloud.hanging = set(hanging)
    while "last" not in many.cloud.asked_for:
        reaper.sweep(many.at, everything=True)
    until(lambda: many.cloud.ended == ["i-last"], seconds=20)
    assert set(many.unasked()) >= set(hanging[: rounds.THREADS])
    assert len([name for name in many.cloud.asked_for if name == "h00"]) == 1, "nor is one asked twice at once"


@pytest.mark.usefixtures("impatient")
def test_one_that_answers_late_has_been_asked(many: Many) -> None:
    many.connect("ada")
    many.cloud.hanging = {"ada"}
    assert reaper.sweep(many.at, everything=True) == []
    assert "has not answered yet" in many.unasked()["ada"].trouble
    many.cloud.letting_go.set()
    until(lambda: many.cloud.ended == ["i-ada"] and not many.unasked(), seconds=10)


def test_what_could_not_be_asked_is_asked_again_and_its_age_is_known(many: Many, clock: Clock) -> None:
    many.connect("ada")
    reaper.sweep(many.at, everything=True)
    answered = clock()
    many.cloud.broken = {"ada"}
    for _ in range(3):
        clock.move(hours=7)
        assert reaper.sweep(many.at) == []
    assert many.unasked()["ada"] == rounds.Standing(
        asked_at=answered, unasked_since=answered, trouble="Nobody answers at ada."
    )
    assert REGISTRY.get_sample_value("anybinder_unasked_accounts", {"backend": "desk"}) == 1
    many.cloud.broken = set()
    many.cloud.ended.clear()
    assert [finding.verdict for finding in reaper.sweep(many.at)] == ["expired"]
    assert many.unasked() == {}
    assert REGISTRY.get_sample_value("anybinder_unasked_accounts", {"backend": "desk"}) == 0


def test_a_process_that_has_just_begun_knows_from_the_table_when_it_was_last_let_in(many: Many, clock: Clock) -> None:
    made = many.connect("ada")
    connections.used(many.at, made, "sweep")
    answered = clock()
    clock.move(hours=3)
    many.cloud.broken = {"ada"}
    reaper.sweep(many.at, everything=True)
    assert many.unasked()["ada"].unasked_since == answered


def test_a_failure_nobody_thought_of_stays_in_its_account(many: Many, monkeypatch: pytest.MonkeyPatch) -> None:
    many.connect("ada")
    many.connect("bob")
    as_before = many.cloud.instances

    def odd(credential: base.Credential, broker: str) -> list[base.Instance]:
        if credential.secret["key"] == "ada":
            raise ZeroDivisionError("a driver's own mistake")
        return as_before(credential, broker)

    monkeypatch.setattr(many.cloud, "instances", odd)
    reaper.sweep(many.at, everything=True)
    assert many.cloud.ended == ["i-bob"]
    assert "Something went wrong in this broker" in many.unasked()["ada"].trouble


def test_a_look_is_a_use_each_time_and_a_sweep_only_when_it_signs_in(many: Many) -> None:
    made = many.connect("ada")
    for what in ("sweep", "sweep", "look", "look"):
        connections.reaching(many.at, rounds.everywhere(many.at)[0].backend, made, what)
    assert [use.what for use in uses.of(many.at, people.known(many.at, "ada"))] == ["look", "look", "sweep"]


def test_one_that_cannot_be_ended_keeps_no_other_from_being_ended(bench: Bench, clock: Clock) -> None:
    for number in range(3):
        tag = base.Tag(
            broker=bench.at.keys.broker_id, launch="gone", order=f"o{number}", until=clock() - dt.timedelta(days=1)
        )
        bench.cloud.instances_by_order[f"o{number}"] = base.Instance(
            id=f"i-o{number}", tag=tag, state=base.InstanceState.RUNNING
        )
    bench.cloud.refuse("terminate", ProviderUnavailable("Not now."))
    assert [finding.trouble for finding in reaper.sweep(bench.at)] == ["Not now.", "", ""]
    assert list(bench.cloud.instances_by_order) == ["o0"]
    reaper.sweep(bench.at)
    assert bench.cloud.instances_by_order == {}
