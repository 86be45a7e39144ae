"""`/health`: what a federation and status pages ask. Their programs rely on the names of the checks and on their order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import httpx
import sqlalchemy as sa
import structlog

from broker import backends, reaper
from broker.forwarding import entrance
from broker.models import Launch, State
from broker.service import Service

log = structlog.get_logger(__name__)
REGISTRY_SECONDS = 15.0  # how long an answer is good; BinderHub's own values
COUNT_SECONDS = 60.0
REGISTRY_PATIENCE = 3.0
Found = TypeVar("Found")
Clock = Callable[[], float]


class Seldom(Generic[Found]):
    """Looks at most once in so many seconds, however often and by however many it is asked; in between, what was seen."""

    def __init__(self, look: Callable[[], Found], seconds: float, clock: Clock) -> None:
        self._look, self._seconds, self._clock = look, seconds, clock
        self._lock = threading.Lock()
        self._seen: tuple[float, Found] | None = None

    def __call__(self) -> Found:
        """What was seen last. Blocks while somebody looks. What raises is not kept."""
        with self._lock:
            if self._seen is None or self._clock() - self._seen[0] >= self._seconds:
                self._seen = (self._clock(), self._look())
            return self._seen[1]


class Health:
    """The checks of one process. Threads share it."""

    def __init__(self, service: Service, clock: Clock = time.monotonic) -> None:
        self._service = service
        self._registries = Seldom(lambda: all(map(answers, registries(service))), REGISTRY_SECONDS, clock)
        self._counted = Seldom(lambda: pods(service), COUNT_SECONDS, clock)

    def report(self) -> dict[str, Any]:
        """Everything, in BinderHub's order, then what is our own. Asks the table each time, the rest seldom."""
        try:
            running: int | None = reaper.unfinished(self._service)
            quota = self._counted()
            peers = [entrance.check(self._service)] if entrance.is_one(self._service) else []
            broken = ""
        except Exception as error:
            log.exception("unhealthy")
            running, quota, broken = None, {"total_pods": 0, "build_pods": 0, "user_pods": 0}, type(error).__name__
            peers = []
        checks: list[dict[str, Any]] = [
            {"service": "Docker registry", "ok": self._registries()},
            {"service": "JupyterHub API", "ok": not broken},
            {"service": "Pod quota", **self._quota(quota["total_pods"]), **quota, "_ignore_failure": True},
            {"service": "Database", "ok": not broken, **({"error": broken} if broken else {})},
            *peers,
        ]
        ok = all(check["ok"] for check in checks if not check.get("_ignore_failure"))
        return {"ok": ok, "checks": checks, **({} if running is None else {"launches": running})}

    def _quota(self, taken: int) -> dict[str, Any]:
        quota = quota_of(self._service)
        return {"quota": quota, "ok": quota is None or taken <= quota}


def pods(service: Service) -> dict[str, Any]:
    """BinderHub's count of what is starting and what runs, where `/build` runs it; everywhere, if that is nowhere. Where peers
    run it, their own counts and quotas together."""
    if entrance.is_one(service):
        return entrance.quota(service)
    backend = service.settings.binder_backend
    where = [Launch.backend == backend] if backend else []
    query = sa.select(Launch.state, sa.func.count()).where(Launch.state != State.STOPPED, *where).group_by(Launch.state)
    with service.db.reading() as session:
        count = dict(session.execute(query).all())
    user = count.get(State.READY, 0)
    total = sum(count.values()) - count.get(State.WAITING, 0)
    return {"total_pods": total, "build_pods": total - user, "user_pods": user}


def quota_of(service: Service) -> int | None:
    """How many may run: what the operator tells a federation, else the seats of the backend of `/build`."""
    chosen = service.settings
    if chosen.launch_quota is not None or not chosen.binder_backend:
        return chosen.launch_quota
    return backends.named(service, chosen.binder_backend).setting.max_sessions


def registries(service: Service) -> set[str]:
    """The hosts of the image registries that backends are configured with; what is behind a slash is a folder there."""
    named = (setting.configuration.get("registry", "").partition("/")[0] for setting in service.settings.backends)
    return {name for name in named if name}


def answers(registry: str) -> bool:
    """Whether this registry says anything at all: whether it lets us in is for builds to find out."""
    for scheme in ("https", "http"):
        try:
            httpx.get(f"{scheme}://{registry}/v2/", timeout=REGISTRY_PATIENCE)
        except httpx.HTTPError as error:
            log.warning("registry_unreachable", registry=registry, error=type(error).__name__)
        else:
            return True
    return False
