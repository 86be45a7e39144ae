"""Measure three ways to one server, round by round beside each other: no proxy, configurable-http-proxy, and ours.

Prints a Markdown table, writes everything as JSON to `--out`, and fails where ours is behind its goals. Loopback only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from broker import settings

CLONE = Path(__file__).resolve().parent.parent.parent
WORK = CLONE / ".work" / "bench"
PROXY = "configurable-http-proxy"
PROXY_VERSION = "5.3.0"
IDLE_SESSIONS = 200
WAYS = ("none", "chp", "ours")
TITLES = {"none": "no proxy", "chp": PROXY, "ours": "Anybinder"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One thing to measure. `goal` is how ours must compare: at least (rates) or at most (times) this times the proxy."""

    name: str
    unit: str
    value: str
    kind: str = "http"
    path: str = "/small"
    connections: int = 1
    added: bool = False
    """Compare what is added to no proxy."""
    goal: float | None = 1.0
    """None: measured and told, without a goal."""
    tolerance: float = 0.0

    @property
    def run(self) -> tuple[str, str, int]:
        return self.kind, self.path, self.connections


CELLS = (
    Cell(name="200 bytes, 1 connection", unit="requests/s", value="rate"),
    Cell(name="200 bytes, 32 connections", unit="requests/s", value="rate", connections=32),
    Cell(name="latency added, p50", unit="ms", value="p50", added=True),
    Cell(name="latency added, p99", unit="ms", value="p99", added=True),
    Cell(name="1 MB, 4 connections", unit="MB/s", value="megabytes", path="/large", connections=4, tolerance=0.1),
    Cell(name="WebSocket, 32 connections", unit="messages/s", value="rate", kind="websocket", connections=32),
    # One message at a time measures only how often processes wake each other: the tunnel is one process more.
    Cell(name="WebSocket, 1 connection", unit="messages/s", value="rate", kind="websocket", goal=None),
)
MEMORY_GOAL = 160.0
"""KiB that one idle session may add: four parked streams, without and with an open WebSocket."""


@dataclass
class Bench:
    """The processes, and what was measured."""

    folder: Path
    seconds: float
    rounds: int
    stack: contextlib.ExitStack
    ports: dict[str, int] = field(default_factory=dict)
    sessions: list[dict[str, str]] = field(default_factory=list)
    processes: dict[str, psutil.Process] = field(default_factory=dict)
    api: tuple[str, str] = ("", "")
    measured: dict[tuple[str, str, int], dict[str, list[dict[str, float]]]] = field(default_factory=dict)

    @property
    def socket(self) -> str:
        return str(self.folder / "backend.sock")

    def start(self) -> None:
        self.ports["none"] = int(self.python("backend", self.socket)[1])
        told = json.loads(self.python("ours", str(IDLE_SESSIONS + 1), name="ours")[1])
        self.ports["ours"], self.sessions = told["port"], told["sessions"]
        self.agents(self.sessions[:1])
        self.start_proxy()

    def agents(self, sessions: list[dict[str, str]]) -> None:
        process = self.python("agents", str(self.ports["ours"]), self.socket, tell=sessions)
        if process[1].strip() != "parked":
            raise RuntimeError("the agents did not dial in")

    def python(self, module: str, *arguments: str, name: str = "", tell: Any = None) -> tuple[Any, str]:
        """Start one of our programs; it and the first line it says."""
        command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
        process = self.stack.enter_context(running(command))
        if tell is not None:
            process.stdin.write(json.dumps(tell) + "\n")
            process.stdin.flush()
        if name:
            self.processes[name] = psutil.Process(process.pid)
        return process, process.stdout.readline()

    def start_proxy(self) -> None:
        port, api, token = settings.free_port(), settings.free_port(), secrets.token_hex()
        command = ["node", str(WORK / "node_modules" / PROXY / "bin" / PROXY), "--ip", "127.0.0.1", "--port", str(port)]
        command += ["--api-ip", "127.0.0.1", "--api-port", str(api), "--log-level", "warn"]
        command += ["--default-target", f"http://127.0.0.1:{self.ports['none']}"]
        process = self.stack.enter_context(running(command, CONFIGPROXY_AUTH_TOKEN=token))
        self.ports["chp"], self.processes["chp"] = port, psutil.Process(process.pid)
        self.api = (f"http://127.0.0.1:{api}/api/routes", token)
        deadline = time.monotonic() + 20
        while not self.answers(port):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{PROXY} did not start")
            time.sleep(0.05)

    @staticmethod
    def answers(port: int) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/small", timeout=2) as answer,
        ):
            return answer.status == 200
        return False

    # ---- speed ----------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        for kind in ("http", "websocket"):
            for way in WAYS:
                self.load((kind, "/small", 1), way, 0.3)

    def measure(self) -> None:
        runs = list(dict.fromkeys(cell.run for cell in CELLS))
        for number in range(self.rounds):
            for run in runs:
                for step in range(len(WAYS)):
                    way = WAYS[(number + step) % len(WAYS)]
                    result = self.load(run, way, self.seconds)
                    self.measured.setdefault(run, {}).setdefault(way, []).append(result)

    def load(self, run: tuple[str, str, int], way: str, seconds: float) -> dict[str, float]:
        job = {
            **self.job(way, self.sessions[0]),
            "connections": run[2],
            "seconds": seconds,
            "kind": run[0],
            "path": run[1],
        }
        command = [sys.executable, "-m", "tests.bench.load"]
        done = subprocess.run(
            command,
            input=json.dumps(job) + "\n",
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            cwd=CLONE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{way} {run}: {done.stderr[-2000:]}")
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def job(self, way: str, session: dict[str, str]) -> dict[str, Any]:
        port = self.ports[way]
        host = f"{session['id']}.localhost:{port}" if way == "ours" else f"127.0.0.1:{port}"
        return {"port": port, "host": host, "cookie": session["cookie"]}

    # ---- memory ---------------------------------------------------------------------------------------------------

    def memory(self) -> dict[str, dict[str, float]]:
        """KiB that each of 200 idle sessions adds to the process, and what an open WebSocket for each adds to that."""
        before = self.resident()
        self.agents(self.sessions[1:])
        self.add_routes()
        idle = self.resident()
        for way in ("chp", "ours"):
            jobs = [{**self.job(way, one), "kind": "hold", "path": "/ws"} for one in self.sessions[1:]]
            if self.python("load", tell=jobs)[1].strip() != "held":
                raise RuntimeError(f"{way} did not hold its WebSockets")
        held = self.resident()
        return {
            way: {
                "base_mib": before[way] / 1024,
                "idle_kib": (idle[way] - before[way]) / IDLE_SESSIONS,
                "websocket_kib": (held[way] - before[way]) / IDLE_SESSIONS,
            }
            for way in ("chp", "ours")
        }

    def resident(self) -> dict[str, float]:
        time.sleep(1)
        return {way: process.memory_info().rss / 1024 for way, process in self.processes.items()}

    def add_routes(self) -> None:
        url, token = self.api
        for one in self.sessions[1:]:
            body = json.dumps({"target": f"http://127.0.0.1:{self.ports['none']}"}).encode()
            asked = urllib.request.Request(f"{url}/user/{one['id']}", body, {"Authorization": f"token {token}"})
            urllib.request.urlopen(asked, timeout=5).close()


@contextlib.contextmanager
def started(seconds: float, rounds: int) -> Iterator[Bench]:
    """All processes, up and warm."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="abb-")))
        bench = Bench(folder=folder, seconds=seconds, rounds=rounds, stack=stack)
        bench.start()
        bench.warm_up()
        yield bench


@contextlib.contextmanager
def running(command: list[str], **environment: str) -> Iterator[Any]:
    """This program, ended when we are done with it."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, cwd=CLONE, env={**os.environ, **environment}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def install() -> None:
    """Fetch configurable-http-proxy into the clone, once."""
    found = WORK / "node_modules" / PROXY / "package.json"
    if found.exists() and json.loads(found.read_text())["version"] == PROXY_VERSION:
        return
    WORK.mkdir(parents=True, exist_ok=True)
    command = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--silent",
        "--prefix",
        str(WORK),
        f"{PROXY}@{PROXY_VERSION}",
    ]
    subprocess.run(command, check=True, timeout=300)


# ---- what it says -------------------------------------------------------------------------------------------------


def median(bench: Bench, cell: Cell, way: str) -> float:
    """Of all rounds; for what is added, of each round's difference to no proxy in the same round."""
    results = bench.measured[cell.run]
    values = [result[cell.value] for result in results[way]]
    if cell.added:
        values = [value - base[cell.value] for value, base in zip(values, results["none"], strict=True)]
    return statistics.median(values)


QUICK_SLACK = 0.35  # three rounds of a second on a busy machine show what broke, and prove nothing


def rows(bench: Bench, slack: float) -> list[dict[str, Any]]:
    """Every cell with its verdict; `slack` is how much worse than its goal it may be."""
    told = []
    for cell in CELLS:
        values = {way: median(bench, cell, way) for way in WAYS}
        ratio = values["ours"] / values["chp"]
        bound = (cell.goal or 0) * (1 + cell.tolerance + slack if cell.added else 1 - cell.tolerance - slack)
        good = cell.goal is None or (ratio <= bound if cell.added else ratio >= bound)
        told.append(
            {
                "name": cell.name,
                "unit": cell.unit,
                **values,
                "ratio": ratio,
                "bound": bound,
                "good": good,
                "goal": cell.goal,
            }
        )
    return told


def table(told: list[dict[str, Any]], memory: dict[str, dict[str, float]]) -> str:
    lines = [
        f"| | {' | '.join(TITLES[way] for way in WAYS)} | Anybinder ÷ CHP | goal |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in told:
        digits = 3 if row["unit"] == "ms" else 0
        numbers = " | ".join(
            "" if way == "none" and "added" in row["name"] else f"{row[way]:,.{digits}f}" for way in WAYS
        )
        sign = "≤" if row["unit"] == "ms" else "≥"
        verdict = "met" if row["good"] else "**behind**"
        aim = f"{sign} {row['bound']:.2f}: {verdict}" if row["goal"] else "none"
        lines.append(f"| {row['name']}, {row['unit']} | {numbers} | {row['ratio']:.2f} | {aim} |")
    for name, key in (("memory per idle session", "idle_kib"), ("the same with an open WebSocket", "websocket_kib")):
        ours = memory["ours"][key]
        verdict = "met" if ours <= MEMORY_GOAL else "**behind**"
        lines.append(f"| {name}, KiB | | {memory['chp'][key]:.1f} | {ours:.1f} | | ≤ {MEMORY_GOAL:.0f}: {verdict} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a second for each measurement, three rounds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--out", type=Path, default=WORK / "bench.json")
    chosen = parser.parse_args()
    install()
    seconds, rounds = chosen.seconds or (1.0 if chosen.quick else 3.0), chosen.rounds or (3 if chosen.quick else 7)
    with started(seconds, rounds) as fresh:  # of its own: memory that was used and freed would hide what is added
        memory = fresh.memory()
    with started(seconds, rounds) as bench:
        bench.measure()
        told = rows(bench, QUICK_SLACK if chosen.quick else 0.0)
    print(table(told, memory), flush=True)
    raw = {" ".join(map(str, run)): ways for run, ways in bench.measured.items()}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps({"rows": told, "memory": memory, "measured": raw}, indent=1))
    met = all(row["good"] for row in told) and memory["ours"]["websocket_kib"] <= MEMORY_GOAL
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
