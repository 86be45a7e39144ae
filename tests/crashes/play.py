"""Playing a schedule to its end, and what is found then."""

from __future__ import annotations

import contextlib
import functools
import pprint
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from providers import processes
from tests.crashes import checks, plans
from tests.crashes.world import NEVER, World

VISIT_SECONDS = 15  # an agent that was kept waiting dials again after 5 s at most


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a schedule went."""

    plan: plans.Plan
    faults: list[str]
    left: list[str]
    """What is there in the end and should not be."""
    story: str
    seconds: float
    by_part: dict[str, list[str]]
    """Every boundary that was passed or died at, in order."""

    def __str__(self) -> str:
        return "\n".join([*self.faults, "", pprint.pformat(self.plan, width=120), "", self.story])


def play(world: World) -> Outcome:
    """Begin, do what the plan says, let everything recover, stop everything, and judge."""
    began = time.monotonic()
    faults = []
    try:
        _begin(world)
        for kill in world.plan.kills:
            _carry_out(world, kill)
        faults += _recover(world)
        faults += _forsake(world) if world.plan.forsaken else _stop_everything(world)
        found = _evidence(world)
        faults += checks.violations(found)
        story = f"{checks.walk(found)}\n{_deadly(world)}\n{world.log()[-20000:]}"
    finally:
        world.close()
        _clean_up(world)
    by_part = {path.stem: path.read_text().splitlines() for path in sorted(world.folder.glob("*.points"))}
    took = time.monotonic() - began
    return Outcome(plan=world.plan, faults=faults, left=found.left, story=story, seconds=took, by_part=by_part)


def _begin(world: World) -> None:
    plan = world.plan
    if not plan.local:
        world.cloud.reset()
        world.cloud.options(**{"credential_seconds": NEVER, **plan.options})
        for fault in plan.faults:
            if not fault.at:
                _meet(world, fault)
    world.start()
    now = time.monotonic()
    for fault in plan.faults:
        if fault.at:
            world.at(now + fault.at, lambda fault=fault: _meet(world, fault))
    for jump in plan.jumps:
        if jump.whose == "cloud":
            world.at(now + jump.at, lambda jump=jump: world.cloud.advance(jump.seconds) > 0)
    for wish in plan.wishes:
        world.at(now + wish.at, lambda wish=wish: _launch(world, wish, now))
    if plan.disconnect_at is not None:
        world.at(now + plan.disconnect_at, world.disconnect)


def _meet(world: World, fault: plans.Fault) -> bool:
    world.cloud.fault(fault.call, fault.name, times=fault.times, **fault.settings)
    return True


def _launch(world: World, wish: plans.Wish, began: float) -> bool:
    """Ask until answered. The same name may run already or be stopping: that is an answer as well."""
    told = {"repo": world.repo_url, "name": wish.name, "hours": wish.hours, "consent": True, **wish.money}
    told["backend"] = "here" if world.plan.local else "cloud"
    found = world.ask("POST", "/api/launches", told)
    if found is None:
        return False
    status, answer = found
    if status in (200, 201) and wish.stop_at is not None:
        world.at(began + wish.stop_at, lambda: _stop(world, answer["id"]))
    return status < 500


def _stop(world: World, launch: str) -> bool:
    found = world.ask("DELETE", f"/api/launches/{launch}")
    return found is not None and found[0] < 500


def _carry_out(world: World, kill: plans.Kill) -> None:
    world.live(lambda: False, kill.after)
    if kill.what == "agent":
        return _kill_agent(world, kill)
    part = world.parts[kill.part]
    world.live(part.lives, 5)
    before = part.deaths
    part.restart_at = time.monotonic() + world.plan.reach_seconds + kill.pause  # whoever dies meanwhile stays dead
    if kill.what == "boundary":
        part.counter.die_after(kill.count)
        world.live(lambda: part.deaths > before, world.plan.reach_seconds)
        part.counter.spare()
    if part.deaths == before:
        part.kill()
    part.restart_at = time.monotonic() + kill.pause
    return None


def _kill_agent(world: World, kill: plans.Kill) -> None:
    """One process of one running instance: the guardian, the worker below it, or a server below that."""
    roots = _agents(world)
    if not roots:
        return
    with contextlib.suppress(psutil.Error, IndexError):
        root = psutil.Process(roots[int(kill.draw * len(roots))])
        below = root.children(recursive=True)
        {"guardian": root, "worker": [root, *below][1], "server": [root, *below][-1]}[kill.part].kill()


def _agents(world: World) -> list[int]:
    if not world.plan.local:
        return [thing["pid"] for thing in world.cloud.instances() if thing["pid"]]
    pids = []
    for path in world.home.glob("instances/*/pid"):
        with contextlib.suppress(OSError, ValueError):
            pids.append(int(path.read_text()))
    return pids


def _recover(world: World) -> list[str]:
    """Nothing is killed any more: every launch comes to `ready` or `stopped`."""

    def settled() -> bool:
        return world.quiet() and set(world.states().values()) <= {"ready", "stopped"}

    for part in world.parts.values():
        part.restart_at = 0
    if not world.live(settled, world.plan.patience):
        return [f"after {world.plan.patience} s it was {world.states()}"]
    return _visit(world) if world.plan.visit else []


def _visit(world: World) -> list[str]:
    """What is said to be ready can be used, unless it has ended meanwhile."""

    def over(launch: str) -> bool:
        return world.visit(launch) or world.states()[launch] != "ready"

    ready = [launch for launch, state in world.states().items() if state == "ready"]
    silent = [launch for launch in ready if not world.live(functools.partial(over, launch), VISIT_SECONDS)]
    return [f"{launch} is ready and does not answer" for launch in silent]


def _stop_everything(world: World) -> list[str]:
    for launch, state in world.states().items():
        if state != "stopped":
            world.at(0, lambda launch=launch: _stop(world, launch))
    if not world.live(lambda: world.quiet() and set(world.states().values()) <= {"stopped"}, world.plan.patience):
        return [f"{world.plan.patience} s after everything was to stop it was {world.states()}"]
    _let_the_last_calls_end(world)
    if world.plan.caught_later:
        world.live(lambda: not _left_in_the_cloud(world), world.plan.patience)
    if not world.live(lambda: not world.secrets_kept(), world.plan.patience):
        return [
            f"{world.plan.patience} s after nothing needed them any more, secrets were kept: {world.secrets_kept()}"
        ]
    return []


def _forsake(world: World) -> list[str]:
    """The broker is gone for good; what it has bought is left to itself."""
    for part in world.parts.values():
        part.restart_at = float("inf")
        part.kill()
    world.live(lambda: not _left_in_the_cloud(world), world.plan.patience)
    return []


def _let_the_last_calls_end(world: World) -> None:
    """What is still on its way to the cloud may yet do harm: it arrives, and whoever asked hears of it."""
    if not world.plan.local:
        world.live(lambda: all(call["status"] is not None for call in world.cloud.calls()), 10)
        world.live(lambda: False, 0.1)


# --- what is found --------------------------------------------------------------------------------------------------


def _evidence(world: World) -> checks.Evidence:
    left, bought = _left_here(world) if world.plan.local else _left_in_the_cloud(world), _bill(world)
    log = world.log()
    deaths = _deaths_unexplained(world)
    return checks.Evidence(
        launches=world.rows("SELECT * FROM launches ORDER BY created_at"),
        orders=world.rows("SELECT * FROM orders ORDER BY created_at"),
        events=world.rows("SELECT * FROM events ORDER BY launch_id, number"),
        bought=bought,
        left=left,
        phases=world.plan.phases,
        log=log,
        died_by_itself=deaths,
        jumps=world.jumps,
    )


def _deaths_unexplained(world: World) -> int:
    for part in world.parts.values():
        part.lives()
    at_boundaries = sum(line.startswith("killed") for line in _points(world).splitlines())
    # One that died at its boundary just when we killed it is counted on both sides.
    return max(0, sum(part.deaths - part.killed for part in world.parts.values()) - at_boundaries)


def _points(world: World) -> str:
    return "".join(path.read_text() for path in sorted(world.folder.glob("*.points")))


def _deadly(world: World) -> str:
    """Where it died, and how far the last one of each part came."""
    return "\n".join(line for line in _points(world).splitlines() if line.startswith("killed"))


def _bill(world: World) -> list[dict[str, Any]]:
    if world.plan.local:
        return []
    return [
        {"id": item["id"], "kind": item["kind"], "order": item["order"], "created": item["came"], "ended": item["went"]}
        for item in world.cloud.bill()
    ]


def _left_in_the_cloud(world: World) -> list[str]:
    there = [thing["id"] for thing in world.cloud.everything() if thing["state"] != "gone"]
    marked = [f"process {process.pid}" for process, mark in processes.everyone_marked()
              if mark.startswith(f"{world.cloud.folder.name}.")]  # fmt: skip
    # The agent names its order as its mark; its processes are found by that as well.
    orders = {order["id"] for order in world.rows("SELECT id FROM orders")}
    marked += [f"process {process.pid} of {mark}" for process, mark in processes.everyone_marked() if mark in orders]
    folders = [str(path) for kind in "mr" for path in (world.cloud.folder / kind).glob("*")]
    return [*there, *marked, *folders]


def _left_here(world: World) -> list[str]:
    orders = {order["id"] for order in world.rows("SELECT id FROM orders")}
    marked = [f"process {process.pid} of {mark}" for process, mark in processes.everyone_marked() if mark in orders]
    folders = [str(path) for path in (world.home / "instances").glob("[!.]*")]
    sockets = [str(path) for order in orders for path in _runtime(world).glob(f"{order}*")]
    noted = world.folder / "early"
    return [*marked, *folders, *sockets, *(noted.read_text().splitlines() if noted.exists() else [])]


def _runtime(world: World) -> Path:
    from broker import settings

    return settings.Settings(home=world.home).runtime


def _clean_up(world: World) -> None:
    """What a faulty broker has left ends with its schedule."""
    if world.plan.local:
        homes = str(world.home)
        for process, mark in processes.everyone_marked():
            with contextlib.suppress(psutil.Error):
                if any(homes in word for word in process.cmdline()):
                    processes.kill(mark, process)
