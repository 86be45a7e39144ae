"""A broker as an agent sees it: a real HTTP server that enrols, takes reports, and holds the tunnel's other end."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import queue
import secrets
import select
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ENROLMENT_TOKEN = "enrolment-token-" + "e" * 27
SESSION_SECRET = "session-secret-" + "s" * 28
SERVER_TOKEN = "server-token-" + "t" * 30


class BrokerDouble:
    """Listens on a port of its own until `close`. All that it was told is kept in plain attributes."""

    def __init__(
        self,
        spec: dict[str, Any] | None = None,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.spec = {"build_seconds": 60, "busy_hours": 24, **(spec or {})}
        self.tls = tls
        self.key: dict[str, str] | None = None
        """What opens the repository."""
        self.order = secrets.token_hex(
            8
        )  # of its own: an agent ends all that carries its order, also of another test run
        self.deadline = datetime.now(UTC) + timedelta(hours=1)
        self.silence_seconds = 60.0
        self.command = "go"
        self.events: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.enrolments: list[str] = []
        self.agent: str | None = None
        self.parked: queue.Queue[Leg] = queue.Queue()
        self.answers: dict[str, list[int]] = {}
        """Statuses to answer with instead, by path, first come first; -1 hangs up after having obeyed."""
        self.raw_upgrades = True
        """Off, it is as if a middlebox had eaten the upgrade: only WebSocket handshakes are answered."""
        self.honest = True
        self.signing = Ed25519PrivateKey.generate()
        """The broker's own key; `broker_key` is what a machine is told of it."""
        self.files: dict[str, bytes] = {}
        """What machines fetch, by its digest."""
        self.dead_man: dict[str, Any] | None = None
        """Handed over in answers to reports until the agent says that it has it."""
        self.host = host
        self.open: set[socket.socket] = set()
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def broker_key(self) -> str:
        return self.signing.public_key().public_bytes_raw().hex()

    def close(self) -> None:
        """As a killed broker: the port is closed and every connection is cut."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in list(self.open):
            cut(connection)

    def take(self, seconds: float = 10) -> Leg:
        """The oldest parked stream that still lives, taken: 0x01 sent and answered. Raises Refused on 0x02."""
        leg = self.parked.get(timeout=seconds)
        try:
            leg.send(b"\x01")
            answer = leg.receive(1)
            while answer == b"\x00":  # a ping's answer
                answer = leg.receive(1)
        except OSError:
            return self.take(seconds)
        if answer == b"\x02":
            raise Refused
        if answer != b"\x01":
            return self.take(seconds)
        return leg

    def messages(self, phase: str | None = None) -> list[str]:
        return [event["message"] for event in self.events if phase in (None, event["phase"])]

    def status(self) -> dict[str, Any]:
        return self.reports[-1]["status"] if self.reports else {"server": "none"}

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open.add(connection)
        try:
            if self.tls:
                self.open.discard(connection)
                connection = self.tls.wrap_socket(connection, server_side=True)
                self.open.add(connection)
            while self._request(connection):
                pass
        except (OSError, ValueError):
            cut(connection)

    def _request(self, connection: socket.socket) -> bool:
        """Answer one request; False when the connection is no longer for requests."""
        head = read_head(connection)
        if not head:
            cut(connection)
            return False
        path, headers = parse(head)
        if path == "/agent/tunnel":
            return self._tunnel(connection, headers)
        if path.startswith("/agent/files/"):
            return self._file(connection, path.rpartition("/")[2])
        body = json.loads(receive(connection, int(headers["content-length"])))
        bearer = headers["authorization"].removeprefix("Bearer ")
        instead = self.answers.get(path)
        status = instead.pop(0) if instead else None
        answer: tuple[int, dict[str, Any]] = (status, {}) if status and status > 0 else self._obey(path, bearer, body)
        if status == -1:
            cut(connection)
            return False
        content = json.dumps(answer[1]).encode()
        connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (answer[0], len(content)) + content)
        return True

    def _file(self, connection: socket.socket, digest: str) -> bool:
        content = self.files.get(digest)
        status = 404 if content is None else 200
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content or b'')}\r\n\r\n"
        connection.sendall(head.encode() + (content or b""))
        return True

    def _obey(self, path: str, bearer: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/agent/enrol":
            return self._enrol(bearer, body)
        if bearer != self.agent:
            return 403, {}
        known = len(self.events)
        for number, event in enumerate(body["events"], start=body["first"]):
            if number > known:
                self.events.append(event)
        self.reports.append(body)
        more = {"dead_man": self.dead_man} if self.dead_man and body.get("dead_man") is False else {}
        return 200, {"command": self.command, "deadline": self.deadline.isoformat(), "ack": len(self.events), **more}

    def _enrol(self, bearer: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.enrolments.append(body["agent"])
        if bearer != ENROLMENT_TOKEN or body["order"] != self.order or self.agent not in (None, body["agent"]):
            return 403, {}
        self.agent = body["agent"]
        key = hashlib.sha256(ENROLMENT_TOKEN.encode()).digest() if self.honest else b"a guess"
        return 200, {
            "launch": "launch234567",
            "session": {"id": "launch234567", "secret": SESSION_SECRET, "server_token": SERVER_TOKEN},
            "spec": self.spec,
            "heartbeat_seconds": 0.3,
            "silence_seconds": self.silence_seconds,
            "deadline": self.deadline.isoformat(),
            "proof": hmac.new(key, body["nonce"].encode(), "sha256").hexdigest(),
            "signature": self.signing.sign(f"{self.order} {body['nonce']}".encode()).hex(),
            **({"key": self.key} if self.key else {}),
        }

    def _tunnel(self, connection: socket.socket, headers: dict[str, str]) -> bool:
        instead = self.answers.get("/agent/tunnel")
        allowed = headers["authorization"] == f"Bearer {SESSION_SECRET}" and headers["x-anybinder-session"]
        status = instead.pop(0) if instead else 101 if allowed else 403
        framed = headers["upgrade"] == "websocket"
        if not framed and not self.raw_upgrades:
            status = 400
        if status != 101:
            connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
            cut(connection)
            return False
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade"]
        if framed:
            key = headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            assert headers["sec-websocket-protocol"] == "anybinder-tunnel"
            lines.append(b"Upgrade: websocket\r\nSec-WebSocket-Protocol: anybinder-tunnel")
            lines.append(b"Sec-WebSocket-Accept: " + base64.b64encode(hashlib.sha1(key).digest()))
        else:
            lines.append(b"Upgrade: anybinder-tunnel")
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        self.parked.put(FramedLeg(connection) if framed else Leg(connection))
        return False


class Refused(Exception):
    """The agent answered 0x02: its server is not reachable."""


class Leg:
    """The broker's end of one stream. Reads raise OSError when it is cut or nothing comes within ten seconds."""

    framed = False

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(10)

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def receive(self, most: int = 65536) -> bytes:
        return self.connection.recv(most)

    def receive_all(self) -> bytes:
        """Everything until the other end says that it is the end."""
        return b"".join(iter(self.receive, b""))

    def receive_exactly(self, count: int) -> bytes:
        return b"".join(self._pieces(count))

    def _pieces(self, count: int) -> Iterator[bytes]:
        while count > 0:
            piece = self.receive(min(count, 1 << 20))
            if not piece:
                raise ConnectionError("cut short")
            count -= len(piece)
            yield piece

    def end(self) -> None:
        """Say that nothing more will be sent."""
        self.connection.shutdown(socket.SHUT_WR)

    def alive(self) -> bool:
        """Whether the other end still holds it, as far as is known now."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return not readable or bool(self.connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        cut(self.connection)


class FramedLeg(Leg):
    """The same in WebSocket frames, the server's end."""

    framed = True

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._payload = b""
        self._closed = False
        self.told_the_end = False
        """A close frame came, not only an end of the connection."""

    def send(self, data: bytes, code: int = 2) -> None:
        size = len(data)
        head = bytes((0x80 | code, size)) if size < 126 else bytes((0x80 | code, 127)) + struct.pack(">Q", size)
        self.connection.sendall(head + data)

    def receive(self, most: int = 65536) -> bytes:
        while not self._payload and not self._closed:
            self._frame()
        piece, self._payload = self._payload[:most], self._payload[most:]
        return piece

    def end(self) -> None:
        self.send(b"", code=8)

    def _frame(self) -> None:
        start = self.connection.recv(1)
        if not start:
            self._closed = True
            return
        size = receive(self.connection, 1)[0]
        assert size & 0x80, "a client's frames are masked"
        size &= 0x7F
        if size > 125:
            size = int.from_bytes(receive(self.connection, 2 if size == 126 else 8), "big")
        mask, content = receive(self.connection, 4), receive(self.connection, size)
        payload = (
            bytes(byte ^ mask[at % 4] for at, byte in enumerate(content)) if size < 100_000 else unmask(content, mask)
        )
        if start[0] & 0x0F == 8:
            self._closed = self.told_the_end = True
        elif start[0] & 0x0F in (0, 2):
            self._payload += payload


def unmask(content: bytes, mask: bytes) -> bytes:
    pattern = (mask * (len(content) // 4 + 1))[: len(content)]
    return (int.from_bytes(content, "big") ^ int.from_bytes(pattern, "big")).to_bytes(len(content), "big")


class ProxyDouble:
    """A forward proxy that knows CONNECT alone; `asked` are the targets it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.logins: list[str | None] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self.open:
            cut(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        head = read_head(connection)
        target, headers = parse(head)
        self.asked.append(target)
        self.logins.append(headers.get("proxy-authorization"))
        host, _, port = target.rpartition(":")
        try:
            beyond = socket.create_connection((host, int(port)))
        except OSError:  # the broker is gone
            cut(connection)
            return
        self.open += [connection, beyond]
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=pump, args=(beyond, connection), daemon=True).start()
        pump(connection, beyond)


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    cut(source)
    cut(sink)


def read_head(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return b""
        head += byte
    return head


def parse(head: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    return first.split()[1], {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError("cut short")
        data += piece
    return data


def cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
