"""Where a broker can die: at the boundaries between any two of its acts. Set up from outside, in the child only.

A boundary is: before a writing transaction is durable; when it is, but nobody has been woken yet; before and after each
call to a cloud; before and after an agent's enrolment or report is answered; before a step is settled.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from sqlalchemy import orm

VERBS = ("provision", "describe", "terminate", "instances")
CELLS = struct.Struct("qq")  # how many were passed; at which to die (0: at none)


class Counter:
    """Two numbers in a file that the broker and the test both see: how far it is, and where it is to die."""

    def __init__(self, path: Path) -> None:
        path.touch()
        if path.stat().st_size < CELLS.size:
            path.write_bytes(bytes(CELLS.size))
        with path.open("r+b") as file:
            self._cells = mmap.mmap(file.fileno(), CELLS.size)

    @property
    def passed(self) -> int:
        return CELLS.unpack(self._cells[:])[0]

    def reset(self) -> None:
        """A new process has passed none."""
        self._cells[:8] = bytes(8)

    def die_after(self, more: int) -> None:
        """Have it die at the boundary so many further on."""
        self._cells[8:] = struct.pack("q", self.passed + more)

    def spare(self) -> None:
        self._cells[8:] = bytes(8)

    def step(self) -> bool:
        """Pass one more. True: this is the one to die at."""
        passed, deadly = CELLS.unpack(self._cells[:])
        self._cells[:8] = struct.pack("q", passed + 1)
        return passed + 1 == deadly

    def close(self) -> None:
        self._cells.close()


class Points:
    """The boundaries of this process. Nothing passes while one thread is about to kill it."""

    def __init__(self, counter: Counter, log: Path, *, deadly: str = "", agents: str = "") -> None:
        """`deadly` is the name of a boundary to die at when it is first reached.

        Where `agents` names a folder, not we but the agents that live there are killed, and we go on.
        """
        self._counter, self._deadly, self._agents = counter, deadly, agents
        self._lock = threading.Lock()
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def reach(self, name: str) -> None:
        with self._lock:
            fatal = self._counter.step() or name == self._deadly
            word = "passed" if not fatal else "agents killed at" if self._agents else "killed at"
            os.write(self._log, f"{word} {name}\n".encode())
            if fatal and self._agents:
                self._deadly = ""
                kill_agents(self._agents)
            elif fatal:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()

    def around(self, owner: Any, name: str, title: str = "") -> None:
        """Make the beginning and the end of this function boundaries."""
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def outer(*arguments: Any, **named: Any) -> Any:
            self.reach(f"before {title or name}")
            found = inner(*arguments, **named)
            self.reach(f"after {title or name}")
            return found

        setattr(owner, name, outer)


def kill_agents(folder: str) -> None:
    """SIGKILL for every guardian whose boot configuration was in this folder, and for the workers below them."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if any(word.endswith("agent.py") for word in words) and words[-1].startswith(folder):
                process.kill()


def set_up(points: Points, verbs: tuple[str, ...] = VERBS) -> None:
    """Put the boundaries into this process."""
    from broker import db, instances, launches
    from providers.aws import AwsProvider
    from providers.fake import FakeProvider
    from providers.local import LocalProvider
    from providers.openstack import OpenStackProvider

    _around_transactions(points, db.Database)
    for provider in (FakeProvider, LocalProvider, AwsProvider, OpenStackProvider):
        for verb in verbs:
            points.around(provider, verb)
    points.around(instances, "enrol")
    points.around(instances, "report")
    points.around(launches.advancing, "_settle", "settling")


def _around_transactions(points: Points, database: type) -> None:
    inner: Callable[..., Any] = database.transaction
    _note_writing()

    @contextlib.contextmanager
    def transaction(self: Any, *, passing: bool = False) -> Iterator[orm.Session]:
        caller = _caller(sys._getframe(2))
        with inner(self, passing=passing) as session:
            yield session
            if session.info.get("wrote") or session.new or session.dirty:
                points.reach(f"before the commit of {caller}")
                calls = session.info.setdefault("after_commit", [])
                calls.insert(0, lambda: points.reach(f"after the commit of {caller}"))

    database.transaction = transaction  # type: ignore[attr-defined]


def _caller(frame: Any) -> str:
    """Whose transaction it is; `orders._note` writes for others."""
    return (frame.f_back if frame.f_code.co_name == "_note" else frame).f_code.co_name


def _note_writing() -> None:
    @sa.event.listens_for(orm.Session, "after_flush")
    def _flushed(session: orm.Session, _context: object) -> None:
        session.info["wrote"] = True

    @sa.event.listens_for(orm.Session, "do_orm_execute")
    def _executed(state: orm.ORMExecuteState) -> None:
        if state.is_update or state.is_insert or state.is_delete:
            state.session.info["wrote"] = True
