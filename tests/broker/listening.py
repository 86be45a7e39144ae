"""The loop on which a broker reads what its peers say, in a thread of its own for a test."""

from __future__ import annotations

import asyncio
import threading

from broker import service
from broker.forwarding import streams
from federation import binderhub

QUICK = binderhub.Limits(between=1, whole=20)


class Listening:
    """Reads until it is left."""

    def __init__(self, at: service.Service, limits: binderhub.Limits = QUICK) -> None:
        self._at, self._limits = at, limits
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Listening:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(streams.run(self._at, self._limits))
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
