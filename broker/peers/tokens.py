"""People's own tokens at peers: kept sealed, checked, and shown to that peer and to nobody else."""

from __future__ import annotations

import json
from typing import Any

import httpx

from broker import connections, errors, people
from broker.models import Connection
from broker.peers import registry
from broker.service import Service
from federation.peers import Peer
from providers import base
from providers import errors as clouds
from providers.sentences import say

TOKEN = base.Kind(
    name="token",
    title=say("A token that you make at that hub"),
    tier=base.Tier.KEPT,
    fields=(
        base.Setting(
            name="token",
            title=say("Token"),
            help=say("A JupyterHub API token of yours, with the scopes that are named above, and an end."),
            required=True,
            secret=True,
            pattern="[!-~]{8,}",
        ),
    ),
)
SCOPES = {
    "servers": say("to start your server there, look at it and end it"),
    "access:servers": say("to open what runs there"),
}
"""Of this person's own, by their names without `!user`."""
ENTER = "access:services"
"""A BinderHub that is a service of its hub lets nobody launch whose token may not enter it."""
COME_ALONG = ("start:servers", "delete:servers")
"""What JupyterHub adds by itself to those; and it shows what it also adds as `read:…`."""
SECONDS = 20.0


def target_of(name: str) -> str:
    """What a connection with this peer is called in the table."""
    return f"peer:{name}"


def listed(service: Service) -> dict[str, str]:
    """The peers that can be connected, by name, each with what pages call it."""
    return {each.name: each.peer.title for each in registry.known(service)}


def kinds(service: Service, person: people.Person, name: str) -> tuple[base.Kind, ...]:
    """The ways in which this person can connect this peer; none for visitors, or where there is no such peer."""
    return (TOKEN,) if name in listed(service) and not person.anonymous else ()


def guide(service: Service, person: people.Person, name: str, kind: str) -> base.Guide:
    """What a person is told and does. Raises NotFound."""
    if kind not in [each.name for each in kinds(service, person, name)]:
        raise errors.NotFound(say("There is no such way to connect. Choose one of those on the page."))
    peer = _peer(service, name)
    page = f"{peer.url}/hub/token"
    return base.Guide(
        can=(
            say("Start a server in your name there."),
            say("Look at it, and open what runs in it for you."),
            say("End it when you are done."),
        ),
        cannot=(
            say("It is shown to that hub and to nobody else."),
            say("Nothing is started there before you choose it as a place to run."),
        ),
        steps=(
            say(
                "Open %(page)s and ask for a token with the scopes %(scopes)s that expires in some months.",
                page=page,
                scopes=", ".join(_scopes(peer)),
            ),
            say("Copy it into the field below. It is sealed at once, and never shown again."),
        ),
        link=page,
        link_title=say("Make a token at %(title)s", title=peer.title),
        revoke=(say("Open %(page)s and revoke the token.", page=page),),
        narrows=say("A token can be limited by scopes, and by its end."),
    )


def check(service: Service, person: people.Person, connection_id: str) -> Connection:
    """Ask the hub whose token it is and what it may do; what it said is kept in the row that comes back.

    A refusal is a finding, not an error. Raises NotFound, ProviderUnavailable.
    """
    found = connections.get(service, person, connection_id)
    peer = _peer(service, found.target.partition(":")[2])
    told: dict[str, Any] = {"works": False, "who": "", "findings": [], "checked_at": service.now()}
    try:
        secret = connections.opened(service, found)
        who, scopes = _asked(peer, secret)
        findings = _findings(peer, who, scopes)
        lacking = [each.name for each in findings if each.works is False]
        trouble = f"The token may not do what is needed: {', '.join(lacking)}. Make one that may." if lacking else ""
        told |= {"who": who, "works": not lacking, "findings": connections.told(findings), "trouble": trouble}
    except clouds.BadCredential as refusal:
        told["trouble"] = str(refusal)
    connections.used(service, found, "check", outcome=str(told["trouble"]))
    connections.note(service, found, **told)
    return connections.get(service, person, connection_id)


def _peer(service: Service, name: str) -> Peer:
    found = registry.find(service, name)
    if found is None:
        raise errors.NotFound(say("That hub is none of those that can be connected here. Ask who runs this broker."))
    return found.peer


def _asked(peer: Peer, token: str) -> tuple[str, list[str]]:
    """Who the hub says it is, and its scopes. Redirects are not followed: the token goes to this hub only."""
    headers = {"Authorization": f"token {token}", "Accept": "application/json"}
    try:
        with httpx.Client(timeout=SECONDS, follow_redirects=False, trust_env=False) as client:
            answer = client.get(f"{peer.url}/hub/api/user", headers=headers)
    except httpx.HTTPError:
        raise clouds.ProviderUnavailable(
            say("%(title)s does not answer. Try again in a moment.", title=peer.title)
        ) from None
    if answer.status_code in (401, 403):
        raise clouds.BadCredential(say("%(title)s does not take this token. Make a new one.", title=peer.title))
    try:
        row = json.loads(answer.content) if answer.status_code == 200 else {}
        return str(row["name"]), [str(scope) for scope in row.get("scopes") or ()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise clouds.ProviderUnavailable(
            say(
                "%(title)s does not answer as a JupyterHub does (status %(status)s). Ask who runs it.",
                title=peer.title,
                status=answer.status_code,
            )
        ) from None


def _scopes(peer: Peer) -> dict[str, str]:
    """What a token for this peer has to be asked for with, each with what for."""
    own = {f"{name}!user": why for name, why in SCOPES.items()}
    return own | ({f"{ENTER}!service={peer.service}": "to ask its BinderHub for a launch"} if peer.service else {})


def _findings(peer: Peer, who: str, scopes: list[str]) -> list[base.Permission]:
    """Scope by scope what is there; those that are not needed are said, as are those that reach further than this person."""
    needed = _scopes(peer)
    own = (f"!user={who}", f"!server={who}/")
    fine = [scope for scope in scopes if "!" in scope and scope[scope.index("!") :].startswith(own)]
    fine = [scope for scope in fine if scope.startswith("read:") or scope.partition("!")[0] in (*SCOPES, *COME_ALONG)]
    found = [
        base.Permission(
            name=name,
            purpose=base.Purpose.LAUNCH,
            why=why,
            works=_holds(scopes, name),
            fix=say("Make a token with the scopes %(scopes)s.", scopes=", ".join(needed)),
        )
        for name, why in needed.items()
    ]
    extra = sorted(set(scopes) - set(fine) - set(needed))
    if extra:
        found.append(
            base.Permission(
                name=say("More than is needed: %(rights)s", rights=", ".join(extra[:5])),
                purpose=base.Purpose.LAUNCH,
                why=say("for nothing that is done here"),
                works=None,
                fix=say("Make a token with fewer scopes."),
            )
        )
    return found


def _holds(scopes: list[str], wanted: str) -> bool:
    """Whether one of them is this, or reaches further. A person's own scopes come with the person's name in them."""
    name, _, limit = wanted.partition("!")
    same = [scope.partition("!")[2] for scope in scopes if scope.partition("!")[0] == name]
    return bool(same) if limit == "user" else "" in same or limit in same
