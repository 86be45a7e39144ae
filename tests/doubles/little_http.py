"""A web server of a few lines, which doubles are made of: it listens on this computer from `with` on, until it is left."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Server(ThreadingHTTPServer):
    daemon_threads = True


class Patient(Server):
    """Says nothing of callers that break off, as they do who are told nonsense or have heard enough."""

    def handle_error(self, *_: object) -> None:
        pass


class LittleHttp:
    """`url` is known before it listens."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], *, server: type[Server] = Patient, **told: Any) -> None:
        """`told`: what the handler finds among its own attributes."""
        self._http = server(("127.0.0.1", 0), type("Handler", (handler,), told))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
