"""What can go wrong on demand."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CALLS = (
    "sign_in", "offers", "provision", "describe", "terminate", "instances", "logs", "make_switch", "pull_switch",
)  # fmt: skip

REFUSALS = {
    "no_capacity": (409, "There are no machines of this kind free right now."),
    "quota": (429, "The quota {quota} of this account is used up."),
    "bad_credential": (401, "The credential is not accepted, or has expired."),
    "permission": (403, "The permission {permission} is missing."),
    "invalid_order": (400, "The order makes no sense."),
    "throttled": (429, "There were too many calls."),
    "unavailable": (503, "The cloud has an outage."),
}
"""The call is refused and has no effect. `quota=` and `permission=` name what is used up or missing."""

ON_THE_WAY = {
    "lost_request": "never arrives; no answer comes",
    "lost_response": "takes effect, its answer is lost; with `late` (seconds) the effect comes that much later",
    "duplicate": "arrives twice, at once",
    "slow": "takes `seconds` of real time, `when` before (the default) or after its effect",
    "hold": "waits, `when` before (the default) or after its effect, until it is released",
    "garbled": "takes effect, and its answer makes no sense",
}

ON_THE_MACHINE = {
    "slow_boot": "boots for `seconds` (60)",
    "never_dials": "runs, but its agent never starts",
    "build_fails": "runs, and its builder fails with `message`",
    "half_created": "disk and address are made, the machine is not; the call is answered as `answer` (no_capacity)",
    "dies": "dies `seconds` (0) after it has booted; `leaves` names parts that stay behind",
    "hidden": "shows in lists only `seconds` (60) after it was made, and cannot be ended by its labels before",
    "unknown": "`describe` does not know it for `seconds` (60)",
}
"""Met by `provision`; shown by the machine that it makes."""

ON_THE_END = {
    "slow_end": "takes `seconds` (60) to end",
    "ignored": "is answered well, and does nothing",
}
"""Met by `terminate`."""

KNOWN = {**dict.fromkeys((*REFUSALS, *ON_THE_WAY), CALLS)}
KNOWN |= dict.fromkeys(ON_THE_MACHINE, ("provision",)) | dict.fromkeys(ON_THE_END, ("terminate",))


@dataclass(kw_only=True)
class Fault:
    """One fault, to be met by the next `times` calls that match; None: by all of them."""

    id: int
    call: str
    name: str
    times: int | None = 1
    where: Mapping[str, str] = field(default_factory=dict)
    """What the call must have: `order`, `offer`, `zone`, `id`, `launch`, `broker`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    met: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def matches(self, call: str, facts: Mapping[str, str | None]) -> bool:
        used_up = self.times is not None and self.met >= self.times
        return self.call == call and not used_up and all(facts.get(key) == want for key, want in self.where.items())

    def as_json(self) -> dict[str, Any]:
        shown = ("id", "call", "name", "times", "where", "settings", "met")
        return {name: getattr(self, name) for name in shown}


class Faults:
    """All that are programmed. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._all: list[Fault] = []

    def add(self, call: str, name: str, **rest: Any) -> int:
        """Program one; its number. Raises ValueError for one that nobody would ever meet."""
        if call not in KNOWN.get(name, ()):
            raise ValueError(f"the call {call!r} cannot meet the fault {name!r}")
        with self._lock:
            self._all.append(Fault(id=next(self._ids), call=call, name=name, **rest))
            return self._all[-1].id

    def met_by(self, call: str, facts: Mapping[str, str | None]) -> dict[str, Fault]:
        """The faults this call meets, by name: counted as met."""
        with self._lock:
            met: dict[str, Fault] = {}
            for fault in self._all:
                if fault.name not in met and fault.matches(call, facts):
                    fault.met += 1
                    met[fault.name] = fault
            return met

    def release(self, number: int | None = None) -> None:
        """Let go of the calls held by this fault, or by all."""
        with self._lock:
            for fault in self._all:
                if number in (None, fault.id):
                    fault.released.set()

    def clear(self) -> None:
        """Everything works again; what was held goes on."""
        self.release()
        with self._lock:
            self._all.clear()

    def as_json(self) -> list[dict[str, Any]]:
        with self._lock:
            return [fault.as_json() for fault in self._all]
