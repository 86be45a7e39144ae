"""What somebody made in a session, on its way out: its working folder as a zip, packed where it is and passed on as it comes.

A stream of the tunnel is taken for it, at whose other end the agent starts what packs (`environments/archiving.py` has the
frames). Nothing is kept here but what is on its way: who reads slowly is packed for slowly.
"""

from __future__ import annotations

import asyncio
import json
import struct
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

import structlog

from broker import errors, events, launches, tunnel
from broker.models import Launch
from broker.repos import naming
from broker.service import Service
from providers.sentences import say

log = structlog.get_logger(__name__)
FILES_MOST = 200_000  # a zip's list is held in memory until its end: 150 MB of a small machine's
STREAM_SECONDS = 15.0  # an agent redials within 5 s
BEGIN_SECONDS = 120.0  # all files are counted first, on a disk that may be slow
HELD = 256 * 1024  # what may wait here for a slow reader
PIECE = 64 * 1024
TOLD_MOST = 10_000
HEAD = struct.Struct(">cI")


class BrokenOff(Exception):
    """It will not be whole. What it says is for the person."""


class Taken(asyncio.StreamReaderProtocol):
    """A stream's taker that is read like a file; what is not read yet stays with who sends it."""

    def __init__(self, stream: tunnel.Stream) -> None:
        self.reader = asyncio.StreamReader(limit=HELD)
        super().__init__(self.reader)
        self._stream = stream

    def connection_lost(self, exc: Exception | None) -> None:
        self._stream.ended()
        super().connection_lost(exc)


class Download:
    """One on its way. `close` it, whatever happens: that ends the packing."""

    def __init__(self, stream: tunnel.Stream, limit: int) -> None:
        self._stream = stream
        self._taken = Taken(stream)
        self._limit = limit
        self.bytes = 0

    def ask(self, name: str) -> None:
        """Have it packed, in a folder of this name."""
        wish = {"name": name, "bytes_most": self._limit, "files_most": FILES_MOST}
        self._stream.take(self._taken, json.dumps(wish).encode() + b"\n", what=tunnel.PACKED)

    async def begun(self) -> None:
        """Wait until it is known that it can be had. Raises CannotDownload."""
        try:
            kind, size = await asyncio.wait_for(self._head(), BEGIN_SECONDS)
            told = await asyncio.wait_for(self._told(size), STREAM_SECONDS)
        except (OSError, EOFError, ValueError, TimeoutError):
            raise errors.OutOfReach from None
        if kind != b"b":
            raise refusal(told, self._limit)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The zip, piece by piece. Raises BrokenOff where it will not be whole."""
        try:
            while True:
                kind, size = await self._head()
                if kind == b"d":
                    async for piece in self._content(size):
                        self.bytes += len(piece)
                        yield piece
                elif kind == b"e":
                    return
                else:
                    raise BrokenOff(str(refusal(await self._told(size), self._limit)))
        except (OSError, EOFError, ValueError):
            raise BrokenOff(say("The session ended, or its computer went out of reach, before all was sent.")) from None

    async def close(self) -> None:
        """Nobody wants it any more. May be repeated."""
        self._stream.transport.abort()

    async def _head(self) -> tuple[bytes, int]:
        return HEAD.unpack(await self._taken.reader.readexactly(HEAD.size))

    async def _told(self, size: int) -> dict[str, Any]:
        """What it says of itself. It runs beside a stranger's code, so nothing of this is believed to be words."""
        if size > TOLD_MOST:
            raise ValueError
        told = json.loads(await self._taken.reader.readexactly(size))
        if not isinstance(told, dict):
            raise ValueError
        return told

    async def _content(self, size: int) -> AsyncIterator[bytes]:
        while size:
            piece = await self._taken.reader.read(min(size, PIECE))
            if not piece:
                raise EOFError
            size -= len(piece)
            yield piece


async def begin(service: Service, streams: tunnel.Tunnel, launch: Launch) -> Download:
    """Have the working folder of this session packed. Raises CannotDownload, at the latest after some minutes."""
    found = Download(await _stream(streams, launch.id), service.settings.download_megabytes * 1_000_000)
    try:
        found.ask(called(service, launch))
        await found.begun()
    except BaseException:
        await found.close()
        raise
    log.info("download_begun", launch=launch.id)
    return found


def called(service: Service, launch: Launch) -> str:
    """`REPO-DATE`, of letters, digits and hyphens."""
    last = urllib.parse.unquote(urllib.parse.urlsplit(launch.repo_url).path.rstrip("/").rpartition("/")[2])
    return f"{naming.slug(last.removesuffix('.git'))}-{service.now():%Y-%m-%d}"


def note(service: Service, launch_id: str, sentence: str) -> None:
    """Say in the launch's log how it went."""
    with service.db.transaction() as session:
        launch = launches.locked(session, launch_id)
        if launch is not None:
            events.append(service, session, launch, sentence)


def refusal(told: dict[str, Any], limit: int) -> errors.CannotDownload:
    """What who packs says, in words."""
    if told.get("reason") == "too_large":
        return errors.DownloadTooLarge(
            say(
                "The files of this session are more than can be downloaded at once: %(size)s, in %(count)s files. Delete what "
                "you do not need, or download folders one by one, from inside the session.",
                size=amount(limit),
                count=FILES_MOST,
            )
        )
    if told.get("reason") == "changing":
        return errors.CannotDownload(
            say("Its files change faster than they can be packed. Stop what writes them, then try again.")
        )
    if told.get("reason") == "nothing":
        return errors.CannotDownload(
            say("This session has no folder of its own to work in, so there is nothing to download.")
        )
    return errors.OutOfReach()


def amount(size: int) -> str:
    """`640 kB`, `1.2 GB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{max(1, round(size / 1000))} kB"


async def _stream(streams: tunnel.Tunnel, session_id: str) -> tunnel.Stream:
    """A stream of this session, as soon as there is one. Raises OutOfReach."""
    found: asyncio.Future[tunnel.Stream | None] = asyncio.get_running_loop().create_future()

    def ready(stream: tunnel.Stream | None) -> None:
        if not found.done():
            found.set_result(stream)
        elif stream is not None:
            streams.park(stream)

    streams.wait(session_id, ready)
    try:
        stream = await asyncio.wait_for(found, STREAM_SECONDS)
    except TimeoutError:
        stream = None
    finally:
        streams.give_up(session_id, ready)
    if stream is None:
        raise errors.OutOfReach
    return stream
