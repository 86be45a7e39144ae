"""The gateway: passes browsers' requests to sessions, each to its own and to nothing else.

It knows a session by its host name, lets in whoever shows the session's cookie or the launch's token, takes both off,
and speaks to the session's server through streams of its tunnel. Streams are kept alive per session, never shared.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import structlog

from broker import metrics, wire
from broker import tunnel as tunnels
from broker.gateway import heads
from broker.gateway.closing import say_and_close
from broker.gateway.connection import Connection
from broker.gateway.heads import Route
from broker.gateway.upstream import FRESH_SECONDS, KEEP_SECONDS, Upstream

__all__ = ["Connection", "Gateway", "Route", "say_and_close"]

IDLE_STREAMS = 64  # kept per session; a browser opens 6 connections, a page of scripts a few more
log = structlog.get_logger(__name__)
CHECK_SECONDS = 5.0
_SWEEP_SECONDS = 0.5


class Half(tunnels.Pipe):
    """One half of a WebSocket. `data_received` is an attribute, so that a message costs no step of ours that it need
    not: towards the browser the transport calls the other transport's own `write`."""

    __slots__ = ("data_received",)


class Gateway:
    """One per event loop. `activity` is when (`time.monotonic`) each session was last worked with."""

    def __init__(
        self,
        *,
        directory: tunnels.Directory,
        tunnel: tunnels.Tunnel,
        home: str = "http://localhost:8000/",
        secure: bool = False,
        trusted: Collection[str] = (),
        allow_origin: str = "",
    ) -> None:
        self.allow_origin = allow_origin.lower().encode()
        self.directory = directory
        self.tunnel = tunnel
        self.home = home
        self.secure = secure
        self.loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]  # known at the first connection
        self.requests = wire.RequestReader()
        self.responses = wire.ResponseReader()
        self.activity: dict[str, float] = {}
        self.connections: set[Connection] = set()
        self.sent = self.received = 0  # bytes of bodies, since the metrics were told
        self.stopping = False
        self._trusted = frozenset(trusted)
        self._statuses: dict[int, int] = {}
        self._check_at: dict[str, float] = {}
        self._idle: dict[str, list[Upstream]] = {}
        self._spliced: dict[str, set[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    # ---- connections ----------------------------------------------------------------------------------------------

    def serve(self, front: Any, transport: Any) -> Connection:
        """A connection for the requests that the front hands over with `begin`."""
        self.loop = self.loop or asyncio.get_running_loop()
        connection = Connection(self, front, transport)
        self.connections.add(connection)
        if self._timer is None:
            self._timer = self.loop.call_later(_SWEEP_SECONDS, self._sweep)
        return connection

    def peer(self, transport: Any) -> heads.Peer:
        """Who is connected. Over a unix socket there is no address."""
        name = transport.get_extra_info("peername")
        address = name[0] if isinstance(name, tuple) else "unknown"
        return heads.Peer(address=address.encode(), trusted=address in self._trusted)

    def session(self, session_id: str) -> Any:
        """What the directory knows of it, at once. Now and then it is made to look again behind our back, in case it
        was not told of a change."""
        found = self.directory.get(session_id)
        if found is not None and self.loop.time() >= self._check_at.get(session_id, 0.0):
            self._check_at[session_id] = self.loop.time() + CHECK_SECONDS
            self._spawn(self.directory.load(session_id))
        return found

    def look_up(self, connection: Connection) -> None:
        self._spawn(connection.look_up())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()):
            log.error("a session could not be looked up", exc_info=fault)

    def touch(self, session_id: str) -> None:
        self.activity[session_id] = time.monotonic()

    def count(self, status: int) -> None:
        self._statuses[status] = self._statuses.get(status, 0) + 1

    def _tell_metrics(self) -> None:
        """Counted by the way and told now and then: a counter with a lock is too slow for every request."""
        statuses, self._statuses = self._statuses, {}
        for status, number in statuses.items():
            metrics.GATEWAY_REQUESTS.labels(f"{status // 100}xx").inc(number)
        metrics.GATEWAY_BYTES.labels("to browsers").inc(self.sent)
        metrics.GATEWAY_BYTES.labels("to sessions").inc(self.received)
        self.sent = self.received = 0

    # ---- streams that are kept ------------------------------------------------------------------------------------

    def idle_stream(self, session_id: str, *, fresh: bool) -> Upstream | None:
        """A kept stream of this session; `fresh` where it must surely still be open."""
        idle = self._idle.get(session_id)
        while idle:
            if fresh and idle[-1].used_at < self.loop.time() - FRESH_SECONDS:
                return None
            found = idle.pop()
            if not found.transport.is_closing():
                return found
        return None

    def keep(self, found: Upstream) -> None:
        idle = self._idle.setdefault(found.stream.session_id, [])
        if len(idle) >= IDLE_STREAMS or self.stopping:
            found.transport.close()
            return
        found.used_at = self.loop.time()
        found.transport.resume_reading()
        idle.append(found)

    def forget(self, found: Upstream) -> None:
        idle = self._idle.get(found.stream.session_id)
        if idle and found in idle:
            idle.remove(found)

    # ---- WebSockets -----------------------------------------------------------------------------------------------

    def join(self, connection: Connection, found: Upstream) -> None:
        """Splice a browser's connection and a stream for good."""
        session_id = connection.route.session_id
        browser, session, stream = connection.transport, found.transport, found.stream
        spliced = self._spliced.setdefault(session_id, set())
        found.client = connection.upstream = None
        front = connection.front

        def lost() -> None:
            stream.ended()
            spliced.discard(browser)
            front.discard(ending)

        ending = Splice(browser, session)
        spliced.add(browser)
        front.add(ending)
        self.connections.discard(connection)
        front.discard(connection)
        down, up = Half(session, browser, lost), Half(browser, session, lost)
        down.data_received = browser.write
        up.data_received = self._typing(session_id, session.write)
        session.set_protocol(down)
        browser.set_protocol(up)
        if ahead := connection.take_ahead():
            session.write(ahead)
        browser.resume_reading()
        session.resume_reading()

    def _typing(self, session_id: str, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """What comes from the browser is activity."""
        activity, now = self.activity, time.monotonic

        def received(data: bytes) -> None:
            activity[session_id] = now()
            write(data)

        return received

    # ---- ends -----------------------------------------------------------------------------------------------------

    def drop(self, session_id: str) -> None:
        """The session has ended: close every stream of it and what hangs on them."""
        for found in self._idle.pop(session_id, []):
            found.transport.close()
        for browser in list(self._spliced.pop(session_id, ())):
            browser.close()
        self.activity.pop(session_id, None)
        self._check_at.pop(session_id, None)
        self.tunnel.drop(session_id)

    def _sweep(self) -> None:
        now = self.loop.time()
        self._tell_metrics()
        for connection in [connection for connection in self.connections if connection.due <= now]:
            connection.overdue()
        for session_id, idle in list(self._idle.items()):
            for found in [found for found in idle if found.used_at < now - KEEP_SECONDS]:
                found.transport.close()
                idle.remove(found)
            if not idle:
                del self._idle[session_id]
        wanted = self.connections or self._idle
        self._timer = self.loop.call_later(_SWEEP_SECONDS, self._sweep) if wanted else None

    def shutdown(self) -> None:
        """The server stops: keep no stream. Connections finish what they serve."""
        self.stopping = True
        for idle in self._idle.values():
            for found in list(idle):
                found.transport.close()
        self._idle.clear()


class Splice:
    """A WebSocket as the server's graceful shutdown sees it: it has no end of its own, so it is cut."""

    __slots__ = ("_browser", "_session")

    def __init__(self, browser: Any, session: Any) -> None:
        self._browser = browser
        self._session = session

    def shutdown(self) -> None:
        self._session.close()
        self._browser.close()
