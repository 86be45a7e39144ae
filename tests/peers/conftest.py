"""Benches as in tests/broker, with a repository for each launch of a schedule; one test a seed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.broker.conftest import clock, made_table, make_bench
from tests.doubles import git_repos
from tests.doubles.git_server import GitServer

__all__ = ["clock", "made_table", "make_bench"]
LAUNCHES_MOST = 3


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the addresses of the repositories begin with: a number makes one of them."""
    root = tmp_path_factory.mktemp("repos")
    for number in range(LAUNCHES_MOST):
        git_repos.make_repo(root, f"demo{number}", {"README.md": f"Hello {number}"})
    with GitServer(root) as server:
        yield f"{server.url}/demo"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a schedule, named by its seed."""
    option = metafunc.config.getoption
    if "seed" in metafunc.fixturenames:
        seeds = range(option("--seed"), option("--seed") + option("--schedules"))
        metafunc.parametrize("seed", seeds, ids=lambda seed: f"seed-{seed}")
