"""The spine: one launch, from a wish to nothing left.

`request` writes the row; `advance` takes it from state to state, one step at a time, under a lease:

    waiting ─place→ placed ─authorize→ authorized ─provision→ starting ─await_agent→ ready ─watch→ stopping ─terminate→ stopped

A step acts, then says what became of it (`Next`). It never sleeps, it may be repeated, and no network call happens
inside a transaction. Any error ends in `terminate`, the one way out.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy import exc, orm

from broker import (
    backends,
    connections,
    crypto,
    db,
    errors,
    events,
    metrics,
    orders,
    people,
    placement,
    policy,
    repo_access,
    repos,
    seats,
    wishes,
)
from broker.models import Launch, Order, Phase, State
from broker.service import Service
from providers import base
from providers import errors as clouds

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5  # when a cloud is out of reach
GONE_SECONDS = 0.25  # between two looks at something that is being ended
TEARDOWN = dt.timedelta(minutes=15)  # that a credential must be good for after the launch's deadline
LOOK_SECONDS = 2  # between two looks at an instance whose agent is expected to speak by itself


@dataclass(frozen=True, kw_only=True)
class Next:
    """What became of a step: the state it leads to, when to come back, and a line to say."""

    state: State
    wait: float = 0.0
    say: str | None = None
    phase: Phase | None = None
    columns: dict[str, Any] = field(default_factory=dict)


# --- asking ---------------------------------------------------------------------------------------------------------


def request(service: Service, person: people.Person, wish: wishes.Wish) -> tuple[Launch, bool]:
    """Write this wish down and have it advance. Returns the launch, and whether it is new.

    The same name with unchanged parameters returns the launch that runs, the same `launch_id` the launch it names.
    Looks the repository up (seconds at most) and buys nothing. Raises RepoError, NoBackend, SpecBanned, RepoQuota,
    ConsentNeeded, NameTaken, BadRequest.
    """
    if known := _known(service, person, wish):
        return known, False
    opener = wishes.opener(service, person, wish)
    found = repo_access.resolve(service, person, service.repos.parse(wish.repo, wish.ref or None), opener)
    backend = placement.choose(service, person, wish.backend)
    backend.require_recent_sign_in(service, person)
    policy.check(service, found, backend)
    wishes.require_consent(service, person, wish, found, backend)
    has, notes = wishes.needed(service, person, wish, found, backend, opener)
    launch = wishes.row(service, person, wish, found, backend, has)
    notes = [*filter(None, (found.note, found.lasting)), *notes]
    try:
        return _write(service, launch, found, notes)
    except exc.IntegrityError:
        # Two requests for one name met between look-up and insert; the other one won, and is now to be seen.
        return _known(service, person, wish) or _write(service, launch, found, notes)[0], False


def _known(service: Service, person: people.Person, wish: wishes.Wish) -> Launch | None:
    """The launch of the id that was chosen for it, where it has been written already."""
    if wish.launch_id is None:
        return None
    with service.db.reading() as session:
        launch = session.get(Launch, wish.launch_id)
    if launch is not None and launch.person != person.id:
        raise errors.NotFound
    return launch


def _write(service: Service, launch: Launch, found: repos.Resolved, notes: list[str]) -> tuple[Launch, bool]:
    with service.db.transaction() as session:
        running = session.scalars(
            sa.select(Launch).where(
                Launch.person == launch.person, Launch.name == launch.name, Launch.state != State.STOPPED
            )
        ).one_or_none()
        if running is not None:
            return _reconnected(running, launch), False
        policy.check_quota(service, session, launch, found)
        session.add(launch)
        session.flush()  # its first event refers to it
        events.append(service, session, launch, "Waiting to start.", phase=Phase.WAITING)
        for note in notes:
            events.append(service, session, launch, note, phase=Phase.WAITING)
        db.after_commit(session, lambda: service.queue.enqueue("advance", launch.id))
    log.info("launch_requested", launch=launch.id, spec=launch.spec, backend=launch.backend)
    return launch, True


def _reconnected(running: Launch, asked: Launch) -> Launch:
    if running.stop_wanted or running.state is State.STOPPING:
        raise errors.NameTaken(f"“{running.name}” is being stopped. Wait a moment, or choose another name.")
    if running.fingerprint != asked.fingerprint:
        changed = [
            f"{word} is {old or 'unset'} there, {new or 'unset'} here"
            for word, old, new in (
                ("the repository", running.repo_url, asked.repo_url),
                ("the commit", running.commit[:7], asked.commit[:7]),
                ("the path", running.path, asked.path),
                ("the place", running.backend, asked.backend),
                ("the time limit", f"{running.hours:g} h", f"{asked.hours:g} h"),
            )
            if old != new
        ]
        raise errors.NameTaken(
            f"“{running.name}” is running with other parameters: {'; '.join(changed)}. "
            "Stop it first, or choose another name."
        )
    return running


def stop(service: Service, launch_id: str, *, reason: str = "asked", message: str = "Stopped at your wish.") -> None:
    """Want this launch stopped. Its session is closed at once; `stopped` follows once the cloud says it is gone.

    May be repeated; what is stopping or stopped stays as it is.
    """
    with service.db.transaction() as session:
        launch = locked(session, launch_id)
        if launch is not None:
            want_stop(service, session, launch, reason=reason, message=message)


def want_stop(service: Service, session: orm.Session, launch: Launch, *, reason: str, message: str) -> None:
    """The same within a transaction that holds the launch locked."""
    if launch.stop_wanted or launch.state in (State.STOPPING, State.STOPPED):
        return
    outcome = None if launch.state is State.READY else Phase.FAILED
    launch.stop_wanted, launch.reason, launch.message, launch.due_at = True, reason, message, service.now()
    events.append(service, session, launch, message, phase=outcome, reason=reason)
    db.after_commit(session, lambda: service.queue.enqueue("advance", launch.id))


def finish_build(service: Service, session: orm.Session, launch: Launch) -> None:
    """The image that was all that was wanted is there. The launch is locked by this transaction."""
    launch.stop_wanted, launch.reason, launch.due_at = True, "built", service.now()
    events.append(service, session, launch, "The image is built.", phase=Phase.READY, imageName=launch.image)
    db.after_commit(session, lambda: service.queue.enqueue("advance", launch.id))


def get(service: Service, person: people.Person, launch_id: str, *, anyones: bool = False) -> Launch:
    """This person's launch, or the one whose token they showed. Raises NotFound, also for somebody else's.

    With `anyones`, to see or stop it: the one local person runs this broker, and gets what visitors launched as well.
    """
    with service.db.reading() as session:
        launch = session.get(Launch, launch_id)
    if launch is None or not (people.owns(person, launch) or (anyones and person.local)):
        raise errors.NotFound
    return launch


def listed(
    service: Service, person: people.Person, *, running: bool = False, everyone: bool = False, limit: int = 100
) -> list[Launch]:
    """This person's launches, newest first; only those not yet stopped if `running`; all there are if `everyone`.

    Raises NotAllowed where somebody else than the one local person asks for everyone's.
    """
    if everyone and not person.local:
        raise errors.NotAllowed("Only whoever runs this broker may list everybody's launches.")
    mine = Launch.id == person.launch if person.anonymous else Launch.person == person.id
    query = sa.select(Launch).order_by(Launch.created_at.desc()).limit(limit)
    query = query if everyone else query.where(mine)
    if running:
        query = query.where(Launch.state != State.STOPPED)
    with service.db.reading() as session:
        return list(session.scalars(query))


def locked(session: orm.Session, launch_id: str) -> Launch | None:
    """The row, held by this transaction until it ends."""
    return session.get(Launch, launch_id, with_for_update=True)


# --- advancing ------------------------------------------------------------------------------------------------------


def advance(service: Service, launch_id: str) -> None:
    """Take every step that can be taken now. Safe to call at any time, from any number of workers at once."""
    while (launch := _lease(service, launch_id)) is not None:
        with structlog.contextvars.bound_contextvars(launch=launch_id):
            outcome = _step(service, launch)
            if not _settle(service, launch, outcome):
                return


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
        .values(lease=token, lease_until=now + dt.timedelta(seconds=service.settings.lease_seconds))
        .execution_options(synchronize_session=False)
    )
    with service.db.transaction() as session:
        taken: Any = session.execute(claim)
        return session.get(Launch, launch_id) if taken.rowcount else None


def _step(service: Service, launch: Launch) -> Next:
    """Act, and turn whatever goes wrong into the next state."""
    if launch.stop_wanted and launch.state is not State.STOPPING:
        return Next(state=State.STOPPING)
    try:
        return STEPS[launch.state](service, launch)
    except clouds.ProviderUnavailable as error:
        return _come_back(service, launch, error)
    except (errors.BrokerError, clouds.ProviderError) as error:
        return _failed(launch, error)
    except Exception as error:
        log.exception("step_failed", state=launch.state)
        return _failed(launch, errors.BrokerError(f"The broker met an error of its own ({type(error).__name__})."))


def _settle(service: Service, held: Launch, outcome: Next) -> bool:
    """Write what became of the step, unless the lease has passed to somebody else. True: go on at once."""
    now = service.now()
    with service.db.transaction() as session:
        launch = locked(session, held.id)
        if launch is None or launch.lease != held.lease:
            log.warning("lease_lost", state=held.state)
            return False
        launch.lease = launch.lease_until = None
        if launch.stop_wanted and not held.stop_wanted:
            outcome = Next(state=State.STOPPING)  # the outcome was said with that wish, and is said only once
        entered = outcome.state is not launch.state
        if entered:
            launch.state, launch.entered_at = outcome.state, now
        for column, value in outcome.columns.items():
            setattr(launch, column, value)
        at_once = launch.due_at != held.due_at or not outcome.wait  # a nudge that came in during the step must not wait
        launch.due_at = (
            None if launch.state is State.STOPPED else now + dt.timedelta(seconds=0 if at_once else outcome.wait)
        )
        if outcome.say or entered:
            _say(service, session, launch, outcome)
        if outcome.wait and not at_once:
            soon = outcome.wait + 0.01  # never a moment before it is due
            db.after_commit(session, lambda: service.queue.enqueue("advance", held.id, delay=soon))
    if entered:
        if outcome.state is State.STOPPED:
            seats.call_next(service, held.backend)
        log.info("launch_state", state=outcome.state, was=held.state)
        metrics.entered(launch, held.state)
    return at_once and outcome.state is not State.STOPPED


def _say(service: Service, session: orm.Session, launch: Launch, outcome: Next) -> None:
    if outcome.say is None:
        events.append(service, session, launch, SILENT.get(outcome.state, ""))
    else:
        more = {"reason": launch.reason} if launch.reason else {}
        events.append(service, session, launch, outcome.say, phase=outcome.phase, **more)


def nudge(service: Service, session: orm.Session, launch: Launch) -> None:
    """Have the next step taken now: what it waits for may have happened. The launch is locked by this transaction."""
    if launch.due_at is not None:
        launch.due_at = service.now()
        db.after_commit(session, lambda: service.queue.enqueue("advance", launch.id))


# --- the steps, in order --------------------------------------------------------------------------------------------


def place(service: Service, launch: Launch) -> Next:
    """The chosen backend can still take it, and has a seat free; else it waits for one."""
    backend = placement.choose(service, people.known(service, launch.person), launch.backend)
    most = backend.setting.max_sessions
    if most is not None and (queued := seats.take(service, launch, most)):
        if people.of(launch.person).anonymous and seats.is_left(service, launch):
            raise errors.NobodyWaits
        say = None if launch.message == str(queued) else str(queued)
        columns = {"message": str(queued)} if say else {}
        return Next(state=State.WAITING, wait=seats.LOOK_SECONDS, phase=Phase.WAITING, say=say, columns=columns)
    now = service.now()
    # The time it waited for its seat is not taken from it.
    deadline = now + wishes.preparing(service.settings) + dt.timedelta(hours=launch.hours)
    placed: dict[str, Any] = {"message": "", "deadline_at": deadline}
    if most is None:
        placed["seated_at"] = now  # written with the rest: where all have a seat, nobody need count
    else:
        seats.call_next(service, launch.backend)
    return Next(state=State.PLACED, columns=placed)


def authorize(service: Service, launch: Launch) -> Next:
    """The backend lets us buy, and will let us end what was bought for as long as the launch can live."""
    provider = backends.named(service, launch.backend).provider
    connections.of_launch(service, launch, base.Purpose.LAUNCH)
    ends_at = connections.of_launch(service, launch, base.Purpose.REAP).credential.reaches
    if ends_at is not None and ends_at < launch.deadline_at + TEARDOWN and not provider.ends_by_itself:
        raise errors.CredentialTooShort(ends_at)
    return Next(state=State.AUTHORIZED)


def provision(service: Service, launch: Launch) -> Next:
    """Row, then money, then machine. Repeats the same order until the cloud has answered."""
    account = connections.of_launch(service, launch, base.Purpose.LAUNCH)
    order = orders.current(service, launch)
    if order is None:
        order = orders.open_order(service, launch, placement.next_offer(launch, account, orders.tried(service, launch)))
    if order.closing_at is not None:  # given up by a worker that died before it could say so
        return Next(state=State.STARTING, say="That offer was given up.")
    try:
        orders.buy(service, launch, order, account)
    except (clouds.NoCapacity, clouds.InvalidOrder) as refusal:
        return _try_another(service, order, str(refusal))
    return Next(state=State.STARTING, wait=LOOK_SECONDS, say=f"Starting on {order.offer['title']}.")


def await_agent(service: Service, launch: Launch) -> Next:
    """The agent enrols, builds, starts the server and dials in; whatever keeps it from that ends the order."""
    order = orders.current(service, launch)
    if order is None or order.closing_at is not None:
        return _end_and_try_another(service, launch, order)
    if order.server == "up" and order.tunnelled_at is not None:
        return _ready(service, launch)
    if order.server == "down":
        raise errors.ServerEnded
    waited = service.now() - launch.entered_at
    if order.enrolled_at is None and waited > dt.timedelta(minutes=service.settings.boot_minutes):
        return _try_another(service, order, str(errors.BootTimeout()))
    if waited > dt.timedelta(minutes=service.settings.boot_minutes + service.settings.build_minutes):
        raise errors.BuildTimeout
    return _look_at_instance(service, launch, order)


def watch(service: Service, launch: Launch) -> Next:
    """A running session, until it is idle, expired, lost or unwanted."""
    now, order = service.now(), orders.current(service, launch)
    if now >= launch.deadline_at:
        return _over("expired", f"Its {launch.hours:g} hours are over.")
    active = launch.last_activity_at or launch.ready_at or now
    if now - active > dt.timedelta(minutes=launch.idle_minutes):
        return _over("idle", f"Stopped after {launch.idle_minutes:g} minutes without activity.")
    seen = (order.agent_seen_at if order else None) or launch.entered_at
    silent = (now - seen).total_seconds()
    if silent > service.settings.silence_minutes * 60:
        return _over("lost", "The machine has not been heard of for too long.")
    if silent > 2 * service.settings.heartbeat_seconds and (order is None or _has_ended(service, order) is not None):
        return _over("lost", "The machine has ended by itself.")
    if order is not None and order.server == "down":
        return _over("ended", "Its server has ended by itself.")
    return Next(state=State.READY, wait=service.settings.heartbeat_seconds)


def terminate(service: Service, launch: Launch) -> Next:
    """The one way out: everything bought is ended, and asked after until the cloud says that it is gone."""
    order = orders.current(service, launch)
    if order is not None and not orders.end(service, order):
        return Next(state=State.STOPPING, wait=GONE_SECONDS)
    return Next(state=State.STOPPED, say="Nothing of it is left.", columns={"stopped_at": service.now()})


STEPS: dict[State, Callable[[Service, Launch], Next]] = {
    State.WAITING: place,
    State.PLACED: authorize,
    State.AUTHORIZED: provision,
    State.STARTING: await_agent,
    State.READY: watch,
    State.STOPPING: terminate,
}

SILENT = {
    State.PLACED: "A place to run was found.",
    State.AUTHORIZED: "The place to run lets us in.",
    State.STOPPING: "Ending everything that was started.",
}


# --- what a step may come to ----------------------------------------------------------------------------------------


def _ready(service: Service, launch: Launch) -> Next:
    now = service.now()
    deadline = min(launch.deadline_at, now + dt.timedelta(hours=launch.hours))
    times = {"ready_at": now, "deadline_at": deadline, "last_activity_at": now}
    return Next(
        state=State.READY,
        wait=service.settings.heartbeat_seconds,
        phase=Phase.READY,
        say="Ready.",
        columns=times,
    )


def _over(reason: str, message: str) -> Next:
    return Next(state=State.STOPPING, say=message, columns={"reason": reason, "message": message})


def _failed(launch: Launch, error: Exception) -> Next:
    """Out through `terminate`. In `stopping` itself nothing is given up: come back and try again."""
    if launch.state is State.STOPPING:
        say = str(error) if launch.message != str(error) else None
        return Next(state=State.STOPPING, wait=RETRY_SECONDS, say=say, columns={"message": str(error)} if say else {})
    reason = getattr(error, "reason", "broker")
    outcome = None if launch.state is State.READY else Phase.FAILED
    return Next(state=State.STOPPING, phase=outcome, say=str(error), columns={"reason": reason, "message": str(error)})


def _come_back(service: Service, launch: Launch, error: clouds.ProviderUnavailable) -> Next:
    """Out of reach: nothing is known, so the same step again; only a launch that never ran gives up in the end."""
    waited = service.now() - launch.entered_at
    patience = dt.timedelta(minutes=service.settings.boot_minutes)
    if launch.state not in (State.READY, State.STOPPING) and waited > patience:
        return _failed(launch, error)
    fresh = launch.message != str(error)
    return Next(
        state=launch.state,
        wait=RETRY_SECONDS,
        say=str(error) if fresh else None,
        columns={"message": str(error)} if fresh else {},
    )


def _try_another(service: Service, order: Order, why: str) -> Next:
    """Give this order up; `await_agent` sees it closed before anything else is bought."""
    orders.give_up(service, order)
    return Next(state=State.STARTING, say=why, columns={"message": why})


def _end_and_try_another(service: Service, launch: Launch, order: Order | None) -> Next:
    if order is not None and not orders.end(service, order):
        return Next(state=State.STARTING, wait=GONE_SECONDS)
    if len(orders.tried(service, launch)) >= service.settings.attempts:
        raise errors.NoOfferLeft(launch.message or None)
    return Next(state=State.PLACED)


def _look_at_instance(service: Service, launch: Launch, order: Order) -> Next:
    """Whether it is still there, where its agent does not say so itself."""
    seen = order.agent_seen_at or launch.entered_at
    if service.now() - seen > dt.timedelta(minutes=service.settings.silence_minutes):
        raise errors.InstanceLost
    if (detail := _has_ended(service, order)) is None:
        return Next(state=State.STARTING, wait=LOOK_SECONDS)
    if order.enrolled_at is None:
        return _try_another(service, order, detail or str(errors.InstanceLost()))
    raise errors.InstanceLost(detail or None)


def _has_ended(service: Service, order: Order) -> str | None:
    """The cloud's words on why it no longer runs; None while it does, or may yet."""
    if order.instance is None:
        return None
    found = connections.of_order(service, order).describe(order.instance)
    if found.state is base.InstanceState.GONE and not orders.believable(service, order, found):
        return None
    return found.detail if found.state in (base.InstanceState.STOPPING, base.InstanceState.GONE) else None
