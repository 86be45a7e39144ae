"""The way out for what is fetched for strangers: a proxy on this computer's loopback, which leads to the internet only.

Files are fetched beside the containers, not in them, so no fence holds git: a submodule, a redirect or a name that changes
its answer would lead it into the operator's network. Here an address is looked at and then connected to, each time.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import socketserver
import threading
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import urlsplit

from broker.environments import downloading, programs

HEAD = 65_536  # bytes of a request's head
PIECE = 1 << 16
SILENCE = 600.0  # seconds
NEVER = ("proxy-connection", "proxy-authorization", "connection", "keep-alive")
WAYS = {
    "http_proxy": ("http_proxy", "all_proxy", "ALL_PROXY"),  # git's library does not read HTTP_PROXY
    "https_proxy": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}
INNER = (ipaddress.ip_network("168.63.129.16/32"), ipaddress.ip_network("2001::/32"))  # Azure's inner services; Teredo


class Refused(Exception):
    """That is not on the public internet."""


@contextlib.contextmanager
def only(inner: Collection[str] | None) -> Iterator[None]:
    """What is fetched meanwhile comes from the public internet, or from these `host:port` that the operator chose; with
    None from anywhere. Where this computer itself has to ask a proxy, that decides."""
    ours = [name for name, others in WAYS.items() if not any(map(programs.variable, others))]
    if inner is None or not ours:
        yield
        return
    with Proxy(inner) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        programs.proxies.update(dict.fromkeys(ours, f"http://127.0.0.1:{proxy.server_address[1]}"))
        if len(ours) == len(WAYS):
            programs.proxies.update({"no_proxy": "", "NO_PROXY": ""})
        try:
            yield
        finally:
            programs.proxies.clear()
            proxy.shutdown()


class Proxy(socketserver.ThreadingTCPServer):
    """One connection is one destination."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, inner: Collection[str]) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.inner = frozenset(each.lower() for each in inner)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has gone."""


class Visit(socketserver.BaseRequestHandler):
    """One connection of git's, or of a download's."""

    server: Proxy

    def handle(self) -> None:
        head, rest = self.head()
        try:
            method, target, _ = head[0].split(" ")
            tunnel = method == "CONNECT"
            parts = urlsplit(f"//{target}" if tunnel else target)
            if not tunnel and parts.scheme != "http":
                raise Refused
            there = reach(parts.hostname or "", parts.port or 80, self.server.inner)
        except (Refused, ValueError):
            self.say("403 Forbidden")
            return
        except OSError:
            self.say("502 Bad Gateway")
            return
        with there:
            if tunnel:
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                there.sendall(rest)
            else:
                path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
                kept = [line for line in head[1:] if line.partition(":")[0].lower() not in NEVER]
                lines = [f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
                there.sendall("\r\n".join(lines).encode("latin-1") + rest)
            join(self.request, there)

    def head(self) -> tuple[list[str], bytes]:
        """Its lines, and what came behind it."""
        self.request.settimeout(SILENCE)
        data = b""
        while b"\r\n\r\n" not in data and len(data) < HEAD and (piece := self.request.recv(PIECE)):
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        return head.decode("latin-1").split("\r\n"), rest

    def say(self, status: str) -> None:
        self.request.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())


def reach(host: str, port: int, inner: Collection[str]) -> socket.socket:
    """Connected to this host, by an address that was looked at. Raises Refused, OSError."""
    rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if f"{host}:{port}".lower() not in inner and not all(public(str(row[4][0])) for row in rows):
        raise Refused
    fault: OSError = OSError()
    for row in sorted(rows, key=lambda row: row[0] != socket.AF_INET):
        try:
            return socket.create_connection(row[4][:2], timeout=downloading.STALL)
        except OSError as trouble:
            fault = trouble
    raise fault


def public(text: str) -> bool:
    """Whether this address is on the internet, whatever it is wrapped in."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if any(address in network for network in INNER if network.version == address.version):
        return False
    bare = downloading.plain(address)
    if bare != address:
        return public(str(bare))
    odd = address.is_multicast or address.is_reserved or getattr(address, "is_site_local", False)
    return bool(address.is_global and not odd)


def join(one: Any, other: Any) -> None:
    """Pass everything on, both ways, to the end."""
    back = threading.Thread(target=pass_on, args=(other, one), daemon=True)
    back.start()
    pass_on(one, other)
    back.join()


def pass_on(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        source.settimeout(SILENCE)
        while piece := source.recv(PIECE):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
