"""Browsers that are signed in: begun after an identity provider has vouched for somebody, ended by age, by idleness, by the
person here or elsewhere, or by the provider."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import sqlalchemy as sa
import structlog

from broker import crypto, errors, logins, openid, people
from broker.models import SignIn
from broker.openid import Vouched, about
from broker.service import Service
from providers.sentences import say

log = structlog.get_logger(__name__)
SEEN_EVERY = dt.timedelta(minutes=1)  # how exactly it is known when a browser was last seen
RENEWED_EVERY = dt.timedelta(minutes=5)
"""How long a group that somebody has left at their provider may still count here, where the provider lets us ask."""


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
    """Who this cookie is, while its sign-in lasts. Notes that it was seen.

    Every few minutes it asks the identity provider, where that lets us: it then takes up to 5 seconds, and the sign-in ends
    where the provider has ended it. A provider that cannot be reached ends nothing.
    """
    found = find(service, secret)
    if found is None or openid.identity_of(service, found.issuer) is None:
        return None
    now = service.now()
    if now - found.seen_at > SEEN_EVERY:
        with service.db.transaction() as session:
            session.execute(sa.update(SignIn).where(SignIn.id == found.id).values(seen_at=now))
    if found.grant and now - found.refreshed_at > RENEWED_EVERY and not _renewed(service, found):
        return None
    known = people.known(service, found.person)
    return replace(known, sign_in=found.id, level=found.level, signed_in_at=found.authenticated_at)


def get(service: Service, sign_in_id: str) -> SignIn | None:
    """The sign-in of this id, while it lasts."""
    with service.db.reading() as session:
        return session.scalars(sa.select(SignIn).where(SignIn.id == sign_in_id, *_lasting(service))).one_or_none()


def of(service: Service, person: people.Person) -> list[SignIn]:
    """Where this person is signed in, the one seen last first."""
    query = sa.select(SignIn).where(SignIn.person == person.id, *_lasting(service)).order_by(SignIn.seen_at.desc())
    with service.db.reading() as session:
        return list(session.scalars(query))


def end(service: Service, person: people.Person, sign_in_id: str) -> None:
    """Sign one browser of this person's out. Raises NotFound."""
    if not _ended(service, SignIn.person == person.id, SignIn.id == sign_in_id):
        raise errors.NotFound(say("You are not signed in there any more."))


def find(service: Service, secret: str) -> SignIn | None:
    """The sign-in of this cookie, while it lasts. Asks nobody."""
    with service.db.reading() as session:
        return session.scalars(
            sa.select(SignIn).where(SignIn.digest == crypto.digest(secret), *_lasting(service))
        ).one_or_none()


def over(service: Service, secret: str) -> None:
    """The browser of this cookie has signed out, or in anew. May be repeated."""
    _ended(service, SignIn.digest == crypto.digest(secret))


def end_all(service: Service, person: people.Person) -> int:
    """Sign this person out everywhere; how many browsers that were."""
    return _ended(service, SignIn.person == person.id)


def end_elsewhere(service: Service, person: people.Person) -> int:
    """The same, but for the browser that asks."""
    return _ended(service, SignIn.person == person.id, SignIn.id != person.sign_in)


def end_by_provider(service: Service, told: openid.LoggedOut) -> int:
    """Sign out whom their provider has logged out; how many browsers that were."""
    which = [SignIn.issuer == told.issuer]
    # One whose session the provider never named may be the one that it means.
    named = SignIn.sid.in_((told.sid, "")) if told.subject else SignIn.sid == told.sid
    which += [named] if told.sid else []
    which += [SignIn.subject == told.subject] if told.subject else []
    return _ended(service, *which)


def purge(service: Service) -> int:
    """Delete sign-ins that are over, and what renewed them; how many. Runs by itself; may be repeated."""
    openid.forget_spent(service)
    return _ended(service, ~sa.and_(*_lasting(service)))


def grant_of(service: Service, sign_in: SignIn) -> str:
    """What was entrusted to us with it, opened; empty where nothing was. Raises Unsealable."""
    return service.sealer.open(sign_in.grant, about(sign_in.id)) if sign_in.grant else ""


def _renewed(service: Service, found: SignIn) -> bool:
    """Whether it still stands. One request of one process asks; the others go on meanwhile."""
    now = service.now()
    with service.db.transaction() as session:
        mine = sa.update(SignIn).where(SignIn.id == found.id, SignIn.refreshed_at == found.refreshed_at)
        if not session.execute(mine.values(refreshed_at=now)).rowcount:  # type: ignore[attr-defined]
            return True
    try:
        told = openid.renew(service, found)
    except openid.NotRenewable:
        return True
    except openid.Refused as refusal:
        log.info("sign_in_ended_by_provider", person=found.person, error=str(refusal))
        _ended(service, SignIn.id == found.id)
        return False
    except errors.BrokerError as trouble:
        log.warning("sign_in_not_renewed", person=found.person, error=str(trouble))
        return True
    logins.renewed(service, found.issuer, found.subject, told)
    return True


def _lasting(service: Service) -> tuple[sa.ColumnElement[bool], ...]:
    now = service.now()
    return SignIn.ends_at > now, SignIn.seen_at > now - dt.timedelta(hours=service.settings.sign_in_idle_hours)


def _ended(service: Service, *which: sa.ColumnElement[bool]) -> int:
    with service.db.transaction() as session:
        gone = session.execute(sa.delete(SignIn).where(*which).execution_options(synchronize_session=False))
        return int(gone.rowcount)  # type: ignore[attr-defined]
