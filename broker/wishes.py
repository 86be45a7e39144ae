"""What a person asks for, and the launch it makes."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from broker import (
    backends,
    budgets,
    connections,
    consents,
    crypto,
    errors,
    people,
    placement,
    policy,
    repo_access,
    repos,
    resources,
    settings,
)
from broker.forwarding import choosing
from broker.models import Connection, Launch, Phase, State
from broker.repos import errors as repo_errors
from broker.service import Service
from providers import base
from providers.sentences import say

Place = backends.Backend | choosing.Option
"""Where a launch runs: a backend, or a peer as its person may use it."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person asks for. `repo` is anything `repos.RepoSpec.parse` understands."""

    repo: str
    ref: str | None = None
    path: str | None = None
    backend: str | None = None
    """A place as `placement.places` names it: a backend, or a server of the person's own there."""
    name: str | None = None
    hours: float | None = None
    cpu: float | None = None
    memory_mb: int | None = None
    disk_gb: int | None = None
    gpu: int | None = None
    budget: str | None = None
    """The most that it may cost, as `budgets.read` takes it."""
    prefer: Literal["price", "ready"] = "price"
    """What offers are ordered by."""
    spot: bool = False
    """Machines that the cloud may take away are fine."""
    hedge: bool = False
    """Order a second machine where the first takes longer than usual; whichever is ready first stays."""
    elsewhere: Sequence[str] = ()
    """Other backends to go on to, in this order, where the chosen one has nothing."""
    consent: str | bool = False
    """True, or the commit agreed to. Needed where the session runs as the person, or somebody else's link is at their expense."""
    linked: bool = False
    """Somebody else's link asks for it."""
    lasting_consent: bool = False
    """They are not to be asked again for this repository, as long as nothing more is at stake."""
    launch_id: str | None = None
    """Chosen by the caller, so that asking again with it gives the launch that there is and never a second one."""
    asked_from: str = "api"
    """`api`, `page` or `build`."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """What BinderHub's clients are told of their request (models.Launch.request)."""
    build_only: bool = False
    """Build the image, start nothing."""

    @property
    def place(self) -> tuple[str | None, str]:
        """The backend, and the offer of a server of the person's own that is named behind a slash; empty for none."""
        name, _, offer = (self.backend or "").partition("/")
        return name or None, offer

    @property
    def resources(self) -> base.Resources:
        """What is asked for; None is for others to say."""
        return base.Resources(
            cpu=self.cpu, memory_mb=self.memory_mb, disk_gb=self.disk_gb, gpu=self.gpu, hours=self.hours
        )


def opener(service: Service, person: people.Person, wish: Wish) -> repo_access.Opener:
    """What opens private repositories for this wish: the person's own right, and nobody's for a link to /build."""
    return repo_access.Opener(service, people.ANONYMOUS if wish.asked_from == "build" else person)


def require_consent(
    service: Service,
    person: people.Person,
    wish: Wish,
    found: repos.Resolved,
    backend: backends.Backend,
    server: str = "",
) -> None:
    """Remember a consent that is given; raise ConsentNeeded where one is needed and missing. `server`: one of their own there."""
    situation = consents.situation(service, person, found, backend, server)
    consents.require(
        service, person, found, situation, given=wish.consent, linked=wish.linked, lasting=wish.lasting_consent
    )


def needed(
    service: Service,
    person: people.Person,
    wish: Wish,
    found: repos.Resolved,
    backend: backends.Backend,
    opener: repo_access.Opener,
) -> tuple[base.Resources, list[str]]:
    """What the session shall have, hours included, and sentences on what turned out other than was asked for.

    Asks the repository for its own files. Raises BadRequest, NoBackend, RepoError.
    """
    asked, notes = _asked_by_repository(service, found, opener)
    default = backend.usual
    chosen, raised = resources.settle(asked, wish.resources, default)
    chosen, lowered = resources.within(chosen, backend.most(person), asked)
    notes += [*raised, *lowered]
    longest = backend.longest(service)
    hours = longest if chosen.hours is None else chosen.hours
    if hours <= 0:
        raise errors.BadRequest(say("A session needs a positive number of hours."))
    if asked.required.hours and asked.required.hours > longest:
        notes.append(
            f"{asked.file} requires {asked.required.hours:g} hours; no session here is longer than {longest:g}."
        )
    return replace(chosen, hours=min(hours, longest)), notes


def peer(service: Service, person: people.Person, wish: Wish, found: repos.Resolved) -> choosing.Option | None:
    """The peer that this is to run at; None where a backend runs it. Raises NotForPeers, NoBackend, SignInAgain, BadRequest.

    A link to `/build` goes to one by itself only where that is what the operator wants.
    """
    if wish.backend and choosing.is_peer(service, wish.backend):
        option = choosing.chosen(service, person, wish.backend, choosing.of_anybody(service, found))
    elif not wish.backend and wish.asked_from == "build" and service.settings.binder_peers:
        option = choosing.best(service, choosing.of_anybody(service, found))
    else:
        return None
    if option.connection is not None and not people.recent(service, person):
        raise errors.SignInAgain
    if wish.build_only:
        raise errors.BadRequest(say("A peer builds nothing without launching it. Choose another place."))
    return option


def needed_at(service: Service, wish: Wish) -> tuple[base.Resources, list[str]]:
    """The same as `needed` at a peer, where only the hours are ours to say."""
    longest = service.settings.max_hours
    hours = longest if wish.hours is None else wish.hours
    if hours <= 0:
        raise errors.BadRequest(say("A session needs a positive number of hours."))
    sized = any(value is not None for value in (wish.cpu, wish.memory_mb, wish.disk_gb, wish.gpu))
    notes = ["How much memory and how many processors it gets is for that hub to say."] if sized else []
    return base.Resources(hours=min(hours, longest)), notes


def others(
    service: Service,
    person: people.Person,
    wish: Wish,
    found: repos.Resolved,
    chosen: Place,
    has: base.Resources,
) -> list[Place]:
    """The other places that this wish names, each once. Raises BadField where one of them could not run it."""
    names = [name for name in dict.fromkeys(wish.elsewhere) if name != chosen.name]
    return [_other(service, person, wish, found, name, has) for name in names]


def _other(
    service: Service, person: people.Person, wish: Wish, found: repos.Resolved, name: str, has: base.Resources
) -> Place:
    """What holds for the chosen place holds for every other as well, and is asked before the launch may go there by itself."""
    try:
        if choosing.is_peer(service, name):
            policy.check(service, found, None)
            return choosing.chosen(service, person, name, choosing.of_anybody(service, found))
        other = placement.choose(service, person, name)
        other.require_recent_sign_in(service, person)
        policy.check(service, found, other)
        require_consent(service, person, wish, found, other)
        resources.within(has, other.most(person), resources.Asked(required=has, file="This launch"))
    except (errors.ConsentNeeded, errors.SignInAgain):
        raise
    except errors.BrokerError as refusal:
        title = next((each.title for each in backends.offered(service) if each.name == name), "")
        title = title or choosing.title(service, name[:40])
        raise errors.BadField(
            "elsewhere", say("“%(title)s” cannot be gone on to: %(refusal)s", title=title, refusal=refusal)
        ) from None
    return other


def _asked_by_repository(
    service: Service, found: repos.Resolved, opener: repo_access.Opener
) -> tuple[resources.Asked, list[str]]:
    """What the repository's own files ask for; a host in trouble keeps nobody from launching, and is said."""
    try:
        return resources.asked_in(service.repos.read(found, resources.FILES, opener)), []
    except (repo_errors.HostUnavailable, repo_errors.RateLimited, repo_errors.TooBig) as trouble:
        return resources.Asked(), [f"What the repository asks for in memory and processors is not known: {trouble}"]


def preparing(chosen: settings.Settings) -> dt.timedelta:
    """The longest that a launch may take from its seat to a running session."""
    return chosen.preparing


def row(
    service: Service,
    person: people.Person,
    wish: Wish,
    found: repos.Resolved,
    backend: Place,
    has: base.Resources,
    others: Sequence[Place] = (),
) -> Launch:
    """The launch this wish makes, not yet written. Raises BadField where its budget cannot be read."""
    now, chosen = service.now(), service.settings
    hours = has.hours or chosen.max_hours
    connection, idle_minutes = _there(service, person, backend)
    path = wish.path if wish.path is not None else _asked_to_open(found)
    budget = _budget(wish)
    money = _money(wish, budget, others)
    _, offer = wish.place
    return Launch(
        id=wish.launch_id or crypto.new_id(12),
        person=person.id,
        # Two of nobody's may have no name in common: the second would be given the first one's session.
        name=wish.name or f"{found.slug[:40]}-{wish.launch_id or crypto.new_id(6)}",
        fingerprint=_fingerprint(
            found.repo_url, found.commit, path, backend.name, asdict(has), *money, *filter(None, [offer])
        ),
        spec=found.spec_string,
        repo_url=found.repo_url,
        web_url=found.web_url,
        title=found.spec.called,
        ref=found.ref,
        commit=found.commit,
        content=dict(found.content),
        path=path,
        backend=backend.name,
        connection_id=connection.id if connection else None,
        repo_connection_id=found.opened_with or None,
        hours=hours,
        cpu=has.cpu,
        memory_mb=has.memory_mb,
        disk_gb=has.disk_gb,
        gpu=has.gpu,
        budget=budget.amount if budget else None,
        currency=budget.currency if budget else "USD",
        prefer=wish.prefer,
        spot=wish.spot,
        hedged=wish.hedge and not offer,  # nobody has two
        offer=offer,
        elsewhere=[other.name for other in others],
        idle_minutes=idle_minutes,
        asked_from=wish.asked_from,
        request=dict(wish.request),
        build_only=wish.build_only,
        image="",
        state=State.WAITING,
        phase=Phase.WAITING,
        stop_wanted=False,
        reason="",
        message="",
        created_at=now,
        followed_at=now,
        entered_at=now,
        deadline_at=now + preparing(chosen) + dt.timedelta(hours=hours),
        due_at=now,
        events=0,
    )


def _there(service: Service, person: people.Person, place: Place) -> tuple[Connection | None, int]:
    """What it is launched there with, and how long it may be idle."""
    if isinstance(place, choosing.Option):
        return place.connection, service.settings.idle_minutes
    return connections.for_backend(service, person, place), place.idle_minutes(service)


def _budget(wish: Wish) -> budgets.Budget | None:
    try:
        return budgets.read(wish.budget) if wish.budget is not None else None
    except errors.BadRequest as wrong:
        raise errors.BadField("budget", str(wrong)) from None


def _money(wish: Wish, budget: budgets.Budget | None, others: Sequence[Place]) -> list[object]:
    """What the fingerprint has of it. Nothing where nothing was said, so that what ran before there was this reconnects."""
    said = (str(budget or ""), wish.prefer, wish.spot, wish.hedge, [other.name for other in others])
    return [] if said == ("", "price", False, False, []) else list(said)


def _asked_to_open(found: repos.Resolved) -> str:
    """The file or address that a pasted link names."""
    return found.path or (f"/{found.spec.urlpath.lstrip('/')}" if found.spec.urlpath else "")


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
