"""What a connected account may do, thing by thing, without buying any of it.

What only looks is really asked. Whether something may be created or deleted cannot be tried without doing it: there the
access rules that the token names say when it is certainly not allowed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

import requests
from keystoneauth1 import access

from providers import base
from providers.errors import BadCredential, ProviderUnavailable
from providers.openstack import keystone, needs, refusals, services
from providers.openstack.keystone import Cloudy
from providers.openstack.needs import Need

SECONDS_EACH = 8
LEAST_SECONDS = 1
MARGIN = SECONDS_EACH + 2  # an answer that trickles in takes as long again as its time to connect

Rules = list[Mapping[str, str]] | None


def permissions(cloudy: Cloudy, known: access.AccessInfoV3, purpose: base.Purpose) -> list[base.Permission]:
    """What this purpose needs. Buys nothing. Raises BadCredential, ProviderUnavailable."""
    until = time.monotonic() + base.CALL_SECONDS - MARGIN
    rules = keystone.rules(known)
    return [_signed_in(known, purpose), *_own_end(cloudy, known, purpose, rules),
            *_each(cloudy, known, purpose, rules, until)]  # fmt: skip


def _signed_in(known: access.AccessInfoV3, purpose: base.Purpose) -> base.Permission:
    return base.Permission(
        name="identity POST /v3/auth/tokens", purpose=purpose, why=f"to sign in: {keystone.who(known)}", works=True
    )


def _own_end(
    cloudy: Cloudy, known: access.AccessInfoV3, purpose: base.Purpose, rules: Rules
) -> Iterator[base.Permission]:
    """Signing in has asked for it already, and done without where it was refused: so it is only told, never missing."""
    if known.application_credential_id is None:
        return
    rule = needs.OWN_END.rule(urlsplit(cloudy.cloud.auth_url).path)
    allowed = rules is None or needs.allows(rules, rule)
    yield base.Permission(
        name=needs.OWN_END.name(urlsplit(cloudy.cloud.auth_url).path),
        purpose=purpose,
        why="to see when it ends; otherwise only the end of each token, or the date that you typed, is relied on",
        works=True if allowed else None,
        fix="" if allowed else refusals.add(rule),
    )


def _each(
    cloudy: Cloudy, known: access.AccessInfoV3, purpose: base.Purpose, rules: Rules, until: float
) -> Iterator[base.Permission]:
    for need in needs.wanted(addresses=bool(cloudy.cloud.floating_network)):
        if purpose not in need.purposes:
            continue
        address = services.endpoint(cloudy, known, need.service)
        if address is None:
            if need.service == "compute":
                yield _missing_service(cloudy, need, purpose)
            continue
        prefix = urlsplit(address).path
        works, fix = _try(cloudy, known, need, address, rules, until)
        yield base.Permission(name=need.name(prefix), purpose=purpose, why=need.why, works=works, fix=fix)


def _try(
    cloudy: Cloudy, known: access.AccessInfoV3, need: Need, address: str, rules: Rules, until: float
) -> tuple[bool | None, str]:
    rule = need.rule(urlsplit(address).path)
    if cloudy.cloud.encrypted and not address.startswith("https://"):
        return False, f"The cloud offers its service “{need.service}” without encryption. Tell its operators."
    if rules is not None and not needs.allows(rules, rule):
        return None if need.optional else False, refusals.add(rule)
    if need.method != "GET":
        return None, _only_looks(known)
    if "{" in need.path:
        return None, ""  # there is no machine to ask for
    left = until - time.monotonic()
    if left < LEAST_SECONDS:
        raise ProviderUnavailable("The cloud answers too slowly to be checked now. Try again later.")
    seconds = min(SECONDS_EACH, left)
    answer = cloudy.get(f"{address}{need.path}{need.query}", str(known.auth_token), seconds)
    return _heard(answer, need, rules, known)


def _heard(answer: requests.Response, need: Need, rules: Rules, known: access.AccessInfoV3) -> tuple[bool | None, str]:
    if answer.status_code == HTTPStatus.OK:
        return True, ""
    if answer.status_code == HTTPStatus.UNAUTHORIZED and rules is not None:
        return (
            False,
            f"The cloud's service “{need.service}” refuses what the access rule allows. Tell the cloud's operators.",
        )
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        raise BadCredential("The cloud takes the token no more: it was revoked while it was checked. Sign in again.")
    if answer.status_code == HTTPStatus.FORBIDDEN:
        held = ", ".join(keystone.roles(known))
        return False, f"Your role in the project ({held}) may not do this. Ask for the role “member” there."
    return None, f"The cloud answers {answer.status_code}, which says neither yes nor no."


def _missing_service(cloudy: Cloudy, need: Need, purpose: base.Purpose) -> base.Permission:
    return base.Permission(
        name=need.name(needs.USUAL[need.service]),
        purpose=purpose,
        why=need.why,
        works=False,
        fix=f"The cloud shows your project no service “{need.service}”{services.where(cloudy)}. "
        "Ask its operators to open it to the project.",
    )


def _only_looks(known: access.AccessInfoV3) -> str:
    if keystone.roles(known) == ["reader"]:
        return "Its only role is “reader”, which in most clouds may look and do nothing else: “member” may."
    return ""
