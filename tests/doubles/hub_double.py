"""A JupyterHub as far as it is asked whose token it is: `GET /hub/api/user`, as version 6.1.1 answers it.

with HubDouble() as hub:
    hub.scopes["a-token"] = ["servers!user", "access:servers!user"]     # as its owner asked for them
    Settings(peers=[{"name": "peer", "url": hub.url}])
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.doubles.little_http import LittleHttp, Server

ADDED = {"servers!user": ("start:servers", "delete:servers", "read:servers", "read:users:groups", "read:users:name")}
WHO = "ada"


class HubDouble(LittleHttp):
    """Listens until it is left."""

    def __init__(self) -> None:
        self.scopes: dict[str, list[str]] = {}
        self.shown: list[tuple[str, str]] = []
        self.redirect = ""
        self.sense = True
        super().__init__(Handler, server=Server, double=self)


class Handler(BaseHTTPRequestHandler):
    double: Any

    def do_GET(self) -> None:
        shown = self.headers.get("Authorization", "")
        self.double.shown.append((self.path, shown))
        token = shown.removeprefix("token ")
        if self.double.redirect:
            self.answer(302, {}, {"Location": self.double.redirect})
        elif self.path != "/hub/api/user" or not self.double.sense:
            self.answer(404, {"status": 404, "message": "Not Found"})
        elif token not in self.double.scopes:
            self.answer(403, {"status": 403, "message": "Missing or invalid credentials."})
        else:
            asked = self.double.scopes[token]
            added = [f"{name}!user" for scope in asked for name in ADDED.get(scope, ())]
            scopes = sorted(f"{each}={WHO}" if each.endswith("!user") else each for each in {*asked, *added})
            self.answer(
                200, {"kind": "user", "name": WHO, "admin": False, "servers": {}, "groups": [], "scopes": scopes}
            )

    def answer(self, status: int, row: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(row).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
