"""Letting a command line in that cannot be signed in to: it shows a code, and somebody who is signed in in a browser types it
and agrees (RFC 8628). What it gets is an API token, made when it comes for it; until then nothing here opens anything.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field

import sqlalchemy as sa

from broker import api_tokens, crypto, db, errors, people
from broker.models import ApiToken, DeviceLogin
from broker.service import Service
from providers.sentences import say

LIFE = dt.timedelta(minutes=15)
INTERVAL_SECONDS = 2  # how often a command line may ask; two reads a second from a classroom of 30 are nothing
EARLY_SECONDS = 0.5  # a network may hold one question up and not the next
OPEN_MOST = 50  # at once from one network: a classroom behind one address
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628, 6.1: none is taken for another, and they spell no word
CODE_LETTERS = 8  # 34 bits, of which somebody who is signed in may guess twenty in ten minutes
NAME_MOST = 64


class Waiting(errors.BrokerError):
    """Nobody has let it in yet. Ask again after the interval."""

    status_code, reason = 400, "authorization_pending"


class TooSoon(errors.BrokerError):
    """Asked too soon. Wait five seconds longer from now on."""

    status_code, reason = 400, "slow_down"


class Refused(errors.BrokerError):
    """The person has refused it."""

    status_code, reason = 400, "access_denied"


class TooLate(errors.BrokerError):
    """Nobody has let it in in time. Begin again."""

    status_code, reason = 400, "expired_token"


class Unknown(errors.BrokerError):
    """There is no such code, or it was used already. Begin again."""

    status_code, reason = 400, "invalid_grant"


class TooMany(errors.BrokerError):
    """Too many command lines wait to be let in from this network. Try again in a quarter of an hour."""

    status_code, reason = 429, "too_many"


class NoSuchCode(errors.BadRequest):
    """No command line waits with this code. Look at it again: it may have ended, and a new one is shown then."""

    reason = "no_such_code"


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What a command line is told at first."""

    device_code: str = field(repr=False)
    user_code: str = field(repr=False)
    expires_in: int
    interval: int


def begin(service: Service, *, name: str, scopes: Collection[str], asked_from: str) -> Begun:
    """A command line wants in. `asked_from` is its network. Raises BadRequest, TooMany."""
    if not scopes or not set(scopes) <= api_tokens.SCOPES.keys():
        raise errors.BadRequest(say("A token may do one or more of: %(names)s.", names=", ".join(api_tokens.SCOPES)))
    now, device_code, user_code = service.now(), crypto.new_secret(), _new_code()
    network = _digest(service, f"from {asked_from}")
    fresh = DeviceLogin(
        digest=crypto.digest(device_code),
        user_code=_digest(service, user_code),
        asked_from=network,
        name=shown_name(name),
        scopes=" ".join(scope for scope in api_tokens.SCOPES if scope in scopes),
        created_at=now,
        ends_at=now + LIFE,
    )
    with service.db.transaction() as session:
        db.one_at_a_time(session, "device logins")
        # Kept a while longer than they are good: who comes late is told that it was too late.
        session.execute(sa.delete(DeviceLogin).where(DeviceLogin.ends_at < now - LIFE))
        waiting = DeviceLogin.asked_from == network, DeviceLogin.ends_at > now
        if (session.scalar(sa.select(sa.func.count()).where(*waiting)) or 0) >= OPEN_MOST:
            raise TooMany
        session.add(fresh)
    return Begun(
        device_code=device_code,
        user_code=f"{user_code[:4]}-{user_code[4:]}",
        expires_in=int(LIFE.total_seconds()),
        interval=INTERVAL_SECONDS,
    )


def find(service: Service, typed: str) -> DeviceLogin:
    """Who waits with the code that this person typed, however they wrote it. Raises NoSuchCode."""
    waiting = (DeviceLogin.user_code == _digest(service, _plain(typed)), *_undecided(service))
    with service.db.reading() as session:
        found = session.scalars(sa.select(DeviceLogin).where(*waiting)).one_or_none()
    if found is None:
        raise NoSuchCode
    return found


def decide(service: Service, person: people.Person, typed: str, *, let_in: bool) -> None:
    """Let whoever waits with this code in as this person, or refuse it. Once. Raises NoSuchCode, NotSignedIn."""
    if person.anonymous or person.scopes is not None:
        raise errors.NotSignedIn
    found = find(service, typed)
    values = {"person": person.id} if let_in else {"refused": True}
    with service.db.transaction() as session:
        undecided = sa.update(DeviceLogin).where(DeviceLogin.digest == found.digest, *_undecided(service))
        if not session.execute(undecided.values(values)).rowcount:  # type: ignore[attr-defined]
            raise NoSuchCode


def collect(service: Service, device_code: str) -> tuple[ApiToken, str]:
    """The token of a command line that was let in, and its text: once. Raises Waiting, TooSoon, Refused, TooLate, Unknown."""
    now, mine = service.now(), DeviceLogin.digest == crypto.digest(device_code)
    with service.db.reading() as session:
        found = session.scalars(sa.select(DeviceLogin).where(mine)).one_or_none()
    if found is None:
        raise Unknown
    if found.ends_at <= now:
        raise TooLate
    if found.refused:
        raise Refused
    _polled(service, found, now)
    if found.person is None:
        raise Waiting
    with service.db.transaction() as session:
        if not session.execute(sa.delete(DeviceLogin).where(mine)).rowcount:  # type: ignore[attr-defined]
            raise Unknown  # another with the same code was first
    person = people.known(service, found.person)
    return api_tokens.create(service, person, name=found.name, scopes=found.scopes.split())


def shown_name(name: str) -> str:
    """What a computer calls itself, as it can be shown: one line, not long, never empty."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    return line[:NAME_MOST] or "a command line"


def _polled(service: Service, found: DeviceLogin, now: dt.datetime) -> None:
    """Note that it asked. Raises TooSoon."""
    with service.db.transaction() as session:
        session.execute(sa.update(DeviceLogin).where(DeviceLogin.digest == found.digest).values(polled_at=now))
    if found.polled_at and (now - found.polled_at).total_seconds() < INTERVAL_SECONDS - EARLY_SECONDS:
        raise TooSoon


def _undecided(service: Service) -> tuple[sa.ColumnElement[bool], ...]:
    return DeviceLogin.ends_at > service.now(), DeviceLogin.person.is_(None), DeviceLogin.refused.is_(False)


def _new_code() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(CODE_LETTERS))


def _plain(typed: str) -> str:
    return "".join(letter for letter in typed.upper() if letter in LETTERS)[: 2 * CODE_LETTERS]


def _digest(service: Service, text: str) -> str:
    return crypto.short(service.keys.token("device", text), 16)
