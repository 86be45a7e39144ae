"""What a peer that lies says and does: in the stream of a launch, of itself, and once a session runs there.

Each of LIES makes the answer to one request for a launch, of the hub that tells it and of a hub that nobody registered. STREAMS
are made of what `binderhub_double` understands, and of a few words more (`liar.Words`).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.binderhub_double import BUILT

MARK = "<script>lie()</script><img src=x onerror=lie()>"
"""What must never be in a page as it stands."""
HUGE = b'data: {"phase":"building","message":"' + b"x" * 10_000_000 + b'"}\n\n'
DEEP = b"[" * 200_000
BOMB = gzip.compress(b"data: " + b"x" * 20_000_000)
STARTING = BUILT[:5]
FULL = {"phase": "failed", "message": "Too many users on this BinderHub! Try again soon.\n"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What comes of one request for a launch."""

    lines: tuple[Any, ...] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})


Lie = Callable[[Any, str], Answer]
"""Of the hub that tells it, and the address of a hub that nobody registered."""


def streams(*lines: Any) -> Lie:
    return lambda hub, foreign: Answer(lines=lines)


def sends_to(there: Callable[[Any, str], str]) -> Lie:
    return lambda hub, foreign: Answer(status=307, headers={"Location": there(hub, foreign)})


def answers(status: int, **headers: str) -> Lie:
    named = {name.replace("_", "-"): value for name, value in headers.items()} or {"Content-Type": "text/html"}
    return lambda hub, foreign: Answer(status=status, headers=named, lines=(MARK.encode(),))


def ready_at(there: Callable[[Any, str], Any], token: Any = "t0123456789") -> Lie:
    """Says that a session is ready, somewhere else than where it is."""

    def lie(hub: Any, foreign: str) -> Answer:
        told = {"phase": "ready", "message": f"{MARK}\n", "url": there(hub, foreign), "token": token}
        return Answer(lines=(*STARTING, told))

    return lie


def event(**told: Any) -> dict[str, Any]:
    return told


LIES: Mapping[str, Lie] = {
    # of room
    "full after all": streams(FULL),
    "full once it is built": streams(*BUILT[:4], FULL),
    "come back in a year": streams(
        event(phase="failed", message="Rate limit exceeded. Try again in 31536000 seconds.")
    ),
    "429": answers(429, Retry_After="-1"),
    # elsewhere
    "redirect to a foreign hub": sends_to(lambda hub, foreign: f"{foreign}/build/x"),
    "redirect without a scheme": sends_to(lambda hub, foreign: f"//{foreign.partition('//')[2]}/build/x"),
    "redirect behind an @": sends_to(
        lambda hub, foreign: f"{hub.url.replace('//', '//a.example:80@')}@{foreign.partition('//')[2]}/"
    ),
    "redirect to the cloud's metadata": sends_to(lambda hub, foreign: "http://169.254.169.254/latest/"),
    "redirect to a file": sends_to(lambda hub, foreign: "file:///etc/passwd"),
    "redirect in a circle": sends_to(lambda hub, foreign: f"{hub.url}/build/again"),
    "redirect to nowhere": sends_to(lambda hub, foreign: ""),
    # without end
    "lines without end": streams(*STARTING[:3], "chatter"),
    "keep-alives without end": streams(*STARTING[:3], "ever"),
    "one line without end": streams("flood"),
    "silence": streams(*STARTING[:3], "hang"),
    "silence while starting": streams(*STARTING, "hang"),
    "10 MB event": streams(*STARTING[:2], HUGE, "ready"),
    "10 MB that unpack to more": lambda hub, foreign: Answer(
        lines=(BOMB,), headers={"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
    ),
    # not what a hub says
    "HTML in every field": streams(
        event(phase="building", message=MARK, imageName=MARK), event(phase=MARK, message=MARK), "ready"
    ),
    "HTML in its failure": streams(*STARTING[:3], event(phase="failed", message=MARK)),
    "HTML for a stream": answers(200),
    "bad UTF-8": streams(*STARTING[:2], b'data: {"phase":"building","message":"\xff\xfe\x80"}\n\n', "ready"),
    "half of a character": streams(
        *STARTING[:2], b'data: {"message":"\\ud800","imageName":"\\udfff\\u0000"}\n\n', "ready"
    ),
    "control characters": streams(
        event(phase="building", message="\x00\x1b]0;lie\x07\x1b[2J\r\u202edne\u2028"), "ready"
    ),
    "no JSON": streams(b"data: {]\n\n"),
    "a list": streams(b"data: []\n\n"),
    "deeper than anybody reads": streams(b"data: " + DEEP + b"\n\n"),
    "numbers for words": streams(
        event(phase=7, message=9), event(phase=None, message={"a": 1}), event(phase=["ready"]), "ready"
    ),
    "failed without a word": streams(event(phase="failed")),
    "build failed": streams(*STARTING[:3], "fail"),
    "ready after it failed": streams(*STARTING[:3], event(phase="failed", message="No."), "ready"),
    # the way in
    "ready at a foreign hub": ready_at(lambda hub, foreign: f"{foreign}/user/a/"),
    "ready in a private range": ready_at(lambda hub, foreign: "http://10.0.0.1/user/a/"),
    "ready at the cloud's metadata": ready_at(lambda hub, foreign: "http://169.254.169.254/user/a/"),
    "ready behind an @": ready_at(lambda hub, foreign: f"{hub.url}@{foreign.partition('//')[2]}/user/a/"),
    "ready behind a backslash": ready_at(lambda hub, foreign: f"{foreign}\\@{hub.url.partition('//')[2]}/user/a/"),
    "ready by a script": ready_at(lambda hub, foreign: "javascript:lie()//"),
    "ready with lines in its address": ready_at(lambda hub, foreign: f"{hub.url}/user/a/\r\nSet-Cookie: a=b\r\n/"),
    "ready with a query": ready_at(lambda hub, foreign: f"{hub.url}/user/a/?next={foreign}"),
    "ready with a list": ready_at(lambda hub, foreign: [hub.url]),
    "ready with lines in its token": ready_at(lambda hub, foreign: f"{hub.url}/user/a/", token="a\r\nX-Lie: 1"),
    "ready with a token without end": ready_at(lambda hub, foreign: f"{hub.url}/user/a/", token="a" * 100_000),
    "ready without a token": ready_at(lambda hub, foreign: f"{hub.url}/user/a/", token=None),
    "ready where nothing is": ready_at(lambda hub, foreign: f"{hub.url}/user/nobody/"),
    "ready twice": streams(*STARTING, "ready", "ready"),
    # vanishing
    "gone before a word": streams("cut"),
    "gone while it builds": streams(*STARTING[:3], "cut"),
    "gone while it starts": streams(*STARTING, "started", "cut"),
    "an end without an end": streams(*STARTING[:4]),
    "ready and gone": streams(*STARTING, "ready", "gone"),
    "500": answers(500),
    "404": answers(404),
    "403": answers(403),
    # only late
    "slow": streams("slow", *STARTING[:3], "slow", *STARTING[3:], "slow", "ready"),
}

HONEST = streams(*BUILT)


# --- of itself ------------------------------------------------------------------------------------------------------


def health(**quota: Any) -> bytes:
    checks = [{"service": "Pod quota", "ok": True, "_ignore_failure": True, **quota}]
    return json.dumps({"ok": True, "checks": checks}).encode()


JSON = {"Content-Type": "application/json"}
SAYS: Mapping[str, Mapping[str, tuple[int, dict[str, str], bytes]]] = {
    "nothing wrong": {},
    "room without end": {"/health": (200, JSON, health(total_pods=-1, quota=10**40))},
    "words for numbers": {"/health": (200, JSON, health(total_pods=MARK, quota=True))},
    "numbers that are none": {"/health": (200, JSON, b'{"ok":true,"checks":[{"service":"Pod quota","quota":NaN}]}')},
    "full": {"/health": (200, JSON, health(total_pods=100, quota=100))},
    "no room at all": {"/health": (200, JSON, health(total_pods=0, quota=0))},
    "unwell in HTML": {
        "/health": (503, JSON, json.dumps({"ok": False, "checks": [{"service": MARK, "ok": False}]}).encode())
    },
    "unwell in half a character": {"/health": (503, JSON, b'{"ok":false,"checks":[{"service":"\\ud800","ok":false}]}')},
    "deep": {"/health": (200, JSON, DEEP)},
    "10 MB": {"/versions": (200, JSON, HUGE)},
    "a version in HTML": {"/versions": (200, JSON, json.dumps({"binderhub": MARK, "builder": MARK}).encode())},
    "half a version": {"/versions": (200, JSON, b'{"binderhub":"\\ud800","\\udfff":{"a":["\\u0000"]}}')},
    "hosts that are none": {
        "/api/repoproviders": (200, JSON, json.dumps([{"id": MARK}, {"id": 7}, "git", {"id": "git"}]).encode())
    },
    "a page": {"/versions": (200, {"Content-Type": "text/html"}, MARK.encode())},
}

SESSION_LIES: tuple[str, ...] = ("", "", "elsewhere", "page", "huge", "deaf")
"""What its sessions do once they run: mostly nothing wrong."""
