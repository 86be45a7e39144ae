"""Progress: nothing lost, nothing doubled, whoever leaves and comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker import events, launches
from tests.broker.conftest import Bench


async def collect(stream: Any, most: int = 100) -> list[dict[str, Any]]:
    lines = []
    async for line in stream:
        if line is not None:
            lines.append(line)
        if len(lines) >= most:
            break
    return lines


def test_a_stream_ends_with_ready(bench: Bench) -> None:
    launch = bench.ready()
    lines = asyncio.run(collect(events.follow(bench.at, launch.id)))
    assert [line["id"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["phase"] == "ready"


def test_a_stream_ends_with_failed(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    launches.stop(bench.at, launch.id)
    assert asyncio.run(collect(events.follow(bench.at, launch.id)))[-1]["phase"] == "failed"


def test_a_stream_to_the_end_goes_on_to_stopped(bench: Bench) -> None:
    launch = bench.ready()
    launches.stop(bench.at, launch.id)
    bench.until_stopped(launch)
    lines = asyncio.run(collect(events.follow(bench.at, launch.id, to_the_end=True)))
    assert lines[-1]["state"] == "stopped"


@pytest.mark.parametrize("cut", [0, 1, 3, 5])
def test_a_stream_is_taken_up_where_it_was_cut(bench: Bench, cut: int) -> None:
    launch = bench.ready()
    whole = asyncio.run(collect(events.follow(bench.at, launch.id)))
    rest = asyncio.run(collect(events.follow(bench.at, launch.id, after=cut)))
    assert whole[cut:] == rest


def test_whoever_waits_is_woken_by_a_new_line(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)

    async def run() -> list[dict[str, Any]]:
        stream = events.follow(bench.at, launch.id, after=len(bench.said(launch)))
        waiting = asyncio.create_task(collect(stream, most=1))
        await asyncio.sleep(0)
        await asyncio.to_thread(bench.report, launch, ("building", "news"))
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(run())[0]["message"] == "news"


def test_a_long_log_comes_whole_and_in_order(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    for start in range(0, 2500, 500):
        lines = [("building", f"line {number}") for number in range(start, start + 500)]
        bench.report(launch, *lines, first=start + 1)
    launches.stop(bench.at, launch.id)
    lines = asyncio.run(collect(events.follow(bench.at, launch.id), most=10_000))
    said = [line["message"] for line in lines if line["message"].startswith("line ")]
    assert said == [f"line {number}" for number in range(2500)]


def test_an_idle_stream_says_now_and_then_that_it_lives(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEPALIVE_SECONDS", 0.01)
    launch = bench.request()

    async def first_silence() -> bool:
        async for line in events.follow(bench.at, launch.id):
            if line is None:
                return True
        return False

    assert asyncio.run(asyncio.wait_for(first_silence(), 5))
