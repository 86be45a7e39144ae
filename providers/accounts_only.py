"""Clouds whose accounts can be connected and checked, and where nothing can be bought yet."""

from __future__ import annotations

from typing import ClassVar, NoReturn

from providers.base import Credential, Instance, Offer, Order, Provider, Resources
from providers.errors import InvalidOrder


class AccountsOnly(Provider):
    """Mixed in until the driver buys. Every verb of a purchase raises InvalidOrder, with the same sentence."""

    buys: ClassVar[bool] = False
    not_yet: ClassVar[str] = "{title}: accounts can be connected and checked, machines cannot be started yet."
    """That sentence; `{title}` is the provider's."""

    def offers(self, credential: Credential, resources: Resources) -> list[Offer]:  # noqa: ARG002
        self._refuse()

    def provision(self, credential: Credential, order: Order) -> Instance:  # noqa: ARG002
        self._refuse()

    def describe(self, credential: Credential, instance_id: str) -> Instance:  # noqa: ARG002
        self._refuse()

    def terminate(self, credential: Credential, instance_id: str | None, order_id: str) -> None:  # noqa: ARG002
        self._refuse()

    def instances(self, credential: Credential, broker: str) -> list[Instance]:  # noqa: ARG002
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InvalidOrder(self.not_yet.format(title=self.title))
