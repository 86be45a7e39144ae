"""The broker's end of the conversation with `agent.py`: enrolling once, and reporting."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import sqlalchemy as sa
import structlog
from pydantic import BaseModel, Field
from sqlalchemy import orm

from broker import bootstrap, crypto, dead_man, errors, events, launches, orders, repo_access, sessions
from broker.models import BOUGHT, Launch, Order, Phase, State
from broker.service import Service

log = structlog.get_logger(__name__)
LINE_MOST = 2000  # characters of one line; the agent caps them, and is not to be trusted with it


class Enrolment(BaseModel):
    """What a newborn agent says."""

    order: str = Field(max_length=32)
    agent: str = Field(min_length=32, max_length=128, repr=False)
    """A secret the agent made; it signs every later report with it."""
    nonce: str = Field(max_length=128)


class Line(BaseModel):
    """One line of progress."""

    phase: Phase
    message: str
    image: str = Field("", max_length=512)
    """The image that was built or found, on the line that says so."""


class Status(BaseModel):
    """How the server on the instance is."""

    server: Literal["none", "starting", "up", "down"] = "none"
    kind: Literal["jupyter", "app"] | None = None
    last_activity: dt.datetime | None = None
    kernels: int = 0
    busy: int = 0
    busy_since: dt.datetime | None = None


class Report(BaseModel):
    """What an agent says from then on."""

    order: str = Field(max_length=32)
    first: int = Field(ge=1)
    """Number of the first line; what was taken before is dropped, so a report may be repeated."""
    events: list[Line] = Field(default_factory=list, max_length=1000)
    status: Status = Status()
    dead_man: bool | None = None
    """Whether it holds what it may delete itself with; None where it has no use for that."""


def enrol(service: Service, token: str, said: Enrolment) -> dict[str, Any]:
    """Let this agent in, once. The same agent asking again (its answer was lost) is answered the same.

    What opens a private repository is in the answer, and nowhere else; it is not repeated once the agent has spoken.

    Another agent with the same token has stolen it, or it had been stolen before: the token is revoked and the
    instance ended. Raises EnrolmentRefused.
    """
    with service.db.transaction() as session:
        launch, order = _locked(session, said.order)
        expected = crypto.digest(bootstrap.enrolment_token(service, said.order))
        if not crypto.matches(token, expected):
            raise errors.EnrolmentRefused
        if order.closing_at is not None or launch.stop_wanted:
            raise errors.EnrolmentRefused("This launch is over.")
        stolen = order.agent_hash is not None and not crypto.matches(said.agent, order.agent_hash)
        if stolen:
            log.warning("enrolled_twice", launch=launch.id, order=order.id)
            why = "Its enrolment token was used twice, so it has been ended: somebody else may have read it. Try again."
            launches.want_stop(service, session, launch, reason="enrolled_twice", message=why)
        elif order.agent_hash is None:
            order.agent_hash = crypto.digest(said.agent)
            order.enrolled_at = order.agent_seen_at = service.now()
            events.wake(service, session, launch.id)  # the tunnel must know this order now
            launches.nudge(service, session, launch)
    if stolen:
        raise errors.EnrolmentRefused("This token was used before. The instance is being ended.")
    key = _key(service, launch) if repo_access.still_needed(order) else {}
    proofs = {"proof": crypto.prove(expected, said.nonce), "signature": service.keys.sign(f"{order.id} {said.nonce}")}
    return {**_task(service, launch, order), **key, **proofs}


def _key(service: Service, launch: Launch) -> dict[str, Any]:
    """What opens the repository, for the agent to hand to its builder. Without it there is nothing to build: that is the end
    of the launch, with the reason."""
    try:
        credential = repo_access.for_clone(service, launch)
    except errors.BrokerError as refusal:
        with service.db.transaction() as session:
            if held := launches.locked(session, launch.id):
                launches.want_stop(service, session, held, reason="repo_token", message=str(refusal))
        raise errors.EnrolmentRefused("What opens the repository cannot be had. The launch is over.") from None
    if credential is None:
        return {}
    return {"key": {"origin": credential.origin, "user": credential.user, "secret": credential.secret}}


def _locked(session: orm.Session, order_id: str) -> tuple[Launch, Order]:
    """Both rows, the launch locked first as everywhere, so that no two transactions wait for one another."""
    launch_id = session.scalar(sa.select(Order.launch_id).where(Order.id == order_id))
    launch = launches.locked(session, launch_id) if launch_id else None
    order = session.get(Order, order_id, with_for_update=True)
    if order is None or launch is None:
        raise errors.EnrolmentRefused
    return launch, order


def _task(service: Service, launch: Launch, order: Order) -> dict[str, Any]:
    chosen = service.settings
    return {
        "launch": launch.id,
        "session": {
            "id": launch.id,
            "secret": sessions.tunnel_secret(service, order.id),
            "server_token": sessions.server_token(service, order.id),
        },
        "spec": {
            "repo_url": launch.repo_url,
            "commit": launch.commit,
            "content": launch.content,
            "spec": launch.spec,
            "env": variables(launch),
            "build_only": launch.build_only,
            "title": launch.title,
            "open": launch.path,
            "build_seconds": chosen.build_minutes * 60,
            "clone_megabytes": chosen.clone_megabytes,
            "inner": service.repos.inner,
            "private": _whose(launch),
            "busy_hours": chosen.busy_hours,
        },
        "heartbeat_seconds": chosen.heartbeat_seconds,
        "silence_seconds": chosen.silence_minutes * 60,
        "deadline": order.until.isoformat(),
    }


def _whose(launch: Launch) -> str:
    """Who alone may be given what is built of a private repository; empty where everybody may.

    Two people with a right to it may still differ in their rights to its submodules.
    """
    return crypto.digest(launch.person).hex()[:32] if launch.repo_connection_id else ""


def variables(launch: Launch) -> dict[str, str]:
    """What BinderHub puts into the variables of a session: launch.request["binder_request"] as BINDER_REQUEST."""
    told = {"binder_repo_url": launch.repo_url, **launch.request}
    return {name.upper(): str(value) for name, value in told.items() if name.startswith("binder_")}


def report(service: Service, secret: str, said: Report) -> dict[str, Any]:
    """Take what is new in this report, and answer what to do. Raises EnrolmentRefused for an agent we do not know."""
    with service.db.transaction(passing=True) as session:
        launch, order = _locked(session, said.order)
        if not crypto.matches(secret, order.agent_hash):
            raise errors.EnrolmentRefused
        if order.closing_at is not None:
            raise errors.EnrolmentRefused("This launch is over.")
        _take_lines(service, session, launch, order, said)
        _take_status(service, session, launch, order, said.status)
        over = launch.stop_wanted or launch.state in (State.STOPPING, State.STOPPED) or order.closing_at is not None
        answer = {
            "command": "stop" if over else "go",
            "deadline": min(order.until, launch.deadline_at).isoformat(),
            "ack": order.agent_events,
        }
    return {**answer, **(dead_man.told(service, order) if said.dead_man is False else {})}


def _take_lines(service: Service, session: orm.Session, launch: Launch, order: Order, said: Report) -> None:
    if said.first > order.agent_events + 1:
        return  # a line in between is missing: the answer's `ack` has the agent send again from there
    for line in said.events[order.agent_events + 1 - said.first :]:
        order.agent_events += 1
        if launch.hedged and (rival := _rival(session, launch, order)) is not None:
            _take_one_of_two(service, session, launch, order, rival, line)
        else:
            _take_line(service, session, launch, line)


def _take_line(service: Service, session: orm.Session, launch: Launch, line: Line) -> None:
    message = line.message[:LINE_MOST]
    more = {"imageName": line.image} if line.image else {}
    launch.image = line.image or launch.image
    if line.phase is Phase.FAILED:
        launches.want_stop(service, session, launch, reason=errors.AgentFailed.reason, message=message)
    elif launch.state in BOUGHT and not launch.stop_wanted:
        # `ready` is for the broker to say; a phase after the outcome is a line like any other.
        phase = None if line.phase is Phase.READY else line.phase
        events.append(service, session, launch, message, phase=phase, **more)
        if launch.build_only and line.image:
            launches.finish_build(service, session, launch)
    else:
        events.append(service, session, launch, message)


def _rival(session: orm.Session, launch: Launch, order: Order) -> Order | None:
    """The other of two machines that are both on their way."""
    others = [each for each in orders.living(orders.of_launch(session, launch.id)) if each.id != order.id]
    return next(iter(others), None)


def _take_one_of_two(
    service: Service, session: orm.Session, launch: Launch, order: Order, rival: Order, line: Line
) -> None:
    """Two machines do the same at the same time: the phases are those of the one that leads, and what fails on one of them
    is the end of that one alone."""
    message = f"{order.offer['title']}: {line.message[:LINE_MOST]}"
    silent = line.phase in (Phase.READY, Phase.FAILED) or launch.state not in BOUGHT or launch.stop_wanted
    leads = orders.leader([order, rival]) is order
    events.append(service, session, launch, message, phase=line.phase if leads and not silent else None)
    if line.phase is Phase.FAILED:
        order.closing_at = service.now()
        launches.nudge(service, session, launch)


def _take_status(service: Service, session: orm.Session, launch: Launch, order: Order, status: Status) -> None:
    now = service.now()
    order.agent_seen_at = now
    if (order.server, order.kind) != (status.server, status.kind):
        order.server, order.kind = status.server, status.kind or order.kind
        events.wake(service, session, launch.id)
        launches.nudge(service, session, launch)
    active = min(status.last_activity, now) if status.last_activity and status.last_activity.tzinfo else None
    if active and (launch.last_activity_at is None or active > launch.last_activity_at):
        launch.last_activity_at = active
