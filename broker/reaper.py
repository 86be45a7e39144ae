"""The third net: what the clouds list under our tag, minus what the table wants.

An empty or restored table never causes a mass delete: an order the table does not know is only reported until its
`until` has passed.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa
import structlog

from broker import backends, connections, metrics
from broker.models import Launch, Order, State
from broker.service import Service
from providers import base
from providers import errors as clouds

log = structlog.get_logger(__name__)
GRACE = dt.timedelta(minutes=2)  # past `until`, so that a launch's own teardown comes first

Verdict = Literal["wanted", "unwanted", "unknown", "expired"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing a cloud lists: what, where, whose, and what becomes of it."""

    backend: str
    instance: base.Instance
    verdict: Verdict
    why: str

    @property
    def ends(self) -> bool:
        """Whether the sweep ends it."""
        return self.verdict in ("unwanted", "expired")


def sweep(service: Service, *, dry_run: bool = False) -> list[Finding]:
    """Look at every backend, end what nobody wants, and say what was found. A cloud out of reach is left for next time."""
    findings: list[Finding] = []
    for backend in backends.offered(service):
        if not backend.provider.buys:
            continue
        try:
            findings += _sweep_one(service, backend, dry_run=dry_run)
        except clouds.ProviderError as error:
            log.warning("sweep_failed", backend=backend.name, error=str(error))
    return findings


def _sweep_one(service: Service, backend: backends.Backend, *, dry_run: bool) -> list[Finding]:
    findings: list[Finding] = []
    for _connection, account in connections.to_sweep(service, backend):
        try:
            listed = account.instances(service.keys.broker_id)
            findings += (found := [_judge(service, backend.name, instance) for instance in listed])
            for finding in found:
                if finding.ends and not dry_run:
                    _end(account, finding)
        except clouds.ProviderError as error:
            log.warning("sweep_failed", backend=backend.name, error=str(error))
    return findings


def _end(account: backends.Account, finding: Finding) -> None:
    instance = finding.instance
    log.warning("reaped", backend=finding.backend, instance=instance.id, why=finding.why)
    account.terminate(instance.id, instance.tag.order if instance.tag else "")
    if instance.state is not base.InstanceState.STOPPING:
        metrics.REAPED.labels(finding.backend).inc()


def _judge(service: Service, backend: str, instance: base.Instance) -> Finding:
    """Read after the cloud was asked: an order is written before it is bought, so what is listed is in the table."""

    def verdict(word: Verdict, why: str) -> Finding:
        return Finding(backend=backend, instance=instance, verdict=word, why=why)

    tag = instance.tag
    if tag is None or tag.broker != service.keys.broker_id:
        return verdict("unknown", "it carries no tag of this broker")
    with service.db.reading() as session:
        order = session.get(Order, tag.order)
        launch = session.get(Launch, order.launch_id) if order else None
    if order is None or launch is None:
        if service.now() > tag.until + GRACE:
            return verdict("expired", "the table does not know it, and nobody can want it any more")
        return verdict("unknown", f"the table does not know it; it ends after {tag.until:%Y-%m-%d %H:%M} UTC")
    if order.closed_at is not None or launch.state is State.STOPPED:
        return verdict("unwanted", "its launch is over")
    return verdict("wanted", f"launch {launch.id} is {launch.state.value}")


def unfinished(service: Service) -> int:
    """Launches that are not stopped yet."""
    with service.db.reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Launch).where(Launch.state != State.STOPPED)) or 0
