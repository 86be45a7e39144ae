"""Two machines for one launch, where that was declared: a second order once the first takes longer than usual.

Whichever has its server up first stays. The other is given up in that moment, from which on its agent is refused; it is
ended while the session goes on, and closed as every order is: after the cloud has said that nothing of it is left.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import structlog

from broker import connections, errors, orders, placement, readiness
from broker.launches import looking, waits
from broker.launches.outcomes import Next
from broker.models import Launch, Order, State
from broker.service import Service
from providers import base
from providers import errors as clouds

log = structlog.get_logger(__name__)


def is_due(service: Service, launch: Launch, order: Order) -> bool:
    """Whether this order has taken longer than usual and there was no second one yet. Asks no cloud."""
    if (
        not launch.hedged
        or launch.build_only
        or order.hedge
        or order.server == "up"
        or orders.was_hedged(service, launch)
    ):
        return False
    usual = readiness.of_launch(service, launch).seconds(orders.offered(order))
    patience = dt.timedelta(seconds=service.settings.hedge_seconds if usual is None else usual)
    return service.now() - (order.first_asked_at or order.created_at) > patience


def order_second(service: Service, launch: Launch) -> Next:
    """Write the second order down; `race` buys it. Where there is none to be had, or no money for it, that is said once."""
    try:
        account = connections.of_launch(service, launch, base.Purpose.LAUNCH)
        offer = placement.next_offer(service, launch, account)
        order = orders.open_order(service, launch, offer, hedge=True)
    except clouds.ProviderUnavailable:
        return Next(state=State.STARTING, wait=waits.RETRY_SECONDS)
    except (errors.BrokerError, clouds.ProviderError) as refusal:
        say = f"It takes longer than usual. No second machine is ordered: {refusal}"
        return Next(state=State.STARTING, say=say, columns={"hedged": False})
    return Next(state=State.STARTING, say=f"It takes longer than usual. {orders.said(order, 'Also starting')}")


def race(service: Service, launch: Launch, first: Order, second: Order) -> Next:
    """Both are on their way: buy the second, give up whichever fails or comes in last."""
    for order, other in ((first, second), (second, first)):
        if order.server == "up":
            return _give_up(service, other, f"{order.offer['title']} is there first; the other machine is being ended.")
    # Before the second is asked for: a cloud that sells nothing may go on like that for hours.
    for order in (first, second):
        if trouble := looking.trouble(service, launch, order):
            return _give_up(service, order, f"{order.offer['title']} is given up: {trouble}")
    if second.instance is None:
        return buy(service, launch, second)
    return Next(state=State.STARTING, wait=waits.LOOK_SECONDS)


def buy(service: Service, launch: Launch, second: Order) -> Next:
    """Ask the cloud for the second order, also where it is the only one left; given up where it cannot be had."""
    asked_before = second.asked_at
    try:
        orders.buy(service, launch, second, connections.of_launch(service, launch, base.Purpose.LAUNCH))
    except (clouds.ProviderUnavailable, errors.LeaseLost):
        return Next(state=State.STARTING, wait=waits.RETRY_SECONDS)
    except (errors.BrokerError, clouds.ProviderError) as refusal:
        # Who was not let in has asked for nothing: what was asked for before, without an answer, may still be there.
        refused = "" if second.asked_at == asked_before else refusal.reason
        return _give_up(service, second, f"There is no second machine: {refusal}", refused=refused)
    return Next(state=State.STARTING, wait=waits.LOOK_SECONDS)


def end_given_up(service: Service, opened: Sequence[Order]) -> bool:
    """Take the next step in ending what was given up; True once all of it is closed. Keeps nothing else waiting: what goes
    wrong is logged, and tried again."""
    gone = True
    for order in opened:
        if order.closing_at is None:
            continue
        try:
            gone = orders.end(service, order) and gone
        except (errors.BrokerError, clouds.ProviderError) as error:
            gone = False
            log.warning("not_ended_yet", order=order.id, error=str(error))
    return gone


def _give_up(service: Service, order: Order, why: str, *, refused: str = "") -> Next:
    orders.give_up(service, order, refused=refused)
    return Next(state=State.STARTING, say=why)
