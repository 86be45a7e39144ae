"""One schedule's world: a broker in its parts, a cloud or this computer, a person, and whoever kills."""

from __future__ import annotations

import contextlib
import datetime as dt
import heapq
import http.client
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.crashes import plans, points

SETTINGS = {
    "tick_seconds": 0.05,
    "sweep_seconds": 0.3,
    "heartbeat_seconds": 0.2,
    "boot_minutes": 2.5 / 60,
    "build_minutes": 6 / 60,
    "silence_minutes": 5 / 60,
    "lease_seconds": plans.LEASE_SECONDS,
    "workers": 4,
}
NEVER = 10**6
BIRTH_SECONDS = 0.3  # about what a broker takes to be up
FIRST = 21000 + os.getpid() % 100 * 100  # two runs at once must not take one another's
PORTS = itertools.cycle(
    (*range(FIRST, 32000), *range(21000, FIRST))
)  # below those that connections take for themselves
RETRY_SECONDS = 0.05  # a person whose broker does not answer tries again
HTTP_SECONDS = 5
KEPT = "SELECT id FROM connections WHERE removed_at IS NOT NULL AND (secret IS NOT NULL OR erased_at IS NULL)"


class Zygote:
    """Forks brokers. Safe to use from several threads."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crashes.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent.parent,
        )
        self._lock = threading.Lock()
        assert self._answer() == "ready"

    def fork(self, told: dict[str, Any]) -> int:
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
            return int(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """Its children die with it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Part:
    """One process of the broker, started again whenever it is dead for long enough."""

    def __init__(self, name: str, counter: Path) -> None:
        self.name = name
        self.counter = points.Counter(counter)
        self.deaths = 0
        self.killed = 0
        """How often by us, from outside."""
        self.restart_at = 0.0
        self.pid = 0
        self._handle: int | None = None

    def started(self, pid: int) -> None:
        self.pid = pid
        with contextlib.suppress(ProcessLookupError):  # dead already
            self._handle = os.pidfd_open(pid)

    def lives(self) -> bool:
        """Whether it runs; a death is counted when it is first seen."""
        if self.pid and (self._handle is None or select.select([self._handle], [], [], 0)[0]):
            self.deaths, self.pid = self.deaths + 1, 0
            self.counter.spare()
            self._drop()
        return bool(self.pid)

    def kill(self) -> None:
        if self.lives() and self._handle is not None:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            select.select([self._handle], [], [], 10)
            self.killed += 1
            self.lives()

    def _drop(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def close(self) -> None:
        self.kill()
        self.counter.close()


class Table:
    """The broker's table, read from outside. Instants come as SQLite has them: text, in UTC."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.StaticPool, isolation_level="AUTOCOMMIT")

    def rows(self, query: str) -> list[dict[str, Any]]:
        try:
            with self._engine.connect() as connection:
                found = connection.execute(sa.text(query)).mappings()
                return [{name: _plain(value) for name, value in row.items()} for row in found]
        except sa.exc.DBAPIError as error:
            if any(words in str(error) for words in ("no such table", "does not exist")):
                return []
            raise

    def close(self) -> None:
        self._engine.dispose()


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    return json.dumps(value) if isinstance(value, list | dict) else value


class World:
    """One schedule while it runs. Used by one thread."""

    def __init__(
        self,
        plan: plans.Plan,
        *,
        zygote: Zygote,
        cloud: Any,
        folder: Path,
        repo: dict[str, str],
        table_url: str = "",
    ) -> None:
        """`cloud` is a FakeCloud, or what looks like one (`aws_cloud.py`, `openstack_cloud.py`).

        `table_url` names the table of this world; without one it is SQLite in the state folder.
        """
        self.plan, self.cloud, self.folder = plan, cloud, folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self._zygote, self._repo = zygote, repo
        self.repo_url = repo["url"]
        self.port = free_port()
        self.parts = {name: Part(name, folder / f"{name}.counter") for name in plan.parts}
        self._acts: list[tuple[float, int, Callable[[], bool]]] = []
        self._numbers = itertools.count()
        self._table = Table(table_url or f"sqlite:///{self.home / 'anybinder.sqlite'}")
        self._table_url = table_url
        self.jumps: tuple[tuple[float, float], ...] = ()
        """When the broker's clock jumps, and by how many seconds."""

    # Time passes.

    def live(self, condition: Callable[[], object], seconds: float) -> bool:
        """Let things happen until the condition holds; False when it has not within these seconds."""
        deadline = time.monotonic() + seconds
        while True:
            self._restart_the_dead()
            self._act()
            if condition():
                return True
            if time.monotonic() > deadline:
                return False
            threading.Event().wait(0.008)

    def at(self, when: float, act: Callable[[], bool]) -> None:
        """Have this done at this moment, and again until it returns True."""
        heapq.heappush(self._acts, (when, next(self._numbers), act))

    def quiet(self) -> bool:
        """Whether everything that was to be done has been done."""
        return not self._acts

    def _act(self) -> None:
        while self._acts and self._acts[0][0] <= time.monotonic():
            _, _, act = heapq.heappop(self._acts)
            if not act():
                self.at(time.monotonic() + RETRY_SECONDS, act)

    # The broker.

    def start(self) -> None:
        """For the first time: who makes the tables first, the rest when they are there."""
        born = time.time() + BIRTH_SECONDS
        jumps = [(born + jump.at, jump.seconds) for jump in self.plan.jumps if jump.whose == "broker"]
        self.jumps = tuple(sorted(jumps))
        rest = tuple(self.parts.values())[1:]
        for part in rest:
            part.restart_at = time.monotonic() + NEVER
        for name, where in self.plan.deadly.items():
            if isinstance(where, int):
                self.parts[name].counter.die_after(where)
        if not self.live(lambda: self.ask("GET", "/health"), self.plan.patience / 2):
            raise AssertionError(f"the broker does not start:\n{self.log()}")
        if self.plan.account:
            self._connect()
        for part in rest:
            part.restart_at = 0

    def _connect(self) -> None:
        """What the person typed on the page of connecting, in the table."""
        from broker import backends, connections, people

        with self._inside() as at:
            provider = backends.named(at, "cloud").provider
            fake, kind = self.plan.over == "fake", self.plan.account
            typed = {"key": "the-fake-key"} if fake else self.cloud.typed(at, provider, kind)
            connections.connect(at, people.LOCAL, "backend:cloud", provider.kinds, kind, typed)

    def disconnect(self) -> bool:
        """What the person's button does. It need not be repeated: it is done here, in a process that nobody kills."""
        from broker import connections, people

        with self._inside() as at:
            for made in connections.of(at, people.LOCAL):
                connections.disconnect(at, people.LOCAL, made.id)
        return True

    @contextlib.contextmanager
    def _inside(self) -> Iterator[Any]:
        """A service on this broker's table and keys, without a queue."""
        from broker import service, settings

        at = service.build(settings.Settings(**self._settings()), migrate=False)
        try:
            yield at
        finally:
            at.db.dispose()

    def secrets_kept(self) -> list[str]:
        """Connections that were removed and are not erased."""
        return [row["id"] for row in self.rows(KEPT)]

    def _restart_the_dead(self) -> None:
        for part in self.parts.values():
            if not part.lives() and part.restart_at <= time.monotonic():
                part.started(self._zygote.fork(self._told(part)))

    def _told(self, part: Part) -> dict[str, Any]:
        return {
            "part": part.name,
            "settings": self._settings(),
            "broken": self.plan.broken,
            "account": self.plan.account,
            "over": self.plan.over,
            "lists_within": self.plan.lists_within,
            "deadly": "" if part.deaths else str(self.plan.deadly.get(part.name, "")),
            "agents": (str(self.home if self.plan.local else self.cloud.folder)) if self.plan.kills_agents else "",
            "jumps": self.jumps,
            "counter": str(self.folder / f"{part.name}.counter"),
            "points": str(self.folder / f"{part.name}.points"),
            "log": str(self.folder / f"{part.name}.log"),
            "early": str(self.folder / "early"),
            "repo": None if self.plan.local else self._repo,
        }

    def _settings(self) -> dict[str, Any]:
        sweep = {} if self.plan.sweep else {"sweep_seconds": NEVER}
        local = {"boot_minutes": 10 / 60, "build_minutes": 1} if self.plan.local else {}
        backends = [self._backend(), *([{**self._backend(), "name": "spare"}] if self.plan.spare else [])]
        return {
            **SETTINGS, **local, **sweep, **self.plan.settings,
            "home": str(self.home), "port": self.port, "backends": backends, "database_url": self._table_url,
        }  # fmt: skip

    def _backend(self) -> dict[str, Any]:
        if self.plan.local:
            return {"name": "here", "provider": "local", "configuration": {"cache": self._repo["cache"]}}
        if self.plan.over != "fake":
            return {"name": "cloud", "provider": self.plan.over, "configuration": self.cloud.configuration}
        more = {"lists_within": str(self.plan.lists_within), "timeout": "4"}
        if self.plan.account:
            more["kinds"] = self.plan.account
        return {"name": "cloud", "provider": "fake", "configuration": {**self.cloud.configuration, **more}}

    # The person.

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any] | None:
        """Status and answer; None where none came."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HTTP_SECONDS)
        try:
            key = json.loads((self.home / "broker.json").read_text())["key"]
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def visit(self, launch: str) -> bool:
        """Whether the session answers through gateway and tunnel."""
        found = self.ask("GET", f"/api/launches/{launch}")
        if found is None or "token" not in found[1]:
            return False
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HTTP_SECONDS)
        try:
            connection.request("GET", f"/s/{launch}/", headers={"Authorization": f"token {found[1]['token']}"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    # What is written.

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Rows of the table; none where there is no table yet."""
        return self._table.rows(query)

    def states(self) -> dict[str, str]:
        return {row["id"]: row["state"] for row in self.rows("SELECT id, state FROM launches")}

    def log(self) -> str:
        return "".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        for part in self.parts.values():
            part.close()
        self._table.close()


def free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
