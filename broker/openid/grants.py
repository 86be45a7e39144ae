"""What a sign-in has entrusted to us: what renews it at its provider, sealed in its row, and the access tokens it yields."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

from broker import errors
from broker.models import SignIn
from broker.openid import asking
from broker.openid.client import Client, Grant, identity_of
from broker.openid.refusals import NotRenewable, Refused
from broker.service import Service


def access_token(service: Service, sign_in: SignIn) -> str:
    """An access token of the person at the identity provider of this sign-in, good for half a minute at least. A secret.

    Asks the provider, unless one of before is still good. Raises SignInAgain where it must be granted anew, Unavailable.
    """
    tokens: dict[str, tuple[dt.datetime, str]] = service.identities.setdefault("access", {})
    good_until, token = tokens.get(sign_in.id, (service.now(), ""))
    if good_until > service.now():
        return token
    try:
        renew(service, sign_in)
    except Refused:
        raise errors.SignInAgain from None
    return tokens[sign_in.id][1]


def renew(service: Service, sign_in: SignIn) -> dict[str, Any]:
    """Renew it at its provider, keep what renews it next, and return what is said of the person now.

    One at a time in this process: a refresh token is good once. Raises Refused where it is over there, NotRenewable where
    it never could be, Unavailable.
    """
    identity = identity_of(service, sign_in.issuer)
    if identity is None:
        raise NotRenewable
    locks: dict[str, threading.Lock] = service.identities.setdefault("locks", {})
    with locks.setdefault(sign_in.id, threading.Lock()):
        client = Client(service, identity, seconds=asking.RENEWAL_SECONDS)
        try:
            grant = granted(service, sign_in.id)
            tokens, following, claims = client.renewed(grant, sign_in.subject)
        except Refused:
            latest = granted(service, sign_in.id)
            if latest == grant:
                raise
            tokens, following, claims = client.renewed(latest, sign_in.subject)  # another process was faster
        _keep(service, sign_in.id, following)
    good_for = dt.timedelta(seconds=max(0.0, tokens.seconds - 30))
    service.identities.setdefault("access", {})[sign_in.id] = (service.now() + good_for, tokens.access)
    return claims


def forget_spent(service: Service) -> None:
    """Keep no access token in memory that has run out. May be repeated."""
    tokens: dict[str, tuple[dt.datetime, str]] = service.identities.setdefault("access", {})
    locks: dict[str, threading.Lock] = service.identities.setdefault("locks", {})
    for sign_in_id in [each for each, (until, _) in list(tokens.items()) if until <= service.now()]:
        tokens.pop(sign_in_id, None)
        locks.pop(sign_in_id, None)


def granted(service: Service, sign_in_id: str) -> Grant:
    """What renews this sign-in. Raises NotRenewable, Unsealable."""
    with service.db.reading() as session:
        row = session.get(SignIn, sign_in_id)
    grant = Grant.read(service.sealer.open(row.grant, about(row.id))) if row and row.grant else Grant()
    if not grant.refresh:
        raise NotRenewable
    return grant


def _keep(service: Service, sign_in_id: str, grant: Grant) -> None:
    sealed = service.sealer.seal(grant.text(), about(sign_in_id))
    with service.db.transaction() as session:
        row = session.get(SignIn, sign_in_id)
        if row is not None:
            row.grant = sealed


def about(sign_in_id: str) -> str:
    """Where the grant of a sign-in is sealed for."""
    return f"sign_ins/{sign_in_id}"
