"""The files of a session at another Anybinder, passed on as that hub packs them. A BinderHub packs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx

from broker import downloads, errors, peers
from broker.forwarding import rows
from broker.models import Launch, State
from broker.service import Service
from federation import anybinder, binderhub
from federation.peers import Peer
from providers.sentences import say

ELSEWHERE = say("It runs at another hub, which keeps its files: download them there. Its page here says how.")
SILENT_SECONDS = 120.0  # between two pieces
PIECE = 64 * 1024
REFUSED = {410: errors.FilesGone, 413: errors.DownloadTooLarge, 429: errors.DownloadUnderWay}
"""What a status means, in our own words: a hub's are not shown."""


class Relayed:
    """One on its way. `close` it, whatever happens: that ends the packing there."""

    def __init__(self, answer: httpx.Response, opened: AsyncExitStack, most: int) -> None:
        self._answer = answer
        self._opened = opened
        self._most = most
        self.bytes = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """The zip, piece by piece. Raises BrokenOff where it will not be whole."""
        pieces = self._answer.aiter_raw(PIECE)
        try:
            while True:
                piece = await asyncio.wait_for(anext(pieces), SILENT_SECONDS)
                self.bytes += len(piece)
                if self.bytes > self._most:
                    raise downloads.BrokenOff(str(errors.DownloadTooLarge()))
                yield piece
        except StopAsyncIteration:
            return
        except (httpx.HTTPError, TimeoutError):
            raise downloads.BrokenOff("The hub that it runs at sent no more before all was sent.") from None

    async def close(self) -> None:
        """Nobody wants it any more. May be repeated."""
        await self._opened.aclose()


def packs(service: Service, launch: Launch) -> bool:
    """Whether it runs at a hub that may give its files. Asks nobody."""
    return launch.state is State.FORWARDED and launch.runs and _there(service, launch) is not None


async def begin(service: Service, launch: Launch) -> Relayed:
    """Have that hub pack them. Raises CannotDownload, at the latest after some minutes."""
    there = await asyncio.to_thread(_there, service, launch)
    if there is None:
        raise errors.CannotDownload(ELSEWHERE)
    async with AsyncExitStack() as opening:
        at = await opening.enter_async_context(binderhub.async_client())
        try:
            asking = opening.enter_async_context(anybinder.archive(at, *there))
            answer = await asyncio.wait_for(asking, downloads.BEGIN_SECONDS)
        except (httpx.HTTPError, TimeoutError):
            raise errors.OutOfReach from None
        if refusal := _refusal(answer):
            raise refusal
        # A zip of what cannot be made smaller is a little larger than that.
        most = service.settings.download_megabytes * 1_100_000
        return Relayed(answer, opening.pop_all(), most)


def _there(service: Service, launch: Launch) -> tuple[Peer, str, str] | None:
    """The hub, what it calls the launch, and what opens that there."""
    forward = rows.current(service, launch.id)
    way_in = rows.way_in(service, forward) if forward else None
    known = peers.find(service, forward.peer) if forward else None
    if way_in is None or known is None or not (name := anybinder.launch_of(way_in)):
        return None
    return known.peer, name, way_in.token


def _refusal(answer: httpx.Response) -> errors.CannotDownload | None:
    """Why there is no zip; None where there is one."""
    if answer.status_code == 200 and answer.headers.get("content-type") == "application/zip":
        return None
    if answer.status_code in REFUSED:
        return REFUSED[answer.status_code]()
    return errors.OutOfReach() if answer.status_code >= 500 else errors.CannotDownload(ELSEWHERE)
