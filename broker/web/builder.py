"""`/link`: a form that becomes a launch link, badges for it, and the choice inside of an article."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from broker import people, placement, repos, settings, subjects
from broker.service import Service
from broker.web import callers, deps, embed, instead, limits, links, pages, places, v2, views
from providers.sentences import say

router = APIRouter(include_in_schema=False)
COLUMNS, ROWS_MOST = 72, 14  # of a field, on a wide screen
LOOKS, LOOK_SECONDS = 20, 60
"""How many repositories a visitor may have looked up: one a few seconds, as somebody who tries a link."""


def looks(chosen: settings.Settings) -> limits.Allowance:
    """How often visitors of one network may have a repository looked up. One a process."""
    return limits.Allowance(chosen, "link", LOOKS, LOOK_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the form has become."""

    link: links.Link
    subject: subjects.Subject
    pinned: bool
    """It opens the same files for good."""
    pin: str
    """The form with what it means now, fixed for good; empty where it is that already, or nobody knows."""


@router.get("/link")
def build(request: Request, at: deps.At, asking: deps.Whoever) -> Response:
    """The form; with a repository in it, its link, its badges, and what they open. Looks the repository up."""
    sent = request.query_params
    typed = views.Filled.of(sent)
    filled = views.Filled(**{**typed.typed, "backends": ",".join(name for name in sent.getlist("backends") if name)})
    offered = places.for_all(at) if asking.anonymous else placement.places(at, asking)
    problems, answer = filled.problems(), None
    if filled.typed["repo"] and not problems:
        try:
            answer = _answer(request, at, asking, filled)
        except repos.RepoError as error:
            problems = {"repo": str(error)}
    context = {
        "typed": (answer.link.filled if answer else filled).typed,
        "chosen": filled.backends,
        "places": [place for place in offered if not place.own],
        "sizes": [(size, views.sized(size)) for size in at.settings.sizes],
        "problems": problems,
        "field": next(iter(problems), ""),
        "more": any(filled.typed[name] for name in (*filled.SIZES, "size")),
        **(_shown(at, answer, offered) if answer else {"link": None}),
        "instead": instead.look(request, at, asking, answer.link.filled) if answer and answer.subject.trouble else None,
    }
    return pages.page(request, "link.html", context, status=400 if problems else 200)


def _answer(request: Request, at: Service, asking: people.Person, filled: views.Filled) -> Answer:
    """Raises RepoError for what is no repository's address."""
    filled = _unpacked(filled)
    typed = filled.typed
    spec = at.repos.parse(typed["repo"], typed["ref"] or None)
    subject = _looked_up(request, at, asking, typed["repo"], typed["ref"])
    if found := subject.found:
        spec = found.spec
    opened = typed["path"] or spec.path or (f"/{spec.urlpath.lstrip('/')}" if spec.urlpath else "")
    pinned = found is not None and found.spec_string == str(spec)
    link = links.Link(
        hub=callers.hub_url(request, at.settings),
        spec=str(spec),
        ref=spec.ref if spec.located and repos.providers[spec.provider].has_ref else "",
        title=spec.called,
        filled=views.Filled(**{**typed, "path": opened}),
    )
    pin = "" if pinned or found is None else f"/link?{urlencode(_pinned(link, found))}"
    return Answer(link=link, subject=subject, pinned=pinned, pin=pin)


def _unpacked(filled: views.Filled) -> views.Filled:
    """The fields of a Binder link, where one was pasted for a repository; what was typed besides goes before."""
    typed = filled.typed
    path, _, query = links.binder_path(links.pasted(typed["repo"])).partition("?")
    if not path.startswith("/v2/"):
        return filled
    told = v2.understood(path, query).filled.typed
    return views.Filled(**{name: told[name] if name == "repo" else typed[name] or told[name] for name in typed})


def _looked_up(request: Request, at: Service, asking: people.Person, repo: str, ref: str) -> subjects.Subject:
    """What it is now, with the right of the person who asks; visitors may ask only so often."""
    if known := subjects.known(at, asking, repo, ref):
        return known
    if not instead.may_look(request, at, asking):
        return subjects.Subject(
            trouble=say("It was not looked up: there were many questions from your network. Wait a minute.")
        )
    return subjects.look(at, asking, repo, ref)


def _pinned(link: links.Link, found: repos.Resolved) -> Mapping[str, str]:
    """The fields of the form with what it means now."""
    typed = {name: value for name, value in link.filled.typed.items() if value and name != "linked"}
    if repos.providers[found.spec.provider].has_ref:
        return {**typed, "repo": v2.pasteable(found.spec), "ref": found.commit}
    return {name: value for name, value in {**typed, "repo": found.spec_string}.items() if name != "ref"}


def _shown(at: Service, answer: Answer, offered: list[placement.Place]) -> dict[str, Any]:
    link, named = answer.link, answer.link.filled.backends
    titles = {place.name: place.title for place in offered if not place.own and place.name in (named or [place.name])}
    script = f"{link.hub}{embed.NEWEST}"
    return {
        "link": link,
        "subject": answer.subject,
        "pinned": answer.pinned,
        "pin": answer.pin,
        "snippets": {
            "url": (say("Link"), link.url),
            "markdown": ("Markdown", link.markdown),
            "html": ("HTML", link.html),
            "rst": ("reStructuredText", link.restructured),
        },
        "copies": {
            "url": say("Copy the link"),
            "markdown": say("Copy the Markdown"),
            "html": say("Copy the HTML"),
            "rst": say("Copy the reStructuredText"),
        },
        "element": link.element(script, embed.integrity()),
        "listed": link.listed(titles, at.settings.binder_backend),
        "policy": "; ".join(f"{what} {link.hub.rstrip('/')}" for what in ("script-src", "connect-src", "img-src")),
        "readable": bool(at.settings.cors_allow_origin),
        "rows": _rows,
        "try": link.url.removeprefix(link.hub.rstrip("/")),
    }


def _rows(text: str) -> int:
    """Of a field that shows all of this text, long lines broken."""
    return min(ROWS_MOST, sum(len(line) // COLUMNS + 1 for line in text.split("\n")))
