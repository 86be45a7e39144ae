"""The steps, in order: each acts, then says what became of it. None sleeps, and each may be repeated."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

from broker import backends, connections, dead_man, errors, events, orders, people, placement, seats, wishes
from broker.forwarding import choosing, rows
from broker.launches import elsewhere, forwarding, hedging, looking, outcomes, waits
from broker.launches.outcomes import Next
from broker.models import Launch, Order, Phase, State
from broker.service import Service
from providers import base
from providers import errors as clouds
from providers.sentences import say


def place(service: Service, launch: Launch) -> Next:
    """The chosen backend can still take it, and has a seat free; else it waits for one. A peer is asked."""
    if choosing.is_peer(service, launch.backend):
        return forwarding.ask(service, launch)
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
    if ends_at is not None and ends_at < launch.deadline_at + waits.TEARDOWN and not provider.ends_by_itself:
        raise errors.CredentialTooShort(ends_at)
    return Next(state=State.AUTHORIZED)


def provision(service: Service, launch: Launch) -> Next:
    """Row, then money, then machine. Repeats the same order until the cloud has answered."""
    account = connections.of_launch(service, launch, base.Purpose.LAUNCH)
    order = orders.current(service, launch)
    if order is None:
        order = orders.open_order(service, launch, placement.next_offer(service, launch, account))
    if order.closing_at is not None:  # given up by a worker that died before it could say so
        return Next(state=State.STARTING, say="That offer was given up.")
    try:
        orders.buy(service, launch, order, account)
    except (clouds.NoCapacity, clouds.InvalidOrder) as refusal:
        return _try_another(service, order, str(refusal), refused=refusal.reason)
    except (clouds.QuotaExceeded, clouds.BadCredential, clouds.PermissionMissing) as refusal:
        if not launch.elsewhere:
            orders.give_up(service, order, refused=refusal.reason)  # refused at once, it is closed at once
            raise
        return _try_another(service, order, str(refusal), refused=refusal.reason)
    return Next(state=State.STARTING, wait=waits.LOOK_SECONDS, say=orders.said(order, "Starting"))


def await_agent(service: Service, launch: Launch) -> Next:
    """The agent enrols, builds, starts the server and dials in; whatever keeps it from that ends the order."""
    opened = orders.opened(service, launch)
    living = orders.living(opened)
    if not living:
        return _end_and_try_another(service, launch, opened)
    for order in living:
        dead_man.obtain(service, launch, order)
    if len(living) > 1:
        return hedging.race(service, launch, *living)
    (order,) = living
    if order.server == "up" and order.tunnelled_at is not None:
        return outcomes.ready(service, launch, soon=len(opened) > 1)
    if trouble := looking.trouble(service, launch, order):
        if order.enrolled_at is None and isinstance(trouble, errors.BootTimeout | errors.InstanceLost):
            return _try_another(service, order, str(trouble))
        raise trouble
    if order.instance is None:  # a second machine that outlived the first, and was not sold yet or the answer was lost
        return hedging.buy(service, launch, order)
    hedging.end_given_up(service, opened)
    if hedging.is_due(service, launch, order):
        return hedging.order_second(service, launch)
    soon = launch.hedged or len(opened) > 1
    wait = waits.LOOK_SECONDS if soon else waits.until_look(service.now() - launch.entered_at)
    return Next(state=State.STARTING, wait=wait)


def watch(service: Service, launch: Launch) -> Next:
    """A running session, until it is idle, expired, lost or unwanted."""
    now, opened = service.now(), orders.opened(service, launch)
    order = orders.leader(opened)
    if now >= launch.deadline_at:
        return outcomes.expired(launch)
    idle_at = (launch.last_activity_at or launch.ready_at or now) + dt.timedelta(minutes=launch.idle_minutes)
    if now > idle_at:
        return outcomes.idle(launch)
    seen = (order.agent_seen_at if order else None) or launch.entered_at
    silent = (now - seen).total_seconds()
    if silent > service.settings.silence_minutes * 60:
        return outcomes.over("lost", say("The machine has not been heard of for too long."))
    if silent > 2 * service.settings.heartbeat_seconds and (
        order is None or looking.has_ended(service, order) is not None
    ):
        return outcomes.over("lost", say("The machine has ended by itself."))
    if order is not None and order.server == "down":
        return outcomes.over("ended", say("Its server has ended by itself."))
    if order is not None:
        dead_man.obtain(service, launch, order)
    alone = hedging.end_given_up(service, opened)
    wait = waits.until_watch(service.settings.heartbeat_seconds, launch.deadline_at - now, idle_at - now)
    return Next(state=State.READY, wait=wait if alone else waits.LOOK_SECONDS)


def terminate(service: Service, launch: Launch) -> Next:
    """The one way out: everything bought is ended, and asked after until the cloud says that it is gone."""
    if forward := rows.current(service, launch.id):
        return forwarding.end(service, forward)
    opened = orders.opened(service, launch)
    if not _end_all(service, opened):
        return Next(state=State.STOPPING, wait=_until_the_next_look(service, opened))
    # What hindered the end has passed with it.
    columns = {"stopped_at": service.now(), "message": events.why_it_ends(service, launch.id) or launch.message}
    return Next(state=State.STOPPED, say="Nothing of it is left.", columns=columns)


STEPS: dict[State, Callable[[Service, Launch], Next]] = {
    State.WAITING: place,
    State.PLACED: authorize,
    State.AUTHORIZED: provision,
    State.STARTING: await_agent,
    State.READY: watch,
    State.FORWARDED: forwarding.attend,
    State.STOPPING: terminate,
}


# --- within ------------------------------------------------------------------------------------------------------------


def _try_another(service: Service, order: Order, why: str, *, refused: str = "") -> Next:
    """Give this order up; `await_agent` sees it closed before anything else is bought."""
    orders.give_up(service, order, refused=refused)
    return Next(state=State.STARTING, say=why, columns={"message": why})


def _until_the_next_look(service: Service, opened: Sequence[Order]) -> float:
    now = service.now()
    return waits.until_gone(now - min((order.closing_at for order in opened if order.closing_at), default=now))


def _end_and_try_another(service: Service, launch: Launch, opened: Sequence[Order]) -> Next:
    if not _end_all(service, opened):
        return Next(state=State.STARTING, wait=_until_the_next_look(service, opened))
    refusal = orders.last_refusal(service, launch)
    if refusal in elsewhere.FINAL or len(orders.tried(service, launch)) >= service.settings.attempts:
        raise errors.NoOfferLeft(launch.message or None)
    return Next(state=State.PLACED)


def _end_all(service: Service, opened: Sequence[Order]) -> bool:
    """True once all are closed. What goes wrong with one does not keep the other; it is raised once both were asked for."""
    wrong: list[Exception] = []
    gone = True
    for order in opened:
        try:
            gone = orders.end(service, order) and gone
        except (errors.BrokerError, clouds.ProviderError) as error:
            wrong.append(error)
    if wrong:
        raise wrong[0]
    return gone
