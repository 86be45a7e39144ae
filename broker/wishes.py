"""What a person asks for, and the launch it makes."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import dataclass

from broker import backends, crypto, errors, people, repos
from broker.models import Consent, Launch, Phase, State
from broker.service import Service


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person asks for. `repo` is anything `repos.RepoSpec.parse` understands."""

    repo: str
    ref: str | None = None
    path: str | None = None
    backend: str | None = None
    name: str | None = None
    hours: float | None = None
    consent: str | bool = False
    """True, or the commit agreed to. Needed where the session runs as the person."""


def require_consent(
    service: Service, person: people.Person, wish: Wish, found: repos.Resolved, backend: backends.Backend
) -> None:
    """Remember a consent that is given; raise ConsentNeeded where one is needed and missing."""
    key = (person.id, found.repo_url, found.commit)
    if wish.consent is True or wish.consent == found.commit:
        with service.db.transaction() as session:
            session.merge(Consent(person=key[0], repo_url=key[1], commit=key[2], at=service.now()))
    elif backend.provider.on_this_computer and not consented(service, person, found):
        raise errors.ConsentNeeded


def consented(service: Service, person: people.Person, found: repos.Resolved) -> bool:
    """Whether this person has agreed to run this commit as themselves."""
    with service.db.reading() as session:
        return session.get(Consent, (person.id, found.repo_url, found.commit)) is not None


def row(
    service: Service, person: people.Person, wish: Wish, found: repos.Resolved, backend: backends.Backend
) -> Launch:
    """The launch this wish makes, not yet written. Raises BadRequest."""
    now, chosen = service.now(), service.settings
    longest = backend.setting.max_hours or chosen.max_hours
    hours = min(wish.hours or longest, longest)
    if hours <= 0:
        raise errors.BadRequest("A session needs a positive number of hours.")
    path = wish.path if wish.path is not None else _asked_to_open(found)
    preparing = dt.timedelta(minutes=chosen.boot_minutes * chosen.attempts + chosen.build_minutes)
    return Launch(
        id=crypto.new_id(12),
        person=person.id,
        name=wish.name or f"{found.slug[:40]}-{crypto.new_id(6)}",
        fingerprint=_fingerprint(found.repo_url, found.commit, path, backend.name, hours),
        spec=found.spec_string,
        repo_url=found.repo_url,
        web_url=found.web_url,
        title=found.spec.repo.partition("://")[2].removesuffix(".git") or found.spec.repo,
        ref=found.ref,
        commit=found.commit,
        path=path,
        backend=backend.name,
        hours=hours,
        idle_minutes=backend.setting.idle_minutes or chosen.idle_minutes,
        state=State.WAITING,
        phase=Phase.WAITING,
        stop_wanted=False,
        reason="",
        message="",
        created_at=now,
        entered_at=now,
        deadline_at=now + preparing + dt.timedelta(hours=hours),
        due_at=now,
        events=0,
    )


def _asked_to_open(found: repos.Resolved) -> str:
    """The file or address that a pasted link names."""
    return found.path or (f"/{found.spec.urlpath.lstrip('/')}" if found.spec.urlpath else "")


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
