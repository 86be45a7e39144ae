"""Taking a launch from state to state, one step at a time, under a lease.

Leases and outcomes are written in passing: a step may be repeated, and what it has bought or promised it has itself made durable.
"""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
import structlog
from sqlalchemy import orm

from broker import crypto, db, errors, events, metrics, seats
from broker.launches import elsewhere, outcomes, steps
from broker.launches.outcomes import Next
from broker.launches.rows import locked
from broker.models import Launch, State
from broker.service import Service
from providers import errors as clouds

log = structlog.get_logger(__name__)

SILENT = {
    State.PLACED: "A place to run was found.",
    State.AUTHORIZED: "The place to run lets us in.",
    State.STOPPING: "Ending everything that was started.",
}


def advance(service: Service, launch_id: str) -> None:
    """Take every step that can be taken now. Safe to call at any time, from any number of workers at once."""
    launch = _lease(service, launch_id)
    while launch is not None:
        with structlog.contextvars.bound_contextvars(launch=launch_id):
            launch = _settle(service, launch, _step(service, launch))


def due(service: Service) -> list[str]:
    """Launches whose next step is due and that nobody holds."""
    now = service.now()
    query = sa.select(Launch.id).where(
        Launch.due_at <= now, sa.or_(Launch.lease_until.is_(None), Launch.lease_until < now)
    )
    with service.db.reading() as session:
        return list(session.scalars(query))


def release_leases(service: Service) -> None:
    """Forget every lease. Only for the one process that owns the state folder, as it starts."""
    with service.db.transaction() as session:
        session.execute(sa.update(Launch).where(Launch.lease.is_not(None)).values(lease=None, lease_until=None))


def _lease(service: Service, launch_id: str) -> Launch | None:
    """The launch, ours until it is settled or the lease runs out; None where it is not due or somebody has it."""
    now, token = service.now(), crypto.new_id(16)
    free = sa.or_(Launch.lease_until.is_(None), Launch.lease_until < now)
    claim = (
        sa.update(Launch)
        .where(Launch.id == launch_id, Launch.due_at <= now, free)
        .values(lease=token, lease_until=now + _longest(service))
        .returning(Launch)
        .execution_options(synchronize_session=False)
    )
    with service.db.transaction(passing=True) as session:
        return session.scalars(claim).one_or_none()


def _longest(service: Service) -> dt.timedelta:
    return dt.timedelta(seconds=service.settings.lease_seconds)


def _step(service: Service, launch: Launch) -> Next:
    """Act, and turn whatever goes wrong into the next state."""
    if launch.stop_wanted and launch.state is not State.STOPPING:
        return Next(state=State.STOPPING)
    try:
        return steps.STEPS[launch.state](service, launch)
    except clouds.ProviderUnavailable as error:
        return outcomes.come_back(service, launch, error) or _give_up(service, launch, error)
    except (errors.BrokerError, clouds.ProviderError) as error:
        return _give_up(service, launch, error)
    except Exception as error:
        log.exception("step_failed", state=launch.state)
        return outcomes.failed(
            launch, errors.BrokerError(f"The broker met an error of its own ({type(error).__name__}).")
        )


def _give_up(service: Service, launch: Launch, error: Exception) -> Next:
    """This backend has nothing for it: on to the next that its person named, else out."""
    return elsewhere.go_on(service, launch, error) or outcomes.failed(launch, error)


def _settle(service: Service, held: Launch, outcome: Next) -> Launch | None:
    """Write what became of the step, unless the lease has passed to somebody else. The launch, where the next step is to be
    taken at once: it is ours for as long again."""
    now = service.now()
    with service.db.transaction(passing=True) as session:
        launch = locked(session, held.id)
        if launch is None or launch.lease != held.lease:
            log.warning("lease_lost", state=held.state)
            return None
        if launch.stop_wanted and not held.stop_wanted:
            outcome = Next(state=State.STOPPING)  # the outcome was said with that wish, and is said only once
        entered = outcome.state is not launch.state
        if entered:
            launch.state, launch.entered_at = outcome.state, now
        for column, value in outcome.columns.items():
            setattr(launch, column, value)
        nudged = launch.due_at != held.due_at  # one that came in during the step must not wait
        over = launch.state is State.STOPPED
        at_once = (nudged or not outcome.wait) and not over
        launch.due_at = None if over else now + dt.timedelta(seconds=0 if at_once else outcome.wait)
        if at_once:
            launch.lease_until = now + _longest(service)
        else:
            launch.lease = launch.lease_until = None
        if outcome.say or entered:
            _say(service, session, launch, outcome)
        if not (at_once or over):
            soon = outcome.wait + 0.01  # never a moment before it is due
            db.after_commit(session, lambda: service.queue.enqueue("advance", held.id, delay=soon))
    if launch.state is State.STOPPED or launch.backend != held.backend:
        seats.call_next(service, held.backend)
    if entered:
        log.info("launch_state", state=outcome.state, was=held.state)
        metrics.entered(launch, held.state)
    return launch if at_once else None


def _say(service: Service, session: orm.Session, launch: Launch, outcome: Next) -> None:
    if outcome.say is None:
        events.append(service, session, launch, SILENT.get(outcome.state, ""))
    else:
        more = {"reason": launch.reason} if launch.reason else {}
        events.append(service, session, launch, outcome.say, phase=outcome.phase, **more)
