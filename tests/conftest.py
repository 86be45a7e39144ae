"""What holds for every test: this computer only, a state folder of its own, nothing left running.

Fixtures: `home`, `postgres_url`, `redis_url`, `browser`. Waiting is `tests.waiting.until`.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import servers
from tests.waiting import until

CLEAN = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "A Test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "A Test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}
"""git as on a machine where nobody has configured it."""


pytest_plugins = ["providers.contract.spending"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("crashes")
    group.addoption("--schedules", type=int, default=25, help="how many crash schedules over the fake cloud")
    group.addoption(
        "--over", choices=("fake", "aws", "openstack"), default="fake", help="the cloud that the schedules are over"
    )
    group.addoption("--local-schedules", type=int, help="how many over `local` (default: a 25th, at least 3)")
    group.addoption("--lanes", type=int, default=2, help="how many are played at the same time")
    group.addoption("--slack", type=float, default=1, help="how much slower than an idle computer this one may be")
    group.addoption("--seed", type=int, default=1, help="where the schedules begin; a failure names its own")


def pytest_configure(config: pytest.Config) -> None:
    """Before any module of ours is imported: no setting of the person who runs the tests may reach them."""
    for name in [name for name in os.environ if name.startswith("ANYBINDER_")]:
        del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="abt-", dir="/tmp"))  # short: a socket's path may have at most 107 bytes
    os.environ.update(CLEAN, ANYBINDER_HOME=str(folder / "home"), XDG_RUNTIME_DIR=str(folder))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    sys.addaudithook(this_computer_only)


# --- this computer only ---------------------------------------------------------------------------------------------


def this_computer_only(event: str, arguments: tuple[Any, ...]) -> None:
    """Name look-ups and connections elsewhere fail as they would with the cable pulled. Child processes are free."""
    if event == "socket.getaddrinfo" and not is_here(arguments[0]):
        raise socket.gaierror(socket.EAI_NONAME, f"the tests stay on this computer: {arguments[0]}")
    if event in ("socket.connect", "socket.sendto") and not is_here(address_of(arguments[1])):
        raise OSError(f"the tests stay on this computer: {arguments[1]}")


def address_of(address: Any) -> Any:
    return address[0] if isinstance(address, tuple) else None  # a unix socket's address is a path


def is_here(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if not name or name == socket.gethostname() or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


# --- a state folder of its own --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state folder of this test. Not made yet: a broker makes its own."""
    from broker import settings

    folder = tmp_path / "home"
    monkeypatch.setenv("ANYBINDER_HOME", str(folder))
    settings.current.cache_clear()
    yield folder
    settings.current.cache_clear()


# --- nothing left running -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails the module that leaves a process or a listening socket behind, and ends what it left.

    A process counts as left by this run when it descends from it, or names the run's temporary folder in its command
    or has its working directory there: so one that was orphaned is found too.
    """
    folder = str(tmp_path_factory.getbasetemp())
    processes, sockets = ours(folder), listening()
    yield
    try:
        until(lambda: ours(folder) <= processes and listening() <= sockets, seconds=5)
    except AssertionError:
        left = [describe(process) for process in ours(folder) - processes]
        end(ours(folder) - processes)
        pytest.fail(f"left behind: processes {left}, listening sockets {listening() - sockets}")


def ours(folder: str) -> set[psutil.Process]:
    descended = psutil.Process().children(recursive=True)
    orphaned = [process for process in psutil.process_iter() if is_in(process, folder)]
    shared = {one for process in descended if process.pid in servers.kept for one in family(process)}
    return {process for process in {*descended, *orphaned} - shared if alive(process) and process.pid != os.getpid()}


def is_in(process: psutil.Process, folder: str) -> bool:
    try:
        return f"{process.cwd()}/".startswith(f"{folder}/") or any(f"{folder}/" in word for word in process.cmdline())
    except (psutil.Error, OSError):
        return False


def family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return str(process.pid)


def end(processes: set[psutil.Process]) -> None:
    for process in processes:
        if alive(process):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def listening() -> set[tuple[str, int]]:
    """Where this very process listens."""
    found = psutil.Process().net_connections(kind="inet")
    return {(each.laddr.ip, each.laddr.port) for each in found if each.status == psutil.CONN_LISTEN}


# --- real servers ---------------------------------------------------------------------------------------------------


def wanted(need: servers.Need) -> None:
    """Leave the test out where the server cannot be had; under CI that is a failure (see below)."""
    if need.found() is None:
        pytest.skip(f"{need.title} is not on this computer")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL for the whole run. Tests take `postgres_url`."""
    wanted(servers.POSTGRES)
    from tests.servers import postgres

    with postgres.running() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Any) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database of this test's own."""
    url = postgres.new_database()
    yield url
    postgres.drop(url)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Any]:
    """A Redis for the whole run. Tests take `redis_url`."""
    wanted(servers.REDIS)
    from tests.servers import redis

    with redis.running() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Any) -> str:
    """The URL of a Redis that was emptied for this test."""
    return redis_server.empty()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Playwright's `Browser`: a real Chromium."""
    wanted(servers.CHROMIUM)
    from tests.servers import chromium

    with chromium.running() as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Under CI nothing may be left out: a skipped test has failed, but for what a provider says of itself it lacks."""
    report: Any = yield
    if servers.CI and report.skipped and not hasattr(report, "wasxfail") and not is_the_providers(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"left out, which CI does not allow: {report.longrepr}"
    return report


def is_the_providers(skipped: Any) -> bool:
    """Whether the contract's own suite left it out, because this provider has no such thing."""
    return isinstance(skipped, tuple) and "providers/contract/" in str(skipped[0])
