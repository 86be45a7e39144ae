"""`/go`: any Binder link, opened here instead. Whatever is pasted, it leads to the launch form, which starts nothing."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from broker import repos
from broker.repos import errors
from broker.web import callers, deps, links, pages, v2

router = APIRouter(include_in_schema=False)
IN_SCRIPT = "':/?=+();"
EXAMPLE = "https://mybinder.org/v2/gh/binder-examples/requirements/HEAD"


@router.get("/go")
def explained(request: Request, link: Annotated[str, Query()] = "") -> Response:
    """What this is, a field for a link, and the bookmarklet; with a link, where it leads."""
    return _led(request, link) if link.strip() else _page(request)


@router.get("/go/{link:path}")
def go(request: Request) -> Response:
    """The link behind `/go/`, as it is or percent-encoded, with its query."""
    link = callers.path(request.scope).removeprefix("/go/")
    query = request.url.query
    return _led(request, f"{link}{'&' if '?' in links.unfolded(link) else '?'}{query}" if query else link)


def _led(request: Request, link: str) -> Response:
    try:
        there = _way(request, link)
    except repos.RepoError as error:
        return _page(request, link, str(error), 400)
    answer = RedirectResponse(there, status_code=pages.SEE_OTHER)
    answer.headers["cache-control"] = "no-store"
    return answer


def _way(request: Request, link: str) -> str:
    """The form of the link's own page; the plain one for who is not signed in: it is where visitors choose, or sign in first.

    Raises RepoError.
    """
    there = links.way(link)
    path, _, query = there.partition("?")
    if not path.startswith("/v2/"):
        return there
    found = v2.understood(path, query)
    if "repo" in found.problems:
        raise errors.BadSpec(found.problems["repo"])
    return there if deps.signed_in(request) else found.filled.link(linked="1")


def _page(request: Request, link: str = "", problem: str = "", status: int = 200) -> Response:
    hub = callers.hub_url(request, deps.service_of(request).settings)
    context = {
        "typed": link[:2000],
        "problem": problem,
        "bookmarklet": bookmarklet(hub),
        "example": EXAMPLE,
        "shown": f"{hub}go/{EXAMPLE}",
    }
    return pages.page(request, "go.html", context, status=status)


def bookmarklet(hub: str) -> str:
    """What a browser keeps as a bookmark: it sends the address of the page that is open to this hub."""
    script = f"location.href='{hub}go?link='+encodeURIComponent(location.href)"
    return f"javascript:{quote(f'{script};', safe=IN_SCRIPT)}"
