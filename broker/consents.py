"""What people have agreed to: to run this commit of this repository, with what is at stake; or any commit of it, as long as
nothing more is.

Where code runs as the person, it is always one commit, never whatever comes.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import sqlalchemy as sa

from broker import backends, connections, errors, people, repo_access, repos, threats
from broker.models import Consent
from broker.service import Service
from providers.sentences import say

ANY_COMMIT = "*"


def require(
    service: Service,
    person: people.Person,
    found: repos.Resolved,
    situation: threats.Situation,
    *,
    given: str | bool = False,
    linked: bool = False,
    lasting: bool = False,
) -> None:
    """Remember a consent that is given, raise ConsentNeeded where one is needed and missing.

    `given`: True, or the commit agreed to. `linked`: somebody else's link asks for it. `lasting`: not to be asked again for
    this repository; taken only where it is confined.
    """
    linked = linked or _came_by_link(service, person, found)
    if not threats.must_ask(situation, linked=linked):
        return
    if given is True or given == found.commit:
        _remember(service, person, found, situation, lasting=lasting and situation.confined)
    elif not covered(service, person, found, situation):
        raise errors.ConsentNeeded


def covered(service: Service, person: people.Person, found: repos.Resolved, situation: threats.Situation) -> bool:
    """Whether this person has agreed to all that is at stake with this commit."""
    commits = (found.commit, ANY_COMMIT) if situation.confined else (found.commit,)
    with service.db.reading() as session:
        rows = [session.get(Consent, (person.id, found.repo_url, commit)) for commit in commits]
    return any(row is not None and threats.at_stake(situation) <= threats.read(row.threats) for row in rows)


def situation(
    service: Service, person: people.Person, found: repos.Resolved, backend: backends.Backend, server: str = ""
) -> threats.Situation:
    """How things stand for this person with this repository there. `server`: one of their own, which that backend knows."""
    confined = backend.provider.confined and not server
    here = backend.provider.on_this_computer and not confined
    return threats.Situation(
        where=say("your server") if server else say("this computer") if here else backend.title,
        confined=confined,
        own_account=backend.asks_for_account,
        own_server=bool(server),
        own_code=_is_theirs(service, person, found),
    )


def _remember(
    service: Service, person: people.Person, found: repos.Resolved, situation: threats.Situation, *, lasting: bool
) -> None:
    agreed = threats.at_stake(situation)
    with service.db.transaction() as session:
        for commit in (found.commit, *([ANY_COMMIT] if lasting else [])):
            before = session.get(Consent, (person.id, found.repo_url, commit))
            all_agreed = agreed | (threats.read(before.threats) if before else frozenset())
            row = Consent(person=person.id, repo_url=found.repo_url, commit=commit, at=service.now())
            row.threats = threats.written(all_agreed)
            session.merge(row)


def _came_by_link(service: Service, person: people.Person, found: repos.Resolved) -> bool:
    """Whether this person was asked about it at their expense before: somebody else's it stays, whatever leads to it now."""
    agreed = sa.select(Consent.threats).where(Consent.person == person.id, Consent.repo_url == found.repo_url)
    with service.db.reading() as session:
        return any(threats.Threat.ACTIONS not in threats.read(each) for each in session.scalars(agreed))


def _is_theirs(service: Service, person: people.Person, found: repos.Resolved) -> bool:
    """Whether its owner at its host is the account that this person has connected there."""
    if person.anonymous:
        return False
    prefix = repo_access.prefix_of(service, found.spec)
    connection = connections.find(service, person.id, repo_access.target_of(prefix)) if prefix else None
    owner = urlsplit(found.repo_url).path.strip("/").partition("/")[0]
    return bool(connection and connection.works and owner and connection.who.lower() == owner.lower())
