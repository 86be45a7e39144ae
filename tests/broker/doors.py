"""Front, gateway and tunnel in a thread of their own, sessions with the real agent's tunnel, and raw clients."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import json
import secrets
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from broker import agent, front, sessions, settings
from tests.waiting import until

ALPHA, BETA = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


class MemoryDirectory:
    """The directory's interface, without a table."""

    def __init__(self) -> None:
        self.known: dict[str, sessions.Session] = {}
        self.on_gone: list[Callable[[str], None]] = []
        self.on_moved: list[Callable[[str], None]] = []
        self.fault: Exception | None = None

    def get(self, session_id: str) -> sessions.Session | None:
        return self.known.get(session_id)

    def fresh(self, session_id: str) -> bool:
        return True

    async def load(self, session_id: str) -> sessions.Session | None:
        await asyncio.sleep(0)
        if self.fault:
            raise self.fault
        return self.known.get(session_id)

    def change(self, session_id: str, **changes: Any) -> None:
        self.known[session_id] = replace(self.known[session_id], **changes)
        if changes.get("state") == "gone":
            for call in self.on_gone:
                call(session_id)


class Backend(asyncio.Protocol):
    """One connection to a session's server: keeps what it saw, answers what the test scripted or an echo."""

    def __init__(self, session: FakeSession) -> None:
        self.session = session
        self.seen = b""
        self.transport: Any = None
        self.spoken: Callable[[bytes], None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.session.connections.append(self)

    def data_received(self, data: bytes) -> None:
        self.session.raw += data
        if self.spoken:
            self.spoken(data)
            return
        self.seen += data
        while (request := self.whole()) is not None:
            self.session.requests.append(request)
            self.session.answer(self, request)

    def whole(self) -> Seen | None:
        head, end, rest = self.seen.partition(b"\r\n\r\n")
        if not end:
            return None
        seen = Seen.read(head)
        if (path := self.session.early.get(seen.path)) and (self, seen.head) not in self.session.early_done:
            self.session.early_done.append((self, seen.head))
            self.transport.write(path)
        if seen.header("transfer-encoding") == "chunked":
            found = unchunk(rest)
            if found is None:
                return None
            seen.body, self.seen = found
        else:
            length = int(seen.header("content-length") or 0)
            if len(rest) < length:
                return None
            seen.body, self.seen = rest[:length], rest[length:]
        return seen

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.lost.append(self)


def unchunk(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while b"\r\n" in data:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        if len(data) < size + 2:
            return None
        body, data = body + data[:size], data[size + 2 :]
        if size == 0:
            return body, data
    return None


@dataclass
class Seen:
    """One request as the session's server got it."""

    head: bytes
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    @classmethod
    def read(cls, head: bytes) -> Seen:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        return cls(head, method, target, [tuple(line.split(": ", 1)) for line in lines])  # type: ignore[misc]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None


@dataclass
class FakeSession:
    """A session: its secrets, its server's record, and the agent's tunnel that joins it to the front."""

    id: str
    token: str
    secret: str
    path: str
    requests: list[Seen] = field(default_factory=list)
    connections: list[Backend] = field(default_factory=list)
    lost: list[Backend] = field(default_factory=list)
    replies: dict[str, bytes | Callable[[Backend, Seen], None]] = field(default_factory=dict)
    early: dict[str, bytes] = field(default_factory=dict)
    early_done: list[Any] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    server: Any = None
    tunnel: Any = None

    def answer(self, connection: Backend, seen: Seen) -> None:
        reply = self.replies.get(seen.path)
        if callable(reply):
            reply(connection, seen)
        elif reply is not None:
            connection.transport.write(reply)
        elif (seen.header("upgrade") or "") == "websocket":
            connection.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: x\r\n\r\n"
            )
            connection.spoken = lambda data: connection.transport.write(b"<" + data + b">")
        else:
            said = {"session": self.id, "method": seen.method, "target": seen.target, "headers": seen.headers}
            body = json.dumps({**said, "length": len(seen.body), "body": seen.body[:100].decode("latin-1")}).encode()
            body = b"" if seen.method == "HEAD" else body
            connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


class House:
    """Everything together. Methods may be called from the test's thread."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.directory = MemoryDirectory()
        self.sessions: dict[str, FakeSession] = {}
        self.tunnelled: list[tuple[str, bool]] = []
        self.loop = uvloop.new_event_loop()
        self.options = options
        self.app_saw: list[tuple[str, str, bytes]] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.agents = asyncio.new_event_loop()  # agents run on the standard library's loop
        self.agents_thread = threading.Thread(target=self.agents.run_forever, daemon=True)
        self.ready = threading.Event()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())
        self.loop.close()

    async def _serve(self) -> None:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        self.port: int = listening.getsockname()[1]
        chosen = settings.Settings(port=self.port, **self.options.pop("settings", {}))
        self.doors = front.Doors(
            chosen, self.directory, on_tunnel=lambda *told: self.tunnelled.append(told), **self.options
        )
        config = uvicorn.Config(
            self.app,
            http=self.doors.protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            timeout_graceful_shutdown=2,
        )  # type: ignore[arg-type]
        self.uvicorn = uvicorn.Server(config)
        self.uvicorn.capture_signals = lambda: contextmanager(lambda: iter([None]))()  # type: ignore[method-assign,assignment]
        serving = asyncio.ensure_future(self.uvicorn.serve(sockets=[listening]))
        while not self.uvicorn.started:
            await asyncio.sleep(0.001)
        self.ready.set()
        await serving
        self.doors.close()
        for session in self.sessions.values():
            await self._end(session)
        await asyncio.sleep(0.05)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while scope["path"] != "/never-reads":
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.app_saw.append((scope["method"], scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"app"})

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run this on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def at(self, function: Callable[[], Any]) -> Any:
        """Call this on the loop."""

        async def called() -> Any:
            return function()

        return self.call(called())

    def __enter__(self) -> House:
        self.agents_thread.start()
        self.thread.start()
        assert self.ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(10)
        asyncio.run_coroutine_threadsafe(_cancel_all(), self.agents).result(10)
        self.agents.call_soon_threadsafe(self.agents.stop)
        self.agents_thread.join(10)
        self.agents.close()
        assert not self.thread.is_alive()

    # sessions

    def session(
        self, session_id: str = ALPHA, *, tunnel: bool = True, framed: bool = False, **changes: Any
    ) -> FakeSession:
        """A session that is ready, with a server and, unless told otherwise, a tunnel; in WebSocket frames if `framed`."""
        made = FakeSession(
            id=session_id,
            token=secrets.token_urlsafe(),
            secret=secrets.token_urlsafe(),
            path=str(self.folder / f"{session_id[:4]}.s"),
        )
        told = {
            "id": session_id,
            "state": "ready",
            "kind": "jupyter",
            "token_hash": hashlib.sha256(made.token.encode()).digest(),
            "secret_hash": hashlib.sha256(made.secret.encode()).digest(),
            "server_token": f"server-token-of-{session_id}",
            "cookie_key": secrets.token_bytes(32),
            "deadline": dt.datetime.now(dt.UTC) + dt.timedelta(hours=1),
        }
        self.directory.known[session_id] = sessions.Session(**{**told, **changes})
        self.sessions[session_id] = made
        self.call(self._begin(made))
        if tunnel:
            self.dial(made, framed=framed)
            until(lambda: len(self.doors.tunnel.parked.get(session_id, ())) >= 4, what="parked streams")
        return made

    async def _begin(self, session: FakeSession) -> None:
        session.server = await self.loop.create_unix_server(lambda: Backend(session), session.path)

    def dial(self, session: FakeSession, *, framed: bool = False) -> None:
        """Start the agent's side of this session's tunnel."""

        async def run() -> None:
            tunnel = agent.Tunnel(f"http://127.0.0.1:{self.port}", session.id, session.secret, session.path)
            tunnel.framed = framed
            await tunnel.run()

        session.tunnel = asyncio.run_coroutine_threadsafe(run(), self.agents)

    async def _end(self, session: FakeSession) -> None:
        session.server.close()
        for connection in session.connections:
            connection.transport.abort()

    def cookie(self, session_id: str = ALPHA) -> str:
        """The name=value that a browser would have for this session."""
        from broker.gateway import auth

        made = auth.issue_cookie(self.directory.known[session_id], secure=self.doors.gateway.secure)
        return made.decode().partition(";")[0]

    def host(self, session_id: str = ALPHA) -> str:
        return f"{session_id}.localhost:{self.port}"

    # clients

    def client(self) -> Client:
        return Client(self.port)

    def get(self, target: str = "/", *, session: str = ALPHA, cookie: bool = True, **headers: str) -> Answer:
        """One request on a connection of its own."""
        return self.ask("GET", target, session=session, cookie=cookie, **headers)

    def ask(
        self,
        method: str,
        target: str = "/",
        body: bytes = b"",
        *,
        session: str = ALPHA,
        cookie: bool = True,
        **headers: str,
    ) -> Answer:
        told = {"Host": self.host(session), **{key.replace("_", "-"): value for key, value in headers.items()}}
        if cookie:
            told["Cookie"] = self.cookie(session)
        if body:
            told["Content-Length"] = str(len(body))
        with self.client() as client:
            client.send(request(method, target, told) + body)
            return client.answer(method)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.01)


def request(method: str, target: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    head: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def sent(self, name: str) -> str | None:
        """A header of the request as the session's server saw it, from its echo."""
        found = [value for key, value in self.json["headers"] if key.lower() == name.lower()]
        return ", ".join(found) if found else None


class Client:
    """A raw socket that reads answers strictly."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def more(self) -> bytes:
        data = self.socket.recv(1 << 16)
        self.buffer += data
        return data

    def read(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self.more():
                raise ConnectionError(f"closed after {self.buffer!r:.300}")
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            if not self.more():
                raise ConnectionError(f"closed after {self.buffer!r:.300}")
        return self.read(self.buffer.index(mark) + len(mark))

    def head(self) -> Answer:
        head = self.until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        return Answer(int(first.split()[1]), [tuple(line.split(": ", 1)) for line in lines], b"", head)  # type: ignore[misc]

    def answer(self, method: str = "GET") -> Answer:
        answer = self.head()
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        if answer.header("transfer-encoding") == "chunked":
            answer.body = b"".join(self.chunks())
        elif (length := answer.header("content-length")) is not None:
            answer.body = self.read(int(length))
        else:
            answer.body = self.rest()
        return answer

    def chunk(self) -> bytes:
        size = int(self.until(b"\r\n"), 16)
        data = self.read(size)
        assert self.read(2) == b"\r\n"
        return data

    def chunks(self) -> Iterator[bytes]:
        while data := self.chunk():
            yield data

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        try:
            while self.more():
                pass
        except ConnectionResetError:
            pass
        found, self.buffer = self.buffer, b""
        return found


def websocket_key() -> str:
    return base64.b64encode(secrets.token_bytes(16)).decode()
