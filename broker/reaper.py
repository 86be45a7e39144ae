"""The third net: what the clouds list under our tag, minus what the table wants.

An empty or restored table never causes a mass delete: an order the table does not know is only reported until its
`until` has passed. What could not be asked is asked again in the next sweep, for ever.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, TypedDict

import sqlalchemy as sa
import structlog

from broker import backends, connections, metrics, people, rounds
from broker.models import Launch, Order, State
from broker.service import Service
from providers import base
from providers import errors as clouds

log = structlog.get_logger(__name__)
GRACE = dt.timedelta(minutes=2)  # past `until`, so that a launch's own teardown comes first

Verdict = Literal["wanted", "unwanted", "unknown", "expired", "foreign"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing a cloud lists: what, where, whose, since when, for how much, and what becomes of it."""

    backend: str
    instance: base.Instance
    verdict: Verdict
    why: str
    person: str = ""
    """Whose it is, by the launch it belongs to, else by the account it is in; empty where nobody can say."""
    launch: str | None = None
    """The launch of ours that it belongs to; None where the table knows of none."""
    since: dt.datetime | None = None
    price_per_hour: Decimal | None = None
    """By the offer it was bought at; None where nobody knows."""
    currency: str = "USD"
    ends_at: dt.datetime | None = None
    """When the sweep will end it, where nobody wants it and that moment has not come."""
    trouble: str = ""
    """Why it could not be ended; it is tried again."""

    @property
    def ends(self) -> bool:
        """Whether the sweep ends it."""
        return self.verdict in ("unwanted", "expired")

    def cost(self, now: dt.datetime) -> Decimal | None:
        """What it has cost so far, as far as that is known."""
        if self.price_per_hour is None or self.since is None:
            return None
        hours = Decimal(max(0.0, (now - self.since).total_seconds())) / 3600
        return (self.price_per_hour * hours).quantize(Decimal("0.000001"))


def sweep(service: Service, *, dry_run: bool = False, everything: bool = False) -> list[Finding]:
    """Look into every account, end what nobody wants, and say what was found.

    Takes as long as the clouds do, `rounds.SECONDS` at most; what could not be asked by then is in `rounds.unasked`, and is
    left for next time. `everything`: also accounts in which nothing should be, which are otherwise looked into rarely.
    """

    def look(station: rounds.Station, account: backends.Account) -> list[Finding]:
        found = [finding if dry_run else _end(account, finding) for finding in listed(service, station, account)]
        connections.looked_into(service, station.connection)
        return found

    answers = rounds.ask(service, rounds.everywhere(service, rarely=not everything), look, what="sweep")
    _count_unasked(service)
    return [finding for answer in answers for finding in answer.found or ()]


def listed(service: Service, station: rounds.Station, account: backends.Account) -> list[Finding]:
    """All that is in one account under our tag, judged. Ends nothing. Raises ProviderError."""
    found = account.instances(service.keys.broker_id)
    return [_judge(service, station, instance) for instance in found]


def _end(account: backends.Account, finding: Finding) -> Finding:
    """End it where nobody wants it. One that cannot be ended keeps no other from being ended."""
    instance = finding.instance
    if not finding.ends:
        return finding
    log.warning("reaped", backend=finding.backend, instance=instance.id, why=finding.why)
    try:
        account.terminate(instance.id, instance.tag.order if instance.tag else "")
    except clouds.ProviderError as error:
        log.warning("reaping_failed", backend=finding.backend, instance=instance.id, error=str(error))
        return replace(finding, trouble=str(error))
    if instance.state is not base.InstanceState.STOPPING:
        metrics.REAPED.labels(finding.backend).inc()
    return finding


def _judge(service: Service, station: rounds.Station, instance: base.Instance) -> Finding:
    """Read after the cloud was asked: an order is written before it is bought, so what is listed is in the table."""
    plain = Finding(
        backend=station.backend.name,
        instance=instance,
        verdict="unknown",
        why="the table does not know it",
        person=station.connection.person if station.connection else "",
        since=instance.created_at,
    )
    tag = instance.tag
    if tag is None or tag.broker != service.keys.broker_id:
        return replace(plain, verdict="foreign", why="it carries no tag of this broker")
    with service.db.reading() as session:
        order = session.get(Order, tag.order)
        launch = session.get(Launch, order.launch_id) if order else None
    if order is None or launch is None:
        return _unknown(service, plain, tag.until)
    known = replace(
        plain,
        person=launch.person,
        launch=launch.id,
        since=instance.created_at or order.asked_at,
        **rate(order),
    )
    if order.closed_at is not None or launch.state is State.STOPPED:
        return replace(known, verdict="unwanted", why="its launch is over")
    return replace(known, verdict="wanted", why=f"launch {launch.id} is {launch.state.value}")


class Rate(TypedDict):
    """What an hour costs: fields of a Finding."""

    price_per_hour: Decimal | None
    currency: str


def rate(order: Order) -> Rate:
    """By the offer it was bought at."""
    price = order.offer.get("price_per_hour")
    return Rate(price_per_hour=None if price is None else Decimal(price), currency=order.offer.get("currency", "USD"))


def _unknown(service: Service, plain: Finding, until: dt.datetime) -> Finding:
    """No row of ours says whose it is: only its own `until` says that nobody can want it any more."""
    if service.now() > until + GRACE:
        return replace(plain, verdict="expired", why="the table does not know it, and nobody can want it any more")
    why = f"the table does not know it; it ends after {until:%Y-%m-%d %H:%M} UTC"
    return replace(plain, why=why, ends_at=until + GRACE)


def report(service: Service, findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings of a sweep as JSON, and after them what could not be asked, as of the verdict `unasked`."""
    unasked = rounds.unasked(service)
    owners = {found.person for found in findings} | {each.connection.person for each, _ in unasked if each.connection}
    names = {person: people.known(service, person).name for person in owners if person}
    return [_told(service, names, found) for found in findings] + [
        {
            "backend": station.backend.name,
            "instance": "",
            "verdict": "unasked",
            "why": known.trouble,
            "ends": False,
            "person": station.connection.person if station.connection else "",
            "name": names.get(station.connection.person, "") if station.connection else "",
            "since": known.unasked_since.isoformat() if known.unasked_since else None,
        }
        for station, known in unasked
    ]


def _told(service: Service, names: Mapping[str, str], found: Finding) -> dict[str, Any]:
    cost = found.cost(service.now())
    return {
        "backend": found.backend,
        "instance": found.instance.id,
        "parts": list(found.instance.parts),
        "state": found.instance.state.value,
        "verdict": found.verdict,
        "why": found.why,
        "ends": found.ends,
        "trouble": found.trouble,
        "person": found.person,
        "name": names.get(found.person, ""),
        "launch": found.launch,
        "since": found.since.isoformat() if found.since else None,
        "ends_at": found.ends_at.isoformat() if found.ends_at else None,
        "price_per_hour": None if found.price_per_hour is None else f"{found.price_per_hour:f}",
        "currency": found.currency,
        "cost": None if cost is None else f"{cost:f}",
    }


def _count_unasked(service: Service) -> None:
    unasked = [station.backend.name for station, _ in rounds.unasked(service)]
    for backend in backends.offered(service):
        metrics.UNASKED.labels(backend.name).set(unasked.count(backend.name))


def unfinished(service: Service) -> int:
    """Launches that are not stopped yet."""
    with service.db.reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Launch).where(Launch.state != State.STOPPED)) or 0
