"""What must hold after any schedule. Judged afterwards, from the table, the cloud's bill and what is left on this computer."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

EDGES = {
    ("waiting", "placed"), ("placed", "authorized"), ("authorized", "starting"), ("starting", "placed"),
    ("starting", "ready"), ("stopping", "stopped"),
    *((state, "waiting") for state in ("placed", "authorized", "starting")),  # on to another backend
    *((state, "stopping") for state in ("waiting", "placed", "authorized", "starting", "ready")),
}  # fmt: skip
"""docs/architecture.md draws them."""
JUST_BEFORE = 5  # seconds: whoever has begun a step before his clock jumped may finish it after
CLOCKS = 0.01  # the cloud's clock and ours were set by hand; they differ by less
TROUBLE = re.compile(r"task_failed|step_failed|unexpected|unhealthy|Traceback|Exception in|was never")


@dataclass(kw_only=True)
class Evidence:
    """Everything that is left to look at when all is over."""

    attempts: int = 6
    launches: list[dict[str, Any]] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    bought: list[dict[str, Any]] = field(default_factory=list)
    """The cloud's bill: order, kind, created, ended (None: still billed)."""
    left: list[str] = field(default_factory=list)
    """What is there and should not be: machines, parts, processes, folders."""
    phases: tuple[str, ...] = ()
    """What the first launch had to say."""
    log: str = ""
    died_by_itself: int = 0
    jumps: tuple[tuple[float, float], ...] = ()
    """When the broker's clock was set forward, by how many seconds."""

    def real(self, text: str | None) -> float | None:
        """When it was in real life that the broker's clock showed this."""
        when, ahead = instant(text), 0.0
        for at, seconds in self.jumps:
            if when is not None and when >= at + ahead + seconds:
                ahead += seconds
        return None if when is None else when - ahead

    def jumped(self, order: dict[str, Any]) -> bool:
        """Whether the broker's clock was set while this order was open: then leases and waits were over too early."""
        began, ended = self.real(order["created_at"]), self.real(order["closed_at"])
        return any((began or 0) - JUST_BEFORE <= at <= (ended or at) for at, _seconds in self.jumps)


def violations(found: Evidence) -> list[str]:
    """A sentence for each thing that must not be; none when all is well."""
    return [*_of_launches(found), *_of_orders(found), *_of_money(found), *_of_the_bill(found), *_of_the_rest(found)]


# --- launches -------------------------------------------------------------------------------------------------------


def _of_launches(found: Evidence) -> Iterator[str]:
    for launch in found.launches:
        lines = [event for event in found.events if event["launch_id"] == launch["id"]]
        for fault in (*_unfinished(launch), *_misnumbered(launch, lines), *_wrong_walk(lines), *_wrong_outcome(lines)):
            yield f"launch {launch['id']}: {fault}"
    yield from _doubled_names(found)
    if found.phases and found.phases != (said := _phases(found)):
        yield f"the first launch said {said}, not {found.phases}"


def _phases(found: Evidence) -> tuple[str, ...]:
    """The phases of the first launch, each once where several lines have the same."""
    first = found.launches[0]["id"]
    phases = [event["phase"] for event in found.events if event["launch_id"] == first and event["phase"]]
    return tuple(phase for phase, _ in groupby(phases))


def _unfinished(launch: dict[str, Any]) -> Iterator[str]:
    if launch["state"] != "stopped":
        yield f"it ended in {launch['state']}"
    if launch["lease"] or launch["lease_until"]:
        yield "somebody still holds its lease"
    if launch["state"] == "stopped" and (launch["due_at"] or not launch["stopped_at"]):
        yield "it is stopped, and yet something is due"


def _misnumbered(launch: dict[str, Any], lines: list[dict[str, Any]]) -> Iterator[str]:
    numbers = [line["number"] for line in lines]
    if numbers != list(range(1, launch["events"] + 1)):
        yield f"its lines are numbered {numbers}, and should end with {launch['events']}"


def _wrong_walk(lines: list[dict[str, Any]]) -> Iterator[str]:
    states = [line["state"] for line in lines]
    if states[:1] != ["waiting"]:
        yield "it does not begin with waiting"
    for step in pairwise(states):
        if step[0] != step[1] and step not in EDGES:
            yield f"it went from {step[0]} to {step[1]}"
    if states.count("stopped") > 1:
        yield "it goes on after it was stopped"


def _wrong_outcome(lines: list[dict[str, Any]]) -> Iterator[str]:
    phases = [line["phase"] for line in lines if line["phase"]]
    outcomes = [phase for phase in phases if phase in ("ready", "failed")]
    if len(outcomes) != 1:
        yield f"its outcome was said as {outcomes}"
    elif phases[-1] != outcomes[0]:
        yield f"after its outcome came {phases[phases.index(outcomes[0]) + 1 :]}"


def _doubled_names(found: Evidence) -> Iterator[str]:
    """From the first line on, which is written with the row; the row's own instant is that of the wish."""
    began = {event["launch_id"]: event["at"] for event in found.events if event["number"] == 1}
    for name in {launch["name"] for launch in found.launches}:
        same = [launch for launch in found.launches if launch["name"] == name]
        spans = [(began.get(launch["id"], launch["created_at"]), launch["stopped_at"]) for launch in same]
        if _overlap(spans):
            yield f"two launches called {name} ran at the same time"


# --- orders ---------------------------------------------------------------------------------------------------------


def _of_orders(found: Evidence) -> Iterator[str]:
    for launch in found.launches:
        orders = [order for order in found.orders if order["launch_id"] == launch["id"]]
        yield from (f"launch {launch['id']}: {fault}" for fault in _too_many(launch, orders, found.attempts))
    for order in found.orders:
        if order["closed_at"] is None:
            yield f"order {order['id']} is still open"
        if order["asked_at"] and order["closing_at"] and order["asked_at"] > order["closing_at"]:
            yield f"order {order['id']} was asked for after it had been given up"


def _too_many(launch: dict[str, Any], orders: list[dict[str, Any]], attempts: int) -> Iterator[str]:
    """One order at a time; and one hedge beside them in all, where that was declared. Nowhere that was not named."""
    hedges = [order for order in orders if order["hedge"]]
    for backend in {order["backend"] for order in orders}:
        if (count := sum(order["backend"] == backend for order in orders)) > attempts:
            yield f"{count} orders at {backend}, though it may try {attempts} times"
    if len(hedges) > bool(launch["hedged"]):
        yield f"{len(hedges)} hedges, {'though it may have one' if launch['hedged'] else 'though it is not hedged'}"
    if _overlap([(order["created_at"], order["closed_at"]) for order in orders if not order["hedge"]]):
        yield "two orders were open at the same time"
    walked = [(order["backend"], order["created_at"], order["closed_at"]) for order in orders]
    for backend, created, _closed in walked:
        if any(other != backend and start < created < (end or "9") for other, start, end in walked):
            yield f"it went on to {backend} while something was open elsewhere"


def _overlap(spans: list[tuple[str, str | None]]) -> bool:
    """Whether one begins before the one before it has ended; None is never."""
    ordered = sorted(spans, key=lambda span: instant(span[0]) or 0)
    return any(one[1] is None or (instant(one[1]) or 0) > (instant(next_[0]) or 0) for one, next_ in pairwise(ordered))


# --- money ----------------------------------------------------------------------------------------------------------


def _of_money(found: Evidence) -> Iterator[str]:
    """Sums are in millionths, as the table has them."""
    for order in found.orders:
        yield from (f"order {order['id']}: {fault}" for fault in _wrong_sum(order))
    for launch in found.launches:
        orders = [order for order in found.orders if order["launch_id"] == launch["id"]]
        for order in orders if launch["budget"] is not None else ():
            if (taken := _taken(orders, order)) > launch["budget"]:
                yield f"launch {launch['id']}: with order {order['id']} it took {taken}, though its budget is {launch['budget']}"


def _taken(orders: list[dict[str, Any]], last: dict[str, Any]) -> int:
    """What was promised and settled when this one was written, itself included."""
    before = [order for order in orders if order["created_at"] < last["created_at"]]
    open_ = [order for order in before if (order["closed_at"] or "9") > last["created_at"]]
    closed = [order for order in before if order not in open_]
    return sum(order["promised"] for order in (*open_, last)) + sum(order["settled"] or 0 for order in closed)


def _wrong_sum(order: dict[str, Any]) -> Iterator[str]:
    price = _price(order)
    if price is None or order["closed_at"] is None:
        return
    asked, closed = instant(order["first_asked_at"]), instant(order["closed_at"])
    if order["settled"] is None:
        yield f"{order['promised']} was promised and never settled"
        return
    billed = 0 if asked is None or closed is None else max(0, price * (closed - asked))
    if abs(order["settled"] - billed) > 2:
        yield f"{order['settled']} was settled, though {billed:.0f} can have been billed"
    if order["settled"] > order["promised"] + _over_time(order):
        yield f"{order['settled']} was settled, though {order['promised']} was promised"


def _over_time(order: dict[str, Any]) -> float:
    """What it may have cost after its deadline: a cloud that cannot be asked, or is slow to end things, bills all the same."""
    late = (instant(order["closed_at"]) or 0) - (instant(order["until"]) or 0)
    return max(0, late) * (_price(order) or 0) + 1


def _price(order: dict[str, Any]) -> float | None:
    """Millionths a second; None where nobody knows it."""
    known = json.loads(order["offer"])["price_per_hour"]
    return None if known is None else float(known) * 1e6 / 3600


# --- what was bought ------------------------------------------------------------------------------------------------


def _of_the_bill(found: Evidence) -> Iterator[str]:
    orders = {order["id"]: order for order in found.orders}
    stopped = {launch["id"]: found.real(launch["stopped_at"]) for launch in found.launches}
    for order_id in {thing["order"] for thing in found.bought}:
        if order_id not in orders:
            yield f"something was bought for {order_id}, which is no order of ours"
            continue
        order = orders[order_id]
        things = [thing for thing in found.bought if thing["order"] == order_id]
        yield from _of_one_order(order, things)
        if not found.jumped(order):
            yield from _of_its_end(order, things, found.real(order["closed_at"]), stopped.get(order["launch_id"]))


def _of_one_order(order: dict[str, Any], things: list[dict[str, Any]]) -> Iterator[str]:
    machines = [thing["id"] for thing in things if thing["kind"] == "machine"]
    if len(machines) > 1:
        yield f"order {order['id']} bought {len(machines)} machines"
    for thing in things:
        if thing["ended"] is None:
            yield f"{thing['id']} of order {order['id']} is still billed"


def _of_its_end(
    order: dict[str, Any], things: list[dict[str, Any]], closed: float | None, stopped: float | None
) -> Iterator[str]:
    for thing in things:
        for when, word in ((closed, "its order was closed"), (stopped, "its launch was stopped")):
            if when is not None and (thing["ended"] or float("inf")) > when + CLOCKS:
                yield f"{thing['id']} of order {order['id']} was there when {word}"


# --- the rest -------------------------------------------------------------------------------------------------------


def _of_the_rest(found: Evidence) -> Iterator[str]:
    yield from (f"left behind: {each}" for each in found.left)
    if found.died_by_itself:
        yield f"a part of the broker ended by itself {found.died_by_itself} times"
    for line in found.log.splitlines():
        if TROUBLE.search(line):
            yield f"the log says: {line.strip()[:300]}"


def instant(text: str | None) -> float | None:
    """Seconds since 1970 of an instant as SQLite has it."""
    return None if text is None else dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


def walk(found: Evidence) -> str:
    """Every line of every launch, and every order, to read."""
    lines = []
    for launch in found.launches:
        lines.append(f"launch {launch['id']} “{launch['name']}” {launch['state']} reason={launch['reason']}"
                     f" stopped={launch['stopped_at']}")  # fmt: skip
        lines += [
            f"  {line['number']:3} {line['at'][11:23]} {line['state']:10} {line['phase'] or '':9} {line['message'][:100]}"
            for line in found.events
            if line["launch_id"] == launch["id"]
        ]
        lines += [
            f"  order {order['id']} asked={order['asked_at']} instance={order['instance']} enrolled={order['enrolled_at']}"
            f" closing={order['closing_at']} closed={order['closed_at']}"
            for order in found.orders
            if order["launch_id"] == launch["id"]
        ]
    lines += [f"bought {thing}" for thing in found.bought]
    return "\n".join(lines)
