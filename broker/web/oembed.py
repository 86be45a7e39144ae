"""`/oembed` (oembed.com, 1.0): what a page elsewhere shows in place of a launch link. No frame, no script."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from broker import errors
from broker.web import callers, deps, hub, links, v2

router = APIRouter(include_in_schema=False)
KEPT_SECONDS = 86400
FORMAT = "json"


def told(
    request: Request, at: deps.At, url: str = "", format: str = FORMAT, maxwidth: str = "", maxheight: str = ""
) -> JSONResponse:
    """A badge that leads to this launch link of ours. Looks nothing up.

    404 for what is none of our links, and 501 for another format, as the specification has it.
    """
    if format != FORMAT:
        return _refused(501, "Only JSON is answered here. Ask with format=json.", "format")
    base = callers.hub_url(request, at.settings)
    link = read(url, base)
    if link is None:
        sentence = f"That is no launch link of this hub. Its links begin with {base}v2/ and are given as url=…, percent-encoded."
        return _refused(404, sentence, "not_a_link")
    return JSONResponse(_answer(link, maxwidth, maxheight), headers={"cache-control": hub.DAY})


def read(url: str, base: str) -> links.Link | None:
    """The launch link at this address, if it is one of this hub's."""
    try:
        asked, own = urlsplit(url), urlsplit(base)
        named = asked.netloc.lower() == own.netloc.lower() and asked.path.startswith("/v2/")
        found = v2.understood(asked.path, asked.query) if named and asked.scheme in ("http", "https") else None
    except (ValueError, errors.NotFound):
        return None
    if found is None or found.problems:
        return None
    return links.Link(hub=base, spec=f"{found.prefix}/{found.spec}", title=found.repo, filled=found.filled)


def _answer(link: links.Link, maxwidth: str, maxheight: str) -> dict[str, Any]:
    width, height = links.BADGE_SIZE
    shared = {
        "version": "1.0",
        "title": link.alt,
        "provider_name": "Anybinder",
        "provider_url": link.hub,
        "cache_age": KEPT_SECONDS,
    }
    if _smaller(maxwidth, width) or _smaller(maxheight, height):
        return {**shared, "type": "link"}
    return {**shared, "type": "rich", "html": link.html, "width": width, "height": height}


def _smaller(most: str, needed: int) -> bool:
    return most.isascii() and most.isdigit() and int(most[:9]) < needed


def _refused(status: int, sentence: str, reason: str) -> JSONResponse:
    return JSONResponse({"detail": sentence, "reason": reason}, status_code=status)


hub.answered(router, "/oembed")(told)
