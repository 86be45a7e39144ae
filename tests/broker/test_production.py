"""The same parts on PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from broker import backends, events, fanout, launches, people, service, settings, wishes
from broker import queue as queues
from broker.models import State
from tests.broker.conftest import Bench, Clock
from tests.doubles.desk_cloud import DeskCloud
from tests.waiting import until


@pytest.fixture
def two_processes(postgres_url: str, home: Path, clock: Clock, repo: str) -> Any:
    """Two services on one table and one cloud, as two processes would have them."""
    cloud = DeskCloud()
    chosen = settings.Settings(home=home, database_url=postgres_url)  # type: ignore[arg-type]
    made = [replace(service.build(chosen), now=clock) for _ in range(2)]
    for at in made:
        at.backends["desk"] = backends.Backend(
            name="desk", title="Desk", provider=cloud, setting=settings.BackendSetting(name="desk", provider="fake")
        )
    yield [Bench(at, cloud, clock, repo) for at in made]
    for at in made:
        at.close()


def test_two_workers_on_postgresql_buy_once(two_processes: list[Bench]) -> None:
    launch = two_processes[0].request()
    threads = [
        threading.Thread(target=launches.advance, args=(bench.at, launch.id))
        for bench in two_processes
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(two_processes[0].cloud.bought) == 1
    assert two_processes[1].launch(launch.id).state is State.STARTING


def test_two_requests_for_one_name_on_postgresql_make_one_launch(two_processes: list[Bench]) -> None:
    start, found = threading.Barrier(6), []

    def ask(bench: Bench) -> None:
        start.wait()
        found.append(
            launches.request(bench.at, people.LOCAL, wishes.Wish(repo=bench.repo, backend="desk", name="a"))[0].id
        )

    threads = [threading.Thread(target=ask, args=(two_processes[number % 2],)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_reports_and_steps_at_once_neither_wait_for_each_other_for_ever_nor_lose_a_line(
    two_processes: list[Bench],
) -> None:
    web, worker = two_processes
    launch = worker.advance(web.request())
    web.enrol(launch)

    def report() -> None:
        for number in range(1, 41):
            web.report(launch, ("building", f"line {number}"), first=number)

    def advance() -> None:
        for _ in range(40):
            launches.advance(worker.at, launch.id)

    threads = [threading.Thread(target=report), threading.Thread(target=advance)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    said = [line for line in web.said(launch) if line.startswith("line ")]
    assert said == [f"line {number}" for number in range(1, 41)]
    assert [line["id"] for line in events.read(web.at, launch.id)] == list(range(1, len(web.said(launch)) + 1))


def test_what_the_tick_finds_late_lies_behind_what_is_wished_now(
    home: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYBINDER_REDIS_URL", redis_url)
    chosen = settings.current()
    assert chosen.home == home
    queue = queues.CeleryQueue()
    queue.enqueue("advance", "late", delay=0)
    queue.enqueue("advance", "click")
    queue.stop()
    with redis.Redis.from_url(redis_url) as client:
        lying = {key.decode(): client.llen(key) for key in client.keys("anybinder-*")}
    name = f"anybinder-{chosen.runtime.name}"
    assert lying == {name: 1, f"{name}\x06\x169": 1}


def test_a_wake_up_travels_through_redis(redis_url: str) -> None:
    here, there = fanout.RedisFanout(redis_url), fanout.RedisFanout(redis_url)
    heard: list[str] = []
    there.on_change(heard.append)

    async def run() -> bool:
        with there.listen("abc") as wake:
            await asyncio.to_thread(until, lambda: here.publish("probe") or "probe" in heard, seconds=5)
            here.publish("abc")
            return await wake.wait(5)

    try:
        assert asyncio.run(run())
    finally:
        here.close()
        there.close()


def test_without_redis_a_publisher_carries_on() -> None:
    lonely = fanout.RedisFanout("redis://127.0.0.1:9/0")
    lonely.publish("abc")
    lonely.close()


def test_tables_are_brought_up_to_date_by_several_processes_at_once(postgres_url: str) -> None:
    environment = {**os.environ, "ANYBINDER_DATABASE_URL": postgres_url}
    command = [sys.executable, "-m", "broker.cli", "migrate"]
    started = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(3)]
    said = [process.communicate(timeout=60)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said


def test_the_migrations_make_the_tables_the_models_describe(postgres_url: str, tmp_path: Path) -> None:
    from alembic import autogenerate, migration

    from broker.db import Database, Table

    for url in (postgres_url, f"sqlite:///{tmp_path / 'x.sqlite'}"):
        database = Database(url)
        database.migrate()
        with database.engine.connect() as connection:
            context = migration.MigrationContext.configure(connection, opts={"compare_type": True})
            assert autogenerate.compare_metadata(context, Table.metadata) == []
        database.dispose()
