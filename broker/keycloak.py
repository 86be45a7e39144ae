"""`anybinder keycloak init`: a realm of Keycloak as the hub of all ways to sign in, made and kept as this broker needs it.

It may be run again: what is as it should be is left alone, what an operator has added stays, and everything that was
changed is told. Nothing here runs in a serving broker.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from keycloak import KeycloakAdmin
from keycloak.exceptions import (
    KeycloakAuthenticationError,
    KeycloakConnectionError,
    KeycloakError,
    KeycloakGetError,
)

from broker import addresses, errors
from broker.keycloak_upstreams import CLAIMS, SECRET_DIGEST, Upstream

FIRST_LOGIN = "anybinder first login"
SCOPE = "anybinder"
SECONDS = 30
REALM = {
    "enabled": True,
    "sslRequired": "external",
    "registrationAllowed": False,
    "rememberMe": False,
    "bruteForceProtected": True,
    # An e-mail address is no proof of anything: neither a way in nor what two accounts are told to be one by.
    "loginWithEmailAllowed": False,
    "duplicateEmailsAllowed": True,
}
Found = TypeVar("Found")


class Refused(errors.BrokerError):
    """Keycloak refuses. Check its address, the administrator's name and password, and what that administrator may do."""

    status_code, reason = 502, "keycloak"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be there afterwards."""

    realm: str
    client: str
    broker: str
    """The broker's own address, as browsers know it."""
    name: str = "keycloak"
    """What the broker calls this identity provider, in its addresses."""
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What there is now, and what was changed for that: a sentence each, none the second time."""

    changes: tuple[str, ...]
    issuer: str
    client_secret: str = field(repr=False)
    linked: Mapping[str, str]
    """By prefix of a repository host: the alias under which people's tokens for it are kept."""


def sign_in(server: str, user: str, password: str, realm: str) -> KeycloakAdmin:
    """As an administrator of the whole Keycloak. Asks it nothing yet. Raises BadRequest for an address in clear text."""
    at = urlsplit(server)
    if not at.netloc or not addresses.takes_secrets(at):
        raise errors.BadRequest("Keycloak's address begins with https://: a password is sent there.")
    return KeycloakAdmin(
        server_url=server.rstrip("/"),
        username=user,
        password=password,
        realm_name=realm,
        user_realm_name="master",
        timeout=SECONDS,
    )


def init(admin: KeycloakAdmin, wanted: Wanted, *, dry_run: bool = False) -> Made:
    """Make it so. Asks Keycloak some thirty times, a second or two. May be repeated. Raises Refused, with what was not done."""
    try:
        return _Run(admin, wanted, dry_run=dry_run).init()
    except KeycloakConnectionError:
        raise Refused("Keycloak does not answer at this address. Check that it runs and can be reached.") from None
    except KeycloakError as error:
        if isinstance(error, KeycloakAuthenticationError) or "invalid_grant" in _said(error):
            raise Refused("Keycloak does not know this administrator, or the password is wrong.") from None
        raise Refused(f"Keycloak refused a step with status {error.response_code}: {_said(error)}.") from None


def as_toml(wanted: Wanted, made: Made, *, secret: bool) -> str:
    """The settings that make the broker sign people in there, for `config.toml`."""
    shown = f'client_secret = "{made.client_secret}"' if secret else "# client_secret: repeat this with --into FILE"
    linked = ", ".join(f'{prefix} = "{alias}"' for prefix, alias in sorted(made.linked.items()))
    lines = [
        "[[identities]]",
        f'name = "{wanted.name}"',
        f'issuer = "{made.issuer}"',
        f'client_id = "{wanted.client}"',
        shown,
        *([f"linked = {{ {linked} }}"] if linked else []),
    ]
    return "\n".join(lines)


class _Run:
    """One run over one realm."""

    def __init__(self, admin: KeycloakAdmin, wanted: Wanted, *, dry_run: bool) -> None:
        self._admin, self._wanted, self._dry = admin, wanted, dry_run
        self._changes: list[str] = []
        self._missing = False
        """The realm is not there and will not be made: nothing below it can be looked up."""

    def init(self) -> Made:
        self._realm()
        self._profile()
        scope = self._scope()
        client = self._client(scope)
        self._reading_of_stored_tokens(client)
        self._first_login()
        for alias, upstream in self._wanted.upstreams.items():
            self._upstream(alias, upstream)
        return Made(
            changes=tuple(self._changes),
            issuer=self._issuer(),
            client_secret=self._look(lambda: str(self._admin.get_client_secrets(client).get("value", "")), ""),
            linked=self._linked(),
        )

    # --- the realm and what people in it have ---------------------------------------------------------------------

    def _realm(self) -> None:
        """An existing realm keeps its settings: others use it too."""
        name = self._wanted.realm
        try:
            self._admin.get_realm(name)
        except KeycloakGetError as error:
            if error.response_code != 404:
                raise
            self._missing = self._dry
            self._change(f"made the realm {name}", lambda: self._admin.create_realm({"realm": name, **REALM}))

    def _profile(self) -> None:
        """Attributes that only administrators and identity providers write: people must not make themselves members."""
        profile = self._look(self._admin.get_realm_users_profile, {"attributes": []})
        known = {each["name"]: each for each in profile["attributes"]}
        for name, title in CLAIMS.items():
            attribute = {
                "name": name,
                "displayName": title,
                "multivalued": True,
                "permissions": {"view": ["admin", "user"], "edit": ["admin"]},
            }
            found = known.get(name)
            if found is None:
                profile["attributes"].append(attribute)
                self._change(f"people can have the attribute {name}, which administrators write", lambda: None)
            elif found.get("permissions", {}).get("edit") != ["admin"] or not found.get("multivalued"):
                found |= attribute
                self._change(f"only administrators write the attribute {name}", lambda: None)
        if any("the attribute" in change for change in self._changes):
            self._do(lambda: self._admin.update_realm_users_profile(profile))

    # --- what the broker is told ------------------------------------------------------------------------------------

    def _scope(self) -> str:
        """The client scope with what the broker reads; its id."""
        wanted = {
            "name": SCOPE,
            "description": "Groups, entitlements and affiliations, for Anybinder",
            "protocol": "openid-connect",
            "attributes": {"include.in.token.scope": "false", "display.on.consent.screen": "false"},
        }
        scopes = self._look(self._admin.get_client_scopes, [])
        found = next((scope for scope in scopes if scope["name"] == SCOPE), None)
        if found is None:
            self._change(f"made the client scope {SCOPE}", lambda: self._admin.create_client_scope(wanted))
            scopes = self._look(self._admin.get_client_scopes, [])
            found = next((scope for scope in scopes if scope["name"] == SCOPE), {"id": ""})
        self._mappers(str(found["id"]))
        return str(found["id"])

    def _mappers(self, scope: str) -> None:
        known = {each["name"]: each for each in self._look(lambda: self._mappers_of(scope), [])}
        for wanted in (_groups_mapper(), *(_attribute_mapper(name) for name in CLAIMS)):
            found = known.get(str(wanted["name"]))
            if found is None:
                add = _later(self._admin.add_mapper_to_client_scope, scope, wanted)
                self._change(f"tokens for the broker tell {wanted['name']}", add)
            elif fresh := _overlaid(found, wanted):
                update = _later(self._admin.update_mapper_in_client_scope, scope, found["id"], fresh)
                self._change(f"tokens for the broker tell {wanted['name']} ({_differing(found, wanted)})", update)

    def _mappers_of(self, scope: str) -> list[dict[str, Any]]:
        return list(self._admin.get_mappers_from_client_scope(scope)) if scope else []

    # --- the broker as a client -------------------------------------------------------------------------------------

    def _client(self, scope: str) -> str:
        """The client as which the broker signs people in; its id."""
        wanted = self._client_wanted()
        name = self._wanted.client
        found = self._client_found()
        if not found:
            self._change(f"made the client {name}", lambda: self._admin.create_client(wanted))
            found = self._client_found()
        elif fresh := _overlaid(found, wanted):
            update = _later(self._admin.update_client, found["id"], fresh)
            self._change(f"the client {name}: {_differing(found, wanted)}", update)
        client = str(found.get("id", ""))
        defaults = self._look(lambda: self._admin.get_client_default_client_scopes(client), []) if client else []
        if scope not in [each["id"] for each in defaults] or not scope:
            add = _later(self._admin.add_client_default_client_scope, client, scope, {})
            self._change(f"the client {name} is always told what the scope {SCOPE} has", add)
        optional = self._look(lambda: self._admin.get_client_optional_client_scopes(client), []) if client else []
        for each in optional:
            if each["name"] == "offline_access":
                remove = _later(self._admin.delete_client_optional_client_scope, client, each["id"])
                self._change(f"the client {name} gets no tokens that outlive a sign-in", remove)
        return client

    def _client_found(self) -> dict[str, Any]:
        clients = self._look(self._admin.get_clients, [])
        return next((each for each in clients if each["clientId"] == self._wanted.client), {})

    def _client_wanted(self) -> dict[str, Any]:
        way = f"{self._wanted.broker}/login/{self._wanted.name}"
        lending = sorted(alias for alias, upstream in self._wanted.upstreams.items() if upstream.lends)
        return {
            "clientId": self._wanted.client,
            "name": "Anybinder",
            "protocol": "openid-connect",
            "enabled": True,
            "publicClient": False,
            "clientAuthenticatorType": "client-secret",
            "standardFlowEnabled": True,
            "implicitFlowEnabled": False,
            "directAccessGrantsEnabled": False,
            "serviceAccountsEnabled": False,
            "fullScopeAllowed": False,
            "frontchannelLogout": False,
            "baseUrl": f"{self._wanted.broker}/",
            "redirectUris": [f"{way}/callback"],
            "attributes": {
                "pkce.code.challenge.method": "S256",
                "backchannel.logout.url": f"{way}/backchannel",
                "backchannel.logout.session.required": "true",
                "post.logout.redirect.uris": f"{way}/loggedout",
                "oauth2.device.authorization.grant.enabled": "false",
                # for Keycloak's second interface to stored tokens, where that is switched on
                "external.token.enabled": "true",
                "external.token.idp": "##".join(lending),
            },
        }

    def _reading_of_stored_tokens(self, client: str) -> None:
        """People may read what other providers gave them, and the broker's tokens may carry that right.

        That is for Keycloak's first interface to stored tokens; what the second wants is in the client's attributes.
        """
        owner = self._look(lambda: self._admin.get_client_id("broker"), "")
        role = self._look(lambda: self._admin.get_client_role(owner, "read-token"), {})
        if not role and not self._missing:
            return  # a Keycloak with the second interface only, which asks for no role
        defaults = self._look(
            lambda: self._admin.get_role_composites_by_id(self._admin.get_default_realm_role_id()), []
        )
        if role.get("id") not in [each["id"] for each in defaults] or not role.get("id"):
            add = _later(self._admin.add_realm_default_roles, [role])
            self._change("people may read the tokens that other providers gave them", add)
        known = self._look(lambda: self._admin.get_client_roles_of_client_scope(client, owner), []) if client else []
        if "read-token" not in [each["name"] for each in known]:
            assign = _later(self._admin.assign_client_roles_to_client_scope, client, owner, [role])
            self._change(f"the client {self._wanted.client} may read them for the person who is signed in", assign)

    # --- other providers --------------------------------------------------------------------------------------------

    def _first_login(self) -> None:
        """Keycloak's own flow, without the step that takes an e-mail address for proof that two accounts are one person's."""
        flows = self._look(self._admin.get_authentication_flows, [])
        if FIRST_LOGIN not in [flow["alias"] for flow in flows]:
            make = _later(self._admin.copy_authentication_flow, {"newName": FIRST_LOGIN}, "first broker login")
            self._change(f"made the flow “{FIRST_LOGIN}”", make)
        for step in self._look(lambda: self._admin.get_authentication_flow_executions(FIRST_LOGIN), []):
            if step.get("providerId") == "idp-email-verification" and step["requirement"] != "DISABLED":
                fresh = {**step, "requirement": "DISABLED"}
                update = _later(self._admin.update_authentication_flow_executions, fresh, FIRST_LOGIN)
                self._change("no account is linked because of its e-mail address", update)

    def _upstream(self, alias: str, upstream: Upstream) -> None:
        known = {each["alias"]: each for each in self._look(self._admin.get_idps, [])}
        found = known.get(alias)
        wanted = upstream.wanted(alias, FIRST_LOGIN)
        if found is None:
            state = "" if upstream.enabled else ", switched off until it has a client id and secret"
            make = _later(self._admin.create_idp, self._discovered(upstream, wanted))
            self._change(f"made the identity provider {alias}{state}", make)
        else:
            kept = {"firstBrokerLoginFlowAlias": FIRST_LOGIN, "trustEmail": False}
            told = _comparable(upstream, wanted) if upstream.enabled else kept
            if fresh := _overlaid(found, told):
                if upstream.enabled:
                    fresh = self._discovered(upstream, _revealed(fresh, wanted))
                update = _later(self._admin.update_idp, alias, fresh)
                self._change(f"the identity provider {alias}: {_differing(found, told)}", update)
        self._claims_of(alias, upstream)

    def _discovered(self, upstream: Upstream, wanted: dict[str, Any]) -> dict[str, Any]:
        """With the addresses that the provider itself publishes, where it is to be used: ours may be out of date."""
        if not (upstream.enabled and upstream.issuer) or self._dry:
            return wanted
        told = {
            "fromUrl": f"{upstream.issuer}/.well-known/openid-configuration",
            "providerId": "oidc",
            "trustEmail": False,
        }
        path = f"admin/realms/{self._wanted.realm}/identity-provider/import-config"
        answer = self._admin.connection.raw_post(path, data=json.dumps(told))
        if answer.status_code != 200:
            raise Refused(f"Keycloak cannot read what {upstream.issuer} says of itself. Check its address.")
        return {**wanted, "config": {**wanted["config"], **answer.json()}}

    def _claims_of(self, alias: str, upstream: Upstream) -> None:
        found = self._look(lambda: self._admin.get_idp_mappers(alias), [])
        known = {each["name"] for each in found}
        for claim, attribute in upstream.claims.items():
            name = f"{claim} to {attribute}"
            if name in known:
                continue
            mapper = {
                "name": name,
                "identityProviderAlias": alias,
                "identityProviderMapper": "oidc-user-attribute-idp-mapper",
                "config": {"claim": claim, "user.attribute": attribute, "syncMode": "FORCE"},
            }
            add = _later(self._admin.add_mapper_to_idp, alias, mapper)
            self._change(f"what {alias} says as {claim} is kept as {attribute}", add)

    def _linked(self) -> dict[str, str]:
        """The repository hosts for which people's own tokens are kept here, as it stands now."""
        kept = {each["alias"]: each for each in self._look(self._admin.get_idps, [])}
        return {
            upstream.prefix: alias
            for alias, upstream in self._wanted.upstreams.items()
            if upstream.prefix and kept.get(alias, {}).get("enabled") and kept[alias].get("storeToken")
        }

    # --- within -----------------------------------------------------------------------------------------------------

    def _issuer(self) -> str:
        """What this realm's tokens say: the address that Keycloak was set up with, which may be another than ours."""
        path = f"realms/{self._wanted.realm}/.well-known/openid-configuration"
        guess = f"{str(self._admin.connection.base_url).rstrip('/')}/realms/{self._wanted.realm}"
        return str(self._look(lambda: self._admin.connection.raw_get(path).json(), {}).get("issuer", guess))

    def _look(self, ask: Callable[[], Found], nothing: Found) -> Found:
        """What Keycloak has; nothing where it has no such thing, which in a dry run may be for want of the realm."""
        if self._missing:
            return nothing
        try:
            return ask()
        except KeycloakGetError as error:
            if error.response_code == 404:
                return nothing
            raise

    def _change(self, sentence: str, act: Callable[[], object]) -> None:
        self._do(act)
        self._changes.append(sentence)

    def _do(self, act: Callable[[], object]) -> None:
        if not self._dry:
            act()


def _later(act: Callable[..., object], *words: object) -> Callable[[], object]:
    return lambda: act(*words)


def _groups_mapper() -> dict[str, Any]:
    """By their paths: two groups of one name below different parents are not the same."""
    told = {"claim.name": "groups", "full.path": "true"}
    return _mapper("groups", "oidc-group-membership-mapper", told)


def _attribute_mapper(name: str) -> dict[str, Any]:
    told = {"claim.name": name, "user.attribute": name, "multivalued": "true", "jsonType.label": "String"}
    return _mapper(name, "oidc-usermodel-attribute-mapper", told)


def _mapper(name: str, kind: str, told: Mapping[str, str]) -> dict[str, Any]:
    into = {"id.token.claim": "true", "access.token.claim": "false", "userinfo.token.claim": "true"}
    return {"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": {**told, **into}}


def _overlaid(found: dict[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was found with what is wanted laid over it; None where that changes nothing. Lists keep what others added."""
    fresh = _over(found, wanted)
    return None if fresh == found else fresh


def _over(found: Any, wanted: Any) -> Any:
    if isinstance(wanted, Mapping):
        before = found if isinstance(found, Mapping) else {}
        return {**before, **{key: _over(before.get(key), value) for key, value in wanted.items()}}
    if isinstance(wanted, list) and isinstance(found, list):
        return [*found, *(each for each in wanted if each not in found)]
    if wanted == "" and found is None:  # Keycloak forgets what is empty
        return found
    return wanted


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The names of what is changed, for the person to read. Values stay out: one of them may be a secret."""
    names = []
    for key, value in wanted.items():
        before = found.get(key)
        if isinstance(value, Mapping):
            inner = before if isinstance(before, Mapping) else {}
            names += [name for name in value if _over(inner.get(name), value[name]) != inner.get(name)]
        elif _over(before, value) != before:
            names.append(key)
    return ", ".join("the secret" if name == SECRET_DIGEST else name for name in names)


def _comparable(upstream: Upstream, wanted: dict[str, Any]) -> dict[str, Any]:
    """Without the secret, which Keycloak never shows, and without the addresses that the provider has told by itself."""
    unseen = {"clientSecret", *upstream.ways}
    return {**wanted, "config": {key: value for key, value in wanted["config"].items() if key not in unseen}}


def _revealed(fresh: dict[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {**fresh, "config": {**fresh["config"], **wanted["config"]}}


def _said(error: KeycloakError) -> str:
    """Keycloak's own words, on one line."""
    said = error.error_message
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return " ".join(text.split())[:300].rstrip(".")
