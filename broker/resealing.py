"""Putting every sealed secret under the ring's first key, while brokers run.

Row by row, each exchanged only while it is still what was read: a secret that was replaced or erased in between stays so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from broker import sealing
from broker.models import Connection, Forward, Order, SignIn, SigningKey
from broker.service import Service

PLACES: tuple[tuple[orm.InstrumentedAttribute[str], orm.InstrumentedAttribute[bytes | None]], ...] = (
    (SigningKey.kid, SigningKey.private),
    (Connection.id, Connection.secret),
    (SignIn.id, SignIn.grant),
    (Order.id, Order.dead_man),
    (Forward.id, Forward.way_in),
)
"""Every column that holds sealed secrets, with what names its rows. A secret is sealed for `<table>/<name of the row>`."""
BATCH = 100  # rows a transaction: some milliseconds


@dataclass(frozen=True, kw_only=True)
class Resealed:
    """What became of the secrets."""

    done: Counter[str] = field(default_factory=Counter)
    """How many were put under the first key, by table."""
    shut: tuple[str, ...] = ()
    """Those that no key of the ring opens, by table and row. They are left as they are."""


def reseal(service: Service, *, batch: int = BATCH) -> Resealed:
    """Put everything under the ring's first key. May be repeated and interrupted. Raises BadRequest without a ring."""
    service.sealer.names  # noqa: B018 -- reads the ring again, once for all that follow
    done: Counter[str] = Counter()
    shut: list[str] = []
    for name, secret in PLACES:
        for rows in _batches(service, name, secret, batch):
            fresh = [(row, old, new) for row, old in rows if (new := _resealed(service, name, row, old, shut))]
            done[_table(name)] += _exchange(service, name, secret, fresh)
    return Resealed(done=+done, shut=tuple(shut))


def under(service: Service) -> Counter[str]:
    """How many secrets are sealed with each key, by its name."""
    found: Counter[str] = Counter()
    for name, secret in PLACES:
        for rows in _batches(service, name, secret, BATCH):
            found.update(sealing.name_of(sealed) for _, sealed in rows)
    return found


def _resealed(service: Service, name: Any, row: str, old: bytes, shut: list[str]) -> bytes | None:
    about = f"{_table(name)}/{row}"
    try:
        return service.sealer.resealed(old, about, fresh=False)
    except sealing.Unsealable:
        shut.append(about)
        return None


def _exchange(service: Service, name: Any, secret: Any, fresh: list[tuple[str, bytes, bytes]]) -> int:
    """Write these, each where nothing else was written since; how many that were."""
    if not fresh:
        return 0
    with service.db.transaction() as session:
        changes = [
            sa.update(name.class_).where(name == row, secret == old).values({secret: new}) for row, old, new in fresh
        ]
        return sum(session.execute(each).rowcount for each in changes)  # type: ignore[attr-defined]


def _batches(service: Service, name: Any, secret: Any, batch: int) -> Iterator[list[tuple[str, bytes]]]:
    last = ""
    while True:
        query = (
            sa.select(name, secret).where(secret.is_not(None), secret != b"", name > last).order_by(name).limit(batch)
        )
        with service.db.reading() as session:
            rows = [(row, sealed) for row, sealed in session.execute(query)]
        if not rows:
            return
        yield rows
        last = rows[-1][0]


def _table(name: Any) -> str:
    return str(name.class_.__tablename__)
