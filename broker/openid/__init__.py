"""Signing people in at an OpenID Connect provider that is found by discovery: authorization code with PKCE, `state` and
`nonce`; refresh; log-out from either side.

    attempt = openid.attempt("campus", service.now(), next="/sessions")
    address = openid.Client(service, identity).address(attempt)            # the browser goes there, and comes back
    vouched = openid.Client(service, identity).finish(attempt, answer)     # whom the provider vouches for

Authlib asks for tokens and joserfc reads them; what is decided here is whom to ask, for how long, and what is believed.
"""

from __future__ import annotations

from broker.openid.client import Attempt, Client, LoggedOut, Vouched, attempt, identity_of
from broker.openid.grants import about, access_token, forget_spent, granted, renew
from broker.openid.refusals import Cancelled, NotRenewable, Refused, StartAgain, Unavailable

__all__ = [
    "Attempt",
    "Cancelled",
    "Client",
    "LoggedOut",
    "NotRenewable",
    "Refused",
    "StartAgain",
    "Unavailable",
    "Vouched",
    "about",
    "access_token",
    "attempt",
    "forget_spent",
    "granted",
    "identity_of",
    "renew",
]
