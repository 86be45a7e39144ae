"""What a person asks for, and the launch it makes."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from broker import backends, connections, crypto, errors, people, repo_access, repos, resources, settings
from broker.models import Consent, Launch, Phase, State
from broker.repos import errors as repo_errors
from broker.service import Service
from providers import base


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person asks for. `repo` is anything `repos.RepoSpec.parse` understands."""

    repo: str
    ref: str | None = None
    path: str | None = None
    backend: str | None = None
    name: str | None = None
    hours: float | None = None
    cpu: float | None = None
    memory_mb: int | None = None
    disk_gb: int | None = None
    gpu: int | None = None
    consent: str | bool = False
    """True, or the commit agreed to. Needed where the session runs as the person."""
    launch_id: str | None = None
    """Chosen by the caller, so that asking again with it gives the launch that there is and never a second one."""
    asked_from: str = "api"
    """`api`, `page` or `build`."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """What BinderHub's clients are told of their request (models.Launch.request)."""
    build_only: bool = False
    """Build the image, start nothing."""

    @property
    def resources(self) -> base.Resources:
        """What is asked for; None is for others to say."""
        return base.Resources(
            cpu=self.cpu, memory_mb=self.memory_mb, disk_gb=self.disk_gb, gpu=self.gpu, hours=self.hours
        )


def opener(service: Service, person: people.Person, wish: Wish) -> repo_access.Opener:
    """What opens private repositories for this wish: the person's own right, and nobody's for a link to /build."""
    return repo_access.Opener(service, people.ANONYMOUS if wish.asked_from == "build" else person)


def require_consent(
    service: Service, person: people.Person, wish: Wish, found: repos.Resolved, backend: backends.Backend
) -> None:
    """Remember a consent that is given; raise ConsentNeeded where one is needed and missing."""
    key = (person.id, found.repo_url, found.commit)
    if wish.consent is True or wish.consent == found.commit:
        with service.db.transaction() as session:
            session.merge(Consent(person=key[0], repo_url=key[1], commit=key[2], at=service.now()))
    elif not backend.provider.confined and not consented(service, person, found):
        raise errors.ConsentNeeded


def consented(service: Service, person: people.Person, found: repos.Resolved) -> bool:
    """Whether this person has agreed to run this commit as themselves."""
    with service.db.reading() as session:
        return session.get(Consent, (person.id, found.repo_url, found.commit)) is not None


def needed(
    service: Service,
    person: people.Person,
    wish: Wish,
    found: repos.Resolved,
    backend: backends.Backend,
    opener: repo_access.Opener,
) -> tuple[base.Resources, list[str]]:
    """What the session shall have, hours included, and sentences on what turned out other than was asked for.

    Asks the repository for its own files. Raises BadRequest, NoBackend, RepoError.
    """
    asked, notes = _asked_by_repository(service, found, opener)
    default = base.Resources(**backend.setting.resources.model_dump())
    chosen, raised = resources.settle(asked, wish.resources, default)
    chosen, lowered = resources.within(chosen, _most(person, backend), asked)
    notes += [*raised, *lowered]
    longest = backend.setting.max_hours or service.settings.max_hours
    hours = longest if chosen.hours is None else chosen.hours
    if hours <= 0:
        raise errors.BadRequest("A session needs a positive number of hours.")
    if asked.required.hours and asked.required.hours > longest:
        notes.append(
            f"{asked.file} requires {asked.required.hours:g} hours; no session here is longer than {longest:g}."
        )
    return replace(chosen, hours=min(hours, longest)), notes


def _most(person: people.Person, backend: backends.Backend) -> base.Resources:
    """The backend's limits. A visitor's repository does not choose how much of the operator's computer it gets."""
    limits, default = backend.setting.most.model_dump(), backend.setting.resources.model_dump()
    if person.anonymous:
        limits = {name: default[name] if limit is None else limit for name, limit in limits.items()}
    return base.Resources(**limits)


def _asked_by_repository(
    service: Service, found: repos.Resolved, opener: repo_access.Opener
) -> tuple[resources.Asked, list[str]]:
    """What the repository's own files ask for; a host in trouble keeps nobody from launching, and is said."""
    try:
        return resources.asked_in(service.repos.read(found, resources.FILES, opener)), []
    except (repo_errors.HostUnavailable, repo_errors.RateLimited, repo_errors.TooBig) as trouble:
        return resources.Asked(), [f"What the repository asks for in memory and processors is not known: {trouble}"]


def preparing(chosen: settings.Settings) -> dt.timedelta:
    """The longest that a launch may take from its seat to a running session."""
    return dt.timedelta(minutes=chosen.boot_minutes * chosen.attempts + chosen.build_minutes)


def row(
    service: Service,
    person: people.Person,
    wish: Wish,
    found: repos.Resolved,
    backend: backends.Backend,
    has: base.Resources,
) -> Launch:
    """The launch this wish makes, not yet written."""
    now, chosen = service.now(), service.settings
    hours = has.hours or chosen.max_hours
    connection = connections.for_backend(service, person, backend)
    path = wish.path if wish.path is not None else _asked_to_open(found)
    return Launch(
        id=wish.launch_id or crypto.new_id(12),
        person=person.id,
        # Two of nobody's may have no name in common: the second would be given the first one's session.
        name=wish.name or f"{found.slug[:40]}-{wish.launch_id or crypto.new_id(6)}",
        fingerprint=_fingerprint(found.repo_url, found.commit, path, backend.name, asdict(has)),
        spec=found.spec_string,
        repo_url=found.repo_url,
        web_url=found.web_url,
        title=found.spec.repo.partition("://")[2].removesuffix(".git") or found.spec.repo,
        ref=found.ref,
        commit=found.commit,
        content=dict(found.content),
        path=path,
        backend=backend.name,
        connection_id=connection.id if connection else None,
        repo_connection_id=found.opened_with or None,
        hours=hours,
        cpu=has.cpu,
        memory_mb=has.memory_mb,
        disk_gb=has.disk_gb,
        gpu=has.gpu,
        idle_minutes=backend.setting.idle_minutes or chosen.idle_minutes,
        asked_from=wish.asked_from,
        request=dict(wish.request),
        build_only=wish.build_only,
        image="",
        state=State.WAITING,
        phase=Phase.WAITING,
        stop_wanted=False,
        reason="",
        message="",
        created_at=now,
        followed_at=now,
        entered_at=now,
        deadline_at=now + preparing(chosen) + dt.timedelta(hours=hours),
        due_at=now,
        events=0,
    )


def _asked_to_open(found: repos.Resolved) -> str:
    """The file or address that a pasted link names."""
    return found.path or (f"/{found.spec.urlpath.lstrip('/')}" if found.spec.urlpath else "")


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
