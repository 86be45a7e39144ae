"""This broker as an OpenID issuer towards clouds: it vouches for a person with tokens of minutes, and clouds that the person
told to trust it trade them for credentials of their own.

Its keys sign nothing else (RS256, what every cloud takes). A new key is published for longer than clouds keep what they have
read before it signs, and an old one as long after; the private half is sealed, and erased when it no longer signs.

Every token is for one exchange: it has an id of its own, names exactly one audience, and one of the two forms in which a
person is known there: `launch:…` or `reap:…`.
"""

from __future__ import annotations

import datetime as dt
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
import structlog
from joserfc import jwt
from joserfc.jwk import RSAKey
from sqlalchemy import orm

from broker import crypto, db
from broker.models import SigningKey
from broker.service import Service
from providers import base

log = structlog.get_logger(__name__)
ALGORITHM = "RS256"
KEY_BITS = 2048
TOKEN_SECONDS = 600
SKEW_SECONDS = 300
"""Clocks may differ by this much: a token is dated back by it, and lives longer than it."""
JWKS_SECONDS = 3600
USUAL_PORTS = {"http": 80, "https": 443}


def issuer(service: Service) -> str:
    """Our address, as `iss` says it: the same however `public_url` spells it, for accounts were told it once.

    On one computer only programs of that computer can ask it.
    """
    at = urlsplit(service.agent_url)
    host = f"[{at.hostname}]" if ":" in (at.hostname or "") else at.hostname
    port = "" if at.port in (None, USUAL_PORTS.get(at.scheme)) else f":{at.port}"
    return f"{at.scheme}://{host}{port}{at.path.rstrip('/')}"


def cache_seconds(service: Service) -> int:
    """How long others may keep what they have read of us: well shorter than the overlap of keys."""
    return min(JWKS_SECONDS, int(_overlap(service).total_seconds() / 2))


def subject(service: Service, person_id: str, target: str) -> str:
    """Who this person is towards this target, and nowhere else: 26 letters and digits, of which nobody can tell the person."""
    return crypto.short(service.keys.token("pairwise", f"{person_id}\n{target}"), 26)


def trust(service: Service, subject: str) -> base.Trust:
    """Whom an account is asked to trust, for somebody who is known there as this."""
    return base.Trust(
        issuer=issuer(service),
        launch_subject=form(subject, base.Purpose.LAUNCH),
        reap_subject=form(subject, base.Purpose.REAP),
        broker=service.keys.broker_id,
        name=issuer(service).partition("://")[2],
    )


def form(subject: str, purpose: base.Purpose) -> str:
    """The `sub` for this purpose. At most 33 bytes; Google allows 127."""
    return f"{purpose.value}:{subject}"


def token(service: Service, sub: str, assertion: base.Assertion) -> str:
    """A token for one exchange, good for TOKEN_SECONDS. A secret: it goes into no log. Raises Unsealable."""
    now = int(service.now().timestamp())
    claims = {
        **assertion.claims,
        "iss": issuer(service),
        "sub": sub,
        "aud": assertion.audience,
        "iat": now - SKEW_SECONDS,
        "nbf": now - SKEW_SECONDS,
        "exp": now + TOKEN_SECONDS,
        "jti": crypto.new_id(26),
    }
    key = _signing(service)
    return jwt.encode({"alg": ALGORITHM, "typ": "JWT", "kid": key.kid}, claims, key)


def discovery(service: Service) -> dict[str, Any]:
    """What `/.well-known/openid-configuration` answers: only what is true of an issuer that signs nobody in."""
    own = issuer(service)
    return {
        "issuer": own,
        "jwks_uri": f"{own}/.well-known/jwks.json",
        "authorization_endpoint": f"{own}/login",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "scopes_supported": ["openid"],
        "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"],
    }


def jwks(service: Service) -> dict[str, Any]:
    """Every key that signs, will sign soon, or has signed lately. Makes the first one."""
    _ensure(service)
    with service.db.reading() as session:
        return {"keys": [key.public for key in session.scalars(_published(service.now()))]}


def keys(service: Service) -> list[SigningKey]:
    """Every key there ever was, the newest first. Makes none."""
    with service.db.reading() as session:
        return list(session.scalars(sa.select(SigningKey).order_by(SigningKey.signs_at.desc())))


def signs_now(service: Service) -> str | None:
    """The `kid` of the key that signs at this moment; None where there is none yet."""
    now = service.now()
    return next((key.kid for key in keys(service) if key.private and key.signs_at <= now), None)


def rotate(service: Service, *, at_once: bool = False) -> str:
    """Publish a new key, which signs after the overlap; the old ones go an overlap later. Returns its `kid`.

    `at_once`, when a key is feared stolen: the new one signs now, the old ones are published no more and their private
    halves erased. Clouds that keep our old list refuse us until they read it again.
    """
    _ensure(service)
    fresh = _new_key(service, signs_at=service.now() + (dt.timedelta(0) if at_once else _overlap(service)))
    with service.db.transaction() as session:
        db.one_at_a_time(session, "signing keys")
        _publish(service, session, fresh, at_once=at_once)
    return fresh.kid


def keep(service: Service) -> None:
    """Rotate when it is time, and erase private halves that no longer sign. Runs by itself; may be repeated."""
    now = service.now()
    with service.db.transaction() as session:
        db.one_at_a_time(session, "signing keys")
        keys = list(session.scalars(_published(now)))
        signing = next((key for key in keys if key.signs_at <= now and key.private), None)
        if signing is None:
            return  # nothing was ever signed
        if signing.signs_at + dt.timedelta(seconds=SKEW_SECONDS) <= now:  # for those of us whose clocks are behind
            older = SigningKey.signs_at < signing.signs_at, SigningKey.private.is_not(None)
            session.execute(sa.update(SigningKey).where(*older).values(private=None))
    if not _is_due(service, keys):
        return
    fresh = _new_key(service, signs_at=now + _overlap(service))
    with service.db.transaction() as session:
        db.one_at_a_time(session, "signing keys")
        if _is_due(service, list(session.scalars(_published(now)))):  # several of us may have seen that it is time
            _publish(service, session, fresh, at_once=False)


def _is_due(service: Service, keys: list[SigningKey]) -> bool:
    """Whether the newest of these is so old that the next one must be published."""
    lasts = max(dt.timedelta(days=service.settings.issuer_key_days) - _overlap(service), dt.timedelta(0))
    return keys[0].signs_at + lasts <= service.now()


def _publish(service: Service, session: orm.Session, fresh: SigningKey, *, at_once: bool) -> None:
    now = service.now()
    hidden = now if at_once else fresh.signs_at + _overlap(service) + dt.timedelta(seconds=TOKEN_SECONDS)
    for old in session.scalars(_published(now)):
        old.hidden_at = min(old.hidden_at, hidden) if old.hidden_at else hidden
    if at_once:
        session.execute(sa.update(SigningKey).values(private=None))
    session.add(fresh)
    log.info("signing_key_published", kid=fresh.kid, signs_at=fresh.signs_at.isoformat())


def _signing(service: Service) -> RSAKey:
    """The newest key that signs already; where our clock is behind and none does, the one that will first."""
    _ensure(service)
    now = service.now()
    with service.db.reading() as session:
        whole = [key for key in session.scalars(_published(now)) if key.private]
    found = next((key for key in whole if key.signs_at <= now), whole[-1] if whole else None)
    if found is None or found.private is None:
        raise RuntimeError("There is no key to sign with.")
    for kid in set(service.signing) - {key.kid for key in whole}:
        service.signing.pop(kid, None)  # what was erased from the table is not kept here either
    opened = service.signing.get(found.kid)
    if opened is None:
        private = service.sealer.open(found.private, _about(found.kid))
        opened = RSAKey.import_key(private, {"kid": found.kid, "use": "sig", "alg": ALGORITHM})
        service.signing[found.kid] = opened
    return opened


def _ensure(service: Service) -> None:
    """The first key signs at once: nobody can have read a list without it."""
    with service.db.reading() as session:
        if session.scalars(_published(service.now())).first():
            return
    fresh = _new_key(service, signs_at=service.now())
    with service.db.transaction() as session:
        db.one_at_a_time(session, "signing keys")
        if session.scalars(_published(service.now())).first() is None:
            session.add(fresh)


def _new_key(service: Service, *, signs_at: dt.datetime) -> SigningKey:
    made = RSAKey.generate_key(KEY_BITS, {"use": "sig", "alg": ALGORITHM})
    kid = made.thumbprint()
    public = {**made.as_dict(private=False), "kid": kid, "use": "sig", "alg": ALGORITHM}
    return SigningKey(
        kid=kid,
        public=public,
        private=service.sealer.seal(made.as_pem(private=True).decode(), _about(kid)),
        created_at=service.now(),
        signs_at=signs_at,
        hidden_at=None,
    )


def _published(now: dt.datetime) -> sa.Select[SigningKey]:
    """Newest first."""
    shown = sa.or_(SigningKey.hidden_at.is_(None), SigningKey.hidden_at > now)
    return sa.select(SigningKey).where(shown).order_by(SigningKey.signs_at.desc(), SigningKey.created_at.desc())


def _overlap(service: Service) -> dt.timedelta:
    return dt.timedelta(hours=service.settings.issuer_overlap_hours)


def _about(kid: str) -> str:
    return f"signing_keys/{kid}"
