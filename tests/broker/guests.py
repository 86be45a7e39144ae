"""People who are signed in, without an identity provider: what it would have said is written down."""

from __future__ import annotations

from typing import Any

from broker import crypto, openid, service, settings, signins
from broker.models import Login, Profile

ISSUER = "https://id.example"
IDENTITY = settings.IdentitySetting(name="campus", title="Campus", issuer=ISSUER, client_id="anybinder")
OTHER = settings.IdentitySetting(name="orcid", title="ORCID", issuer="https://orcid.example", client_id="anybinder")
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def person(at: service.Service, name: str = "Ada", issuer: str = ISSUER, **claims: list[str]) -> str:
    """The id of a person with one login; the same name is the same person."""
    person_id, now = name.lower().ljust(16, "0")[:16], at.now()
    with at.db.transaction() as session:
        if session.get(Profile, person_id) is None:
            session.add(Profile(id=person_id, name=name, email="", created_at=now, signed_in_at=now))
            session.flush()
        if session.get(Login, (issuer, name)) is None:
            told: dict[str, Any] = {"issuer": issuer, "subject": name, "person": person_id, "name": name}
            session.add(Login(**told, claims=claims, created_at=now, signed_in_at=now))
    return person_id


def cookie(at: service.Service, name: str = "Ada", *, agent: str = AGENT) -> str:
    """What the cookie of a browser holds that this person has just signed in with."""
    return signins.begin(at, person(at, name), vouched(at, name), agent)[1]


def vouched(at: service.Service, name: str, grant: str = "") -> openid.Vouched:
    """What the identity provider would have said."""
    return openid.Vouched(issuer=ISSUER, subject=name, authenticated_at=at.now(), grant=grant)


def removed(at: service.Service, secret: str) -> bool:
    """Whether the sign-in of this cookie is over."""
    return signins.person_of(at, secret) is None


def digest(secret: str) -> bytes:
    """How the table knows it."""
    return crypto.digest(secret)
