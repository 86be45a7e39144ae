"""What the fake cloud holds and bills, and what its calls do to it. Every method is called with the clock's lock held."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from providers.fake.clock import Clock
from providers.fake.faults import REFUSALS, Fault
from providers.fake.machine import Machine

Met = Mapping[str, Fault]
Answer = tuple[int, dict[str, Any]]

USER_DATA_MOST = 16_384
SWITCH_SECONDS = 30 * 86_400.0
OFFERS = (
    {"id": "small-a", "zone": "a", "title": "Small in zone a", "cpu": 2, "memory_mb": 4096, "price_per_hour": "0.05"},
    {"id": "small-b", "zone": "b", "title": "Small in zone b", "cpu": 2, "memory_mb": 4096, "price_per_hour": "0.06"},
    {"id": "large-a", "zone": "a", "title": "Large in zone a", "cpu": 8, "memory_mb": 32768, "price_per_hour": "0.40"},
)
SPOT = {"id": "spot-a", "zone": "a", "title": "Small spot in zone a", "cpu": 2, "memory_mb": 4096, "price_per_hour": "0.02",
        "risk": "It may be taken away at any time."}  # fmt: skip


@dataclass(kw_only=True)
class Options:
    """How this cloud behaves when nothing goes wrong."""

    boot_seconds: float = 0
    end_seconds: float = 0
    list_seconds: float = 0
    """Until something new shows in lists and can be ended by its labels."""
    power_off: str = "delete"
    """What becomes of a machine that powers itself off: `delete`, or `keep` (its disk and address go on being billed)."""
    dead_man_seconds: float | None = None
    """A machine powers itself off so long after its tag's `until`; None: it does not."""
    credential_seconds: float = 900
    usual_seconds: float = 1
    spot: bool = False
    """Whether machines are offered that may be taken away."""
    key: str = "the-fake-key"
    session: str = "jupyter"
    """What its machines serve: `jupyter`, or `app`."""


@dataclass(kw_only=True, eq=False)
class Thing:
    """Something that costs money: a machine, a disk, an address."""

    id: str
    kind: str
    labels: dict[str, str]
    created: float
    shows: float
    group: str
    """What one creating call has made: its client token, where it had one."""
    state: str = "running"
    detail: str = ""
    billed_until: float | None = None
    came: float = field(default_factory=time.time)
    """When this happened on the clock of real life, whatever this cloud's own says."""
    went: float | None = None

    def ends_its_bill(self, now: float) -> None:
        """Nothing is billed for it from now on; may be repeated."""
        if self.billed_until is None:
            self.billed_until, self.went = now, time.time()

    def is_there(self) -> bool:
        return self.state != "gone"

    def bears(self, labels: Mapping[str, str]) -> bool:
        return all(self.labels.get(name) == value for name, value in labels.items())


@dataclass(kw_only=True, eq=False)
class MachineThing(Thing):
    offer: str
    zone: str
    machine: Machine
    boot: Mapping[str, Any] = field(repr=False)
    known: float = 0
    """`describe` does not know it before."""


class Refused(Exception):
    """The call is answered with this."""

    def __init__(self, name: str, message: str = "", **named: str) -> None:
        self.status, sentence = REFUSALS[name]
        self.answer = {"error": name, "message": message or sentence.format(**named)}


class Cloud:
    """All of it. The methods named like verbs are what the driver calls."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock = folder, clock
        self._numbers = itertools.count(1)
        self._reset()

    def _reset(self) -> None:
        self.options = Options()
        self._things: dict[str, Thing] = {}
        self._switches: dict[str, str] = {}

    def reset(self) -> None:
        """Nothing was ever bought. Names are not used again."""
        self.end_machines()
        self._reset()

    def end_machines(self) -> None:
        for machine in self._machines():
            machine.machine.erase()

    # What the driver calls.

    def sign_in(self, asked: Mapping[str, Any], met: Met) -> dict[str, Any]:  # noqa: ARG002
        known = asked["proof"] == self.options.key
        good = {"none": True, "keyless": bool(asked["proof"]), "delegated": known, "kept": known}
        if not good.get(asked["kind"]):
            raise Refused("bad_credential")
        expires = self._clock.now() + self.options.credential_seconds
        return {"who": "somebody at the fake cloud", "token": f"fake-{expires:.3f}", "expires_at": expires}

    def admits(self, token: str) -> bool:
        try:
            return float(token.removeprefix("fake-")) > self._clock.now()
        except ValueError:
            return False

    def offers(self, asked: Mapping[str, Any], met: Met) -> dict[str, Any]:  # noqa: ARG002
        rest = {"disk_gb": 50, "gpu": 0, "usual_seconds": self.options.usual_seconds}
        return {"offers": [{**rest, **offer} for offer in self._offers()]}

    def _offers(self) -> tuple[dict[str, Any], ...]:
        return (SPOT, *OFFERS) if self.options.spot else OFFERS

    def provision(self, asked: Mapping[str, Any], met: Met) -> dict[str, Any]:
        """One client token, one machine, for ever; what a first try has half made, the next uses."""
        group = asked["client_token"] or self._name("call")
        if found := self._made_by(group, "machine"):
            return self._shown(found[0])
        offer = next((offer for offer in self._offers() if offer["id"] == asked["offer"]), None)
        if offer is None:
            raise Refused("invalid_order", f"There is no offer {asked['offer']!r}.")
        if (size := len(asked.get("user_data", "").encode())) > USER_DATA_MOST:
            raise Refused("invalid_order", f"User data may have {USER_DATA_MOST} bytes, and has {size}.")
        shows = self._clock.now() + _seconds(met, "hidden", self.options.list_seconds)
        if not self._made_by(group, "disk", "address"):
            for part in asked["parts"]:
                self._make(Thing, part["kind"], labels=part["labels"], group=group, shows=shows)
        if "half_created" in met:
            raise Refused(met["half_created"].settings.get("answer", "no_capacity"), quota="machines", permission="run")
        return self._shown(self._make_machine({**asked, **offer, "group": group, "shows": shows}, met))

    def _make_machine(self, asked: Mapping[str, Any], met: Met) -> MachineThing:
        name, now = self._name("machine"), self._clock.now()
        rest = {name: asked[name] for name in ("labels", "group", "shows", "zone", "boot", "offer")}
        known = now + _seconds(met, "unknown", 0)
        made = self._make(MachineThing, "machine", id=name, machine=Machine(name, self._folder), known=known, **rest)
        made.state = "pending"
        boots = now + _seconds(met, "slow_boot", self.options.boot_seconds)
        self._clock.at(boots, lambda: self._boot(made, met, boots))
        self._arm_dead_man(made)
        return made

    def _make(self, type_: type, kind: str, **rest: Any) -> Any:
        rest.setdefault("id", self._name(kind))
        made = type_(kind=kind, created=self._clock.now(), **rest)
        self._things[made.id] = made
        return made

    def _name(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    def _boot(self, made: MachineThing, met: Met, when: float) -> None:
        if made.state != "pending":
            return
        made.state = "running"
        if "dies" in met:
            dies = met["dies"].settings
            self._clock.at(when + dies.get("seconds", 0), lambda: self.die(made.id, dies.get("leaves", ())))
        if "never_dials" not in met and made.boot.get("agent"):
            build = met["build_fails"].settings.get("message", "The build failed.") if "build_fails" in met else ""
            options = (f"--kind={self.options.session}", f"--fail={build}")
            made.machine.boot(made.boot, options, lambda status: self._exited(made, status))

    def _exited(self, made: MachineThing, status: int) -> None:
        with self._clock.lock:
            if made.state == "running":
                self._power_off(made, f"It powered itself off: its agent ended with status {status}.")

    def _power_off(self, made: MachineThing, why: str) -> None:
        made.detail = why
        if self.options.power_off == "delete":
            return self.die(made.id, ())
        made.state = "off"
        made.ends_its_bill(self._clock.now())
        return made.machine.cut_power()

    def _arm_dead_man(self, made: MachineThing) -> None:
        grace, until = self.options.dead_man_seconds, made.labels.get("anybinder-until")
        if grace is not None and until:
            when = datetime.fromisoformat(until).timestamp() + grace
            self._clock.at(when, lambda: made.state == "running" and self._power_off(made, "Its time is over."))

    def describe(self, asked: Mapping[str, Any], met: Met) -> dict[str, Any]:  # noqa: ARG002
        found = self._things.get(asked["id"])
        if found is None or getattr(found, "known", 0) > self._clock.now():
            return _unknown(asked["id"])
        return self._shown(next(iter(self._made_by(found.group, "machine")), found))

    def terminate(self, asked: Mapping[str, Any], met: Met) -> dict[str, Any]:
        """Ends what has this name and, with `parts`, all that shows and bears these labels; without, machines only."""
        if "ignored" not in met:
            seconds = _seconds(met, "slow_end", self.options.end_seconds)
            for thing in self._asked_to_end(asked):
                self._end(thing, seconds)
        return {}

    def _asked_to_end(self, asked: Mapping[str, Any]) -> list[Thing]:
        found = [thing for thing in self._visible() if thing.bears(asked["labels"])]
        if asked["id"] in self._things:
            named = self._things[asked["id"]]
            found += [named, *(part for part in self._parts() if part.group == named.group)]
        return [thing for thing in found if asked["parts"] or thing.kind == "machine"]

    def _end(self, thing: Thing, seconds: float) -> None:
        if thing.state in ("ending", "gone"):
            return
        thing.state = "ending"
        if isinstance(thing, MachineThing):
            thing.machine.cut_power()
        if seconds:
            self._clock.at(self._clock.now() + seconds, lambda: self._ended(thing))
        else:
            self._ended(thing)

    def _ended(self, thing: Thing) -> None:
        if isinstance(thing, MachineThing):
            thing.machine.erase()
        thing.ends_its_bill(self._clock.now())
        thing.state = "gone"

    def instances(self, asked: Mapping[str, Any], met: Met) -> dict[str, Any]:  # noqa: ARG002
        """Machines that are there, and of every group without one, the first part that is."""
        shown: dict[str, Thing] = {}
        for thing in sorted(self._visible(), key=lambda thing: thing.kind != "machine"):
            if thing.bears(asked["labels"]):
                shown.setdefault(thing.group, thing)
        return {"instances": [self._shown(thing) for thing in shown.values()]}

    def make_switch(self, asked: Mapping[str, Any], met: Met) -> dict[str, Any]:  # noqa: ARG002
        """A word that ends this one machine and what belongs to it."""
        word = secrets.token_urlsafe(16)
        self._switches[word] = asked["id"]
        return {"word": word, "ends_at": self._clock.now() + SWITCH_SECONDS}

    def pull_switch(self, asked: Mapping[str, Any], met: Met) -> dict[str, Any]:
        """What a machine may ask without being signed in."""
        if asked["word"] not in self._switches:
            raise Refused("bad_credential")
        return self.terminate({"id": self._switches[asked["word"]], "labels": {"": ""}, "parts": True}, met)

    def logs(self, asked: Mapping[str, Any], met: Met) -> dict[str, Any]:  # noqa: ARG002
        found = self._things.get(asked["id"])
        return {"text": found.machine.console() if isinstance(found, MachineThing) else ""}

    # What tests ask.

    def die(self, name: str, leaves: tuple[str, ...] | list[str]) -> None:
        """The machine is gone, and its parts with it but for those that it leaves."""
        dead = self._things[name]
        if not dead.is_there():
            return
        dead.detail = dead.detail or "It died."
        for part in self._parts():
            if part.group == dead.group and part.kind not in leaves:
                self._ended(part)
        self._ended(dead)

    def bill(self) -> list[dict[str, Any]]:
        """Every thing ever bought, how long it was billed, and whether it still is; when it came and went, in real time."""
        now = self._clock.now()
        return [
            {
                "id": thing.id,
                "kind": thing.kind,
                "order": thing.labels.get("anybinder-order"),
                "seconds": (thing.billed_until or now) - thing.created,
                "running": thing.billed_until is None,
                "came": thing.came,
                "went": thing.went,
            }
            for thing in self._things.values()
        ]

    def everything(self) -> list[dict[str, Any]]:
        """All that there is or was, labels and process numbers included."""
        return [{**self._shown(thing), "kind": thing.kind} for thing in self._things.values()]

    def facts(self, asked: Mapping[str, Any]) -> dict[str, str | None]:
        """What a fault's `where` can ask for."""
        named = self._things.get(asked.get("id") or "")
        labels = asked.get("labels") or (named.labels if named else {})
        offer = next((offer for offer in (*OFFERS, SPOT) if offer["id"] == asked.get("offer")), {})
        return {
            "id": asked.get("id"),
            "offer": asked.get("offer"),
            "zone": offer.get("zone"),
            **{name: labels.get(f"anybinder-{name}") for name in ("order", "launch", "broker")},
        }

    def _shown(self, thing: Thing) -> dict[str, Any]:
        parts = [part.id for part in self._parts() if part is not thing and part.group == thing.group]
        alone = not isinstance(thing, MachineThing)
        return {
            "id": thing.id,
            "state": "pending" if alone and thing.is_there() else thing.state,
            "detail": "It has no machine." if alone else thing.detail,
            "labels": thing.labels,
            "created_at": thing.created,
            "parts": parts,
            "offer": getattr(thing, "offer", None),
            "zone": getattr(thing, "zone", None),
            "pid": thing.machine.pid if isinstance(thing, MachineThing) else None,
        }

    def _made_by(self, group: str, *kinds: str) -> list[Thing]:
        return [thing for thing in self._things.values() if thing.group == group and thing.kind in kinds]

    def _machines(self) -> list[MachineThing]:
        return [thing for thing in self._things.values() if isinstance(thing, MachineThing)]

    def _parts(self) -> list[Thing]:
        return [thing for thing in self._things.values() if not isinstance(thing, MachineThing) and thing.is_there()]

    def _visible(self) -> list[Thing]:
        now = self._clock.now()
        return [thing for thing in self._things.values() if thing.is_there() and thing.shows <= now]


def _seconds(met: Met, fault: str, otherwise: float) -> float:
    return met[fault].settings.get("seconds", 60) if fault in met else otherwise


def _unknown(name: str) -> dict[str, Any]:
    return {"id": name, "state": "gone", "detail": "", "labels": {}, "created_at": None, "parts": [], "offer": None}
