"""The identity providers that stand behind Keycloak: what each needs to be told, and what it tells of people.

Their addresses are as of 2026; where a provider is switched on, Keycloak reads them anew from the provider itself.
"""

from __future__ import annotations

import hashlib
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from broker import errors

AFFILIATION, ENTITLEMENT = "eduperson_scoped_affiliation", "eduperson_entitlement"
CLAIMS = {AFFILIATION: "Scoped affiliations", ENTITLEMENT: "Entitlements"}
"""What people have beyond their groups: attribute and claim, with its title."""
SECRET_DIGEST = "anybinder.secret"  # noqa: S105 -- a name; it holds what tells whether the secret is still the same
PLACEHOLDER = "not-set"
FIELDS = ("client_id", "client_secret", "issuer", "title", "scope", "repositories")


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """One provider behind Keycloak."""

    title: str
    kind: str = "oidc"
    """Keycloak's own name for its kind."""
    issuer: str = ""
    ways: Mapping[str, str] = field(default_factory=dict)
    """The paths below the issuer, until it is asked itself."""
    scope: str = ""
    claims: Mapping[str, str] = field(default_factory=dict)
    """What it says of people, and the attribute that it is kept as."""
    prefix: str = ""
    """The repository host whose private repositories its tokens open; such tokens are kept."""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)

    @property
    def enabled(self) -> bool:
        """Whether it has been registered there. Without that nobody could use it."""
        return bool(self.client_id)

    @property
    def lends(self) -> bool:
        """Whether the tokens it gives people are kept, for them to use here."""
        return bool(self.prefix)

    def wanted(self, alias: str, first_login: str) -> dict[str, Any]:
        """As Keycloak takes it. Its e-mail addresses are believed no more than anybody's."""
        secret = hashlib.sha256(self.client_secret.encode()).hexdigest()[:16]
        told = {
            "clientId": self.client_id or PLACEHOLDER,
            "clientSecret": self.client_secret or PLACEHOLDER,
            **({SECRET_DIGEST: secret} if self.enabled else {}),
            **({"defaultScope": self.scope} if self.scope else {}),
            **(self._protocol() if self.kind == "oidc" else {}),
        }
        return {
            "alias": alias,
            "displayName": self.title,
            "providerId": self.kind,
            "enabled": self.enabled,
            "trustEmail": False,
            "storeToken": self.lends,
            "addReadTokenRoleOnCreate": self.lends,
            "linkOnly": False,
            "firstBrokerLoginFlowAlias": first_login,
            "config": told,
        }

    def _protocol(self) -> dict[str, str]:
        return {
            "issuer": self.issuer,
            **{name: f"{self.issuer}{path}" for name, path in self.ways.items()},
            "clientAuthMethod": "client_secret_post",
            "useJwksUrl": "true",
            "validateSignature": "true",
            "pkceEnabled": "true",
            "pkceMethod": "S256",
        }


def _ways(authorize: str, token: str, userinfo: str, keys: str) -> dict[str, str]:
    return {"authorizationUrl": authorize, "tokenUrl": token, "userInfoUrl": userinfo, "jwksUrl": keys}


KNOWN: Mapping[str, Upstream] = {
    "github": Upstream(title="GitHub", kind="github", scope="read:user user:email", prefix="gh"),
    "gitlab": Upstream(title="GitLab", kind="gitlab", scope="openid read_user read_api read_repository", prefix="gl"),
    "orcid": Upstream(
        title="ORCID",
        issuer="https://orcid.org",
        ways=_ways("/oauth/authorize", "/oauth/token", "/oauth/userinfo", "/oauth/jwks"),
        scope="openid",
    ),
    "cilogon": Upstream(
        title="Your institution (CILogon)",
        issuer="https://cilogon.org",
        ways=_ways("/authorize", "/oauth2/token", "/oauth2/userinfo", "/oauth2/certs"),
        scope="openid email profile org.cilogon.userinfo",
        claims={"affiliation": AFFILIATION, "entitlement": ENTITLEMENT},
    ),
    "egi": Upstream(
        title="EGI Check-in",
        issuer="https://aai.egi.eu/auth/realms/egi",
        ways=_ways(
            "/protocol/openid-connect/auth",
            "/protocol/openid-connect/token",
            "/protocol/openid-connect/userinfo",
            "/protocol/openid-connect/certs",
        ),
        scope="openid email profile entitlements voperson_external_affiliation",
        claims={"voperson_external_affiliation": AFFILIATION, "entitlements": ENTITLEMENT},
    ),
}
OWN_CLAIMS = {AFFILIATION: AFFILIATION, ENTITLEMENT: ENTITLEMENT}
"""What a campus of one's own is expected to say."""


def read(path: Path | None) -> dict[str, Upstream]:
    """The known ones, with what this file says of them and of others. Raises BadRequest, which repeats no secret."""
    if path is None:
        return dict(KNOWN)
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise errors.BadRequest(f"{path} holds secrets and others can read it. Run: chmod 600 {path}")
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise errors.BadRequest(f"{path} cannot be read ({error.strerror}).") from None
    except tomllib.TOMLDecodeError as error:
        raise errors.BadRequest(f"{path} is no TOML: {error}.") from None
    return {**KNOWN, **{alias: _told(alias, table) for alias, table in tables.items()}}


def _told(alias: str, table: object) -> Upstream:
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise errors.BadRequest(f"[{alias}] is a table of {', '.join(FIELDS)}, each a text in quotes.")
    if unknown := sorted(set(table) - set(FIELDS)):
        raise errors.BadRequest(f"[{alias}] sets “{unknown[0]}”, which there is not. There are {', '.join(FIELDS)}.")
    if not table.get("client_id") or not table.get("client_secret"):
        raise errors.BadRequest(f"[{alias}] needs client_id and client_secret, as the provider gave them to you.")
    base = KNOWN.get(alias) or Upstream(title=alias, scope="openid profile email", claims=OWN_CLAIMS)
    if base.kind == "oidc" and not (table.get("issuer") or base.issuer):
        raise errors.BadRequest(f"[{alias}] needs issuer: the https address of your own provider.")
    told = {name: value for name, value in table.items() if name != "repositories"}
    return replace(base, **told, prefix=table.get("repositories", base.prefix))
