"""One order's place on this computer: its folder, its locks, its processes, and the record that it was ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from providers import processes
from providers.base import Instance, InstanceState, Order, Tag
from providers.errors import InvalidOrder, ProviderUnavailable
from providers.local import cgroups

GRACE_SECONDS = 8  # the agent gives its server 5 s and needs a moment itself
LOCK_SECONDS = 10  # a worker holds an order for milliseconds, or for as long as a folder takes to remove
KEPT = timedelta(days=1)  # beyond `until`, when nobody can want the order any more, for calls that come late
PROCESSES = 4096  # in one session's control group: far above any notebook, far below a fork bomb's harm
TAG = "ANYBINDER_TAG"
LOG_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Place:
    """All methods that change something are called with `locked()` held, but for `help_ending` and `forget`."""

    order_id: str
    home: Path
    runtime: Path

    @property
    def folder(self) -> Path:
        return self.home / self.order_id

    @property
    def _tombstone(self) -> Path:
        return self.home / ".ended" / self.order_id

    @property
    def _unfinished(self) -> Path:
        return self.home / ".new" / self.order_id

    @contextlib.contextmanager
    def locked(self, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """One worker at a time, of any process. Raises ProviderUnavailable when another has it for too long."""
        path = private_folder(private_folder(self.home) / ".locks") / self.order_id
        deadline = time.monotonic() + seconds
        while (lock := _try_lock(path)) is None:
            if time.monotonic() >= deadline:
                raise ProviderUnavailable("Another worker is busy with this order.")
            threading.Event().wait(0.005)  # flock cannot wait with a limit, and a verb must have one
        try:
            yield
        finally:
            os.close(lock)

    def make(self, tag: Tag) -> None:
        """The folder, with its tag in it, appears at once: a crash leaves nothing, or what can be found."""
        _remove(self._unfinished)
        private_folder(self._unfinished.parent)
        private_folder(self._unfinished)
        _write(self._unfinished / "tag.json", json.dumps(tag.as_labels()))
        self._unfinished.rename(self.folder)

    def make_cgroups(self, memory_mb: int | None) -> list[str]:
        """Limits and a way to find every process, where they are permitted. Written down: workers differ in theirs."""
        limits = {"pids": PROCESSES} | ({"memory": memory_mb * 2**20} if memory_mb else {})
        made = [str(folder) for folder in cgroups.make(f"anybinder-{self.order_id}", limits)]
        _write(self.folder / "cgroups.json", json.dumps({"cgroups": made}))
        return made

    def _cgroups(self) -> list[Path]:
        return [Path(folder) for folder in _read(self.folder / "cgroups.json").get("cgroups", [])]

    def start(self, order: Order, boot: dict[str, Any]) -> None:
        """Start the agent. Should one be starting already, unseen by us, the second ends itself: `pid` is made once."""
        private_folder(self.runtime.parent)
        private_folder(self.runtime)
        _write(self.folder / "boot.json", json.dumps(boot))
        processes.start_detached(
            [sys.executable, "-I", "-S", order.boot.agent, str(self.folder / "boot.json")],
            mark=self.order_id,
            extra={TAG: json.dumps(order.tag.as_labels())},
            log=self.folder / "agent.log",
            cgroups=[Path(folder) for folder in boot["cgroup"]],
        )

    def was_started(self) -> bool:
        """Whether an agent is there or has been; False also in the milliseconds before it has made its mark."""
        return (self.folder / "pid").exists() or self._agent() is not None

    def has_ended(self) -> bool:
        """Whether its end was asked for, ever."""
        return self._tombstone.exists()

    def instance(self, tag: Tag | None = None) -> Instance:
        """How it is now, under the tag we know, or else this one."""
        state, detail = self._state()
        parts = [path for path in (self.folder, self.runtime) if path.exists()]
        return Instance(
            id=self.order_id,
            tag=self.tag() or tag,
            state=state,
            detail=detail,
            created_at=_made_at(self.folder / "tag.json"),
            parts=tuple(map(str, parts)),
        )

    def _state(self) -> tuple[InstanceState, str]:
        if not self.folder.exists():
            if processes.marked(self.order_id):
                return InstanceState.STOPPING, "Its folder is gone, and processes of it still run."
            return InstanceState.GONE, self._record().get("detail", "")
        if self.has_ended():
            return InstanceState.STOPPING, "It is being ended."
        if self._is_held():
            return InstanceState.RUNNING, ""
        if self._agent() is not None:
            return InstanceState.PENDING, "Its agent is starting."
        if not (self.folder / "pid").exists():
            return InstanceState.PENDING, "It is half-created: its agent has not started."
        return InstanceState.STOPPING, self._last_words()

    def _is_held(self) -> bool:
        """Whether the agent lives: it holds this lock for life, and the kernel lets go of it with the process.

        Asked only once `pid` is there: before, our asking could be what keeps the agent from taking the lock.
        """
        if not (self.folder / "pid").exists():
            return False
        try:
            lock = os.open(self.folder / "agent.lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def _agent(self) -> psutil.Process | None:
        """The agent's process: by the number it wrote, believed only with its mark; else by its command line."""
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            pid = int((self.folder / "pid").read_text().split()[0])
            if processes.mark_of(pid) == self.order_id:
                return psutil.Process(pid)
        for process in processes.marked(self.order_id):
            if processes.was_told(process, str(self.folder / "boot.json")):
                return process
        return None

    def _last_words(self) -> str:
        lines = [line.strip() for line in self.log()[-2000:].splitlines() if line.strip()]
        said = "".join(c for c in (lines or [""])[-1] if c.isprintable())[:300]
        return f"Its agent has ended by itself: {said}" if said else "Its agent has ended by itself."

    def log(self) -> str:
        """The end of what the agent has written; empty where there is nothing."""
        with contextlib.suppress(OSError), (self.folder / "agent.log").open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_BYTES))
            return log.read().decode(errors="replace")
        return ""

    def tag(self) -> Tag | None:
        """From its folder, from the record of its end, or from a process that outlived both."""
        labels = _read(self.folder / "tag.json") or self._record().get("labels") or self._labels_of_orphans()
        return Tag.from_labels(labels)

    def _record(self) -> dict[str, Any]:
        return _read(self._tombstone)

    def _labels_of_orphans(self) -> dict[str, str]:
        for process in processes.marked(self.order_id):
            with contextlib.suppress(psutil.Error, ValueError):
                return json.loads(process.environ().get(TAG, "{}"))
        return {}

    def ask_to_end(self) -> None:
        """Record the end, then ask the agent: in this order, so that no call that comes late starts it again."""
        if not self.has_ended():
            self._write_tombstone()
        if self.folder.exists() and not (self.folder / "terminating").exists():
            _write(self.folder / "terminating", str(time.time()))
        agent = self._agent()
        if agent is not None:
            with contextlib.suppress(psutil.Error):
                agent.send_signal(signal.SIGTERM)

    def _write_tombstone(self) -> None:
        tag, (state, detail) = self.tag(), self._state()
        private_folder(self._tombstone.parent)
        record = {
            "labels": tag.as_labels() if tag else {},
            "detail": "It was ended." if state is not InstanceState.STOPPING else detail,
            "keep_until": max(datetime.now(UTC), tag.until if tag else datetime.now(UTC)) + KEPT,
        }
        _write(self._tombstone, json.dumps(record, default=datetime.isoformat))

    def end(self) -> None:
        """Remove what is left, once the agent has ended or has had its grace. Does not wait: call it again."""
        agent = self._agent()
        if agent is not None and processes.is_alive(agent) and not self._grace_is_over():
            return
        groups = self._cgroups()
        if not processes.kill(self.order_id, agent, groups):
            return
        cgroups.remove(groups)
        _remove(self.runtime)
        _remove(self._unfinished)
        _remove(self.folder)

    def may_be_cleared(self) -> bool:
        """Whether its end was asked for, and its agent is gone or has had its time to end what it made."""
        agent = self._agent() if self.has_ended() else None
        return self.has_ended() and (agent is None or not processes.is_alive(agent) or self._grace_is_over())

    def _grace_is_over(self) -> bool:
        try:
            asked = float((self.folder / "terminating").read_text())
        except (OSError, ValueError):
            return True  # its folder is gone, or was damaged: nothing to wait for
        return not 0 <= time.time() - asked < GRACE_SECONDS

    def help_ending(self) -> None:
        """Go on with an end that was asked for; leave it to whoever is at it already."""
        if not self.has_ended() or not (self.folder.exists() or processes.marked(self.order_id)):
            return
        with contextlib.suppress(ProviderUnavailable), self.locked(seconds=0):
            self.end()

    def forget_when_old(self) -> None:
        """Remove the record of an end that no late call can ask about any more."""
        keep_until = self._record().get("keep_until")
        if self.folder.exists() or keep_until is None or datetime.now(UTC) < datetime.fromisoformat(keep_until):
            return
        with contextlib.suppress(ProviderUnavailable), self.locked(seconds=0):
            self._tombstone.unlink(missing_ok=True)
            (self.home / ".locks" / self.order_id).unlink(missing_ok=True)

    def forget_unfinished(self) -> None:
        """Remove a folder whose maker died before it had its tag: nothing was started, nobody was told."""
        with contextlib.suppress(ProviderUnavailable), self.locked(seconds=0):
            _remove(self._unfinished)


def _try_lock(path: Path) -> int | None:
    """A lock on this file; None where another has it, or where the file was removed while we asked."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    os.close(lock)
    return None


def private_folder(path: Path) -> Path:
    """This folder, made with mode 0700 where missing. Raises InvalidOrder where it is somebody else's."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise InvalidOrder(f"{path} belongs to somebody else. Choose another folder.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def _write(path: Path, text: str) -> None:
    """All or nothing, for our eyes only, and on the disk before we go on."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(handle)
    draft.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _made_at(path: Path) -> datetime | None:
    with contextlib.suppress(OSError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return None


def _remove(folder: Path) -> None:
    """Remove it with all in it, read-only folders too. What cannot be removed stays, and is listed."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, onerror=_open_and_retry)


def _open_and_retry(retry: Any, path: str, _error: Any) -> None:
    with contextlib.suppress(OSError):
        Path(path).parent.chmod(0o700)
        if retry is os.open or retry is os.scandir or retry is os.rmdir:
            Path(path).chmod(0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            retry(path)
