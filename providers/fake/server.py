"""The fake cloud's door: one question a connection, and what can go wrong with a question on its way."""

from __future__ import annotations

import itertools
import json
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from providers.fake.clock import Clock
from providers.fake.cloud import Answer, Cloud, Met, Refused
from providers.fake.faults import CALLS, REFUSALS, Fault, Faults

HOLD_SECONDS = 120.0
OPEN = ("sign_in", "pull_switch")  # to whoever has no credential


class Lost(Exception):
    """The connection ends without an answer."""


class Service:
    """A cloud, its clock, its faults, and the log of what it was asked. Called from many threads."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.cloud = Cloud(folder, self.clock)
        self.faults = Faults()
        self._forget_calls()
        threading.Thread(target=self.clock.run, daemon=True).start()

    def _forget_calls(self) -> None:
        self._log: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)

    def answer(self, path: str, asked: dict[str, Any], token: str) -> Answer:
        """Status and answer. Raises Lost where nobody is to hear it."""
        kind, _, name = path.strip("/").rpartition("/")
        if kind == "control":
            return self._control(name, asked)
        if name not in CALLS:
            return 404, {"error": "unknown", "message": f"There is no call {name!r}."}
        return self._logged(name, asked, token)

    # What the driver calls.

    def _logged(self, call: str, asked: dict[str, Any], token: str) -> Answer:
        facts = self.cloud.facts(asked)
        met = self.faults.met_by(call, facts)
        entry = {
            "n": next(self._numbers),
            "call": call,
            "at": time.time(),
            "status": None,
            "faults": sorted(met),
            **facts,
        }
        self._log.append(entry)
        try:
            status, answer = self._on_the_way(call, asked, token, met)
        except Lost:
            entry["status"] = "lost"
            raise
        entry["status"], entry["made"] = status, answer.get("id")
        return status, answer

    def _on_the_way(self, call: str, asked: dict[str, Any], token: str, met: Met) -> Answer:
        _wait(met, "before")
        if "lost_request" in met:
            raise Lost
        if refused := next((met[name] for name in REFUSALS if name in met), None):
            return _refusal(refused)
        if "lost_response" in met and (late := met["lost_response"].settings.get("late")):
            self.clock.at(self.clock.now() + late, lambda: self._effect(call, asked, token, met))
            raise Lost
        answer = self._twice(call, asked, token, met) if "duplicate" in met else self._effect(call, asked, token, met)
        _wait(met, "after")
        if "lost_response" in met:
            raise Lost
        return (200, {"garbled": True}) if "garbled" in met else answer

    def _twice(self, *call: Any) -> Answer:
        other = threading.Thread(target=self._effect, args=call)
        other.start()
        answer = self._effect(*call)
        other.join()
        return answer

    def _effect(self, call: str, asked: dict[str, Any], token: str, met: Met) -> Answer:
        with self.clock.lock:
            self.clock.settle()
            try:
                if call not in OPEN and not self.cloud.admits(token):
                    raise Refused("bad_credential")
                return 200, getattr(self.cloud, call)(asked, met)
            except Refused as refused:
                return refused.status, refused.answer

    # What tests ask.

    def _control(self, name: str, asked: dict[str, Any]) -> Answer:
        known = {
            "fault": lambda: {"id": self.faults.add(**asked)},
            "faults": lambda: {"faults": self.faults.as_json()},
            "clear": self.faults.clear,
            "release": lambda: self.faults.release(asked.get("id")),
            "clock": lambda: {"now": self.clock.move(**asked)},
            "options": lambda: self._options(asked),
            "calls": lambda: {"calls": self._log},
            "instances": lambda: {"instances": self._locked(self.cloud.everything)},
            "bill": lambda: {"bill": self._locked(self.cloud.bill)},
            "die": lambda: self._locked(self.cloud.die, asked["id"], asked.get("leaves", ())),
            "reset": self._reset,
        }
        try:
            return 200, known[name]() or {}
        except (KeyError, TypeError, ValueError) as wrong:
            return 400, {"error": "control", "message": f"{type(wrong).__name__}: {wrong}"}

    def _locked(self, look: Any, *arguments: Any) -> Any:
        with self.clock.lock:
            self.clock.settle()
            return look(*arguments)

    def _options(self, asked: Mapping[str, Any]) -> None:
        with self.clock.lock:
            self.cloud.options = replace(self.cloud.options, **asked)

    def _reset(self) -> None:
        self.faults.clear()
        with self.clock.lock:
            self.clock.reset()
            self.cloud.reset()
            self._forget_calls()

    def close(self) -> None:
        """Take the machines along."""
        self.faults.clear()
        with self.clock.lock:
            self.clock.reset()
            self.cloud.end_machines()


def _wait(met: Met, when: str) -> None:
    for name in ("slow", "hold"):
        if name in met and met[name].settings.get("when", "before") == when:
            met[name].released.wait(met[name].settings["seconds"] if name == "slow" else HOLD_SECONDS)


def _refusal(fault: Fault) -> Answer:
    named = {"quota": "machines", "permission": "machines.create", **fault.settings}
    refused = Refused(
        fault.name, fault.settings.get("message", ""), quota=named["quota"], permission=named["permission"]
    )
    return refused.status, refused.answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        try:
            status, answer = self.server.service.answer(self.path, asked, token)
        except Lost:
            return
        self._send(status, b"not JSON" if answer.get("garbled") else json.dumps(answer).encode())

    def _send(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except BrokenPipeError:
            self.close_connection = True  # whoever asked has been killed, or has given up

    def log_message(self, *_: object) -> None:
        """The log is `calls`."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, path: str, service: Service) -> None:
        self.service = service
        super().__init__(path, Handler)


def serve(socket_path: str, folder: Path) -> None:
    """Answer on this socket until SIGTERM; then take the machines along. Says `ready` once it answers."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    service = Service(folder)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        with Server(socket_path, service) as server:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            server.serve_forever(poll_interval=3600)  # nothing to poll for: the signal raises
    finally:
        service.close()
        Path(socket_path).unlink(missing_ok=True)
