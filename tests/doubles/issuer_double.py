"""An OpenID issuer on this computer: signs what it is told, and publishes the keys that it is told to.

with IssuerDouble() as issuer:
    issuer.issuer                   # https://issuer.example, as its tokens say
    issuer.url                      # where it really answers
    issuer.token(sub="launch:x", aud="sts.amazonaws.com")
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey


class IssuerDouble:
    """`clock` says seconds since 1970; `broken` makes it answer 503."""

    def __init__(self, issuer: str = "https://issuer.example", clock: Callable[[], float] = time.time) -> None:
        self.issuer, self.clock = issuer, clock
        self.key = RSAKey.generate_key(2048, {"kid": "one"})
        self.published = [self.key]
        self.asked: list[str] = []
        self.broken = False

    def __enter__(self) -> IssuerDouble:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, *, key: RSAKey | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token of ten minutes with these claims, signed by `key`, else by its own."""
        now, key = int(self.clock()), key or self.key
        told = {"iss": self.issuer, "iat": now, "nbf": now, "exp": now + 600, "jti": secrets.token_hex(8), **claims}
        return jwt.encode({"alg": "RS256", "kid": key.kid, **(header or {})}, told, key, algorithms=["RS256", "RS512"])

    def answer(self, path: str) -> Any:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        return {"keys": [{**key.as_dict(private=False), "kid": key.kid} for key in self.published]}


def _handler(double: IssuerDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            double.asked.append(self.path)
            body = json.dumps(double.answer(self.path)).encode()
            self.send_response(503 if double.broken else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
