"""AWS for the schedules: the double in this process, whose machines run the real agent like those of the fake cloud do.

To a world it looks like `FakeCloud`. A fault's call is an action of AWS, or `machine`. The double's faults are of actions,
whoever asks: one world at a time.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import itertools
import json
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from broker.bootstrap import AGENT
from providers import base, processes
from providers.fake.machine import Machine
from tests.doubles.aws_double import Account, AwsDouble
from tests.providers.aws_faults import EFFECTS, REFUSALS

TOLD = re.compile(r"^ *(\{.*\})$", re.MULTILINE)  # the one line of user data that the agent's boot configuration is
BOOT_SECONDS, END_SECONDS = 0.2, 0.1


class AwsCloud:
    """Safe to use from several threads, as `FakeCloud` is."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="aba-", dir="/tmp"))
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._machines: dict[str, Machine] = {}
        self._met: list[dict[str, Any]] = []
        self._bought: dict[str, dict[str, Any]] = {}
        self._ahead = 0.0
        self._double: AwsDouble | None = None

    # As `FakeCloud` has it.

    def reset(self) -> None:
        """An AWS in which nothing was ever bought, and an account of a number never seen before."""
        self._end()
        self._met, self._bought, self._ahead = [], {}, 0.0
        self._double = AwsDouble(clock=self._now, ticks=True).__enter__()
        self._account = self._double.account(f"{next(self._numbers):012d}")
        machines = self._double.machines
        machines.boot_seconds, machines.end_seconds = BOOT_SECONDS, END_SECONDS
        machines.on_running, machines.on_end = self._boot, self._cut_power
        machines._born = self._noting(machines._born, self._came)  # type: ignore[method-assign]
        machines._terminated = self._noting(machines._terminated, self._went)  # type: ignore[method-assign]

    @property
    def account(self) -> Account:
        return self._account

    @property
    def aws(self) -> AwsDouble:
        assert self._double is not None, "reset comes first"
        return self._double

    @property
    def configuration(self) -> dict[str, str]:
        return {"region": self.aws.region, "endpoint_url": self.aws.url}

    def typed(self, at: Any, provider: Any, kind: str) -> dict[str, str]:
        """What a person types who made a user with the policy that the guide gives them."""
        subjects = {"launch_subject": "launch:somebody", "reap_subject": "reap:somebody"}
        trust = base.Trust(issuer="https://broker.example", broker=at.keys.broker_id, **subjects)
        policy = provider.guide(kind, trust, {}).download["anybinder-policy.json"]
        key, secret = self.account.access_key(policy)
        return {"access_key_id": key, "secret_access_key": secret}

    def options(self, **options: Any) -> None:
        """Those that it has: how long ends take, and new things are not listed."""
        self.aws.machines.end_seconds = options.get("end_seconds") or END_SECONDS
        self.aws.machines.hide_seconds = options.get("list_seconds", 0)

    def fault(self, call: str, name: str, *, times: int = 1, **settings: Any) -> None:
        if call == "machine":
            self._met += [{"name": name, **settings}] * times
        elif name in REFUSALS:
            self.aws.fail(call, *REFUSALS[name], times=times)
        else:
            self.aws.fault(call, EFFECTS.get(name, name), times=times)

    def advance(self, seconds: float) -> float:
        self._ahead += seconds
        self.aws.tick()
        return time.time() + self._ahead

    def instances(self) -> list[dict[str, Any]]:
        """The machines that run an agent."""
        return [{"id": number, "pid": machine.pid} for number, machine in list(self._machines.items())]

    def everything(self) -> list[dict[str, Any]]:
        """What is there: also what carries no tag, or another's."""
        names = [*self.account.marked(), *self.account.unmarked()]
        return [{"id": name, "state": "there"} for name in dict.fromkeys(names)]

    def calls(self) -> list[dict[str, Any]]:
        """None is on its way: each is answered by a thread that was there when it came."""
        return []

    def bill(self) -> list[dict[str, Any]]:
        """The machines that were ever bought; what else there is, is told by `everything`."""
        return [dict(thing) for thing in self._bought.values()]

    def stop(self) -> None:
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> AwsCloud:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Its machines.

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(time.time() + self._ahead, dt.UTC)

    def _noting(self, act: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            done = act(*arguments)
            note(*arguments)
            return done

        return noted

    def _came(self, asked: Any, account: str, region: str, machine: Any) -> None:
        tags = {tag["key"]: tag["value"] for tag in machine.get_tags()}
        self._bought[machine.id] = {
            "id": machine.id,
            "kind": "machine",
            "order": tags.get("anybinder-order"),
            "came": time.time(),
            "went": None,
        }

    def _went(self, life: Any, at: Any) -> None:
        self._bought[life.id]["went"] = time.time()

    def _boot(self, number: str, user_data: str, tags: Mapping[str, str]) -> None:
        """User data in place of cloud-init: what it tells the agent, told to the agent."""
        met = self._met.pop(0) if self._met else {"name": ""}
        if met["name"] == "never_dials":
            return None
        text = base64.b64decode(user_data).decode()
        told = json.loads(TOLD.search(text)[1])  # type: ignore[index]
        config = {name: told[name] for name in ("broker", "order", "token", "until", "silence_seconds")}
        failing = (f"--fail={met['message']}",) if met["name"] == "build_fails" else ()
        machine = Machine(number, self.folder)
        with self._lock:
            self._machines[number] = machine
        machine.boot({"agent": str(AGENT), "config": config, "builder": None}, failing, lambda _: self._off(number))
        life = self.aws.machines.lives.get(number)
        if life is None or life.ends_at:  # it was ended before anybody had told us that it runs
            return self._cut_power(number)
        if met["name"] in ("dies", "taken_away"):
            act = self.aws.power_off if met["name"] == "dies" else self.aws.take_away
            timer = threading.Timer(met["seconds"], self._quietly, [act, number])
            timer.daemon = True
            timer.start()
        return None

    def _off(self, number: str) -> None:
        """Its agent has ended, and the system goes off with it, as the user data has it."""
        self._quietly(self.aws.power_off, number)

    def _quietly(self, act: Callable[[str], None], number: str) -> None:
        with contextlib.suppress(KeyError):  # it is forgotten already
            act(number)

    def _cut_power(self, number: str) -> None:
        with self._lock:
            machine = self._machines.pop(number, None)
        if machine:
            machine.erase()

    def _end(self) -> None:
        for number in list(self._machines):
            self._cut_power(number)
        for process, mark in processes.everyone_marked():
            if processes.was_told(process, str(self.folder)):
                processes.kill(mark, process)
        if self._double is not None:
            double, self._double = self._double, None
            double.__exit__(None, None, None)
