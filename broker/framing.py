"""A byte stream in WebSocket frames (RFC 6455), for agents behind a middlebox that lets no other upgrade through."""

from __future__ import annotations

import asyncio
from typing import Any

_FRAME_LIMIT = 1 << 20
_BINARY, _CLOSE, _PING, _PONG = 0x2, 0x8, 0x9, 0xA


def frame(payload: bytes, opcode: int = _BINARY) -> bytes:
    """One final, unmasked frame: what a server sends."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def unmask(payload: bytes, mask: bytes) -> bytes:
    """XOR in one step of big integers, which is how Python does it fast."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


class Frames(asyncio.Protocol):
    """Between a real transport, whose protocol it is, and a protocol that sees it as a transport of plain bytes."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._protocol: Any = None
        self._pending = b""

    # as the protocol of the real transport

    def data_received(self, data: bytes) -> None:
        data, at = self._pending + data, 0
        while not self._transport.is_closing() and (found := self._whole_frame(data, at)):
            start, end = found
            self._frame_received(data[at] & 0x0F, unmask(data[start:end], data[start - 4 : start]))
            at = end
        self._pending = data[at:]

    def _whole_frame(self, data: bytes, at: int) -> tuple[int, int] | None:
        """Where the payload of the frame at `at` starts and ends, once it is all there. A wrong frame ends the stream."""
        if len(data) < at + 2:
            return None
        if not data[at + 1] & 0x80 or data[at] & 0x70:
            self._transport.abort()  # clients mask, and nobody negotiated an extension
            return None
        size = data[at + 1] & 0x7F
        start = at + 6
        if size > 125:
            extra = 2 if size == 126 else 8
            size = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
            start += extra
        if len(data) < start:
            return None
        if size > _FRAME_LIMIT:
            self._transport.abort()
            return None
        return (start, start + size) if len(data) >= start + size else None

    def _frame_received(self, opcode: int, payload: bytes) -> None:
        if opcode == _CLOSE:
            self._protocol.eof_received()
            self._transport.close()
        elif opcode == _PING:
            self._transport.write(frame(payload[:125], _PONG))
        elif opcode != _PONG and payload:
            self._protocol.data_received(payload)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    # as a transport of plain bytes

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def write(self, data: bytes) -> None:
        self._transport.write(frame(bytes(data)))

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(frame(b"\x03\xe8", _CLOSE))
            self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
