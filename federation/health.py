"""How a peer stands, from what was seen of it. Pure: what was seen goes in, a standing comes out.

One bad answer is no outage, and one good answer ends none: it takes several in a row. A peer that keeps falling is
rested. Room is by its own count against its own quota, with some kept free for those who come by other ways.
"""

from __future__ import annotations

import datetime as dt
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

DOWN_AFTER = 3  # bad answers in a row
UP_AFTER = 2  # good answers in a row, once it was down
FALLS = 3  # times down within FALL_WINDOW that make it one that is rested
FALL_WINDOW = dt.timedelta(hours=1)
REST = dt.timedelta(minutes=10)
REST_MOST = dt.timedelta(hours=2)
HEADROOM = 10  # places kept free on a large hub; mybinder.org's own value
FULL_FOR = dt.timedelta(seconds=60)  # how long a peer that turned a launch away for lack of room is not asked


class Condition(enum.StrEnum):
    """What can be done with a peer now."""

    OPEN = "open"
    UNKNOWN = "unknown"
    """Nobody has looked yet, or not often enough to say. It may be tried, after those that are known to be open."""
    FULL = "full"
    DRAINING = "draining"
    """Its operator or ours sends nothing new there; what runs there goes on."""
    RESTING = "resting"
    DOWN = "down"


USABLE = (Condition.OPEN, Condition.UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one look found."""

    ok: bool
    why: str = ""
    """What was wrong, in a sentence."""
    total: int | None = None
    """How many sessions and builds it says to have."""
    quota: int | None = None
    """How many it says that it lets in; None where it does not say."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known of a peer by all that was seen. Begins empty."""

    up: bool | None = None
    good: int = 0
    """Good answers in a row."""
    bad: int = 0
    why: str = ""
    """What was wrong the last time that something was."""
    total: int | None = None
    quota: int | None = None
    full: bool = False
    fell: tuple[dt.datetime, ...] = ()
    """When it went down lately."""
    rests_until: dt.datetime | None = None
    full_until: dt.datetime | None = None
    """It turned a launch away, whatever it says of itself."""
    seen_at: dt.datetime | None = None

    @property
    def room(self) -> float | None:
        """The share of its places that is free, from 0 to 1; None where it does not say."""
        if self.quota is None or self.total is None:
            return None
        return max(0.0, 1 - self.total / self.quota) if self.quota > 0 else 0.0


def observed(before: Standing, seen: Seen, now: dt.datetime) -> Standing:
    """The standing after this look."""
    after = _well(before, now) if seen.ok else _badly(before, seen.why, now)
    if seen.ok:
        turned_away = before.full_until is not None and now < before.full_until
        after = replace(after, total=seen.total, quota=seen.quota, full=_is_full(before, seen))
        after = replace(after, why=before.why if turned_away else after.why)
    return replace(after, seen_at=now)


def experienced(before: Standing, reason: str, why: str, now: dt.datetime, seconds: float | None = None) -> Standing:
    """The standing after a launch there: `reason` is that of its PeerError, empty where it went well.

    Who turns launches away is full, whatever it says; who is not believed is rested at once; silence is a bad answer.
    """
    if not reason:
        return replace(_well(before, now), full_until=None)
    if reason == "full":
        wait = FULL_FOR if seconds is None else min(max(FULL_FOR, dt.timedelta(seconds=seconds)), REST_MOST)
        return replace(before, full_until=now + wait, why=why)
    if reason == "not_believed":
        return replace(before, rests_until=now + REST, why=why)
    if reason in ("silent", "vanished"):
        return _badly(before, why, now)
    return before


def condition(standing: Standing, now: dt.datetime, *, draining: bool = False) -> Condition:
    """What can be done with it at this moment."""
    if draining or standing.quota == 0:
        return Condition.DRAINING
    if standing.rests_until is not None and now < standing.rests_until:
        return Condition.RESTING
    if standing.up is False:
        return Condition.DOWN
    if standing.full or (standing.full_until is not None and now < standing.full_until):
        return Condition.FULL
    return Condition.OPEN if standing.up else Condition.UNKNOWN


def kept_free(quota: int) -> int:
    """How many places of so many are left to others: a tenth, at least one, at most HEADROOM."""
    return max(1, min(HEADROOM, math.ceil(quota / 10)))


def told(standing: Standing) -> dict[str, Any]:
    """As JSON."""
    return {
        "up": standing.up,
        "good": standing.good,
        "bad": standing.bad,
        "why": standing.why,
        "total": standing.total,
        "quota": standing.quota,
        "full": standing.full,
        "fell": [at.isoformat() for at in standing.fell],
        **{name: _iso(getattr(standing, name)) for name in _TIMES},
    }


def read(row: Mapping[str, Any]) -> Standing:
    """What `told` wrote; a standing that knows nothing where there is nothing yet."""
    known = {name: value for name, value in row.items() if name in Standing.__dataclass_fields__}
    known |= {name: dt.datetime.fromisoformat(known[name]) for name in _TIMES if known.get(name)}
    known["fell"] = tuple(dt.datetime.fromisoformat(at) for at in known.get("fell", ()))
    return Standing(**known)


_TIMES = ("rests_until", "full_until", "seen_at")


def _iso(at: dt.datetime | None) -> str | None:
    return at.isoformat() if at else None


def _well(before: Standing, now: dt.datetime) -> Standing:
    good = before.good + 1
    up = True if before.up is None or good >= UP_AFTER else before.up
    fell = tuple(at for at in before.fell if now - at < FALL_WINDOW)
    return replace(before, up=up, good=good, bad=0, fell=fell, why="" if up else before.why)


def _badly(before: Standing, why: str, now: dt.datetime) -> Standing:
    bad = before.bad + 1
    after = replace(before, good=0, bad=bad, why=why)
    if before.up is False or bad < DOWN_AFTER:
        return after
    fell = (*(at for at in before.fell if now - at < FALL_WINDOW), now)
    return replace(after, up=False, fell=fell, rests_until=_rest(fell, now) or before.rests_until)


def _rest(fell: tuple[dt.datetime, ...], now: dt.datetime) -> dt.datetime | None:
    """Until when it is left alone, twice as long for every further fall; None where it has not fallen often."""
    beyond = len(fell) - FALLS
    return now + min(REST * 2**beyond, REST_MOST) if beyond >= 0 else None


def _is_full(before: Standing, seen: Seen) -> bool:
    """Full once only what is kept free is left; open again when as much more is free, so that it does not flicker."""
    if seen.quota is None or seen.total is None:
        return False
    spare = kept_free(seen.quota)
    return seen.total + spare * (2 if before.full else 1) > seen.quota
