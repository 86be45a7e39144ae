"""The queue is a hint: it makes launches advance at once. The table is the truth, and is searched now and then.

So a message may be lost, doubled or late; none of it costs a machine.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

log = structlog.get_logger(__name__)

Task = Callable[..., object]


class Queue(Protocol):
    """What both sizes offer."""

    def start(self, tasks: Mapping[str, Task], every: Mapping[str, float]) -> None:
        """Begin to run tasks by name; those in `every` also run by themselves, each so many seconds."""

    def enqueue(self, task: str, *args: str, delay: float = 0.0) -> None:
        """Have this task run soon, or `delay` seconds from now. Returns at once, from any thread; never raises."""

    def stop(self) -> None:
        """Let running tasks finish and start no more. What was only queued is found again in the table."""


class EmbeddedQueue:
    """Threads of this process. A task that is already queued for the same moment or sooner is not queued twice."""

    def __init__(self, threads: int = 8) -> None:
        self._count = threads
        self._heap: list[tuple[float, int, str, tuple[str, ...]]] = []
        self._soonest: dict[tuple[str, tuple[str, ...]], float] = {}
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._stopping = False
        self._tasks: Mapping[str, Task] = {}
        self._every: Mapping[str, float] = {}
        self._threads: list[threading.Thread] = []

    def start(self, tasks: Mapping[str, Task], every: Mapping[str, float]) -> None:
        """See Queue."""
        self._tasks, self._every = tasks, every
        for number in range(self._count):
            thread = threading.Thread(target=self._work, name=f"queue-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        for task in every:
            self.enqueue(task)

    def enqueue(self, task: str, *args: str, delay: float = 0.0) -> None:
        """See Queue."""
        due = time.monotonic() + delay
        with self._wake:
            if self._soonest.get((task, args), float("inf")) <= due:
                return
            self._soonest[(task, args)] = due
            heapq.heappush(self._heap, (due, next(self._order), task, args))
            self._wake.notify()

    def stop(self) -> None:
        """See Queue."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=30)

    def _work(self) -> None:
        while (item := self._take()) is not None:
            task, args = item
            try:
                self._tasks[task](*args)
            except Exception:
                log.exception("task_failed", task=task, args=args)
            if task in self._every:
                self.enqueue(task, delay=self._every[task])

    def _take(self) -> tuple[str, tuple[str, ...]] | None:
        with self._wake:
            while not self._stopping:
                if not self._heap:
                    self._wake.wait()
                    continue
                due, _, task, args = self._heap[0]
                if (left := due - time.monotonic()) > 0:
                    self._wake.wait(left)
                    continue
                heapq.heappop(self._heap)
                if self._soonest.get((task, args)) == due:
                    del self._soonest[(task, args)]
                    return task, args
            return None


class CeleryQueue:
    """Celery over Redis. Workers are processes of their own (`anybinder worker`); this only sends."""

    def __init__(self) -> None:
        self._app: Any = None

    def start(self, tasks: Mapping[str, Task], every: Mapping[str, float]) -> None:
        """See Queue. Nothing runs here."""

    def enqueue(self, task: str, *args: str, delay: float = 0.0) -> None:
        """See Queue."""
        from kombu.exceptions import OperationalError

        try:
            self._celery().send_task(f"anybinder.{task}", args=args, countdown=delay or None, ignore_result=True)
        except OperationalError as error:
            log.warning("queue_unreachable", task=task, error=type(error).__name__)

    def stop(self) -> None:
        """See Queue."""
        if self._app is not None:
            self._app.close()

    def _celery(self) -> Any:
        if self._app is None:
            from broker import tasks

            self._app = tasks.celery_app()
        return self._app
