"""The provider contract, and the words it speaks.

A provider is a kind of compute. All its verbs are plain blocking functions, called from worker threads, from
several at once: keep no state between calls but what is safe to share. A verb bounds its own network time to
`CALL_SECONDS`, and reads no setting from the process environment.

Order of a purchase: `sign_in` → `offers` → `provision` → `describe` … → `terminate`; `instances` at any time.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

from providers.errors import InvalidOrder

CALL_SECONDS = 45  # no verb may block longer: the broker's lease on a launch (120 s) must outlive two of them


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a session needs. `None` means: whatever the backend gives."""

    cpu: float | None = None
    memory_mb: int | None = None
    disk_gb: int | None = None
    gpu: int | None = None
    hours: float | None = None


@dataclass(frozen=True, kw_only=True)
class Tag:
    """Travels in the creating call, on every resource it creates; what `instances` finds them by.

    `until` is the instant after which nobody can want this instance any more, whatever a table remembers.
    """

    broker: str
    launch: str
    order: str
    until: datetime

    def as_labels(self) -> dict[str, str]:
        """Four short strings: letters, digits, `-`, `_`, `.` and `:` only, so that every cloud takes them as they are."""
        return {
            "anybinder-broker": self.broker,
            "anybinder-launch": self.launch,
            "anybinder-order": self.order,
            "anybinder-until": self.until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> Tag | None:
        """The tag in these labels; None where one is missing or unreadable (then it is not ours to touch)."""
        try:
            return cls(
                broker=labels["anybinder-broker"],
                launch=labels["anybinder-launch"],
                order=labels["anybinder-order"],
                until=datetime.strptime(labels["anybinder-until"] + "+0000", "%Y-%m-%dT%H:%M:%SZ%z"),
            )
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One thing that could run the launch, at a price. `price_per_hour` None means unknown, never free."""

    id: str
    title: str
    resources: Resources = Resources()
    price_per_hour: Decimal | None = None
    currency: str = "USD"
    """Of three letters; `SU` where a cloud counts service units, which are no money."""
    zone: str | None = None
    """An order is bound to it: where a cloud chooses by zones, each is an offer of its own, so that no order is bought twice."""
    usual_seconds: float | None = None
    """From `provision` to an enrolled agent, as the provider would guess it; None where it cannot say."""
    architecture: str = ""
    """`x86_64` or `arm64`, as machines call themselves; empty where the provider cannot say."""
    risk: str = ""
    """What may happen to it that happens to no other, in a sentence (a spot machine may be taken away); empty: nothing."""
    beyond: str = ""
    """Which limit of the account it does not fit into now, in a sentence that says what to do; empty where none is known."""
    price_source: str = ""
    """Who says this price, in a few words; empty where it is unknown."""
    price_as_of: str = ""
    """The day it was read, as `2026-11-28`."""
    taken: bool = False
    """A machine of the account's own that runs already: nothing is bought, and it is never changed or ended.

    Only its person may choose it, and only they can start the agent there: `provision` notes who runs on it, for one order at
    a time, and `terminate` gives that note back. Such offers come last.
    """


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What the new instance is told at birth."""

    user_data: str = field(repr=False)
    """For machines: cloud-init user data. Carries the one-time enrolment token, no long-lived secret.

    The same each time for one order: a repeated creating call must be the same to the letter.
    """
    config: Mapping[str, Any] = field(repr=False)
    """The same for an agent started directly: its boot configuration (docs/architecture.md, "the agent")."""
    agent: str
    """Path of `agent.py` on this computer, for providers that start it directly."""
    builder: tuple[str, ...] = ()
    """Command that builds an environment on this computer, for providers that start the agent directly."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One purchase. `id` is its idempotency key: lower-case letters and digits, at most 32."""

    id: str
    offer: Offer
    tag: Tag
    boot: Boot


class InstanceState(enum.StrEnum):
    """What a cloud says of an instance, in words that are the same for every cloud."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    """It is ending, or has ended by itself: it will not run again, and something of it is still there or billed."""
    GONE = "gone"
    """Nothing of it is left and nothing of it is billed."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """What we have. `id` is the cloud's own name for it; `tag` is None only where the cloud no longer shows it."""

    id: str
    tag: Tag | None
    state: InstanceState
    detail: str = ""
    """Why it is in this state, in the cloud's words, where it says."""
    created_at: datetime | None = None
    parts: tuple[str, ...] = ()
    """Other billed or named resources of the same order that still exist (disks, addresses, keys …)."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request over HTTPS that a machine sends by itself, without knowing any cloud."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: str = field(default="", repr=False)
    keep: Mapping[str, str] = field(default_factory=dict)
    """Headers of the answer to remember, by the name of the header that the next request repeats them in."""


@dataclass(frozen=True, kw_only=True)
class DeadMan:
    """What a machine may hold to delete itself, and nothing else, once its time is over or its broker silent."""

    requests: tuple[Request, ...] = field(repr=False)
    """In this order; any answer of 2xx, 404 or 410 is success."""
    ends_at: datetime
    """When this ends by itself."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """What one kind of machine costs in one region, by whose word and when."""

    region: str
    machine: str
    price_per_hour: Decimal
    currency: str = "USD"
    spot: bool = False
    source: str = ""
    as_of: str = ""
    """The day it was read, as `2026-11-28`."""


class Tier(enum.StrEnum):
    """How much is handed over with a kind of connection, the least first."""

    NONE = "none"
    """Nobody signs in: the compute is the operator's own."""
    KEYLESS = "keyless"
    """The person's account trusts this broker's tokens; nothing secret is kept."""
    DELEGATED = "delegated"
    """A credential that the person made for this, limited and with an end."""
    KEPT = "kept"
    """A key of the person's, sealed: the last resort."""
    AMBIENT = "ambient"
    """What the one local person is signed in with on this computer anyway."""


class Purpose(enum.StrEnum):
    """What a credential is asked for. A cloud account grants the two separately."""

    LAUNCH = "launch"
    """Buy, look and end. Only within a recent sign-in of the person."""
    REAP = "reap"
    """List and delete what carries our tag, and nothing else; at any time, while the person sleeps."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One typed field of a backend's configuration or of a connection; forms, docs and CLI help are made from it."""

    name: str
    help: str
    default: str | None = None
    required: bool = False
    title: str = ""
    """What a form calls it; empty: the name."""
    pattern: str = ""
    """Regular expression that the whole of it must match; empty: anything."""
    example: str = ""
    secret: bool = False
    """It is sealed where it is kept, and shown never."""
    choices: tuple[str, ...] = ()
    """Where it is one of a few."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One way to connect an account. Its fields are plain words and numbers: never a document, never an address to call."""

    name: str
    title: str
    tier: Tier
    fields: tuple[Setting, ...] = ()
    """What the person tells. At most one of them is `secret`."""

    @property
    def secret(self) -> Setting | None:
        """The field that is sealed, where there is one."""
        return next((field for field in self.fields if field.secret), None)


NOBODY = Kind(name="none", title="Nobody signs in", tier=Tier.NONE)


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to sign in: which kind of trust, its plain settings, and the opened secret where the kind has one."""

    kind: str
    settings: Mapping[str, str] = field(default_factory=dict)
    secret: str | None = field(default=None, repr=False)
    purpose: Purpose = Purpose.LAUNCH
    tag: Tag | None = None
    """What the credential is for, where it is one launch: the cloud is asked to narrow it to that where it can."""
    subject: str = ""
    """Who the person is towards this target, without the form: what a trust in the account may be named after."""
    broker: str = ""
    """This broker's id in tags."""


@dataclass(frozen=True, kw_only=True)
class Assertion:
    """What an identity token must say to be traded by `sign_in`."""

    audience: str
    """Its exact `aud`."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What it says besides who it is: what this cloud can test, or writes into its own log."""


@dataclass(frozen=True, kw_only=True)
class Credential:
    """What a connection yields for one use. Short-lived; shows nothing in its `repr`."""

    who: str
    """Who the cloud says this is, in its own words: an ARN, a user and a project."""
    expires_at: datetime | None = None
    """When this credential ends."""
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)
    reaches: datetime | None = None
    """When signing in with the same connection stops working; None: nobody knows of an end."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whom an account is asked to trust: this broker, in the two forms in which it speaks for one person."""

    issuer: str
    """Our address as an OpenID issuer."""
    launch_subject: str
    reap_subject: str
    broker: str
    """This broker's id in tags."""
    name: str = ""
    """What people call this broker: its host name."""


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What a person is told and does to connect an account by one kind, in plain sentences."""

    can: tuple[str, ...]
    """What it will be able to do: three things."""
    cannot: tuple[str, ...]
    """What it will not."""
    steps: tuple[str, ...]
    """What to do, in order, in sentences."""
    link: str = ""
    """Opens the cloud's own page where the trust is made, filled in."""
    link_title: str = ""
    script: str = ""
    """To copy and paste; may be run again."""
    script_title: str = ""
    """Where to paste it."""
    download: Mapping[str, str] = field(default_factory=dict)
    """Files by name, for those who would rather read and upload them."""
    revoke: tuple[str, ...] = ()
    """How the person ends it on the cloud's own side."""
    narrows: str = ""
    """What this cloud can and cannot limit it by."""


@dataclass(frozen=True, kw_only=True)
class Permission:
    """One thing that a launch or its end needs in the account, and whether it may."""

    name: str
    """The cloud's own name for it: `ec2:RunInstances`."""
    purpose: Purpose
    why: str
    """What it is needed for, in a few words."""
    works: bool | None
    """None: it cannot be tried without buying something."""
    fix: str = ""
    """What to do where it is missing: exact, and one thing."""


@dataclass(frozen=True, kw_only=True)
class Keeps:
    """What is kept on this computer between launches, so that it can be listed and removed."""

    cache: Path
    engine: Mapping[str, Any] | None
    """How the container engine that has the images is asked, in the builder's words; None where there is none."""


class Provider(abc.ABC):
    """A kind of compute, configured. A new one is one file, one entry point in `anybinder.providers`, one extra."""

    title: ClassVar[str]
    """For people: "This computer", "Amazon Web Services"."""
    kinds: Sequence[Kind] = (NOBODY,)
    """Ways to connect an account, best first; with `NOBODY` among them it runs on the operator's own."""
    settings: ClassVar[Sequence[Setting]] = ()
    on_this_computer: ClassVar[bool] = False
    """True where sessions run on the computer of the broker, which then tells it the folders it may use."""
    dials_loopback: ClassVar[bool] = False
    """True where its machines can dial this computer's own 127.0.0.1, as a cloud of our own making can."""
    ends_by_itself: bool = False
    """True where the cloud deletes a machine at its order's `until` without being asked, whatever becomes of the credential."""
    ends_when_off: bool = False
    """True where a machine that powers itself off is deleted with all of it that costs anything, so that the bill ends too."""
    user_data_most: ClassVar[int] = 16_384
    """Bytes of user data that the cloud takes, before any encoding of its own. EC2 takes the fewest of all."""
    lists_within: ClassVar[timedelta] = timedelta(0)
    """`instances()` shows everything whose creating call began longer ago than this. An empty list proves nothing sooner."""

    def __init__(self, configuration: Mapping[str, str]) -> None:
        """Cheap: no network. Raises `InvalidOrder` with a sentence where the configuration cannot work."""
        self.configuration = dict(configuration)

    @property
    def confined(self) -> bool:
        """True where a session cannot reach what belongs to the person who runs the broker.

        What is not confined is offered to the one local person on loopback only, and asks for consent first.
        """
        return not self.on_this_computer

    def assertion(self, connection: Connection, about: Mapping[str, str]) -> Assertion | None:  # noqa: ARG002
        """What the token must say that `sign_in` trades for this connection; None where it trades none. No network.

        `about`: `launch`, `repo` and `backend`, where they are known.
        """
        return None

    @abc.abstractmethod
    def sign_in(self, connection: Connection, identity_token: str | None) -> Credential:
        """Trade for a credential of minutes, as narrow as the cloud allows. Repeatable, but each time with a fresh token.

        Builds its client from what it is given, never from what lies about on the broker's computer. Raises
        BadCredential with the cloud's own reason, PermissionMissing, ProviderUnavailable.
        """

    def check(self, connection: Connection, credential: Credential) -> list[Permission]:  # noqa: ARG002
        """Each permission that the connection's purpose needs, tried where the cloud offers a dry run. Buys nothing.

        Raises BadCredential, ProviderUnavailable.
        """
        return []

    def guide(self, kind: str, trust: Trust, settings: Mapping[str, str]) -> Guide:  # noqa: ARG002
        """How a person connects an account by this kind; `settings` as far as they are known. No network.

        Raises InvalidOrder for a kind it does not have.
        """
        raise InvalidOrder(f"{self.title} takes no connection of the kind “{kind}”.")

    @abc.abstractmethod
    def offers(self, credential: Credential, resources: Resources) -> list[Offer]:
        """What could run this, cheapest first; empty where nothing fits. Raises no NoCapacity: that is found by buying."""

    @abc.abstractmethod
    def provision(self, credential: Credential, order: Order) -> Instance:
        """Ask for the instance and return at once, before it has booted.

        Called twice with one order, or by two callers at once, it returns the same instance, also after a lost
        response, and also when that instance has ended since. The tag is in the creating call. Where it raises
        anything but ProviderUnavailable, nothing is left that `terminate(order=…)` has not yet to clean up; the
        broker calls that in any case.
        """

    @abc.abstractmethod
    def describe(self, credential: Credential, instance_id: str) -> Instance:
        """How it is now. An unknown id is GONE. Repeatable; never raises for a missing instance."""

    @abc.abstractmethod
    def terminate(self, credential: Credential, instance_id: str | None, order_id: str) -> None:
        """Begin to end it and all that was bought with its order; return without waiting. Ending what is gone is success.

        What can only go after something else has gone is ended by a later call: the broker asks again until `describe`
        and `instances` say that nothing is left.

        Without an `instance_id` (the response was lost) everything that carries the order's tag is ended.
        GONE is said by `describe` and `instances`, never by this.
        """

    @abc.abstractmethod
    def instances(self, credential: Credential, broker: str) -> list[Instance]:
        """Everything that carries this broker's tag and is not GONE, half-created resources included."""

    def dead_man(self, credential: Credential, instance: Instance) -> DeadMan | None:  # noqa: ARG002
        """What lets this one machine delete itself, made for it; None where powering off is enough, or nothing can be made.

        It may be asked for again; each answer works by itself. Asked with the credential of a launch, after `provision`.
        Raises ProviderError; the broker then goes on without.
        """
        return None

    def prices(self) -> Sequence[Price]:
        """The table that its offers are priced from, each row with its source and day; empty where it has none.

        No network. Raises InvalidOrder where a file of it cannot be read.
        """
        return ()

    def public_prices(self) -> list[Price]:
        """What this cloud's public price list says now, of all that it could offer; empty where it has no such list.

        No credential is needed. May take minutes: no step of a launch asks for it. Raises ProviderUnavailable.
        """
        return []

    def keeps(self) -> Keeps | None:
        """Where the builder leaves what it has built, on this computer; None for machines that take it with them."""
        return None

    def logs(self, credential: Credential, instance_id: str) -> str:  # noqa: ARG002
        """The instance's own console, as far as the cloud shows it; for a machine that never dials out."""
        return ""
