"""Waking whoever follows a launch."""

from __future__ import annotations

import asyncio

import pytest

from broker import fanout


@pytest.mark.parametrize("turns", range(4))
def test_who_is_cancelled_at_the_moment_of_a_wake_up_ends(turns: int) -> None:
    """Else whoever waits in a loop would go on for ever, and the broker with them."""

    async def waited() -> None:
        wake = fanout.Wake()
        waiting = asyncio.create_task(wake.wait(60))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        wake.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        if waiting.done():
            return
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(waited())
