"""Builds that are broken on purpose: what the checks must catch."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any


def break_(name: str) -> None:
    """Break the broker of this process in this way; not at all where there is no name."""
    if name:
        BREAKAGES[name]()


def no_idempotency_key() -> None:
    """Every creating call is a new purchase."""
    from providers.fake import FakeProvider

    inner = FakeProvider._creation
    FakeProvider._creation = lambda self, order: {**inner(self, order), "client_token": ""}  # type: ignore[method-assign]


def no_claim() -> None:
    """Whoever asks may send the creating call, on OpenStack."""
    from providers.openstack import claims

    claims.take = lambda services, order, number=0: True


def no_lease() -> None:
    """Whoever comes may take a step of a launch, and what it came to is always written down."""
    import sqlalchemy as sa

    from broker import launches
    from broker.models import Launch

    def lease(service: Any, launch_id: str) -> Any:
        wanted = sa.select(Launch).where(Launch.id == launch_id, Launch.due_at <= service.now())
        with service.db.transaction() as session:
            return session.scalars(wanted).one_or_none()

    launches.advancing._lease = lease


def no_teardown() -> None:
    """`stopped` is written without anything having been ended."""
    from broker import launches
    from broker.models import State

    def terminate(service: Any, launch: Any) -> Any:
        return launches.Next(state=State.STOPPED, say="Nothing of it is left.", columns={"stopped_at": service.now()})

    launches.STEPS[State.STOPPING] = terminate


def early_belief() -> None:
    """An empty list is believed at once, though a lost purchase may not show in it yet."""
    from providers.fake import FakeProvider

    inner = FakeProvider.__init__

    def init(self: Any, configuration: Any) -> None:
        inner(self, configuration)
        self.lists_within = dt.timedelta(0)

    FakeProvider.__init__ = init  # type: ignore[method-assign]


def no_settlement() -> None:
    """An order is closed, and what was promised for it stays promised for ever."""
    from broker import orders

    inner = orders._note

    def note(service: Any, order: Any, **values: Any) -> None:
        values.pop("settled", None)
        inner(service, order, **values)

    orders._note = note


def no_limit() -> None:
    """What an order may cost is promised, whatever the budget."""
    from broker import budgets

    budgets.affordable = lambda offers, limits, start, end: list(offers)


def two_hedges() -> None:
    """Whoever looks forgets that there was a second machine already."""
    from broker import orders

    orders.was_hedged = lambda service, launch: False


def forgotten_loser() -> None:
    """The slower of two machines is given up, and nobody ends it."""
    from broker import orders

    inner = orders._open

    def opened(launch_id: str) -> Any:
        from broker.models import Order

        return inner(launch_id).where(Order.closing_at.is_(None))

    orders._open = opened


def early_erasure() -> None:
    """The secret of a disconnected account is erased although a machine that runs there needs it to be ended."""
    import sqlalchemy as sa

    from broker import connections
    from broker.models import Connection

    def erase(service: Any) -> int:
        gone = sa.update(Connection).where(Connection.removed_at.is_not(None), Connection.erased_at.is_(None))
        service.accounts.clear()
        with service.db.transaction() as session:
            session.execute(gone.values(secret=None, erased_at=service.now()))
        return 0

    connections.erase_unneeded = erase


BREAKAGES: dict[str, Callable[[], None]] = {
    "no idempotency key": no_idempotency_key,
    "no claim": no_claim,
    "no lease": no_lease,
    "no teardown": no_teardown,
    "early belief": early_belief,
    "early erasure": early_erasure,
    "no settlement": no_settlement,
    "no limit": no_limit,
    "two hedges": two_hedges,
    "forgotten loser": forgotten_loser,
}
