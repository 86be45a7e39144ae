"""Playing a schedule: peers that lie, launches sent to them, whoever listens killed on the way; and what must hold of it.

A launch of a schedule is known at a hub by its repository: each has one of its own. The clock stands still but where it is moved,
and what waits for a peer waits for no longer than LIMITS.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.testclient import TestClient

from broker import app, connections, errors, launches, peers, people
from broker.forwarding import rows
from broker.models import Launch, State
from federation import binderhub
from tests.broker.conftest import Bench
from tests.broker.listening import Listening
from tests.peers import checks, lies
from tests.peers.liar import KILL_SECONDS, Foreign, Liar
from tests.peers.plans import PeerPlan, Plan
from tests.waiting import until

LIMITS = binderhub.Limits(line=128 * 1024, total=1_000_000, lines=300, between=0.8, whole=2.0)
SETTLED_SECONDS = 40.0
"""Four peers that each take all that LIMITS give them, on a computer that does something else as well."""
LEASE_SECONDS = rows.LEASE.total_seconds() + 1
TOKEN = "persons-own-0123456789-at-{}"
LOOKS = 3


@dataclass
class Outcome:
    """What became of a schedule."""

    plan: Plan
    faults: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    """One word a launch: `ready`, or its reason."""
    kills: int = 0

    def __str__(self) -> str:
        return "\n".join([f"seed {self.plan.seed}: {self.plan}", *self.faults])


class Stage:
    """The broker of one schedule, and the hubs that it believes to be its peers."""

    def __init__(self, bench: Bench, plan: Plan, hubs: list[Liar], foreign: Foreign) -> None:
        self.bench, self.plan, self.hubs, self.foreign = bench, plan, hubs, foreign
        self.kills = 0
        self.torn: list[str] = []
        """What was seen on the way that must never be."""
        self._wanted, self._done = threading.Event(), threading.Event()
        self._stack = contextlib.ExitStack()
        self._listening = self._stack.enter_context(Listening(bench.at, LIMITS))

    def close(self) -> None:
        self._done.set()
        self._stack.close()

    def kill(self) -> None:
        """Of a hub, in the middle of a stream: whoever listens ends here. Comes back once they have."""
        if not self._done.is_set():
            self._wanted.set()
            self._done.wait(KILL_SECONDS)

    def settle(self, wanted: list[str], seconds: float) -> None:
        """Every step that is due, until each launch is ready or over."""
        until(lambda: self._turn(wanted), seconds=seconds, what="every launch to be ready or over")

    def _turn(self, wanted: list[str]) -> bool:
        if self._wanted.is_set() and not self._done.is_set():
            self._killed(self.plan.kill[3] if self.plan.kill else "restart")
        found = [self.bench.advance(self.bench.launch(each)) for each in wanted]
        self.torn += checks.torn(self.bench.at)
        return all(each.runs or each.state is State.STOPPED for each in found)

    def _killed(self, how: str) -> None:
        """Its process ends and another comes: of the same state folder at once, or one more once its lease is over; or one more
        comes too early, while the first still listens."""
        self.kills += 1
        if how != "beside":
            self._stack.close()
        if how == "restart":
            rows.release(self.bench.at)
        else:
            self.bench.clock.move(seconds=LEASE_SECONDS)
        self._stack.enter_context(Listening(self.bench.at, LIMITS))
        self._done.set()


@contextlib.contextmanager
def staged(plan: Plan, make_bench: Callable[..., Bench]) -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        foreign = stack.enter_context(Foreign())
        hubs = [stack.enter_context(_hub(each, foreign)) for each in plan.peers]
        told = [_setting(number, each, hub) for number, (each, hub) in enumerate(zip(plan.peers, hubs, strict=True))]
        stage = Stage(make_bench(peers=told), plan, hubs, foreign)
        stack.callback(stage.close)
        if plan.kill is not None:
            at, request, line, _ = plan.kill
            _interrupt(hubs[at], request, line, stage.kill)
        yield stage


def play(plan: Plan, make_bench: Callable[..., Bench], seconds: float = SETTLED_SECONDS) -> Outcome:
    """The schedule from its first look to what is left at the end."""
    outcome = Outcome(plan)
    with staged(plan, make_bench) as stage:
        bench, at = stage.bench, stage.bench.at
        for number, each in enumerate(plan.peers):
            if each.own_token:
                _connect(bench, number)
        for _ in range(plan.looks):
            peers.look(at)
        wanted = {number: _request(bench, number, first) for number, first in enumerate(plan.launches)}
        asked = {number: found for number, found in wanted.items() if found}
        try:
            stage.settle(list(asked.values()), seconds)
            outcome.faults += checks.settled(stage, asked)
            outcome.faults += _pages(stage, list(asked.values()))
            outcome.ends = [_end(bench.launch(each)) for each in asked.values()]
            _live_on(stage, list(asked.values()))
            outcome.faults += checks.ended(stage, asked)
        except AssertionError as lost:
            states = {each: (str(bench.launch(each).state), _tries(at, each)) for each in asked.values()}
            outcome.faults.append(f"lost silently: {lost} {states}")
        outcome.faults += stage.torn
        outcome.kills = stage.kills
    return outcome


def _hub(plan: PeerPlan, foreign: Foreign) -> Liar:
    told = [lies.HONEST if name == "honest" else lies.LIES[name] for name in plan.answers]
    hub = Liar(told, foreign.url, "" if plan.session == "deaf" else plan.session)
    hub.obeys = plan.session != "deaf"
    hub.answers = dict(lies.SAYS[plan.says])
    return hub


def _setting(number: int, plan: PeerPlan, hub: Liar) -> dict[str, Any]:
    return {"name": f"p{number}", "url": hub.url, "publishes": plan.publishes, "anonymous": not plan.own_token}


def _interrupt(hub: Liar, request: int, line: int, kill: Callable[[], None]) -> None:
    """Whoever listens is killed before this line of its answer to this request."""
    hub.kill = kill
    inner = hub.plan[min(request, len(hub.plan) - 1)]

    def lie(told: Any, foreign: str) -> lies.Answer:
        answer = inner(told, foreign)
        lines = list(answer.lines)
        lines.insert(min(line, len(lines)), "kill")
        return lies.Answer(lines=tuple(lines), status=answer.status, headers=answer.headers)

    rest = hub.plan[1:] or [inner]
    hub.plan = [*hub.plan[:request], lie, *rest]


def _connect(bench: Bench, number: int) -> None:
    name = f"p{number}"
    kinds = peers.kinds(bench.at, people.LOCAL, name)
    token = {"token": TOKEN.format(name)}
    connections.connect(bench.at, people.LOCAL, peers.target_of(name), kinds, "token", token)


def _request(bench: Bench, number: int, first: int) -> str:
    """The launch of its own repository at this peer; empty where it is refused with a sentence."""
    try:
        return bench.request(repo=f"{bench.repo}{number}", backend=f"p{first}", name=f"n{number}").id
    except errors.BrokerError as refusal:
        assert str(refusal).endswith("."), f"refused without a sentence: {refusal}"
        return ""


def _live_on(stage: Stage, asked: list[str]) -> None:
    """Sessions are looked at a few times, then stopped: each comes to its end, whatever its hub says of it."""
    bench = stage.bench
    if not stage.plan.stops:
        for _ in range(LOOKS):
            bench.clock.move(minutes=16)
            for each in asked:
                bench.advance(bench.launch(each))
    for each in asked:
        if bench.launch(each).state is not State.STOPPED:
            launches.stop(bench.at, each)
            bench.until_stopped(bench.launch(each), looks=400)


def _pages(stage: Stage, asked: list[str]) -> list[str]:
    """What a person's browser is given of it all: no word of a peer's as anything but text, and no page that fails."""
    made = app.create(stage.bench.at)
    headers = {"Authorization": f"Bearer {made.state.door.bearer}", "Accept": "text/html"}
    client = TestClient(made, base_url="http://localhost:8000", headers=headers, raise_server_exceptions=False)
    places = ["/", "/launches", "/versions", "/health", *(f"/launches/{each}" for each in asked)]
    return [fault for place in places for fault in checks.page(place, client.get(place, follow_redirects=False))]


def _end(launch: Launch) -> str:
    return "ready" if launch.runs else str(launch.reason)


def _tries(at: Any, launch_id: str) -> list[tuple[str, str]]:
    return [(each.peer, each.outcome) for each in rows.of_launch(at, launch_id)]
