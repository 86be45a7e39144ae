"""What OpenStack's services answer when they refuse, as the broker needs to hear it: the cloud's own words, then what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import requests

from providers.errors import (
    BadCredential,
    InvalidOrder,
    NoCapacity,
    PermissionMissing,
    ProviderError,
    ProviderUnavailable,
    QuotaExceeded,
)
from providers.openstack import needs

WORDS_MOST = 300  # characters of the cloud's own
QUOTA = re.compile(r"quota|limit exceeded|maximum number|over ?limit", re.IGNORECASE)
CAPACITY = re.compile(r"no valid host|not enough hosts|insufficient|out of capacity", re.IGNORECASE)
LOCKED = re.compile(r"\blocked\b", re.IGNORECASE)
TURNED_AWAY = (429, 503)
"""Too many, or nobody there to ask. After 500, 502 and 504 a service may go on with it: they say that an answer was lost."""


class Missing(InvalidOrder):
    """What was asked for is not there (404)."""


class InUse(InvalidOrder):
    """It is there already, or cannot be changed now (409)."""


class Locked(InvalidOrder):
    """Somebody has locked this machine, and until they unlock it nothing ends it (409)."""


class NotSupported(InvalidOrder):
    """This cloud cannot do that at all (501)."""


class Answered(ProviderUnavailable):
    """The request was turned away before anything was done, so nothing of it goes on behind; repeating is safe."""


def read(answer: requests.Response) -> dict[str, Any]:
    """The object that it carries; empty where it carries none. Raises ProviderUnavailable for what is none of a service."""
    if not answer.content:
        return {}
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ProviderUnavailable("What answers at the service's address is no OpenStack. Tell the people who run it.")
    return found


def meant(answer: requests.Response, rule: Mapping[str, str], rules: list[Mapping[str, str]] | None) -> ProviderError:
    """The refusal of this request, which `rule` names, by a token that has these access rules (None: it has none)."""
    said, status = words(answer), answer.status_code
    asked = f"{rule['service']} {rule['method']} {rule['path']}"
    if status == 401:
        return _unauthorized(rule, rules)
    if status == 501:
        return NotSupported(f"The cloud cannot do {asked} at all.")
    if status == 429 or status >= 500:
        kind = Answered if status in TURNED_AWAY else ProviderUnavailable
        return kind(f"The cloud answers {status}{_quoted(said)} to {asked}. That is for now only: try again later.")
    if CAPACITY.search(said):
        return NoCapacity(f"The cloud has no room for this machine now{_quoted(said)}. Another size may fit.")
    if status == 413 or (status in (403, 409) and QUOTA.search(said)):
        return QuotaExceeded(
            f"A quota of your project is used up{_quoted(said)}. End something there, or ask the cloud for more."
        )
    if status == 403:
        return PermissionMissing(
            f"Your role in the project may not do {asked}{_quoted(said)}. Ask for the role “member”."
        )
    return _wrong(status, asked, said)


def plain(error: ProviderError) -> ProviderError:
    """The same as one of the contract's own classes: ours are finer for our own use."""
    if isinstance(error, Answered):
        return ProviderUnavailable(str(error))
    return InvalidOrder(str(error)) if isinstance(error, Missing | InUse | Locked | NotSupported) else error


def words(answer: requests.Response) -> str:
    """What the cloud said, on one line; empty where it said nothing that people read."""
    try:
        told = answer.json()
    except ValueError:
        return ""
    found = " ".join(re.sub(r"<[^>]+>", " ", _message(told)).split())
    return found[:WORDS_MOST].rstrip(". ")


def _message(told: Any) -> str:
    """Nova: {"forbidden": {"message"}}; Neutron: {"NeutronError": {"message"}}; Keystone: {"error": …}; Glance: {"message"}."""
    if not isinstance(told, dict):
        return ""
    if isinstance(told.get("message"), str):
        return str(told["message"])
    inner = next((value for value in told.values() if isinstance(value, dict)), {})
    return str(inner.get("message") or "")


def _unauthorized(rule: Mapping[str, str], rules: list[Mapping[str, str]] | None) -> ProviderError:
    """Services answer 401 also where an access rule is missing; the token itself says which it has."""
    if rules is not None and not needs.allows(rules, rule):
        return PermissionMissing(
            f"The application credential may not do {rule['service']} {rule['method']} {rule['path']}. {add(rule)}."
        )
    return BadCredential(
        "The cloud takes the credential no more: it has ended, or it was revoked. Connect the account again."
    )


def locked(refusal: InUse, server_id: str) -> Locked | None:
    """The same as one that says what to do, where it is this; None where the machine is in use otherwise, which passes."""
    if not LOCKED.search(str(refusal)):
        return None
    return Locked(
        f"{refusal} Somebody has locked the machine, so it runs on, at its price. Whoever did unlocks it with “openstack server "
        f"unlock {server_id}”, or on the cloud's own page; it is then ended by itself."
    )


def no_sense(service: str) -> ProviderUnavailable:
    """For an answer that lacks what it must have."""
    return ProviderUnavailable(f"What the cloud's service “{service}” answers makes no sense. Try again later.")


def add(rule: Mapping[str, str]) -> str:
    """What to do where an access rule is missing."""
    return f"Make the application credential anew, with this access rule besides the others: {json.dumps(dict(rule))}"


def _wrong(status: int, asked: str, said: str) -> ProviderError:
    told = f"The cloud refuses {asked}: {f'“{said}”' if said else status}."
    if status == 404:
        return Missing(told)
    if status == 409:
        return InUse(told)
    if status in (301, 302, 303, 307, 308):
        return ProviderUnavailable("A service of the cloud has moved. Tell the people who run this broker.")
    return InvalidOrder(told)


def _quoted(said: str) -> str:
    return f" (“{said}”)" if said else ""
