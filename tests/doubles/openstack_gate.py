"""What stands between us and a real OpenStack: passes every request on as it is, notes it, and lets go wrong what it is told to.

    with OpenStackGate() as gate, bed.running(gate.in_front_of) as cloud:     # the catalogue publishes the gate's addresses
        gate.fault("lost_response", "compute", "POST", "/servers")            # the next one of them
        gate.calls                                                            # each request, with what was answered

lost_request      never arrives; the connection is closed        lost_response   takes effect; the answer is lost
duplicate         arrives twice, at once; one answer comes back  silence         takes effect never, and is not answered
unavailable busy  503, 429                                       slow            arrives after `seconds`
bad_token         arrives with a token that the cloud has revoked
hidden            servers are left out of the cloud's list

Whether a request is valid is for the services themselves to say: Nova, Keystone and Glance check each against their published
JSON schemas (Nova's with `additionalProperties` false), Neutron against its attribute maps, and refuse it with 400.
`malformed` is what they so refused.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SECONDS = 90
HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-authorization"}
VERSION = re.compile(r"^/v\d+(\.\d+)?(?=/|$)")
UNFIT = re.compile(r"could not be found|can ?not find requested|is too small|is too big|does not fit", re.IGNORECASE)
BUSY = {"unavailable": 503, "busy": 429}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, and the status of its answer; 0 where nobody answered."""

    service: str
    method: str
    path: str
    """Behind the version."""
    query: str = ""
    body: bytes = field(default=b"", repr=False)
    status: int = 0
    answer: bytes = field(default=b"", repr=False)
    fault: str = ""


@dataclass(kw_only=True)
class Fault:
    """What meets the next `times` requests that fit."""

    name: str
    service: str
    method: str
    path: re.Pattern[str]
    times: int = 1
    seconds: float = 0

    def fits(self, service: str, method: str, path: str) -> bool:
        wanted = (self.service, self.method) == (service, method)
        return self.times > 0 and wanted and self.path.fullmatch(path) is not None


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)


class OpenStackGate:
    """Its addresses are those of the cloud, as long as it is entered."""

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        """`host`: the address of this computer that it has; with `tls` it is reached by https."""
        self.host, self.tls = host, tls
        self.calls: list[Call] = []
        self.revoked: Callable[[], str] = lambda: "revoked"
        """Makes a token that the cloud takes no more."""
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._free = threading.Event()
        self._servers: list[ThreadingHTTPServer] = []

    def __enter__(self) -> OpenStackGate:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # What tests ask of it.

    def in_front_of(self, ports: Mapping[str, int]) -> dict[str, str]:
        """The root address of each service, given the port where it answers."""
        return {service: self._open(service, port) for service, port in ports.items()}

    def fault(self, name: str, service: str, method: str, path: str, *, times: int = 1, seconds: float = 0) -> None:
        """`path` is a regular expression for all of the path behind the version."""
        made = Fault(name=name, service=service, method=method, path=re.compile(path), times=times, seconds=seconds)
        with self._lock:
            self._faults.append(made)

    def clear(self) -> None:
        """Nothing goes wrong any more; who waits in silence is let go without an answer."""
        with self._lock:
            self._faults.clear()
            free, self._free = self._free, threading.Event()
        free.set()

    def malformed(self) -> list[str]:
        """What the services refused because it was not written as they publish it; empty is well."""
        return [f"{call.method} {call.service} {call.path}: {call.answer.decode(errors='replace')[:300]}"
                for call in self.calls if call.status == 400 and is_malformed(call.answer)]  # fmt: skip

    # Inside.

    def _open(self, service: str, port: int) -> str:
        server = Server((self.host, 0), handler(self, service, port))
        if self.tls:
            server.socket = self.tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"{'https' if self.tls else 'http'}://{self.host}:{server.server_port}"

    def _meet(self, service: str, method: str, path: str) -> Fault | None:
        with self._lock:
            found = next((fault for fault in self._faults if fault.fits(service, method, path)), None)
            if found is not None:
                found.times -= 1
            return found

    def answered(
        self, service: str, port: int, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Answer | None:
        """What comes back; None: the connection is closed."""
        parts = urlsplit(target)
        path = VERSION.sub("", parts.path) or "/"
        fault = self._meet(service, method, path)
        name = fault.name if fault else ""
        answer = self._through(fault, lambda told: forwarded(port, method, target, told, body), dict(headers))
        self.calls.append(
            Call(service=service, method=method, path=path, query=parts.query, body=body, fault=name,
                 status=answer.status if answer else 0, answer=answer.body if answer else b"")
        )  # fmt: skip
        return None if name == "lost_response" else answer

    def _through(
        self, fault: Fault | None, forward: Callable[[dict[str, str]], Answer], headers: dict[str, str]
    ) -> Answer | None:
        name = fault.name if fault else ""
        if name in BUSY:
            return Answer(
                status=BUSY[name], headers=(("Content-Type", "text/plain"), ("Retry-After", "1")), body=b"Not now."
            )
        if name == "lost_request":
            return None
        if name == "silence":
            self._free.wait(SECONDS)
            return None
        if name == "bad_token":
            headers = {
                **{key: value for key, value in headers.items() if key.lower() != "x-auth-token"},
                "X-Auth-Token": self.revoked(),
            }
        if name == "slow" and fault:
            self._free.wait(fault.seconds)
        if name == "duplicate":
            return twice(lambda: forward(headers))
        answer = forward(headers)
        return without_servers(answer) if name == "hidden" else answer


def twice(forward: Callable[[], Answer]) -> Answer:
    """The first answer that comes."""
    found: list[Answer] = []
    threads = [threading.Thread(target=lambda: found.append(forward()), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    return found[0]


def forwarded(port: int, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """One request to the service itself. `Host` stays the caller's: services link to themselves by it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if name.lower() not in HOP | {"content-length"}:
                connection.putheader(name, value)
        if body or method in ("POST", "PUT", "PATCH"):
            connection.putheader("Content-Length", str(len(body)))
        connection.putheader("Connection", "close")
        connection.endheaders(body)
        response = connection.getresponse()
        kept = tuple(
            (name, value) for name, value in response.getheaders() if name.lower() not in HOP | {"content-length"}
        )
        return Answer(status=response.status, headers=kept, body=response.read())
    finally:
        connection.close()


def without_servers(answer: Answer) -> Answer:
    told: dict[str, Any] = json.loads(answer.body)
    return Answer(status=answer.status, headers=answer.headers, body=json.dumps({**told, "servers": []}).encode())


def is_malformed(answer: bytes) -> bool:
    """Everything that a service answers with 400, but that something is not there or does not fit."""
    return UNFIT.search(answer.decode(errors="replace")) is None


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked was killed meanwhile; all else is told as usual."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def handler(gate: OpenStackGate, service: str, port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = SECONDS

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                answer = gate.answered(service, port, self.command, self.path, dict(self.headers.items()), body)
            except (OSError, http.client.HTTPException):
                answer = Answer(status=502, body=b"The service behind the gate does not answer.")
            if answer is None:
                self.close_connection = True
                return
            self.reply(answer)

        def reply(self, answer: Answer) -> None:
            try:
                self.send_response_only(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                if answer.status != 204:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)
            except OSError:  # whoever asked has given up
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = pass_on  # noqa: N815 - so http.server names them

        def log_message(self, format: str, *args: Any) -> None:
            """Addresses hold ids; what is noted is in `calls`."""

    return Handler
