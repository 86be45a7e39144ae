"""What people want of launches: a new one, to see theirs, to have one stopped. Nothing here asks a cloud."""

from __future__ import annotations

import sqlalchemy as sa
import structlog
from sqlalchemy import exc, orm

from broker import budgets, db, errors, events, people, placement, policy, repo_access, repos, wishes
from broker.forwarding import choosing
from broker.launches.rows import locked
from broker.models import Launch, Phase, State
from broker.service import Service
from providers.sentences import say

log = structlog.get_logger(__name__)


def request(service: Service, person: people.Person, wish: wishes.Wish) -> tuple[Launch, bool]:
    """Write this wish down and have it advance. Returns the launch, and whether it is new.

    The same name with unchanged parameters returns the launch that runs, the same `launch_id` the launch it names.
    Looks the repository up (seconds at most) and buys nothing. Raises RepoError, NoBackend, SpecBanned, RepoQuota,
    ConsentNeeded, NameTaken, BadRequest, BadField.
    """
    if known := _known(service, person, wish):
        return known, False
    opener = wishes.opener(service, person, wish)
    found = repo_access.resolve(service, person, service.repos.parse(wish.repo, wish.ref or None), opener)
    if peer := wishes.peer(service, person, wish, found):
        return _forwarded(service, person, wish, found, peer)
    backend = placement.choose(service, person, wish.place[0])
    backend.require_recent_sign_in(service, person)
    policy.check(service, found, backend)
    wishes.require_consent(service, person, wish, found, backend, wish.place[1])
    has, notes = wishes.needed(service, person, wish, found, backend, opener)
    others = wishes.others(service, person, wish, found, backend, has)
    launch = wishes.row(service, person, wish, found, backend, has, others)
    notes = [*filter(None, (found.note, found.lasting)), *notes]
    try:
        return _write(service, launch, found, notes)
    except exc.IntegrityError:
        # Two requests for one name met between look-up and insert; the other one won, and is now to be seen.
        return _known(service, person, wish) or _write(service, launch, found, notes)[0], False


def _forwarded(
    service: Service, person: people.Person, wish: wishes.Wish, found: repos.Resolved, peer: choosing.Option
) -> tuple[Launch, bool]:
    """The same for a launch that a peer is to run: nothing is bought, and how much it gets is for that hub to say."""
    policy.check(service, found, None)
    has, notes = wishes.needed_at(service, wish)
    others = wishes.others(service, person, wish, found, peer, has)
    launch = wishes.row(service, person, wish, found, peer, has, others)
    notes = [*filter(None, (found.note, found.lasting)), *notes]
    try:
        return _write(service, launch, found, notes)
    except exc.IntegrityError:
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
        raise errors.NameTaken(
            say("“%(name)s” is being stopped. Wait a moment, or choose another name.", name=running.name)
        )
    if running.fingerprint != asked.fingerprint:
        changed = [
            f"{word} is {old or 'unset'} there, {new or 'unset'} here"
            for word, old, new in (
                ("the repository", running.repo_url, asked.repo_url),
                ("the commit", running.commit[:7], asked.commit[:7]),
                ("the path", running.path, asked.path),
                ("the place", running.backend, asked.backend),
                ("the server of your own", running.offer, asked.offer),
                ("the time limit", f"{running.hours:g} h", f"{asked.hours:g} h"),
                ("the budget", _budget(running), _budget(asked)),
                ("the order of offers", running.prefer, asked.prefer),
                ("taking what may be taken away", _yes(running.spot), _yes(asked.spot)),
                ("a second machine", _yes(running.hedged), _yes(asked.hedged)),
                ("where else it may go", ", ".join(running.elsewhere), ", ".join(asked.elsewhere)),
            )
            if old != new
        ]
        raise errors.NameTaken(
            say(
                "“%(name)s” is running with other parameters: %(names)s. Stop it first, or choose another name.",
                name=running.name,
                names="; ".join(changed),
            )
        )
    return running


def _budget(launch: Launch) -> str:
    return "" if launch.budget is None else budgets.money(launch.budget, launch.currency)


def _yes(said: bool) -> str:
    return "yes" if said else "no"


def stop(
    service: Service, launch_id: str, *, reason: str = "asked", message: str = say("Stopped at your wish.")
) -> None:
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
    outcome = None if launch.runs else Phase.FAILED
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
        raise errors.NotAllowed(say("Only whoever runs this broker may list everybody's launches."))
    mine = Launch.id == person.launch if person.anonymous else Launch.person == person.id
    query = sa.select(Launch).order_by(Launch.created_at.desc()).limit(limit)
    query = query if everyone else query.where(mine)
    if running:
        query = query.where(Launch.state != State.STOPPED)
    with service.db.reading() as session:
        return list(session.scalars(query))
