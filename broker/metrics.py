"""What an operator can plot. Names are the field's: `anybinder_<noun>_<unit>`."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from broker.models import Launch, State

ENDED = Counter("anybinder_launches_ended_total", "Launches that ended, by backend and reason.", ["backend", "reason"])
READY = Counter("anybinder_launches_ready_total", "Launches that became ready, by backend.", ["backend"])
LAUNCH_SECONDS = Histogram(
    "anybinder_launch_seconds",
    "From the wish to ready.",
    ["backend"],
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
)
FORWARDS = Counter(
    "anybinder_forwards_total", "Tries at peers that are over, by peer and outcome.", ["peer", "outcome"]
)
REAPED = Counter("anybinder_reaped_total", "Instances the sweep ended that no launch wanted.", ["backend"])
UNASKED = Gauge("anybinder_unasked_accounts", "Accounts that did not answer when last asked what is left.", ["backend"])
GATEWAY_REQUESTS = Counter("anybinder_gateway_requests_total", "Requests forwarded, by class of status.", ["status"])
GATEWAY_BYTES = Counter(
    "anybinder_gateway_bytes_total", "Bytes of bodies forwarded, without WebSockets.", ["direction"]
)
TUNNEL_STREAMS = Gauge("anybinder_tunnel_streams", "Streams that agents have open, parked and taken.")
TUNNEL_SESSIONS = Gauge("anybinder_tunnel_sessions", "Sessions that have a stream.")

# BinderHub's own names, labels and steps, so that its dashboards show us as well. figures.py fills them from the table.
_ABOUT = ["status", "provider", "repo"]
BUILD_COUNT = Counter("binderhub_build_count", "Builds, by outcome and repository.", _ABOUT)
LAUNCH_COUNT = Counter("binderhub_launch_count", "Launches, by outcome and repository.", _ABOUT)
BUILD_SECONDS = Histogram(
    "binderhub_build_time_seconds", "What builds took.", ["status"], buckets=(60, 120, 300, 600, 1800, 3600, 7200)
)
STARTED_SECONDS = Histogram(
    "binderhub_launch_time_seconds",
    "What launches took once the build was there.",
    ["status", "retries"],
    buckets=(2, 5, 10, 20, 30, 60, 120, 300, 600),
)
BUILDS_NOW = Gauge("binderhub_inprogress_builds", "Builds that are under way.")
LAUNCHES_NOW = Gauge("binderhub_inprogress_launches", "Launches that are under way and not building.")
GITHUB_LEFT = Gauge("binderhub_github_rate_limit_remaining", "Look-ups that GitHub's API leaves us in this hour.")


def entered(launch: Launch, was: State) -> None:
    """Count a change of state."""
    if launch.state == was:
        return
    if launch.state == "ready" and launch.ready_at:
        became_ready(launch, launch.ready_at)
    if launch.state == "stopped":
        ENDED.labels(launch.backend, launch.reason or "unknown").inc()


def became_ready(launch: Launch, at: dt.datetime) -> None:
    """Count a session that can be entered now."""
    READY.labels(launch.backend).inc()
    LAUNCH_SECONDS.labels(launch.backend).observe((at - launch.created_at).total_seconds())
