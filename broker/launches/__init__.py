"""The spine: one launch, from a wish to nothing left.

`request` writes the row; `advance` takes it from state to state, one step at a time, under a lease:

    waiting ─place→ placed ─authorize→ authorized ─provision→ starting ─await_agent→ ready ─watch→ stopping ─terminate→ stopped

A step acts, then says what became of it (`Next`). It never sleeps, it may be repeated, and no network call happens
inside a transaction. Any error ends in `terminate`, the one way out.
"""

from broker.launches.advancing import advance, due, release_leases
from broker.launches.asking import finish_build, get, listed, request, stop, want_stop
from broker.launches.extending import Room, extend, room
from broker.launches.outcomes import Next
from broker.launches.rows import locked, nudge
from broker.launches.steps import STEPS

__all__ = [
    "STEPS",
    "Next",
    "Room",
    "advance",
    "due",
    "extend",
    "finish_build",
    "get",
    "listed",
    "locked",
    "nudge",
    "release_leases",
    "request",
    "room",
    "stop",
    "want_stop",
]
