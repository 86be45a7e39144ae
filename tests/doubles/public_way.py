"""The way to a broker from outside, on this computer: a name that only a proxy knows, a certificate, and TLS ended before it.

with PublicWay("hub.uni.example", tmp_path) as way:
    ANYBINDER_PUBLIC_URL=way.url, **way.environment     # for the broker: how it reaches its own address
    way.port = …                                        # where the broker answers by plain HTTP
    browser.new_context(proxy={"server": way.proxy}, ignore_https_errors=True)

With `sessions` it also leads to every name under that domain, with `others` to other servers of this computer; machines find
the same names behind an address that `open` answers at.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path

import trustme

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


class PublicWay:
    """Listens on two loopback ports: a proxy that leads to the one name, and what ends TLS behind it."""

    def __init__(self, name: str, folder: Path, *, sessions: str = "", others: Mapping[str, int] | None = None) -> None:
        self.name, self.url, self.port = name, f"https://{name}", 0
        self.sessions, self.others = sessions, dict(others or {})
        """Where other names answer by plain HTTP, by their port."""
        authority = self._authority = trustme.CA()
        self.certificates = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.certificates)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        wild = [f"*.{sessions}"] if sessions else []
        authority.issue_cert(*self.names, *wild).configure_cert(self._context)
        self._context.sni_callback = _remember
        self._opened: dict[str, asyncio.Server] = {}
        self._loop = asyncio.new_event_loop()
        self._ready, self._ended = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)
        self.asked: list[str] = []
        self.proxy = ""

    @property
    def names(self) -> list[str]:
        """All it knows by heart."""
        return [self.name, *self.others]

    @property
    def environment(self) -> dict[str, str]:
        """For a program that is to find the way."""
        return {"HTTPS_PROXY": self.proxy, "SSL_CERT_FILE": str(self.certificates)}

    def __enter__(self) -> PublicWay:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        self._loop.close()

    def identity(self, address: str) -> ssl.SSLContext:
        """For another server, which those who trust `certificates` believe to be at this address."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(address).configure_cert(context)
        return context

    def open(self, address: str) -> int:
        """Answer at this address of this computer too, as behind the proxy; the port."""

        async def opened() -> int:
            server = await asyncio.start_server(self._pass_on, address, 0, ssl=self._context)
            self._opened[address] = server
            return int(server.sockets[0].getsockname()[1])

        return asyncio.run_coroutine_threadsafe(opened(), self._loop).result(10)

    def shut(self, address: str) -> None:
        """Nobody is at this address any more."""
        if server := self._opened.pop(address, None):
            self._loop.call_soon_threadsafe(server.close)

    def _knows(self, name: str) -> bool:
        return name in self.names or bool(self.sessions and name.endswith(f".{self.sessions}"))

    async def _run(self) -> None:
        inner = await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._context)
        self._inner = inner.sockets[0].getsockname()[1]
        outer = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        self.proxy = f"http://127.0.0.1:{outer.sockets[0].getsockname()[1]}"
        self._ready.set()
        async with inner, outer:
            await self._ended.wait()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _lead(self, reader: Reader, writer: Writer) -> None:
        """A proxy that knows few names."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            asked = head.decode("latin-1").split(" ")[1]
            self.asked.append(asked)
            if not asked.endswith(":443") or not self._knows(asked.removesuffix(":443")):
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                writer.close()
                return
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            await _join(reader, writer, self._inner)

    async def _pass_on(self, reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(OSError):
            name = getattr(writer.get_extra_info("ssl_object"), "asked_for", None)
            await _join(reader, writer, self.others.get(name or "", self.port))


def _remember(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    connection.asked_for = name  # type: ignore[attr-defined]


async def _join(reader: Reader, writer: Writer, port: int) -> None:
    """Both ways, until one of them ends."""
    there, back = await asyncio.open_connection("127.0.0.1", port)
    try:
        ways = [asyncio.ensure_future(_copy(reader, back)), asyncio.ensure_future(_copy(there, writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
    finally:
        back.close()
        writer.close()


async def _copy(source: Reader, target: Writer) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while more := await source.read(65536):
            target.write(more)
            await target.drain()
