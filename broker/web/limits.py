"""How often somebody may ask: one client for a launch without a build token (BinderHub's fixed window, and its headers), and
one person for what is guessed or has us ask others."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from limits import RateLimitItemPerSecond, errors, storage, strategies

from broker import settings
from broker.web import callers

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Charged:
    """What is left to a client after this request."""

    limit: int
    remaining: int
    reset: int
    """When the window ends, in seconds since 1970."""
    exceeded: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """As BinderHub's clients read it."""
        told = {"limit": self.limit, "remaining": self.remaining, "reset": self.reset}
        return {f"x-ratelimit-{name}": str(value) for name, value in told.items()}


class RateLimit:
    """One a process; processes that share Redis share the count."""

    def __init__(self, chosen: settings.Settings) -> None:
        self.seconds = chosen.rate_limit_seconds
        self._item = RateLimitItemPerSecond(chosen.rate_limit, self.seconds) if chosen.rate_limit else None
        self._limiter = _limiter(chosen)

    def charge(self, client: str) -> Charged | None:
        """Count one request of this client. None where nothing is limited. May ask Redis; without it all may pass."""
        if self._item is None:
            return None
        who = ("build", callers.network(client))
        try:
            passed = self._limiter.hit(self._item, *who)
            window = self._limiter.get_window_stats(self._item, *who)
        except errors.StorageError as error:
            log.warning("rate_limit_unreachable", error=type(error.storage_error).__name__)
            return None
        return Charged(
            limit=self._item.amount,
            remaining=window.remaining,
            reset=int(window.reset_time),
            exceeded=not passed,
        )


class Allowance:
    """How often one person may do something of ours. One a process; processes that share Redis share it."""

    def __init__(self, chosen: settings.Settings, use: str, amount: int, seconds: int) -> None:
        self._use = use
        self._item = RateLimitItemPerSecond(amount, seconds)
        self._limiter = _limiter(chosen)

    def spend(self, person_id: str) -> bool:
        """Whether this person may do it once more now. May ask Redis; without it all may."""
        try:
            return self._limiter.hit(self._item, self._use, person_id)
        except errors.StorageError as error:
            log.warning("rate_limit_unreachable", error=type(error.storage_error).__name__)
            return True


def _limiter(chosen: settings.Settings) -> strategies.FixedWindowRateLimiter:
    redis = chosen.redis_url.get_secret_value()
    address = f"redis+{redis}" if redis.startswith("unix:") else redis
    return strategies.FixedWindowRateLimiter(storage.storage_from_string(address or "memory://", wrap_exceptions=True))
