"""Build tokens: who holds one may ask `/build` for one repository, for some minutes, from one page.

They are BinderHub's own (a JWT signed by HS256 with `exp`, `aud` and `origin`), so hubs that share a key understand each
other's. What we say in one beyond that (whose launch it is, where it runs, its id) counts only under this broker's own
key: a hub that shares a key with us must not be able to act as a person here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

from joserfc import errors as jose
from joserfc import jwt
from joserfc.jwk import OctKey

from broker import crypto, errors
from broker.service import Service

ALGORITHM = "HS256"
LAUNCH_BYTES = 8  # more than the 60 bits that the twelve letters of a launch's id need


class BadToken(errors.NotAllowed):
    """Invalid build token"""

    reason = "build_token"


@dataclass(frozen=True, kw_only=True)
class BuildToken:
    """What a token that was good says."""

    launch_id: str | None
    """The one launch it is for: whoever comes again with it comes back to that. None: the token is another hub's."""
    person: str | None = None
    """Whose launch it is; None: nobody's we know."""
    backend: str | None = None
    """Where that person wants it to run."""


def issue(
    service: Service,
    *,
    spec: str,
    origin: str,
    person: str | None = None,
    backend: str | None = None,
    launch_id: str | None = None,
) -> str:
    """A token for `<prefix>/<raw spec>`, good for `build_token_seconds` on pages of this origin (host and port).

    With `person`, the launch is that person's and runs on `backend`. The token is for one launch; two requests with it
    meet in the same one.
    """
    claims: dict[str, Any] = {
        "exp": int(service.now().timestamp() + service.settings.build_token_seconds),
        "aud": spec,
        "origin": origin,
        "jti": crypto.new_id(16),
    }
    ours = {"sub": person, "backend": backend, "launch": launch_id}
    claims |= {name: value for name, value in ours.items() if value}
    key = _own_key(service) if claims.keys() & ours.keys() else _key(service)
    return jwt.encode({"alg": ALGORITHM, "typ": "JWT"}, claims, key)


def read(service: Service, token: str, *, spec: str, origin: str) -> BuildToken:
    """What this token says. Raises BadToken where it is another spec's, another origin's, too old or not signed by us."""
    own, claims = _claims(service, token)
    wanted: dict[str, Any] = {"exp": {"essential": True}, "aud": {"essential": True, "value": spec}}
    if service.settings.build_token_check_origin:
        wanted["origin"] = {"essential": True, "value": origin}
    try:
        jwt.JWTClaimsRegistry(now=lambda: int(service.now().timestamp()), **wanted).validate(claims)
    except (jose.JoseError, TypeError, ValueError):
        raise BadToken from None
    told = {name: value for name in ("sub", "backend", "launch") if own and isinstance(value := claims.get(name), str)}
    return BuildToken(
        launch_id=told.get("launch") or _launch_id(service, claims, spec),
        person=told.get("sub"),
        backend=told.get("backend"),
    )


def _claims(service: Service, token: str) -> tuple[bool, dict[str, Any]]:
    """Whether our own key signed it, and what it claims."""
    for own, key in ((True, _own_key(service)), (False, _key(service))):
        try:
            return own, jwt.decode(token, key, algorithms=[ALGORITHM]).claims
        except (jose.JoseError, ValueError, TypeError, RecursionError):
            continue
    raise BadToken


def _launch_id(service: Service, claims: dict[str, Any], spec: str) -> str | None:
    """The same for the same token, and nothing that its holder could choose."""
    jti = claims.get("jti")
    if not isinstance(jti, str) or not jti:
        return None
    return named_launch(service, f"{jti} {claims['exp']} {spec}")


def named_launch(service: Service, subject: str) -> str:
    """An id of a launch, made of this and of our key: twelve letters and digits."""
    made = hashlib.sha256(service.keys.token("build-launch", subject).encode()).digest()[:LAUNCH_BYTES]
    return base64.b32encode(made).decode().lower()[:12]


def _own_key(service: Service) -> OctKey:
    return OctKey.import_key(service.keys.derive("build-token"))


def _key(service: Service) -> OctKey:
    """The key that a federation shares; our own where there is none."""
    shared = service.settings.build_token_secret.get_secret_value()
    return OctKey.import_key(_bytes(shared)) if shared else _own_key(service)


def _bytes(shared: str) -> bytes:
    """The secret as BinderHub reads it: hexadecimal."""
    try:
        return binascii.unhexlify(shared)
    except (binascii.Error, ValueError):
        raise errors.BadRequest(
            "build_token_secret must be hexadecimal, as `openssl rand -hex 32` prints it."
        ) from None
