"""Which repositories may run where, and how many sessions of one: BinderHub's rules, for a host and for a backend."""

from __future__ import annotations

import re
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy import orm

from broker import backends, db, errors, repos, settings
from broker.models import Launch, State
from broker.service import Service


def check(service: Service, found: repos.Resolved, backend: backends.Backend | None) -> None:
    """Raises SpecBanned where the operator does not let this run, by this host's rules or this backend's.

    Without a backend a peer runs it, which has rules of its own.
    """
    for rules, specs in _rules(service, found, backend):
        if any(_matches(rules.banned_specs, spec) for spec in specs) or not _allowed(rules, specs):
            raise errors.SpecBanned(found.spec.spec)


def check_quota(service: Service, session: orm.Session, launch: Launch, found: repos.Resolved) -> None:
    """Raises RepoQuota where one more session of this repository would be too many.

    Counts within the transaction that is about to write the launch, and no other can count at the same time.
    """
    backend = next((each for each in backends.offered(service) if each.name == launch.backend), None)
    (host, host_specs), (own, own_specs) = _rules(service, found, backend)
    for quota, where in (
        (quota_of(host, host_specs), sa.true()),
        (quota_of(own, own_specs), Launch.backend == launch.backend),
    ):
        if quota:
            db.one_at_a_time(session, f"quota {launch.repo_url}")
            if _running(session, launch.repo_url, where) >= quota:
                raise errors.RepoQuota(launch.repo_url)


def quota_of(rules: settings.Policy, specs: Iterable[str]) -> int | None:
    """How many sessions of one such repository these rules allow at once; None or 0 for any number."""
    higher = any(_matches(rules.high_quota_specs, spec) for spec in specs)
    quota = rules.per_repo_quota_higher if higher else rules.per_repo_quota
    for one in rules.spec_config:
        if one.config.quota is not None and any(_matches((one.pattern,), spec) for spec in specs):
            quota = one.config.quota
    return quota


def _rules(
    service: Service, found: repos.Resolved, backend: backends.Backend | None
) -> tuple[tuple[settings.Policy, tuple[str, ...]], tuple[settings.Policy, tuple[str, ...]]]:
    """The host's rules see specs without prefix, as BinderHub's; the backend's see whole ones."""
    whole = (str(found.spec), found.spec_string)
    bare = tuple(spec.partition("/")[2] for spec in whole)
    own = backend.setting if backend else settings.Policy()
    return (service.settings.repo_host(found.spec.provider), bare), (own, whole)


def _allowed(rules: settings.Policy, specs: Iterable[str]) -> bool:
    return not rules.allowed_specs or any(_matches(rules.allowed_specs, spec) for spec in specs)


def _matches(patterns: Iterable[str], spec: str) -> bool:
    return any(re.match(pattern, spec, re.IGNORECASE) for pattern in patterns)


def _running(session: orm.Session, repo_url: str, where: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.count()).where(Launch.repo_url == repo_url, Launch.state != State.STOPPED, where)
    return session.scalar(query.select_from(Launch)) or 0
