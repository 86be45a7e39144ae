"""Waking those who wait: "something changed about this launch", in this process or through Redis.

A wake-up carries no content and may be lost or doubled: whoever wakes reads the table. So every wait has a limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)
CHANNEL = "anybinder:launch:"
RETRY_SECONDS = 1.0  # after Redis went away


class Wake:
    """One waiter on one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def set(self) -> None:
        """From any thread. A loop that has closed since no longer waits."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> bool:
        """True when woken, False when the time was up. Wake-ups between two waits are not lost, and neither is being cancelled at
        the moment of one: `wait_for` swallows that before Python 3.12, and whoever waits in a loop never ends."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Fanout(Protocol):
    """What both sizes offer."""

    def publish(self, launch_id: str) -> None:
        """Wake everybody who listens to this launch. Never blocks for long, never raises."""

    def listen(self, launch_id: str) -> contextlib.AbstractContextManager[Wake]:
        """A wake-up for this launch, for as long as the context lasts."""

    def on_change(self, call: Callable[[str], None]) -> None:
        """Call this with the id of every launch that changes, in any thread."""

    def close(self) -> None:
        """Stop listening."""


class EmbeddedFanout:
    """Within one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[Wake]] = {}
        self._calls: list[Callable[[str], None]] = []

    def publish(self, launch_id: str) -> None:
        """See Fanout."""
        with self._lock:
            wakes = tuple(self._waiting.get(launch_id, ()))
        for wake in wakes:
            wake.set()
        for call in self._calls:
            call(launch_id)

    @contextlib.contextmanager
    def listen(self, launch_id: str) -> Iterator[Wake]:
        """See Fanout."""
        wake = Wake()
        with self._lock:
            self._waiting.setdefault(launch_id, set()).add(wake)
        try:
            yield wake
        finally:
            with self._lock:
                self._waiting[launch_id].discard(wake)
                if not self._waiting[launch_id]:
                    del self._waiting[launch_id]

    def on_change(self, call: Callable[[str], None]) -> None:
        """See Fanout."""
        self._calls.append(call)

    def close(self) -> None:
        """See Fanout."""


class RedisFanout(EmbeddedFanout):
    """Between processes: published to Redis, and handed on here by one listening thread."""

    def __init__(self, url: str) -> None:
        super().__init__()
        import redis  # the embedded size does without it

        self._redis = redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
        self._unreachable = redis.RedisError
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._start = threading.Lock()

    def publish(self, launch_id: str) -> None:
        """See Fanout. Without Redis those who wait find out by looking at the table now and then."""
        try:
            self._redis.publish(CHANNEL + launch_id, b"")
        except self._unreachable as error:
            log.warning("fanout_unreachable", error=type(error).__name__)

    @contextlib.contextmanager
    def listen(self, launch_id: str) -> Iterator[Wake]:
        """See Fanout."""
        self._run()
        with super().listen(launch_id) as wake:
            yield wake

    def on_change(self, call: Callable[[str], None]) -> None:
        """See Fanout."""
        super().on_change(call)
        self._run()

    def close(self) -> None:
        """See Fanout."""
        self._closing.set()
        if self._thread:
            self._thread.join(timeout=5)
        self._redis.close()

    def _run(self) -> None:
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen_for_ever, name="fanout", daemon=True)
                self._thread.start()

    def _listen_for_ever(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen_once()
            except self._unreachable as error:
                log.warning("fanout_unreachable", error=type(error).__name__)
                self._closing.wait(RETRY_SECONDS)

    def _listen_once(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            channel.psubscribe(CHANNEL + "*")
            while not self._closing.is_set():
                if message := channel.get_message(timeout=1.0):
                    super().publish(message["channel"].decode().removeprefix(CHANNEL))
