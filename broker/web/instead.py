"""What can be opened in place of a link that has lapsed, in words: for the pages of links, and the scripts on them."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request

from broker import lapsed, people, repos
from broker.service import Service
from broker.web import callers, deps, limits, links, views

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One thing that can be opened instead."""

    title: str
    about: str
    link: str


@dataclass(frozen=True, kw_only=True)
class Instead:
    """A sentence on what has changed, and the ways that are left."""

    sentence: str
    ways: tuple[Way, ...]


@router.get("/link/instead")
def instead(request: Request, at: deps.At, asking: deps.Whoever) -> dict[str, Any]:
    """The same for a script: the query is that of a form. Nothing in it where the repository is there as it should be."""
    found = look(request, at, asking, views.Filled.of(request.query_params))
    return asdict(found) if found else {"sentence": "", "ways": []}


def look(request: Request, at: Service, asking: people.Person, filled: views.Filled) -> Instead | None:
    """What is left of it; None while it is there, or nobody can say. Visitors may ask only so often."""
    if not filled.typed["repo"] or not may_look(request, at, asking):
        return None
    found = lapsed.look(at, asking, filled.typed["repo"], filled.typed["ref"])
    return _in_words(found, filled, choose=not asking.anonymous) if found else None


def address(filled: views.Filled) -> str:
    """Where a script asks for the same."""
    return f"/link/instead?{urlencode({name: value for name, value in filled.typed.items() if value})}"


def may_look(request: Request, at: Service, asking: people.Person) -> bool:
    """Whether something may be looked up for whoever asks: people may, and visitors as often as `builder.looks` allows."""
    allowed: limits.Allowance = request.app.state.link_looks
    client = callers.network(callers.address(request.scope, at.settings.trusted_proxies))
    return not asking.anonymous or allowed.spend(client)


def _in_words(found: lapsed.Lapsed, filled: views.Filled, *, choose: bool) -> Instead:
    ways = []
    if found.archived:
        short = found.archived_commit[:7]
        title, about = f"Open commit {short} from Software Heritage", "The archive has kept its files as they were."
        ways.append(Way(title=title, about=about, link=_link(found.archived, filled, choose=choose)))
    if found.last and found.last_at:
        title, about = f"Open commit {found.last.commit[:7]}", f"This hub opened it last, on {day(found.last_at)}."
        ways.append(Way(title=title, about=about, link=_link(found.last, filled, choose=choose)))
    if found.newest and not (found.last and found.last.commit == found.newest.commit):
        title, about = f"Open the newest commit, {found.newest.commit[:7]}", "It is what the repository has become."
        ways.append(Way(title=title, about=about, link=_link(found.newest, filled, choose=choose)))
    return Instead(sentence=sentence(found), ways=tuple(ways))


def sentence(found: lapsed.Lapsed) -> str:
    """What has changed since the link was made."""
    short = found.ref[:7] if found.pinned else found.ref
    if found.gone and found.meant:
        return f"This hub opened {found.repo} on {day(found.meant.at)}. Since then it was removed, renamed, or made private."
    if found.gone:
        return f"{found.repo} is not there: it was removed, renamed or made private, or the link is not written right."
    if found.pinned and found.meant:
        return (
            f"This hub opened commit {short} of {found.repo} on {day(found.meant.at)}. It is no longer there: the history "
            "of the repository was written anew, or the branch that it was on was deleted."
        )
    if found.pinned:
        return (
            f"{found.repo} has no commit {short}: its history was written anew, the branch that it was on was deleted, or "
            "the link is not written right."
        )
    if found.meant:
        return (
            f"{found.repo} has no branch or tag “{short}” any more. When this hub opened it last, on {day(found.meant.at)}, "
            f"it was commit {found.meant.commit[:7]}."
        )
    return f"{found.repo} has no branch or tag “{short}”: it was deleted or renamed, or the link is not written right."


def day(moment: dt.datetime) -> str:
    """`3 May 2026`."""
    return f"{moment.day} {moment:%B %Y}"


def _link(found: repos.Resolved, filled: views.Filled, *, choose: bool) -> str:
    """The same link, but to this. It keeps what was asked for besides. `choose`: to the form, whoever has a choice."""
    url = links.Link(hub="/", spec=found.spec_string, title="", filled=filled).url
    return f"{url}{'&' if '?' in url else '?'}choose=1" if choose else url
