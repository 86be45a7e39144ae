"""Ending a connection so that its last answer is read."""

from __future__ import annotations

import asyncio
from typing import Any

_LINGER_SECONDS = 2.0


class Drain(asyncio.Protocol):
    """Throws away what still comes, so that closing does not cut off the answer before it was read."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._left = 1 << 20
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._timer.cancel()


def say_and_close(transport: Any, answer: bytes) -> None:
    """The last answer on a connection, whatever the client is still sending."""
    if transport.is_closing():
        return
    transport.write(answer)
    transport.set_protocol(Drain(transport))
    transport.resume_reading()
    if transport.can_write_eof():
        transport.write_eof()
    else:
        transport.close()
