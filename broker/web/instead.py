"""What can be opened in place of a link that has lapsed, in words: for the pages of links, and the scripts on them."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request

from broker import lapsed, people, repos
from broker.service import Service
from broker.web import callers, deps, language, limits, links, views
from providers.sentences import say

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
    return language.spoken(asdict(found)) if found else {"sentence": "", "ways": []}


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
        title = say("Open commit %(commit)s from Software Heritage", commit=short)
        about = say("The archive has kept its files as they were.")
        ways.append(Way(title=title, about=about, link=_link(found.archived, filled, choose=choose)))
    if found.last and found.last_at:
        title = say("Open commit %(commit)s", commit=found.last.commit[:7])
        about = say("This hub opened it last, on %(day)s.", day=day(found.last_at))
        ways.append(Way(title=title, about=about, link=_link(found.last, filled, choose=choose)))
    if found.newest and not (found.last and found.last.commit == found.newest.commit):
        title = say("Open the newest commit, %(commit)s", commit=found.newest.commit[:7])
        about = say("It is what the repository has become.")
        ways.append(Way(title=title, about=about, link=_link(found.newest, filled, choose=choose)))
    return Instead(sentence=sentence(found), ways=tuple(ways))


def sentence(found: lapsed.Lapsed) -> str:
    """What has changed since the link was made."""
    short = found.ref[:7] if found.pinned else found.ref
    if found.gone and found.meant:
        return say(
            "This hub opened %(repo)s on %(day)s. Since then it was removed, renamed, or made private.",
            repo=found.repo,
            day=day(found.meant.at),
        )
    if found.gone:
        return say(
            "%(repo)s is not there: it was removed, renamed or made private, or the link is not written right.",
            repo=found.repo,
        )
    if found.pinned and found.meant:
        return say(
            "This hub opened commit %(commit)s of %(repo)s on %(day)s. It is no longer there: the history of the repository "
            "was written anew, or the branch that it was on was deleted.",
            commit=short,
            repo=found.repo,
            day=day(found.meant.at),
        )
    if found.pinned:
        return say(
            "%(repo)s has no commit %(commit)s: its history was written anew, the branch that it was on was deleted, or the "
            "link is not written right.",
            repo=found.repo,
            commit=short,
        )
    if found.meant:
        return say(
            "%(repo)s has no branch or tag “%(ref)s” any more. When this hub opened it last, on %(day)s, it was commit "
            "%(commit)s.",
            repo=found.repo,
            ref=short,
            day=day(found.meant.at),
            commit=found.meant.commit[:7],
        )
    return say(
        "%(repo)s has no branch or tag “%(ref)s”: it was deleted or renamed, or the link is not written right.",
        repo=found.repo,
        ref=short,
    )


def day(moment: dt.datetime) -> str:
    """`3 May 2026`, as the language of the request writes it."""
    return language.current().day(moment)


def _link(found: repos.Resolved, filled: views.Filled, *, choose: bool) -> str:
    """The same link, but to this. It keeps what was asked for besides. `choose`: to the form, whoever has a choice."""
    url = links.Link(hub="/", spec=found.spec_string, title="", filled=filled).url
    return f"{url}{'&' if '?' in url else '?'}choose=1" if choose else url
