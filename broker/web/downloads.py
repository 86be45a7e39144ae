"""My work as an archive: what is in a session, to its owner's disk. The same for a browser and, by its token, for a program."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from broker import downloads, errors, front, launches
from broker.forwarding import archives
from broker.models import Launch, State
from broker.people import Person
from broker.service import Service
from broker.web import deps, schemas
from providers.sentences import say

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api", tags=["launches"])
log = structlog.get_logger(__name__)
Found = downloads.Download | archives.Relayed
STALL_SECONDS = 300  # who reads nothing for so long has left, or may try again
FOREIGN = ("cross-site", "same-site")
"""What a browser says of a page that is none of ours; sessions are on the same site."""
EARLY = say("The session is not ready yet: there is nothing to download. Wait until it is.")


@router.get("/launches/{launch_id}/download")
async def download(request: Request, at: deps.At, asking: deps.Asking, launch_id: str) -> Response:
    """The working folder of my running session as a zip, as it is packed; a page that says why not.

    Nobody else's page makes a browser pack anything: it is led to the launch's own.
    """
    if request.headers.get("sec-fetch-site") in FOREIGN:
        return RedirectResponse(f"/launches/{launch_id}", status_code=303)
    return await _sent(request, at, asking, launch_id)


@api.get(
    "/launches/{launch_id}/archive",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "A zip. Broken off, it has no end."}},
)
async def archive(request: Request, at: deps.At, asking: deps.Visiting, launch_id: str) -> Response:
    """The working folder of my running session as a zip, as it is packed. What it does not hold is said in a file of its own.

    409 where it is not ready, or runs at another hub that does not give its files; 410 where it has ended, 413 where it is too
    much, 429 while it is on its way already, 503 where its computer does not answer.
    """
    return await _sent(request, at, asking, launch_id)


# --- within ---------------------------------------------------------------------------------------------------------


async def _sent(request: Request, at: Service, asking: Person, launch_id: str) -> Response:
    launch = await run_in_threadpool(_may_have, at, asking, launch_id)
    under_way: set[str] = request.app.state.downloads
    if launch.id in under_way:
        raise errors.DownloadUnderWay
    under_way.add(launch.id)
    try:
        found, passed = await _begun(request, at, launch)
    except BaseException:
        under_way.discard(launch.id)
        raise
    return Archive(at, launch, found, passed, lambda: under_way.discard(launch.id))


async def _begun(request: Request, at: Service, launch: Launch) -> tuple[Found, Callable[[int], None]]:
    """What comes, and what is to be told of how many bytes did: they count as use of the session."""
    if launch.state is State.FORWARDED:
        return await archives.begin(at, launch), lambda _size: None  # its own hub counts
    doors: front.Doors | None = getattr(request.app.state, "doors", None)
    if doors is None:
        raise errors.OutOfReach
    gateway = doors.gateway

    def passed(size: int) -> None:
        gateway.touch(launch.id)
        gateway.sent += size

    return await downloads.begin(at, doors.tunnel, launch), passed


def _may_have(at: Service, asking: Person, launch_id: str) -> Launch:
    """The launch, if its files can be had and are theirs. Raises NotFound, NotAllowed, CannotDownload."""
    launch = launches.get(at, asking, launch_id)
    if not schemas.may_enter(asking, launch):
        raise deps.lacking("launch")
    if launch.stop_wanted or launch.state in (State.STOPPING, State.STOPPED):
        raise errors.FilesGone
    if not launch.runs:
        raise errors.CannotDownload(EARLY)
    return launch


class Archive(Response):
    """A zip whose length nobody knows yet. Where it is broken off the connection is, so that no browser takes it for whole."""

    media_type = "application/zip"

    def __init__(
        self,
        at: Service,
        launch: Launch,
        found: Found,
        passed: Callable[[int], None],
        over: Callable[[], None],
    ) -> None:
        super().__init__()
        self._at, self._launch, self._found, self._passed, self._over = at, launch, found, passed, over
        name = downloads.called(at, launch)
        del self.headers["content-length"]
        self.headers["content-disposition"] = f'attachment; filename="{name}.zip"'
        self.headers["content-security-policy"] = "default-src 'none'; sandbox; frame-ancestors 'none'"
        self.headers["cache-control"] = "no-store"
        self.headers["accept-ranges"] = "none"
        self.headers["x-accel-buffering"] = "no"  # a proxy that keeps it back would fill its disk

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send it until it is sent, or its reader leaves."""
        sending, leaving = asyncio.ensure_future(self._send(send)), asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = sending.result() if sending.done() else ""
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            self._over()
            await self._found.close()
        log.info("download_ended", launch=self._launch.id, bytes=self._found.bytes, left=not ended)
        if ended:
            await run_in_threadpool(downloads.note, self._at, self._launch.id, ended)

    async def _send(self, send: Send) -> str:
        """What is to be said of it in the log, once it is over."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with contextlib.aclosing(self._found.pieces()) as pieces:
                async for piece in pieces:
                    self._passed(len(piece))
                    await asyncio.wait_for(
                        send({"type": "http.response.body", "body": piece, "more_body": True}), STALL_SECONDS
                    )
        except downloads.BrokenOff as broken:
            return f"The download was broken off, and is not whole. {broken}"
        except TimeoutError:
            return say("The download was broken off, and is not whole. Nothing of it was taken for minutes.")
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return say("The files of this session were downloaded: %(amount)s.", amount=downloads.amount(self._found.bytes))


async def _left(receive: Receive) -> None:
    """Returns when the reader has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
