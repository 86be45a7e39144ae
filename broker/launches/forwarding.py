"""The steps of a launch that a peer runs. They read rows; what the peer says is read elsewhere (`broker.forwarding.streams`)."""

from __future__ import annotations

import datetime as dt
from typing import Any

from broker import errors, metrics
from broker.forwarding import choosing, rows, sessions
from broker.launches import outcomes, waits
from broker.launches.outcomes import Next
from broker.models import Forward, Launch, Phase, State
from broker.service import Service
from federation.binderhub import Life, Limits
from federation.peers import Peer
from providers import sentences

LOOK_SECONDS = 30  # at a launch whose stream is being read: what it says nudges
OVERDUE = dt.timedelta(seconds=Limits().whole) + dt.timedelta(minutes=5)
AGAIN = dt.timedelta(minutes=1)  # between two looks at a session that gave no answer
LEFT = "It could not be seen to end. That hub ends it when nobody uses it."


def ask(service: Service, launch: Launch) -> Next:
    """Choose a peer and write the try down; whoever reads streams asks there. Raises PeersFailed where none is left."""
    option = choosing.following(service, launch)
    if option is None:
        raise errors.PeersFailed(_told(launch))
    peer = option.known.peer
    rows.open_try(service, launch, peer.name, option.connection)
    now = service.now()
    columns: dict[str, Any] = {"message": ""}
    if launch.seated_at is None:
        preparing = dt.timedelta(hours=launch.hours) + service.settings.preparing
        columns |= {"seated_at": now, "deadline_at": now + preparing}
    return Next(state=State.FORWARDED, wait=LOOK_SECONDS, phase=Phase.WAITING, say=_asking(peer), columns=columns)


def attend(service: Service, launch: Launch) -> Next:
    """A launch at a peer: on its way, ready, or running; where its try was closed, the next peer is asked."""
    forward = rows.current(service, launch.id)
    if forward is None:
        if launch.ready_at is not None:
            return outcomes.over("ended", sentences.say("Its session there has ended."))
        return ask(service, launch)
    if launch.ready_at is not None:
        return _watch(service, launch, forward)
    if forward.ready_at is not None:
        return _ready(service, launch, forward)
    if service.now() - forward.opened_at > OVERDUE:
        rows.closed(service, forward, "silent")
        say = f"{_title(service, launch)} took too long.{f' {rows.RUNS_ON}' if rows.may_run_on(forward) else ''}"
        return Next(state=State.FORWARDED, say=say, phase=Phase.WAITING)
    return Next(state=State.FORWARDED, wait=LOOK_SECONDS)


def end(service: Service, forward: Forward) -> Next:
    """The way out of a launch at a peer: its session is told to end, and asked after until it answers no more."""
    outcome = sessions.end(service, forward)
    if outcome is sessions.End.PENDING:
        since = service.now() - (forward.closing_at or service.now())
        return Next(state=State.STOPPING, wait=max(1.0, waits.until_gone(since)))
    rows.closed(service, forward, str(outcome))
    say = LEFT if outcome is sessions.End.LEFT else "Nothing of it is left."
    return Next(state=State.STOPPED, say=say, columns={"stopped_at": service.now()})


def _ready(service: Service, launch: Launch, forward: Forward) -> Next:
    now = forward.ready_at or service.now()
    metrics.became_ready(launch, now)
    deadline = min(launch.deadline_at, now + dt.timedelta(hours=launch.hours))
    times = {"ready_at": now, "deadline_at": deadline, "last_activity_at": now, "message": ""}
    return Next(
        state=State.FORWARDED,
        wait=_session_look(service).total_seconds(),
        phase=Phase.READY,
        say=f"Ready at {_title(service, launch)}.",
        columns=times,
    )


def _watch(service: Service, launch: Launch, forward: Forward) -> Next:
    """Idleness is judged by what the session itself just said: what was known before may be a quarter of an hour old."""
    now = service.now()
    if now >= launch.deadline_at:
        return outcomes.expired(launch)
    due = (forward.looked_at or launch.ready_at or now) + (AGAIN if forward.silent_at else _session_look(service))
    if now < due:
        return Next(state=State.FORWARDED, wait=(min(due, launch.deadline_at) - now).total_seconds())
    found = sessions.look(service, forward)
    if found.life is Life.GONE:
        return outcomes.over(
            "ended", sentences.say("Its session at %(place)s has ended.", place=_title(service, launch))
        )
    if found.life is Life.UNKNOWN:
        return _silent(service, launch, forward)
    rows.note(service, forward, looked_at=now, silent_at=None)
    active = max(min(found.last_activity or now, now), launch.ready_at or now)
    if now - active > dt.timedelta(minutes=launch.idle_minutes):
        return outcomes.idle(launch)
    wait = min(_session_look(service), launch.deadline_at - now)
    return Next(state=State.FORWARDED, wait=wait.total_seconds(), columns={"last_activity_at": active})


def _silent(service: Service, launch: Launch, forward: Forward) -> Next:
    """One look without an answer is nothing; for longer than `silence_minutes` it is lost."""
    now = service.now()
    since = forward.silent_at or now
    rows.note(service, forward, looked_at=now, silent_at=since)
    if now - since > dt.timedelta(minutes=service.settings.silence_minutes):
        return outcomes.over(
            "lost",
            sentences.say("Its session at %(place)s has not answered for too long.", place=_title(service, launch)),
        )
    return Next(state=State.FORWARDED, wait=AGAIN.total_seconds())


def _session_look(service: Service) -> dt.timedelta:
    return dt.timedelta(minutes=service.settings.peer_session_minutes)


def _told(launch: Launch) -> str | None:
    """Why the last one did not, where there was one."""
    return f"No other hub is left that could run it. The last one said: {launch.message}" if launch.message else None


def _asking(peer: Peer) -> str:
    public = "; what is launched there becomes public record" if peer.publishes else ""
    terms = f" Its terms apply: {peer.terms_url}" if peer.terms_url else ""
    return f"{peer.title} is asked to run it{public}.{terms}"


def _title(service: Service, launch: Launch) -> str:
    return choosing.title(service, launch.backend)
