"""The server behind every way: as little work as can be, so that what is measured is the way to it.

`python -m tests.bench.backend SOCKET` also listens on a port of 127.0.0.1 and prints it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop

_HEADERS = b"Server: bench\r\nContent-Type: application/octet-stream\r\nX-Content-Type-Options: nosniff\r\n"
ANSWERS = {
    path: b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (_HEADERS, size) + b"x" * size
    for path, size in ((b"/small", 200), (b"/large", 1 << 20))
}
_WELCOME = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


class Backend(asyncio.Protocol):
    """Answers each head at once; after an upgrade sends back what comes."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head, data = data[:end], data[end + 4 :]
            if b"pgrade: websocket" in head:
                self._transport.write(_WELCOME)
                self._transport.set_protocol(Echo(self._transport))
                return
            self._transport.write(ANSWERS[head[4 : head.index(b" ", 4)]])
        self._buffer = data


class Echo(asyncio.Protocol):
    def __init__(self, transport: Any) -> None:
        self.data_received = transport.write  # type: ignore[method-assign]


async def serve(path: str) -> None:
    loop = asyncio.get_running_loop()
    kept = await loop.create_unix_server(Backend, path)
    server = await loop.create_server(Backend, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await kept.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
