"""Asking an identity provider: bounded in time and size, whatever it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx

from broker.openid.refusals import Unavailable

SECONDS = 10.0
"""For one sign-in: discovery, keys, tokens and userinfo together."""
RENEWAL_SECONDS = 5.0
"""For one renewal, which somebody's request waits for."""
LONGEST_BODY = 1_000_000
QUIET_SECONDS = 5.0
"""One that did not answer in time is not asked for so long: else everybody who signs in would wait here at once."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question."""

    what: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: str | None = field(default=None, repr=False)
    """The body of a POST; None for a GET."""


class Web:
    """One errand: all its questions together take so many seconds at most. Follows no redirects, keeps no cookies."""

    def __init__(self, title: str, seconds: float, slow: dict[str, float] | None = None) -> None:
        """`slow`: what errands at one provider share, to know when it last did not answer in time."""
        self._title = title
        self._slow = {} if slow is None else slow
        self._until = time.monotonic() + seconds

    def ask(self, asked: Asked) -> httpx.Response:
        """The whole answer, whatever its status. Raises Unavailable."""
        if self._slow.get("until", 0.0) > time.monotonic():
            raise Unavailable(self._title, asked.what)
        answer: futures.Future[httpx.Response] = futures.Future()

        def run() -> None:
            try:
                answer.set_result(self._exchange(asked))
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
                answer.set_exception(error)

        # In a thread of its own: looking a name up has no limit, and one that sends a letter a second keeps to each of ours.
        threading.Thread(target=run, daemon=True, name="openid").start()
        try:
            return answer.result(max(0.0, self._until - time.monotonic()))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            if isinstance(error, httpx.TimeoutException | TimeoutError):
                self._slow["until"] = time.monotonic() + QUIET_SECONDS
            raise Unavailable(self._title, asked.what) from None

    def post(self, url: str, data: Mapping[str, str], headers: Mapping[str, str], auth: Any) -> httpx.Response:
        """As Authlib's client asks for tokens."""
        address, sent, form = auth.prepare("POST", url, dict(headers), urlencode(data))
        return self.ask(Asked(what="its tokens", url=address, headers=sent, form=form))

    def _exchange(self, asked: Asked) -> httpx.Response:
        method, body = ("GET", None) if asked.form is None else ("POST", asked.form.encode())
        headers = {
            "User-Agent": "anybinder",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **asked.headers,
        }
        left = max(0.01, self._until - time.monotonic())
        with (
            httpx.Client(timeout=left, follow_redirects=False) as client,
            client.stream(method, asked.url, headers=headers, content=body) as response,
        ):
            content = bytearray()
            for chunk in response.iter_raw():
                content += chunk
                if len(content) > LONGEST_BODY or time.monotonic() > self._until:
                    raise ValueError("too much, or too slow")
            return httpx.Response(response.status_code, content=bytes(content), request=response.request)
