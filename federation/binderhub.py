"""One BinderHub, as a client that believes little of what it is told.

`look` asks how it is; `events` reads the stream of a launch until it is ready; `alive`, `shut_down` and `end_at_hub` are
about a session there. Redirects are followed only to the peer's registered origins, nothing is read without a limit,
and what is not JSON of the kind that a BinderHub sends is not believed.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import OctKey

from federation import errors, health
from federation.peers import Peer

REDIRECTS = 3
ANSWER_MOST = 1_000_000  # bytes of an answer that is no stream; mybinder.org's longest has 3,000
LOOK_SECONDS = 10.0
MESSAGE_MOST = 2000  # characters of a line that a person reads
TOKEN = re.compile(r"[!-~]{1,512}")
NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")
ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")
BUILDING = ("fetching", "building", "pushing")
LAUNCHING = ("built", "launching")
PHASES = ("waiting", *BUILDING, *LAUNCHING, "ready", "failed")
FAILURES = ("failed", "failure")
FULL = re.compile(r"too many users|quota", re.IGNORECASE)
NO_WORDS = re.compile(r"Command '.*' returned non-zero exit status", re.DOTALL)
"""repo2docker names the whole command that failed, and not why."""
SELDOM = re.compile(r"rate limit exceeded(?:.*?(\d+) seconds)?", re.IGNORECASE | re.DOTALL)
BUILD_TOKEN_SECONDS = 300  # BinderHub's own value
SHOWN = (
    "image",
    "repo_url",
    "binder_ref_url",
    "binder_launch_host",
    "binder_request",
    "binder_persistent_request",
    "launch",
)
"""What `ready` says besides the way in, and clients of ours are told as it is."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of a stream is taken."""

    line: int = 256 * 1024
    """Bytes of one line."""
    total: int = 32 * 1024 * 1024
    """Bytes of it all."""
    lines: int = 20_000
    """Lines that say something: the longest build there is says a few thousand."""
    between: float = 90
    """Seconds without a line; a BinderHub says every 25 s that it is there."""
    whole: float = 75 * 60
    """Seconds of it all."""


@dataclass(frozen=True, kw_only=True)
class WayIn:
    """Where a session is, and what opens it."""

    url: str = field(repr=False)
    token: str = field(repr=False)
    more: Mapping[str, str] = field(default_factory=dict)
    """The rest of what `ready` said (SHOWN)."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """One line of a stream."""

    phase: str
    """One of PHASES; empty where it names none that we know."""
    message: str
    image: str = ""
    way_in: WayIn | None = field(default=None, repr=False)
    """Of the line `ready`, which is the last."""


@dataclass(frozen=True, kw_only=True)
class Hub:
    """What one look found."""

    seen: health.Seen
    versions: Mapping[str, Any] = field(default_factory=dict)
    providers: tuple[str, ...] = ()
    """Prefixes of the repository hosts that it knows; empty where it does not say."""


class Life(enum.StrEnum):
    """What is known of a session after asking it."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"
    """Neither it nor its hub gave an answer that means something."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a session says of itself."""

    life: Life
    last_activity: dt.datetime | None = None


# --- how it is ----------------------------------------------------------------------------------------------------------


def client() -> httpx.Client:
    """What look-ups are made with: it follows nothing by itself, and reads no proxy or password from the environment."""
    return httpx.Client(timeout=LOOK_SECONDS, follow_redirects=False, trust_env=False)


def look(at: httpx.Client, peer: Peer) -> Hub:
    """Ask for its versions, its health and its repository hosts. Takes as long as its answers; raises nothing of theirs."""
    try:
        versions = _object(_get(at, peer, f"{peer.binder}/versions"))
        seen = _healthy(_object(_get(at, peer, f"{peer.binder}/health", also=(503,))))
        return Hub(seen=seen, versions=versions, providers=_providers(at, peer))
    except errors.PeerError as wrong:
        return Hub(seen=health.Seen(ok=False, why=str(wrong)))


def _healthy(said: Mapping[str, Any]) -> health.Seen:
    """By BinderHub's own rule: a check that may be ignored is no outage."""
    checks = [each for each in _listed(said.get("checks")) if isinstance(each, dict)]
    broken = [str(each.get("service", ""))[:60] for each in checks if not each.get("ok") and _counts(each)]
    quota = next((each for each in checks if each.get("service") == "Pod quota"), {})
    if broken or not said.get("ok"):
        return health.Seen(ok=False, why=f"It says that it is not well: {', '.join(broken) or 'it does not say why'}.")
    return health.Seen(ok=True, total=_count(quota.get("total_pods")), quota=_count(quota.get("quota")))


def _counts(check: Mapping[str, Any]) -> bool:
    return not check.get("_ignore_failure")


def _providers(at: httpx.Client, peer: Peer) -> tuple[str, ...]:
    """Older hubs have no such list: then it is not known."""
    with suppress(errors.PeerError):
        rows = _parsed(_get(at, peer, f"{peer.binder}/api/repoproviders"))
        names = [each.get("id") for each in _listed(rows) if isinstance(each, dict)]
        return tuple(name for name in names if isinstance(name, str) and NAME.fullmatch(name))
    return ()


def _get(at: httpx.Client, peer: Peer, url: str, also: tuple[int, ...] = ()) -> bytes:
    """The body of what is there. Raises Vanished, Silent, NotBelieved."""
    until = time.monotonic() + LOOK_SECONDS
    for _ in range(REDIRECTS + 1):
        try:
            with at.stream("GET", url, headers=_HEADERS) as answer:
                if answer.is_redirect:
                    url = _followed(peer, url, answer)
                    continue
                if answer.status_code != 200 and answer.status_code not in also:
                    raise errors.NotBelieved(f"It answers with the status {answer.status_code} at {_shown(url)}.")
                return _limited(answer.iter_raw(), until)
        except (httpx.HTTPError, httpx.InvalidURL) as wrong:
            raise _unreachable(wrong) from None
    raise errors.NotBelieved("It sends us from one address to the next.")


def _limited(chunks: Iterator[bytes], until: float) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > ANSWER_MOST:
            raise errors.NotBelieved("Its answer is longer than any hub's.")
        if time.monotonic() > until:
            raise errors.Silent("It takes too long to answer.")
    return bytes(body)


# --- a launch there -----------------------------------------------------------------------------------------------------


def async_client() -> httpx.AsyncClient:
    """What streams are read with: as many as there are, each with a connection of its own. How long one may be silent is for
    `events` to say: a hub that builds says nothing for longer than any answer takes."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    timeout = httpx.Timeout(LOOK_SECONDS, read=None)
    return httpx.AsyncClient(follow_redirects=False, trust_env=False, limits=limits, timeout=timeout)


def address(peer: Peer, spec: str, now: float) -> str:
    """Where the launch of this spec (`gh/owner/name/ref`, as a path) is asked for; with a build token where one is shared."""
    url = f"{peer.binder}/build/{spec}"
    if not peer.build_token_key:
        return url
    claims = {"exp": int(now) + BUILD_TOKEN_SECONDS, "aud": spec, "origin": urlsplit(peer.binder).netloc}
    token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(peer.build_token_key))
    return f"{url}?build_token={quote(token)}"


async def events(
    at: httpx.AsyncClient, peer: Peer, url: str, token: str = "", limits: Limits | None = None
) -> AsyncGenerator[Said | None, None]:
    """Every line of the launch that is asked for at this address, up to `ready`. None where it only says that it is there.

    The token is the person's own at this hub, shown to the peer's own BinderHub only. Raises PeerError; a stream that
    ends without `ready` raises Vanished.
    """
    taken = limits or Limits()
    began, came_to, count = time.monotonic(), "", 0
    async with _opened(at, peer, url, token, taken) as answer, aclosing(_lines(answer, taken, began)) as lines:
        async for line in lines:
            said = _heard(peer, line, came_to)
            if said is not None:
                count += 1
                came_to = said.phase or came_to
            if count > taken.lines:
                raise errors.NotBelieved("It says more than any build does.")
            yield said
            if said is not None and said.way_in is not None:
                return
    raise errors.Vanished("It ended the stream before the session was ready.")


@asynccontextmanager
async def _opened(
    at: httpx.AsyncClient, peer: Peer, url: str, token: str, limits: Limits
) -> AsyncIterator[httpx.Response]:
    """The stream, behind redirects to the peer's own origins."""
    asked = urlsplit(url)[:2]
    for _ in range(REDIRECTS + 1):
        headers = {**_HEADERS, "accept": "text/event-stream"}
        if token and urlsplit(url)[:2] == asked:  # not to whom it sends us
            headers["authorization"] = f"token {token}"
        request = at.build_request("GET", url, headers=headers)
        try:
            async with asyncio.timeout(limits.between):
                answer = await at.send(request, stream=True)
        except TimeoutError:
            raise errors.Silent("It does not answer.") from None
        except (httpx.HTTPError, httpx.InvalidURL) as wrong:
            raise _unreachable(wrong) from None
        try:
            if not answer.is_redirect:
                _require_stream(answer)
                yield answer
                return
            url = _followed(peer, url, answer)
        finally:
            await answer.aclose()
    raise errors.NotBelieved("It sends us from one address to the next.")


def _require_stream(answer: httpx.Response) -> None:
    if answer.status_code == 429:
        raise errors.Full("It asks us to come back later.")
    if answer.status_code in (401, 403):
        raise errors.Refused("It does not let us launch there.")
    if answer.status_code >= 500:
        raise errors.Vanished(f"It answers with the status {answer.status_code}.")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if answer.status_code != 200 or kind != "text/event-stream":
        raise errors.NotBelieved("It does not answer with a stream of events.")


async def _lines(answer: httpx.Response, limits: Limits, began: float) -> AsyncGenerator[bytes, None]:
    """Line by line, without waiting for the end of one that has none."""
    kept, total = bytearray(), 0
    chunks = answer.aiter_raw().__aiter__()
    heard = time.monotonic()
    while True:
        chunk = await _next(chunks, min(heard + limits.between, began + limits.whole))
        if chunk is None:
            return
        total += len(chunk)
        first, *others = chunk.split(b"\n")
        kept += first
        whole = [bytes(kept), *others[:-1]] if others else []
        kept = bytearray(others[-1]) if others else kept
        if total > limits.total or max(map(len, (kept, *whole))) > limits.line:
            raise errors.NotBelieved("It says more than any build does.")
        for line in whole:
            heard = time.monotonic()
            yield line.rstrip(b"\r")


async def _next(chunks: AsyncIterator[bytes], until: float) -> bytes | None:
    """The next bytes; None at the end. Raises Silent, Vanished."""
    try:
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            return await anext(chunks, None)
    except TimeoutError:
        raise errors.Silent from None
    except (httpx.HTTPError, httpx.StreamError) as wrong:
        raise _unreachable(wrong) from None


def _heard(peer: Peer, line: bytes, came_to: str) -> Said | None:
    """What this line says; None for one that only says that somebody is there. Raises what ends the launch there."""
    if not line.startswith(b"data:"):
        return None
    event = _object(line.removeprefix(b"data:"))
    phase = str(event.get("phase", "")).lower()[:32]
    message = cleaned(event.get("message"))
    if phase in FAILURES:
        raise _failure(event, message, came_to)
    image = event.get("imageName", event.get("image"))
    return Said(
        phase=phase if phase in PHASES else "",
        message=message,
        image=image if isinstance(image, str) and len(image) <= 512 and image.isprintable() else "",
        way_in=_way_in(peer, event) if phase == "ready" else None,
    )


def _way_in(peer: Peer, event: Mapping[str, Any]) -> WayIn:
    """Raises NotBelieved where it leads off the peer's registered origins: a token is attached to it, and a person sent."""
    url, token = event.get("url"), event.get("token")
    if not isinstance(url, str) or not isinstance(token, str) or not TOKEN.fullmatch(token):
        raise errors.NotBelieved("It says that the session is ready, and not where.")
    if len(url) > 2000 or not peer.owns(url) or urlsplit(url).query or urlsplit(url).fragment:
        raise errors.NotBelieved("It sends people to an address that is not known to be its own.")
    more = {name: cleaned(event[name]) for name in SHOWN if isinstance(event.get(name), str)}
    return WayIn(url=url if url.endswith("/") else f"{url}/", token=token, more=more)


def _failure(event: Mapping[str, Any], message: str, came_to: str) -> errors.PeerError:
    """What kind of failure it is: by how far it came, and by BinderHub's own sentences."""
    said = message.strip() or None
    if seldom := SELDOM.search(message):
        return errors.Full(said, seconds=float(seldom[1]) if seldom[1] else None)
    if event.get("status_code") == 429 or FULL.search(message):
        return errors.Full(said)
    if came_to in BUILDING:
        return errors.BuildFailed(None if NO_WORDS.search(message) else said)
    if came_to in LAUNCHING:
        return errors.LaunchFailed(said)
    return errors.Refused(said)


# --- a session there ----------------------------------------------------------------------------------------------------


def alive(at: httpx.Client, url: str, token: str) -> Session:
    """Ask the session itself whether it is there. A hub that answers in its place says that it is not. Raises nothing."""
    answer = asked(at, "GET", urljoin(url, "api/status?no_track_activity=1"), token)
    if answer is None or answer[0] >= 500:
        return Session(life=Life.UNKNOWN)
    status, body = answer
    try:
        said = _object(body) if status == 200 else {}
    except errors.NotBelieved:
        said = {}
    if "last_activity" not in said and "started" not in said:
        return Session(life=Life.GONE)
    return Session(life=Life.ALIVE, last_activity=instant(said.get("last_activity")))


def shut_down(at: httpx.Client, url: str, token: str) -> bool:
    """Have the server end itself; True where it said that it will. Raises nothing."""
    answer = asked(at, "POST", urljoin(url, "api/shutdown"), token)
    return answer is not None and 200 <= answer[0] < 300


def end_at_hub(at: httpx.Client, peer: Peer, url: str, token: str) -> bool:
    """Have the hub end the server at this address, by the person's own token; True where it will or has. Raises nothing."""
    found = re.fullmatch(r".*/user/([^/]+)/(?:([^/]+)/)?", urlsplit(url).path)
    if found is None:
        return False
    server = f"servers/{found[2]}" if found[2] else "server"
    answer = asked(at, "DELETE", f"{peer.url}/hub/api/users/{found[1]}/{server}", token)
    return answer is not None and answer[0] in (202, 204, 404)


def asked(at: httpx.Client, verb: str, url: str, token: str) -> tuple[int, bytes] | None:
    """Status and body, no redirect followed: the token goes nowhere else. None where nobody answers."""
    headers = {**_HEADERS, "authorization": f"token {token}"}
    try:
        with at.stream(verb, url, headers=headers) as answer:
            return answer.status_code, _limited(answer.iter_raw(), time.monotonic() + LOOK_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, errors.PeerError):
        return None


# --- within -------------------------------------------------------------------------------------------------------------

HOP = "x-anybinder-hop"
"""On all that is asked of a peer: an Anybinder that would only send it on to its own peers refuses, so nothing goes round."""
_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "anybinder", HOP: "1"}


def cleaned(text: Any) -> str:
    """A line of theirs as plain text: without colours and control characters, as long as a person reads. It stays text:
    what looks like HTML is shown as it is written."""
    if not isinstance(text, str):
        return ""
    plain = ESCAPES.sub("", text[: 4 * MESSAGE_MOST])
    return "".join(char for char in plain if char in "\n\t" or char.isprintable())[:MESSAGE_MOST].rstrip("\n")


def _followed(peer: Peer, url: str, answer: httpx.Response) -> str:
    there: str = urljoin(url, answer.headers.get("location", ""))
    if not peer.owns(there):
        raise errors.NotBelieved("It sends us to an address that is not known to be its own.")
    if there == url:  # asked there again, it might run the same launch once more
        raise errors.NotBelieved("It sends us from one address to the next.")
    return there


def _unreachable(wrong: Exception) -> errors.PeerError:
    if isinstance(wrong, httpx.TimeoutException):
        return errors.Silent("It does not answer.")
    if isinstance(wrong, httpx.InvalidURL | httpx.RemoteProtocolError | httpx.UnsupportedProtocol):
        return errors.Vanished("It broke off in the middle of an answer.")
    return errors.Vanished("It cannot be reached.")


def _object(text: bytes) -> dict[str, Any]:
    found = _parsed(text)
    if not isinstance(found, dict):
        raise errors.NotBelieved
    return found


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise errors.NotBelieved from None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    """A number of sessions; nothing that is none, as `true` or 10**30."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**9 else None


def instant(text: Any) -> dt.datetime | None:
    """This text as a time; None where it is none, or without its zone."""
    try:
        found = dt.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else None


def _shown(url: str) -> str:
    return urlsplit(url).path
