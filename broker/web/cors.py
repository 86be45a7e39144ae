"""Which answers pages elsewhere may read. None of them carries a cookie, and no cookie is asked for."""

from __future__ import annotations

import re

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOR_ALL = re.compile(
    r"/(versions|badge(_logo)?\.svg|assets/images/badge\.svg|logo_social\.png|favicon_\w+\.ico|embed(-\d+)?\.js|oembed)"
)
"""Public files, and what a federation compares."""
WHERE_ALLOWED = re.compile(
    r"/(build/.+|health|_config|api/repoproviders|api/places|api/launches/[a-z2-7]{12}(/events)?)"
)
"""What BinderHub's clients use; of a launch only with its token, as nothing here brings a cookie."""
ASKED_FIRST = {
    "access-control-allow-methods": "GET, HEAD, DELETE, OPTIONS",
    "access-control-allow-headers": "accept, authorization, cache-control, content-type, last-event-id, x-xsrftoken",
    "access-control-max-age": "3600",
}
SHOWN = "x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset"


class Cors:
    """Around every route. Answers preflights of what pages elsewhere may use; changes nothing else."""

    def __init__(self, app: ASGIApp, allow_origin: str) -> None:
        self._app = app
        self._allow_origin = allow_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = self._allowed(scope["path"]) if scope["type"] == "http" else ""
        if not allowed:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={**_headers(allowed), **ASKED_FIRST})(scope, receive, send)
        else:
            await self._app(scope, receive, _with_headers(send, allowed))

    def _allowed(self, path: str) -> str:
        """The origin whose pages may read this; empty for none."""
        if FOR_ALL.fullmatch(path):
            return "*"
        return self._allow_origin if WHERE_ALLOWED.fullmatch(path) else ""


def _headers(allowed: str) -> dict[str, str]:
    shared = {"access-control-allow-origin": allowed, "cross-origin-resource-policy": "cross-origin"}
    return shared if allowed == "*" else {**shared, "vary": "origin"}


def _with_headers(send: Send, allowed: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update({**_headers(allowed), "access-control-expose-headers": SHOWN})
        await send(message)

    return sending
