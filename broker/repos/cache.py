"""Not asking twice: recent answers, and look-ups that are under way."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """The last `size` values put in, each for `seconds` at most. Threads share it."""

    def __init__(self, size: int, seconds: float, clock: Callable[[], float]) -> None:
        self._size, self._seconds, self._clock = size, seconds, clock
        self._rows: OrderedDict[Hashable, tuple[float, V]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> V | None:
        with self._lock:
            at, value = self._rows.get(key, (None, None))
            if at is None:
                return None
            if abs(self._clock() - at) >= self._seconds:  # abs: the clock of the wall may be set back
                del self._rows[key]
                return None
            self._rows.move_to_end(key)
            return value

    def put(self, key: Hashable, value: V) -> None:
        with self._lock:
            self._rows[key] = (self._clock(), value)
            self._rows.move_to_end(key)
            while len(self._rows) > self._size:
                self._rows.popitem(last=False)

    def __len__(self) -> int:
        return len(self._rows)


class Flights(Generic[V]):
    """Identical look-ups at one time are one look-up: the second waits for the answer of the first, or its error."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, Future[V]] = {}
        self._lock = threading.Lock()

    def share(self, key: Hashable, act: Callable[[], V]) -> V:
        with self._lock:
            flight = self._flying.get(key)
            mine = flight is None
            if flight is None:
                flight = self._flying[key] = Future()
        if mine:
            self._fly(key, flight, act)
        return flight.result()

    def _fly(self, key: Hashable, flight: Future[V], act: Callable[[], V]) -> None:
        try:
            flight.set_result(act())
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must hear it; result() raises it
            flight.set_exception(error)
        finally:
            with self._lock:
                del self._flying[key]
