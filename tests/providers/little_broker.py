"""As much of a broker as an agent needs to be content: it enrols, hears reports, and says go or stop. No tunnel."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LittleBroker:
    """Answers on `url` until the end of `with`."""

    def __init__(self) -> None:
        self.command = "go"
        self.events: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.broker = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def config(self, order: str, token: str) -> dict[str, Any]:
        """Boot configuration for this order's agent."""
        return {
            "broker": self.url,
            "order": order,
            "token": token,
            "until": later().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "silence_seconds": 30,
        }

    def enrol(self, asked: dict[str, Any], bearer: str) -> dict[str, Any]:
        key = hashlib.sha256(bearer.encode()).digest()
        return {
            "launch": "l1",
            "session": {"id": "s1", "secret": "tunnel-secret", "server_token": "server-token"},
            "spec": {"build_seconds": 60, "busy_hours": 24},
            "heartbeat_seconds": 1,
            "silence_seconds": 30,
            "deadline": later().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "proof": hmac.new(key, asked["nonce"].encode("ascii"), hashlib.sha256).hexdigest(),
        }

    def report(self, asked: dict[str, Any], bearer: str) -> dict[str, Any]:
        self.events += asked["events"]
        self.status = asked["status"]
        deadline = later().strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"command": self.command, "deadline": deadline, "ack": asked["first"] + len(asked["events"]) - 1}

    def __enter__(self) -> LittleBroker:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        verb = {"/agent/enrol": self.server.broker.enrol, "/agent/report": self.server.broker.report}[self.path]
        body = json.dumps(verb(asked, self.headers["Authorization"].removeprefix("Bearer "))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)
