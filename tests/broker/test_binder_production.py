"""`/build` where several processes serve it: on PostgreSQL and Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from broker import backends, launches, service, settings
from broker.web import limits
from tests.broker.conftest import Bench, Clock
from tests.broker.test_binder import DESK, Hub
from tests.doubles.desk_cloud import DeskCloud
from tests.waiting import until


@pytest.fixture
def two_hubs(postgres_url: str, redis_url: str, home: Path, clock: Clock, repo: str) -> Iterator[list[Hub]]:
    """Two processes' applications on one table and one cloud."""
    cloud = DeskCloud()
    chosen = settings.Settings(home=home, database_url=postgres_url, redis_url=redis_url, **DESK)  # type: ignore[arg-type]
    made = [replace(service.build(chosen), now=clock) for _ in range(2)]
    for at in made:
        at.backends["desk"] = backends.Backend(name="desk", title="Desk", provider=cloud, setting=DESK["backends"][0])
    hubs = [Hub(Bench(at, cloud, clock, repo)) for at in made]
    for each in hubs:  # its routes are made at its first request, with warnings set aside for the whole of this process
        assert TestClient(each.app, base_url="http://localhost:8000").get("/versions").is_success
    yield hubs
    for at in made:
        at.close()


def test_a_stream_cut_in_one_process_resumes_in_another_and_launches_once(
    two_hubs: list[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two_hubs
    at_once = threading.Barrier(2)
    request = launches.request

    def together(*told: Any) -> Any:
        at_once.wait(20)
        return request(*told)

    monkeypatch.setattr(launches, "request", together)
    with one.build() as first:
        first.until("waiting")
        with other.build(last_event_id=first.ids[0]) as second:
            launch = one.only()
            one.run(launch)
            assert [stream.whole()[-1]["launch"] for stream in (first, second)] == [launch.id] * 2
    assert first.ids[1:] == second.ids


def test_one_token_at_two_processes_is_one_launch(two_hubs: list[Hub]) -> None:
    one, other = two_hubs
    query = f"?build_token={one.token()}"
    with one.build(query=query) as first, other.build(query=query) as second:
        one.run(one.only())
        assert first.whole()[-1] == second.whole()[-1]


def test_processes_that_share_redis_share_the_count(two_hubs: list[Hub]) -> None:
    left = []
    for hub in two_hubs:
        with hub.build("nope/x") as stream:
            stream.whole()
        left.append(stream.headers["x-ratelimit-remaining"])
    assert left == ["9", "8"]


def test_without_redis_everybody_passes(home: Path) -> None:
    chosen = settings.Settings(home=home, redis_url="redis://127.0.0.1:9/0")  # type: ignore[arg-type]
    limit = limits.RateLimit(chosen)
    assert [limit.charge("192.0.2.1") for _ in range(30)] == [None] * 30


def test_every_process_tells_the_same_figures(two_hubs: list[Hub]) -> None:
    from prometheus_client import REGISTRY

    one, other = two_hubs
    other.app.state.figures.update()
    with one.build() as stream:
        one.run(one.only())
        stream.whole()
    about = {"status": "success", "provider": "Git repository", "repo": one.bench.repo}
    other.app.state.figures.update()
    until(lambda: REGISTRY.get_sample_value("binderhub_launch_count_total", about) == 1, what="one launch")
