"""The queue is a hint: it makes launches advance at once. The table is the truth, and is searched now and then.

So a message may be lost, doubled or late; none of it costs a machine.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

log = structlog.get_logger(__name__)

Task = Callable[..., object]
Item = tuple[str, tuple[str, ...]]
NOW = float("-inf")  # sooner than any moment
LOWEST = 9  # of Celery's priorities on Redis, whose highest is 0
REPEATED_SECONDS = 10  # what the search of the table finds late is found again every second, and must not pile up
FRESH_IN_A_ROW = 3
"""While looks are late: they are late because the processor is busy, and somebody waits for what is fresh."""


class Queue(Protocol):
    """What both sizes offer."""

    def start(self, tasks: Mapping[str, Task], every: Mapping[str, float]) -> None:
        """Begin to run tasks by name; those in `every` also run by themselves, each so many seconds."""

    def enqueue(self, task: str, *args: str, delay: float | None = None) -> None:
        """Have this task run now, or `delay` seconds from now, after what is wished now; 0 for what should have run already.
        Returns at once, from any thread; never raises."""

    def stop(self) -> None:
        """Let running tasks finish and start no more. What was only queued is found again in the table."""


class Waiting:
    """What is to run, and in which order. Has no clock and no lock of its own.

    What is wished at once is *fresh*: somebody clicked, or an agent spoke. It goes before what was only to be looked at by
    now, however late that is; but one in every FRESH_IN_A_ROW + 1 is the look that is latest, so that none waits for ever.
    """

    def __init__(self) -> None:
        self._fresh: deque[Item] = deque()
        self._looks: list[tuple[float, int, Item]] = []
        self._soonest: dict[Item, float] = {}
        self._order = itertools.count()
        self._in_a_row = 0

    def add(self, item: Item, now: float, delay: float | None) -> bool:
        """In so many seconds, or fresh where that is None. False where it waits already, for the same moment or a sooner."""
        due = NOW if delay is None else now + delay
        if self._soonest.get(item, float("inf")) <= due:
            return False
        self._soonest[item] = due
        if delay is None:
            self._fresh.append(item)
        else:
            heapq.heappush(self._looks, (due, next(self._order), item))
        return True

    def take(self, now: float) -> Item | None:
        """What is to run now; None while there is nothing."""
        late = self.seconds(now) == 0
        if self._fresh and not (late and self._in_a_row >= FRESH_IN_A_ROW):
            self._in_a_row += 1
            return self._taken(self._fresh.popleft())
        self._in_a_row = 0
        return self._taken(heapq.heappop(self._looks)[2]) if late else None

    def seconds(self, now: float) -> float | None:
        """Until the next look is due; None where there is none."""
        while self._looks and self._soonest.get(self._looks[0][2]) != self._looks[0][0]:
            heapq.heappop(self._looks)  # it was wished sooner since
        return max(0.0, self._looks[0][0] - now) if self._looks else None

    def _taken(self, item: Item) -> Item:
        del self._soonest[item]
        return item


class EmbeddedQueue:
    """Threads of this process. A task that is already queued for the same moment or sooner is not queued twice."""

    def __init__(self, threads: int = 8) -> None:
        self._count = threads
        self._waiting = Waiting()
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

    def enqueue(self, task: str, *args: str, delay: float | None = None) -> None:
        """See Queue."""
        with self._wake:
            if self._waiting.add((task, args), time.monotonic(), delay):
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

    def _take(self) -> Item | None:
        with self._wake:
            while not self._stopping:
                now = time.monotonic()
                if (item := self._waiting.take(now)) is not None:
                    return item
                self._wake.wait(self._waiting.seconds(now))
            return None


class CeleryQueue:
    """Celery over Redis. Workers are processes of their own (`anybinder worker`); this only sends."""

    def __init__(self) -> None:
        self._app: Any = None

    def start(self, tasks: Mapping[str, Task], every: Mapping[str, float]) -> None:
        """See Queue. Nothing runs here."""

    def enqueue(self, task: str, *args: str, delay: float | None = None) -> None:
        """See Queue."""
        from kombu.exceptions import OperationalError

        late = {"priority": LOWEST, "expires": REPEATED_SECONDS} if delay == 0 else {}
        try:
            self._celery().send_task(
                f"anybinder.{task}", args=args, countdown=delay or None, ignore_result=True, **late
            )
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
