"""Many launches in flight on one process: what one costs the broker, and how long a click waits for us.

`python -m tests.bench.flight --launches 1000 --within 60`: a real broker with a table on this disk, the fake cloud with
boots of 60 s, and, in place of machines, a fleet that enrols, reports and dials in as the agent does. Clicks come evenly;
everybody follows their launch until it is ready. Then all are stopped. Ends by itself, says every ten seconds how far it
is, and prints a table. What it wants to know of orders it reads in the broker's own table, which costs the broker nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import sqlite3
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
LATE_SECONDS = 240
"""What is not ready so long after the last boot, or not gone so long after the last stop, is not waited for."""
LOOK_SECONDS = 0.5  # between two looks for new orders
SAY_SECONDS = 10
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

    def __init__(self, home: Path, cloud: FakeCloud, *, launches: int, within: float, parked: int) -> None:
        from broker import crypto

        told = json.loads((home / "broker.json").read_text())
        self.host = f"127.0.0.1:{told['port']}"
        self.url, self.key = f"http://{self.host}", told["key"]
        self.cloud, self.launches, self.within, self.parked = cloud, launches, within, parked
        self.keys = crypto.Keyring(home)
        self._rows = sqlite3.connect(f"file:{home / 'anybinder.sqlite'}?mode=ro", uri=True)
        self.clicked: dict[str, float] = {}
        """When each launch was clicked, by its id: seconds since 1970."""
        self.answered: list[float] = []
        self.ready: dict[str, float] = {}
        self.refused: list[str] = []
        self.failed: list[str] = []
        self.bought: set[str] = set()
        self._agents: list[asyncio.Task[None]] = []

    def close(self) -> None:
        """After the last look."""
        self._rows.close()

    async def go(self) -> None:
        """Click, wait until all are ready."""
        fleet = asyncio.create_task(self._fleet())
        began = asyncio.get_running_loop().time()
        clicks = []
        for number in range(self.launches):
            due = began + number * self.within / self.launches
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
            self.refused.append(f"{status} {answer}")
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
            told = await asyncio.gather(*(self._ask("DELETE", f"/api/launches/{launch}") for launch in chunk))
            if not any(status for status, _ in told):
                self.failed.append("the broker does not answer")
                return
        for _ in range(int(LATE_SECONDS / LOOK_SECONDS)):
            if not self.running():
                break
            await asyncio.sleep(LOOK_SECONDS)
        if left := await asyncio.to_thread(self.cloud.billed):
            self.failed.append(f"{len(left)} things were not ended in time")

    def running(self) -> int:
        """How many launches are not stopped."""
        found: int = self._rows.execute("SELECT count(*) FROM launches WHERE state != 'stopped'").fetchone()[0]
        return found

    async def _ask(self, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
        return await ask(self.url, method, path, body, key or self.key)

    # Machines.

    async def _fleet(self) -> None:
        """Whatever was bought has booted after BOOT_SECONDS, and gets an agent."""
        query = "SELECT id FROM orders WHERE instance IS NOT NULL AND enrolled_at IS NULL"
        while True:
            for (order,) in self._rows.execute(query).fetchall():
                if order not in self.bought:
                    self.bought.add(order)
                    asyncio.get_running_loop().call_later(BOOT_SECONDS, self._boot, order)
            await asyncio.sleep(LOOK_SECONDS)

    def _boot(self, order: str) -> None:
        self._agents.append(asyncio.create_task(self._live(order)))

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


def peak(process: psutil.Process) -> float:
    """The most memory that it ever had, in MiB."""
    told = Path(f"/proc/{process.pid}/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0]) / 1024


def measure(launches: int, within: float, parked: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="abf-", dir="/tmp") as folder, FakeCloud.start() as cloud:
        cloud.options(boot_seconds=BOOT_SECONDS, credential_seconds=10**6)
        cloud.fault("provision", "never_dials", times=None)
        with running(Path(folder) / "home", cloud) as broker:
            flight = Flight(Path(folder) / "home", cloud, launches=launches, within=within, parked=parked)
            with contextlib.closing(flight):
                return asyncio.run(fly(flight, broker))


async def fly(flight: Flight, broker: psutil.Process) -> dict[str, Any]:
    telling = asyncio.create_task(tell(flight, broker))
    before, idle, began = cpu(broker), broker.memory_info().rss / 2**20, time.monotonic()
    await flight.go()
    ready, took = cpu(broker), time.monotonic() - began
    questions = len(flight.cloud.calls())
    await flight.stop()
    telling.cancel()
    bought = {call["launch"]: call["at"] for call in reversed(flight.cloud.calls("provision"))}
    waited = sorted(bought[launch] - clicked for launch, clicked in flight.clicked.items() if launch in bought)
    booted = sorted(flight.ready[launch] - bought[launch] - BOOT_SECONDS for launch in flight.ready)
    return {
        "launches": flight.launches,
        "within": flight.within,
        "ready": len(flight.ready),
        "refused": len(flight.refused),
        "failed": len(flight.failed),
        "why": [*flight.refused[:3], *flight.failed[:3]],
        "seconds": took,
        "seconds_to_gone": time.monotonic() - began - took,
        "cpu_to_ready": (ready - before) / flight.launches,
        "cpu_to_gone": (cpu(broker) - ready) / flight.launches,
        "busy": (ready - before) / took,
        "memory_idle": idle,
        "memory_peak": peak(broker),
        "answered": quantiles(sorted(flight.answered)),
        "click_to_call": quantiles(waited),
        "boot_to_ready": quantiles(booted),
        "questions": questions / flight.launches,
        "load": os.getloadavg()[0],
    }


async def tell(flight: Flight, broker: psutil.Process) -> None:
    """How far it is, now and then."""
    began, before = time.monotonic(), cpu(broker)
    while True:
        await asyncio.sleep(SAY_SECONDS)
        now = cpu(broker)
        sys.stderr.write(
            f"{time.monotonic() - began:5.0f} s: {len(flight.clicked)} clicked, {len(flight.bought)} bought, "
            f"{len(flight.ready)} ready, {flight.running()} not stopped, {len(flight.refused)} refused, "
            f"{len(flight.failed)} failed; the broker takes {(now - before) / SAY_SECONDS:.2f} of a processor, "
            f"{broker.memory_info().rss / 2**20:.0f} MiB\n"
        )
        before = now


def quantiles(ordered: list[float]) -> dict[str, float]:
    if len(ordered) < 2:
        return {"p50": float("nan"), "p99": float("nan")}
    return {"p50": statistics.median(ordered), "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]}


def table(found: dict[str, Any]) -> str:
    """As docs/performance.md has it."""

    def pair(name: str) -> str:
        return f"{found[name]['p50']:.2f} and {found[name]['p99']:.2f} s"

    rows = [
        ("broker's processor time, click to `ready`", f"{found['cpu_to_ready'] * 1000:.0f} ms"),
        ("broker's processor time, stop to gone", f"{found['cpu_to_gone'] * 1000:.0f} ms"),
        ("of a processor, on the way to `ready`", f"{found['busy']:.2f}"),
        ("questions to the cloud about each, click to `ready`", f"{found['questions']:.1f}"),
        ("memory, idle and at most", f"{found['memory_idle']:.0f} and {found['memory_peak']:.0f} MiB"),
        ("click to its answer, p50 and p99", pair("answered")),
        ("click to the creating call, p50 and p99", pair("click_to_call")),
        ("booted to `ready` as followed, p50 and p99", pair("boot_to_ready")),
        ("ready, refused, failed", f"{found['ready']}, {found['refused']}, {found['failed']}"),
        ("all ready after, all gone after", f"{found['seconds']:.0f} and {found['seconds_to_gone']:.0f} s"),
        ("load of the computer at the end", f"{found['load']:.1f}"),
    ]
    head = f"| boots of {BOOT_SECONDS} s | {found['launches']} launches, clicked within {found['within']:.0f} s |"
    return "\n".join([head, "|---|---:|", *(f"| {name} | {value} |" for name, value in rows), *found["why"]])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.flight", description=__doc__)
    parser.add_argument("--launches", type=int, default=1000)
    parser.add_argument("--within", type=float, default=BOOT_SECONDS, help="seconds in which all of them are clicked")
    parser.add_argument("--parked", type=int, default=PARKED, help="streams that each agent keeps ready")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    chosen = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = measure(chosen.launches, chosen.within, chosen.parked)
    sys.stdout.write(table(found) + "\n")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))
    return 0 if found["ready"] == chosen.launches and not found["failed"] else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:])
    else:
        sys.exit(main())
