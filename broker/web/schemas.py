"""What the API takes and gives. Field names are a contract: scripts rely on them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from broker import sessions
from broker.models import Launch, State
from broker.service import Service


class LaunchRequest(BaseModel):
    """A wish, as JSON."""

    model_config = ConfigDict(extra="forbid")

    repo: str = Field(min_length=1, max_length=2000)
    ref: str | None = Field(None, max_length=500)
    path: str | None = Field(None, max_length=2000)
    backend: str | None = Field(None, max_length=64)
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    hours: float | None = Field(None, gt=0, le=24 * 30)
    consent: bool | str = False


def launch_json(service: Service, launch: Launch) -> dict[str, Any]:
    """A launch as its owner sees it, with the way in while there is one."""

    def iso(name: str) -> str | None:
        value = getattr(launch, name)
        return value.isoformat() if value else None

    shown = {
        "id": launch.id,
        "name": launch.name,
        "state": launch.state.value,
        "phase": launch.phase.value,
        "repo": launch.web_url,
        "title": launch.title,
        "spec": launch.spec,
        "ref": launch.ref,
        "commit": launch.commit,
        "path": launch.path,
        "backend": launch.backend,
        "hours": launch.hours,
        "idle_minutes": launch.idle_minutes,
        "reason": launch.reason,
        "message": launch.message,
        **{name: iso(name) for name in ("created_at", "ready_at", "stopped_at", "deadline_at", "last_activity_at")},
    }
    return {**shown, **way_in(service, launch)}


def way_in(service: Service, launch: Launch) -> dict[str, str]:
    """`url` for scripts, `browser_url` for people, and the token that opens both; nothing unless it is ready."""
    if launch.state is not State.READY or launch.stop_wanted:
        return {}
    return {
        "url": sessions.script_url(service, launch),
        "browser_url": sessions.url(service, launch),
        "token": sessions.launch_token(service, launch.id),
    }
