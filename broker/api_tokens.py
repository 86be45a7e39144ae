"""API tokens: made by a person for scripts and their command line. Only a digest is kept; the token is shown once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import replace

import sqlalchemy as sa

from broker import crypto, errors, people
from broker.models import ApiToken
from broker.service import Service
from providers.sentences import say

PREFIX = "abt_"  # so that scanners of secrets find one that was published
SCOPES = {
    "read": say("see your launches and where you can run things"),
    "launch": say("launch, stop, and enter sessions as you"),
}
USED_EVERY = dt.timedelta(minutes=1)  # how exactly it is known when a token was last used


def create(
    service: Service, person: people.Person, *, name: str, scopes: Collection[str], days: float | None = None
) -> tuple[ApiToken, str]:
    """A new token of this person's, and its text, which cannot be shown again. Raises BadRequest, NotSignedIn."""
    if person.anonymous:
        raise errors.NotSignedIn
    if not scopes or not set(scopes) <= SCOPES.keys():
        raise errors.BadRequest(say("A token may do one or more of: %(scopes)s.", scopes=", ".join(SCOPES)))
    longest = service.settings.token_days
    if days is not None and not 0 < days <= longest:
        raise errors.BadRequest(say("A token lives at most %(days)s days here.", days=longest))
    now, text = service.now(), PREFIX + crypto.new_secret()
    fresh = ApiToken(
        id=crypto.new_id(12),
        digest=crypto.digest(text),
        person=person.id,
        name=name.strip()[:64] or "unnamed",
        scopes=" ".join(scope for scope in SCOPES if scope in scopes),
        created_at=now,
        ends_at=now + dt.timedelta(days=longest if days is None else days),
    )
    with service.db.transaction() as session:
        session.add(fresh)
    return fresh, text


def of(service: Service, person: people.Person) -> list[ApiToken]:
    """This person's tokens that are good, the newest first."""
    living = ApiToken.person == person.id, ApiToken.ends_at > service.now(), ApiToken.revoked_at.is_(None)
    query = sa.select(ApiToken).where(*living).order_by(ApiToken.created_at.desc(), ApiToken.id)
    with service.db.reading() as session:
        return list(session.scalars(query))


def revoke(service: Service, person: people.Person, token_id: str) -> None:
    """From now on it opens nothing. May be repeated. Raises NotFound, also for somebody else's."""
    mine = ApiToken.id == token_id, ApiToken.person == person.id
    with service.db.transaction() as session:
        revoked = sa.func.coalesce(ApiToken.revoked_at, service.now())
        if not session.execute(sa.update(ApiToken).where(*mine).values(revoked_at=revoked)).rowcount:  # type: ignore[attr-defined]
            raise errors.NotFound(say("There is no such token, or it is not yours."))


def person_of(service: Service, text: str) -> people.Person | None:
    """Who shows this token, with what it may do; None where it is none of ours, has ended, or was revoked."""
    if not text.startswith(PREFIX):
        return None
    now = service.now()
    living = ApiToken.digest == crypto.digest(text), ApiToken.ends_at > now, ApiToken.revoked_at.is_(None)
    with service.db.reading() as session:
        found = session.scalars(sa.select(ApiToken).where(*living)).one_or_none()
    if found is None:
        return None
    if found.used_at is None or now - found.used_at > USED_EVERY:
        with service.db.transaction() as session:
            session.execute(sa.update(ApiToken).where(ApiToken.id == found.id).values(used_at=now))
    known = people.known(service, found.person)
    # Whoever has only the token has proved nothing since it was made, whenever its owner signs in elsewhere.
    since = min(known.signed_in_at, found.created_at) if known.signed_in_at else None
    return replace(known, scopes=frozenset(found.scopes.split()), token=found.id, signed_in_at=since)
