"""The broker's side of the tunnel: streams that agents dial out to us, parked until somebody needs one.

An agent keeps a few streams parked here. Whoever wants to reach a session takes one: a byte tells the agent, its
answer says that the session's server is connected, and from then on it is a plain byte stream in both directions.
The gateway takes streams in this process; for forwarders in other processes each session is also a unix socket.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import structlog

from broker import framing, metrics, settings, wire

PING_SECONDS = 25.0  # below the 30 s idle limit of common proxies
GONE_SECONDS = 10.0  # an agent redials within 5 s; longer than that without any stream is gone
STREAM_LIMIT = 512  # streams of one session, so that one agent cannot use up our descriptors
PROTOCOL = b"anybinder-tunnel"
PING, TAKEN, FAILED = b"\x00", b"\x01", b"\x02"
PACKED = b"\x03"

_WEBSOCKET_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455

log = structlog.get_logger()


class Session(Protocol):
    """What the tunnel and the gateway need to know of a session; `broker.sessions.Session` is one."""

    id: str
    state: str

    def tunnelled_by(self, secret: str) -> bool: ...

    def is_early(self, secret: str) -> bool: ...


class Directory(Protocol):
    """Where sessions are looked up; `broker.sessions.Directory` is one."""

    def get(self, session_id: str) -> Any: ...

    async def load(self, session_id: str) -> Any: ...


class Stream(asyncio.Protocol):
    """One connection of an agent. While parked it only answers pings; taken, its bytes are the taker's."""

    __slots__ = ("_pings", "_taker", "pinged_at", "session_id", "transport", "tunnel")

    def __init__(self, tunnel: Tunnel, session_id: str, transport: Any) -> None:
        self.tunnel = tunnel
        self.session_id = session_id
        self.transport = transport
        self.pinged_at = tunnel.loop.time()
        self._pings = 0  # sent and not yet answered; their answers may still come after the stream was taken
        self._taker: Any = None

    def ping(self, now: float) -> None:
        """Keep middleboxes from forgetting this stream; end it where two pings went unanswered."""
        if self._pings >= 2:
            self.transport.abort()
            return
        self._pings += 1
        self.pinged_at = now
        self.transport.write(PING)

    def take(self, taker: Any, first: bytes, *, what: bytes = TAKEN) -> None:
        """From now on this stream is the taker's, an asyncio protocol: `connection_made` once the server is reached,
        `connection_lost` if not. `first` goes out with the request for it. `what`: PACKED for the session's files."""
        self._taker = taker
        self.transport.write(what + first)

    def ended(self) -> None:
        """Takers call this from their `connection_lost`."""
        self.tunnel.forget(self)

    def data_received(self, data: bytes) -> None:
        answers = len(data) - len(data.lstrip(PING))
        self._pings -= answers
        if self._pings < 0 or (self._taker is None and answers < len(data)):
            self.transport.abort()  # it talks although nobody asked
            return
        if answers < len(data):
            self._answered(data[answers : answers + 1], data[answers + 1 :])

    def _answered(self, answer: bytes, rest: bytes) -> None:
        if answer != TAKEN:
            self.transport.abort()
            return
        taker, self._taker = self._taker, None
        self.transport.set_protocol(taker)
        taker.connection_made(self.transport)
        if rest:
            self.transport.get_protocol().data_received(rest)  # the taker may have put another in its place

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended()
        self.tunnel.unpark(self)
        if self._taker is not None:
            self._taker.connection_lost(exc or ConnectionError("the session's server was not reached"))

    def pause_writing(self) -> None:
        if self._taker is not None:
            self._taker.pause_writing()

    def resume_writing(self) -> None:
        if self._taker is not None:
            self._taker.resume_writing()


class Pipe(asyncio.Protocol):
    """One half of a splice: what arrives on `near` leaves on `far`, no faster than it can; an end is passed on."""

    __slots__ = ("_ended", "_lost", "far", "near")

    def __init__(self, near: Any, far: Any, lost: Callable[[], None]) -> None:
        self.near = near
        self.far = far
        self._lost = lost
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self.far.write(data)

    def pause_writing(self) -> None:
        if not self.far.is_closing():
            self.far.pause_reading()

    def resume_writing(self) -> None:
        if not self.far.is_closing():
            self.far.resume_reading()

    def eof_received(self) -> bool:
        if not self.far.is_closing() and self.far.can_write_eof():
            self.far.write_eof()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self.far.close()
        else:
            self.far.abort()
        self._lost()


def splice(one: Any, other: Any, lost: Callable[[], None], *, half: type[Pipe] = Pipe) -> None:
    """Join two transports. `lost` is called as each of them ends."""
    one.set_protocol(half(one, other, lost))
    other.set_protocol(half(other, one, lost))


class Forwarder(asyncio.Protocol):
    """A connection to a session's unix socket: spliced to one stream, as soon as there is one."""

    def __init__(self, tunnel: Tunnel, session_id: str) -> None:
        self._tunnel = tunnel
        self._session_id = session_id
        self._stream: Stream | None = None
        self._transport: Any = None
        self._early = b""

    def connection_made(self, transport: Any) -> None:
        if self._transport is not None:  # the stream is ours
            splice(self._transport, transport, self._ended)
            if self._transport.is_closing():  # and nobody is left who wants it
                transport.abort()
                return
            if self._early:
                transport.write(self._early)
            self._transport.resume_reading()
            return
        self._transport = transport
        self._tunnel.wait(self._session_id, self._take)

    def data_received(self, data: bytes) -> None:
        """Came before there was a stream. uvloop reads once more even where it was paused in `connection_made`."""
        self._early += data
        self._transport.pause_reading()

    def _take(self, stream: Stream | None) -> None:
        if stream is None or self._transport.is_closing():
            self._transport.close()
            if stream is not None:
                self._tunnel.park(stream)
            return
        self._stream = stream
        stream.take(self, b"")

    def _ended(self) -> None:
        if self._stream is not None:
            self._stream.ended()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self._transport.is_closing():
            self._transport.close()


class Tunnel:
    """All streams of all sessions. One per event loop; call it only from there.

    `on_tunnel(session_id, up)` is called when the first stream of a session parks, and when it has had none for
    `gone_seconds`.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        on_tunnel: Callable[[str, bool], None] | None = None,
        sockets: Path | None = None,
        ping_seconds: float = PING_SECONDS,
        gone_seconds: float = GONE_SECONDS,
    ) -> None:
        self.directory = directory
        self.loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]  # known at the first stream
        self.parked: dict[str, deque[Stream]] = {}
        self.streams: dict[str, set[Stream]] = {}
        self._on_tunnel = on_tunnel or (lambda _session_id, _up: None)
        self._sockets = sockets
        self._ping_seconds = ping_seconds
        self._gone_seconds = gone_seconds
        self._waiting: dict[str, deque[Callable[[Stream | None], None]]] = {}
        self._up: set[str] = set()
        self._servers: dict[str, asyncio.AbstractServer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._connections: set[Any] | None = None

    # ---- agents dial in -------------------------------------------------------------------------------------------

    def accept(self, transport: Any, request: wire.Request, rest: bytes, connections: set[Any]) -> None:
        """The front read this head on `/agent/tunnel`: upgrade and park the connection, or refuse it."""
        self.loop = self.loop or asyncio.get_running_loop()
        self._connections = connections
        connections.add(self)
        session_id = request.fields.get(b"x-anybinder-session", b"").decode("latin-1")
        session = self.directory.get(session_id)
        if session is not None and session.tunnelled_by(_bearer(request)):
            self._judge(transport, request, rest, session)
            return
        transport.pause_reading()
        self._spawn(self._accept_later(transport, request, rest, session_id))

    async def _accept_later(self, transport: Any, request: wire.Request, rest: bytes, session_id: str) -> None:
        answered = False
        try:
            session = await self.directory.load(session_id) if session_id else None
            answered = True
        finally:
            if not answered:
                self._refuse(transport, 503, "Sessions cannot be looked up right now.")
        if transport.is_closing():
            return
        transport.resume_reading()
        if session is None:
            self._refuse(transport, 404, "There is no such session.")
        else:
            self._judge(transport, request, rest, session)

    def _judge(self, transport: Any, request: wire.Request, rest: bytes, session: Session) -> None:
        if session.is_early(_bearer(request)):
            self._refuse(transport, 503, "Another machine of this session is ahead. Dial again.")
        elif session.state == "gone" or not session.tunnelled_by(_bearer(request)):
            log.debug("tunnel_refused", session=session.id)
            self._refuse(transport, 403, "This secret opens no stream of that session.")
        elif len(self.streams.get(session.id, ())) >= STREAM_LIMIT:
            self._refuse(transport, 503, "This session has too many streams.")
        elif request.method != b"GET" or request.has_body:
            self._refuse(transport, 400, "A tunnel is an upgraded GET.")
        elif request.upgrade == PROTOCOL:
            transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % PROTOCOL
            )
            self._welcome(Stream(self, session.id, transport), rest)
        elif request.upgrade == b"websocket" and (key := request.fields.get(b"sec-websocket-key")):
            transport.write(_websocket_welcome(key))
            self._welcome_framed(transport, session.id, rest)
        else:
            self._refuse(transport, 426, "Upgrade to anybinder-tunnel.")

    def _welcome(self, stream: Stream, rest: bytes) -> None:
        stream.transport.set_protocol(stream)
        self._remember(stream)
        self._tick_later()
        if rest:
            stream.data_received(rest)
        if stream.session_id not in self._up:
            self._up.add(stream.session_id)
            self._listen(stream.session_id)
            self._on_tunnel(stream.session_id, True)
        self.park(stream)

    def _remember(self, stream: Stream) -> None:
        if stream.session_id not in self.streams:
            self.streams[stream.session_id] = set()
            metrics.TUNNEL_SESSIONS.inc()
        self.streams[stream.session_id].add(stream)
        metrics.TUNNEL_STREAMS.inc()

    def _welcome_framed(self, transport: Any, session_id: str, rest: bytes) -> None:
        """The same bytes in WebSocket frames, for agents behind a middlebox that eats other upgrades."""
        frames = framing.Frames(transport)
        transport.set_protocol(frames)
        self._welcome(Stream(self, session_id, frames), b"")
        if rest:
            frames.data_received(rest)

    def _refuse(self, transport: Any, status: int, sentence: str) -> None:
        body = b'{"detail": "%b"}' % sentence.encode()
        head = b"%bContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        transport.write(head % (wire.STATUS_LINE[status], len(body)) + body)
        transport.close()

    # ---- somebody needs a stream ----------------------------------------------------------------------------------

    def park(self, stream: Stream) -> None:
        """This stream is free: for who has waited longest, else to be kept."""
        if stream.transport.is_closing():
            return
        waiting = self._waiting.get(stream.session_id)
        if waiting:
            waiting.popleft()(stream)
        else:
            self.parked.setdefault(stream.session_id, deque()).append(stream)

    def take(self, session_id: str) -> Stream | None:
        """A stream of this session, at once, or None. The newest, as it is the least likely to be dead."""
        parked = self.parked.get(session_id)
        while parked:
            stream = parked.pop()
            if not stream.transport.is_closing():
                return stream
        return None

    def wait(self, session_id: str, ready: Callable[[Stream | None], None]) -> None:
        """Call `ready` with a stream, now or as soon as one is parked; with None when the session has ended."""
        stream = self.take(session_id)
        if stream is not None:
            ready(stream)
        else:
            self._waiting.setdefault(session_id, deque()).append(ready)

    def give_up(self, session_id: str, ready: Callable[[Stream | None], None]) -> None:
        """Wait no more. Not waiting is fine."""
        waiting = self._waiting.get(session_id, deque())
        if ready in waiting:
            waiting.remove(ready)
        if not waiting:
            self._waiting.pop(session_id, None)

    def unpark(self, stream: Stream) -> None:
        parked = self.parked.get(stream.session_id)
        if parked and stream in parked:
            parked.remove(stream)

    def forget(self, stream: Stream) -> None:
        """This stream's connection is over."""
        streams = self.streams.get(stream.session_id)
        if streams is None or stream not in streams:
            return
        streams.discard(stream)
        metrics.TUNNEL_STREAMS.dec()
        if not streams:
            metrics.TUNNEL_SESSIONS.dec()
            del self.streams[stream.session_id]
            self.loop.call_later(self._gone_seconds, self._maybe_gone, stream.session_id)

    def _maybe_gone(self, session_id: str) -> None:
        if session_id in self.streams or session_id not in self._up:
            return
        self._up.discard(session_id)
        self.parked.pop(session_id, None)
        self._unlisten(session_id)
        self._on_tunnel(session_id, False)

    def drop(self, session_id: str) -> None:
        """The session has ended: cut every stream of it, parked and taken."""
        for stream in list(self.streams.get(session_id, ())):
            stream.transport.close()
        self.parked.pop(session_id, None)
        self._unlisten(session_id)
        for ready in self._waiting.pop(session_id, ()):
            ready(None)

    def renew(self, session_id: str) -> None:
        """Another machine brings this session's streams from now on: cut those there are, and wait for its first."""
        for stream in list(self.streams.get(session_id, ())):
            stream.transport.close()
        self.parked.pop(session_id, None)
        self._up.discard(session_id)
        self._unlisten(session_id)

    # ---- keeping them alive ---------------------------------------------------------------------------------------

    def _tick_later(self) -> None:
        if self._timer is None and self.streams:
            self._timer = self.loop.call_later(self._ping_seconds / 10, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self.loop.time()
        for parked in list(self.parked.values()):
            for stream in list(parked):
                if now - stream.pinged_at >= self._ping_seconds:
                    stream.ping(now)
        self._tick_later()

    # ---- one unix socket per session, for forwarders in other processes ----------------------------------------------

    def _listen(self, session_id: str) -> None:
        if self._sockets is not None:
            path = settings.private_folder(self._sockets) / session_id
            path.unlink(missing_ok=True)
            self._spawn(self._serve_socket(session_id, str(path)))

    async def _serve_socket(self, session_id: str, path: str) -> None:
        server = await self.loop.create_unix_server(lambda: Forwarder(self, session_id), path)
        if session_id in self._up and session_id not in self._servers:
            self._servers[session_id] = server
        else:
            server.close()

    def _unlisten(self, session_id: str) -> None:
        if server := self._servers.pop(session_id, None):
            server.close()
        if self._sockets is not None:
            (self._sockets / session_id).unlink(missing_ok=True)

    # ---- the end --------------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """The server stops: cut what is parked. Taken streams end with what they serve."""
        if self._connections is not None:
            self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for parked in self.parked.values():
            for stream in list(parked):
                stream.transport.close()
        for session_id in list(self._servers):
            self._unlisten(session_id)

    def close(self) -> None:
        """Cut every stream, also those that serve somebody."""
        self.shutdown()
        for streams in list(self.streams.values()):
            for stream in list(streams):
                stream.transport.abort()

    def _spawn(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._worked)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()):
            log.error("a tunnel's work failed", exc_info=fault)

    def __repr__(self) -> str:
        streams = sum(map(len, self.streams.values()))
        return f"<Tunnel of {len(self.streams)} sessions, {streams} streams, {time.monotonic():.0f}>"


def _bearer(request: wire.Request) -> str:
    kind, _, secret = request.fields.get(b"authorization", b"").partition(b" ")
    return secret.decode("latin-1") if kind.lower() == b"bearer" else ""


def _websocket_welcome(key: bytes) -> bytes:
    accept = base64.b64encode(hashlib.sha1(key + _WEBSOCKET_KEY, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n" % (accept, PROTOCOL)
    )
