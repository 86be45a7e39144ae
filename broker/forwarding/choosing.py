"""Who can take a launch: which peers are open to this person for this repository, and which of them is asked first."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from broker import connections, errors, peers, people, repos
from broker.forwarding import rows
from broker.models import Connection, Forward, Launch
from broker.people import Person
from broker.service import Service
from federation import health, routing
from providers.sentences import say

STANDARD = ("gh", "gist", "gl", "git", "zenodo", "figshare", "hydroshare", "dataverse", "ckan")
"""What every BinderHub of the last years knows, for one that does not say."""
IMAGE_DAYS = 14  # for how long an image is thought to be where it was last run
BUILDS_MOST = 2  # a build that failed at two hubs fails at the third as well
NO_ROOM = "None of the hubs behind this one has room at the moment. Try again in a few minutes."
WHY = {
    health.Condition.FULL: "It is full at the moment. Choose another place, or come back later.",
    health.Condition.DRAINING: "It takes no new sessions at the moment. Choose another place, or come back later.",
    health.Condition.RESTING: "It went down too often lately, so it is left alone for a while. Choose another place.",
    health.Condition.DOWN: "It does not answer as it should at the moment. Choose another place, or come back later.",
}


@dataclass(frozen=True, kw_only=True)
class What:
    """What is to be run, as far as a peer is concerned."""

    spec: str
    """BinderHub's string with its prefix, at a fixed commit."""
    repo_url: str
    commit: str
    kind: str
    """`git`, `files` or `image` (repos.Resolved.content)."""
    private: bool
    """Not there for everybody."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A peer as one person may use it now."""

    known: peers.Known
    closed: str | None
    """Why it cannot be chosen, in a sentence; None where it can."""
    connection: Connection | None
    connect: str
    """Where a token of theirs is connected; empty where none is needed."""

    @property
    def name(self) -> str:
        """What forms, links and `--on` call it."""
        return self.known.name


def of(found: repos.Resolved) -> What:
    """What a repository that was looked up is."""
    kind = str(found.content.get("kind", "git"))
    return What(
        spec=found.spec_string,
        repo_url=found.repo_url,
        commit=found.commit,
        kind=kind,
        private=bool(found.opened_with),
    )


def of_launch(launch: Launch) -> What:
    """What a launch runs."""
    kind = str(launch.content.get("kind", "git"))
    private = launch.repo_connection_id is not None
    return What(spec=launch.spec, repo_url=launch.repo_url, commit=launch.commit, kind=kind, private=private)


def options(service: Service, person: Person, what: What | None = None) -> list[Option]:
    """Every peer, each with why this person cannot run this there. Asks nobody."""
    theirs = {found.target: found for found in connections.of(service, person)} if not person.anonymous else {}
    return [_option(service, person, each, theirs, what) for each in peers.known(service)]


def is_peer(service: Service, name: str) -> bool:
    """Whether a place of this name is a peer, as opposed to a backend or nothing."""
    return not _is_backend(service, name) and peers.find(service, name) is not None


def title(service: Service, name: str) -> str:
    """What pages call this peer; its name where it is none any more."""
    found = peers.find(service, name)
    return found.peer.title if found else name


def shown(service: Service, name: str) -> dict[str, Any] | None:
    """Whose terms apply to what runs at this peer, as JSON; None where it is a backend, without a look at the table."""
    found = None if _is_backend(service, name) else peers.find(service, name)
    if found is None:
        return None
    peer = found.peer
    return {
        "name": peer.name,
        "title": peer.title,
        "url": peer.binder,
        "publishes": peer.publishes,
        "terms_url": peer.terms_url,
        "privacy_url": peer.privacy_url,
    }


def of_anybody(service: Service, found: repos.Resolved) -> What:
    """The same as `of`, having looked whether it is there for somebody without any key, where the operator's own token may have
    opened it. Looks the repository up then; whoever cannot be asked is taken for private."""
    what = of(found)
    host = service.settings.repo_host(found.spec.provider)
    if what.private or what.kind != "git" or not host.token.get_secret_value():
        return what
    try:
        service.repos.resolve(repos.providers["git"].parse(f"{quote(found.repo_url, safe='')}/HEAD"))
    except repos.RepoError:
        return replace(what, private=True)
    return what


def chosen(service: Service, person: Person, name: str, what: What) -> Option:
    """The peer of this name, for this person and repository. Raises NotForPeers, NoBackend with the reason."""
    option = next((each for each in options(service, person, what) if each.name == name), None)
    if option is None:
        raise errors.NoBackend(say("There is no place to run called “%(name)s”.", name=name[:40]))
    if what.private and option.known.peer.publishes:
        raise errors.NotForPeers
    if option.closed:
        raise errors.NoBackend(option.closed)
    return option


def best(service: Service, what: What) -> Option:
    """The peer that is asked first for somebody whom nobody knows. Raises NoBackend, NotForPeers."""
    found = options(service, people.ANONYMOUS, what)
    best_first = order(service, what, [each for each in found if each.closed is None])
    if best_first:
        return best_first[0]
    if what.private:
        raise errors.NotForPeers
    if not found:
        raise errors.NoBackend
    raise errors.NoBackend(NO_ROOM)


def following(service: Service, launch: Launch) -> Option | None:
    """The peer that this launch is to be tried at now: its own first, then by `routing`; None where none is left.

    It never goes on to one that publishes what it runs from one that does not, and not to a third where two could not build it.
    """
    tried = rows.of_launch(service, launch.id)
    if sum(each.outcome == "build_failed" for each in tried) >= BUILDS_MOST:
        return None
    what, person = of_launch(launch), people.known(service, launch.person)
    found = [each for each in options(service, person, what) if each.closed is None]
    gone = {each.peer for each in tried if each.outcome != rows.INTERRUPTED}
    fresh = [each for each in found if each.name not in gone]
    own = [each for each in fresh if each.name == launch.backend]
    if own and not tried:
        return own[0]
    if not _began_public(service, tried, launch):
        fresh = [each for each in fresh if not each.known.peer.publishes]
    interrupted = {each.peer for each in tried}
    best_first = sorted(order(service, what, fresh), key=lambda each: each.name in interrupted)
    return next(iter(best_first), None)


def order(service: Service, what: What, found: Iterable[Option]) -> list[Option]:
    """The best first: by repository, so that what was built is found again; past what is nearly full."""
    return ranked(service, what.repo_url.lower(), found, _with_image(service, what.spec))


def ranked(service: Service, key: str, found: Iterable[Option], there: Collection[str] = ()) -> list[Option]:
    """The best first for this key; `there`: names of those that have the image."""
    by_name = {each.name: each for each in found}
    now, recent = service.now(), _recent(service)
    candidates = [
        routing.Candidate(
            name=each.name,
            weight=each.known.peer.weight,
            room=_room(each.known.standing, recent[each.name]),
            known=each.known.condition(now) is health.Condition.OPEN,
            has_image=each.name in there,
        )
        for each in by_name.values()
    ]
    return [by_name[each.name] for each in routing.order(key, candidates)]


def spec_at(service: Service, known: peers.Known, what: What) -> str | None:
    """How this is asked for at that peer; None where it knows no such host. What our own settings moved to another address
    is another thing there, and goes by its address."""
    prefix = what.spec.partition("/")[0]
    speaks = known.providers or STANDARD
    host = service.settings.repo_host(prefix)
    if prefix in speaks and not host.url and not host.api:
        return what.spec
    if what.kind == "git" and "git" in speaks:
        return f"git/{quote(what.repo_url, safe='')}/{what.commit}"
    return None


def _option(
    service: Service, person: Person, known: peers.Known, theirs: Mapping[str, Connection], what: What | None
) -> Option:
    connection = None if known.peer.anonymous else theirs.get(peers.target_of(known.name))
    asks = not known.peer.anonymous and not person.anonymous
    return Option(
        known=known,
        closed=_closed(service, person, known, connection, what),
        connection=connection,
        connect=f"/connect/peer/{known.name}" if asks else "",
    )


def _closed(
    service: Service, person: Person, known: peers.Known, connection: Connection | None, what: What | None
) -> str | None:
    if person.anonymous and not service.settings.binder_peers:
        return say("Only people who are signed in may run things there.")
    if what is not None and what.private and known.peer.publishes:
        return str(errors.NotForPeers())
    if what is not None and spec_at(service, known, what) is None:
        return say("It cannot read repositories from this host. Choose another place.")
    if not known.peer.anonymous and connection is None:
        return say("Connect a token of yours there first.")
    if connection is not None and connection.works is False:
        return connection.trouble or say("Your token was refused there. Check its connection.")
    return WHY.get(known.condition(service.now()))


def _began_public(service: Service, tried: list[Forward], launch: Launch) -> bool:
    """Whether what it was first sent to publishes what it runs."""
    first = peers.find(service, tried[0].peer if tried else launch.backend)
    return first is not None and first.peer.publishes


def _is_backend(service: Service, name: str) -> bool:
    return any(setting.name == name for setting in service.settings.backends)


def _with_image(service: Service, spec: str) -> set[str]:
    since = service.now() - dt.timedelta(days=IMAGE_DAYS)
    query = (
        sa.select(Forward.peer)
        .join(Launch, Launch.id == Forward.launch_id)
        .where(Launch.spec == spec, Forward.ready_at.is_not(None), Forward.opened_at > since)
        .distinct()
    )
    with service.db.reading() as session:
        return set(session.scalars(query))


def _recent(service: Service) -> Counter[str]:
    """What we have sent where since peers were last asked how full they are."""
    since = service.now() - dt.timedelta(seconds=service.settings.peer_look_seconds)
    query = (
        sa.select(Forward.peer, sa.func.count())
        .where(Forward.closed_at.is_(None), Forward.opened_at > since)
        .group_by(Forward.peer)
    )
    with service.db.reading() as session:
        return Counter(dict(session.execute(query).all()))


def _room(standing: health.Standing, sent: int) -> float | None:
    if standing.room is None or not standing.quota:
        return standing.room
    return max(0.0, standing.room - sent / standing.quota)
