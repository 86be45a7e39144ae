"""The front: one protocol owns the port and sends every request where its host and path belong.

Session hosts go to the gateway, agents' dial-outs to the tunnel, the broker's own hosts to the ASGI server, and any
other host is told so (421), which is what keeps pages of rebound names out. It decides anew for every request of a
connection, since a client keeps one connection for whatever shares an address.
"""

from __future__ import annotations

import asyncio
import math
import re
import urllib.parse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from broker import gateway as gateways
from broker import settings as configuration
from broker import tunnel as tunnels
from broker import wire
from broker.gateway import pages

HEAD_SECONDS = 10.0
SILENT_SECONDS = 60.0  # browsers open connections ahead and say nothing on them for a while
TUNNEL_PATH = b"/agent/tunnel"
_SWEEP_SECONDS = 0.5
_AHEAD_LIMIT = 512 * 1024  # two reads of the event loop
_HOSTS_REMEMBERED = 4096
_HOST = re.compile(
    rb"((?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)*[a-z0-9_](?:[a-z0-9_-]{0,62})|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?"
)
_PATH = re.compile(rb"(/s/([a-z2-7]{12}))/")
_LOCAL_NAMES = frozenset((b"localhost", b"127.0.0.1", b"[::1]"))


class Sites:
    """Which host and path belongs to whom."""

    def __init__(self, *, session_domain: str, public_url: str = "", hosts: Collection[str] = ()) -> None:
        self._session = re.compile(rb"([a-z2-7]{12})\.%b(?::[0-9]{1,5})?" % re.escape(session_domain.lower().encode()))
        self._scheme = b"https" if public_url else b"http"
        self._own = {host.lower().encode() for host in hosts}
        if public_url:
            self._own.add(urllib.parse.urlsplit(public_url).netloc.lower().encode())
        self._remembered: dict[bytes, gateways.Route] = {}

    def session(self, request: wire.Request) -> gateways.Route | None:
        """The session this request is for, by its host or, on 127.0.0.1, by its path."""
        host = request.fields[b"host"]
        route = self._remembered.get(host)
        if route is None:
            lower = host.lower()
            if found := self._session.fullmatch(lower):
                route = gateways.Route(
                    session_id=found[1].decode(), host=host, origin=self._scheme + b"://" + _bare(lower, self._scheme)
                )
                if len(self._remembered) >= _HOSTS_REMEMBERED:
                    self._remembered.clear()
                self._remembered[host] = route
            elif lower.partition(b":")[0] == b"127.0.0.1" and (inside := _PATH.match(request.target)):
                return gateways.Route(
                    session_id=inside[2].decode(), host=host, origin=b"http://" + lower, prefix=inside[1]
                )
        return route

    def own(self, host: bytes, port: int | None) -> bool:
        """True for a host name of the broker itself, when it listens on this port."""
        lower = host.lower()
        found = _HOST.fullmatch(lower)
        if found is None:
            return False
        if lower in self._own or found[1] in self._own:
            return True
        return found[1] in _LOCAL_NAMES and (port is None or int(found[2] or 80) == port)


def well_formed(host: bytes) -> bool:
    """True where this Host names a host, whichever it is."""
    return _HOST.fullmatch(host.lower()) is not None


def is_link(request: wire.Request) -> bool:
    """A launch link is shown under any name, as BinderHub does (web/deps.py has the reason); nothing else is."""
    return request.method in (b"GET", b"HEAD") and request.target.startswith(b"/v2/")


def _bare(host: bytes, scheme: bytes) -> bytes:
    """As browsers write it in an Origin: without the scheme's own port."""
    return host.removesuffix(b":443" if scheme == b"https" else b":80")


class Doors:
    """Front, gateway and tunnel of one process, put together. `protocol` is for `uvicorn.Config(http=…)`."""

    def __init__(
        self,
        settings: configuration.Settings,
        directory: Any,
        *,
        on_tunnel: Callable[[str, bool], None] | None = None,
        hosts: Collection[str] = (),
        trusted: Collection[str] = (),
        sockets: Path | None = None,
    ) -> None:
        home = settings.public_url or f"http://localhost:{settings.port}/"
        self.sites = Sites(session_domain=settings.session_domain, public_url=settings.public_url, hosts=hosts)
        self.tunnel = tunnels.Tunnel(directory=directory, on_tunnel=on_tunnel, sockets=sockets)
        self.gateway = gateways.Gateway(
            directory=directory,
            tunnel=self.tunnel,
            home=home,
            secure=bool(settings.public_url),
            trusted=trusted,
            allow_origin=settings.cors_allow_origin,
        )
        self.reading: set[Front] = set()
        self.loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]  # known at the first connection
        self._timer: asyncio.TimerHandle | None = None
        if hasattr(directory, "on_gone"):
            directory.on_gone.append(self._gone)
            directory.on_moved.append(self._moved)

    def protocol(
        self, config: Any = None, server_state: Any = None, app_state: Any = None, _loop: Any = None
    ) -> asyncio.Protocol:
        """One more connection, as uvicorn makes its protocols."""
        return Front(self, config, server_state, app_state)

    def close(self) -> None:
        """Cut whatever is still open, after the server has given it time to finish."""
        for connection in [*self.reading, *self.gateway.connections]:
            connection.transport.abort()
        self.gateway.shutdown()
        self.tunnel.close()

    def watch(self, front: Front) -> None:
        """Close this connection once its head is overdue."""
        self.reading.add(front)
        if self._timer is None:
            self.loop = asyncio.get_running_loop()
            self._timer = self.loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        now = self.loop.time()
        for front in [front for front in self.reading if front.due <= now]:
            front.overdue()
        self._timer = self.loop.call_later(_SWEEP_SECONDS, self._sweep) if self.reading else None

    def _gone(self, session_id: str) -> None:
        """A session ended, as any thread may find out."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.gateway.drop, session_id)

    def _moved(self, session_id: str) -> None:
        """Another machine leads a session now, as any thread may find out."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.tunnel.renew, session_id)


class Front(asyncio.Protocol):
    """One connection while its next request's head is read. Whoever serves the request is the transport's protocol
    until it is served, and gives the connection back with `take_back` where another may have to serve the next."""

    __slots__ = ("_app_state", "_asgi", "_buffer", "_config", "_doors", "_port", "_state", "due", "transport")

    def __init__(self, doors: Doors, config: Any, server_state: Any, app_state: Any) -> None:
        self.transport: Any = None
        self.due = math.inf
        self._doors = doors
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._asgi: Asgi | None = None
        self._buffer = b""
        self._port: int | None = None

    # ---- reading a head -------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        name = transport.get_extra_info("sockname")
        self._port = name[1] if isinstance(name, tuple) else None
        self.add(self)
        self._doors.watch(self)
        self.due = self._doors.loop.time() + SILENT_SECONDS

    def take_back(self, data: bytes) -> None:
        """Whoever served this connection got the start of a request that may be somebody else's."""
        self.transport.set_protocol(self)
        self.add(self)
        self._doors.watch(self)
        self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        else:
            self.due = self._doors.loop.time() + HEAD_SECONDS
        end = data.find(b"\r\n\r\n") + 4
        if end > wire.REQUEST_HEAD_LIMIT or (end < 4 and len(data) > wire.REQUEST_HEAD_LIMIT):
            self._refuse(431, "The request's head is too large.")
            return
        if end < 4:
            self._buffer = data
            if _hopeless(data):
                self._refuse(400, "This is not a well-formed HTTP request.")
            return
        self._buffer = b""
        try:
            request = self._doors.gateway.requests.read(data[:end])
        except wire.Refused as refused:
            self._refuse(refused.status, refused.sentence)
            return
        self._route(request, data, end)

    def _route(self, request: wire.Request, data: bytes, end: int) -> None:
        host = request.fields[b"host"]
        if not well_formed(host):
            self._refuse(400, "The host is not well-formed.")
        elif route := self._doors.sites.session(request):
            self._settled()
            connection = self._doors.gateway.serve(self, self.transport)
            self.add(connection)
            self.transport.set_protocol(connection)
            connection.begin(request, route, data[end:])
        elif not self._doors.sites.own(host, self._port) and not is_link(request):
            self._refuse(421, "This host is not served here. Open the address that the broker printed when it started.")
        elif request.target.partition(b"?")[0] == TUNNEL_PATH:
            self._settled()
            self._doors.tunnel.accept(self.transport, request, data[end:], self._connections)
        else:
            self._to_asgi(request, data[:end], data[end:])

    def _to_asgi(self, request: wire.Request, head: bytes, rest: bytes) -> None:
        if self._config is None:
            self._refuse(404, "Only sessions are served here.")
            return
        self._settled()
        if self._asgi is None:
            self._asgi = Asgi(self, self._config, self._state, self._app_state)
            self._asgi.connection_made(self.transport)
        self._connections.add(self._asgi)
        self.transport.set_protocol(self._asgi)
        if request.upgrade and (request.upgrade != b"websocket" or request.has_body):
            head = wire.without_upgrade(request)  # llhttp takes what follows such a head for no body
        self._asgi.next_request(request, head, rest)

    def _refuse(self, status: int, sentence: str) -> None:
        self._settled()
        gateways.say_and_close(self.transport, pages.plain(status, sentence))

    # ---- the connection -------------------------------------------------------------------------------------------

    @property
    def _connections(self) -> set[Any]:
        return self._state.connections if self._state is not None else set()

    def add(self, protocol: Any) -> None:
        """Have this told when the server stops."""
        self._connections.add(protocol)

    def discard(self, protocol: Any) -> None:
        self._connections.discard(protocol)

    def _settled(self) -> None:
        self.due = math.inf
        self._doors.reading.discard(self)
        self.discard(self)

    def overdue(self) -> None:
        if self._buffer:
            self._refuse(408, "The request's head took too long.")
        else:
            self._settled()
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._settled()
        if self._asgi is not None:
            self._asgi.connection_lost(exc)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        if self._asgi is not None:
            self._asgi.pause_writing()

    def resume_writing(self) -> None:
        if self._asgi is not None:
            self._asgi.resume_writing()

    def shutdown(self) -> None:
        self._settled()
        self.transport.close()


class Asgi(HttpToolsProtocol):
    """The ASGI server's connection. It is fed exactly one request at a time; what comes behind goes to the front."""

    def __init__(self, front: Front, config: Any, server_state: Any, app_state: Any) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state)
        self._front = front
        self._ahead = b""
        self._left = 0
        self._chunks: wire.Chunks | None = None

    def next_request(self, request: wire.Request, head: bytes, rest: bytes) -> None:
        self._left = request.length
        self._chunks = wire.Chunks() if request.chunked else None
        super().data_received(head)
        if rest:
            self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        if not self._left and self._chunks is None:
            self._sent_ahead(data)
            return
        body, rest = self._body(data)
        super().data_received(body)
        if rest:
            self._sent_ahead(rest)

    def _body(self, data: bytes) -> tuple[bytes, bytes]:
        """These bytes, parted where the request's body ends. A wrong chunk is left for the ASGI server to refuse."""
        if self._chunks is None:
            body, rest = data[: self._left], data[self._left :]
            self._left -= len(body)
            return body, rest
        try:
            self._chunks.feed(data)
        except ValueError:
            return b"not a chunk\r\n", b""
        if not self._chunks.done:
            return data, b""
        rest, self._chunks = self._chunks.rest, None
        return data[: len(data) - len(rest)], rest

    def _sent_ahead(self, data: bytes) -> None:
        self._ahead += data
        if self.cycle is None or self.cycle.response_complete:
            self._hand_on()
        elif len(self._ahead) > _AHEAD_LIMIT:
            self.transport.abort()
        else:
            self.transport.pause_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._ahead:
            self.loop.call_soon(self._hand_on)

    def _hand_on(self) -> None:
        """The next request may be another's to serve."""
        if self.transport.is_closing() or not self._ahead:
            return
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        self.transport.resume_reading()
        ahead, self._ahead = self._ahead, b""
        self._front.take_back(ahead)


def _hopeless(data: bytes) -> bool:
    """True where no further byte can make this a head: HTTP/0.9, a bare line feed, or no text at all."""
    line = data.find(b"\n")
    return (line >= 0 and (data[line - 1 : line] != b"\r" or line < 2)) or b"\0" in data
