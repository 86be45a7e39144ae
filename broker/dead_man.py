"""What a machine may delete itself with, where going off does not end its bill: asked for, sealed, handed over, erased.

It is asked for with the credential of the launch once the machine is bought, lies sealed in its order's row, and goes to the
agent in answers to its reports until the agent says that it has it. With the order it is erased.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
import structlog

from broker import backends, bootstrap, connections, errors, sealing
from broker.models import Launch, Order
from broker.service import Service
from providers import base
from providers import errors as clouds

log = structlog.get_logger(__name__)
NOTHING = b""
"""In place of a secret: the cloud was asked, and has no such thing, or would not give it."""


def obtain(service: Service, launch: Launch, order: Order) -> None:
    """Have the cloud make it, once an order; may be called at every look. Raises nothing: a launch goes on without.

    Asks the cloud until that has answered, once a call. Not within a transaction.
    """
    if order.dead_man is not None or order.instance is None or order.closing_at is not None:
        return
    if type(backends.named(service, order.backend).provider).dead_man is base.Provider.dead_man:
        return  # there is no such thing there
    tag = bootstrap.tag(service, launch, order)
    instance = base.Instance(id=order.instance, tag=tag, state=base.InstanceState.RUNNING)
    try:
        account = connections.of_launch(service, launch, base.Purpose.LAUNCH)
        made = account.dead_man(instance)
    except clouds.ProviderUnavailable:
        return
    except (clouds.ProviderError, errors.BrokerError) as refusal:
        log.warning("no_dead_man", launch=launch.id, order=order.id, why=str(refusal))
        made = None
    _keep(service, order, service.sealer.seal(json.dumps(_plain(made)), _about(order.id)) if made else NOTHING)


def told(service: Service, order: Order) -> dict[str, Any]:
    """What an answer to this order's agent carries of it; nothing where there is none, or its key is gone."""
    if not order.dead_man:
        return {}
    try:
        return {"dead_man": json.loads(service.sealer.open(order.dead_man, _about(order.id)))}
    except sealing.Unsealable as fault:
        log.warning("no_dead_man", order=order.id, why=str(fault))
        return {}


def _keep(service: Service, order: Order, value: bytes) -> None:
    """An order that was closed meanwhile holds nothing."""
    still_open = Order.id == order.id, Order.closed_at.is_(None)
    with service.db.transaction() as session:
        session.execute(sa.update(Order).where(*still_open).values(dead_man=value))


def _about(order_id: str) -> str:
    return f"orders/{order_id}"


def _plain(made: base.DeadMan) -> dict[str, Any]:
    return {"requests": [asdict(request) for request in made.requests], "ends_at": made.ends_at.isoformat()}
