"""A round: many accounts asked at once what is in them, of which some hang. Nobody waits for those.

Each account (a *station*) is asked by the reap grant, which needs nobody to be awake. One that could not be asked is asked
again in the next round, for as long as it takes; how long it has been is kept, and shown.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import structlog

from broker import backends, connections, errors, people, uses
from broker.models import Connection
from broker.service import Service
from providers import errors as clouds

log = structlog.get_logger(__name__)
THREADS = 8  # of one backend: fifty accounts that answer in a second take seven
SLOW_THREADS = 2  # of one backend, for those that did not answer last time: they hold up nobody but themselves
SECONDS = 60.0  # a round ends by then, below a lease; a cloud's call may take 45, signing in another 45

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Station:
    """One account that a round asks."""

    backend: backends.Backend
    connection: Connection | None
    """Whose; None where the compute is the operator's own."""

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by from round to round."""
        return self.backend.name, self.connection.id if self.connection else ""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How it went with one account lately."""

    asked_at: dt.datetime | None = None
    """When it last answered."""
    unasked_since: dt.datetime | None = None
    """Since when it could not be asked; None while it answers."""
    trouble: str = ""
    """Why, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[Found]):
    """What came of one station: something found, or a reason."""

    station: Station
    found: Found | None = None
    trouble: str = ""


def ask(
    service: Service,
    stations: Sequence[Station],
    act: Callable[[Station, backends.Account], Found],
    *,
    what: str,
    seconds: float | None = None,
) -> list[Answer[Found]]:
    """Sign in to each and do this there; what came of it, in the order of the stations, within `seconds` (SECONDS).

    Where it takes longer it goes on behind, and is not begun anew meanwhile. `what`: what each use is written down as.
    """
    answers: queue.SimpleQueue[tuple[int, Answer[Found]]] = queue.SimpleQueue()
    ends = time.monotonic() + (SECONDS if seconds is None else seconds)

    def run(number: int) -> None:
        answers.put((number, _asked(service, stations[number], act, what)))

    for lane, threads in _lanes(service, stations):
        for _ in range(min(threads, len(lane))):
            threading.Thread(target=_work, args=(lane, run, ends), name=f"round-{what}", daemon=True).start()
    heard = dict(_until(answers, len(stations), ends))
    for number in sorted(set(range(len(stations))) - set(heard)):
        heard[number] = _late(service, stations[number])
    return [heard[number] for number in range(len(stations))]


def unasked(service: Service) -> list[tuple[Station, Standing]]:
    """The accounts that could not be asked when they last should have been, as far as this process knows."""
    found = [(station, standing(service, station)) for station in everywhere(service)]
    return [(station, known) for station, known in found if known.unasked_since]


def standing(service: Service, station: Station) -> Standing:
    """How it went there lately, as far as this process knows."""
    return service.standings.get(station.key, Standing())


def _lanes(service: Service, stations: Sequence[Station]) -> Iterator[tuple[deque[int], int]]:
    """Who waits for whom: accounts of one backend, those that answer apart from those that did not. The longest unasked first."""
    lanes: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for number, station in enumerate(stations):
        lanes[station.backend.name, standing(service, station).unasked_since is None].append(number)
    for (_, answers), numbers in lanes.items():
        numbers.sort(key=lambda number: str(standing(service, stations[number]).asked_at or ""))
        yield deque(numbers), THREADS if answers else SLOW_THREADS


def _work(lane: deque[int], run: Callable[[int], None], ends: float) -> None:
    while time.monotonic() < ends:
        try:
            number = lane.popleft()
        except IndexError:
            return
        run(number)


def _until(
    answers: queue.SimpleQueue[tuple[int, Answer[Found]]], count: int, ends: float
) -> Iterator[tuple[int, Answer[Found]]]:
    for _ in range(count):
        try:
            yield answers.get(timeout=max(0.0, ends - time.monotonic()))
        except queue.Empty:
            return


def _asked(
    service: Service, station: Station, act: Callable[[Station, backends.Account], Found], what: str
) -> Answer[Found]:
    """One station, never two at once. Whatever goes wrong there stays there."""
    with _alone(service, (what, *station.key)) as mine:
        if not mine:  # whoever is there writes down how it went
            return Answer(station=station, trouble=f"{station.backend.title} is being asked at this moment.")
        _recall(service, station)
        try:
            found = act(station, connections.reaching(service, station.backend, station.connection, what))
        except (clouds.ProviderError, errors.BrokerError) as error:
            return _could_not(service, station, str(error))
        except Exception:
            log.exception("station_failed", backend=station.backend.name, connection=station.key[1])
            return _could_not(service, station, "Something went wrong in this broker; its log says what.")
    service.standings[station.key] = Standing(asked_at=service.now())
    return Answer(station=station, found=found)


@contextlib.contextmanager
def _alone(service: Service, key: tuple[str, ...]) -> Iterator[bool]:
    """Whether nobody of this process is there at this moment, for the same."""
    with service.round_lock:
        mine = key not in service.under_way
        service.under_way.add(key)
    try:
        yield mine
    finally:
        if mine:
            with service.round_lock:
                service.under_way.discard(key)


def _late(service: Service, station: Station) -> Answer[Found]:
    return _could_not(service, station, f"{station.backend.title} has not answered yet.")


def _could_not(service: Service, station: Station, trouble: str) -> Answer[Found]:
    before = standing(service, station)
    since = before.unasked_since or before.asked_at or service.now()
    service.standings[station.key] = replace(before, unasked_since=since, trouble=trouble)
    log.warning("unasked", backend=station.backend.name, connection=station.key[1], since=str(since), error=trouble)
    return Answer(station=station, trouble=trouble)


def _recall(service: Service, station: Station) -> None:
    """In a process that has not asked it yet: when another was last let in, as the table has it."""
    if station.connection and station.key not in service.standings:
        service.standings[station.key] = Standing(asked_at=uses.last_good(service, station.connection.id))


# --- which accounts -------------------------------------------------------------------------------------------------


def everywhere(service: Service, *, rarely: bool = False) -> list[Station]:
    """Every account in which this broker may have something. Asks nobody.

    `rarely`: leave out those where the table knows of no purchase and that were looked into lately.
    """
    found: list[Station] = []
    for backend in backends.offered(service):
        rows: Iterable[Connection | None] = (None,)
        if backend.asks_for_account:
            rows = connections.to_sweep(service, backend, rarely=rarely)
        found += [Station(backend=backend, connection=row) for row in rows]
    return found


def of(service: Service, person: people.Person) -> list[Station]:
    """Every account in which something of this person's may be: their own, and the operator's. Asks nobody."""
    return [
        station
        for station in everywhere(service)
        if station.connection is None or station.connection.person == person.id
    ]
