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
    zone: str | None = None
    usual_seconds: float | None = None
    """From `provision` to an enrolled agent, as the provider would guess it; None where it cannot say."""


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What the new instance is told at birth."""

    user_data: str = field(repr=False)
    """For machines: cloud-init user data. Carries the one-time enrolment token, no long-lived secret."""
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
class Connection:
    """How to sign in: which kind of trust, its plain settings, and the opened secret where the kind has one."""

    kind: str
    settings: Mapping[str, str] = field(default_factory=dict)
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Credential:
    """What a connection yields for one use. Short-lived; shows nothing in its `repr`."""

    who: str
    expires_at: datetime | None = None
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One typed field of a backend's configuration; forms, docs and CLI help are made from it."""

    name: str
    help: str
    default: str | None = None
    required: bool = False


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
    kinds: ClassVar[Sequence[str]] = ("none",)
    """Kinds of connection it accepts, best first."""
    settings: ClassVar[Sequence[Setting]] = ()
    on_this_computer: ClassVar[bool] = False
    """True where sessions run on the computer of the broker, which then tells it the folders it may use."""
    dials_loopback: ClassVar[bool] = False
    """True where its machines can dial this computer's own 127.0.0.1, as a cloud of our own making can."""
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

    @abc.abstractmethod
    def sign_in(self, connection: Connection, identity_token: str | None) -> Credential:
        """Trade for a credential of minutes. Repeatable. Raises BadCredential, ProviderUnavailable."""

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

        Without an `instance_id` (the response was lost) everything that carries the order's tag is ended.
        GONE is said by `describe` and `instances`, never by this.
        """

    @abc.abstractmethod
    def instances(self, credential: Credential, broker: str) -> list[Instance]:
        """Everything that carries this broker's tag and is not GONE, half-created resources included."""

    def keeps(self) -> Keeps | None:
        """Where the builder leaves what it has built, on this computer; None for machines that take it with them."""
        return None

    def logs(self, credential: Credential, instance_id: str) -> str:  # noqa: ARG002
        """The instance's own console, as far as the cloud shows it; for a machine that never dials out."""
        return ""
