"""Links whose repository, branch or commit is no longer there: what has changed, and what can be opened in its place.

What this broker has seen of it are its launches: the person's own and visitors'. Other people's are nobody's business.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import sqlalchemy as sa

from broker import errors, people, repo_access, repos
from broker.models import Launch
from broker.people import Person
from broker.repos import errors as repo_errors
from broker.service import Service
from providers import errors as clouds

REASONS = (repo_errors.NotFound.reason, repo_errors.RefNotFound.reason)
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a launch of this repository had found."""

    commit: str
    at: dt.datetime


@dataclass(frozen=True, kw_only=True)
class Lapsed:
    """What is left of something that a link names. All of it was there a moment ago."""

    repo: str
    """As people call it."""
    ref: str
    gone: bool
    """The repository itself is gone, or private now; else only what `ref` says."""
    meant: Seen | None = None
    """What `ref` was when it was last launched here; None where it never was."""
    archived: repos.Resolved | None = None
    """The same files, as Software Heritage has kept them."""
    archived_commit: str = ""
    """The commit that those are of."""
    last: repos.Resolved | None = None
    """What was last launched here, if it is still there."""
    last_at: dt.datetime | None = None
    newest: repos.Resolved | None = None
    """The newest commit of the default branch."""

    @property
    def pinned(self) -> bool:
        """The link names one commit."""
        return bool(COMMIT.fullmatch(self.ref))


def look(service: Service, person: Person, repo: str, ref: str = "") -> Lapsed | None:
    """What has become of it; None while it is there, or nobody can say. Takes as long as its host and the archive do."""
    opener = repo_access.Opener(service, person)
    try:
        spec = service.repos.parse(repo, ref or None)
        repo_access.resolve(service, person, spec, opener)
    except repo_errors.NotFound as refusal:
        return _left(service, person, spec, opener, gone=not isinstance(refusal, repo_errors.RefNotFound))
    except (errors.BrokerError, clouds.ProviderError):
        return None
    return None


def _left(service: Service, person: Person, spec: repos.RepoSpec, opener: repo_access.Opener, *, gone: bool) -> Lapsed:
    seen = _launched(service, person, spec) if repos.providers[spec.provider].has_ref else []
    meant = next((launch for launch in seen if spec.ref in (launch.ref, launch.commit)), None)
    last = (
        meant if meant and meant.commit != spec.ref else next((each for each in seen if each.commit != spec.ref), None)
    )

    def there(other: repos.RepoSpec) -> repos.Resolved | None:
        try:
            return repo_access.resolve(service, person, other, opener)
        except (errors.BrokerError, clouds.ProviderError):
            return None

    found = Lapsed(repo=spec.called, ref=spec.ref, gone=gone, meant=_seen(meant))
    if not gone:
        found = replace(
            found,
            last=there(spec.at(last.commit)) if last else None,
            last_at=last.created_at if last else None,
            newest=there(spec.at("HEAD")) if spec.ref != "HEAD" else None,
        )
    for archived, commit in _archived(spec, meant, last if gone else None):
        if kept := there(archived):
            return replace(found, archived=kept, archived_commit=commit)
    return found


def _launched(service: Service, person: Person, spec: repos.RepoSpec) -> list[Launch]:
    """Launches of this repository that this person may know of, the newest first; few."""
    base = str(spec.at("x")).removesuffix("x")
    mine = Launch.person == person.id
    public = sa.and_(Launch.person == people.ANONYMOUS.id, Launch.repo_connection_id.is_(None))
    query = (
        sa.select(Launch)
        .where(sa.func.lower(Launch.spec).startswith(base.lower(), autoescape=True), sa.or_(mine, public))
        .order_by(Launch.created_at.desc())
        .limit(50)
    )
    with service.db.reading() as session:
        return [launch for launch in session.scalars(query) if "/" not in launch.spec[len(base) :]]


def _seen(launch: Launch | None) -> Seen | None:
    return Seen(commit=launch.commit, at=launch.created_at) if launch else None


def _archived(spec: repos.RepoSpec, *launched: Launch | None) -> Iterator[tuple[repos.RepoSpec, str]]:
    """Where the archive would have it, the nearest to what was asked for first."""
    if spec.provider in ("swh", "docker") or not repos.providers[spec.provider].has_ref:
        return
    commits = [spec.ref, *(launch.commit for launch in launched if launch)]
    for commit in dict.fromkeys(each for each in commits if COMMIT.fullmatch(each)):
        yield repos.RepoSpec(provider="swh", repo=f"swh:1:rev:{commit}"), commit
