"""A browser's connection to sessions: reads requests, judges them, sends them up a stream, passes the answer back."""

from __future__ import annotations

import asyncio
import datetime
import math
import time
from typing import TYPE_CHECKING, Any

from broker import tunnel, wire
from broker.gateway import auth, closing, cors, heads, pages, upstream

if TYPE_CHECKING:
    from broker.gateway import Gateway

HEAD_SECONDS = 10.0  # a head that takes longer is a slow loris
IDLE_SECONDS = 75.0  # nginx's own value for kept-alive connections
BODY_SECONDS = 120.0  # without one byte of an announced body
STREAM_SECONDS = 15.0  # an agent redials within 5 s
_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_TRIES = 3


class Connection(asyncio.Protocol):
    """One connection, one request at a time; requests sent ahead wait in `_buffer`, unread beyond one."""

    __slots__ = (
        "_body_left", "_buffer", "_chunked_answer", "_chunks", "_closing", "_end", "_expects", "_head", "_held",
        "_keep_alive", "_minor", "_pass", "_pass_key", "_peer", "_reader", "_request", "_route", "_session", "_shown",
        "_stalled", "_started", "_tries", "busy", "due", "front", "gateway", "method", "over", "transport",
        "upstream", "waiting",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, front: Any, transport: Any) -> None:
        self.gateway = gateway
        self.transport = transport
        self.over = False
        self.upstream: upstream.Upstream | None = None
        self.due = math.inf
        self.busy = False  # a request is under way
        self.waiting = False  # for a stream
        self.method = b""
        self.front = front
        self._peer = gateway.peer(transport)
        self._route: heads.Route = None  # type: ignore[assignment]  # comes with the first request
        self._session: Any = None
        self._end: heads.Tail | None = None
        self._pass: auth.Pass | None = None
        self._pass_key = b""
        self._buffer = b""
        self._body_left = 0
        self._chunks: wire.Chunks | None = None
        self._closing = False
        self._stalled = False
        self._held: list[bytes] = []
        self._shown = b""

    # ---- requests come in -----------------------------------------------------------------------------------------

    def begin(self, request: wire.Request, route: heads.Route, rest: bytes) -> None:
        """Serve this request, which the front read; `rest` came behind its head."""
        self._route = route
        self._session = self._end = self._pass = None
        self._serve(request, rest)

    def data_received(self, data: bytes) -> None:
        if self._body_left or self._chunks is not None:
            self._body(data)
        elif self.busy:
            self._buffer += data
            self.transport.pause_reading()
        else:
            self._read(self._buffer + data if self._buffer else data)

    def _read(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if not self._buffer:
                self.due = self.gateway.loop.time() + HEAD_SECONDS
            self._buffer = data
            if len(data) > wire.REQUEST_HEAD_LIMIT:
                self._refuse(pages.plain(431, "The request's head is too large."))
            return
        self._buffer = b""
        if end > wire.REQUEST_HEAD_LIMIT:
            self._refuse(pages.plain(431, "The request's head is too large."))
            return
        try:
            request = self.gateway.requests.read(data[:end])
        except wire.Refused as refused:
            self._refuse(pages.plain(refused.status, refused.sentence))
            return
        if self._route.covers(request):
            self._serve(request, data[end:])
        else:
            self._over()
            self.front.take_back(data)

    def _serve(self, request: wire.Request, rest: bytes) -> None:
        self.busy = True
        self.due = math.inf
        self._request = request
        self.method, self._minor = request.method, request.minor
        self._keep_alive = request.keep_alive and request.minor == 1
        self._body_left = request.length
        self._chunks = wire.Chunks() if request.chunked else None
        self._expects = self._started = self._chunked_answer = False
        self._tries = 0
        self._head = b""
        self._reader = cors.reader(request, self._route, self.gateway.allow_origin)
        if self._reader and request.method == b"OPTIONS":
            self._preflight(rest)
            return
        session = self.gateway.session(self._route.session_id)
        if session is None or session.state != "ready":
            self._buffer = rest
            self.transport.pause_reading()
            self.gateway.look_up(self)
            return
        self._admit(session)
        if rest and not self.over:
            self.data_received(rest)

    async def look_up(self) -> None:
        """The directory has to ask the table about this session first."""
        answered = False
        try:
            session = await self.gateway.directory.load(self._route.session_id)
            answered = True
        finally:
            if not answered and not self.over:  # the table is out of reach; whoever runs the task logs why
                self._turn_away(pages.LOST)
        if self.over:
            return
        rest, self._buffer = self._buffer, b""
        self.transport.resume_reading()
        self._admit(session)
        if rest and not self.over:
            self.data_received(rest)

    # ---- may it pass? ---------------------------------------------------------------------------------------------

    def _admit(self, session: Any) -> None:
        request, fields = self._request, self._request.fields
        if session is not self._session:
            self._session, self._end, self._pass = session, None, None
        cookie = fields.get(b"cookie", b"")
        remembered = self._pass
        if (
            remembered is not None
            and cookie == self._pass_key
            and remembered.until > time.time()
            and b"authorization" not in fields
            and b"token=" not in request.target
            and auth.from_own_page(request, self._route.origin)
        ):
            self._forward(remembered, request.target)
            return
        self._judge(session, cookie)

    def _judge(self, session: Any, cookie: bytes) -> None:
        if session is None:
            self._turn_away(pages.FORBIDDEN)
            return
        request, route = self._request, self._route
        target = request.target[len(route.prefix) :]
        verdict = auth.judge(request, session, origin=route.origin, target=target, cookies=not route.prefix)
        if isinstance(verdict, auth.Turned):
            self._turn_away(pages.FORBIDDEN, verdict.sentence if verdict.known else "")
        elif session.state == "gone" or session.deadline <= datetime.datetime.now(datetime.UTC):
            self._turn_away(pages.GONE)
        elif verdict.enter:
            self._enter(verdict, session)
        elif session.state != "ready":
            self._turn_away(pages.STARTING)
        elif reason := heads.unfit(request, route):
            self._refuse(pages.plain(*reason))
        else:
            if not verdict.by_token and not verdict.authorization:
                self._pass, self._pass_key = verdict, cookie
            self._forward(verdict, verdict.target)

    def _enter(self, verdict: auth.Pass, session: Any) -> None:
        location = self._route.origin + verdict.target  # absolute, so that a path like //elsewhere stays a path
        if self._request.has_body:
            self._keep_alive = False
        self.gateway.count(303)
        self.transport.write(pages.enter(location, auth.issue_cookie(session, secure=self.gateway.secure)))
        self.response_done()

    def _preflight(self, rest: bytes) -> None:
        self.gateway.count(204)
        self.transport.write(cors.preflight(self._reader))
        self.response_done()
        if rest and not self.over:
            self.data_received(rest)

    def _turn_away(self, said: tuple[int, str, str, str], sentence: str = "") -> None:
        self.gateway.count(said[0])
        self._refuse(
            pages.answer(
                said,
                as_html=auth.wants_html(self._request),
                home=self.gateway.home,
                sentence=sentence,
                without_body=self.method == b"HEAD",
                headers=cors.headers(self._reader),
            )
        )

    def _refuse(self, answer: bytes) -> None:
        self._over()
        closing.say_and_close(self.transport, answer)

    # ---- onward ---------------------------------------------------------------------------------------------------

    def _forward(self, passing: auth.Pass, target: bytes) -> None:
        request, gateway = self._request, self.gateway
        if self._end is None or self._peer.trusted:
            self._end = heads.tail(request, self._session, self._route, self._peer)
        if target is not passing.target:
            passing = auth.Pass(target=target, cookie=passing.cookie)
        self._head = heads.request_head(request, passing, self._route.host, self._end)
        self._shown = passing.shown
        self._expects = b"expect" in request.fields
        if self.method not in _SAFE or self._session.kind == "app":
            gateway.touch(self._route.session_id)
        self._connect()

    def _connect(self) -> None:
        gateway, safe = self.gateway, self._replayable
        found = None if self._tries else gateway.idle_stream(self._route.session_id, fresh=not safe)
        self._tries += 1
        if found is not None:
            self._attach(found)
            found.send(self, self._head)
            return
        stream = gateway.tunnel.take(self._route.session_id)
        if stream is not None:
            self.use(stream)
            return
        self.waiting = True
        self.due = gateway.loop.time() + STREAM_SECONDS
        gateway.tunnel.wait(self._route.session_id, self.use)

    @property
    def _replayable(self) -> bool:
        return self.method in _SAFE and not self._request.has_body and not self._request.websocket

    def use(self, stream: tunnel.Stream | None) -> None:
        """The tunnel has a stream for us. A request that must not run twice waits until the server is reached."""
        self.waiting = False
        self.due = math.inf
        if stream is None:
            self._turn_away(pages.LOST)
            return
        fresh = upstream.Upstream(self.gateway, stream, self)
        self._attach(fresh)
        fresh.sent = self._replayable
        stream.take(fresh, self._head if fresh.sent else b"")

    def _attach(self, found: upstream.Upstream) -> None:
        self.upstream = found
        if self._stalled:
            found.transport.pause_reading()

    def reached(self, found: upstream.Upstream) -> None:
        """The stream is connected to the session's server."""
        if not found.sent:
            found.send(self, self._head)
        if self._held:
            held, self._held = self._held, []
            found.transport.writelines(held)
        if self._body_left or self._chunks is not None:
            self.transport.resume_reading()

    # ---- a request's body -----------------------------------------------------------------------------------------

    def _body(self, data: bytes) -> None:
        rest = b""
        if self._chunks is not None:
            try:
                pieces = self._chunks.feed(data)
            except ValueError:
                self._abandon(pages.plain(400, "The request's body is not framed as it says."))
                return
            parts = wire.in_chunks(pieces)
            if self._chunks.done:
                parts.append(b"0\r\n\r\n")
                rest, self._chunks = self._chunks.rest, None
        else:
            if len(data) > self._body_left:
                data, rest = data[: self._body_left], data[self._body_left :]
            self._body_left -= len(data)
            parts = [data]
        self._pass_on(parts)
        if rest:
            self.data_received(rest)

    def _pass_on(self, parts: list[bytes]) -> None:
        self.gateway.received += sum(map(len, parts))
        self.due = self.gateway.loop.time() + BODY_SECONDS if self._body_left or self._chunks is not None else math.inf
        self.gateway.touch(self._route.session_id)
        found = self.upstream
        if found is None or not found.sent:
            self._held += parts
            self.transport.pause_reading()
            if self.waiting:
                self.due = self.gateway.loop.time() + STREAM_SECONDS
        elif not found.transport.is_closing():
            found.transport.writelines(parts)

    @property
    def sent_whole(self) -> bool:
        """True where all of the request has arrived and gone up."""
        return not self._body_left and self._chunks is None

    # ---- the answer comes back ------------------------------------------------------------------------------------

    def go_on(self) -> None:
        if self._expects:
            self._expects = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def answer(self, response: wire.Response, body: bytes, *, chunked: bool) -> None:
        """The head, and what of the body came with it, in one write. `chunked`: the body's length is not known."""
        self._started = True
        if chunked and self._minor == 0:
            chunked = False
        self._chunked_answer = chunked
        if not self.sent_whole or self.gateway.stopping:
            self._keep_alive = False
        if self._reader:
            response.plain = wire.without(response.plain, cors.REPLACED)
        parts = heads.response_head(
            response, self._route, chunked=chunked, keep_alive=self._keep_alive, shown=self._shown
        )
        parts[-1:] = [cors.headers(self._reader), parts[-1], body]
        self.gateway.sent += len(body)
        self.transport.write(b"".join(parts))
        self.gateway.count(response.status)

    def send_piece(self, piece: bytes) -> None:
        self.send_pieces([piece], last=False)

    def send_pieces(self, pieces: list[bytes], *, last: bool) -> None:
        parts = wire.in_chunks(pieces) if self._chunked_answer else pieces
        if last and self._chunked_answer:
            parts.append(b"0\r\n\r\n")
            self._chunked_answer = False
        if parts:
            self.gateway.sent += sum(map(len, pieces))
            self.transport.writelines(parts)

    def response_done(self) -> None:
        """The answer went out whole: on to the next request, or the end."""
        self.upstream = None
        if self._chunked_answer:
            self.transport.write(b"0\r\n\r\n")
            self._chunked_answer = False
        if not self.sent_whole:
            self._over()
            closing.say_and_close(self.transport, b"")
        elif not self._keep_alive or self._closing or (self._started and self._request.websocket):
            self._over()
            self.transport.close()
        else:
            self.busy = False
            self._held = []
            self.due = self.gateway.loop.time() + IDLE_SECONDS
            if self._buffer:
                self.transport.resume_reading()
                self.gateway.loop.call_soon(self._next)

    def _next(self) -> None:
        if self._buffer and not self.busy and not self.transport.is_closing():
            data, self._buffer = self._buffer, b""
            self._read(data)

    def upstream_lost(self, found: upstream.Upstream) -> None:
        """The stream died. Before any answer, a request that cannot have done anything is sent up another one."""
        self.upstream = None
        if self._started:
            self._over()
            self.transport.close()  # short of what was announced, so that the browser knows
        elif (self._replayable or not found.sent) and self._tries < _TRIES:
            self._connect()
        else:
            self._turn_away(pages.UNREACHABLE)

    def broken(self, found: upstream.Upstream) -> None:
        """The session sent something that is no HTTP."""
        found.leave()
        self.upstream = None
        if self._started:
            self._over()
            self.transport.abort()
        else:
            self._turn_away(pages.UNREACHABLE)

    def switched(self, found: upstream.Upstream, response: wire.Response, rest: bytes) -> None:
        """The session agreed to speak WebSocket: from here on bytes are passed both ways unread."""
        asked = self._request.websocket
        if not asked or response.fields.get(b"upgrade", b"").lower() != b"websocket":
            self.broken(found)
            return
        parts = heads.response_head(response, self._route, chunked=False, keep_alive=True)
        parts[-1:] = [b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", rest]
        self.transport.write(b"".join(parts))
        self.gateway.count(101)
        self.gateway.join(self, found)

    # ---- the connection itself ------------------------------------------------------------------------------------

    def take_ahead(self) -> bytes:
        """What the browser sent behind its upgrade request."""
        ahead, self._buffer = self._buffer, b""
        return ahead

    @property
    def route(self) -> heads.Route:
        return self._route

    def hold(self, full: bool) -> None:
        """The session takes the request's body more slowly than it comes."""
        if self.transport.is_closing():
            return
        if full:
            self.transport.pause_reading()
        elif not self._buffer:
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        self._stalled = True
        if self.upstream is not None and not self.upstream.transport.is_closing():
            self.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        self._stalled = False
        if self.upstream is not None and not self.upstream.transport.is_closing():
            self.upstream.transport.resume_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._over()

    def _abandon(self, answer: bytes) -> None:
        if self._started:
            self._over()
            self.transport.abort()
        else:
            self._refuse(answer)

    def _over(self) -> None:
        """Nothing of this connection is wanted any more, at either side."""
        self.over = True
        self.due = math.inf
        self.gateway.connections.discard(self)
        self.front.discard(self)
        if self.waiting:
            self.waiting = False
            self.gateway.tunnel.give_up(self._route.session_id, self.use)
        found, self.upstream = self.upstream, None
        if found is not None:
            found.leave()

    def overdue(self) -> None:
        """What this connection waited for did not come in time."""
        if self.waiting:
            self._turn_away(pages.LOST)
        elif self.busy:
            self._abandon(pages.plain(408, "The rest of the request did not come."))
        elif self._buffer:
            self._refuse(pages.plain(408, "The request's head took too long."))
        else:
            self._over()
            self.transport.close()

    def shutdown(self) -> None:
        """The server stops: finish the answer that is under way, then close."""
        self._closing = True
        if not self.busy:
            self._over()
            self.transport.close()
