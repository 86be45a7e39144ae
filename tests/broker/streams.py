"""Event streams of an application in this process: read while they run, cut when one likes."""

from __future__ import annotations

import asyncio
import json
import threading
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from tests.waiting import until

ACCEPT = {"accept": "text/event-stream"}


class Stream:
    """One GET on a loop of its own. `headers` replace those of a script on this computer."""

    def __init__(
        self, app: Any, target: str, *, client: str = "127.0.0.1", method: str = "GET", **headers: str
    ) -> None:
        told = {
            "host": "localhost:8000",
            **ACCEPT,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        path, _, query = target.partition("?")
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in told.items()],
            "client": (client, 50000),
            "server": ("localhost", 8000),
        }
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._left = asyncio.Event()
        self._began = False
        self._body = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._app(self._scope, self._receive, self._send))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()
            self.ended.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._began:
            self._began = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self._body += message.get("body", b"")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cut()

    def cut(self) -> None:
        """The client leaves."""
        if not self.ended.is_set():
            self._loop.call_soon_threadsafe(self._left.set)
        self.thread.join(20)
        assert not self.thread.is_alive()

    def whole(self) -> list[dict[str, Any]]:
        """Every event, once the stream has ended by itself."""
        assert self.ended.wait(20), self.text
        return self.events

    @property
    def text(self) -> str:
        return self._body.decode()

    @property
    def blocks(self) -> list[str]:
        """What has come so far, without what has not come whole."""
        return self.text.split("\n\n")[:-1]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(block.partition("data: ")[2]) for block in self.blocks if "data: " in block]

    @property
    def ids(self) -> list[str]:
        return [block.partition("\n")[0].removeprefix("id: ") for block in self.blocks if "data: " in block]

    def until(self, phase: str) -> Stream:
        """Wait for an event of this phase."""
        until(lambda: any(event["phase"] == phase for event in self.events), seconds=20, what=phase)
        return self
