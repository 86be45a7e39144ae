"""A broker's insides on the desk: real table, real queue, a cloud without machines, a clock one turns by hand."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from broker import (
    app,
    backends,
    bootstrap,
    db,
    events,
    instances,
    launches,
    orders,
    people,
    service,
    sessions,
    settings,
    wishes,
)
from broker.models import Launch, Order, State
from tests.doubles import git_repos
from tests.doubles.desk_cloud import DeskCloud
from tests.doubles.git_server import GitServer

AGENT = "a" * 43  # what an agent makes up at birth


class Clock:
    """Time stands still until it is moved."""

    def __init__(self) -> None:
        self.time = dt.datetime(2026, 11, 21, 9, 0, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.time

    def move(self, **by: float) -> None:
        self.time += dt.timedelta(**by)


class Bench:
    """One broker on the desk, and what an agent or a person would do to it."""

    def __init__(self, at: service.Service, cloud: DeskCloud, clock: Clock, repo: str) -> None:
        self.at, self.cloud, self.clock, self.repo = at, cloud, clock, repo

    def request(self, **wish: Any) -> Launch:
        wanted = wishes.Wish(**{"repo": self.repo, "backend": "desk", **wish})
        return launches.request(self.at, people.LOCAL, wanted)[0]

    def advance(self, launch: Launch) -> Launch:
        """Every step that is due now."""
        launches.advance(self.at, launch.id)
        return self.launch(launch.id)

    def until_stopped(self, launch: Launch, looks: int = 50) -> Launch:
        """Advance, moving the clock to each due time, until it is over."""
        for _ in range(looks):
            launch = self.advance(launch)
            if launch.state is State.STOPPED:
                return launch
            assert launch.due_at is not None
            self.clock.time = max(self.clock.time, launch.due_at)
        raise AssertionError(f"still {launch.state} after {looks} looks: {self.said(launch)}")

    def launch(self, launch_id: str) -> Launch:
        return launches.get(self.at, people.LOCAL, launch_id, anyones=True)

    def order(self, launch: Launch) -> Order:
        found = orders.current(self.at, launch)
        assert found is not None
        return found

    def enrol(self, launch: Launch, agent: str = AGENT) -> dict[str, Any]:
        order = self.order(launch)
        token = bootstrap.enrolment_token(self.at, order.id)
        return instances.enrol(self.at, token, instances.Enrolment(order=order.id, agent=agent, nonce="00"))

    def report(
        self, launch: Launch, *lines: tuple[str, str], first: int = 1, dead_man: bool | None = None, **status: Any
    ) -> dict[str, Any]:
        said = [{"phase": phase, "message": message} for phase, message in lines]
        order = self.order(launch)
        told = {"order": order.id, "first": first, "events": said, "status": status, "dead_man": dead_man}
        full = instances.Report.model_validate(told)
        return instances.report(self.at, AGENT, full)

    def ready(self, **wish: Any) -> Launch:
        """A launch whose session is running."""
        return self.run(self.request(**wish))

    def run(self, launch: Launch) -> Launch:
        """Take this one to a running session."""
        launch = self.advance(launch)
        self.enrol(launch)
        self.report(launch, server="up", kind="jupyter")
        sessions.tunnelled(self.at, launch.id)
        launch = self.advance(launch)
        assert launch.state is State.READY
        return launch

    def said(self, launch: Launch) -> list[str]:
        return [line["message"] for line in events.read(self.at, launch.id)]

    def phases(self, launch: Launch) -> list[str]:
        return [line["phase"] for line in events.read(self.at, launch.id) if line["phase"]]

    def events(self, launch: Launch) -> list[dict[str, Any]]:
        return events.read(self.at, launch.id)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def made_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: a tenth of a second for each of a thousand tests is two minutes."""
    root = tmp_path_factory.mktemp("made") / "repos"
    git_repos.make_repo(root, "demo", {"README.md": "Hello"})
    return root


@pytest.fixture(scope="session")
def made_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty table of this version, made once."""
    path = tmp_path_factory.mktemp("table") / "anybinder.sqlite"
    table = db.Database(f"sqlite:///{path}")
    table.migrate()
    table.dispose()
    return path


@pytest.fixture
def repo(tmp_path: Path, made_repo: Path) -> Iterator[str]:
    """The address of a repository on a real git server."""
    shutil.copytree(made_repo, tmp_path / "repos")
    with GitServer(tmp_path / "repos") as server:
        yield f"{server.url}/demo"


@pytest.fixture
def make_bench(
    home: Path, clock: Clock, repo: str, made_table: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Bench]]:
    """Benches with settings of one's own. No power is cut here: half of a test's time would go into syncing."""
    for word in ("SYNC_LASTING", "SYNC_PASSING"):
        monkeypatch.setattr(db, word, "OFF")
    made: list[service.Service] = []
    shutil.copy(made_table, settings.private_folder(home) / "anybinder.sqlite")

    def make(cloud: DeskCloud | None = None, **chosen: Any) -> Bench:
        setting = settings.BackendSetting(name="desk", provider="fake")
        at = replace(service.build(settings.Settings(home=home, **{"backends": (setting,), **chosen})), now=clock)
        cloud = cloud or DeskCloud()
        at.backends["desk"] = backends.Backend(name="desk", title="Desk", provider=cloud, setting=setting)
        made.append(at)
        return Bench(at, cloud, clock, repo)

    yield make
    for at in made:
        at.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


@pytest.fixture
def client(bench: Bench) -> Iterator[TestClient]:
    """Whoever runs this broker, asking for pages; led nowhere unseen."""
    made = app.create(bench.at)
    headers = {"Authorization": f"Bearer {made.state.door.bearer}", "Accept": "text/html"}
    with TestClient(made, base_url="http://localhost:8000", headers=headers, follow_redirects=False) as each:
        yield each
