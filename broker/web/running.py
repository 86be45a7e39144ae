"""What I am paying for right now, everywhere: by the clouds' own lists, one after the other as they answer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from starlette.responses import Response

from broker import backends, budgets, errors, holdings, people, reaper, settings
from broker.models import Launch, State
from broker.service import Service
from broker.web import deps, limits, pages, views
from providers.sentences import listed, say

router = APIRouter(include_in_schema=False)
api = APIRouter(tags=["launches"])
LOOKS, LOOK_SECONDS = 60, 300  # how often one person may have a cloud asked in this time
FATES = {
    "wanted": "",
    "unwanted": say("Its launch is over. The next sweep ends it."),
    "expired": say("No launch of yours knows this, and nobody can want it any more. The next sweep ends it."),
    "unknown": say("No launch of yours knows this."),
    "foreign": say("It carries no tag of this hub, which does not touch it."),
}


def looks(chosen: settings.Settings) -> limits.Allowance:
    """How often one person may have clouds asked. One a process."""
    return limits.Allowance(chosen, "look", LOOKS, LOOK_SECONDS)


@router.get("/running")
def show(request: Request, at: deps.At, asking: deps.Asking, look: str = "") -> Response:
    """At once, with what our table knows; of the backend `look`, as its cloud lists it now."""
    trouble, found = "", holdings.known(at, asking)
    if look:
        try:
            asked = {one.station.key: one for one in _looked(request, at, asking, look)}
            found = [asked.get(one.station.key, one) for one in found]
        except (errors.TooOften, errors.BadRequest) as refusal:
            trouble = str(refusal)
    launches = _launches(at, asking, found)
    context = {
        "places": [_shown(at, one, launches) for one in found],
        "total": total(found, at.now()),
        "trouble": trouble,
        "asked": all(one.asked for one in found),
        "signs": budgets.SIGNS,
    }
    return pages.page(request, "running.html", context)


@api.get("/api/running")
def tell(request: Request, at: deps.At, asking: deps.Asking, look: str = "") -> dict[str, Any]:
    """What my accounts list, asked now, or that of the backend `look`: machines, prices, costs so far. Takes 20 s at most.

    Of what could not be asked it is what this hub wrote down, and why. What has no known price has none here.
    """
    found = _looked(request, at, asking, look or None)
    launches = _launches(at, asking, found)
    return {
        "at": at.now().isoformat(),
        "places": [_shown(at, one, launches) for one in found],
        "per_hour": {currency: f"{hourly:f}" for currency, (hourly, _) in holdings.totals(found, at.now()).items()},
        "so_far": {currency: f"{so_far:f}" for currency, (_, so_far) in holdings.totals(found, at.now()).items()},
        "unpriced": holdings.unpriced(found),
    }


def _looked(request: Request, at: Service, asking: people.Person, backend: str | None) -> list[holdings.Holding]:
    """Raises TooOften, and BadRequest where there is no such backend."""
    if backend:
        backends.named(at, backend)
    allowance: limits.Allowance = request.app.state.looks
    if not allowance.spend(asking.id):
        raise errors.TooOften
    return holdings.look(at, asking, backend)


def total(found: Iterable[holdings.Holding], now: dt.datetime) -> str:
    """All of it in a sentence. static/running.js says it the same way."""
    found = list(found)
    sums = holdings.totals(found, now).items()
    said = [views.spending(hourly, so_far, currency) for currency, (hourly, so_far) in sorted(sums)]
    if missing := holdings.unpriced(found):
        said.append(say("%(count)s without a known price", count=missing))
    return listed(said, "; ") if said else say("Nothing that costs money.")


# --- within ---------------------------------------------------------------------------------------------------------


def _launches(at: Service, asking: people.Person, found: Sequence[holdings.Holding]) -> Mapping[str, Launch]:
    """The launches that all this belongs to, as far as this person may see them, by their ids."""
    ids = {thing.launch for one in found for thing in one.things if thing.launch}
    with at.db.reading() as session:
        rows = session.scalars(sa.select(Launch).where(Launch.id.in_(ids)))
        return {row.id: row for row in rows if row.person == asking.id}


def _shown(at: Service, one: holdings.Holding, launches: Mapping[str, Launch]) -> dict[str, Any]:
    connection = one.station.connection
    return {
        "backend": one.station.backend.name,
        "title": one.station.backend.title,
        "id": "-".join(filter(None, one.station.key)),
        "own": connection is not None,
        "account": connection.who if connection else "",
        "disconnected": connection is not None and connection.removed_at is not None,
        "asked": one.asked,
        "trouble": one.trouble,
        "unasked_since": one.unasked_since.isoformat() if one.unasked_since else None,
        "things": [_thing(at, thing, launches.get(thing.launch or "")) for thing in one.things],
    }


def _thing(at: Service, thing: reaper.Finding, launch: Launch | None) -> dict[str, Any]:
    cost, price = thing.cost(at.now()), thing.price_per_hour
    return {
        "instance": thing.instance.id,
        "parts": list(thing.instance.parts),
        "state": thing.instance.state.value,
        "since": thing.since.isoformat() if thing.since else None,
        "price_per_hour": None if price is None else f"{price:f}",
        "cost": None if cost is None else f"{cost:f}",
        "currency": thing.currency,
        "launch": thing.launch if launch else None,
        "name": launch.name if launch else "",
        "may_stop": launch is not None and launch.state is not State.STOPPED and not launch.stop_wanted,
        "may_download": launch is not None and launch.state is State.READY and not launch.stop_wanted,
        "verdict": thing.verdict,
        "fate": FATES[thing.verdict],
        "ends_at": thing.ends_at.isoformat() if thing.ends_at else None,
    }
