"""Asking web servers: bounded in time and size, repeated questions at no cost, and only where `safety` allows."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from broker.repos import cache, connecting, errors, safety
from providers.sentences import say

SECONDS = 10.0
"""For connecting, and for each silence while reading: an API that says nothing for this long is down."""
LONGEST_BODY = 2_000_000
"""Bytes. The longest answers are lists of references, a few hundred kilobytes at most."""
REDIRECTS = 4
REMEMBERED = 1024
MISSING_SECONDS = 300.0
"""A repository that was not there a moment ago is not asked for again; BinderHub's own value."""

Client = Callable[..., httpx.Client]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server said, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    """Where it came from, after redirects."""


class Http:
    """GET, and HEAD where asked exactly. Threads share it."""

    def __init__(self, *, safety: safety.Safety, client: Client, clock: Callable[[], float]) -> None:
        self._safety, self._client, self._clock = safety, client, clock
        self._tagged: cache.Recent[Answer] = cache.Recent(REMEMBERED, math.inf, clock)
        self._missing: cache.Recent[Answer] = cache.Recent(REMEMBERED, MISSING_SECONDS, clock)
        self._held: dict[str, float] = {}
        self._clients: dict[bool, httpx.Client] = {}
        self._lock = threading.Lock()
        self._remaining: dict[str, int] = {}

    @contextlib.contextmanager
    def alone(self) -> Iterator[Http]:
        """Another one, which remembers nothing of this one and leaves nothing in it, no cookie either: for what only one
        person may see."""
        other = Http(safety=self._safety, client=self._client, clock=self._clock)
        try:
            yield other
        finally:
            for client in other._clients.values():
                client.close()

    def ask_api(
        self,
        url: str,
        *,
        accept: str,
        token: str = "",
        authorization: str = "",
        lasting: Callable[[Answer], bool] | None = None,
    ) -> Answer:
        """Ask a host that the operator of this broker chose; the token goes to this origin and nowhere else.

        `authorization`: the whole header instead of a token, for who is `alone`. An unchanged answer costs no quota, one
        that is `lasting` (404, unless said otherwise) is kept for five minutes.
        Raises RateLimited, HostUnavailable.
        """
        key = (url, accept, bool(token))
        if gone := self._missing.get(key):
            return gone
        known = self._tagged.get(key)
        answer = self._ask_politely(url, api_headers(accept, authorization or bearer(token), known))
        if answer.status == 304 and known:
            return known
        if answer.status == 200 and "etag" in answer.headers:
            self._tagged.put(key, answer)
        if (lasting or missing)(answer):
            self._missing.put(key, answer)
        return answer

    def known(self, url: str, *, accept: str, token: str = "") -> Answer | None:
        """What `ask_api` was last told, however long ago: for the days on which the API says nothing."""
        return self._tagged.get((url, accept, bool(token)))

    def ask(self, url: str, *, longest: int = LONGEST_BODY) -> Answer:
        """Ask any host on somebody's behalf, following redirects. Raises NotAllowed where `safety` says no."""
        for _ in range(REDIRECTS + 1):
            answer = self._get(url, {}, trusted=not self._safety.served, longest=longest)
            target = location(answer)
            if target is None:
                return answer
            if urlsplit(target).scheme not in ("http", "https"):
                raise errors.NotAllowed(
                    say("This address leads on to one that is not of the web. Use the address it leads to.")
                )
            url = target
        raise errors.HostUnavailable(
            say("This address leads on and on to others. Use the address of the repository itself.")
        )

    def ask_exactly(
        self, url: str, headers: Mapping[str, str], *, method: str = "GET", trusted: bool = False
    ) -> Answer:
        """One question with these headers: nothing is followed and nothing kept. Raises as `ask` and `ask_api` do.

        `trusted`: the operator of this broker chose the host. `method`: `HEAD` where the headers are all that is wanted.
        """
        origin = origin_of(url)
        self._refuse_while_held(origin)
        answer = self._get(
            url, dict(headers), trusted=trusted or not self._safety.served, longest=LONGEST_BODY, method=method
        )
        self._heed(origin, answer)
        return answer

    def remaining(self, url: str) -> int | None:
        """How many more questions this API will answer in this hour, as far as it has said."""
        return self._remaining.get(origin_of(url))

    def _ask_politely(self, url: str, headers: dict[str, str]) -> Answer:
        origin = origin_of(url)
        self._refuse_while_held(origin)
        answer = self._within_origin(url, headers)
        self._note_quota(answer)
        self._heed(origin, answer)
        return answer

    def _refuse_while_held(self, origin: str) -> None:
        wait = self._held.get(origin, 0) - self._clock()
        if wait > 0:
            raise rate_limited(origin, wait)

    def _heed(self, origin: str, answer: Answer) -> None:
        """Stay away for as long as this host wants."""
        if (seconds := seconds_to_wait(answer, self._clock())) is not None:
            self._held[origin] = self._clock() + seconds
            raise rate_limited(origin, seconds)
        if answer.status >= 500:
            raise errors.HostUnavailable(
                say(
                    "%(host)s has trouble (status %(status)s). Try again in a moment.",
                    host=host_of(origin),
                    status=answer.status,
                )
            )

    def _within_origin(self, url: str, headers: dict[str, str]) -> Answer:
        """Repositories get renamed, and APIs say so by redirects. One that leaves the API is not followed."""
        for _ in range(REDIRECTS + 1):
            answer = self._get(url, headers, trusted=True, longest=LONGEST_BODY)
            target = location(answer)
            if target is None or origin_of(target) != origin_of(url):
                return answer
            url = target
        raise errors.HostUnavailable(
            say("%(host)s answers with one redirect after another. Try again later.", host=host_of(url))
        )

    def _get(self, url: str, headers: dict[str, str], *, trusted: bool, longest: int, method: str = "GET") -> Answer:
        try:
            with self._client_for(trusted).stream(method, url, headers=headers) as response:
                body = bounded(response, longest)
                return Answer(status=response.status_code, headers=response.headers, body=body, url=url)
        except httpx.TimeoutException:
            raise errors.HostTimeout(
                say("%(host)s takes too long to answer. Try again in a moment.", host=host_of(url))
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            raise errors.HostUnavailable(
                say("%(host)s does not answer. Check the address, or try again later.", host=host_of(url))
            ) from None

    def _client_for(self, trusted: bool) -> httpx.Client:
        with self._lock:
            if trusted not in self._clients:
                options: dict[str, Any] = {} if trusted else {"transport": connecting.Pinned(self._safety)}
                self._clients[trusted] = self._client(
                    timeout=SECONDS,
                    follow_redirects=False,
                    limits=httpx.Limits(max_keepalive_connections=0),  # nothing to close, nothing gone stale
                    headers={"User-Agent": "anybinder", "Accept-Encoding": "identity"},
                    **options,
                )
            return self._clients[trusted]

    def _note_quota(self, answer: Answer) -> None:
        left = answer.headers.get("x-ratelimit-remaining", "")
        if left.isdigit():
            self._remaining[origin_of(answer.url)] = int(left)


def bounded(response: httpx.Response, longest: int) -> bytes:
    """The body up to so many bytes; what is longer is cut off, as no caller needs it whole."""
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) >= longest:
            break
    return bytes(body[:longest])


def bearer(token: str) -> str:
    """How a token is shown; nothing for none."""
    return f"Bearer {token}" if token else ""


def api_headers(accept: str, authorization: str, known: Answer | None) -> dict[str, str]:
    """What makes the answer short, allowed, and free where nothing changed."""
    headers = {"Accept": accept}
    if authorization:
        headers["Authorization"] = authorization
    if known:
        headers["If-None-Match"] = known.headers["etag"]
    return headers


def missing(answer: Answer) -> bool:
    """True where there is no such thing."""
    return answer.status == 404


def location(answer: Answer) -> str | None:
    """Where this answer sends us, made absolute; None if it sends us nowhere. Raises HostUnavailable."""
    if answer.status not in (301, 302, 303, 307, 308) or "location" not in answer.headers:
        return None
    try:
        target = urljoin(answer.url, answer.headers["location"])
        urlsplit(target)
    except ValueError:
        raise errors.HostUnavailable(
            say(
                "%(host)s leads on to an address that cannot be read. Check yours, or try again later.",
                host=host_of(answer.url),
            )
        ) from None
    return target


def seconds_to_wait(answer: Answer, now: float) -> float | None:
    """How long this host wants us to stay away; None where it does not. GitHub's two kinds of limit, everyone's 429."""
    if answer.status not in (403, 429):
        return None
    later = answer.headers.get("retry-after", "")
    if later.isdigit():
        return min(float(later), 3600.0)
    reset = answer.headers.get("x-ratelimit-reset", "")
    if answer.headers.get("x-ratelimit-remaining") == "0" and reset.isdigit():
        return min(max(float(reset) - now, 1.0), 3600.0)
    return 60.0 if answer.status == 429 else None  # GitHub asks for at least a minute where it names no time


def rate_limited(origin: str, seconds: float) -> errors.RateLimited:
    """The refusal that says when to come back."""
    minutes = max(1, math.ceil(seconds / 60))
    unit = "minute" if minutes == 1 else "minutes"
    return errors.RateLimited(
        f"{host_of(origin)} answers no more questions from this broker for now. Try again in {minutes} {unit}."
    )


def origin_of(url: str) -> str:
    """Scheme, host and port, as tokens and quotas belong to them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def host_of(url: str) -> str:
    """The host, for a sentence. Never a whole address: that may hold what is not for logs."""
    return urlsplit(url).hostname or "The host"
