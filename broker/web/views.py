"""What the pages show of a launch, in their words."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode, urlsplit

import pydantic
from starlette.datastructures import ImmutableMultiDict

from broker import (
    backends,
    budgets,
    errors,
    events,
    holdings,
    launches,
    placement,
    repos,
    resources,
    settings,
    subjects,
    wishes,
)
from broker.forwarding import archives, choosing
from broker.launches import extending
from broker.models import Launch, Phase, State
from broker.people import Person
from broker.service import Service
from broker.web import schemas
from providers.sentences import listed, say

LINES_MOST = 2000  # lines of a log in one page; static/progress.js keeps as many
OWN_NAME = re.compile(r".+-[a-z2-7]{6}")
"""A name that a launch was given because nobody named it (wishes.row)."""

STEPS = {
    say("Waiting"): (Phase.WAITING,),
    say("Fetching"): (Phase.FETCHING,),
    say("Building"): (Phase.BUILDING, Phase.PUSHING, Phase.BUILT),
    say("Launching"): (Phase.LAUNCHING,),
    say("Ready"): (Phase.READY,),
}
STEP_OF = {phase: index for index, phases in enumerate(STEPS.values()) for phase in phases}
DOING = (
    say("Waiting to start"),
    say("Fetching the repository"),
    say("Building its environment"),
    say("Starting the server"),
    say("Ready"),
)
ENDED_WELL = ("asked", "idle", "expired", "")
ADVICE = {
    "build_failed": say(
        "The last lines of the log say more. Change the repository or choose another commit, then try again."
    ),
    "build_timeout": say("Fewer or smaller packages build faster."),
    "peers": say("It may be different in a few minutes, or at a place of your own."),
    "no_offer": say("It may be different in a few minutes."),
    "no_capacity": say("It may be different in a few minutes. A smaller size is found more often."),
    "budget": say(
        "Nothing was started that would have cost more. Ask for fewer hours, or raise the budget; what you typed is kept."
    ),
    "quota": say("Ask for less, end what else runs in that account, or ask its cloud for a higher limit."),
    "credential": say("Check the account on the page “Accounts”: its cloud no longer accepts what was given for it."),
    "permission": say("Give the account what is missing; the page “Accounts” checks it and says how."),
    "credential_short": say("Ask for fewer hours, or connect the account again."),
    "unavailable": say("That cloud does not answer at the moment. Wait a little, or choose another place."),
    "boot_timeout": say(
        "A machine that never reports is often a matter of the network there. Try again, or choose another place."
    ),
    "instance_lost": say("Try again. Where the cloud may take machines away, choose one that it may not."),
    "server_ended": say("The last lines of the log say more. Often it had too little memory: choose a larger size."),
    "repo_token": say("Open the page “Accounts” and connect the host of the repository again."),
    "left": say("Open the link again when you have time to wait."),
}
SOME_ADVICE = say("The log below shows how far it came. Everything you typed is kept.")


class Filled:
    """What somebody typed, kept whatever happens."""

    FIELDS = ("repo", "ref", "path", "backend", "name", "backends", "cpu", "memory", "disk", "gpu", "hours",
              "budget", "prefer", "spot", "hedge", "elsewhere", "size", "sort", "linked")  # fmt: skip
    OURS = ("backends", "size", "sort", "linked")
    """What is not passed on to the JSON interface of launches as it is."""
    SIZES = ("cpu", "memory", "disk", "gpu", "hours")
    MONEY = ("budget", "prefer", "spot", "hedge", "elsewhere")

    def __init__(self, **typed: str) -> None:
        self.typed = {name: typed.get(name, "").strip() for name in self.FIELDS}

    @classmethod
    def of(cls, sent: ImmutableMultiDict[str, Any]) -> Filled:
        """The fields of a form or of a link; the boxes of one name that are ticked, with commas."""
        typed = {name: str(sent.get(name, "")) for name in cls.FIELDS}
        return cls(**{**typed, "elsewhere": ",".join(map(str, sent.getlist("elsewhere")))})

    @property
    def backends(self) -> list[str]:
        """The places that a link limits the choice to; none for all."""
        return _names(self.typed["backends"])

    @property
    def elsewhere(self) -> list[str]:
        """The places to go on to."""
        return _names(self.typed["elsewhere"])

    @property
    def sort(self) -> str:
        """What places are sorted by."""
        return self.typed["sort"] if self.typed["sort"] in placement.ORDERS else placement.ORDERS[0]

    def wish(
        self, consent: str = "", sizes: Sequence[settings.SizeSetting] = (), *, lasting: bool = False
    ) -> wishes.Wish:
        """The same as a wish, checked as one of the JSON interface; what was left empty is not asked for.

        Of these sizes the one that was chosen says what no exact figure says. Raises pydantic.ValidationError, with the
        name of the field.
        """
        given: dict[str, Any] = {
            name: value for name, value in self.typed.items() if name not in self.OURS and (value or name == "repo")
        }
        given["elsewhere"] = self.elsewhere
        if self.typed["size"] in {size.name for size in sizes}:  # a link may name one that is offered no more
            given["size"] = self.typed["size"]
        asked = schemas.LaunchRequest.model_validate({**given, "consent": consent or False})
        # A form agrees to one commit, the one it showed; never to whatever comes.
        return wishes.Wish(
            **{**asked.wished(sizes), "consent": consent},
            linked=bool(self.typed["linked"]),
            lasting_consent=lasting,
            asked_from="page",
        )

    def question(self, service: Service, person: Person) -> placement.Question:
        """What places are asked about, as far as it is known by now; what cannot be read is not asked for. Asks nobody.

        Visitors have nothing to say about how much they get.
        """
        if person.anonymous:
            return placement.Question()
        known = subjects.known(service, person, self.typed["repo"], self.typed["ref"]) or subjects.UNKNOWN
        try:
            typed = {name: self.typed[name] for name in (*self.SIZES, "size")}
            wanted = Filled(repo="-", **typed).wish(sizes=service.settings.sizes).resources
        except pydantic.ValidationError:
            wanted = resources.NOTHING
        return placement.Question(found=known.found, asked=known.asked, wanted=wanted)

    def problems(self) -> dict[str, str]:
        """A sentence for every field that holds what it cannot. Looks nothing up; an empty repository is none."""
        try:
            Filled(**{**self.typed, "repo": self.typed["repo"] or "-"}).wish()
        except pydantic.ValidationError as error:
            fields = [str(one["loc"][0]) for one in error.errors()]
            return {field: unusable(self, field) for field in fields}
        return {}

    def link(self, **other: str) -> str:
        """The form, filled in like this, but for these fields."""
        return "/?" + urlencode({name: value for name, value in {**self.typed, **other}.items() if value})


def ending(place: placement.Place) -> str:
    """What happens at the end of a session there."""
    if place.peer or place.hours is None:
        return say(
            "%(place)s decides when it ends, usually soon after it is no longer used. What is in it is then deleted: download "
            "what you want to keep before.",
            place=place.title,
        )
    longest = budgets.hours(dt.timedelta(hours=place.hours))
    if not place.idle_minutes:
        return say(
            "It ends after %(time)s at the latest. What is in it is then deleted: download what you want to keep before.",
            time=longest,
        )
    return say(
        "It ends after %(time)s at the latest, and after %(minutes)s minutes without use. What is in it is then deleted: "
        "download what you want to keep before.",
        time=longest,
        minutes=float(place.idle_minutes),
    )


def asking(asked: resources.Asked) -> str:
    """What the repository asks for, in a sentence; empty where it asks for nothing."""
    required, recommended = resources.plainly(asked.required), resources.plainly(asked.recommended)
    if required and recommended:
        return say(
            "This repository asks for at least %(required)s, and recommends %(recommended)s.",
            required=required,
            recommended=recommended,
        )
    if required:
        return say("This repository asks for at least %(required)s.", required=required)
    return say("This repository recommends %(recommended)s.", recommended=recommended) if recommended else ""


def sized(size: settings.SizeSetting) -> str:
    """What a plain size has: `2 processors, 8 GB of memory`."""
    return resources.plainly(size.resources)


def _names(listed: str) -> list[str]:
    return [name for part in listed.split(",") if (name := part.strip())]


UNUSABLE = {
    "name": say("A name has letters, digits, dots and hyphens, at most 63, and begins with a letter or digit."),
    "cpu": say("This is no number of processors. Write it like 2 or 0.5."),
    "memory": say("This is no amount of memory. Write it like 4G or 512M."),
    "disk": say("This is no amount of disk space. Write it like 20G."),
    "gpu": say("This is no number of GPUs. Write 0, 1 or more."),
    "hours": say("This is no number of hours. Write one above 0, and at most 720."),
    "budget": say("This is no budget. Write it like 2.50, or like 500 SU where service units are counted."),
    "prefer": say("Offers are tried by price, or by how soon they are usually ready. Choose one of the two."),
    "spot": say("Tick the box, or leave it."),
    "hedge": say("Tick the box, or leave it."),
    "elsewhere": say("These are too many places. Choose fewer."),
}


def unusable(filled: Filled, field: str) -> str:
    """The sentence beside a field that holds what it cannot."""
    if field == "repo" and not filled.typed["repo"]:
        return say("Give a repository: its address as you would paste it, or owner/name for GitHub.")
    return UNUSABLE.get(field, say("This is too long. Shorten it."))


def described(found: repos.Resolved) -> dict[str, str]:
    """What a person is asked about: its title, whose it is, and where to look at it."""
    address = urlsplit(found.repo_url)
    title = f"{address.netloc.rpartition('@')[2]}{address.path}".removesuffix(".git") or found.repo_url
    host, _, path = title.partition("/")
    link = found.web_url if found.web_url.startswith(("https://", "http://")) else ""
    return {"title": title, "host": host, "owner": path.rpartition("/")[0] or say("whoever runs it"), "link": link}


def again(found: Launch) -> str:
    """The form, filled in as it was for this launch."""
    return Filled(**typed_for(found)).link()


def typed_for(found: Launch) -> dict[str, str]:
    """The fields of that form, but how much it was to have: a row does not say who chose that."""
    return {
        "repo": found.repo_url,
        "ref": "" if found.ref == "HEAD" else found.ref,
        "path": found.path,
        "backend": f"{found.backend}/{found.offer}" if found.offer else found.backend,
        "name": "" if OWN_NAME.fullmatch(found.name) else found.name,
        "budget": "" if found.budget is None else f"{found.budget.normalize():f} {found.currency}",
        "prefer": found.prefer if found.prefer != "price" else "",
        "spot": "true" if found.spot else "",
        "hedge": "true" if found.hedged else "",
        "elsewhere": ",".join(found.elsewhere),
    }


EXTENSIONS = (0.5, 2, 8)
"""Hours that the page offers, besides all that is left."""


def extensions(service: Service, found: Launch) -> list[tuple[str, str]]:
    """By how much a running session can be extended: the hours as a form sends them, and in words; the longest last."""
    if situation(found) != "ready":
        return []
    left = launches.room(service, found).left
    whole = [hours for hours in EXTENSIONS if dt.timedelta(hours=hours) < left]
    said = [(f"{hours:g}", extending.minutes(dt.timedelta(hours=hours))) for hours in whole]
    longest = [(f"{left / dt.timedelta(hours=1):.4f}", extending.minutes(left))] if left else []
    return [*said, *longest]


SOON, UNUSED_SOON = dt.timedelta(minutes=15), dt.timedelta(minutes=5)
"""How long before its end a page speaks of it; and where it ends because nobody uses it, which typing puts off."""


def ends_soon(service: Service, found: Launch) -> dict[str, Any] | None:
    """When a running session ends, where that is soon, and whether using it keeps it."""
    if situation(found) != "ready":
        return None
    now = service.now()
    used_at = found.last_activity_at or found.ready_at or now
    unused = dt.timedelta(minutes=found.idle_minutes)
    if found.deadline_at - now < SOON:
        return {"at": found.deadline_at.isoformat(), "unused": False}
    if used_at + unused - now < min(UNUSED_SOON, unused / 3) and found.state is State.READY:
        return {"at": (used_at + unused).isoformat(), "unused": True}
    return None


def newest_lines(service: Service, found: Launch) -> list[dict[str, Any]]:
    """The end of the log, as much of it as a page holds."""
    return events.read(service, found.id, max(0, found.events - LINES_MOST), LINES_MOST)


def launch(service: Service, found: Launch, lines: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The launch as its owner sees it; with its steps where its lines are given."""
    shown = {
        **schemas.launch_json(service, Person(id=found.person), found),
        "situation": situation(found),
        "stop_wanted": found.stop_wanted,
        "where": say("your server at %(place)s", place=_title(service, found.backend))
        if found.offer
        else _title(service, found.backend),
        "paying": paying(service, found),
        "ends_soon": ends_soon(service, found),
        "downloads": situation(found) == "ready" and (found.state is State.READY or archives.packs(service, found)),
    }
    if lines is None:
        return shown
    seen = [Phase(line["phase"]) for line in lines if line["phase"]]
    at = max((STEP_OF[phase] for phase in seen if phase in STEP_OF), default=0)
    return {
        **shown,
        "steps": _steps(seen, at, shown["situation"]),
        "doing": DOING[at],
        "advice": ADVICE.get(found.reason, SOME_ADVICE),
        "usual": _usual_seconds(service, found),
        "provided": _provided(service, found),
    }


def paying(service: Service, found: Launch) -> str:
    """What it costs at this moment, in a sentence, as our table has it; empty where it is nothing. Asks no cloud."""
    things = [thing for thing in holdings.of_launch(service, found) if thing.price_per_hour != 0]
    if any(thing.price_per_hour is None for thing in things):
        return say("What it costs is not known")
    return listed(
        (
            spending(thing.price_per_hour or Decimal(0), thing.cost(service.now()) or Decimal(0), thing.currency)
            for thing in things
        ),
        "; ",
    )


def spending(hourly: Decimal, so_far: Decimal, currency: str) -> str:
    """`$0.0416 an hour, $0.12 so far`."""
    return say(
        "%(price)s an hour, %(cost)s so far",
        price=budgets.exact(hourly, currency),
        cost=budgets.money(so_far, currency),
    )


def situation(found: Launch) -> str:
    """One word for what a person can do now: starting, ready, stopping, stopped or failed."""
    if found.ready_at is None and found.reason not in ENDED_WELL:
        return "failed"
    if found.state is State.STOPPED:
        return "stopped"
    if found.stop_wanted or found.state is State.STOPPING:
        return "stopping"
    return "ready" if found.runs else "starting"


def _steps(seen: list[Phase], at: int, now: str) -> list[dict[str, str]]:
    """Only what was reached is marked; a commit that was built before says so."""
    steps = []
    for index, title in enumerate(STEPS):
        status = "done" if index < at or Phase.READY in seen else "todo"
        if index == at and Phase.READY not in seen:
            status = {"starting": "now", "failed": "failed"}.get(now, "done")
        note: str = say("failed here") if status == "failed" else ""
        if title == "Building" and status == "done" and Phase.BUILDING not in seen:
            note = say("already built")
        steps.append({"title": title, "status": status, "note": note})
    return steps


def _title(service: Service, backend: str) -> str:
    """The place's title; its name where it is no longer offered."""
    try:
        return backends.named(service, backend).title
    except errors.BrokerError:
        return choosing.title(service, backend)


def _usual_seconds(service: Service, found: Launch) -> float | None:
    """How long it usually takes there."""
    return placement.ready_seconds(service, found.backend)


def _provided(service: Service, found: Launch) -> str:
    """Who provides the compute, in a sentence; empty at a peer, which the page speaks of besides, and where nobody knows."""
    try:
        backend = backends.named(service, found.backend)
    except errors.BrokerError:
        return ""
    if found.offer:
        return say("Your own server provides the compute: nothing is bought.")
    if backend.asks_for_account:
        return say("Your own account at %(place)s provides the compute, and its cloud bills you.", place=backend.title)
    if backend.provider.on_this_computer:
        return say("The computer that this hub runs on provides the compute.")
    return say("Whoever runs this hub provides the compute.")
