"""Subjects: the repositories that pages are about, looked up lately, for pages that wait for no host.

A page says what is known (`known`) and has it looked up beside (`look`). Kept in this process alone, for each person apart:
whether a private repository is there is told to nobody else.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from broker import errors, repo_access, repos, resources
from broker.people import Person
from broker.service import Service
from providers import errors as clouds

GOOD_FOR = dt.timedelta(seconds=60)  # a branch moves; the launch itself looks again in any case
MOST = 1000  # in memory


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What one address means, and what the repository asks for."""

    at: dt.datetime | None = None
    found: repos.Resolved | None = None
    asked: resources.Asked = resources.UNASKED
    trouble: str = ""
    """Why it could not be looked up, or its files not read, in a sentence."""


UNKNOWN = Subject()


def known(service: Service, person: Person, repo: str, ref: str = "") -> Subject | None:
    """What was found last, unless it is too long ago. Instant."""
    found = service.subjects.get((person.id, repo, ref))
    return found if found and found.at and service.now() - found.at < GOOD_FOR else None


def look(service: Service, person: Person, repo: str, ref: str = "") -> Subject:
    """Look it up, with this person's own right. Takes as long as its host does. Raises nothing of the host's."""
    found = _looked(service, person, repo, ref)
    service.subjects[person.id, repo, ref] = found
    for old in list(service.subjects)[: max(0, len(service.subjects) - MOST)]:
        service.subjects.pop(old, None)
    return found


def _looked(service: Service, person: Person, repo: str, ref: str) -> Subject:
    opener = repo_access.Opener(service, person)
    try:
        found = repo_access.resolve(service, person, service.repos.parse(repo, ref or None), opener)
    except (errors.BrokerError, repos.RepoError, clouds.ProviderError) as trouble:
        return Subject(at=service.now(), trouble=str(trouble))
    try:
        asked = resources.asked_in(service.repos.read(found, resources.FILES, opener))
    except (errors.BrokerError, repos.RepoError, clouds.ProviderError) as trouble:
        return Subject(at=service.now(), found=found, trouble=str(trouble))
    return Subject(at=service.now(), found=found, asked=asked)
