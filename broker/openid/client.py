"""The errands that a browser or a sign-in has at an identity provider: signing in, renewing, signing out.

Nothing here knows of browsers or tables.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
import structlog
from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.client import OAuth2Client

from broker import errors, settings
from broker.openid import asking
from broker.openid import claims as words
from broker.openid import provider as providers
from broker.openid.refusals import Cancelled, Refused, StartAgain, Unavailable
from broker.service import Service
from providers.sentences import say

log = structlog.get_logger(__name__)
LOGGED_OUT = "http://schemas.openid.net/event/backchannel-logout"
HINT_MOST = 4000  # bytes of an ID token that fit into an address
REMEMBERED = 10_000  # log-outs by provider, so that none is taken twice


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One sign-in under way. It stays in the browser that began it, sealed."""

    provider: str
    state: str
    nonce: str
    verifier: str
    issued: int
    next: str = "/"
    link: str = ""
    """The sign-in that another login is to be added to; empty for a sign-in."""
    max_age: int | None = None
    level: str = ""

    def __repr__(self) -> str:
        return f"Attempt({self.provider!r})"

    def text(self) -> str:
        """As it is sealed. A secret."""
        return json.dumps(asdict(self))


def attempt(provider: str, now: dt.datetime, **wanted: Any) -> Attempt:
    """A new one, with secrets of its own. `wanted`: next, link, max_age, level."""
    fresh = {word: secrets.token_urlsafe(32) for word in ("state", "nonce", "verifier")}
    return Attempt(provider=provider, issued=int(now.timestamp()), **fresh, **wanted)


@dataclass(frozen=True, kw_only=True)
class Vouched:
    """What an identity provider has said, checked: whose account it is, since when, and how it may be renewed."""

    issuer: str
    subject: str
    authenticated_at: dt.datetime
    sid: str = ""
    level: str = ""
    grant: str = ""
    """What renews it: secret."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """All that was said of the person."""

    def __repr__(self) -> str:
        return f"Vouched({self.issuer!r}, {self.subject!r})"


@dataclass(frozen=True, kw_only=True)
class LoggedOut:
    """Whom a provider has logged out: one session of theirs, or, where it names none, all of the person's."""

    issuer: str
    sid: str
    subject: str


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What the token endpoint gave. Secrets."""

    access: str = field(repr=False)
    id_token: str = field(repr=False, default="")
    refresh: str = field(repr=False, default="")
    seconds: float = 60


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What is sealed in a sign-in's row."""

    refresh: str = field(repr=False, default="")
    hint: str = field(repr=False, default="")
    """The ID token, by which the provider knows at log-out whom we mean."""

    @classmethod
    def read(cls, text: str) -> Grant:
        """As it was sealed; an empty one of nothing."""
        return cls(**json.loads(text)) if text else cls()

    def text(self) -> str:
        """To be sealed. A secret; empty where there is nothing."""
        return json.dumps(asdict(self)) if self.refresh or self.hint else ""


def identity_of(service: Service, issuer: str) -> settings.IdentitySetting | None:
    """The setting of this issuer; None where people no longer sign in there."""
    return next((each for each in service.settings.identities if each.issuer == issuer), None)


class Client:
    """One errand of ours at one identity provider: all its requests together take `seconds` at most, else
    `asking.SECONDS`. Made for each errand.

    Every method that asks raises Unavailable and Refused.
    """

    def __init__(self, service: Service, identity: settings.IdentitySetting, *, seconds: float | None = None) -> None:
        self._service, self._identity = service, identity
        self._provider = providers.Provider(service, identity, seconds)
        self._title = self._provider.title

    # --- signing in -------------------------------------------------------------------------------------------------

    def address(self, attempt: Attempt) -> str:
        """Where to send the browser."""
        asked: dict[str, Any] = {"nonce": attempt.nonce}
        if attempt.max_age is not None:
            asked["max_age"] = attempt.max_age
        if attempt.level:
            asked["acr_values"] = attempt.level
        if attempt.link:
            asked["prompt"] = "login"  # a login is added by whoever can sign in with it, not by whoever once has
        known = self._provider.known()
        address, _ = self._oauth().create_authorization_url(
            known.told["authorization_endpoint"], state=attempt.state, code_verifier=attempt.verifier, **asked
        )
        return str(address)

    def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> Vouched:
        """Who came back, from what the browser brought. Also raises Cancelled and StartAgain."""
        known = self._provider.known()
        self._require_issuer(known, answer.get("iss"))
        if error := answer.get("error"):
            raise self._said(error)
        if not answer.get("code"):
            raise StartAgain
        tokens = self._ask_token(
            "fetch_token", grant_type="authorization_code", code=answer["code"], code_verifier=attempt.verifier
        )
        claims = self._id_token(tokens.id_token, nonce=attempt.nonce)
        return self._vouched(attempt, claims, tokens)

    def _require_issuer(self, known: providers.Known, said: str | None) -> None:
        """RFC 9207: an answer of another provider's must not be traded at this one."""
        needed = known.told.get("authorization_response_iss_parameter_supported") is True
        if (said is None and needed) or (said is not None and said != self._identity.issuer):
            raise Refused(
                say(
                    "That answer does not come from %(title)s, so nobody was signed in. Begin again here.",
                    title=self._title,
                )
            )

    def _said(self, error: str) -> errors.BrokerError:
        """What its `error` means to the person. Its own description may hold anything, and is not shown."""
        if error == "access_denied":
            return Cancelled(f"{self._title} says that you cancelled, or may not use this. Nothing has changed here.")
        if error in ("temporarily_unavailable", "server_error"):
            return Unavailable(self._title, "it says so itself")
        known = (
            error if error.isascii() and error.replace("_", "").isalnum() and len(error) < 60 else "an unknown error"
        )
        return Refused(
            say(
                "%(title)s did not sign you in (%(known)s). Try again; if it goes on, tell whoever runs this broker.",
                title=self._title,
                known=known,
            )
        )

    def _vouched(self, attempt: Attempt, claims: dict[str, Any], tokens: Tokens) -> Vouched:
        now = self._service.now()
        since = claims.get("auth_time")
        if attempt.max_age is not None and not providers.is_number(since):
            raise Refused(
                say("%(title)s does not say when you last signed in there, which is needed here.", title=self._title)
            )
        # By the provider's own clock, so that a difference between the clocks makes nobody's sign-in older.
        age = max(0.0, claims["iat"] - since) if providers.is_number(since) else 0.0
        if attempt.max_age is not None and age > attempt.max_age + providers.LEEWAY:
            raise Refused(
                say(
                    "%(title)s did not ask you to sign in again, which is needed here. Sign out there first.",
                    title=self._title,
                )
            )
        return Vouched(
            issuer=self._identity.issuer,
            subject=claims["sub"],
            authenticated_at=now - dt.timedelta(seconds=age),
            sid=_word(claims.get("sid")),
            level=_word(claims.get("acr")),
            grant=Grant(refresh=tokens.refresh, hint=tokens.id_token).text(),
            claims=self._all_claims(claims, tokens),
        )

    def _all_claims(self, claims: dict[str, Any], tokens: Tokens) -> dict[str, Any]:
        """With those of the userinfo endpoint, where the ID token lacks what this broker goes by."""
        endpoint = self._provider.known().told.get("userinfo_endpoint")
        if not endpoint or not tokens.access or not words.lacking(self._identity, claims):
            return claims
        headers = {"Authorization": f"Bearer {tokens.access}"}
        more = self._provider.json(asking.Asked(what="what it knows of you", url=endpoint, headers=headers))
        if more.get("sub") != claims["sub"]:
            raise Refused(
                say("%(title)s spoke of two different people, so nobody was signed in. Try again.", title=self._title)
            )
        return {**more, **claims}

    # --- renewing ---------------------------------------------------------------------------------------------------

    def renewed(self, grant: Grant, subject: str) -> tuple[Tokens, Grant, dict[str, Any]]:
        """Fresh tokens, what renews them next, and the claims of today. Raises Refused where it is over there."""
        tokens = self._ask_token("refresh_token", refresh_token=grant.refresh)
        claims: dict[str, Any] = {"sub": subject}
        if tokens.id_token:
            claims = self._id_token(tokens.id_token)
            if claims["sub"] != subject:
                raise Refused
        next_grant = Grant(refresh=tokens.refresh or grant.refresh, hint=tokens.id_token or grant.hint)
        return tokens, next_grant, self._all_claims(claims, tokens)

    # --- signing out ------------------------------------------------------------------------------------------------

    def end_address(self, grant: str, back: str) -> str | None:
        """Where to send the browser to be signed out there as well; None where there is no such page."""
        endpoint = self._provider.known().told.get("end_session_endpoint")
        if not endpoint:
            return None
        asked = {"client_id": self._identity.client_id, "post_logout_redirect_uri": back}
        hint = Grant.read(grant).hint
        if hint and len(hint) <= HINT_MOST:
            asked["id_token_hint"] = hint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    def logged_out(self, token: str) -> LoggedOut:
        """Whom this log-out token is about (OpenID Connect Back-Channel Logout 1.0). Each counts once."""
        claims = self._provider.signed(token, types=("logout+jwt", "jwt", ""))
        self._provider.check(claims, jti={"essential": True})
        events = claims.get("events")
        if not isinstance(events, dict) or not isinstance(events.get(LOGGED_OUT), dict) or "nonce" in claims:
            raise Refused(say("That is no log-out token."))
        sid, subject = _word(claims.get("sid")), _word(claims.get("sub"))
        if not sid and not subject:
            raise Refused(say("That log-out token names nobody."))
        self._once(claims["jti"])
        return LoggedOut(issuer=self._identity.issuer, sid=sid, subject=subject)

    def _once(self, jti: str) -> None:
        taken: dict[str, None] = self._provider.kept.setdefault("taken", {})
        if jti in taken:
            raise Refused(say("That log-out token was used before."))
        taken[jti] = None
        while len(taken) > REMEMBERED:
            taken.pop(next(iter(taken)))

    # --- tokens -----------------------------------------------------------------------------------------------------

    def _id_token(self, token: str, nonce: str | None = None) -> dict[str, Any]:
        claims = self._provider.signed(token, types=("jwt", ""))
        wanted: dict[str, Any] = {"sub": {"essential": True}}
        if nonce is not None:
            wanted["nonce"] = {"essential": True, "value": nonce}
        self._provider.check(claims, **wanted)
        return claims

    def _oauth(self) -> OAuth2Client:
        identity, told = self._identity, self._provider.known().told
        secret = identity.client_secret.get_secret_value()
        offered = told.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        posted = "client_secret_basic" not in offered and "client_secret_post" in offered
        method = "none" if not secret else "client_secret_post" if posted else "client_secret_basic"
        scopes = " ".join(dict.fromkeys(["openid", *identity.scopes.split()]))
        return OAuth2Client(
            self._provider.web,
            client_id=identity.client_id,
            client_secret=secret or None,
            token_endpoint_auth_method=method,
            scope=scopes,
            redirect_uri=f"{self._service.settings.own_address}/login/{identity.name}/callback",
            code_challenge_method="S256",
        )

    def _ask_token(self, verb: str, **asked: Any) -> Tokens:
        oauth, url = self._oauth(), self._provider.known().told["token_endpoint"]
        if verb == "refresh_token":
            oauth.scope = None  # the same as before
        try:
            told = getattr(oauth, verb)(url, **asked)
        except OAuth2Error as error:
            log.warning("tokens_refused", provider=self._identity.name, error=str(error.error)[:60])
            if error.error in ("invalid_client", "unauthorized_client"):  # the latter is Keycloak's for a wrong secret
                raise Refused(
                    say(
                        "%(title)s does not take this broker's own client id and secret, so nobody is signed in with "
                        "it. Whoever runs this broker must set `client_id` and `client_secret` as it has them.",
                        title=self._title,
                    )
                ) from None
            raise Refused(
                say(
                    "%(title)s did not accept the answer it gave your browser: it may be used up or too old. "
                    "Begin again; if it goes on, tell whoever runs this broker.",
                    title=self._title,
                )
            ) from None
        except (httpx.HTTPError, ValueError):
            raise Unavailable(self._title, "its tokens") from None
        access, seconds = told.get("access_token"), told.get("expires_in")
        return Tokens(
            access=_text(access),
            id_token=_text(told.get("id_token")),
            refresh=_text(told.get("refresh_token")),
            seconds=float(seconds) if providers.is_number(seconds) else 60.0,
        )


# --- small things ---------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _word(value: Any) -> str:
    """A name as a column holds it; empty where it is none."""
    return value if isinstance(value, str) and len(value) <= 255 else ""
