"""A BinderHub with a hub behind it, as far as a peer of ours is asked: `/versions`, `/health`, `/api/repoproviders`,
`/build` with its stream, the sessions below `/user/…`, and what JupyterHub's own token may do.

    with BinderHubDouble() as hub:
        Settings(peers=[{"name": "peer", "url": hub.url}])
        hub.lines = [*hub.lines[:-1], "fail"]        # what the stream of a launch is made of, line by line

Each of `lines` is an event (a mapping), bytes that are sent as they are, or a word: `ready` makes a session and says so,
`fail` is BinderHub's failure of a build, `hold` waits until `go_on` is set, `cut` breaks the connection off,
`hang` says nothing more until the other side leaves, `ever` sends keep-alives without end.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.doubles.little_http import LittleHttp

KEEPALIVE = b":keepalive\n\n"
EVER_SECONDS = 0.02
PROVIDERS = ("gh", "gist", "gl", "git", "zenodo", "figshare", "hydroshare", "dataverse", "ckan")
BUILT = (
    {"phase": "waiting", "message": "Waiting for build to start...\n"},
    {"phase": "fetching", "message": "Picked Git content provider.\n"},
    {"phase": "building", "message": "Step 1/2 : FROM \x1b[1mbuildpack-deps\x1b[0m\n"},
    {"phase": "built", "message": "Built image, launching...\n", "imageName": "registry/peer:abc"},
    {"phase": "launching", "message": "Launching server...\n"},
    "ready",
)


class BinderHubDouble(LittleHttp):
    """Listens until it is left."""

    def __init__(self, handler: type[Handler] | None = None) -> None:
        self.lines: list[Any] = list(BUILT)
        self.versions: Any = {"builder_info": {"build_image": "repo2docker:1"}, "binderhub": "1.0.0"}
        self.total, self.quota, self.well = 3, 100, True
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        """By path, instead of what a hub answers: status, headers, body."""
        self.asked: list[tuple[str, str, str]] = []
        """Every request: its verb, its path with the query, its Authorization."""
        self.sessions: dict[str, str] = {}
        """The servers that run, by their path, each with its token."""
        self.tokens: dict[str, str] = {}
        """Tokens of people at this hub, by token; with any, nothing is launched without one."""
        self.launches: dict[str, str] = {}
        """What an Anybinder says of its launches: by name, each with its state. Tokens are not looked at."""
        self.last_activity = "2026-11-21T09:00:00+00:00"
        self.obeys = True
        """Servers end when they are told to."""
        self.go_on = threading.Event()
        self.launched = 0
        """How many servers were ever started."""
        self._over = threading.Event()
        self._lock = threading.Lock()
        super().__init__(handler or Handler, double=self)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.go_on.set()
        super().__exit__()

    @property
    def builds(self) -> list[str]:
        """The specs that launches were asked for, each with its query."""
        return [path.removeprefix("/build/") for _, path, _ in self.asked if path.startswith("/build/")]

    def shown(self, path: str) -> list[str]:
        """The Authorization of every request that began with this path."""
        return [shown for _, asked, shown in self.asked if asked.startswith(path)]

    def started(self) -> tuple[str, str]:
        """A new server: its path and its token."""
        with self._lock:
            self.launched += 1
            path, token = f"/user/o-r-{self.launched:08x}/", f"t{self.launched:021x}"
            self.sessions[path] = token
        return path, token

    def is_over(self, seconds: float) -> bool:
        """Whether it was left, within so many seconds."""
        return self._over.wait(seconds)


class Handler(BaseHTTPRequestHandler):
    double: Any
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._noted()
        path = urlsplit(self.path).path
        if found := self.double.answers.get(path):
            self.answer(found[0], found[2], found[1])
        elif path == "/versions":
            self.json(200, self.double.versions)
        elif path == "/health":
            self.json(200 if self.double.well else 503, self._health())
        elif path == "/api/repoproviders":
            self.json(200, [{"id": name, "displayName": name} for name in PROVIDERS])
        elif path.startswith("/build/"):
            self._build()
        elif path.startswith("/user/"):
            self._session(path)
        elif path.startswith("/api/launches/"):
            state = self.double.launches.get(path.rpartition("/")[2])
            self.json(200 if state else 404, {"state": state, "last_activity_at": self.double.last_activity})
        else:
            self.answer(200, b"<html><div id=root></div></html>", {"Content-Type": "text/html"})

    def do_POST(self) -> None:
        self._noted()
        root, _, rest = self.path.partition("api/")
        token = self.double.sessions.get(root)
        if rest != "shutdown" or token is None or not self._holds(token):
            return self.json(403, {"message": "Forbidden"})
        if self.double.obeys:
            del self.double.sessions[root]
        return self.json(200, {})

    def do_DELETE(self) -> None:
        self._noted()
        if self.path.startswith("/api/launches/"):
            self.double.launches[self.path.rpartition("/")[2]] = "stopped"
            return self.json(202, {})
        root = self.path.removeprefix("/hub/api/users/").removesuffix("/server")
        if self._token() not in self.double.tokens:
            return self.json(403, {"message": "Forbidden"})
        self.double.sessions.pop(f"/user/{root}/", None)
        return self.answer(204, b"", {})

    # --- within

    def _build(self) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": "text/event-stream", "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        lines = list(self.double.lines)
        if self.double.tokens and self._token() not in self.double.tokens:
            lines = [{"phase": "failed", "message": "Forbidden", "status_code": 403}]
        with contextlib.suppress(OSError):
            for line in lines:
                if not self._line(line):
                    return

    def _line(self, line: Any) -> bool:
        """False where nothing more comes."""
        if line == "hold":
            self.double.go_on.wait()
        elif line == "cut":
            self._break_off()
            return False
        elif line in ("hang", "ever"):
            self._stay(KEEPALIVE if line == "ever" else b"")
            return False
        elif line == "ready":
            self._event(self._ready(*self.double.started()))
        elif line == "fail":
            self._event({"phase": "failed", "message": "Build failed, see the log.\n"})
            self._event({"phase": "failed"})
            self._stay(KEEPALIVE)
            return False
        elif isinstance(line, bytes):
            self.wfile.write(line)
        else:
            self._event(line)
        return True

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()

    def _ready(self, path: str, token: str) -> dict[str, Any]:
        url = f"{self.double.url}{path}"
        return {
            "phase": "ready",
            "message": f"server running at {url}\n",
            "image": "registry/peer:abc",
            "repo_url": "https://github.com/o/r",
            "token": token,
            "binder_ref_url": "https://github.com/o/r/tree/abc",
            "binder_launch_host": f"{self.double.url}/",
            "binder_request": "v2/gh/o/r/HEAD",
            "binder_persistent_request": "v2/gh/o/r/abc",
            "binder_client_ip": "127.0.0.1",
            "url": url,
        }

    def _stay(self, says: bytes) -> None:
        while not self.double.is_over(EVER_SECONDS):
            self.wfile.write(says or b"")
            if not says and self._is_left():
                return

    def _is_left(self) -> bool:
        self.connection.setblocking(False)
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        finally:
            self.connection.setblocking(True)

    def _break_off(self) -> None:
        """As a host that goes down: a reset, not an end."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _health(self) -> dict[str, Any]:
        double = self.double
        quota = {"service": "Pod quota", "total_pods": double.total, "build_pods": 0, "user_pods": double.total}
        quota |= {"quota": double.quota, "ok": double.quota is None or double.total <= double.quota}
        checks = [
            {"service": "Docker registry", "ok": True},
            {"service": "JupyterHub API", "ok": double.well},
            {**quota, "_ignore_failure": True},
        ]
        return {"ok": double.well, "checks": checks}

    def _session(self, path: str) -> None:
        root, rest = "/".join(path.split("/")[:3]) + "/", path.partition("/api/")[2]
        token = self.double.sessions.get(root)
        if token is None:
            return self.json(404, {"message": "Not Found"})
        if not self._holds(token):
            return self.json(403, {"message": "Forbidden"})
        if rest != "status":
            return self.answer(200, b"<html>JupyterLab</html>", {"Content-Type": "text/html"})
        return self.json(200, {"started": "2026-11-21T09:00:00Z", "last_activity": self.double.last_activity})

    def _holds(self, token: str) -> bool:
        shown = self._token() or parse_qs(urlsplit(self.path).query).get("token", [""])[0]
        return shown == token or shown in self.double.tokens

    def _token(self) -> str:
        return str(self.headers.get("Authorization", "")).removeprefix("token ")

    def _noted(self) -> None:
        self.double.asked.append((self.command, self.path, self.headers.get("Authorization", "")))

    def json(self, status: int, row: Any) -> None:
        self.answer(status, json.dumps(row).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
