"""A real web server for git: `git http-backend` behind a small CGI server, or plain files for the dumb protocol.

    commit = make_repo(root, "o/r.git", {"README.md": "hello"})
    with GitServer(root) as server:                  # smart; GitServer(root, smart=False) is dumb
        ... f"{server.url}/o/r.git" ...
    server.requests                                  # [("GET", "/o/r.git/info/refs?service=git-upload-pack"), ...]

Misbehaviour on demand: `server.deny = 503` answers everything so; `server.require = ("ada", "secret")` wants a
password; `server.private.add("o/r")` hides a repository from all but those of `server.rights["a-token"] = {"o/r"}`, who show
that token by Basic or Bearer (`server.shown` has what anybody showed, `server.cookie` is set for who shows something);
`server.redirects["/old"] = "http://…"` sends on what begins so; `server.gate.clear()` holds every answer
back until `.set()`; `protocol=0` is a server of before 2018, which hands out nothing but what its references name.
"""

from __future__ import annotations

import base64
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from tests.doubles.git_repos import QUIET, add_commit, add_tag, git, make_repo, set_ref

__all__ = ["GitServer", "add_commit", "add_tag", "git", "make_repo", "set_ref"]


class GitServer:
    """Serves every repository under `root`, read-only, on a free port of 127.0.0.1 (or `host`)."""

    def __init__(
        self,
        root: Path,
        *,
        smart: bool = True,
        protocol: int = 2,
        host: str = "127.0.0.1",
        handler: type[GitHandler] | None = None,
        certificate: Path | None = None,
    ) -> None:
        """`certificate`: a PEM file with key and certificate makes it https."""
        self.root, self.smart, self.protocol = Path(root), smart, protocol
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.deny = 0
        self.require: tuple[str, str] | None = None
        self.private: set[str] = set()
        self.rights: dict[str, set[str]] = {}
        self.shown: list[tuple[str, str, str]] = []
        self.cookie = ""
        self.redirects: dict[str, str] = {}
        self.gate = threading.Event()
        self.gate.set()
        self._http = ThreadingHTTPServer((host, 0), type("Handler", (handler or GitHandler,), {"double": self}))
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # git hangs up when it has seen enough
        self.port = int(self._http.server_address[1])
        self.url = f"http{'s' if certificate else ''}://{host}:{self.port}"
        if certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.gate.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def count(self, part: str = "") -> int:
        """How many requests so far had this in their path."""
        return sum(part in path for _, path in self.requests)


class GitHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: Any

    def do_GET(self) -> None:
        body = self.body()
        self.double.requests.append((self.command, self.path))
        self.double.headers.append(dict(self.headers))
        if any(self.sign()):
            self.double.shown.append((self.path, *self.sign()))
        self.double.gate.wait(30)
        if not self.turned_away():
            self.serve(body)

    do_POST = do_HEAD = do_GET  # noqa: N815 - the names are http.server's

    def turned_away(self) -> bool:
        if self.double.deny:
            self.answer(self.double.deny, b"no")
        elif not self.may_pass():
            self.answer(401, b"who are you?", {"WWW-Authenticate": 'Basic realm="git"'})
        elif target := self.redirected():
            self.answer(301, b"", {"Location": target})
        else:
            return False
        return True

    def may_pass(self) -> bool:
        hidden = self.hidden()
        return (not self.double.require or self.signed_in()) and (hidden is None or self.opens(hidden))

    def signed_in(self) -> bool:
        expected = base64.b64encode(":".join(self.double.require).encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def sign(self) -> tuple[str, str]:
        """User (empty for a bearer) and secret that were shown."""
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return "", value
        user, _, secret = base64.b64decode(value).decode().partition(":")
        return user, secret

    def hidden(self) -> str | None:
        """The private repository that git asks for, if it is one."""
        path = unquote(self.path)
        return next((name for name in self.double.private if path.startswith((f"/{name}/", f"/{name}.git/"))), None)

    def opens(self, repo: str) -> bool:
        """Whether what was shown is a right to it."""
        return repo in self.double.rights.get(self.sign()[1], ())

    def redirected(self) -> str | None:
        for begin, target in self.double.redirects.items():
            if self.path.startswith(begin):
                return target + self.path[len(begin) :]
        return None

    def serve(self, body: bytes) -> None:
        if self.double.smart:
            self.smart(body)
        else:
            self.dumb()

    def smart(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        environment = {
            **QUIET,
            "GIT_PROJECT_ROOT": str(self.double.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": unquote(parts.path),
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        if self.double.protocol == 2:
            environment["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n") if ": " in line)
        self.answer(int(fields.pop("Status", "200").split()[0]), content, fields)

    def dumb(self) -> None:
        root = self.double.root.resolve()
        file = (root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if file.is_relative_to(root) and file.is_file():
            self.answer(200, file.read_bytes(), {"Content-Type": "text/plain"})
        else:
            self.answer(404, b"not here")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self.chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if self.double.cookie and any(self.sign()):
            self.send_header("Set-Cookie", f"{self.double.cookie}; Path=/")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
