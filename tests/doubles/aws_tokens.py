"""How AWS reads an identity token: by the issuer's published keys, fetched over HTTP and kept for a while.

Written with `cryptography` alone, not with the library that signs. It takes RS256 only; AWS takes a few more.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import threading
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

FETCH_SECONDS = 5


class Refused(Exception):
    """AWS's own status, code and words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status, self.code, self.message = status, code, message


class Issuers:
    """Keys by issuer. An issuer calls itself `https://…`; `addresses` says where on this computer it is really asked."""

    def __init__(self, clock: Callable[[], dt.datetime], addresses: Mapping[str, str], keep_seconds: float) -> None:
        self.clock, self.addresses, self.keep_seconds = clock, dict(addresses), keep_seconds
        self.fetched = 0
        self._kept: dict[str, tuple[dt.datetime, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def forget(self) -> None:
        """As when what is kept has grown too old."""
        self._kept.clear()

    def key(self, issuer: str, kid: str) -> Any:
        """The public key of that name. One that is not among those kept is not looked for again before they are too old:
        harsher than a cloud may be, so that what passes here passes there."""
        with self._lock:
            kept = self._kept.get(issuer)
            if kept is None or self.clock() - kept[0] >= dt.timedelta(seconds=self.keep_seconds):
                kept = self._kept[issuer] = (self.clock(), self._fetch(issuer))
        found = kept[1].get(kid)
        if found is None or found.get("kty") != "RSA":
            raise Refused(
                400,
                "InvalidIdentityToken",
                "Couldn't retrieve verification key from your identity provider, please reference "
                "AssumeRoleWithWebIdentity documentation for requirements",
            )
        return RSAPublicNumbers(_number(found["e"]), _number(found["n"])).public_key()

    def _fetch(self, issuer: str) -> dict[str, Any]:
        self.fetched += 1
        try:
            told = self._get(f"{issuer}/.well-known/openid-configuration")
            if told["issuer"] != issuer:
                raise Refused(400, "InvalidIdentityToken", "The issuer does not match its configuration")
            return {key["kid"]: key for key in self._get(told["jwks_uri"])["keys"]}
        except (OSError, ValueError, KeyError) as error:
            raise Refused(
                400, "IDPCommunicationError", f"Error communicating with {issuer} ({type(error).__name__})"
            ) from error

    def _get(self, address: str) -> Any:
        for issuer, there in self.addresses.items():
            if address.startswith(issuer):
                address = there + address.removeprefix(issuer)
        if not address.startswith("http://127.0.0.1:"):
            raise OSError("this double reaches this computer only")
        with urllib.request.urlopen(address, timeout=FETCH_SECONDS) as answer:
            return json.loads(answer.read())


def claims_of(token: str, issuers: Issuers, known: Callable[[str], bool]) -> dict[str, Any]:
    """What the token says, where its issuer is `known` and one of its keys has signed it. Raises Refused."""
    try:
        head, body, signature = token.split(".")
        header, claims = json.loads(_bytes(head)), json.loads(_bytes(body))
        issuer = str(claims["iss"])
    except (ValueError, KeyError):
        raise Refused(400, "InvalidIdentityToken", "The ID Token provided is not a valid JWT") from None
    if not known(issuer):
        message = f"No OpenIDConnect provider found in your account for {issuer}"
        raise Refused(400, "InvalidIdentityToken", message)
    if header.get("alg") != "RS256":
        raise Refused(400, "InvalidIdentityToken", "Token must be signed with RS256")
    try:
        issuers.key(issuer, str(header.get("kid"))).verify(
            _bytes(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256()
        )
    except InvalidSignature:
        raise Refused(400, "InvalidIdentityToken", "The signature of the token is invalid") from None
    return claims


def require_its_time(claims: Mapping[str, Any], now: dt.datetime) -> None:
    """Neither over nor yet to come. Raises Refused."""
    stamp = int(now.timestamp())
    if claims["exp"] <= stamp:
        raise Refused(
            400,
            "ExpiredTokenException",
            f"Token expired: current date/time {stamp} must be before the expiration date/time {claims['exp']}",
        )
    if claims.get("nbf", 0) > stamp or claims.get("iat", 0) > stamp:
        raise Refused(400, "InvalidIdentityToken", "Token is not valid yet: it was issued in the future")


def audience(claims: Mapping[str, Any]) -> str:
    """AWS takes `azp` for the audience where there is one."""
    found = claims.get("azp") or claims.get("aud")
    return str(found[0] if isinstance(found, list) else found)


def _bytes(encoded: str) -> bytes:
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))


def _number(encoded: str) -> int:
    return int.from_bytes(_bytes(encoded), "big")
