"""What a step may come to."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from broker.launches import waits
from broker.models import Launch, Phase, State
from broker.service import Service
from providers import errors as clouds
from providers.sentences import say


@dataclass(frozen=True, kw_only=True)
class Next:
    """What became of a step: the state it leads to, when to come back, and a line to say."""

    state: State
    wait: float = 0.0
    say: str | None = None
    phase: Phase | None = None
    columns: dict[str, Any] = field(default_factory=dict)


def ready(service: Service, launch: Launch, *, soon: bool = False) -> Next:
    """The session runs; its hours begin now. `soon`: something else is still to be ended."""
    now = service.now()
    deadline = min(launch.deadline_at, now + dt.timedelta(hours=launch.hours))
    times = {"ready_at": now, "deadline_at": deadline, "last_activity_at": now}
    return Next(
        state=State.READY,
        wait=waits.LOOK_SECONDS if soon else service.settings.heartbeat_seconds,
        phase=Phase.READY,
        say="Ready.",
        columns=times,
    )


def over(reason: str, message: str) -> Next:
    """A session that ran ends, for this reason."""
    return Next(state=State.STOPPING, say=message, columns={"reason": reason, "message": message})


def expired(launch: Launch) -> Next:
    """Its time is over."""
    return over("expired", say("Its %(hours)s hours are over.", hours=float(launch.hours)))


def idle(launch: Launch) -> Next:
    """Nobody has used it for as long as its place lets a session lie."""
    return over("idle", say("Stopped after %(minutes)s minutes without activity.", minutes=float(launch.idle_minutes)))


def failed(launch: Launch, error: Exception) -> Next:
    """Out through `terminate`. In `stopping` itself nothing is given up: come back and try again."""
    if launch.state is State.STOPPING:
        say = str(error) if launch.message != str(error) else None
        return Next(
            state=State.STOPPING, wait=waits.RETRY_SECONDS, say=say, columns={"message": str(error)} if say else {}
        )
    reason = getattr(error, "reason", "broker")
    outcome = None if launch.runs else Phase.FAILED
    return Next(state=State.STOPPING, phase=outcome, say=str(error), columns={"reason": reason, "message": str(error)})


def come_back(service: Service, launch: Launch, error: clouds.ProviderUnavailable) -> Next | None:
    """Out of reach: nothing is known, so the same step again; None where a launch that never ran has waited long enough."""
    waited = service.now() - launch.entered_at
    patience = dt.timedelta(minutes=service.settings.boot_minutes)
    if not launch.runs and launch.state is not State.STOPPING and waited > patience:
        return None
    fresh = launch.message != str(error)
    return Next(
        state=launch.state,
        wait=waits.RETRY_SECONDS,
        say=str(error) if fresh else None,
        columns={"message": str(error)} if fresh else {},
    )
