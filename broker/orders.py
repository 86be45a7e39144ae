"""Buying, and giving back. A row first, then the cloud; closed only after the cloud says that nothing is left."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from broker import backends, bootstrap, connections, crypto
from broker.models import Launch, Order
from broker.service import Service
from providers import base


def current(service: Service, launch: Launch) -> Order | None:
    """The open order of this launch, if there is one."""
    with service.db.reading() as session:
        return session.scalars(_open(launch.id)).one_or_none()


def tried(service: Service, launch: Launch) -> list[str]:
    """The offers this launch has ordered so far, oldest first. The rows say it: no crash makes one forgotten."""
    query = sa.select(Order).where(Order.launch_id == launch.id).order_by(Order.created_at)
    with service.db.reading() as session:
        return [order.offer["id"] for order in session.scalars(query)]


def open_order(service: Service, launch: Launch, offer: base.Offer) -> Order:
    """Write down what is about to be bought, and promise its price for its longest life. Nothing is bought yet."""
    with service.db.transaction() as session:
        if existing := session.scalars(_open(launch.id)).one_or_none():
            return existing
        order = Order(
            id=crypto.new_id(16),
            launch_id=launch.id,
            backend=launch.backend,
            connection_id=launch.connection_id,
            offer=_plain(offer),
            until=launch.deadline_at,
            promised=price(offer, service.now(), launch.deadline_at),
            created_at=service.now(),
        )
        session.add(order)
        return order


def buy(service: Service, launch: Launch, order: Order, account: backends.Account) -> base.Instance:
    """Ask the cloud for this order. Repeatable: the same order yields the same instance. Raises ProviderError."""
    _note(service, order, asked_at=service.now())
    wanted = base.Order(
        id=order.id,
        offer=_offer(order.offer),
        tag=bootstrap.tag(service, launch, order),
        boot=bootstrap.boot(service, order),
    )
    instance = account.provision(wanted)
    _note(service, order, instance=instance.id)
    return instance


def give_up(service: Service, order: Order) -> None:
    """From here on it only goes one way: its agent is refused, and `end` gives it back."""
    if order.closing_at is None:
        _note(service, order, closing_at=service.now())


def end(service: Service, order: Order) -> bool:
    """Give it back: ask the cloud to end it, and ask whether it is gone. True once the order is closed.

    Call again until it is. Raises ProviderError; what could not be asked is not taken for gone.
    """
    if order.closed_at is not None:
        return True
    give_up(service, order)
    if order.asked_at is not None and not _gone(service, order):
        return False
    _close(service, order)
    return True


def _gone(service: Service, order: Order) -> bool:
    account = connections.of_order(service, order)
    account.terminate(order.instance, order.id)
    described = account.describe(order.instance) if order.instance else None
    if described and described.state is not base.InstanceState.GONE:
        return False
    if any(found.tag and found.tag.order == order.id for found in account.instances(service.keys.broker_id)):
        return False
    return believable(service, order, described)


def believable(service: Service, order: Order, gone: base.Instance | None) -> bool:
    """Whether a cloud can be believed that this order is gone, or that there is nothing of it.

    One that shows the instance as ended (with its tag) knows what it says. One that does not know it may not know it
    yet, as long as the order was asked for less than `lists_within` ago; that its agent has spoken changes nothing.
    """
    if gone is not None and gone.tag is not None:
        return True
    asked_at = order.asked_at or order.created_at
    return service.now() - asked_at >= backends.named(service, order.backend).provider.lists_within


def _close(service: Service, order: Order) -> None:
    now = service.now()
    began = order.asked_at or now
    _note(
        service, order, closed_at=now, settled=price(_offer(order.offer), began, now) if order.asked_at else Decimal(0)
    )


def price(offer: base.Offer, start: dt.datetime, end: dt.datetime) -> Decimal:
    """What this costs from start to end; nothing is promised for a price nobody knows."""
    hours = Decimal(max(0.0, (end - start).total_seconds())) / 3600
    return ((offer.price_per_hour or Decimal(0)) * hours).quantize(Decimal("0.000001"))


def _open(launch_id: str) -> sa.Select[Order]:
    return sa.select(Order).where(Order.launch_id == launch_id, Order.closed_at.is_(None))


def _note(service: Service, order: Order, **values: Any) -> None:
    """Write these columns, in the table and in the row at hand."""
    with service.db.transaction() as session:
        session.execute(sa.update(Order).where(Order.id == order.id).values(**values))
    for name, value in values.items():
        orm.attributes.set_committed_value(order, name, value)


def _plain(offer: base.Offer) -> dict[str, Any]:
    plain = asdict(offer)
    plain["price_per_hour"] = None if offer.price_per_hour is None else str(offer.price_per_hour)
    return plain


def _offer(plain: dict[str, Any]) -> base.Offer:
    known = None if plain["price_per_hour"] is None else Decimal(plain["price_per_hour"])
    return base.Offer(**{**plain, "resources": base.Resources(**plain["resources"]), "price_per_hour": known})
