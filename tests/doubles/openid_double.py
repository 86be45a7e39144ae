"""An honest little OpenID provider: real HTTP on a loopback port, signed tokens, PKCE really checked, codes good once.

    with OpenIdDouble() as campus:                                   # name="campus", title="Campus"
        bench = make_bench(identities=(campus.setting(),))           # one more field of Settings
        client = TestClient(app.create(bench.at), base_url="http://localhost:8000", follow_redirects=False)
        campus.sign_in(client)                                       # as campus.who, "ada"; returns the callback's answer
        campus.sign_in(client, "bob", path="/login/campus?next=/sessions")

The desk's clock stands still, so tell it: `OpenIdDouble(now=clock)`. `client` is anything with httpx's `get` that keeps
cookies. A real browser needs no help: /authorize signs in as `campus.who` at once, or asks who one is if `campus.asks`.
`campus.link(client, "bob")` adds a second login as the account page does.

Public: `.issuer`, `.client_id`, `.people` (by user name: the claims said of them, `sub` among them), `.who`.
What it saw: `.requests` (method, path, headers), `.tokens` (everything secret it ever handed out), `.asked` (parameters of
each authorization request). Who is signed in there: `.sessions` (sid → user name).

Misbehaviour on demand:
    campus.faults["jwks"] = "down" | "error" | "hang" | "drip" | "garbage" | "huge" | "redirect"
        at: discovery, authorize, token, userinfo, jwks, end_session
    campus.skew = 400          its clock is ahead by so many seconds
    campus.tamper = lambda claims: {**claims, "nonce": "other"}        what it says in ID tokens
    campus.header = {"alg": "none"}; campus.key = another RSAKey       how it signs
    campus.says_error = "access_denied"                                the person pressed cancel
    campus.revoked = True                                              refresh tokens are refused from now on
    campus.rotate()                                                    signs with a new key from now on
    campus.logout_token(sub=…, sid=…), campus.send_logout(url, …)      back-channel log-out
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from broker import settings

KEY = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256", "kid": "first"})  # takes a while: one for all
HANG_SECONDS = 30
LOGGED_OUT = "http://schemas.openid.net/event/backchannel-logout"


class OpenIdDouble:
    """One provider. Threads share it."""

    def __init__(self, name: str = "campus", *, title: str = "", now: Callable[[], Any] | None = None) -> None:
        self.name, self.title = name, title or name.title()
        self.client_id, self.client_secret = "anybinder", "the-client-secret"
        self.people: dict[str, dict[str, Any]] = {
            "ada": {"sub": "ada-1", "name": "Ada Lovelace", "email": "ada@uni.example", "groups": ["staff"]},
            "bob": {"sub": "bob-2", "name": "Bob", "email": "bob@uni.example", "groups": ["students"]},
        }
        self.who, self.asks = "ada", False
        self.now = now
        self.faults: dict[str, str] = {}
        self.skew = 0.0
        self.tamper: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
        self.header: dict[str, Any] = {}
        self.key: Any = KEY
        self.published: list[Any] = [KEY]
        self.says_error = ""
        self.says_issuer: str | None = None
        self.userinfo_only: tuple[str, ...] = ()
        """Claims that the ID token leaves to the userinfo endpoint."""
        self.userinfo_says: dict[str, Any] = {}
        self.authenticated_ago = 0.0
        """How long ago the person signed in there, where nobody asks for less."""
        self.heeds_max_age, self.says_auth_time, self.level = True, True, ""
        self.refreshes, self.revoked, self.access_seconds = True, False, 300
        self.discovery_says: dict[str, Any] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.asked: list[dict[str, str]] = []
        self.tokens: list[str] = []
        self.sessions: dict[str, str] = {}
        self._codes: dict[str, dict[str, Any]] = {}
        self._refresh: dict[str, dict[str, Any]] = {}
        self._access: dict[str, str] = {}
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"double": self}))
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign,assignment]  # callers hang up
        self.port = int(self._http.server_address[1])
        self.issuer = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> OpenIdDouble:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for tests ---

    def setting(self, **changes: Any) -> settings.IdentitySetting:
        """As an operator would write it down."""
        told = {
            "name": self.name,
            "title": self.title,
            "issuer": self.issuer,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
        }
        return settings.IdentitySetting(**{**told, **changes})

    def sign_in(self, client: Any, who: str = "", path: str = "", headers: dict[str, str] | None = None) -> Any:
        """Walk a browser from the broker to here and back; the answer to the callback comes back, or whatever stopped it."""
        begun = client.get(path or f"/login/{self.name}", headers=headers or {}, follow_redirects=False)
        if begun.status_code != 303 or not begun.headers["location"].startswith(self.issuer):
            return begun
        return client.get(self.visit(begun.headers["location"], who), follow_redirects=False)

    def link(self, client: Any, who: str) -> Any:
        """The same, from the page of the account, to add a login."""
        return self.sign_in(client, who, f"/login/{self.name}?link=1", {"Sec-Fetch-Site": "same-origin"})

    def visit(self, address: str, who: str = "") -> str:
        """Sign in here as this person, and say where that leads back to."""
        with self._lock:
            before, self.who = self.who, who or self.who
            try:
                answer = httpx.get(address, follow_redirects=False)
            finally:
                self.who = before
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def rotate(self) -> None:
        """Sign with a new key, and publish it alone."""
        kid = secrets.token_hex(4)
        self.key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256", "kid": kid})
        self.published = [self.key]

    def count(self, part: str) -> int:
        """How many requests so far had this in their path."""
        return sum(part in path for _, path, _ in self.requests)

    def logout_token(self, *, sub: str = "", sid: str = "", without: tuple[str, ...] = (), **changes: Any) -> str:
        """A token that says that this person, or this session, has been signed out here."""
        now = self.time()
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_hex(8),
            "events": {LOGGED_OUT: {}},
        }
        claims |= {"sub": sub} if sub else {}
        claims |= {"sid": sid} if sid else {}
        claims |= changes
        for name in without:
            claims.pop(name, None)
        return self.signed(claims, "logout+jwt")

    def send_logout(self, url: str, **told: Any) -> httpx.Response:
        """Tell a broker that listens at this address."""
        return httpx.post(url, data={"logout_token": self.logout_token(**told)})

    # --- what it is made of ---

    def time(self) -> int:
        now = self.now().timestamp() if self.now else time.time()
        return int(now + self.skew)

    def signed(self, claims: dict[str, Any], kind: str = "JWT") -> str:
        algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "Ed25519"}.get(self.key.key_type, "HS256")
        header = {"alg": algorithm, "typ": kind, "kid": self.key.kid, **self.header}
        if header["alg"] == "none":
            parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
            return (b".".join(parts) + b".").decode()
        token = jwt.encode(header, claims, self.key, algorithms=[header["alg"]])
        self.tokens.append(token)
        return token

    def discovery(self) -> dict[str, Any]:
        own = self.issuer
        return {
            "issuer": own,
            "authorization_endpoint": f"{own}/authorize",
            "token_endpoint": f"{own}/token",
            "userinfo_endpoint": f"{own}/userinfo",
            "jwks_uri": f"{own}/jwks",
            "end_session_endpoint": f"{own}/end_session",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **self.discovery_says,
        }

    def authorize(self, asked: dict[str, str]) -> str:
        """Where the browser is sent, once the person is who they are."""
        self.asked.append(asked)
        back = {"state": asked["state"], "iss": self.issuer if self.says_issuer is None else self.says_issuer}
        back = {name: value for name, value in back.items() if value}
        if self.says_error:
            return f"{asked['redirect_uri']}?{urlencode({'error': self.says_error, **back})}"
        code, sid = secrets.token_urlsafe(24), secrets.token_hex(8)
        too_old = self.heeds_max_age and self.authenticated_ago > float(asked.get("max_age", "inf"))
        ago = 0.0 if too_old or asked.get("prompt") == "login" else self.authenticated_ago
        self._codes[code] = {**asked, "who": self.who, "sid": sid, "auth_time": self.time() - int(ago)}
        self.sessions[sid] = self.who
        self.tokens.append(code)
        return f"{asked['redirect_uri']}?{urlencode({'code': code, **back})}"

    def grant(self, sent: dict[str, str]) -> dict[str, Any] | None:
        """The tokens for this code or refresh token; None where it is not good."""
        if sent.get("grant_type") == "refresh_token":
            about = self._refresh.pop(sent.get("refresh_token", ""), None)
            return None if about is None or self.revoked else self.issue(about, renewed=True)
        about = self._codes.pop(sent.get("code", ""), None)
        if about is None or about["redirect_uri"] != sent.get("redirect_uri"):
            return None
        challenge = base64.urlsafe_b64encode(hashlib.sha256(sent.get("code_verifier", "").encode()).digest())
        proven = about.get("code_challenge_method") == "S256" and about["code_challenge"] == challenge.decode().rstrip(
            "="
        )
        return self.issue(about) if proven else None

    def issue(self, about: dict[str, Any], *, renewed: bool = False) -> dict[str, Any]:
        person = self.people[about["who"]]
        now = self.time()
        claims = {name: value for name, value in person.items() if name not in self.userinfo_only}
        claims |= {"iss": self.issuer, "aud": self.client_id, "iat": now, "exp": now + 300, "sid": about["sid"]}
        claims |= {"auth_time": about["auth_time"]} if self.says_auth_time else {}
        level = about.get("acr_values") or self.level
        claims |= {"acr": level} if level else {}
        claims |= {} if renewed else {"nonce": about["nonce"]}
        access, refresh = (secrets.token_urlsafe(24) for _ in range(2))
        self._access[access] = about["who"]
        told = {"access_token": access, "token_type": "Bearer", "expires_in": self.access_seconds}
        told["id_token"] = self.signed(self.tamper(claims))
        self.tokens.append(access)
        if self.refreshes:
            self._refresh[refresh] = about
            self.tokens.append(refresh)
            told["refresh_token"] = refresh
        return told

    def is_client(self, authorization: str, sent: dict[str, str]) -> bool:
        if authorization.startswith("Basic "):
            name, _, secret = base64.b64decode(authorization[6:]).decode().partition(":")
            return (unquote(name), unquote(secret)) == (self.client_id, self.client_secret)
        return sent.get("client_id") == self.client_id and sent.get("client_secret", "") == self.client_secret


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: OpenIdDouble

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode() if length else ""
        double, parts = self.double, urlsplit(self.path)
        double.requests.append((self.command, self.path, dict(self.headers)))
        name = "discovery" if parts.path.startswith("/.well-known/") else parts.path.strip("/")
        if self.misbehaves(double.faults.get(name, "")):
            return
        call = getattr(self, f"on_{name}", None)
        if call is None:
            self.say(404, {"error": "not_found"})
        else:
            call(dict(parse_qsl(parts.query)), dict(parse_qsl(body)))

    do_POST = do_GET  # noqa: N815

    def misbehaves(self, fault: str) -> bool:
        if fault == "down":
            self.close_connection = True
            self.connection.close()
        elif fault == "error":
            self.say(503, {"error": "having a bad day"})
        elif fault == "hang":
            self.double._closing.wait(HANG_SECONDS)
            self.close_connection = True
        elif fault == "drip":
            self.drip()
        elif fault == "garbage":
            self.send(200, b"<html>not what was asked for", "text/html")
        elif fault == "huge":
            self.send(200, b'{"keys": [' + b" " * 3_000_000 + b"]}", "application/json")
        elif fault == "redirect":
            self.answer(302, {"Location": f"{self.double.issuer}/elsewhere"})
        return bool(fault)

    def drip(self) -> None:
        """Never silent for long, and never done: even the head goes out letter by letter."""
        self.close_connection = True
        until = time.monotonic() + HANG_SECONDS
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while time.monotonic() < until and not self.double._closing.wait(0.1):
                self.wfile.write(b".")
        except OSError:
            pass

    def on_discovery(self, *_: Any) -> None:
        self.say(200, self.double.discovery())

    def on_jwks(self, *_: Any) -> None:
        self.say(200, {"keys": [key.as_dict(private=False) for key in self.double.published]})

    def on_authorize(self, asked: dict[str, str], _sent: dict[str, str]) -> None:
        if self.double.asks and "as" not in asked:
            links = "".join(
                f'<p><a href="/authorize?{html.escape(urlencode({**asked, "as": who}))}">{html.escape(who)}</a></p>'
                for who in self.double.people
            )
            self.send(200, f"<title>{self.double.title}</title><h1>Who are you?</h1>{links}".encode(), "text/html")
            return
        if "as" in asked:
            self.double.who = asked.pop("as")
        self.answer(302, {"Location": self.double.authorize(asked)})

    def on_token(self, _asked: dict[str, str], sent: dict[str, str]) -> None:
        if not self.double.is_client(self.headers.get("Authorization", ""), sent):
            self.say(401, {"error": "invalid_client"})
            return
        told = self.double.grant(sent)
        self.say(200, told) if told else self.say(400, {"error": "invalid_grant"})

    def on_userinfo(self, *_: Any) -> None:
        who = self.double._access.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if who is None:
            self.say(401, {"error": "invalid_token"})
        else:
            self.say(200, {**self.double.people[who], **self.double.userinfo_says})

    def on_end_session(self, asked: dict[str, str], _sent: dict[str, str]) -> None:
        hint = asked.get("id_token_hint", "")
        if hint:
            claims = json.loads(base64.urlsafe_b64decode(hint.split(".")[1] + "=="))
            self.double.sessions.pop(claims.get("sid", ""), None)
        self.answer(302, {"Location": asked.get("post_logout_redirect_uri", "/")})

    def say(self, status: int, told: dict[str, Any]) -> None:
        self.send(status, json.dumps(told).encode(), "application/json")

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send(status, b"", "text/plain", headers)

    def send(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def query_of(address: str) -> dict[str, str]:
    """The parameters of this address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


OTHER_KEYS = {
    "ES256": lambda: ECKey.generate_key("P-256", {"use": "sig", "kid": "ec"}),
    "Ed25519": lambda: OKPKey.generate_key("Ed25519", {"use": "sig", "kid": "okp"}),
    "PS256": lambda: KEY,
}
