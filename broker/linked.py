"""A person's own token for a repository host, which Keycloak was given when they linked their account there.

It has their rights at GitHub or GitLab, no more, and is asked for anew each time: nothing of it is kept here.
Keycloak has two interfaces for it. The first asks with the person's access token, which must have the role `read-token`;
the second, where it is switched on, asks as our client and names the person's token.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from urllib.parse import parse_qs, quote, quote_plus, urlencode

import httpx
import structlog

from broker import errors, openid, people, settings, signins, uses
from broker.models import SignIn
from broker.openid import asking
from broker.service import Service

log = structlog.get_logger(__name__)
TOKEN_MOST = 4096
NOT_HERE = (400, 404, 405, 501)
"""How Keycloak answers that has only the second interface (26.7 with 400), and where the first knows of no such link."""


class LinkRefused(errors.BrokerError):
    """The token for your repositories, which your sign-in keeps for you, cannot be had. Link the account again, or connect
    one under Accounts."""

    status_code, reason = 502, "linked_token"


def token_for(service: Service, person: people.Person, prefix: str, *, launch_id: str | None = None) -> str | None:
    """The person's own token for this repository host, a secret; None where they have linked no account that has one.

    Asks their identity provider, seconds at most, and writes down that it did. Raises SignInAgain where it must be asked in
    person first, Unavailable, LinkRefused.
    """
    for sign_in, identity in _places(service, person, prefix):
        try:
            found = _asked(service, sign_in, identity, identity.linked[prefix])
        except errors.BrokerError as trouble:
            _note(service, person, launch_id, str(trouble))
            raise
        if found:
            _note(service, person, launch_id, "")
            return found
    return None


def _places(service: Service, person: people.Person, prefix: str) -> Iterator[tuple[SignIn, settings.IdentitySetting]]:
    """Where to ask: the sign-in that they ask with first, then any other of theirs that lasts; each account once."""
    living = sorted(signins.of(service, person), key=lambda row: row.id != person.sign_in)
    seen: set[tuple[str, str]] = set()
    for row in living:
        identity = openid.identity_of(service, row.issuer)
        if identity and prefix in identity.linked and row.grant and (row.issuer, row.subject) not in seen:
            seen.add((row.issuer, row.subject))
            yield row, identity


def _asked(service: Service, sign_in: SignIn, identity: settings.IdentitySetting, alias: str) -> str | None:
    token = openid.access_token(service, sign_in)
    web = asking.Web(identity.called, asking.SECONDS)
    url = f"{identity.issuer.rstrip('/')}/broker/{quote(alias, safe='')}/token"
    what = "the token it keeps for you"
    answer = web.ask(asking.Asked(what=what, url=url, headers={"Authorization": f"Bearer {token}"}))
    if answer.status_code in NOT_HERE and identity.client_secret.get_secret_value():
        form = urlencode({"token": token})
        headers = {"Authorization": _as_client(identity), "Content-Type": "application/x-www-form-urlencoded"}
        answer = web.ask(asking.Asked(what=what, url=url, headers=headers, form=form))
    return _read(answer, identity, alias)


def _read(answer: httpx.Response, identity: settings.IdentitySetting, alias: str) -> str | None:
    """The token in the answer; None where this person has none there."""
    title = identity.called
    if answer.status_code in (200, 204):
        found = parsed(answer.text)
        if found is None:
            log.warning("linked_token_unreadable", provider=identity.name, alias=alias)
        return found
    log.info("linked_token_refused", provider=identity.name, alias=alias, status=answer.status_code)
    if answer.status_code in (400, 404, 502):
        return None  # no account linked there, or its token has run out
    if answer.status_code == 401:
        raise errors.SignInAgain
    if answer.status_code == 403:
        raise LinkRefused(
            f"{title} does not let this broker read the tokens it keeps for people. Whoever runs it can change that: "
            "`anybinder keycloak init` sets it up."
        )
    raise openid.Unavailable(title, "the token it keeps for you")


def parsed(text: str) -> str | None:
    """The access token in what an identity provider once answered Keycloak, which keeps it as it came: JSON, or a form's
    fields. None where there is none that can be sent."""
    try:
        told = json.loads(text)
    except ValueError:
        told = {name: values[0] for name, values in parse_qs(text.strip()).items()}
    found = told.get("access_token") if isinstance(told, dict) else None
    fits = isinstance(found, str) and 0 < len(found) <= TOKEN_MOST and found.isascii() and found.isprintable()
    return found if fits and " " not in found else None


def _as_client(identity: settings.IdentitySetting) -> str:
    pair = f"{quote_plus(identity.client_id)}:{quote_plus(identity.client_secret.get_secret_value())}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _note(service: Service, person: people.Person, launch_id: str | None, outcome: str) -> None:
    uses.write(service, person.id, "linked token", launch_id=launch_id, outcome=outcome)
