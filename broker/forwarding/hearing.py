"""What a peer says of a launch, written down: its lines as events, the way in sealed, and the end of a try with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import orm

from broker import connections, errors, events, launches, peers
from broker.forwarding import choosing, rows
from broker.models import Forward, Launch, Phase, State
from broker.peers import Known
from broker.service import Service
from federation import binderhub
from federation import errors as refusals
from federation.peers import Peer
from providers import errors as clouds

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A stream to be read."""

    peer: Peer
    url: str = field(repr=False)
    token: str = field(default="", repr=False)


def begin(service: Service, forward_id: str) -> Task | None:
    """What to ask, written down as asked before it is; None where there is nothing to ask any more.

    A try that was asked before is not asked again: it might then run twice.
    """
    title = _title(service, forward_id)
    with service.db.transaction() as session:
        held = rows.locked(session, forward_id)
        if held is None:
            return None
        launch, forward = held
        if launch.stop_wanted:
            return None  # its step closes it
        if forward.ready_at is not None:
            return None  # whoever held the lease before has read it to its end meanwhile
        if forward.asked_at is not None:
            said = f"{title}: this broker was interrupted while it listened."
            _over(service, session, held, said, rows.INTERRUPTED)
            return None
        forward.asked_at = service.now()
    try:
        return _task(service, launch, forward)
    except (errors.BrokerError, clouds.ProviderError) as wrong:
        failed(service, forward_id, refusals.Refused(str(wrong)))
        return None


def take(service: Service, forward_id: str, said: Sequence[binderhub.Said]) -> bool:
    """Write these lines down in one transaction; False where nobody wants more of them."""
    sealed = next((rows.seal(service, forward_id, line.way_in) for line in said if line.way_in), None)
    with service.db.transaction() as session:
        held = rows.locked(session, forward_id)
        if held is None:
            return False
        launch, forward = held
        wanted = launch.state is State.FORWARDED and not launch.stop_wanted
        for line in said:
            _take(service, session, launch, forward, line, wanted=wanted)
        forward.way_in = sealed
        forward.heard_at, forward.lease_until = service.now(), service.now() + rows.LEASE
        return forward.ready_at is None


def failed(service: Service, forward_id: str, refusal: refusals.PeerError) -> None:
    """This try is over, and why is said; the next step looks for another peer. May be repeated."""
    title = _title(service, forward_id)
    with service.db.transaction() as session:
        if held := rows.locked(session, forward_id):
            launch, forward = held
            launch.message = str(refusal)
            _over(service, session, held, f"{title}: {refusal}", refusal.reason)
            peers.experienced(service, session, forward.peer, refusal)


def _task(service: Service, launch: Launch, forward: Forward) -> Task:
    known = peers.named(service, forward.peer)
    spec = choosing.spec_at(service, known, choosing.of_launch(launch))
    if spec is None:
        raise errors.NoBackend("It cannot read repositories from this host.")
    url = binderhub.address(known.peer, spec, service.now().timestamp())
    return Task(peer=known.peer, url=url, token=_token(service, launch, forward, known))


def _token(service: Service, launch: Launch, forward: Forward, known: Known) -> str:
    """The person's own at that hub, its use written down; it was connected with this peer, and goes nowhere else."""
    connection = connections.row(service, forward.connection_id)
    if connection is None:
        return ""
    if connection.target != peers.target_of(known.name) or connection.person != launch.person or connection.removed_at:
        raise errors.NotAllowed("The token for that hub was disconnected meanwhile. Connect it again.")
    secret = connections.opened(service, connection)
    connections.used(service, connection, "launch", launch_id=launch.id)
    return secret


def _take(
    service: Service, session: orm.Session, launch: Launch, forward: Forward, line: binderhub.Said, *, wanted: bool
) -> None:
    forward.phase = line.phase or forward.phase
    if line.way_in is not None:
        forward.ready_at = service.now()
        forward.lease = forward.lease_until = None
        launch.image = line.image or launch.image
        peers.experienced(service, session, forward.peer, None)
        launches.nudge(service, session, launch)
        return  # its message names the address; that it is ready is said by the step
    if not line.message and not line.phase:
        return
    more = {"imageName": line.image} if line.image else {}
    phase = Phase(line.phase) if wanted and line.phase else None
    events.append(service, session, launch, line.message, phase=phase, **more)


def _over(service: Service, session: orm.Session, held: tuple[Launch, Forward], message: str, outcome: str) -> None:
    """This try has come to nothing, which is said; the next step looks on."""
    launch, forward = held
    _say(service, session, launch, message)
    # A BinderHub says that it found the image before it looks for room: who was turned away has nothing there.
    if outcome != refusals.Full.reason and rows.may_run_on(forward):
        _say(service, session, launch, rows.RUNS_ON)
    rows.close(service, session, launch, forward, outcome)
    launches.nudge(service, session, launch)


def _title(service: Service, forward_id: str) -> str:
    """What people call the peer of this try. Looks at the table by itself: never within a transaction."""
    return choosing.title(service, rows.peer(service, forward_id))


def _say(service: Service, session: orm.Session, launch: Launch, message: str) -> None:
    phase = Phase.WAITING if launch.state is State.FORWARDED and not launch.stop_wanted else None
    events.append(service, session, launch, message, phase=phase)
