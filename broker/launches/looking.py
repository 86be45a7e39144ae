"""Looking at what was bought, where its agent does not say so itself how it is."""

from __future__ import annotations

import datetime as dt

from broker import connections, consoles, errors, orders
from broker.models import Launch, Order
from broker.service import Service
from providers import base
from providers.sentences import say

NOT_PASTED = (
    "The line was not pasted into your server in time, or could not start there. Nothing was bought. Launch again."
)


def trouble(service: Service, launch: Launch, order: Order) -> errors.LaunchFailed | None:
    """Why no session will come of this order any more; None while one may. Asks the cloud; raises ProviderError."""
    if order.server == "down":
        return errors.ServerEnded()
    now = service.now()
    began = max(launch.entered_at, order.first_asked_at or order.created_at)
    boot, build, silence = (
        dt.timedelta(minutes=minutes)
        for minutes in (service.settings.boot_minutes, service.settings.build_minutes, service.settings.silence_minutes)
    )
    if order.enrolled_at is None and now - began > boot:
        return errors.BootTimeout(
            NOT_PASTED if orders.offered(order).taken else consoles.never_reported(service, order)
        )
    if now - began > boot + build:
        return errors.BuildTimeout()
    if order.agent_seen_at is not None and now - order.agent_seen_at > silence:
        return errors.InstanceLost(say("The machine has not been heard of for too long."))
    if order.running_at is not None and speaks(service, order):
        return None
    detail = has_ended(service, order)
    if detail is not None and order.enrolled_at is None:
        return errors.InstanceLost(consoles.never_reported(service, order, detail or "no reason is known"))
    return None if detail is None else errors.InstanceLost(detail or None)


def speaks(service: Service, order: Order) -> bool:
    """Whether its agent was heard of lately: then it runs, and no cloud need be asked."""
    if order.agent_seen_at is None:
        return False
    return (service.now() - order.agent_seen_at).total_seconds() <= 2 * service.settings.heartbeat_seconds


def has_ended(service: Service, order: Order) -> str | None:
    """The cloud's words on why it no longer runs; None while it does, or may yet."""
    if order.instance is None:
        return None
    found = connections.of_order(service, order).describe(order.instance)
    orders.note_state(service, order, found.state)
    if found.state is base.InstanceState.GONE and not orders.believable(service, order, found):
        return None
    return found.detail if found.state in (base.InstanceState.STOPPING, base.InstanceState.GONE) else None
