"""Reading what peers say, on the event loop beside the requests: one task a stream, no thread waits for a line.

Whoever holds the lease of a try reads it. Lines come in as they are said and are written many at a time; a stream that is not
wanted any more is left at once, which makes a BinderHub give up what it has not started yet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import httpx
import structlog

from broker.forwarding import hearing, rows
from broker.service import Service
from federation import binderhub
from federation import errors as refusals

log = structlog.get_logger(__name__)
LOOK_SECONDS = 5.0  # between two looks for streams that nobody reads, should the word of one have been lost
SOON_SECONDS = 0.05  # where one is about to be there
KEPT = 500  # lines read ahead of what is written
KEEP_SECONDS = 15.0  # how often it is written down that a stream is being read

Lines = AsyncGenerator[binderhub.Said | None, None]


async def run(service: Service, limits: binderhub.Limits | None = None) -> None:
    """Read every stream that nobody reads, until cancelled."""
    reading: set[asyncio.Task[None]] = set()
    try:
        async with binderhub.async_client() as at:
            with service.fanout.listen(rows.WAITING) as wake:
                while True:
                    claimed = await asyncio.to_thread(_claimed, service)
                    for forward_id, launch_id in claimed or ():
                        task = asyncio.create_task(_read(service, at, forward_id, launch_id, limits))
                        reading.add(task)
                        task.add_done_callback(reading.discard)
                    await wake.wait(SOON_SECONDS if claimed is None else LOOK_SECONDS)
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


def _claimed(service: Service) -> list[tuple[str, str]] | None:
    try:
        return rows.claim(service)
    except Exception:
        log.exception("forwards_unclaimed")  # the table is out of reach: the next look may find it
        return []


async def _read(
    service: Service, at: httpx.AsyncClient, forward_id: str, launch_id: str, limits: binderhub.Limits | None
) -> None:
    """One try, to its end. Whatever goes wrong here is an end with a reason."""
    try:
        task = await asyncio.to_thread(hearing.begin, service, forward_id)
        if task is not None:
            lines = binderhub.events(at, task.peer, task.url, task.token, limits)
            await _while_wanted(service, forward_id, launch_id, lines)
    except refusals.PeerError as refusal:
        await asyncio.to_thread(hearing.failed, service, forward_id, refusal)
    except Exception as error:
        log.exception("forward_unread", forward=forward_id)
        own = refusals.Vanished(f"The broker met an error of its own while it listened ({type(error).__name__}).")
        await asyncio.to_thread(hearing.failed, service, forward_id, own)


async def _while_wanted(service: Service, forward_id: str, launch_id: str, lines: Lines) -> None:
    """Until it has said all, or nobody wants it any more."""
    listening = asyncio.create_task(_listen(service, forward_id, lines))
    leaving = asyncio.create_task(_until_closed(service, forward_id, launch_id))
    try:
        await asyncio.wait({listening, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            listening.result()
    finally:
        for task in (listening, leaving):
            task.cancel()
        await asyncio.gather(listening, leaving, return_exceptions=True)


async def _until_closed(service: Service, forward_id: str, launch_id: str) -> None:
    with service.fanout.listen(launch_id) as wake:
        while await asyncio.to_thread(rows.is_open, service, forward_id):
            await wake.wait(LOOK_SECONDS)


async def _listen(service: Service, forward_id: str, lines: Lines) -> None:
    """Write what is said as it comes: while one batch is written, the next gathers. Raises PeerError, once what came before
    it is written."""
    said: asyncio.Queue[binderhub.Said | End | None] = asyncio.Queue(KEPT)
    reader = asyncio.create_task(_gather(lines, said))
    try:
        while True:
            batch = await _batch(said)
            heard = [line for line in batch if isinstance(line, binderhub.Said)]
            if heard and not await asyncio.to_thread(hearing.take, service, forward_id, heard):
                return None
            if batch and isinstance(batch[-1], End):
                return batch[-1].raised()
            if not heard:
                await asyncio.to_thread(rows.keep, service, forward_id, heard=bool(batch))
            if not batch and reader.done():
                return reader.result()
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


@dataclass(frozen=True)
class End:
    """The end of a stream."""

    refusal: refusals.PeerError | None = None

    def raised(self) -> None:
        """Raises what it ended with."""
        if self.refusal:
            raise self.refusal


async def _gather(lines: Lines, said: asyncio.Queue[binderhub.Said | End | None]) -> None:
    async with aclosing(lines):
        try:
            async for line in lines:
                await said.put(line)
        except refusals.PeerError as refusal:
            await said.put(End(refusal))
        else:
            await said.put(End())


async def _batch(said: asyncio.Queue[binderhub.Said | End | None]) -> list[binderhub.Said | End | None]:
    """All that is there, waiting for the first a while. Nothing where nothing comes."""
    batch: list[binderhub.Said | End | None] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KEEP_SECONDS):
            batch.append(await said.get())
    while not said.empty():
        batch.append(said.get_nowait())
    return batch
