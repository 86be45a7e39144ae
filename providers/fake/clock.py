"""The fake cloud's time, and what is to happen at which."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

FOR_EVER = 3600.0


class Clock:
    """Real time times a rate, plus an offset that can be moved on. Happenings run with `lock` held, in due order."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._moved = threading.Condition(self.lock)
        self._numbers = itertools.count()
        self.reset()

    def reset(self) -> None:
        """Real time again, and nothing to happen."""
        with self.lock:
            self._then, self._since, self.rate = time.time(), time.monotonic(), 1.0
            self._due: list[tuple[float, int, Callable[[], None]]] = []
            self._moved.notify_all()

    def now(self) -> float:
        """Seconds since 1970, as this cloud counts them."""
        return self._then + (time.monotonic() - self._since) * self.rate

    def move(self, *, advance: float = 0, rate: float | None = None) -> float:
        """Jump ahead, or run at another rate. What became due has happened when this returns."""
        with self.lock:
            self._then, self._since = self.now() + advance, time.monotonic()
            self.rate = self.rate if rate is None else rate
            self.settle()
            self._moved.notify_all()
            return self.now()

    def at(self, when: float, happening: Callable[[], None]) -> None:
        """Have this happen then."""
        with self.lock:
            heapq.heappush(self._due, (when, next(self._numbers), happening))
            self._moved.notify_all()

    def settle(self) -> None:
        """Let everything happen that is due."""
        with self.lock:
            while self._due and self._due[0][0] <= self.now():
                heapq.heappop(self._due)[2]()

    def run(self) -> None:
        """Let things happen as they become due. Does not return."""
        with self.lock:
            while True:
                self.settle()
                self._moved.wait(self._seconds_to_next())

    def _seconds_to_next(self) -> float:
        if not self._due or self.rate <= 0:
            return FOR_EVER
        return min(FOR_EVER, max(0, (self._due[0][0] - self.now()) / self.rate))
