"""The driver of the fake cloud: what a driver looks like, each verb one call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from providers.base import (
    NOBODY,
    Assertion,
    Connection,
    Credential,
    DeadMan,
    Guide,
    Instance,
    InstanceState,
    Kind,
    Offer,
    Order,
    Permission,
    Provider,
    Purpose,
    Request,
    Resources,
    Setting,
    Tag,
    Tier,
    Trust,
)
from providers.errors import (
    BadCredential,
    InvalidOrder,
    NoCapacity,
    PermissionMissing,
    ProviderUnavailable,
    QuotaExceeded,
)
from providers.fake.wire import Unreachable, ask

ERRORS = {
    "no_capacity": NoCapacity,
    "quota": QuotaExceeded,
    "bad_credential": BadCredential,
    "permission": PermissionMissing,
    "invalid_order": InvalidOrder,
}
STATES = {"pending": InstanceState.PENDING, "running": InstanceState.RUNNING, "gone": InstanceState.GONE}
PARTS = ("disk", "address")
SWITCH_URL = "https://fake.invalid"  # nobody is there: tests hand it to the socket
PRICES = {"price_source": "the fake cloud's own list", "price_as_of": "2026-11-28"}


KEY = Setting(name="key", title="Key", help="The key that the fake cloud was started with.", required=True, secret=True)
UNTIL = Setting(
    name="until",
    title="Good until",
    help="When the credential ends, as 2026-11-21T09:00:00+00:00.",
    pattern=r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*",
)
KINDS = {
    kind.name: kind
    for kind in (
        NOBODY,
        Kind(name="keyless", title="The fake account trusts this broker", tier=Tier.KEYLESS),
        Kind(name="delegated", title="A credential with an end", tier=Tier.DELEGATED, fields=(KEY, UNTIL)),
        Kind(name="kept", title="A key", tier=Tier.KEPT, fields=(KEY,)),
    )
}


class FakeProvider(Provider):
    """Buys machines of the fake cloud. Keeps nothing between calls."""

    dials_loopback = True
    title = "A cloud for trying out"
    settings = (
        Setting(name="socket", help="Unix socket that the fake cloud answers on.", required=True),
        Setting(name="timeout", help="Seconds before a call is given up.", default="10"),
        Setting(name="lists_within", help="Seconds before everything that was bought shows in lists.", default="60"),
        Setting(
            name="kinds",
            help="Kinds of connection that it takes: none, keyless, delegated, kept; several with commas.",
            default="none,keyless,delegated,kept",
        ),
        Setting(
            name="ends",
            help="What ends its machines by itself: when_off, at_until, switch; several with commas. Empty: nothing.",
        ),
        Setting(
            name="builder", help="What builds on its machines: tiny, or order for the broker's own.", default="tiny"
        ),
    )

    def __init__(self, configuration: Mapping[str, str]) -> None:
        super().__init__(configuration)
        for setting in self.settings:
            if setting.required and not self.configuration.get(setting.name):
                raise InvalidOrder(f"The fake cloud needs its setting {setting.name!r}.")
        self._timeout = self._number("timeout")
        self.kinds = self._kinds()
        ends = (self.configuration.get("ends") or "").split(",")
        self.ends_when_off, self.ends_by_itself = "when_off" in ends, "at_until" in ends
        self._switches = "switch" in ends
        self.lists_within = timedelta(seconds=self._number("lists_within"))  # type: ignore[misc]

    def _kinds(self) -> tuple[Kind, ...]:
        names = (self.configuration.get("kinds") or self._default("kinds")).split(",")
        unknown = [name for name in names if name not in KINDS]
        if unknown:
            raise InvalidOrder(f"The fake cloud knows no kind of connection called {unknown[0]!r}.")
        return tuple(kind for name, kind in KINDS.items() if name in names)

    def _number(self, name: str) -> float:
        try:
            return float(self.configuration.get(name) or self._default(name))
        except ValueError:
            raise InvalidOrder(f"{name} must be a number.") from None

    def _default(self, name: str) -> str:
        return next(setting.default or "" for setting in self.settings if setting.name == name)

    def sign_in(self, connection: Connection, identity_token: str | None) -> Credential:
        """Kind `none` is let in; `keyless` must bring an identity token, the others the cloud's key."""
        if connection.kind not in {kind.name for kind in self.kinds}:
            raise BadCredential(f"The fake cloud takes no connection of the kind {connection.kind!r}.")
        proof = {"none": "none", "keyless": identity_token}.get(connection.kind, connection.secret)
        found = self._call(None, "sign_in", {"kind": connection.kind, "proof": proof or ""})
        until = connection.settings.get("until")
        return Credential(
            who=found["who"],
            expires_at=_when(found["expires_at"]),
            secret={"token": found["token"]},
            reaches=datetime.fromisoformat(until) if until else None,
        )

    def assertion(self, connection: Connection, about: Mapping[str, str]) -> Assertion | None:
        return Assertion(audience="fake-cloud", claims=about) if connection.kind == "keyless" else None

    def check(self, connection: Connection, credential: Credential) -> list[Permission]:
        """What it lists is what it may: the fake cloud has no finer rights."""
        self.instances(credential, "")
        lists = Permission(name="fake:List", purpose=connection.purpose, why="to see what is running", works=True)
        buys = Permission(name="fake:Buy", purpose=Purpose.LAUNCH, why="to start a machine", works=None)
        return [lists, buys] if connection.purpose is Purpose.LAUNCH else [lists]

    def guide(self, kind: str, trust: Trust, settings: Mapping[str, str]) -> Guide:
        if kind not in {each.name for each in self.kinds}:
            return super().guide(kind, trust, settings)  # which says so
        return Guide(
            can=("start machines of the fake cloud", "see those it started", "end those it started"),
            cannot=("touch anything else",),
            steps=("Nothing is to be done on the fake cloud's side.",),
            revoke=("Stop the fake cloud.",),
        )

    def offers(self, credential: Credential, resources: Resources) -> list[Offer]:
        offers = [_offer(found) for found in self._call(credential, "offers")["offers"]]
        return sorted((offer for offer in offers if _fits(offer.resources, resources)), key=_price)

    def provision(self, credential: Credential, order: Order) -> Instance:
        return self._instance(self._call(credential, "provision", self._creation(order)))

    def _creation(self, order: Order) -> dict[str, Any]:
        labels = order.tag.as_labels()
        return {
            "client_token": order.id,
            "user_data": order.boot.user_data,
            "offer": order.offer.id,
            "labels": labels,
            "parts": [{"kind": kind, "labels": labels} for kind in PARTS],
            "boot": self._boot(order),
        }

    def _boot(self, order: Order) -> dict[str, Any]:
        """What a machine would read from its user data; ours is told where to find the agent as well."""
        builder = list(order.boot.builder) if self.configuration.get("builder") == "order" else None
        return {"agent": order.boot.agent, "config": dict(order.boot.config), "builder": builder}

    def describe(self, credential: Credential, instance_id: str) -> Instance:
        return self._instance(self._call(credential, "describe", {"id": instance_id}))

    def terminate(self, credential: Credential, instance_id: str | None, order_id: str) -> None:
        self._call(credential, "terminate", {"id": instance_id, "labels": {"anybinder-order": order_id}, "parts": True})

    def instances(self, credential: Credential, broker: str) -> list[Instance]:
        """Machines with what belongs to them, and what belongs to no machine any more, or none yet."""
        found = self._call(credential, "instances", {"labels": {"anybinder-broker": broker}})["instances"]
        return [instance for instance in map(self._instance, found) if instance.state is not InstanceState.GONE]

    def dead_man(self, credential: Credential, instance: Instance) -> DeadMan | None:
        """One request with a word that the cloud has made for this machine."""
        if not self._switches:
            return None
        made = self._call(credential, "make_switch", {"id": instance.id})
        pull = Request(method="POST", url=f"{SWITCH_URL}/pull_switch", body=json.dumps({"word": made["word"]}))
        return DeadMan(requests=(pull,), ends_at=_when(made["ends_at"]))

    def logs(self, credential: Credential, instance_id: str) -> str:
        return self._call(credential, "logs", {"id": instance_id})["text"]

    def _instance(self, found: Mapping[str, Any]) -> Instance:
        state = STATES.get(found["state"], InstanceState.STOPPING)
        if found["parts"] and state is InstanceState.GONE:
            state = InstanceState.STOPPING  # something of it is still billed
        return Instance(
            id=found["id"],
            tag=Tag.from_labels(found["labels"]),
            state=state,
            detail=found["detail"],
            created_at=_when(found["created_at"]) if found["created_at"] else None,
            parts=tuple(found["parts"]),
        )

    def _call(self, credential: Credential | None, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One question to the cloud, its refusals as ours. No answer, or one that makes no sense, is ProviderUnavailable."""
        token = credential.secret.get("token", "") if credential else ""
        try:
            status, answer = ask(
                self.configuration["socket"], f"/{name}", body or {}, token=token, seconds=self._timeout
            )
        except Unreachable as why:
            raise ProviderUnavailable(f"The fake cloud did not answer: {why}.") from why
        if status == 200:
            return answer
        error = ERRORS.get(answer.get("error", ""), ProviderUnavailable)
        raise error(answer.get("message") or f"The fake cloud answered with status {status}.")


def _when(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _offer(found: Mapping[str, Any]) -> Offer:
    return Offer(
        id=found["id"],
        title=found["title"],
        resources=Resources(cpu=found["cpu"], memory_mb=found["memory_mb"], disk_gb=found["disk_gb"], gpu=found["gpu"]),
        price_per_hour=Decimal(found["price_per_hour"]),
        zone=found["zone"],
        usual_seconds=found["usual_seconds"],
        risk=found.get("risk", ""),
        taken=found.get("taken", False),
        **PRICES,
    )


def _price(offer: Offer) -> Decimal:
    return offer.price_per_hour or Decimal(0)


def _fits(has: Resources, asked: Resources) -> bool:
    names: Sequence[str] = ("cpu", "memory_mb", "disk_gb", "gpu")
    return all((getattr(has, name) or 0) >= (getattr(asked, name) or 0) for name in names)
