"""Browsers that are signed in: begun after an identity provider has vouched for somebody, ended by age, by idleness, by the
person here or elsewhere, or by the provider."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace

import sqlalchemy as sa

from broker import crypto, people
from broker.models import SignIn
from broker.service import Service

SEEN_EVERY = dt.timedelta(minutes=1)  # how exactly it is known when a browser was last seen


@dataclass(frozen=True, kw_only=True)
class Vouched:
    """What an identity provider has said, checked: whose account it is, since when, and how it may be renewed."""

    issuer: str
    subject: str
    authenticated_at: dt.datetime
    sid: str = ""
    level: str = ""
    grant: str = ""
    """What renews it: secret."""

    def __repr__(self) -> str:
        return f"Vouched({self.issuer!r}, {self.subject!r})"


def begin(service: Service, person_id: str, vouched: Vouched, browser: str) -> tuple[SignIn, str]:
    """Sign this browser in as this person. Returns the row, and the secret for its cookie, which is kept nowhere."""
    now, secret, sign_in_id = service.now(), crypto.new_secret(), crypto.new_id(16)
    fresh = SignIn(
        id=sign_in_id,
        digest=crypto.digest(secret),
        person=person_id,
        issuer=vouched.issuer,
        subject=vouched.subject,
        sid=vouched.sid,
        level=vouched.level,
        authenticated_at=vouched.authenticated_at,
        created_at=now,
        seen_at=now,
        refreshed_at=now,
        ends_at=now + dt.timedelta(hours=service.settings.sign_in_hours),
        browser=browser[:200],
        grant=service.sealer.seal(vouched.grant, about(sign_in_id)) if vouched.grant else None,
    )
    with service.db.transaction() as session:
        session.add(fresh)
    return fresh, secret


def person_of(service: Service, secret: str) -> people.Person | None:
    """Who this cookie is, while its sign-in lasts. Notes that it was seen."""
    found = _living(service, secret)
    if found is None:
        return None
    now = service.now()
    if now - found.seen_at > SEEN_EVERY:
        with service.db.transaction() as session:
            session.execute(sa.update(SignIn).where(SignIn.id == found.id).values(seen_at=now))
    known = people.known(service, found.person)
    return replace(known, sign_in=found.id, level=found.level, signed_in_at=found.authenticated_at)


def _living(service: Service, secret: str) -> SignIn | None:
    now = service.now()
    idle = now - dt.timedelta(hours=service.settings.sign_in_idle_hours)
    living = SignIn.digest == crypto.digest(secret), SignIn.ends_at > now, SignIn.seen_at > idle
    with service.db.reading() as session:
        return session.scalars(sa.select(SignIn).where(*living)).one_or_none()


def about(sign_in_id: str) -> str:
    """Where its grant is sealed for."""
    return f"sign_ins/{sign_in_id}"
