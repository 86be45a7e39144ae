"""Lanes, each with a cloud of its own, that play schedules one after the other; a test waits for its own."""

from __future__ import annotations

import contextlib
import itertools
import queue
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from providers.fake import FakeCloud
from tests.crashes import plans
from tests.crashes.play import Outcome, play
from tests.crashes.world import World, Zygote

NOWHERE = {"url": "http://127.0.0.1:9/crashes.git", "commit": "c" * 40}


class Lanes:
    """Plays schedules, a few at a time, in the order they were given."""

    def __init__(
        self,
        repo: dict[str, str],
        new_table: Callable[[], str] = str,
        *,
        count: int = 2,
        slack: float = 1,
        new_cloud: Callable[[], Any] = FakeCloud.start,
    ) -> None:
        """Two lanes are for the cores of a small computer; waits are most of a schedule, so an idle one takes more.

        `new_table` makes an empty database and returns its URL; else each world has an SQLite of its own."""
        self._repo, self._new_table, self._slack = repo, new_table, slack
        self._folder = Path(tempfile.mkdtemp(prefix="abc-", dir="/tmp"))  # short: sockets live in it
        self._numbers = itertools.count(1)
        self._pool = ThreadPoolExecutor(count)
        self._clouds: queue.Queue[Any] = queue.Queue()
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._zygote = Zygote()
        self._stack.callback(self._zygote.close)
        for _ in range(count):
            self._clouds.put(self._stack.enter_context(new_cloud()))

    def submit(self, plan: plans.Plan) -> Future[Outcome]:
        return self._pool.submit(self._play, plan)

    def play(self, plan: plans.Plan) -> Outcome:
        """Play this one now."""
        return self.submit(plan).result()

    def _play(self, plan: plans.Plan) -> Outcome:
        plan = plan if self._slack == 1 else plan.with_slack(self._slack)
        cloud = self._clouds.get()
        folder = self._folder / str(next(self._numbers))
        try:
            table_url = self._new_table()
            return play(
                World(plan, zygote=self._zygote, cloud=cloud, folder=folder, repo=self._repo, table_url=table_url)
            )
        finally:
            self._clouds.put(cloud)
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._stack.close()


@pytest.fixture(scope="module")
def lanes(request: pytest.FixtureRequest) -> Iterator[Lanes]:
    option = request.config.getoption
    running = Lanes(NOWHERE, count=option("--lanes"), slack=option("--slack"))
    yield running
    running.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a schedule, named by its seed."""
    first = metafunc.config.getoption("--seed")
    few = local_schedules(metafunc.config)
    over, many = metafunc.config.getoption("--over"), metafunc.config.getoption("--schedules")
    counts = {"seed": schedules(metafunc.config), "local_seed": few, "postgres_seed": few}
    counts |= {f"{cloud}_seed": many if over == cloud else few for cloud in ("aws", "openstack")}
    for name, count in counts.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, range(first, first + count), ids=lambda seed: f"seed-{seed}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Over another cloud than the fake one, nothing but its schedules."""
    over = config.getoption("--over")
    if over != "fake":
        items[:] = [item for item in items if item.path.name == f"test_{over}.py"]


def seeds_of(request: pytest.FixtureRequest, name: str) -> list[int]:
    """The seeds that this module's tests have been chosen for, in their order."""
    chosen = [item for item in request.session.items if item.path == request.path]
    return [
        item.callspec.params[name] for item in chosen if isinstance(item, pytest.Function) and name in item.fixturenames
    ]


def schedules(config: Any) -> int:
    """How many over the fake cloud; none where another is asked for."""
    return config.getoption("--schedules")


def local_schedules(config: Any) -> int:
    """A 25th of the others, at least three."""
    asked = config.getoption("--local-schedules")
    return max(3, schedules(config) // 25) if asked is None else asked
