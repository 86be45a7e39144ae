"""Every row there is. A launch is written before anything is bought, and never deleted."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from broker.db import Money, Table


def _word(kind: type[enum.StrEnum]) -> sa.Enum:
    """Stored as the word itself, so that a row can be read without us."""
    return sa.Enum(kind, native_enum=False, length=16, values_callable=lambda words: [word.value for word in words])


class State(enum.StrEnum):
    """Where a launch stands. docs/architecture.md draws every edge."""

    WAITING = "waiting"
    PLACED = "placed"
    AUTHORIZED = "authorized"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"


BOUGHT = (State.AUTHORIZED, State.STARTING)
"""An agent may speak in both: the machine can be up before the cloud has answered that it was made."""


class Phase(enum.StrEnum):
    """BinderHub's words for what a person sees."""

    WAITING = "waiting"
    FETCHING = "fetching"
    BUILDING = "building"
    PUSHING = "pushing"
    BUILT = "built"
    LAUNCHING = "launching"
    READY = "ready"
    FAILED = "failed"


class Launch(Table):
    """One wish to run one repository once."""

    __tablename__ = "launches"

    id: Mapped[str] = mapped_column(sa.String(12), primary_key=True)
    person: Mapped[str] = mapped_column(sa.String(255), index=True)
    name: Mapped[str] = mapped_column(sa.String(64))
    fingerprint: Mapped[str] = mapped_column(sa.String(64))
    """Digest of everything that was asked for: the same name with the same fingerprint reconnects."""
    spec: Mapped[str] = mapped_column(sa.Text)
    repo_url: Mapped[str] = mapped_column(sa.Text)
    web_url: Mapped[str] = mapped_column(sa.Text)
    title: Mapped[str] = mapped_column(sa.Text)
    ref: Mapped[str] = mapped_column(sa.Text)
    commit: Mapped[str] = mapped_column(sa.String(128))
    content: Mapped[dict[str, Any]]
    """How the instance gets the files (repos.Resolved.content)."""
    path: Mapped[str] = mapped_column(sa.Text, default="")
    backend: Mapped[str] = mapped_column(sa.String(64))
    hours: Mapped[float]
    idle_minutes: Mapped[float]
    cpu: Mapped[float | None]
    memory_mb: Mapped[int | None]
    disk_gb: Mapped[int | None]
    gpu: Mapped[int | None]
    asked_from: Mapped[str] = mapped_column(sa.String(8), default="api")
    """`api`, `page` or `build`."""
    request: Mapped[dict[str, Any]]
    """What BinderHub's clients are told and the session finds in its variables: `binder_request` and its like."""
    build_only: Mapped[bool] = mapped_column(default=False)
    """An image is wanted, and no session."""
    image: Mapped[str] = mapped_column(sa.Text, default="")
    """The image it runs or was built into, once that is known."""

    state: Mapped[State] = mapped_column(_word(State), index=True)
    phase: Mapped[Phase] = mapped_column(_word(Phase), default=Phase.WAITING)
    stop_wanted: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(sa.String(64), default="")
    """Why it ended or is ending: one word for the metric. Empty while nothing is wrong."""
    message: Mapped[str] = mapped_column(sa.Text, default="")

    created_at: Mapped[dt.datetime]
    seated_at: Mapped[dt.datetime | None]
    """When it got its seat on the backend; a full backend lets launches wait, the oldest first."""
    followed_at: Mapped[dt.datetime | None]
    """When somebody was last seen to follow it while it waited for a seat: a visitor who has left keeps no turn."""
    entered_at: Mapped[dt.datetime]
    """When the present state began."""
    ready_at: Mapped[dt.datetime | None]
    stopped_at: Mapped[dt.datetime | None]
    deadline_at: Mapped[dt.datetime]
    last_activity_at: Mapped[dt.datetime | None]

    due_at: Mapped[dt.datetime | None] = mapped_column(index=True)
    """When to take the next step; None once stopped."""
    lease: Mapped[str | None] = mapped_column(sa.String(16))
    lease_until: Mapped[dt.datetime | None]
    events: Mapped[int] = mapped_column(default=0)
    """Number of the newest event."""

    __table_args__ = (
        # One running launch a name: two requests at once cannot both win.
        sa.Index(
            "uq_launches_running_name",
            "person",
            "name",
            unique=True,
            sqlite_where=sa.text("state != 'stopped'"),
            postgresql_where=sa.text("state != 'stopped'"),
        ),
    )


class Order(Table):
    """One purchase. Its id is the idempotency key at the cloud."""

    __tablename__ = "orders"

    id: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    launch_id: Mapped[str] = mapped_column(sa.ForeignKey("launches.id"), index=True)
    backend: Mapped[str] = mapped_column(sa.String(64))
    offer: Mapped[dict[str, Any]]
    until: Mapped[dt.datetime]
    promised: Mapped[Decimal] = mapped_column(Money, default=Decimal(0))
    settled: Mapped[Decimal | None] = mapped_column(Money)
    created_at: Mapped[dt.datetime]
    asked_at: Mapped[dt.datetime | None]
    """When the cloud was last asked for it; until the cloud's lists have caught up, an empty list proves nothing."""
    instance: Mapped[str | None] = mapped_column(sa.Text)
    closing_at: Mapped[dt.datetime | None]
    closed_at: Mapped[dt.datetime | None]
    """Set only after the cloud itself said that nothing is left."""

    enrolled_at: Mapped[dt.datetime | None]
    agent_hash: Mapped[bytes | None]
    agent_seen_at: Mapped[dt.datetime | None]
    agent_events: Mapped[int] = mapped_column(default=0)
    """Number of the newest event taken from the agent: what it repeats is dropped."""
    server: Mapped[str] = mapped_column(sa.String(16), default="none")
    kind: Mapped[str | None] = mapped_column(sa.String(16))
    tunnelled_at: Mapped[dt.datetime | None]

    __table_args__ = (
        # One open order a launch.
        sa.Index(
            "uq_orders_open",
            "launch_id",
            unique=True,
            sqlite_where=sa.text("closed_at IS NULL"),
            postgresql_where=sa.text("closed_at IS NULL"),
        ),
    )


class Event(Table):
    """One progress line of a launch. Only ever added."""

    __tablename__ = "events"

    launch_id: Mapped[str] = mapped_column(sa.ForeignKey("launches.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[dt.datetime]
    phase: Mapped[Phase | None] = mapped_column(_word(Phase))
    state: Mapped[State] = mapped_column(_word(State))
    message: Mapped[str] = mapped_column(sa.Text)
    more: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Consent(Table):
    """A person has agreed to run this commit of this repository as themselves."""

    __tablename__ = "consents"

    person: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    repo_url: Mapped[str] = mapped_column(sa.String(1024), primary_key=True)
    commit: Mapped[str] = mapped_column(sa.String(128), primary_key=True)
    at: Mapped[dt.datetime]
