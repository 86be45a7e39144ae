"""A BinderHub that lies by plan, and one that nobody registered, which must never be asked anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal

from tests.doubles import binderhub_double
from tests.doubles.little_http import LittleHttp
from tests.peers import lies

Words = Literal["chatter", "flood", "slow", "started", "gone", "kill"]
"""Of a stream, beside the double's: events without end; bytes without end or line; late; a server that nobody is told of; the
session just made is gone; and whoever listens is killed here."""
SLOW_SECONDS = 0.15
KILL_SECONDS = 10.0


class Liar(binderhub_double.BinderHubDouble):
    """Answers its first request for a launch by the first of its answers, and so on; by the last one for ever."""

    def __init__(self, answers: Sequence[lies.Lie], foreign: str, session: str = "") -> None:
        super().__init__(Handler)
        self.plan, self.foreign, self.session = list(answers), foreign, session
        self.kill: Callable[[], None] = lambda: None
        """Called on a thread of this hub's, and waited for."""
        self.given: list[str] = []
        """The tokens of all sessions that were ever made here."""
        self._turn = 0

    def next_answer(self) -> lies.Answer:
        with self._lock:
            lie = self.plan[min(self._turn, len(self.plan) - 1)]
            self._turn += 1
        return lie(self, self.foreign)

    def started(self) -> tuple[str, str]:
        """As the double's, with a token that no other hub gives."""
        path, token = super().started()
        token = f"{token}-{self.url.rpartition(':')[2]}"
        with self._lock:
            self.sessions[path] = token
            self.given.append(token)
        return path, token

    def lost(self) -> None:
        """Every session of this hub is gone."""
        with self._lock:
            self.sessions.clear()


class Handler(binderhub_double.Handler):
    """What is lied about; the rest is as it is with the double."""

    def _build(self) -> None:
        answer = self.double.next_answer()
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            for line in answer.lines:
                if not self._line(line):
                    return

    def _line(self, line: Any) -> bool:
        if line == "kill":
            self.double.kill()
        elif line == "slow":
            self.double.is_over(SLOW_SECONDS)
        elif line == "started":
            self.double.started()
        elif line == "gone":
            self.double.lost()
        elif line in ("chatter", "flood"):
            return self._without_end(b"x" * 65536 if line == "flood" else b'data: {"message":"and on"}\n\n')
        else:
            return super()._line(line)
        return True

    def _without_end(self, what: bytes) -> bool:
        while not self.double.is_over(0):
            self.wfile.write(what)
        return False

    def _session(self, path: str) -> None:
        lie = self.double.session
        if lie == "elsewhere":
            self.answer(307, b"", {"Location": f"{self.double.foreign}{path}"})
        elif lie == "page":
            self.answer(200, lies.MARK.encode(), {"Content-Type": "text/html"})
        elif lie == "huge":
            self.answer(200, lies.HUGE, lies.JSON)
        else:
            super()._session(path)

    def do_POST(self) -> None:
        if self.double.session == "elsewhere":
            self._noted()
            return self.answer(307, b"", {"Location": f"{self.double.foreign}{self.path}"})
        return super().do_POST()


class Foreign(LittleHttp):
    """A hub that nobody registered: what reaches it is a fault."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(_Noting, asked=self.asked)


class _Noting(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path} {self.headers.get('Authorization', '')}")
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_DELETE = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass
