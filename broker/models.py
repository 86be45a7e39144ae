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
    FORWARDED = "forwarded"
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
    connection_id: Mapped[str | None] = mapped_column(sa.String(12))
    """The person's own account that it runs on; None where the compute is the operator's."""
    repo_connection_id: Mapped[str | None] = mapped_column(sa.String(12))
    """What opens the repository, where it is private."""
    budget: Mapped[Decimal | None] = mapped_column(Money)
    """The most that all of it may cost, by its person's word; None: no limit of theirs."""
    currency: Mapped[str] = mapped_column(sa.String(8), default="USD")
    """What `budget` is in."""
    prefer: Mapped[str] = mapped_column(sa.String(16), default="price")
    """What offers are ordered by: `price`, or `ready`, by how soon they usually are."""
    spot: Mapped[bool] = mapped_column(default=False)
    """Its person takes offers that the cloud may end early."""
    hedged: Mapped[bool] = mapped_column(default=False)
    """A second order is opened once the usual time has passed; whichever is ready first stays."""
    elsewhere: Mapped[list[Any]] = mapped_column(sa.JSON, default=list)
    """Names of other backends it may go on to, in this order, once its own has no offer left."""
    offer: Mapped[str] = mapped_column(sa.Text, default="")
    """The server of their own that its person told it to run on, as its offer is called; empty: one is bought."""

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

    @property
    def runs(self) -> bool:
        """Its session can be entered, here or at a peer."""
        return self.state is State.READY or (self.state is State.FORWARDED and self.ready_at is not None)

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
    connection_id: Mapped[str | None] = mapped_column(sa.String(12), index=True)
    """What it was bought with, and is given back with."""
    offer: Mapped[dict[str, Any]]
    until: Mapped[dt.datetime]
    hedge: Mapped[bool] = mapped_column(default=False)
    """It is the second of two in a declared hedge."""
    promised: Mapped[Decimal] = mapped_column(Money, default=Decimal(0))
    """Its price for its longest life, from when this row was written; 0 also where nobody knows the price."""
    settled: Mapped[Decimal | None] = mapped_column(Money)
    """The most that the cloud can have billed, once it is closed; None before, and for ever where nobody knows the price."""
    created_at: Mapped[dt.datetime]
    first_asked_at: Mapped[dt.datetime | None]
    """When the cloud was first asked for it: from then on it may have billed."""
    asked_at: Mapped[dt.datetime | None]
    """When the cloud was last asked for it; until the cloud's lists have caught up, an empty list proves nothing."""
    instance: Mapped[str | None] = mapped_column(sa.Text)
    refused: Mapped[str] = mapped_column(sa.String(16), default="")
    """The reason in one word where the cloud would not sell it; empty while that is not known."""
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
    running_at: Mapped[dt.datetime | None]
    """When the cloud was first seen to say that it runs."""
    dead_man: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    """Sealed: what the machine may delete itself with, where the cloud has such a thing. Erased when the order is closed."""

    __table_args__ = (
        # One open order a launch, and one more where it is hedged.
        sa.Index(
            "uq_orders_open",
            "launch_id",
            "hedge",
            unique=True,
            sqlite_where=sa.text("closed_at IS NULL"),
            postgresql_where=sa.text("closed_at IS NULL"),
        ),
    )


class Forward(Table):
    """One try at a peer: a launch that another hub is asked to run."""

    __tablename__ = "forwards"

    id: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    launch_id: Mapped[str] = mapped_column(sa.ForeignKey("launches.id"), index=True)
    peer: Mapped[str] = mapped_column(sa.String(31))
    """Its name. What the peer is may have changed or gone since."""
    connection_id: Mapped[str | None] = mapped_column(sa.String(12))
    """The person's own account there, where it is asked with that."""
    opened_at: Mapped[dt.datetime]
    asked_at: Mapped[dt.datetime | None]
    """When the peer was asked, written before it is: asked again it might run it twice."""
    heard_at: Mapped[dt.datetime | None]
    """When it last said anything."""
    phase: Mapped[str] = mapped_column(sa.String(16), default="")
    """How far it has come there, in BinderHub's word."""
    way_in: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    """Sealed: the session's address and token, as JSON. Erased when this is closed."""
    ready_at: Mapped[dt.datetime | None]
    looked_at: Mapped[dt.datetime | None]
    """When the session was last asked whether it is there."""
    silent_at: Mapped[dt.datetime | None]
    """Since when it gave no answer that means something; None while it does."""
    closing_at: Mapped[dt.datetime | None]
    """When it was first asked to end."""
    outcome: Mapped[str] = mapped_column(sa.String(16), default="")
    """Why it was closed, in one word; `ended` where a session ran. Empty while it is open."""
    closed_at: Mapped[dt.datetime | None]
    lease: Mapped[str | None] = mapped_column(sa.String(16))
    lease_until: Mapped[dt.datetime | None]
    """Whoever reads its stream holds it, so that no two processes read one."""

    __table_args__ = (
        # One open try a launch: no launch runs twice.
        sa.Index(
            "uq_forwards_open",
            "launch_id",
            unique=True,
            sqlite_where=sa.text("closed_at IS NULL"),
            postgresql_where=sa.text("closed_at IS NULL"),
        ),
    )


class Peer(Table):
    """Another hub: what is known of how it is, and what it is where no setting says so."""

    __tablename__ = "peers"

    name: Mapped[str] = mapped_column(sa.String(31), primary_key=True)
    setting: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    """As settings.PeerSetting; None where the settings name it."""
    draining: Mapped[bool] = mapped_column(default=False)
    standing: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """federation.health.Standing, as JSON."""
    versions: Mapped[dict[str, Any]] = mapped_column(default=dict)
    providers: Mapped[list[Any]] = mapped_column(sa.JSON, default=list)
    """Prefixes of the repository hosts that it knows."""
    added_at: Mapped[dt.datetime]


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
    """A person has agreed to run this commit of this repository (`*`: any), with what was at stake then."""

    __tablename__ = "consents"

    person: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    repo_url: Mapped[str] = mapped_column(sa.String(1024), primary_key=True)
    commit: Mapped[str] = mapped_column(sa.String(128), primary_key=True)
    threats: Mapped[str] = mapped_column(sa.Text, default="")
    """`threats.Threat`, with blanks between."""
    at: Mapped[dt.datetime]


class Profile(Table):
    """A person, as far as we know them. Their logins say who they are."""

    __tablename__ = "people"

    id: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    name: Mapped[str] = mapped_column(sa.Text, default="")
    """For showing only."""
    email: Mapped[str] = mapped_column(sa.Text, default="")
    """For showing only: nobody is known by it."""
    created_at: Mapped[dt.datetime]
    signed_in_at: Mapped[dt.datetime | None]
    """When they last proved who they are."""


class Login(Table):
    """An account at an identity provider that signs a person in. A person may have several."""

    __tablename__ = "logins"

    issuer: Mapped[str] = mapped_column(sa.String(512), primary_key=True)
    subject: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    person: Mapped[str] = mapped_column(sa.ForeignKey("people.id"), index=True)
    name: Mapped[str] = mapped_column(sa.Text, default="")
    claims: Mapped[dict[str, Any]]
    """`groups`, `entitlements`, `affiliations`: lists of words, as they were last told."""
    created_at: Mapped[dt.datetime]
    signed_in_at: Mapped[dt.datetime]


class SignIn(Table):
    """A browser that is signed in."""

    __tablename__ = "sign_ins"

    id: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    digest: Mapped[bytes] = mapped_column(sa.LargeBinary(32), unique=True)
    """Of the secret in the browser's cookie."""
    person: Mapped[str] = mapped_column(sa.ForeignKey("people.id"), index=True)
    issuer: Mapped[str] = mapped_column(sa.String(512))
    subject: Mapped[str] = mapped_column(sa.String(255))
    sid: Mapped[str] = mapped_column(sa.String(255), default="", index=True)
    """What the identity provider calls this session, for its log-outs."""
    level: Mapped[str] = mapped_column(sa.String(255), default="")
    """Its `acr`."""
    authenticated_at: Mapped[dt.datetime]
    """When the person last proved who they are, in this browser."""
    created_at: Mapped[dt.datetime]
    seen_at: Mapped[dt.datetime]
    ends_at: Mapped[dt.datetime]
    browser: Mapped[str] = mapped_column(sa.String(200), default="")
    """What the browser calls itself, for the person to recognise it."""
    refreshed_at: Mapped[dt.datetime]
    grant: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    """Sealed: what renews it at the identity provider."""


class ApiToken(Table):
    """A token that a person made for scripts or their command line."""

    __tablename__ = "api_tokens"

    id: Mapped[str] = mapped_column(sa.String(12), primary_key=True)
    digest: Mapped[bytes] = mapped_column(sa.LargeBinary(32), unique=True)
    person: Mapped[str] = mapped_column(sa.String(255), index=True)
    name: Mapped[str] = mapped_column(sa.String(64))
    scopes: Mapped[str] = mapped_column(sa.String(64))
    """Words with spaces between: `read`, `launch`."""
    created_at: Mapped[dt.datetime]
    ends_at: Mapped[dt.datetime]
    used_at: Mapped[dt.datetime | None]
    revoked_at: Mapped[dt.datetime | None]


class DeviceLogin(Table):
    """A command line that waits to be let in by somebody in a browser (RFC 8628)."""

    __tablename__ = "device_logins"

    digest: Mapped[bytes] = mapped_column(sa.LargeBinary(32), primary_key=True)
    """Of the code that the command line holds."""
    user_code: Mapped[str] = mapped_column(sa.String(16), unique=True)
    """A digest, under our own key, of what the person types: it is too short for one that needs none."""
    asked_from: Mapped[str] = mapped_column(sa.String(16), index=True)
    """The same of the network it was asked from: who has many open gets no more."""
    name: Mapped[str] = mapped_column(sa.String(64))
    scopes: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[dt.datetime]
    ends_at: Mapped[dt.datetime]
    polled_at: Mapped[dt.datetime | None]
    person: Mapped[str | None] = mapped_column(sa.String(255))
    """Who let it in."""
    refused: Mapped[bool] = mapped_column(default=False)


class Connection(Table):
    """A person's standing trust with a backend, a repository host or a peer."""

    __tablename__ = "connections"

    id: Mapped[str] = mapped_column(sa.String(12), primary_key=True)
    person: Mapped[str] = mapped_column(sa.String(255), index=True)
    target: Mapped[str] = mapped_column(sa.String(128))
    """`backend:<name>`, `repo:<prefix>` or `peer:<name>`."""
    kind: Mapped[str] = mapped_column(sa.String(32))
    subject: Mapped[str] = mapped_column(sa.String(32))
    """Who this person is towards this target, and nowhere else."""
    settings: Mapped[dict[str, Any]]
    """The plain fields of its kind."""
    secret: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    """Sealed: the secret field of its kind, where it has one."""
    who: Mapped[str] = mapped_column(sa.Text, default="")
    """Who the other side said this is, when it was last checked."""
    findings: Mapped[list[Any]] = mapped_column(sa.JSON, default=list)
    """What the last check found, permission by permission."""
    works: Mapped[bool | None]
    """Whether the last check or use went well; None before the first."""
    trouble: Mapped[str] = mapped_column(sa.Text, default="")
    """The sentence of what went wrong last."""
    checked_at: Mapped[dt.datetime | None]
    ends_at: Mapped[dt.datetime | None]
    """When signing in with it stops working, where that is known."""
    created_at: Mapped[dt.datetime]
    removed_at: Mapped[dt.datetime | None]
    """Nothing new is begun with it; what runs is still ended with it."""
    erased_at: Mapped[dt.datetime | None]
    """When its secret was erased, after the last instance that needed it was gone."""

    __table_args__ = (
        # One connection a person and target.
        sa.Index(
            "uq_connections_target",
            "person",
            "target",
            unique=True,
            sqlite_where=sa.text("removed_at IS NULL"),
            postgresql_where=sa.text("removed_at IS NULL"),
        ),
    )


class Use(Table):
    """One use of what a person has entrusted to us: who, what for, which launch. Only ever added."""

    __tablename__ = "uses"

    id: Mapped[int] = mapped_column(sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)
    at: Mapped[dt.datetime]
    person: Mapped[str] = mapped_column(sa.String(255), index=True)
    connection_id: Mapped[str | None] = mapped_column(sa.ForeignKey("connections.id"), index=True)
    what: Mapped[str] = mapped_column(sa.String(32))
    """`launch`, `reap`, `check`, `sweep`, `prices`, `look up`, `clone`, `linked token`; pages call them by `web.connect.DONE`."""
    launch_id: Mapped[str | None] = mapped_column(sa.String(12))
    outcome: Mapped[str] = mapped_column(sa.Text, default="")
    """Empty where it went well, else the sentence."""


class SigningKey(Table):
    """A key that signs our tokens for clouds, and nothing else."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    public: Mapped[dict[str, Any]]
    """As a JWK."""
    private: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    """Sealed; erased once it no longer signs."""
    created_at: Mapped[dt.datetime]
    signs_at: Mapped[dt.datetime]
    """From then on it signs: clouds have read it by then."""
    hidden_at: Mapped[dt.datetime | None]
    """From then on it is no longer published."""
