"""Signing people in at an OpenID Connect provider that is found by discovery: authorization code with PKCE, `state` and
`nonce`; refresh; log-out from either side.

Authlib asks for tokens and joserfc reads them; what is decided here is whom to ask, for how long, and what is believed.
Nothing here knows of browsers or tables, but for `access_token`, which renews what a sign-in has entrusted to us.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlencode

import structlog
from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.client import OAuth2Client
from joserfc import errors as jose
from joserfc import jws, jwt
from joserfc.jwk import JWKRegistry

from broker import claims as words
from broker import errors, openid_web, settings
from broker.models import SignIn
from broker.openid_web import Unavailable
from broker.service import Service

log = structlog.get_logger(__name__)
ALGORITHMS = ("RS256", "ES256", "PS256", "EdDSA", "Ed25519")
"""Of signatures that are believed: never `none`, nor one that our own client secret could make."""
KEY_TYPES = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP", "Ed25519": "OKP"}
LEEWAY = 300
"""Seconds that a provider's clock may be ahead of ours or behind it."""
KEPT = dt.timedelta(minutes=5)  # how long what a provider says of itself is believed without asking again
REREAD = dt.timedelta(seconds=5)  # an unknown key makes us read its keys again, but no faster than this
LOGGED_OUT = "http://schemas.openid.net/event/backchannel-logout"
HINT_MOST = 4000  # bytes of an ID token that fit into an address
REMEMBERED = 10_000  # log-outs by provider, so that none is taken twice


class Refused(errors.BrokerError):
    """What the identity provider answered cannot be believed, so nobody was signed in. Try again; if it goes on, tell whoever
    runs this broker."""

    status_code, reason = 502, "identity_refused"


class Cancelled(errors.BrokerError):
    """The sign-in was cancelled. Nothing has changed."""

    status_code, reason = 403, "sign_in_cancelled"


class StartAgain(errors.BrokerError):
    """This sign-in was not begun in this browser, took too long, or is over already. Begin it again here."""

    status_code, reason = 400, "sign_in_stale"


class NotRenewable(Refused):
    """There is nothing to renew this sign-in with."""


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
class _Known:
    """What a provider says of itself, and its keys."""

    read_at: dt.datetime
    told: Mapping[str, Any]
    keys: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """What the token endpoint gave. Secrets."""

    access: str = field(repr=False)
    id_token: str = field(repr=False, default="")
    refresh: str = field(repr=False, default="")
    seconds: float = 60


@dataclass(frozen=True, kw_only=True)
class _Grant:
    """What is sealed in a sign-in's row."""

    refresh: str = field(repr=False, default="")
    hint: str = field(repr=False, default="")
    """The ID token, by which the provider knows at log-out whom we mean."""

    @classmethod
    def read(cls, text: str) -> _Grant:
        return cls(**json.loads(text)) if text else cls()

    def text(self) -> str:
        return json.dumps(asdict(self)) if self.refresh or self.hint else ""


def home_of(service: Service) -> str:
    """The address under which browsers know this broker, without a slash at its end."""
    return service.settings.public_url.rstrip("/") or f"http://localhost:{service.settings.port}"


def identity_of(service: Service, issuer: str) -> settings.IdentitySetting | None:
    """The setting of this issuer; None where people no longer sign in there."""
    return next((each for each in service.settings.identities if each.issuer == issuer), None)


class Client:
    """One errand of ours at one identity provider: all its requests together take `seconds` at most, else
    `openid_web.SECONDS`. Made for each errand.

    Every method that asks raises Unavailable and Refused.
    """

    def __init__(self, service: Service, identity: settings.IdentitySetting, *, seconds: float | None = None) -> None:
        self._service, self._identity = service, identity
        self._title = identity.title or identity.name
        self._web = openid_web.Web(self._title, openid_web.SECONDS if seconds is None else seconds)
        self._kept: dict[str, Any] = service.identities.setdefault(identity.issuer, {})

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
        known = self._known()
        address, _ = self._oauth().create_authorization_url(
            known.told["authorization_endpoint"], state=attempt.state, code_verifier=attempt.verifier, **asked
        )
        return str(address)

    def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> Vouched:
        """Who came back, from what the browser brought. Also raises Cancelled and StartAgain."""
        known = self._known()
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

    def _require_issuer(self, known: _Known, said: str | None) -> None:
        """RFC 9207: an answer of another provider's must not be traded at this one."""
        needed = known.told.get("authorization_response_iss_parameter_supported") is True
        if (said is None and needed) or (said is not None and said != self._identity.issuer):
            raise Refused(f"That answer does not come from {self._title}, so nobody was signed in. Begin again here.")

    def _said(self, error: str) -> errors.BrokerError:
        """What its `error` means to the person. Its own description may hold anything, and is not shown."""
        if error == "access_denied":
            return Cancelled(f"You were not signed in: {self._title} says that you cancelled, or may not use this.")
        if error in ("temporarily_unavailable", "server_error"):
            return Unavailable(self._title, "it says so itself")
        known = (
            error if error.isascii() and error.replace("_", "").isalnum() and len(error) < 60 else "an unknown error"
        )
        return Refused(
            f"{self._title} did not sign you in ({known}). Try again; if it goes on, tell whoever runs this broker."
        )

    def _vouched(self, attempt: Attempt, claims: dict[str, Any], tokens: _Tokens) -> Vouched:
        now = self._service.now()
        since = claims.get("auth_time")
        if attempt.max_age is not None and not _is_number(since):
            raise Refused(f"{self._title} does not say when you last signed in there, which is needed here.")
        # By the provider's own clock, so that a difference between the clocks makes nobody's sign-in older.
        age = max(0.0, claims["iat"] - since) if _is_number(since) else 0.0
        if attempt.max_age is not None and age > attempt.max_age + LEEWAY:
            raise Refused(
                f"{self._title} did not ask you to sign in again, which is needed here. Sign out there first."
            )
        return Vouched(
            issuer=self._identity.issuer,
            subject=claims["sub"],
            authenticated_at=now - dt.timedelta(seconds=age),
            sid=_word(claims.get("sid")),
            level=_word(claims.get("acr")),
            grant=_Grant(refresh=tokens.refresh, hint=tokens.id_token).text(),
            claims=self._all_claims(claims, tokens),
        )

    def _all_claims(self, claims: dict[str, Any], tokens: _Tokens) -> dict[str, Any]:
        """With those of the userinfo endpoint, where the ID token lacks what this broker goes by."""
        endpoint = self._known().told.get("userinfo_endpoint")
        if not endpoint or not tokens.access or not words.lacking(self._identity, claims):
            return claims
        headers = {"Authorization": f"Bearer {tokens.access}"}
        more = self._json(openid_web.Asked(what="what it knows of you", url=endpoint, headers=headers))
        if more.get("sub") != claims["sub"]:
            raise Refused(f"{self._title} spoke of two different people, so nobody was signed in. Try again.")
        return {**more, **claims}

    # --- renewing ---------------------------------------------------------------------------------------------------

    def renewed(self, grant: _Grant, subject: str) -> tuple[_Tokens, _Grant, dict[str, Any]]:
        """Fresh tokens, what renews them next, and the claims of today. Raises Refused where it is over there."""
        tokens = self._ask_token("refresh_token", refresh_token=grant.refresh)
        claims: dict[str, Any] = {"sub": subject}
        if tokens.id_token:
            claims = self._id_token(tokens.id_token)
            if claims["sub"] != subject:
                raise Refused
        next_grant = _Grant(refresh=tokens.refresh or grant.refresh, hint=tokens.id_token or grant.hint)
        return tokens, next_grant, self._all_claims(claims, tokens)

    # --- signing out ------------------------------------------------------------------------------------------------

    def end_address(self, grant: str, back: str) -> str | None:
        """Where to send the browser to be signed out there as well; None where there is no such page."""
        endpoint = self._known().told.get("end_session_endpoint")
        if not endpoint:
            return None
        asked = {"client_id": self._identity.client_id, "post_logout_redirect_uri": back}
        hint = _Grant.read(grant).hint
        if hint and len(hint) <= HINT_MOST:
            asked["id_token_hint"] = hint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    def logged_out(self, token: str) -> LoggedOut:
        """Whom this log-out token is about (OpenID Connect Back-Channel Logout 1.0). Each counts once."""
        claims = self._signed(token, types=("logout+jwt", "jwt", ""))
        self._check(claims, jti={"essential": True})
        events = claims.get("events")
        if not isinstance(events, dict) or not isinstance(events.get(LOGGED_OUT), dict) or "nonce" in claims:
            raise Refused("That is no log-out token.")
        sid, subject = _word(claims.get("sid")), _word(claims.get("sub"))
        if not sid and not subject:
            raise Refused("That log-out token names nobody.")
        self._once(claims["jti"])
        return LoggedOut(issuer=self._identity.issuer, sid=sid, subject=subject)

    def _once(self, jti: str) -> None:
        taken: dict[str, None] = self._kept.setdefault("taken", {})
        if jti in taken:
            raise Refused("That log-out token was used before.")
        taken[jti] = None
        while len(taken) > REMEMBERED:
            taken.pop(next(iter(taken)))

    # --- tokens -----------------------------------------------------------------------------------------------------

    def _id_token(self, token: str, nonce: str | None = None) -> dict[str, Any]:
        claims = self._signed(token, types=("jwt", ""))
        wanted: dict[str, Any] = {"sub": {"essential": True}}
        if nonce is not None:
            wanted["nonce"] = {"essential": True, "value": nonce}
        self._check(claims, **wanted)
        return claims

    def _check(self, claims: dict[str, Any], **wanted: Any) -> None:
        """Whom it is from, whom it is for, and when it was made. Raises Refused."""
        now = int(self._service.now().timestamp())
        registry = jwt.JWTClaimsRegistry(
            now=now,
            leeway=LEEWAY,
            iss={"essential": True, "value": self._identity.issuer},
            aud={"essential": True, "value": self._identity.client_id},
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
        if (many or "azp" in claims) and claims.get("azp") != self._identity.client_id:
            raise Refused(f"What {self._title} said was meant for another program, so nobody was signed in.")
        if "sub" in claims and not 0 < len(claims["sub"]) <= 255:
            raise Refused

    def _unfit(self, error: Exception) -> Refused:
        claim = getattr(error, "claim", "") or next(
            (name for name in ("nonce", "iss", "aud", "iat", "nbf", "exp") if name in str(error)), ""
        )
        log.warning("token_refused", provider=self._identity.name, claim=claim, error=type(error).__name__)
        if claim in ("iat", "nbf", "exp"):
            return self._skewed()
        if claim == "nonce":
            return Refused(
                "That answer belongs to another attempt to sign in, so nobody was signed in. Begin again here."
            )
        if claim in ("iss", "aud"):
            return Refused(f"What {self._title} said was not meant for this broker, so nobody was signed in.")
        return Refused()

    def _skewed(self) -> Refused:
        return Refused(
            f"The clock of {self._title} and that of this broker differ by more than five minutes, or the answer is an old "
            "one. Try again; if it goes on, tell whoever runs this broker to set its clock."
        )

    def _signed(self, token: str, types: tuple[str, ...]) -> dict[str, Any]:
        """The claims of this token, once its signature has been checked. Raises Refused."""
        try:
            header = jws.extract_compact(token.encode()).headers()
            kind = str(header.get("typ", "")).lower()
            if header.get("alg") not in ALGORITHMS or kind not in types:
                raise Refused
            return jwt.decode(token, self._key(header), algorithms=list(ALGORITHMS)).claims
        except (jose.JoseError, ValueError) as error:
            log.warning("token_refused", provider=self._identity.name, error=type(error).__name__)
            raise Refused(
                f"What {self._title} sent is not signed by it, so nobody was signed in. Try again; if it goes on, tell "
                "whoever runs this broker."
            ) from None

    def _key(self, header: Mapping[str, Any]) -> Any:
        """The key that this header names; the provider's keys are read again, once, where it is not among them."""
        known = self._with_keys()
        if found := _fitting(known.keys, header):
            return found
        if self._service.now() - known.read_at >= REREAD and (found := _fitting(self._with_keys(True).keys, header)):
            return found
        raise jose.InvalidKeyIdError("unknown key")

    # --- what the provider says of itself ---------------------------------------------------------------------------

    def _known(self) -> _Known:
        found: _Known | None = self._kept.get("discovery")
        if found is None or self._service.now() - found.read_at > KEPT:
            issuer = self._identity.issuer
            url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            told = self._json(openid_web.Asked(what="its description of itself", url=url))
            if told.get("issuer") != issuer:
                raise Refused(
                    f"{self._title} calls itself by another address than the one in this broker's settings, so nobody is "
                    "signed in with it. Whoever runs this broker must set `issuer` exactly as it says it."
                )
            openid_web.require_safe(told, issuer, self._title)
            found = _Known(read_at=self._service.now(), told=told)
            self._kept["discovery"] = found
        return found

    def _with_keys(self, again: bool = False) -> _Known:
        found: _Known | None = self._kept.get("keys")
        if found is None or again or self._service.now() - found.read_at > KEPT:
            told = self._json(openid_web.Asked(what="its keys", url=self._known().told["jwks_uri"]))
            found = _Known(read_at=self._service.now(), told={}, keys=tuple(_keys(told.get("keys"))))
            self._kept["keys"] = found
        return found

    def _json(self, asked: openid_web.Asked) -> dict[str, Any]:
        answer = self._web.ask(asked)
        try:
            told = json.loads(answer.content) if answer.status_code == 200 else None
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise Unavailable(self._title, asked.what)
        return told

    def _oauth(self) -> OAuth2Client:
        identity, told = self._identity, self._known().told
        secret = identity.client_secret.get_secret_value()
        offered = told.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        posted = "client_secret_basic" not in offered and "client_secret_post" in offered
        method = "none" if not secret else "client_secret_post" if posted else "client_secret_basic"
        scopes = " ".join(dict.fromkeys(["openid", *identity.scopes.split()]))
        return OAuth2Client(
            self._web,
            client_id=identity.client_id,
            client_secret=secret or None,
            token_endpoint_auth_method=method,
            scope=scopes,
            redirect_uri=f"{home_of(self._service)}/login/{identity.name}/callback",
            code_challenge_method="S256",
        )

    def _ask_token(self, verb: str, **asked: Any) -> _Tokens:
        oauth, url = self._oauth(), self._known().told["token_endpoint"]
        if verb == "refresh_token":
            oauth.scope = None  # the same as before
        try:
            told = getattr(oauth, verb)(url, **asked)
        except OAuth2Error as error:
            log.warning("tokens_refused", provider=self._identity.name, error=str(error.error)[:60])
            raise Refused(
                f"{self._title} did not accept the answer it gave your browser: it may be used up or too old. Begin again; "
                "if it goes on, tell whoever runs this broker."
            ) from None
        except (openid_web.httpx.HTTPError, ValueError):
            raise Unavailable(self._title, "its tokens") from None
        access, seconds = told.get("access_token"), told.get("expires_in")
        return _Tokens(
            access=_text(access),
            id_token=_text(told.get("id_token")),
            refresh=_text(told.get("refresh_token")),
            seconds=float(seconds) if _is_number(seconds) else 60.0,
        )


# --- what a sign-in has entrusted to us -----------------------------------------------------------------------------


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
        client = Client(service, identity, seconds=openid_web.RENEWAL_SECONDS)
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


def granted(service: Service, sign_in_id: str) -> _Grant:
    """What renews this sign-in. Raises NotRenewable, Unsealable."""
    with service.db.reading() as session:
        row = session.get(SignIn, sign_in_id)
    grant = _Grant.read(service.sealer.open(row.grant, about(row.id))) if row and row.grant else _Grant()
    if not grant.refresh:
        raise NotRenewable
    return grant


def _keep(service: Service, sign_in_id: str, grant: _Grant) -> None:
    sealed = service.sealer.seal(grant.text(), about(sign_in_id))
    with service.db.transaction() as session:
        row = session.get(SignIn, sign_in_id)
        if row is not None:
            row.grant = sealed


def about(sign_in_id: str) -> str:
    """Where the grant of a sign-in is sealed for."""
    return f"sign_ins/{sign_in_id}"


# --- small things ---------------------------------------------------------------------------------------------------


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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _word(value: Any) -> str:
    """A name as a column holds it; empty where it is none."""
    return value if isinstance(value, str) and len(value) <= 255 else ""
