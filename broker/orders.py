"""Buying, and giving back. A row first, then money, then the cloud; closed only after the cloud says that nothing is left.

A launch has one open order, and a second one, its hedge, where that was declared. Both are alike but for who leads: the
session belongs to the order that `leader` names.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from broker import backends, bootstrap, budgets, connections, crypto, errors
from broker.models import Launch, Order
from broker.service import Service
from providers import base

REFUSED_WITHIN = dt.timedelta(seconds=2)  # for what a refused call has half made to show; the next offer waits for it


def opened(service: Service, launch: Launch) -> list[Order]:
    """The open orders of this launch, the first before its hedge: two at most."""
    with service.db.reading() as session:
        return list(session.scalars(_open(launch.id)))


def living(opened: Sequence[Order]) -> list[Order]:
    """Those that are not given up."""
    return [order for order in opened if order.closing_at is None]


def leader(orders: Sequence[Order]) -> Order | None:
    """Whose the session is: the first that is not given up, before its hedge; the newest where all are. None for none."""
    wanted = sorted(living(orders), key=lambda order: order.hedge)
    return next(iter(wanted), None) or max(orders, key=lambda order: order.created_at, default=None)


def current(service: Service, launch: Launch) -> Order | None:
    """The open order that this launch runs on, if there is one."""
    return leader(opened(service, launch))


def of_launch(session: orm.Session, launch_id: str, *options: orm.interfaces.ORMOption) -> list[Order]:
    """Every order of this launch, oldest first."""
    query = sa.select(Order).where(Order.launch_id == launch_id).order_by(Order.created_at)
    return list(session.scalars(query.options(*options)))


def newest(service: Service, launch: Launch) -> Order | None:
    """The order of this launch that was opened last, whatever has become of it."""
    query = sa.select(Order).where(Order.launch_id == launch.id).order_by(Order.created_at.desc()).limit(1)
    with service.db.reading() as session:
        return session.scalars(query).one_or_none()


def tried(service: Service, launch: Launch) -> list[str]:
    """The offers of its backend that this launch has ordered so far, oldest first. The rows say it: no crash makes one
    forgotten."""
    with service.db.reading() as session:
        found = of_launch(session, launch.id)
    return [order.offer["id"] for order in found if order.backend == launch.backend]


def was_hedged(service: Service, launch: Launch) -> bool:
    """Whether it has ever ordered a second machine beside the first."""
    with service.db.reading() as session:
        return any(order.hedge for order in of_launch(session, launch.id))


def last_refusal(service: Service, launch: Launch) -> str:
    """Why its newest order was not sold, in one word; empty where it was."""
    with service.db.reading() as session:
        found = of_launch(session, launch.id)
    return found[-1].refused if found else ""


def limits(service: Service, launch: Launch) -> list[budgets.Limit]:
    """What this launch may still spend."""
    with service.db.reading() as session:
        return budgets.limits(session, launch, _most(service, launch))


def open_order(service: Service, launch: Launch, offer: base.Offer, *, hedge: bool = False) -> Order:
    """Write down what is about to be bought, and promise its price for its longest life. Nothing is bought yet.

    Only whoever holds the launch's lease may. Raises BudgetExceeded, LeaseLost.
    """
    now = service.now()
    with service.db.transaction() as session:
        held = session.get(Launch, launch.id, with_for_update=True)
        if held is None or held.lease != launch.lease:
            raise errors.LeaseLost
        for existing in session.scalars(_open(launch.id)):
            if existing.hedge == hedge:
                return existing
        budgets.affordable([offer], budgets.limits(session, held, _most(service, launch)), now, launch.deadline_at)
        order = Order(
            id=crypto.new_id(16),
            launch_id=launch.id,
            backend=launch.backend,
            connection_id=launch.connection_id,
            offer=_plain(offer),
            until=launch.deadline_at,
            hedge=hedge,
            promised=budgets.promised(offer, now, launch.deadline_at) or Decimal(0),
            created_at=now,
        )
        session.add(order)
        return order


def _most(service: Service, launch: Launch) -> Decimal | None:
    return backends.named(service, launch.backend).setting.max_price


def buy(service: Service, launch: Launch, order: Order, account: backends.Account) -> base.Instance:
    """Ask the cloud for this order. Repeatable: the same order yields the same instance. Raises ProviderError, LeaseLost.

    Who was away for so long that the order was given up meanwhile (a computer that slept) gives back what it has bought.
    """
    _note_asked(service, order)
    wanted = base.Order(
        id=order.id,
        offer=_offer(order.offer),
        tag=bootstrap.tag(service, launch, order),
        boot=bootstrap.boot(service, order),
    )
    instance = account.provision(wanted)
    _note(service, order, instance=instance.id)
    if _is_given_up(service, order):
        account.terminate(instance.id, order.id)
        raise errors.LeaseLost
    return instance


def _note_asked(service: Service, order: Order) -> None:
    """Not for what somebody else has given up: after that nobody asks any more, and who ends it knows whether anybody has."""
    now = service.now()
    # The row's word, not ours: another worker may have asked since we read it.
    first = sa.func.coalesce(Order.first_asked_at, sa.literal(now, Order.first_asked_at.type))
    with service.db.transaction() as session:
        wanted = sa.update(Order).where(Order.id == order.id, Order.closing_at.is_(None))
        noted: Any = session.execute(wanted.values(asked_at=now, first_asked_at=first))
    if not noted.rowcount:
        raise errors.LeaseLost
    orm.attributes.set_committed_value(order, "asked_at", now)
    orm.attributes.set_committed_value(order, "first_asked_at", order.first_asked_at or now)


def _is_given_up(service: Service, order: Order) -> bool:
    """By whoever has taken the launch over since."""
    with service.db.reading() as session:
        found = session.get(Order, order.id)
    return found is not None and found.closing_at is not None


def note_state(service: Service, order: Order, state: base.InstanceState) -> None:
    """Remember when the cloud was first seen to say that it runs."""
    if order.running_at is None and state is base.InstanceState.RUNNING:
        _note(service, order, running_at=service.now())


def give_up(service: Service, order: Order, *, refused: str = "") -> None:
    """From here on it only goes one way: its agent is refused, and `end` gives it back. `refused`: why it was not sold."""
    if order.closing_at is None:
        _note(service, order, closing_at=service.now(), refused=refused)


def end(service: Service, order: Order) -> bool:
    """Give it back: ask the cloud to end it, and ask whether it is gone. True once the order is closed.

    Call again until it is. Raises ProviderError; what could not be asked is not taken for gone.
    """
    if order.closed_at is not None:
        return True
    give_up(service, order)
    if _was_asked_for(service, order) and not _gone(service, order):
        return False
    _close(service, order)
    return True


def _was_asked_for(service: Service, order: Order) -> bool:
    """Also by somebody who had the launch before us, since we have read the row."""
    with service.db.reading() as session:
        found = session.get(Order, order.id)
    for name in ("asked_at", "first_asked_at", "instance") if found else ():
        orm.attributes.set_committed_value(order, name, getattr(found, name))
    return order.asked_at is not None


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
    One that was asked once, and refused, has begun no machine: what else it may have made, a disk or a group, shows in a
    moment, and the next offer waits for no list that is minutes behind.
    """
    if gone is not None and gone.tag is not None:
        return True
    patience = backends.named(service, order.backend).provider.lists_within
    if order.refused and order.instance is None and order.asked_at == order.first_asked_at:
        patience = min(patience, REFUSED_WITHIN)
    asked_at = order.asked_at or order.created_at
    return service.now() - asked_at >= patience


def _close(service: Service, order: Order) -> None:
    now = service.now()
    settled = budgets.settled(offered(order), order.first_asked_at, now)
    _note(service, order, closed_at=now, settled=settled, dead_man=None)


def offered(order: Order) -> base.Offer:
    """What was ordered."""
    return _offer(order.offer)


def said(order: Order, doing: str) -> str:
    """`Starting on Small in zone a for $0.05 an hour, at most $0.70.`"""
    offer = offered(order)
    if offer.taken:
        return f"Nothing is bought. {offer.title} waits for you: paste the line that the launch's page shows into its shell."
    most = f", at most {budgets.money(order.promised, offer.currency)}" if offer.price_per_hour else ""
    price = f" for {budgets.rate(offer)}{most}" if offer.price_per_hour else ""
    return f"{doing} on {offer.title}{price}."


def _open(launch_id: str) -> sa.Select[Order]:
    open_ = Order.launch_id == launch_id, Order.closed_at.is_(None)
    return sa.select(Order).where(*open_).order_by(Order.created_at, Order.hedge)


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
