"""Whether others can reach this broker at its public address: it asks itself there, as they would.

Name, certificate, proxies and redirects are met as anybody meets them, and the answer carries a proof that only this broker
can give. What it shows is the public way *as seen from here*: a firewall that lets this computer in and the rest of the world
out, or another continent's view of a name, is not found by it.
"""

from __future__ import annotations

import datetime as dt
import hmac
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog

from broker import crypto, identity
from broker.service import Service
from providers.sentences import say

log = structlog.get_logger(__name__)
PATH = "/.well-known/anybinder-probe/"
NONCE = re.compile(r"[a-z2-7]{26}")
GOOD_FOR = dt.timedelta(minutes=5)
BAD_FOR = dt.timedelta(seconds=30)  # somebody is mending it, and wants to see that it works now
SECONDS = 8.0  # for each of the three questions
LONGEST = 64 * 1024  # bytes of an answer; a list of keys has about 2 KiB
NO_ADDRESS = "Machines elsewhere must reach this broker: set ANYBINDER_PUBLIC_URL to its https address first."


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was found at the public address."""

    at: dt.datetime
    trouble: str | None
    """Why others cannot reach this broker there, in a sentence that says what to do; None where they can."""


class _Wrong(Exception):
    """Something else than we is there, in a sentence."""


def refusal(service: Service) -> str | None:
    """Why others cannot reach this broker, None where they can. What was found is kept for minutes and renewed in the
    background; only the very first caller waits (at most about `3 × SECONDS`). Not to be called within a transaction."""
    if not service.settings.public_url:
        return NO_ADDRESS
    known = service.probes.get(service.settings.public_url)
    if known is None:
        return look(service).trouble
    if service.now() - known.at > (BAD_FOR if known.trouble else GOOD_FOR):
        begin(service)
    return known.trouble


def begin(service: Service) -> None:
    """Look in the background, unless somebody looks already. Returns at once; may be repeated."""
    if service.settings.public_url and not service.probing.locked():
        threading.Thread(target=look, args=(service,), name="probe", daemon=True).start()


def look(service: Service, *, tls: ssl.SSLContext | None = None) -> Seen:
    """Ask at the public address now, and keep what was found. One at a time: who comes second gets what the first found.

    `tls`: which certificates are believed; None for those that this computer believes.
    """
    address = service.settings.public_url
    asked = service.now()
    with service.probing:
        known = service.probes.get(address)
        if known is not None and known.at > asked:
            return known
        found = Seen(at=service.now(), trouble=_trouble(service, tls))
        service.probes[address] = found
    if found.trouble:
        log.warning("not_reached_from_outside", address=address, trouble=found.trouble)
    return found


def proof(service: Service, nonce: str) -> str:
    """What only this broker answers to this nonce; empty for what is no nonce of ours."""
    return service.keys.token("probe", nonce) if NONCE.fullmatch(nonce) else ""


def _trouble(service: Service, tls: ssl.SSLContext | None) -> str | None:
    base = service.settings.public_url.rstrip("/")
    if not base:
        return NO_ADDRESS
    host = urlsplit(base).netloc
    try:
        with httpx.Client(timeout=SECONDS, follow_redirects=False, verify=tls or True) as client:
            _ask(client, service, base, host)
    except _Wrong as wrong:
        return str(wrong)
    except httpx.TimeoutException:
        return say(
            "This broker does not reach itself at %(base)s: nothing answered within %(seconds)s s. Check "
            "the firewall and the proxy in front of it, also for connections that come from this computer "
            "itself.",
            base=base,
            seconds=float(SECONDS),
        )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return _unreached(base, host, error)
    return None


def _ask(client: httpx.Client, service: Service, base: str, host: str) -> None:
    nonce = crypto.new_id(26)
    status, body = _get(client, f"{base}{PATH}{nonce}")
    if 300 <= status < 400:
        raise _Wrong(
            say(
                "%(host)s sends visitors on to another address. Set ANYBINDER_PUBLIC_URL to the one that "
                "answers itself.",
                host=host,
            )
        )
    if status != 200 or not hmac.compare_digest(body.strip(), proof(service, nonce).encode()):
        raise _Wrong(
            say(
                "Something else than this broker answers at %(base)s (status %(status)s). Let the proxy there "
                "pass everything on to this broker, with the Host header as it came.",
                base=base,
                status=status,
            )
        )
    for path, believable in (("openid-configuration", _names_us), ("jwks.json", _has_our_key)):
        status, body = _get(client, f"{base}/.well-known/{path}")
        if status != 200 or not believable(service, _read(body)):
            raise _Wrong(
                say(
                    "%(base)s/.well-known/%(path)s is not what this broker answers (status %(status)s), so no "
                    "cloud would believe its tokens. A proxy in front of it keeps an old copy, or answers itself: "
                    "let it pass this path on.",
                    base=base,
                    path=path,
                    status=status,
                )
            )


def _get(client: httpx.Client, url: str) -> tuple[int, bytes]:
    """Status and body, cut off where either takes too much."""
    deadline = time.monotonic() + SECONDS
    with client.stream("GET", url, headers={"Accept": "*/*", "User-Agent": "anybinder"}) as response:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > LONGEST or time.monotonic() > deadline:
                break
        return response.status_code, bytes(body[:LONGEST])


def _read(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _names_us(service: Service, said: dict[str, Any]) -> bool:
    own = identity.discovery(service)
    return all(said.get(name) == own[name] for name in ("issuer", "jwks_uri"))


def _has_our_key(service: Service, said: dict[str, Any]) -> bool:
    """The one that signs now. A list that was kept for a while may lack the next one, or have the last one still."""
    identity.jwks(service)  # makes the first one
    kid, keys = identity.signs_now(service), said.get("keys")
    return isinstance(keys, list) and kid in {key.get("kid") for key in keys if isinstance(key, dict)}


def _unreached(base: str, host: str, error: Exception) -> str:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message or "it is not one that this computer believes"
            return say(
                "The certificate of %(host)s is refused: %(why)s. Clouds would refuse it too; give it one of "
                "a public authority.",
                host=host,
                why=why,
            )
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return say(
            "The name of %(host)s is not found. Enter it in the DNS, or correct ANYBINDER_PUBLIC_URL.", host=host
        )
    return say(
        "Nothing answers at %(base)s. Check that the proxy or server in front of this broker runs, and its firewall.",
        base=base,
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
