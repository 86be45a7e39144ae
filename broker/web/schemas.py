"""What the API takes and gives. Field names are a contract: scripts rely on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from broker import budgets, errors, pasting, people, resources, sessions
from broker.forwarding import choosing, entering
from broker.models import Launch, State
from broker.people import Person
from broker.service import Service
from broker.sizes import SizeSetting
from providers.sentences import say


def _amount(read: Callable[[Any], Any]) -> BeforeValidator:
    """`4G` as well as a number."""

    def validate(value: Any) -> Any:
        try:
            return value if value is None else read(value)
        except errors.BadRequest as fault:
            raise ValueError(str(fault)) from None

    return BeforeValidator(validate, json_schema_input_type=str | float | None)


_BUDGET = _amount(lambda value: str(budgets.read(value)))


class LaunchRequest(BaseModel):
    """A wish, as JSON. `memory` is `4G`, `512M` or a number of megabytes; `disk` is `20G` or a number of gigabytes.

    `budget` is the most that it may cost: `2.50`, or `500 SU`. `elsewhere` are backends to go on to where the chosen one has
    nothing; `hedge` orders a second machine where the first takes longer than usual. `size` is one of this hub's plain sizes, and
    says what no exact figure says.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    repo: str = Field(min_length=1, max_length=2000)
    ref: str | None = Field(None, max_length=500)
    path: str | None = Field(None, max_length=2000)
    backend: str | None = Field(None, max_length=128)
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    hours: float | None = Field(None, gt=0, le=24 * 30)
    cpu: float | None = Field(None, gt=0, le=10_000)
    memory_mb: Annotated[int | None, _amount(resources.megabytes)] = Field(None, alias="memory")
    disk_gb: Annotated[int | None, _amount(resources.gigabytes)] = Field(None, alias="disk")
    gpu: int | None = Field(None, ge=0, le=1000)
    budget: Annotated[str | None, _BUDGET] = Field(None, max_length=20)
    prefer: Literal["price", "ready"] = "price"
    spot: bool = False
    hedge: bool = False
    elsewhere: list[Annotated[str, Field(max_length=64)]] = Field(default_factory=list, max_length=16)
    size: str | None = Field(None, max_length=31)
    consent: bool | str = False

    def wished(self, sizes: Sequence[SizeSetting]) -> dict[str, Any]:
        """The fields of a wish. Raises BadRequest where there is no such size."""
        told = self.model_dump(exclude={"size"})
        if self.size is None:
            return told
        found = next((size for size in sizes if size.name == self.size), None)
        if found is None:
            names = ", ".join(size.name for size in sizes)
            raise errors.BadRequest(
                say("There is no size “%(size)s” here. There are: %(sizes)s.", size=self.size, sizes=names)
            )
        figures = found.model_dump(include={"cpu", "memory_mb", "disk_gb", "gpu"})
        return {**told, **{name: figure for name, figure in figures.items() if told[name] is None}}


class Extension(BaseModel):
    """How much longer a session is to last."""

    model_config = ConfigDict(extra="forbid")

    hours: float = Field(gt=0, le=24 * 30)


class Refusal(BaseModel):
    """What anything that went wrong is told as."""

    detail: str
    """A sentence for a person, that says what to do."""
    reason: str
    """One word for programs."""


def launch_json(service: Service, person: Person, launch: Launch) -> dict[str, Any]:
    """A launch as this person sees it: with the way in while there is one, where it is theirs."""

    def iso(name: str) -> str | None:
        value = getattr(launch, name)
        return value.isoformat() if value else None

    shown = {
        "id": launch.id,
        "name": launch.name,
        "person": launch.person,
        "state": launch.state.value,
        "phase": launch.phase.value,
        "repo": launch.web_url,
        "title": launch.title,
        "spec": launch.spec,
        "ref": launch.ref,
        "commit": launch.commit,
        "path": launch.path,
        "backend": launch.backend,
        "peer": choosing.shown(service, launch.backend),
        "hours": launch.hours,
        "cpu": launch.cpu,
        "memory_mb": launch.memory_mb,
        "disk_gb": launch.disk_gb,
        "gpu": launch.gpu,
        "budget": None if launch.budget is None else str(launch.budget.normalize()),
        "currency": launch.currency,
        "prefer": launch.prefer,
        "spot": launch.spot,
        "hedge": launch.hedged,
        "elsewhere": launch.elsewhere,
        "offer": launch.offer,
        "image": launch.image,
        "idle_minutes": launch.idle_minutes,
        "reason": launch.reason,
        "message": launch.message,
        **{name: iso(name) for name in ("created_at", "ready_at", "stopped_at", "deadline_at", "last_activity_at")},
    }
    more = {**way_in(service, launch), **pasting.told(service, launch)} if may_enter(person, launch) else {}
    return {**shown, **more}


def may_enter(person: Person, launch: Launch) -> bool:
    """Whether they are shown the way in: it is theirs, and what they ask with may do more than look."""
    return people.owns(person, launch) and person.may("launch")


def way_in(service: Service, launch: Launch) -> dict[str, str]:
    """`url` for scripts, `browser_url` for people, and the token that opens both; nothing unless it is ready."""
    if there := entering.entry(service, launch):
        return {"url": there.url, "browser_url": there.page, "token": there.token}
    if launch.state is not State.READY or launch.stop_wanted:
        return {}
    return {
        "url": sessions.script_url(service, launch),
        "browser_url": sessions.url(service, launch),
        "token": sessions.launch_token(service, launch.id),
    }
