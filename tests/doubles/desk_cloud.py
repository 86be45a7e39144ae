"""A cloud on the desk: in this process, without machines, for tests of the spine alone. It keeps the contract's words.

Whoever needs machines that boot, or a cloud that outlives a kill, takes `providers.fake`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from providers import base


def offer(name: str, price: str | None = "0.50", **more: Any) -> base.Offer:
    """One line of the menu."""
    return base.Offer(id=name, title=name, price_per_hour=None if price is None else Decimal(price), **more)


class DeskCloud(base.Provider):
    """Instances are entries of a dict. `refusals[verb]` holds errors to raise, one a call; `lost` ones act first."""

    title = "A cloud on the desk"
    dials_loopback = True

    def __init__(self, configuration: Mapping[str, str] | None = None) -> None:
        super().__init__(configuration or {})
        self.instances_by_order: dict[str, base.Instance] = {}
        self.bought: list[str] = []
        self.calls: list[str] = []
        self.asked: list[base.Resources] = []
        self.refusals: dict[str, deque[Exception]] = {}
        self.lost: dict[str, deque[Exception]] = {}
        self.menu: list[str | base.Offer] = ["small", "large"]
        """What it offers; a name alone costs half a dollar an hour."""
        self.clings = 0
        """How many looks a terminated instance stays listed."""
        self.expires_at = None
        self.reaches = None
        self.signed_in: list[tuple[base.Connection, str | None]] = []
        """Every connection it was asked to let in, with its identity token."""
        self._lock = threading.Lock()

    def sign_in(self, connection: base.Connection, identity_token: str | None) -> base.Credential:
        self._called("sign_in")
        self.signed_in.append((connection, identity_token))
        return base.Credential(who="desk", expires_at=self.expires_at, reaches=self.reaches)

    def assertion(self, connection: base.Connection, about: Mapping[str, str]) -> base.Assertion | None:
        return base.Assertion(audience="desk", claims=dict(about)) if connection.kind == "keyless" else None

    def offers(self, credential: base.Credential, resources: base.Resources) -> list[base.Offer]:
        self._called("offers")
        self.asked.append(resources)
        return [each if isinstance(each, base.Offer) else offer(each) for each in self.menu]

    def provision(self, credential: base.Credential, order: base.Order) -> base.Instance:
        self._called("provision")
        with self._lock:
            if order.id not in self.instances_by_order:
                self.bought.append(order.id)
                self.instances_by_order[order.id] = base.Instance(
                    id=f"i-{order.id}", tag=order.tag, state=base.InstanceState.RUNNING
                )
        self._lose("provision")
        return self.instances_by_order[order.id]

    def describe(self, credential: base.Credential, instance_id: str) -> base.Instance:
        self._called("describe")
        for instance in self.instances_by_order.values():
            if instance.id == instance_id:
                return instance
        return base.Instance(id=instance_id, tag=None, state=base.InstanceState.GONE, detail="it went away")

    def terminate(self, credential: base.Credential, instance_id: str | None, order_id: str) -> None:
        self._called("terminate")
        if self.clings:
            self.clings -= 1
            return
        self.instances_by_order.pop(order_id, None)

    def instances(self, credential: base.Credential, broker: str) -> list[base.Instance]:
        self._called("instances")
        found = self.instances_by_order.values()
        return [instance for instance in found if instance.tag and instance.tag.broker == broker]

    def refuse(self, verb: str, *errors: Exception) -> None:
        """The next calls of this verb raise these, and do nothing."""
        self.refusals.setdefault(verb, deque()).extend(errors)

    def lose(self, verb: str, *errors: Exception) -> None:
        """The next calls of this verb do what they should and raise these all the same."""
        self.lost.setdefault(verb, deque()).extend(errors)

    def ends(self) -> None:
        """Every instance goes away by itself."""
        self.instances_by_order.clear()

    def _called(self, verb: str) -> None:
        self.calls.append(verb)
        if waiting := self.refusals.get(verb):
            raise waiting.popleft()

    def _lose(self, verb: str) -> None:
        if waiting := self.lost.get(verb):
            raise waiting.popleft()


class SlowListingCloud(DeskCloud):
    """A cloud whose lists are a minute behind."""

    lists_within = timedelta(seconds=60)
