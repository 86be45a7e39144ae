"""One identity provider: what it says of itself, its keys, and whether a token is its own and meant for us."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import structlog
from joserfc import errors as jose
from joserfc import jws, jwt
from joserfc.jwk import JWKRegistry

from broker import addresses, settings
from broker.openid import asking
from broker.openid.refusals import Refused, Unavailable
from broker.service import Service
from providers.sentences import say

log = structlog.get_logger(__name__)
ALGORITHMS = ("RS256", "ES256", "PS256", "EdDSA", "Ed25519")
"""Of signatures that are believed: never `none`, nor one that our own client secret could make."""
KEY_TYPES = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP", "Ed25519": "OKP"}
LEEWAY = 300
"""Seconds that a provider's clock may be ahead of ours or behind it."""
KEPT = dt.timedelta(minutes=5)  # how long what a provider says of itself is believed without asking again
REREAD = dt.timedelta(seconds=5)  # an unknown key makes us read its keys again, but no faster than this
NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")
ENDPOINTS = (*NEEDED, "userinfo_endpoint", "end_session_endpoint")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a provider says of itself, and its keys."""

    read_at: dt.datetime
    told: Mapping[str, Any]
    keys: tuple[Any, ...] = ()


class Provider:
    """One errand at it: everything that is asked meanwhile takes `seconds` at most, else `asking.SECONDS`.

    What it says of itself and its keys are kept for KEPT. Every method raises Unavailable and Refused.
    """

    def __init__(self, service: Service, identity: settings.IdentitySetting, seconds: float | None = None) -> None:
        self.identity = identity
        self.title = identity.called
        self.kept: dict[str, Any] = service.identities.setdefault(identity.issuer, {})
        self.web = asking.Web(
            self.title, asking.SECONDS if seconds is None else seconds, self.kept.setdefault("slow", {})
        )
        self._service = service

    def known(self) -> Known:
        """What it says of itself."""
        found: Known | None = self.kept.get("discovery")
        if found is None or self._service.now() - found.read_at > KEPT:
            issuer = self.identity.issuer
            url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            told = self.json(asking.Asked(what="its description of itself", url=url))
            if told.get("issuer") != issuer:
                raise Refused(
                    say(
                        "%(title)s calls itself by another address than the one in this broker's settings, so nobody "
                        "is signed in with it. Whoever runs this broker must set `issuer` exactly as it says it.",
                        title=self.title,
                    )
                )
            require_safe(told, issuer, self.title)
            found = Known(read_at=self._service.now(), told=told)
            self.kept["discovery"] = found
        return found

    def _with_keys(self, again: bool = False) -> Known:
        found: Known | None = self.kept.get("keys")
        if found is None or again or self._service.now() - found.read_at > KEPT:
            told = self.json(asking.Asked(what="its keys", url=self.known().told["jwks_uri"]))
            found = Known(read_at=self._service.now(), told={}, keys=tuple(_keys(told.get("keys"))))
            self.kept["keys"] = found
        return found

    def json(self, asked: asking.Asked) -> dict[str, Any]:
        """The JSON object that it answers."""
        answer = self.web.ask(asked)
        try:
            told = json.loads(answer.content) if answer.status_code == 200 else None
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise Unavailable(self.title, asked.what)
        return told

    # --- tokens -------------------------------------------------------------------------------------------------------

    def check(self, claims: dict[str, Any], **wanted: Any) -> None:
        """Whom it is from, whom it is for, and when it was made. Raises Refused."""
        now = int(self._service.now().timestamp())
        registry = jwt.JWTClaimsRegistry(
            now=now,
            leeway=LEEWAY,
            iss={"essential": True, "value": self.identity.issuer},
            aud={"essential": True, "value": self.identity.client_id},
            iat={"essential": True},
            exp={"essential": True},
            **wanted,
        )
        try:
            registry.validate(claims)
        except jose.JoseError as error:
            raise self._unfit(error) from None
        if now - claims["iat"] > LEEWAY:
            raise self._skewed()
        many = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if (many or "azp" in claims) and claims.get("azp") != self.identity.client_id:
            raise Refused(
                say("What %(title)s said was meant for another program, so nobody was signed in.", title=self.title)
            )
        if "sub" in claims and not 0 < len(claims["sub"]) <= 255:
            raise Refused

    def _unfit(self, error: Exception) -> Refused:
        claim = getattr(error, "claim", "") or next(
            (name for name in ("nonce", "iss", "aud", "iat", "nbf", "exp") if name in str(error)), ""
        )
        log.warning("token_refused", provider=self.identity.name, claim=claim, error=type(error).__name__)
        if claim in ("iat", "nbf", "exp"):
            return self._skewed()
        if claim == "nonce":
            return Refused(
                say("That answer belongs to another attempt to sign in, so nobody was signed in. Begin again here.")
            )
        if claim in ("iss", "aud"):
            return Refused(
                say("What %(title)s said was not meant for this broker, so nobody was signed in.", title=self.title)
            )
        return Refused()

    def _skewed(self) -> Refused:
        return Refused(
            say(
                "The clock of %(title)s and that of this broker differ by more than five minutes, or the "
                "answer is an old one. Try again; if it goes on, tell whoever runs this broker to set its "
                "clock.",
                title=self.title,
            )
        )

    def signed(self, token: str, types: tuple[str, ...]) -> dict[str, Any]:
        """The claims of this token, once its signature has been checked. Raises Refused."""
        try:
            header = jws.extract_compact(token.encode()).headers()
            kind = str(header.get("typ", "")).lower()
            if header.get("alg") not in ALGORITHMS or kind not in types:
                raise Refused
            return jwt.decode(token, self._key(header), algorithms=list(ALGORITHMS)).claims
        except (jose.JoseError, ValueError) as error:
            log.warning("token_refused", provider=self.identity.name, error=type(error).__name__)
            raise Refused(
                say(
                    "What %(title)s sent is not signed by it, so nobody was signed in. Try again; if it goes on, "
                    "tell whoever runs this broker.",
                    title=self.title,
                )
            ) from None

    def _key(self, header: Mapping[str, Any]) -> Any:
        """The key that this header names; the provider's keys are read again, once, where it is not among them."""
        known = self._with_keys()
        if found := _fitting(known.keys, header):
            return found
        if self._service.now() - known.read_at >= REREAD and (found := _fitting(self._with_keys(True).keys, header)):
            return found
        raise jose.InvalidKeyIdError("unknown key")


def require_safe(told: Mapping[str, Any], issuer: str, title: str) -> None:
    """Every address that a provider names is https, or on this computer where the provider itself is. Raises Unavailable."""
    near = urlsplit(issuer).scheme == "http"  # settings allow that on this computer only
    for name in ENDPOINTS:
        address = told.get(name)
        if (address is None and name not in NEEDED) or (isinstance(address, str) and _is_safe(address, near)):
            continue
        raise Unavailable(title, f"its {name}")


def _is_safe(address: str, near: bool) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    safe = addresses.takes_secrets(parts) if near else parts.scheme == "https"
    return bool(parts.netloc) and address.isprintable() and not parts.fragment and safe


def _keys(told: Any) -> list[Any]:
    """Keys that signatures can be checked with; what is not understood is left out."""
    found = []
    for each in told if isinstance(told, list) else ():
        if isinstance(each, dict) and each.get("kty") in KEY_TYPES.values() and each.get("use", "sig") == "sig":
            try:
                found.append(JWKRegistry.import_key(each))
            except (jose.JoseError, LookupError, ValueError, TypeError):
                continue
    return found


def _fitting(keys: tuple[Any, ...], header: Mapping[str, Any]) -> Any:
    """The key of this name, or, where none is named, the only one of its kind; None where there is none."""
    kid = header.get("kid")
    fit = [key for key in keys if key.key_type == KEY_TYPES[header["alg"]] and kid in (None, key.kid)]
    return fit[0] if len(fit) == 1 or (fit and kid is not None) else None


def is_number(value: Any) -> bool:
    """Whether this claim is a number; `true` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
