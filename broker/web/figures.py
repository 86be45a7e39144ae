"""BinderHub's figures, made from the table whenever somebody asks for `/metrics`: so every process that serves tells the
same of launches that any process advanced. They begin at zero when it starts."""

from __future__ import annotations

import datetime as dt
import threading

import sqlalchemy as sa

from broker import metrics, repos
from broker.models import Event, Launch, Order, Phase, State
from broker.service import Service

LATE = dt.timedelta(minutes=2)  # a row may be committed a little after the moment it names
BUILDING = (Phase.FETCHING, Phase.BUILDING, Phase.PUSHING)
NO_FAULT = ("asked", "built")  # ended before it was ready because that was wanted


class Figures:
    """What was counted of one table. Threads share it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._since = self._started = service.now()
        self._counted: dict[str, dt.datetime] = {}
        self._lock = threading.Lock()

    def update(self) -> None:
        """Count what came to an outcome since the last time, and what is under way now."""
        with self._lock:
            now = self._service.now()
            for launch in self._settled(max(self._started, self._since - LATE)):
                if launch.id not in self._counted:
                    self._counted[launch.id] = now
                    self._count(launch)
            self._since = now
            self._counted = {known: at for known, at in self._counted.items() if at > now - 2 * LATE}
        self._count_running()
        if (left := self._service.repos.api_remaining) is not None:
            metrics.GITHUB_LEFT.set(left)

    def _settled(self, since: dt.datetime) -> list[Launch]:
        failed = sa.and_(Launch.ready_at.is_(None), Launch.stopped_at >= since)
        with self._service.db.reading() as session:
            return list(session.scalars(sa.select(Launch).where(sa.or_(Launch.ready_at >= since, failed))))

    def _count(self, launch: Launch) -> None:
        began, ended = self._built(launch)
        # Figures are for many eyes, and the name of a private repository is not.
        about = labels(launch.spec, "private" if launch.repo_connection_id else launch.repo_url)
        good = launch.ready_at is not None
        if not good and launch.reason in NO_FAULT and not launch.build_only:
            return
        if began:
            status = "success" if ended else "failure"
            metrics.BUILD_COUNT.labels(status, *about).inc()
            took = (ended or launch.stopped_at or began) - began
            metrics.BUILD_SECONDS.labels(status).observe(took.total_seconds())
        if good or ((ended or not began) and not launch.build_only):
            metrics.LAUNCH_COUNT.labels("success" if good else "failure", *about).inc()
            start = ended or launch.seated_at or launch.created_at
            took = (launch.ready_at or launch.stopped_at or start) - start
            self._took(launch, took.total_seconds(), good=good)

    def _took(self, launch: Launch, seconds: float, *, good: bool) -> None:
        with self._service.db.reading() as session:
            query = sa.select(sa.func.count()).select_from(Order).where(Order.launch_id == launch.id)
            tries = session.scalar(query) or 1
        status, retries = ("success", str(tries - 1)) if good else ("failure", "-1")
        metrics.STARTED_SECONDS.labels(status, retries).observe(max(0.0, seconds))

    def _built(self, launch: Launch) -> tuple[dt.datetime | None, dt.datetime | None]:
        """When its build began and when it was there; None for what never was."""
        query = sa.select(Event.phase, Event.at).where(Event.launch_id == launch.id, Event.phase.is_not(None))
        began = ended = None
        with self._service.db.reading() as session:
            for phase, at in session.execute(query.order_by(Event.number)):
                if phase is Phase.BUILDING and began is None:
                    began = at
                elif phase in (Phase.BUILT, Phase.LAUNCHING, Phase.READY):
                    ended = ended or at
        return began, ended

    def _count_running(self) -> None:
        query = (
            sa.select(Launch.phase, sa.func.count())
            .where(Launch.state.in_((State.PLACED, State.AUTHORIZED, State.STARTING)))
            .group_by(Launch.phase)
        )
        with self._service.db.reading() as session:
            count = dict(session.execute(query).all())
        building = sum(count.get(phase, 0) for phase in BUILDING)
        metrics.BUILDS_NOW.set(building)
        metrics.LAUNCHES_NOW.set(sum(count.values()) - building)


def labels(spec: str, repo_url: str) -> tuple[str, str]:
    """Provider and repository as BinderHub's metrics name them."""
    prefix = spec.partition("/")[0]
    known = repos.providers.get(prefix)
    return (known.title if known else prefix), repo_url
