"""How the command line talks to the running broker of this state folder. Standard library only: it must start fast."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

ADDRESS_FILE = "broker.json"
ANSWER_SECONDS = 120  # resolving a repository on a slow host may take a minute
KEEPALIVE_SECONDS = 60  # the broker sends one every 25 s


class Refused(Exception):
    """The broker said no. The message is its sentence."""

    def __init__(self, status: int, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.status, self.reason = status, reason


class NotRunning(Exception):
    """No broker is running for this state folder. Start one with `anybinder up`."""


@dataclass(frozen=True)
class Client:
    """One broker, and the key to it."""

    host: str
    port: int
    key: str = field(repr=False)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request; the JSON of its answer. Raises Refused, NotRunning."""
        answer = self._ask(method, path, body, accept="application/json", seconds=ANSWER_SECONDS)
        text = answer.read()
        return json.loads(text) if text else None

    def events(self, launch_id: str, *, after: int = 0, to_the_end: bool = False) -> Iterator[dict[str, Any]]:
        """The lines of a launch as they are written. A dropped stream is taken up where it was; raises as `call`."""
        while True:
            path = f"/api/launches/{quote(launch_id)}/events?after={after}{'&follow=1' if to_the_end else ''}"
            answer = self._ask("GET", path, None, accept="text/event-stream", seconds=KEEPALIVE_SECONDS)
            try:
                for line in _data(answer):
                    after = line["id"]
                    yield line
                return
            except (OSError, http.client.HTTPException):
                continue

    def find(self, name_or_id: str) -> dict[str, Any]:
        """The launch of this id, or the newest of this name. Raises Refused with a sentence."""
        launches: list[dict[str, Any]] = self.call("GET", "/api/launches")
        launches += self.call("GET", "/api/launches?everyone=true")
        for launch in launches:
            if name_or_id in (launch["id"], launch["name"]):
                return launch
        raise Refused(404, f"There is no launch “{name_or_id}”. `anybinder list` shows yours.", "not_found")

    def _ask(self, method: str, path: str, body: object, *, accept: str, seconds: float) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        headers = {"Authorization": f"Bearer {self.key}", "Accept": accept, "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
        except OSError as error:
            raise NotRunning from error
        if answer.status >= 400:
            raise _refusal(answer)
        return answer


def running(home: Path) -> Client:
    """The broker of this state folder. Raises NotRunning."""
    try:
        address = json.loads((home / ADDRESS_FILE).read_text())
        client = Client(address["host"], address["port"], address["key"])
    except (OSError, ValueError, KeyError) as error:
        raise NotRunning from error
    client.call("HEAD", "/health")
    return client


def _refusal(answer: http.client.HTTPResponse) -> Refused:
    text = answer.read()
    try:
        said = json.loads(text)
        return Refused(answer.status, said["detail"], said.get("reason", "error"))
    except (ValueError, KeyError, TypeError):
        return Refused(answer.status, f"The broker answered {answer.status} {answer.reason}.", "error")


def _data(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for raw in answer:
        if raw.startswith(b"data:"):
            yield json.loads(raw[5:])
