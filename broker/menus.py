"""Menus: what places offered when their clouds were last asked, for pages, which never wait for a cloud.

A page says what it would like to know (`want`) and shows what is known (`known`); `fill` asks, beside the requests.
Kept in this process alone: a page of another one asks for itself.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import structlog

from broker import backends, connections, errors
from broker.models import Connection
from broker.service import Service
from providers import base
from providers import errors as clouds

log = structlog.get_logger(__name__)
GOOD_FOR = dt.timedelta(minutes=10)
SHOWN_FOR = dt.timedelta(hours=24)  # prices of yesterday say more than none
MOST = 1000  # menus in memory; more means more people than one process serves


@dataclass(frozen=True, kw_only=True)
class Menu:
    """What one place offered one account."""

    at: dt.datetime
    offers: tuple[base.Offer, ...] = ()

    @property
    def cheapest(self) -> base.Offer | None:
        """The cheapest to buy that is not taken away again, of those whose price is known, in the first one's currency."""
        sold = [offer for offer in self.offers if not (offer.risk or offer.taken)]
        priced = [offer for offer in sold if offer.price_per_hour is not None]
        same = [offer for offer in priced if offer.currency == priced[0].currency]
        return min(same, key=lambda offer: offer.price_per_hour or 0, default=None)


def known(service: Service, backend: backends.Backend, connection: Connection | None) -> Menu | None:
    """What was found last, unless that is too long ago to be shown. Instant."""
    found = service.menus.get(_key(backend, connection))
    return found if found is not None and service.now() - found.at < SHOWN_FOR else None


def want(service: Service, backend: backends.Backend, connection: Connection | None) -> None:
    """Have it asked for soon, where what is known is not fresh. Instant; may be repeated."""
    key = _key(backend, connection)
    found = service.menus.get(key)
    if found is None or service.now() - found.at > GOOD_FOR:
        service.menus_wanted.add(key)


def fill(service: Service) -> int:
    """Ask for everything that is wanted; how many were asked. Takes as long as clouds do. Whatever they raise ends here."""
    wanted = list(service.menus_wanted)
    service.menus_wanted.difference_update(wanted)
    for key in wanted:
        service.menus[key] = Menu(at=service.now(), offers=_ask(service, *key))
    for key in list(service.menus)[: max(0, len(service.menus) - MOST)]:
        service.menus.pop(key, None)
    return len(wanted)


def _ask(service: Service, backend_name: str, connection_id: str) -> tuple[base.Offer, ...]:
    """Nothing where it cannot be asked: then the price is unknown, and the place itself says what is wrong with it."""
    try:
        backend = backends.named(service, backend_name)
        connection = connections.row(service, connection_id or None)
        account = connections.account(service, backend, connection, base.Purpose.LAUNCH, what="prices")
        return tuple(account.offers(base.Resources(**backend.setting.resources.model_dump())))
    except (clouds.ProviderError, errors.BrokerError) as refusal:
        log.info("no_menu", backend=backend_name, connection=connection_id, why=str(refusal))
    except Exception:  # an error of a provider's own: whoever asks for all of them would ask for none any more
        log.exception("no_menu", backend=backend_name, connection=connection_id)
    return ()


def _key(backend: backends.Backend, connection: Connection | None) -> tuple[str, str]:
    return backend.name, connection.id if connection else ""
