"""Connections to the very address that was checked, and for so long at most, however slowly the other side talks."""

from __future__ import annotations

import time
from ssl import SSLContext
from typing import Any

import httpcore
import httpx

from broker.repos import safety

SECONDS = 20.0
"""From connecting to the last byte. httpx itself only limits each silence, and a host may trickle for days."""


class Pinned(httpx.HTTPTransport):
    """httpx's own way of sending, except for how it connects. One connection, one question."""

    def __init__(self, safety: safety.Safety) -> None:
        super().__init__(trust_env=False)
        self._pool.close()
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(), max_keepalive_connections=0, network_backend=Checked(safety)
        )


class Checked(httpcore.NetworkBackend):
    """Looks at the host, then connects to the address it saw, so that the name cannot mean another one meanwhile."""

    def __init__(self, safety: safety.Safety) -> None:
        self._safety, self._inner = safety, httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *_: Any, **__: Any) -> Hasty:
        address = self._safety.address(host, port)
        return Hasty(self._inner.connect_tcp(address, port, timeout), time.monotonic() + SECONDS)


class Hasty(httpcore.NetworkStream):
    """Ends with a timeout when its time is over."""

    def __init__(self, inner: httpcore.NetworkStream, until: float) -> None:
        self._inner, self._until = inner, until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Hasty:
        left = self._left(timeout, httpcore.ConnectTimeout)
        return Hasty(self._inner.start_tls(ssl_context, server_hostname, left), self._until)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def _left(self, timeout: float | None, over: type[httpcore.TimeoutException]) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise over
        return min(left, timeout or left)
