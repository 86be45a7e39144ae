"""How the command line talks to the running broker of this state folder, or to a hub elsewhere. Standard library only: it
must start fast."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

ADDRESS_FILE = "broker.json"
ANSWER_SECONDS = 120  # resolving a repository on a slow host may take a minute
ARCHIVE_SECONDS = 180  # all files are counted before the first byte comes
KEEPALIVE_SECONDS = 60  # the broker sends one every 25 s


class Refused(Exception):
    """The broker said no. The message is its sentence."""

    def __init__(self, status: int, sentence: str, reason: str) -> None:
        super().__init__(sentence)
        self.status, self.reason = status, reason


class NotRunning(Exception):
    """No broker is running for this state folder. Start one with `anybinder up`."""


class Broken(Exception):
    """What was sent ended before it was whole."""


class Unreachable(NotRunning):
    """A hub elsewhere does not answer, or is not who it says it is."""


@dataclass(frozen=True)
class Client:
    """One broker, and the key to it."""

    host: str
    port: int
    key: str = field(repr=False)
    hub: str = ""
    """The address of a hub elsewhere; empty for the broker of this state folder."""

    def call(self, method: str, path: str, body: object = None, *, seconds: float = ANSWER_SECONDS) -> Any:
        """One request; the JSON of its answer. Raises Refused, NotRunning."""
        answer = self._ask(method, path, body, accept="application/json", seconds=seconds)
        text = answer.read()
        return json.loads(text) if text else None

    def form(self, path: str, sent: Mapping[str, str]) -> Any:
        """The same, of a form that shows no key: for logging in."""
        text = urlencode(sent)
        return json.loads(self._ask("POST", path, text, accept="application/json", seconds=ANSWER_SECONDS).read())

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

    def archive(self, launch_id: str) -> tuple[str, Iterator[bytes]]:
        """The files of a session: what the zip is called, and its bytes. Raises as `call`, and Broken in between."""
        path = f"/api/launches/{quote(launch_id)}/archive"
        answer = self._ask("GET", path, None, accept="application/zip", seconds=ARCHIVE_SECONDS)
        called = re.search(r'filename="([\w-]+\.zip)"', answer.getheader("content-disposition") or "", re.ASCII)
        return (called[1] if called else "work.zip"), _whole(answer)

    def find(self, name_or_id: str) -> dict[str, Any]:
        """The launch of this id, or the newest of this name. Raises Refused with a sentence."""
        launches: list[dict[str, Any]] = self.call("GET", "/api/launches")
        if not self.hub:
            launches += self.call("GET", "/api/launches?everyone=true")
        for launch in launches:
            if name_or_id in (launch["id"], launch["name"]):
                return launch
        raise Refused(404, f"There is no launch “{name_or_id}”. `anybinder list` shows yours.", "not_found")

    def _ask(self, method: str, path: str, body: object, *, accept: str, seconds: float) -> http.client.HTTPResponse:
        connection = self._connection(seconds)
        sent = body if body is None or isinstance(body, str) else json.dumps(body)
        kind = "application/x-www-form-urlencoded" if isinstance(body, str) else "application/json"
        headers = {"Accept": accept, "Content-Type": kind}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(error) from error
        if answer.status >= 300:  # a redirect is not followed: our key is for nobody else
            raise _refusal(answer)
        return answer

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if self.hub.startswith("https:"):
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self.host, self.port, timeout=seconds, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=seconds)

    def _silent(self, error: Exception) -> NotRunning:
        if not self.hub:
            return NotRunning()
        if isinstance(error, ssl.SSLCertVerificationError):
            return Unreachable(
                f"{self.hub} shows a certificate that cannot be trusted ({error.verify_message}). Nothing was sent to it."
            )
        why = getattr(error, "strerror", None) or type(error).__name__
        return Unreachable(f"{self.hub} does not answer ({why}).")


def running(home: Path) -> Client:
    """The broker of this state folder. Raises NotRunning."""
    try:
        address = json.loads((home / ADDRESS_FILE).read_text())
        client = Client(address["host"], address["port"], address["key"])
    except (OSError, ValueError, KeyError) as error:
        raise NotRunning from error
    client.call("HEAD", "/health")
    return client


def elsewhere(url: str, key: str = "") -> Client:
    """The hub at this address (`hubs.address`). Asks nothing yet."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Client(host=parts.hostname or "", port=port, key=key, hub=url)


def _refusal(answer: http.client.HTTPResponse) -> Refused:
    text = answer.read()
    try:
        said = json.loads(text)
        return Refused(answer.status, said["detail"], said.get("reason", "error"))
    except (ValueError, KeyError, TypeError):
        return Refused(answer.status, f"The broker answered {answer.status} {answer.reason}.", "error")


def _whole(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while piece := answer.read(256 * 1024):
            yield piece
    except (OSError, http.client.HTTPException) as error:
        raise Broken from error


def _data(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for raw in answer:
        if raw.startswith(b"data:"):
            yield json.loads(raw[5:])
