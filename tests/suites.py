"""The suites: what each runs, what it needs on this computer, and how long it may take. `tests/run` calls this.

All are run to their end, whichever fails, and the last lines say how each went. A suite without tests has failed.

Several suites share the cores: two at a time, each with its words kept together, for much of a suite is waiting. The
longest begin first, so that no lane has much left when the other is done. What measures time, or fills the cores by
itself, runs alone at the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import psutil

from tests import servers
from tests.doubles.machines import image as machines
from tests.openstack_boot import guest
from tests.servers import docker, hub, keycloak, registry
from tests.servers.openstack import bed as openstack
from tests.servers.openstack import hypervisor

LANES = min(2, os.cpu_count() or 1)  # a third made the whole no faster, and Keycloak did not start in two minutes
SHOWING = threading.Lock()
CLONE = Path(__file__).resolve().parent.parent
KEPT = ("-o", "tmp_path_retention_count=100") * servers.CI
"""A machine that is thrown away needs nobody who tidies up after each suite: that is 40 seconds of unlinking files."""
PYTEST = (sys.executable, "-m", "pytest", "--durations=5", *KEPT)
CLOSING = re.compile(r"^=+ (.*\b(?:passed|failed|error|errors|skipped|deselected|no tests ran)\b.*) =+$")
CULPRIT = re.compile(r"^((?:FAILED|ERROR) tests/\S.*?)(?: - .*)?$")
CULPRITS_MOST = 20
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed)")

Command = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One word on the command line."""

    name: str
    about: str
    minutes: int
    """It is ended after this long: something hangs."""
    usually: int = 1
    """How many minutes it takes beside another, on two cores."""
    commands: Callable[[Sequence[str]], list[Command]]
    """What it runs, given the options that follow the names."""
    needs: tuple[servers.Need, ...] = ()
    alone: bool = False
    """It measures time, or fills every core: nothing else may run beside it."""
    when_named: bool = False
    """It runs only when it is named, and `tests/run` says so: there is no room for it in a whole run."""
    makes_devices: bool = False
    """It makes network devices and rules about them, for all of this computer: no two of these at the same time."""


@dataclass(frozen=True, kw_only=True)
class Result:
    name: str
    seconds: float
    failed: tuple[str, ...] = ()
    """The commands that did, with what became of them."""
    culprits: tuple[str, ...] = ()
    """The tests that did, each in a line."""
    closing: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return not self.failed and not (servers.CI and self.left_out)


def unit(options: Sequence[str]) -> list[Command]:
    """The linters run only with the whole suite: whoever gives options is after some tests."""
    python = (sys.executable, "-m")
    linters = [(*python, "ruff", "check"), (*python, "ruff", "format", "--check"), (*python, "mypy"), ("lint-imports",)]
    return [*([] if options else linters), (*PYTEST, *unit_tests(), *options)]


def unit_tests() -> list[str]:
    """Everything under tests/ that no other suite claims."""
    claimed = {suite.name.replace("-", "_") for suite in SUITES}
    folders = {path.relative_to(CLONE / "tests").parts[0] for path in (CLONE / "tests").rglob("test_*.py")}
    return [f"tests/{name}" for name in sorted(folders - claimed)]


def tests_in(folder: str) -> Callable[[Sequence[str]], list[Command]]:
    return lambda options: [(*PYTEST, f"tests/{folder}", *options)]


def crashes(options: Sequence[str]) -> list[Command]:
    """Alone on two cores, three schedules at a time: each is mostly waiting."""
    return [(*PYTEST, "tests/crashes", "--lanes", "3", *options)]


def bench(options: Sequence[str]) -> list[Command]:
    chosen = options or ["--quick"] * servers.CI
    return [
        (sys.executable, "-m", name, *chosen) for name in ("tests.bench", "tests.bench.launches", "tests.bench.routing")
    ]


SUITES = (
    Suite(name="unit", about="linters, types, arrows, and every part by itself", minutes=50, usually=15, commands=unit,
          needs=(servers.GIT, servers.POSTGRES, servers.REDIS, registry.NEED, servers.CLOUD_INIT)),
    Suite(name="browser", about="a person in a real Chromium", minutes=30, usually=12, commands=tests_in("browser"),
          needs=(servers.GIT, servers.CHROMIUM)),
    Suite(name="clients", about="BinderHub's own client and Thebe, as published, against a real broker", minutes=10,
          commands=tests_in("clients"), needs=(servers.GIT, servers.CHROMIUM, servers.NPM)),
    Suite(name="keycloak", about="signing in with a real Keycloak and a second provider", minutes=20,
          usually=3, commands=tests_in("keycloak"), needs=(servers.GIT, servers.CHROMIUM, servers.NPM, keycloak.NEED)),
    Suite(name="journeys", about="whole flows, embedded and on PostgreSQL, Redis and Celery", minutes=30,
          usually=8, commands=tests_in("journeys"), needs=(servers.GIT, servers.POSTGRES, servers.REDIS)),
    Suite(name="peers", about="hubs that lie (--schedules N --seed S), and three with a real JupyterHub", minutes=60, usually=5,
          commands=tests_in("peers"), needs=(servers.GIT, hub.NEED)),
    Suite(name="docker", about="sessions in containers, on a real engine", minutes=30,
          usually=6, commands=tests_in("docker"), needs=(servers.GIT, docker.NEED, registry.NEED), makes_devices=True),
    Suite(name="contract", about="every promise of a provider, over each double; and that each broken copy is caught", minutes=15,
          usually=1, commands=tests_in("contract"), needs=(servers.GIT,)),
    Suite(name="aws", about="buying and ending on AWS, and the whole contract, over a double as strict as AWS", minutes=30,
          usually=4, commands=tests_in("aws")),
    Suite(name="openstack", about="a real OpenStack: signing in, and the whole contract", minutes=30,
          usually=8, commands=tests_in("openstack"), needs=(openstack.NEED,)),
    Suite(name="crashes", about="SIGKILL of everything, everywhere (--schedules N --seed S)", minutes=60,
          commands=crashes, needs=(servers.GIT, servers.POSTGRES, openstack.NEED), alone=True),
    Suite(name="clouds", about="machines that boot: from a click to a cell's output to an empty cloud", minutes=40,
          usually=10, commands=tests_in("clouds"),
          needs=(servers.GIT, servers.CHROMIUM, machines.NEED, openstack.NEED), makes_devices=True),
    Suite(name="openstack-boot", about="an OpenStack whose machines boot: bought, emulated, entered, stopped, left alone",
          minutes=40, usually=8, commands=tests_in("openstack_boot"), makes_devices=True, when_named=True,
          needs=(servers.GIT, servers.CHROMIUM, guest.NEED, openstack.NEED, hypervisor.NEED)),
    Suite(name="bench", about="beside configurable-http-proxy and beside no proxy", minutes=20, commands=bench,
          needs=(servers.NPM,), alone=True),
)  # fmt: skip


def main(arguments: list[str]) -> int:
    if any(word in ("-h", "--help") for word in arguments):
        print(usage())
        return 0
    names, options = split(arguments)
    unknown = [name for name in names if name not in {suite.name for suite in SUITES}]
    if unknown:
        print(f"There is no suite {', '.join(unknown)}.\n\n{usage()}", file=sys.stderr)
        return 2
    chosen = [suite for suite in SUITES if suite.name in names or not (names or suite.when_named)]
    for suite in SUITES:
        if suite not in chosen and not names:
            print(f"{suite.name} runs only when it is named: tests/run {suite.name}", flush=True)
    started, busy = time.monotonic(), Busy()
    results = run_all(chosen, options)
    print(summary(results, time.monotonic() - started, busy.share()), flush=True)
    return 0 if all(result.good for result in results) else 1


def run_all(chosen: Sequence[Suite], options: Sequence[str]) -> list[Result]:
    """In lanes, and alone what must be; the results in the order in which the suites were named."""
    servers.fetch({need for suite in chosen for need in suite.needs})
    missing = {suite.name: tuple(need.title for need in suite.needs if not need.fetch()) for suite in chosen}
    beside = [suite for suite in chosen if not suite.alone]
    alone = [suite for suite in chosen if suite.alone]
    if len(beside) == 1:
        beside, alone = [], list(chosen)
    done = in_lanes(beside, lambda suite: run_beside(suite, options, missing[suite.name]))
    done += [run(suite, options, missing[suite.name], sys.stdout) for suite in alone]
    order = [suite.name for suite in chosen]
    return sorted(done, key=lambda result: order.index(result.name))


def in_lanes(suites: Sequence[Suite], play: Callable[[Suite], Result]) -> list[Result]:
    """All of them, as many at a time as there are lanes."""
    waiting, running, done = list(suites), dict[Future[Result], Suite](), list[Result]()
    with ThreadPoolExecutor(LANES) as lanes:
        while waiting or running:
            while len(running) < LANES and (suite := next_beside(waiting, list(running.values()))):
                waiting.remove(suite)
                running[lanes.submit(play, suite)] = suite
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                done.append(future.result())
    return done


def next_beside(waiting: Sequence[Suite], running: Sequence[Suite]) -> Suite | None:
    """Those that wait for one another before all others, as they are one long suite; then the longest."""
    taken = any(suite.makes_devices for suite in running)
    able = [suite for suite in waiting if not (suite.makes_devices and taken)]
    return max(able, key=lambda suite: (suite.makes_devices, suite.usually), default=None)


def run_beside(suite: Suite, options: Sequence[str], missing: tuple[str, ...]) -> Result:
    """Another suite runs beside it: what it says is shown at its end, in one piece."""
    with tempfile.TemporaryFile("w+") as said:
        print(f"… {suite.name} has begun", flush=True)
        result = run(suite, options, missing, said)
        said.seek(0)
        with SHOWING:
            print(said.read(), end="", flush=True)
    return result


def usage() -> str:
    named = {suite: " (only when it is named)" for suite in SUITES if suite.when_named}
    lines = [f"  {suite.name:14} {suite.about}{named.get(suite, '')}" for suite in SUITES]
    return "\n".join(["usage: tests/run [SUITE …] [options for pytest]", "", *lines])


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Names first; all from the first option on is for pytest."""
    first = next((at for at, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    return arguments[:first], arguments[first:]


def run(suite: Suite, options: Sequence[str], missing: tuple[str, ...], out: TextIO) -> Result:
    print(f"\n{'─' * 4} {suite.name} {'─' * (100 - len(suite.name))}", file=out, flush=True)
    started = time.monotonic()
    failed, culprits, closing = [], list[str](), ""
    for command in suite.commands(options):
        code, line, caught = watch(command, out, deadline=started + suite.minutes * 60)
        closing = line or closing
        culprits += caught
        if code:
            failed.append(f"{shown(command)} ended with {code}{' (no tests found)' if code == 5 else ''}")
            print(failed[-1], file=out, flush=True)
    return Result(
        name=suite.name,
        seconds=time.monotonic() - started,
        failed=tuple(failed),
        culprits=tuple(culprits),
        closing=closing,
        left_out=missing,
    )


def watch(command: Command, out: TextIO, *, deadline: float) -> tuple[int, str, list[str]]:
    """Run it, pass its words on, and return its exit code, pytest's closing line, and the tests that failed."""
    print(f"$ {shown(command)}", file=out, flush=True)
    closing, culprits = "", []
    with subprocess.Popen(
        command, cwd=CLONE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process, ended_at(deadline, process):  # fmt: skip
        for line in process.stdout or ():
            print(line, end="", file=out, flush=True)
            if match := CLOSING.match(line.rstrip()):
                closing = match.group(1)
            if match := CULPRIT.match(line.rstrip()):
                culprits.append(match.group(1))
    return process.returncode, closing, culprits


@contextlib.contextmanager
def ended_at(deadline: float, process: subprocess.Popen[str]) -> Iterator[None]:
    """What takes longer hangs: an interrupt lets pytest say where, and clean up; then it is killed."""
    left = max(1.0, deadline - time.monotonic())
    timers = (
        threading.Timer(left, process.send_signal, [signal.SIGINT]),
        threading.Timer(left + 30, process.kill),
    )
    for timer in timers:
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


def shown(command: Command) -> str:
    words = command[1:] if command[0] == sys.executable else command
    return " ".join(word for word in words if word != "-m")


class Busy:
    """How much of this computer's processors is used, by whomever, from now on."""

    def __init__(self) -> None:
        self._then = psutil.cpu_times()

    def share(self) -> float:
        spent = [now - then for now, then in zip(psutil.cpu_times(), self._then, strict=True)]
        named = dict(zip(self._then._fields, spent, strict=True))
        idle = named["idle"] + named.get("iowait", 0)
        return 1 - idle / (sum(spent) or 1)


def summary(results: Sequence[Result], seconds: float, busy: float) -> str:
    """A line a suite, what went wrong, and a last line that a machine can read."""
    lines = [f"{'ok    ' if result.good else 'FAILED'} {result.name:14} {result.seconds:7.1f} s  {result.closing}"
             for result in results]  # fmt: skip
    for result in results:
        lines += [f"       {result.name}: {why}" for why in (*result.failed, *result.culprits[:CULPRITS_MOST])]
        lines += [f"       {result.name}: left out what needs {title}, which is not here" for title in result.left_out]
    return "\n".join(
        ["", "─" * 106, *lines, f"{seconds:.0f} s in all, the processors busy for {busy:.0%} of it", "", tally(results)]
    )


def tally(results: Sequence[Result]) -> str:
    """`N passed, N failed`; a linter that failed counts as one."""
    counts: Counter[str] = Counter()
    for result in results:
        for number, word in COUNT.findall(result.closing):
            counts[{"error": "failed", "errors": "failed", "xfailed": "passed"}.get(word, word)] += int(number)
    failed = max(counts["failed"], sum(len(result.failed) for result in results))
    return f"{counts['passed']} passed, {failed} failed, {counts['skipped']} skipped"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
