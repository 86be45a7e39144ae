"""Which peers there are, by the settings and by `anybinder peers add`, and how each stands by all that was seen of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy import orm

from broker import errors, settings
from broker.models import Peer as Row
from broker.service import Service
from federation import binderhub, health
from federation import errors as refusals
from federation.peers import Peer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A peer as this broker knows it."""

    peer: Peer
    standing: health.Standing
    draining: bool
    versions: Mapping[str, Any]
    providers: tuple[str, ...]
    """Prefixes of the repository hosts that it knows; empty where it has not said."""
    set: bool
    """The settings name it: `remove` is done there."""

    @property
    def name(self) -> str:
        """What forms, links and `--on` call it."""
        return self.peer.name

    def condition(self, now: dt.datetime) -> health.Condition:
        """What can be done with it now."""
        return health.condition(self.standing, now, draining=self.draining or self.peer.weight == 0)


def known(service: Service) -> list[Known]:
    """Every peer, those of the settings first. One short look at the table; asks nobody."""
    with service.db.reading() as session:
        rows = {row.name: row for row in session.scalars(sa.select(Row).order_by(Row.added_at, Row.name))}
    told = {setting.name: setting for setting in service.settings.peers}
    taken = {*told, *(setting.name for setting in service.settings.backends)}
    added = {
        name: settings.PeerSetting.model_validate(row.setting)
        for name, row in rows.items()
        if row.setting is not None and name not in taken
    }
    return [_known(setting, rows.get(name), name in told) for name, setting in {**told, **added}.items()]


def find(service: Service, name: str) -> Known | None:
    """The peer of this name; None where there is none, or none any more."""
    return next((each for each in known(service) if each.name == name), None)


def named(service: Service, name: str) -> Known:
    """The peer of this name. Raises NotFound."""
    if (found := find(service, name)) is None:
        raise errors.NotFound(
            f"There is no peer called “{name[:40]}” here. `anybinder peers list` shows those that are."
        )
    return found


def add(service: Service, setting: settings.PeerSetting) -> None:
    """Write this peer down, in place of one of the same name that was added before. Raises BadRequest."""
    if setting.name in [each.name for each in service.settings.backends]:
        raise errors.BadRequest(
            f"There is a backend called “{setting.name}” already, and a place to run has one name. Choose another with --name."
        )
    if setting.name in [each.name for each in service.settings.peers]:
        raise errors.BadRequest(f"The settings name a peer “{setting.name}” already. Change it there.")
    with service.db.transaction() as session:
        row = _row(service, session, setting.name)
        row.setting = setting.model_dump(mode="json", exclude={"build_token_secret"})


def remove(service: Service, name: str) -> None:
    """Send nothing there any more, and forget it. What runs there goes on to be watched. Raises NotFound, BadRequest."""
    if named(service, name).set:
        raise errors.BadRequest(f"The settings name the peer “{name}”. Take it out there, or drain it.")
    with service.db.transaction() as session:
        session.execute(sa.delete(Row).where(Row.name == name))


def drain(service: Service, name: str, *, draining: bool) -> None:
    """Send nothing new there, or do so again; what runs there goes on. Raises NotFound."""
    named(service, name)
    with service.db.transaction() as session:
        _row(service, session, name).draining = draining


def looked(service: Service, name: str, hub: binderhub.Hub) -> None:
    """Keep what a look found."""
    now = service.now()
    with service.db.transaction() as session:
        row = _row(service, session, name)
        before = health.read(row.standing)
        after = health.observed(before, hub.seen, now)
        row.standing = health.told(after)
        if hub.seen.ok:
            row.versions, row.providers = dict(hub.versions), list(hub.providers) or row.providers
    if before.up is not after.up:
        say = log.info if after.up else log.warning
        say("peer_stands", peer=name, up=after.up, why=after.why)


def experienced(service: Service, session: orm.Session, name: str, refusal: refusals.PeerError | None) -> None:
    """What a launch met there counts as much as what it says of itself. Within the caller's transaction."""
    told = any(setting.name == name for setting in service.settings.peers)
    if not told and session.get(Row, name) is None:
        return  # it was removed meanwhile
    row = _row(service, session, name)
    reason, why = (refusal.reason, str(refusal)) if refusal else ("", "")
    seconds = refusal.seconds if isinstance(refusal, refusals.Full) else None
    row.standing = health.told(health.experienced(health.read(row.standing), reason, why, service.now(), seconds))


def described(setting: settings.PeerSetting) -> Peer:
    """The peer that this setting describes."""
    return Peer(
        name=setting.name,
        title=setting.called,
        url=setting.url,
        binder_url=setting.binder_url,
        origins=setting.origins,
        weight=setting.weight,
        publishes=setting.publishes,
        anonymous=setting.anonymous,
        terms_url=setting.terms_url,
        privacy_url=setting.privacy_url,
        build_token_key=bytes.fromhex(setting.build_token_secret.get_secret_value()),
    )


def _known(setting: settings.PeerSetting, row: Row | None, told: bool) -> Known:
    return Known(
        peer=described(setting),
        standing=health.read(row.standing if row else {}),
        draining=row is not None and row.draining,
        versions=row.versions if row else {},
        providers=tuple(row.providers) if row else (),
        set=told,
    )


def _row(service: Service, session: orm.Session, name: str) -> Row:
    """The row of this name, made where there is none, held by this transaction."""
    row = session.get(Row, name, with_for_update=True)
    if row is None:
        row = Row(
            name=name, setting=None, draining=False, standing={}, versions={}, providers=[], added_at=service.now()
        )
        session.add(row)
    return row
