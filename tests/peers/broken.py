"""Builds that are broken on purpose: what the checks must catch. Each is a way to patch this process for one test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from broker.forwarding import hearing, rows, streams
from federation import binderhub
from federation.peers import Peer
from tests.peers import lies

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A fault, and where it shows."""

    patch: Patch
    lies: Sequence[str]
    says: str
    """What the checks say of it, in part."""
    kills: bool = False
    """It shows only where whoever listens is killed."""


def any_origin(patch: pytest.MonkeyPatch) -> None:
    """A peer may send anybody anywhere."""
    patch.setattr(Peer, "owns", lambda self, url: url.startswith("http"))


def asks_again(patch: pytest.MonkeyPatch) -> None:
    """A stream that was cut is asked for anew, as if it had never been asked for."""
    inner = hearing.begin

    def begin(service: Any, forward_id: str) -> Any:
        with service.db.transaction() as session:
            if found := session.get(hearing.Forward, forward_id):
                found.asked_at = None
        return inner(service, forward_id)

    patch.setattr(streams.hearing, "begin", begin)


def says_nothing(patch: pytest.MonkeyPatch) -> None:
    """A try that failed is left open: nobody looks for another peer."""
    patch.setattr(streams.hearing, "failed", lambda service, forward_id, refusal: None)


def closes_wordlessly(patch: pytest.MonkeyPatch) -> None:
    """A try that failed is closed, and no step is told."""
    patch.setattr(hearing.launches, "nudge", lambda *_: None)


def keeps_the_way_in(patch: pytest.MonkeyPatch) -> None:
    """What opens a session stays in the table after its end."""
    inner = rows.close

    def close(service: Any, session: Any, launch: Any, forward: Any, outcome: str) -> None:
        kept = forward.way_in
        inner(service, session, launch, forward, outcome)
        forward.way_in = kept

    patch.setattr(rows, "close", close)


def believes_every_character(patch: pytest.MonkeyPatch) -> None:
    """What a peer says is kept as it comes."""
    patch.setattr(binderhub, "cleaned", lambda text: text if isinstance(text, str) else "")


def gives_up_at_once(patch: pytest.MonkeyPatch) -> None:
    """No second peer is ever asked."""
    from broker.forwarding import choosing

    inner = choosing.following
    patch.setattr(
        choosing,
        "following",
        lambda service, launch: None if rows.of_launch(service, launch.id) else inner(service, launch),
    )


BROKEN: Mapping[str, Broken] = {
    "any origin": Broken(patch=any_origin, lies=("redirect to a foreign hub", "ready at a foreign hub"), says="nobody"),
    "asks again": Broken(patch=asks_again, lies=("slow",), says="was asked 2 times", kills=True),
    "a failure that nobody hears of": Broken(patch=says_nothing, lies=("404",), says="lost silently"),
    "a close that nobody hears of": Broken(patch=closes_wordlessly, lies=("404",), says="lost silently"),
    "a way in that is kept": Broken(patch=keeps_the_way_in, lies=("slow",), says="left open"),
    "every character": Broken(patch=believes_every_character, lies=("control characters",), says="no page can show"),
    "no second peer": Broken(patch=gives_up_at_once, lies=("full after all",), says="would have run it"),
}  # fmt: skip
assert all(name in lies.LIES for each in BROKEN.values() for name in each.lies)
