"""Many launches in flight on one process: what one costs the broker, and how long a click waits for us.

`python -m tests.bench.flight --launches 1000`: a real broker with a table on this disk, the fake cloud with boots of 60 s,
and, in place of machines, a fleet that enrols, reports and dials in as the agent does. Clicks come evenly, so that within
one boot all of them have begun; everybody follows their launch until it is ready. Then all are stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from broker import agent
from providers.fake import FakeCloud

CLONE = Path(__file__).parent.parent.parent
BOOT_SECONDS = 60
TRIES = 20
LATE_SECONDS = 240  # what is not ready so long after the last boot is not waited for
PARKED = 4  # streams that an agent keeps ready
KNOWN = {"repo_url": "http://127.0.0.1:9/flight.git", "commit": "c" * 40}


# --- the broker -----------------------------------------------------------------------------------------------------


def serve(home: str, socket: str) -> None:
    """`anybinder up`, with one backend and one repository that nobody has to be asked about."""
    from broker import repos, serving, settings

    found = {**KNOWN, "web_url": KNOWN["repo_url"], "slug": "flight", "ref": "main", "path": ""}
    repos.Resolver.resolve = lambda self, spec, opener=None: repos.Resolved(  # type: ignore[method-assign]
        spec=spec, spec_string=f"git/{KNOWN['repo_url']}/main", **found
    )
    repos.Resolver.read = lambda self, found, paths, opener=None: {}  # type: ignore[method-assign]
    backend = {"name": "cloud", "provider": "fake", "configuration": {"socket": socket, "kinds": "none"}}
    chosen = settings.Settings(home=Path(home), port=0, backends=[backend])  # type: ignore[arg-type,list-item]
    with serving.owned(chosen.home):
        listening, chosen = serving.bind(chosen)
        serving.run(listening, chosen, on_ready=lambda at, key: print("ready", flush=True))


@contextlib.contextmanager
def running(home: Path, cloud: FakeCloud) -> Iterator[psutil.Process]:
    """A broker, up; its words go to a file beside its table."""
    command = [sys.executable, "-m", "tests.bench.flight", "serve", str(home), cloud.configuration["socket"]]
    with (home.parent / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=CLONE)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError((home.parent / "log").read_text()[-3000:])
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


# --- who clicks, and who is a machine -------------------------------------------------------------------------------


class Flight:
    """All launches of one run."""

    def __init__(self, home: Path, cloud: FakeCloud, *, launches: int, seconds: float, parked: int) -> None:
        from broker import crypto

        told = json.loads((home / "broker.json").read_text())
        self.host = f"127.0.0.1:{told['port']}"
        self.url, self.key = f"http://{self.host}", told["key"]
        self.cloud, self.launches, self.seconds, self.parked = cloud, launches, seconds, parked
        self.keys = crypto.Keyring(home)
        self.clicked: dict[str, float] = {}
        """When each launch was clicked, by its id: seconds since 1970."""
        self.answered: list[float] = []
        self.ready: dict[str, float] = {}
        self.failed: list[str] = []
        self.born: set[str] = set()
        self._agents: list[asyncio.Task[None]] = []

    async def go(self) -> None:
        """Click, wait until all are ready."""
        fleet = asyncio.create_task(self._fleet())
        began = asyncio.get_running_loop().time()
        clicks = []
        for number in range(self.launches):
            due = began + number * self.seconds / self.launches
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            clicks.append(asyncio.create_task(self._click(number)))
        _, late = await asyncio.wait(clicks, timeout=BOOT_SECONDS + LATE_SECONDS)
        self.failed += [f"{len(late)} were not ready in time"] if late else []
        for click in late:
            click.cancel()
        fleet.cancel()

    async def _click(self, number: int) -> None:
        clicked, began = time.time(), time.monotonic()
        wish = {"repo": KNOWN["repo_url"], "name": f"flight-{number}", "backend": "cloud"}
        status, answer = await self._ask("POST", "/api/launches", wish)
        if status != 201:
            self.failed.append(f"{status} {answer}")
            return
        self.answered.append(time.monotonic() - began)
        self.clicked[answer["id"]] = clicked
        await self._follow(answer["id"])

    async def _follow(self, launch: str) -> None:
        """As a page does: the stream of its lines, until the outcome."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]), limit=1 << 20)
        head = f"GET /api/launches/{launch}/events HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {self.key}\r\n\r\n"
        writer.write(head.encode())
        with contextlib.closing(writer):
            while line := await reader.readline():
                if b'"phase":"ready"' in (plain := line.replace(b" ", b"")):
                    self.ready[launch] = time.time()
                    break
                if b'"phase":"failed"' in plain:
                    self.failed.append(line.decode())
                    break
            else:
                self.failed.append(f"the stream of {launch} ended early")

    async def stop(self) -> None:
        """All of them, and wait until nothing is left."""
        for chunk in batches(list(self.clicked), 20):
            await asyncio.gather(*(self._ask("DELETE", f"/api/launches/{launch}") for launch in chunk))
        for _ in range(2 * LATE_SECONDS):
            if not await asyncio.to_thread(self.cloud.billed):
                return
            await asyncio.sleep(0.5)
        self.failed.append("not everything was ended in time")

    async def _ask(self, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
        return await ask(self.url, method, path, body, key or self.key)

    # Machines.

    async def _fleet(self) -> None:
        """Whatever the cloud says is running gets an agent."""
        while True:
            for machine in await asyncio.to_thread(self.cloud.instances):
                if machine["state"] == "running" and machine["id"] not in self.born:
                    self.born.add(machine["id"])
                    self._agents.append(asyncio.create_task(self._live(machine["labels"]["anybinder-order"])))
            await asyncio.sleep(0.5)

    async def _live(self, order: str) -> None:
        """What the agent says in its life, without building or serving anything."""
        secret, token = os.urandom(24).hex(), self.keys.token("enrolment", order)
        _, task = await self._ask("POST", "/agent/enrol", {"order": order, "agent": secret, "nonce": "00"}, token)
        said, status = 0, {"server": "none"}
        for phase, message in (
            ("fetching", "Fetching."),
            ("building", "Building."),
            ("built", "Built."),
            ("launching", "Up."),
        ):
            status = {"server": "up", "kind": "jupyter"} if phase == "launching" else status
            line = {"phase": phase, "message": message}
            report = {"order": order, "first": said + 1, "events": [line], "status": status}
            said += 1
            await self._ask("POST", "/agent/report", report, secret)
        tunnel = agent.Tunnel(self.url, task["session"]["id"], task["session"]["secret"], "/nowhere", self.parked)
        dialled = asyncio.create_task(tunnel.run())
        report = {"order": order, "first": said + 1, "events": [], "status": status}
        with contextlib.suppress(OSError):
            while (await self._ask("POST", "/agent/report", report, secret))[1].get("command") == "go":
                await asyncio.sleep(task["heartbeat_seconds"])
        dialled.cancel()


async def ask(url: str, method: str, path: str, body: Any, key: str) -> tuple[int, Any]:
    """One question on a connection of its own, asked again, as agents and pages do, where no answer came."""
    data = json.dumps(body).encode() if body is not None else b""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {url[7:]}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    for _ in range(TRIES):
        with contextlib.suppress(OSError, EOFError, ValueError):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), limit=1 << 20)
            with contextlib.closing(writer):
                writer.write(head.encode() + data)
                status, answer, _ = await agent.read_answer(reader)
                return status, answer or {}
        await asyncio.sleep(1)
    return 0, {}


def batches(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


# --- what is measured -----------------------------------------------------------------------------------------------


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def measure(launches: int, seconds: float, parked: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="abf-", dir="/tmp") as folder, FakeCloud.start() as cloud:
        cloud.options(boot_seconds=BOOT_SECONDS, credential_seconds=10**6)
        cloud.fault("provision", "never_dials", times=None)
        with running(Path(folder) / "home", cloud) as broker:
            flight = Flight(Path(folder) / "home", cloud, launches=launches, seconds=seconds, parked=parked)
            return asyncio.run(fly(flight, broker))


async def fly(flight: Flight, broker: psutil.Process) -> dict[str, Any]:
    before, idle, began = cpu(broker), broker.memory_info().rss, time.monotonic()
    await flight.go()
    ready, resident, took = cpu(broker), broker.memory_info().rss, time.monotonic() - began
    await flight.stop()
    bought = {call["launch"]: call["at"] for call in reversed(flight.cloud.calls("provision"))}
    waited = sorted(bought[launch] - clicked for launch, clicked in flight.clicked.items() if launch in bought)
    booted = sorted(flight.ready[launch] - bought[launch] - BOOT_SECONDS for launch in flight.ready)
    return {
        "launches": flight.launches,
        "ready": len(flight.ready),
        "failed": flight.failed[:5],
        "seconds": took,
        "cpu_to_ready": (ready - before) / flight.launches,
        "cpu_to_stopped": (cpu(broker) - ready) / flight.launches,
        "rss_idle": idle / 2**20,
        "rss_ready": resident / 2**20,
        "answered": quantiles(sorted(flight.answered)),
        "click_to_call": quantiles(waited),
        "boot_to_ready": quantiles(booted),
        "describes": len(flight.cloud.calls("describe")) / flight.launches,
    }


def quantiles(ordered: list[float]) -> dict[str, float]:
    if len(ordered) < 2:
        return {"p50": float("nan"), "p99": float("nan")}
    return {"p50": statistics.median(ordered), "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]}


def table(found: dict[str, Any]) -> str:
    def pair(name: str) -> str:
        return f"{found[name]['p50']:.2f} s | {found[name]['p99']:.2f} s"

    return "\n".join([
        f"| {found['launches']} launches, boots of {BOOT_SECONDS} s | p50 | p99 |",
        "|---|---:|---:|",
        f"| click to its answer | {pair('answered')} |",
        f"| click to the creating call | {pair('click_to_call')} |",
        f"| booted to `ready`, as followed | {pair('boot_to_ready')} |",
        "",
        f"{found['ready']} ready after {found['seconds']:.0f} s. The broker took {found['cpu_to_ready'] * 1000:.0f} ms of a "
        f"processor for each until it was ready, and {found['cpu_to_stopped'] * 1000:.0f} ms until nothing of it was left. "
        f"Memory: {found['rss_idle']:.0f} MiB idle, {found['rss_ready']:.0f} MiB with all of them ready. The cloud was asked "
        f"{found['describes']:.1f} times after each.",
        *found["failed"],
    ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.flight", description=__doc__)
    parser.add_argument("--launches", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=BOOT_SECONDS, help="within which all of them are clicked")
    parser.add_argument("--parked", type=int, default=PARKED, help="streams that each agent keeps ready")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = measure(chosen.launches, chosen.seconds, chosen.parked)
    print(table(found), flush=True)
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=1))
    return 0 if found["ready"] == chosen.launches else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:])
    else:
        sys.exit(main())
