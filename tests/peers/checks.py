"""What must hold of every schedule, however its peers lie. Each check gives its faults in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx
import sqlalchemy as sa

from broker import events
from broker.forwarding import choosing, entering, rows
from broker.models import Forward, State
from broker.service import Service
from federation.binderhub import MESSAGE_MOST

if TYPE_CHECKING:
    from tests.peers.play import Stage

MEANT = (200, 302, 303, 307, 404, 410, 503)


def torn(at: Service) -> list[str]:
    """No launch has two open tries, at any moment."""
    count = sa.func.count()
    query = (
        sa.select(Forward.launch_id).where(Forward.closed_at.is_(None)).group_by(Forward.launch_id).having(count > 1)
    )
    with at.db.reading() as session:
        return [f"{found} has two open tries" for found in session.scalars(query)]


def settled(stage: Stage, asked: Mapping[int, str]) -> list[str]:
    """Each launch is ready at one place or failed with a sentence, and nobody was asked twice, or who is not known."""
    faults = _foreign(stage)
    for number, launch_id in asked.items():
        faults += _one(stage, number, launch_id)
    return [*faults, *_tokens(stage)]


def ended(stage: Stage, asked: Mapping[int, str]) -> list[str]:
    """All are over, no way in is kept, and no try is open."""
    faults = _foreign(stage) + _tokens(stage)
    for launch_id in asked.values():
        for each in rows.of_launch(stage.bench.at, launch_id):
            if each.closed_at is None or each.way_in is not None or not each.outcome:
                faults.append(f"{launch_id}: a try at {each.peer} was left open")
        faults += _sentence(stage, launch_id)
    return faults


def page(place: str, answer: httpx.Response) -> list[str]:
    faults = [] if answer.status_code in MEANT else [f"{place} answers with {answer.status_code}"]
    kind = answer.headers.get("content-type", "")
    if "html" in kind and ("<script>lie" in answer.text or "<img src=x" in answer.text):
        faults.append(f"{place} holds a peer's HTML")
    return faults


def _one(stage: Stage, number: int, launch_id: str) -> list[str]:
    at, launch = stage.bench.at, stage.bench.launch(launch_id)
    tries = rows.of_launch(at, launch_id)
    faults = _asked_once(stage, number, launch_id, tries)
    if sum(each.ready_at is not None for each in tries) > 1:
        faults.append(f"{launch_id}: handed over twice")
    lines = events.read(at, launch_id)
    if sum(line["phase"] == "ready" for line in lines) > 1:
        faults.append(f"{launch_id}: ready twice")
    if any(len(line["message"]) > MESSAGE_MOST + 200 for line in lines) or len(lines) > 400 * (len(tries) + 1):
        faults.append(f"{launch_id}: its log is longer than any limit")
    if any(not (char.isprintable() or char in "\n\t") for line in lines for char in line["message"]):
        faults.append(f"{launch_id}: its log has characters that no page can show")
    if launch.runs:
        return faults + _handed_over(stage, launch_id)
    if launch.state is not State.STOPPED:
        return [*faults, f"{launch_id}: neither ready nor over: {launch.state}"]
    return faults + _sentence(stage, launch_id) + _given_up(stage, launch_id, tries)


def _asked_once(stage: Stage, number: int, launch_id: str, tries: list[Forward]) -> list[str]:
    """A try is one request. What a hub is asked beyond that might run twice."""
    wanted = Counter(each.peer for each in tries)
    name = f"{stage.bench.repo}{number}/"
    faults = []
    for place, hub in enumerate(stage.hubs):
        times = sum(name in unquote(spec) for spec in hub.builds)
        if times > wanted[f"p{place}"]:
            faults.append(f"{launch_id}: p{place} was asked {times} times in {wanted[f'p{place}']} tries")
    return faults


def _handed_over(stage: Stage, launch_id: str) -> list[str]:
    """To its own peer's registered origin, and to no other place."""
    launch = stage.bench.launch(launch_id)
    found = entering.entry(stage.bench.at, launch)
    place = next((n for n in range(len(stage.hubs)) if launch.backend == f"p{n}"), None)
    if found is None or place is None:
        return [f"{launch_id}: ready without a way in"]
    if not found.with_token.startswith(f"{stage.hubs[place].url}/"):
        return [f"{launch_id}: handed over to {found.url}"]
    return []


def _sentence(stage: Stage, launch_id: str) -> list[str]:
    """Who is turned away is told why, in a sentence, and so is their log."""
    launch = stage.bench.launch(launch_id)
    last = stage.bench.said(launch)[-1:]
    if launch.state is State.STOPPED and not (last and last[0].strip()):
        return [f"{launch_id}: over without a word"]
    return []


def _given_up(stage: Stage, launch_id: str, tries: list[Forward]) -> list[str]:
    """It is given up only where no hub was left that would have run it."""
    outcomes = Counter(each.outcome for each in tries)
    if outcomes["build_failed"] >= choosing.BUILDS_MOST or not tries:
        return []
    gone = {each.peer for each in tries if each.outcome != rows.INTERRUPTED}
    public = stage.plan.peers[int(tries[0].peer[1:])].publishes
    left = [
        f"p{number}"
        for number, each in enumerate(stage.plan.peers)
        if each.honest and (public or not each.publishes) and f"p{number}" not in gone
    ]
    wronged = [each for each in tries if each.closed_at and _is_honest(stage, each)]
    faults = [f"{launch_id}: given up although {name} would have run it" for name in left]
    return faults + [f"{launch_id}: {each.outcome} at {each.peer}, which is honest" for each in wronged]


def _is_honest(stage: Stage, tried: Forward) -> bool:
    """A hub that is honest may still be silent for as long as `play.LIMITS` allow, where this computer does much else."""
    return stage.plan.peers[int(tried.peer[1:])].honest and tried.outcome not in (rows.INTERRUPTED, "silent")


def _foreign(stage: Stage) -> list[str]:
    return [f"a hub that nobody registered was asked: {line}" for line in stage.foreign.asked]


def _tokens(stage: Stage) -> list[str]:
    """What opens something at one hub is shown to no other."""
    faults = []
    for place, hub in enumerate(stage.hubs):
        own = _of(stage, hub)
        shown = {line[2].removeprefix("token ") for line in hub.asked if line[2]}
        known = {token for other in stage.hubs if other is not hub for token in _of(stage, other)}
        faults += [f"p{place} was shown what opens another hub" for token in shown & (known - own)]
    return faults


def _of(stage: Stage, hub: Any) -> set[str]:
    return {f"persons-own-0123456789-at-p{stage.hubs.index(hub)}", *hub.given}
