"""Menus: what places offered when their clouds were last asked, for pages, which never wait for a cloud.

A page says what it would like to know (`want`) and shows what is known (`known`, `waited`); `begin` has the clouds asked
beside the requests, side by side, so that one that hangs holds up nobody but itself; who listens hears of each answer.
Kept in this process alone: a page of another one asks for itself.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import structlog

from broker import backends, connections, errors, fanout
from broker.models import Connection
from broker.service import Service
from providers import base
from providers import errors as clouds
from providers.sentences import say

log = structlog.get_logger(__name__)
GOOD_FOR = dt.timedelta(minutes=10)
TRIED_AGAIN_AFTER = dt.timedelta(seconds=30)  # where it could not be asked
SHOWN_FOR = dt.timedelta(hours=24)  # prices of yesterday say more than none
MOST = 1000  # menus in memory; more means more people than one process serves
THREADS = 8  # questions to one backend at a time; other backends have their own

Key = tuple[str, str, base.Resources]
"""Backend, connection, and what is to be had: what a larger machine costs is another question."""


@dataclass(frozen=True, kw_only=True)
class Menu:
    """What one place offered one account."""

    at: dt.datetime
    """When these offers were found."""
    asked_at: dt.datetime
    """When it was last asked, whatever came of it."""
    offers: tuple[base.Offer, ...] = ()
    trouble: str = ""
    """Why it could not be asked the last time, in a sentence; then the offers are those of before."""

    @property
    def cheapest(self) -> base.Offer | None:
        """The cheapest to buy that is not taken away again, of those whose price is known, in the first one's currency."""
        sold = [offer for offer in self.offers if not (offer.risk or offer.taken or offer.beyond)]
        priced = [offer for offer in sold if offer.price_per_hour is not None]
        same = [offer for offer in priced if offer.currency == priced[0].currency]
        return min(same, key=lambda offer: offer.price_per_hour or 0, default=None)


def known(
    service: Service, backend: backends.Backend, connection: Connection | None, needed: base.Resources | None = None
) -> Menu | None:
    """What was found last, unless that is too long ago to be shown. Instant. `needed`: else what the backend gives."""
    found = service.menus.get(_key(backend, connection, needed))
    if found is None or service.now() - found.asked_at >= SHOWN_FOR:
        return None
    return replace(found, offers=()) if service.now() - found.at >= SHOWN_FOR else found


def waited(
    service: Service, backend: backends.Backend, connection: Connection | None, needed: base.Resources | None = None
) -> dt.timedelta | None:
    """For how long its cloud has been asked for this without an answer; None where nobody asks it at this moment."""
    since = service.menus_asked.get(_key(backend, connection, needed))
    return None if since is None else service.now() - since


def want(
    service: Service, backend: backends.Backend, connection: Connection | None, needed: base.Resources | None = None
) -> None:
    """Have it asked for soon, where what is known is not fresh. Instant; may be repeated."""
    key = _key(backend, connection, needed)
    found, now = service.menus.get(key), service.now()
    if found is None or now - found.asked_at > (TRIED_AGAIN_AFTER if found.trouble else GOOD_FOR):
        with service.menus_lock:
            if key not in service.menus_asked:
                service.menus_wanted.add(key)


def begin(service: Service) -> list[threading.Thread]:
    """Have everything asked for that is wanted, each in a thread of its own that is begun here. Returns at once.

    What finds THREADS at its backend already is begun by a later call.
    """
    with service.menus_lock:
        busy = Counter(backend for backend, _connection, _needed in service.menus_asked)
        begun: list[Key] = []
        for key in list(service.menus_wanted):
            if busy[key[0]] < THREADS:
                busy[key[0]] += 1
                service.menus_wanted.discard(key)
                service.menus_asked[key] = service.now()
                begun.append(key)
    threads = [threading.Thread(target=_ask, args=(service, key), name="menu", daemon=True) for key in begun]
    for thread in threads:
        thread.start()
    return threads


def fill(service: Service) -> int:
    """Ask for everything that is wanted, and wait for it; how many were asked. Raises nothing of the clouds'."""
    count = 0
    while threads := begin(service):
        count += len(threads)
        for thread in threads:
            thread.join()
    return count


@contextlib.contextmanager
def listening(service: Service) -> Iterator[fanout.Wake]:
    """A wake-up for each answer of a cloud, for as long as the context lasts. On an event loop."""
    wake = fanout.Wake()
    service.menus_heard.add(wake)
    try:
        yield wake
    finally:
        service.menus_heard.discard(wake)


def _ask(service: Service, key: Key) -> None:
    """One question. Whatever goes wrong with it stays with it."""
    before = service.menus.get(key)
    try:
        found = Menu(at=service.now(), asked_at=service.now(), offers=_offers(service, *key))
    except (clouds.BadCredential, clouds.PermissionMissing) as refusal:
        found = _troubled(service, before, say("It refused: %(reason)s", reason=str(refusal)))
    except (clouds.ProviderError, errors.BrokerError) as trouble:
        found = _troubled(service, before, say("It could not be asked: %(reason)s", reason=str(trouble)))
    except Exception:
        log.exception("menu_failed", backend=key[0], connection=key[1])
        found = _troubled(
            service, before, say("It could not be asked: something went wrong in this broker; its log says what.")
        )
    if found.trouble:
        log.info("no_menu", backend=key[0], connection=key[1], why=found.trouble)
    with service.menus_lock:
        service.menus_asked.pop(key, None)
        service.menus[key] = found
        for old in list(service.menus)[: max(0, len(service.menus) - MOST)]:
            service.menus.pop(old, None)
    for wake in list(service.menus_heard):
        wake.set()


def _offers(service: Service, backend_name: str, connection_id: str, needed: base.Resources) -> tuple[base.Offer, ...]:
    backend = backends.named(service, backend_name)
    connection = connections.row(service, connection_id or None)
    account = connections.account(service, backend, connection, base.Purpose.LAUNCH, what="prices")
    return tuple(account.offers(needed))


def _troubled(service: Service, before: Menu | None, trouble: str) -> Menu:
    now = service.now()
    return Menu(at=before.at if before else now, asked_at=now, offers=before.offers if before else (), trouble=trouble)


def _key(backend: backends.Backend, connection: Connection | None, needed: base.Resources | None) -> Key:
    """How long a session lasts is nothing that a cloud is asked."""
    wanted = backend.usual if needed is None else needed
    return backend.name, connection.id if connection else "", replace(wanted, hours=None)
