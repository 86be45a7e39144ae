"""What every part of the broker works with, gathered once a process and handed in: nothing here is global."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker import crypto, fanout, repos, sealing, settings
from broker import db as database
from broker import queue as queues

if TYPE_CHECKING:
    from joserfc.jwk import RSAKey

    from broker.backends import Account, Backend
    from broker.menus import Key, Menu
    from broker.probe import Seen
    from broker.rounds import Standing
    from broker.subjects import Subject


def utcnow() -> dt.datetime:
    """The clock of real life."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process's view of one broker. Threads share it."""

    settings: settings.Settings
    db: database.Database
    keys: crypto.Keyring = field(repr=False)
    repos: repos.Resolver
    queue: queues.Queue
    fanout: fanout.Fanout
    now: Callable[[], dt.datetime] = utcnow
    agent_url: str = ""
    """The base URL that agents dial; on this computer the front's own address."""
    backends: dict[str, Backend] = field(default_factory=dict)
    """Filled by `backends.offered` on first use."""
    sealer: sealing.Sealer = field(repr=False)
    signing: dict[str, RSAKey] = field(default_factory=dict, repr=False)
    """Opened signing keys by `kid`; `identity` alone reads them."""
    accounts: dict[tuple[str, ...], Account] = field(default_factory=dict, repr=False)
    """Credentials in memory, until shortly before they end; `connections` alone reads them."""
    looked_into: dict[str, dt.datetime] = field(default_factory=dict)
    """When accounts were last swept in which nothing was bought; `connections` alone reads it."""
    standings: dict[tuple[str, str], Standing] = field(default_factory=dict)
    """How it went lately with each account that was asked; `rounds` alone reads it."""
    under_way: set[tuple[str, ...]] = field(default_factory=set)
    """Accounts that are being asked at this moment, and what for; `rounds` alone reads it."""
    round_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Held while that is changed."""
    identities: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)
    """What identity providers have said of themselves, for minutes; `openid` alone reads it."""
    menus: dict[Key, Menu] = field(default_factory=dict)
    """What places offered lately; `menus` alone reads it and what follows."""
    menus_wanted: set[Key] = field(default_factory=set)
    """Whose offers a page would like to know."""
    menus_asked: dict[Key, dt.datetime] = field(default_factory=dict)
    """Which are being asked for at this moment, and since when."""
    menus_heard: set[fanout.Wake] = field(default_factory=set)
    """Who waits for answers."""
    menus_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Held while these are changed."""
    subjects: dict[tuple[str, str, str], Subject] = field(default_factory=dict)
    """What repositories were lately found to be; `subjects` alone reads it."""
    probes: dict[str, Seen] = field(default_factory=dict)
    """What was last found at the public address; `probe` alone reads it."""
    probing: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Held while it is looked at."""

    def close(self) -> None:
        """Stop the queue, then what it works with."""
        self.queue.stop()
        self.fanout.close()
        self.db.dispose()


def build(chosen: settings.Settings, *, port: int | None = None, migrate: bool = True) -> Service:
    """The service of this process: its state folder made, its tables brought up to date, its queue not yet started."""
    settings.private_folder(chosen.home)
    table = database.Database(chosen.table_url())
    if migrate:
        table.migrate()
    redis_url = chosen.redis_url.get_secret_value()
    return Service(
        settings=chosen,
        db=table,
        keys=crypto.Keyring(chosen.home),
        sealer=sealing.Sealer(chosen),
        repos=repos.Resolver(chosen),
        queue=queues.CeleryQueue() if redis_url else queues.EmbeddedQueue(chosen.workers),
        fanout=fanout.RedisFanout(redis_url) if redis_url else fanout.EmbeddedFanout(),
        agent_url=chosen.public_url or f"http://127.0.0.1:{port or chosen.port}",
    )
