"""A cloud on the desk that trusts people's accounts to this broker as real ones do: token checked, two grants kept apart.

It reads the broker's keys as published and knows whom each account trusts; what the reap grant may not, it does not.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jwcrypto import jwk, jws

from providers import base
from providers.errors import BadCredential, PermissionMissing
from providers.fake.driver import KINDS
from tests.doubles.desk_cloud import DeskCloud

AUDIENCE = "desk"
LIVES = dt.timedelta(minutes=15)
GRANTS = {
    "offers": (base.Purpose.LAUNCH,),
    "provision": (base.Purpose.LAUNCH,),
    "describe": tuple(base.Purpose),
    "terminate": tuple(base.Purpose),
    "instances": tuple(base.Purpose),
}


@dataclass
class StrictCloud(DeskCloud):
    """`keys` and `now` are the world outside: the broker's published keys, and the cloud's own clock."""

    keys: Callable[[], Mapping[str, Any]]
    now: Callable[[], dt.datetime]
    issuer: str = ""
    """Whom accounts trust; filled in by the test, as a person would at the cloud."""
    trusted: set[str] = field(default_factory=set)
    """The `sub`s that accounts here trust."""
    secrets: set[str] = field(default_factory=set)
    """Keys that open accounts, for the kind `kept`."""
    done: list[tuple[str, base.Purpose]] = field(default_factory=list)
    """Every verb, and the grant it was done with."""

    def __post_init__(self) -> None:
        super().__init__()
        self.kinds = (KINDS["keyless"], KINDS["kept"])
        self._seen: set[str] = set()

    def sign_in(self, connection: base.Connection, identity_token: str | None) -> base.Credential:
        super().sign_in(connection, identity_token)
        if connection.kind == "keyless":
            self._check(identity_token or "", connection.purpose)
        elif connection.secret not in self.secrets:
            raise BadCredential("The desk does not know this key.")
        ends = self.now() + LIVES
        secret = {"purpose": connection.purpose.value, "ends": ends.isoformat()}
        return base.Credential(who="somebody at the desk", expires_at=ends, secret=secret, reaches=self.reaches)

    def _check(self, token: str, purpose: base.Purpose) -> None:
        signed = jws.JWS()
        signed.allowed_algs = ["RS256"]
        signed.deserialize(token)
        key = jwk.JWKSet.from_json(json.dumps(self.keys())).get_key(signed.jose_header["kid"])
        if key is None:
            raise BadCredential("The desk does not know the key that signed this.")
        signed.verify(key)
        said = json.loads(signed.payload)
        if said["iss"] != self.issuer or said["aud"] != AUDIENCE or not said["sub"].startswith(f"{purpose.value}:"):
            raise BadCredential("The desk was not meant.")
        if said["sub"] not in self.trusted:
            raise BadCredential("No account at the desk trusts this subject.")
        if said["jti"] in self._seen or not said["nbf"] <= self.now().timestamp() < said["exp"]:
            raise BadCredential("This token was used already, or is over.")
        self._seen.add(said["jti"])

    def offers(self, credential: base.Credential, resources: base.Resources) -> list[base.Offer]:
        self._admit("offers", credential)
        return super().offers(credential, resources)

    def provision(self, credential: base.Credential, order: base.Order) -> base.Instance:
        self._admit("provision", credential)
        return super().provision(credential, order)

    def describe(self, credential: base.Credential, instance_id: str) -> base.Instance:
        self._admit("describe", credential)
        return super().describe(credential, instance_id)

    def terminate(self, credential: base.Credential, instance_id: str | None, order_id: str) -> None:
        self._admit("terminate", credential)
        super().terminate(credential, instance_id, order_id)

    def instances(self, credential: base.Credential, broker: str) -> list[base.Instance]:
        self._admit("instances", credential)
        return super().instances(credential, broker)

    def _admit(self, verb: str, credential: base.Credential) -> None:
        purpose = base.Purpose(credential.secret["purpose"])
        if dt.datetime.fromisoformat(credential.secret["ends"]) <= self.now():
            raise BadCredential("This credential is over.")
        if purpose not in GRANTS[verb]:
            raise PermissionMissing(f"The grant “{purpose.value}” may not {verb}.")
        self.done.append((verb, purpose))
