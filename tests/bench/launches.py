"""How long a launch takes, beside doing the same by hand: `python -m venv`, `pip install`, `jupyter server`.

Cold: a repository with numpy, pandas and matplotlib that was never built; package caches of both tools empty.
Warm: the same again on a running broker, beside only starting that server by hand. Rounds alternate in one run, so read
the ratios; prints a Markdown table, writes JSON to `--out`, and fails where ours misses its goals.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from broker import settings
from tests.doubles import git_repos
from tests.doubles.git_server import GitServer
from tests.waiting import until

PACKAGES = ("numpy", "pandas", "matplotlib")
COLD_GOAL = 0.5  # ours, as a share of by hand
WARM_GOAL = 0.5  # seconds ours may take longer than by hand
COMMAND = (sys.executable, "-m", "broker.cli")


def by_hand(folder: Path, source: str) -> tuple[float, float]:
    """Seconds for everything, and for the start of the server alone, as its README would have one do it."""
    started = time.perf_counter()
    run("git", "clone", "--quiet", "--depth=1", source, str(folder / "repo"))
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    pip = [str(folder / "venv/bin/pip"), "install", "--quiet", "--cache-dir", str(folder / "cache")]
    run(*pip, "-r", str(folder / "repo/requirements.txt"), "jupyterlab", "notebook", "ipywidgets")
    installed = time.perf_counter()
    start_by_hand(folder)
    return time.perf_counter() - started, time.perf_counter() - installed


def start_by_hand(folder: Path) -> float:
    """Seconds until the bare server answers; it is ended again."""
    port, token = settings.free_port(), "bench"
    command = [str(folder / "venv/bin/jupyter"), "server", "--no-browser", "--allow-root", f"--port={port}"]
    environment = {**os.environ, "JUPYTER_TOKEN": token, "HOME": str(folder)}
    started = time.perf_counter()
    server = subprocess.Popen(
        command, cwd=folder / "repo", env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/api/status?token={token}"), seconds=60)
        return time.perf_counter() - started
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def broker(home: Path, cache: Path) -> Iterator[dict[str, str]]:
    """A running broker; the environment in which commands find it."""
    environment = {**os.environ, "ANYBINDER_HOME": str(home), "UV_CACHE_DIR": str(cache)}
    ear, mouth = os.pipe()
    command = [*COMMAND, "up", "--no-browser", "--port", "0", "--ready-fd", str(mouth)]
    process = subprocess.Popen(command, env=environment, pass_fds=(mouth,), stderr=subprocess.DEVNULL)
    os.close(mouth)
    with os.fdopen(ear) as pipe:
        pipe.read()
    try:
        yield environment
    finally:
        process.terminate()
        process.wait(20)


def launch(environment: dict[str, str], source: str, name: str) -> float:
    """Seconds from the command to `ready`; the session is stopped again."""
    started = time.perf_counter()
    run(*COMMAND, "launch", source, "--json", "--name", name, environment=environment)
    took = time.perf_counter() - started
    run(*COMMAND, "stop", name, environment=environment)
    return took


def run(*command: str, environment: dict[str, str] | None = None) -> None:
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")


def measure(rounds: int, warm_rounds: int) -> dict[str, list[float]]:
    """Every round, ours and by hand beside each other."""
    took: dict[str, list[float]] = {"cold by hand": [], "cold ours": [], "warm by hand": [], "warm ours": []}
    with tempfile.TemporaryDirectory(prefix="abl-", dir="/tmp") as temporary:
        root = Path(temporary)
        (root / "repos").mkdir()
        git_repos.make_repo(root / "repos", "science", {"requirements.txt": "\n".join(PACKAGES) + "\n"})
        with GitServer(root / "repos") as server:
            source = f"{server.url}/science"
            for number in range(rounds):
                folder = root / f"round{number}"
                folder.mkdir()
                took["cold by hand"].append(by_hand(folder, source)[0])
                with broker(folder / "home", folder / "uv") as environment:
                    took["cold ours"].append(launch(environment, source, "cold"))
                    if number == rounds - 1:
                        warm(took, folder, environment, source, warm_rounds)
                shutil.rmtree(folder)
    return took


def warm(took: dict[str, list[float]], folder: Path, environment: dict[str, str], source: str, rounds: int) -> None:
    for number in range(rounds):
        took["warm by hand"].append(start_by_hand(folder))
        took["warm ours"].append(launch(environment, source, f"warm{number}"))


def report(took: dict[str, list[float]]) -> tuple[str, list[str]]:
    """A Markdown table of medians, and the goals that were missed."""
    middle = {name: statistics.median(values) for name, values in took.items()}
    cold = middle["cold ours"] / middle["cold by hand"]
    more = middle["warm ours"] - middle["warm by hand"]
    lines = [
        f"| `{', '.join(PACKAGES)}` | by hand | Anybinder | |",
        "|---|---|---|---|",
        f"| cold: nothing built, nothing downloaded | {middle['cold by hand']:.1f} s | {middle['cold ours']:.1f} s "
        f"| {cold:.2f} × |",
        f"| warm: command to `ready`, beside the bare start of the server | {middle['warm by hand']:.2f} s "
        f"| {middle['warm ours']:.2f} s | {more:+.2f} s |",
    ]
    missed = []
    if cold > COLD_GOAL:
        missed.append(f"cold is {cold:.2f} × by hand, not {COLD_GOAL} ×")
    if more > WARM_GOAL:
        missed.append(f"warm takes {more:.2f} s more than the bare start, not {WARM_GOAL} s")
    return "\n".join(lines), missed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.launches", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one cold and three warm rounds")
    parser.add_argument("--out", type=Path, help="write every figure here as JSON")
    chosen = parser.parse_args(arguments)
    took = measure(*((1, 3) if chosen.quick else (3, 7)))
    table, missed = report(took)
    print(table)
    result: dict[str, Any] = {"seconds": took, "missed": missed}
    if chosen.out:
        chosen.out.write_text(json.dumps(result, indent=1))
    for miss in missed:
        print(f"MISSED: {miss}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
