"""What a machine says on its console, for one that never reports: its boot tells there what it does, and why it cannot."""

from __future__ import annotations

import re

import structlog

from broker import backends, connections, errors
from broker.models import Launch, Order
from broker.service import Service
from providers import base
from providers import errors as clouds

log = structlog.get_logger(__name__)
OURS = re.compile(r"anybinder(?: agent)?: *(.*)")
LINE_MOST = 300  # characters of a machine's own words in one of ours
TEXT_MOST = 65_536


def text(service: Service, order: Order) -> str:
    """The end of its console, as far as the cloud shows it. Asks the cloud; raises ProviderError, BrokerError."""
    if order.instance is None:
        return ""
    shown = _account(service, order).logs(order.instance)[-TEXT_MOST:]
    return "".join(char for char in shown if char.isprintable() or char in "\n\t")


def _account(service: Service, order: Order) -> backends.Account:
    """By the grant for launching: the one for ending sees that a machine is there, and reads nothing of it."""
    with service.db.reading() as session:
        launch = session.get_one(Launch, order.launch_id)
    backend, connection = backends.named(service, order.backend), connections.row(service, order.connection_id)
    return connections.account(service, backend, connection, base.Purpose.LAUNCH, launch)


def last_line(service: Service, order: Order) -> str:
    """The last that our boot wrote there; empty where it wrote nothing or the cloud does not show it. Asks the cloud."""
    try:
        said = OURS.findall(text(service, order))
    except (clouds.ProviderError, errors.BrokerError) as refusal:
        log.info("no_console", order=order.id, why=str(refusal))
        return ""
    return said[-1].strip()[:LINE_MOST] if said else ""


def never_reported(service: Service, order: Order, why: str = "") -> str:
    """The sentence for a machine that was not heard of, with what it said last. `why`: the cloud's own words on its end."""
    return errors.BootTimeout.told(ended=why, said=last_line(service, order))
