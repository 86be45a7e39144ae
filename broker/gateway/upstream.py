"""A stream of a session that speaks HTTP: sends one request at a time, reads its response, is kept for the next.

The session runs a stranger's code. Its responses are read as strictly as requests; a byte more than a response has
ends the stream, so nothing a session sends can turn up as the answer to another request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from broker import tunnel, wire

if TYPE_CHECKING:
    from broker.gateway import Gateway
    from broker.gateway.connection import Connection

KEEP_SECONDS = 60.0  # how long an unused stream is kept
FRESH_SECONDS = 1.5  # servers close idle connections after 2 s (gunicorn) or more, so a POST takes no older one
_INTERIM_LIMIT = 16


class Upstream(asyncio.Protocol):
    """One taken stream. `client` is whose request it serves now, None while it is idle."""

    __slots__ = (
        "_buffer", "_chunks", "_interim", "_left", "_reusable", "_until_end", "client", "gateway", "sent", "stream",
        "transport", "used_at",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, stream: tunnel.Stream, client: Connection) -> None:
        self.gateway = gateway
        self.stream = stream
        self.transport: Any = stream.transport
        self.client: Connection | None = client
        self.used_at = 0.0
        self.sent = False
        self._rest_for_next()

    def _rest_for_next(self) -> None:
        self._buffer = b""
        self._left = 0
        self._chunks: wire.Chunks | None = None
        self._until_end = False
        self._reusable = False
        self._interim = 0

    def send(self, client: Connection, head: bytes) -> None:
        """Serve this request. Only when idle or just reached."""
        self.client = client
        self.sent = True
        self.transport.write(head)

    def leave(self) -> None:
        """The client has no more use for it, whatever is under way."""
        self.client = None
        self.transport.abort()

    # ---- the stream -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.client is None:
            transport.abort()
        else:
            self.client.reached(self)

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is None:
            self.transport.abort()
        elif self._left:
            self._counted(client, data)
        elif self._chunks is not None:
            self._chunked(client, self._chunks, data)
        elif self._until_end:
            client.send_piece(data)
        else:
            self._head(client, data)

    def eof_received(self) -> bool:
        if self.client is not None and self._until_end:
            self._finish(extra=True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.stream.ended()
        client, self.client = self.client, None
        if client is None:
            self.gateway.forget(self)
        else:
            client.upstream_lost(self)

    def pause_writing(self) -> None:
        if self.client is not None:
            self.client.hold(True)

    def resume_writing(self) -> None:
        if self.client is not None:
            self.client.hold(False)

    # ---- one response ---------------------------------------------------------------------------------------------

    def _counted(self, client: Connection, data: bytes) -> None:
        size, left = len(data), self._left
        if size < left:
            self._left = left - size
            self.gateway.sent += size
            client.transport.write(data)
            return
        self._left = 0
        self.gateway.sent += left
        client.transport.write(data if size == left else data[:left])
        self._finish(extra=size > left)

    def _chunked(self, client: Connection, chunks: wire.Chunks, data: bytes) -> None:
        try:
            pieces = chunks.feed(data)
        except ValueError:
            client.broken(self)
            return
        client.send_pieces(pieces, last=chunks.done)
        if chunks.done:
            self._finish(extra=bool(chunks.rest))

    def _head(self, client: Connection, data: bytes) -> None:
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        while data:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._buffer = data
                if len(data) > wire.RESPONSE_HEAD_LIMIT:
                    client.broken(self)
                return
            try:
                response = self.gateway.responses.read(data[:end])
            except wire.BadResponse:
                client.broken(self)
                return
            data = data[end:]
            if response.status >= 200 or response.status == 101:
                self._answer(client, response, data)
                return
            self._between(client, response)

    def _between(self, client: Connection, response: wire.Response) -> None:
        """100 is passed on to who waits for it; other news before the response are dropped, which is allowed."""
        self._interim += 1
        if self._interim > _INTERIM_LIMIT:
            client.broken(self)
        elif response.status == 100:
            client.go_on()

    def _answer(self, client: Connection, response: wire.Response, body: bytes) -> None:
        if response.status == 101:
            client.switched(self, response, body)
            return
        self._reusable = response.keep_alive
        if client.method == b"HEAD" or response.bodiless:
            client.answer(response, b"", chunked=False)
            self._finish(extra=bool(body))
        elif response.length is not None:
            self._answer_counted(client, response, body)
        elif response.chunked:
            self._chunks = wire.Chunks()
            client.answer(response, b"", chunked=True)
            if body:
                self._chunked(client, self._chunks, body)
        else:
            self._until_end = True
            client.answer(response, b"", chunked=True)
            if body:
                client.send_piece(body)

    def _answer_counted(self, client: Connection, response: wire.Response, body: bytes) -> None:
        length = response.length or 0
        size = len(body)
        if size < length:
            self._left = length - size
            client.answer(response, body, chunked=False)
            return
        client.answer(response, body if size == length else body[:length], chunked=False)
        self._finish(extra=size > length)

    def _finish(self, *, extra: bool) -> None:
        """The response is whole. `extra` bytes behind it, or a request still being sent, make the stream unusable."""
        client, self.client = self.client, None
        reusable = self._reusable and not extra and client is not None and client.sent_whole
        self._rest_for_next()
        if reusable and not self.transport.is_closing():
            self.gateway.keep(self)
        else:
            self.transport.close()
        if client is not None:
            client.response_done()
