"""What happens in one schedule: who wants what, what the cloud does, what is killed when. All of it drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

PARTS = {"one process": ("all",), "two processes": ("web", "worker"), "two workers": ("web", "worker", "worker2")}
BOUNDARIES = 40  # about what one process passes while a launch comes up
TEN = 10  # what fails so often at most fails so often each time: a delete that fails ten times
LISTS_WITHIN = 0.9  # what the driver promises; what a fault delays adds up to less
SLOW = 0.25
LEASE_SECONDS = 1.5
PATIENT = ("lease_seconds", "boot_minutes", "build_minutes", "silence_minutes")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A person wants a launch at this second, and wants it stopped at that one (never: when all is over)."""

    at: float
    name: str
    stop_at: float | None = None
    hours: float = 1
    money: Mapping[str, Any] = field(default_factory=dict)
    """What it says of its budget and of how to be placed, in the words of the JSON interface."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """SIGKILL for one process, `after` so many seconds: at once, or at the boundary that is `count` further on."""

    what: Literal["boundary", "instant", "agent"]
    part: str = ""
    """A part of the broker; of an agent: `guardian`, `worker` or `server`."""
    after: float = 0.0
    count: int = 0
    pause: float = 0.0
    """Seconds until it is started again."""
    draw: float = 0.0
    """Which of the agents, where there are several."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One of `providers/fake/faults.py`, met by the next `times` calls."""

    call: str
    name: str
    times: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0
    """From this second on; 0: from before the broker's birth."""


@dataclass(frozen=True, kw_only=True)
class Jump:
    """A clock is set forward."""

    whose: Literal["cloud", "broker"]
    at: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One schedule."""

    seed: int | str
    shape: str = "one process"
    wishes: tuple[Wish, ...] = (Wish(at=0, name="a"),)
    kills: tuple[Kill, ...] = ()
    faults: tuple[Fault, ...] = ()
    jumps: tuple[Jump, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    deadly: Mapping[str, str | int] = field(default_factory=dict)
    """Part to the boundary that its first process dies at: its name, or its number from the process's birth."""
    kills_agents: bool = False
    """Whether at that boundary not the broker dies but every agent."""
    lists_within: float = LISTS_WITHIN
    sweep: bool = True
    forsaken: bool = False
    """Whether the broker, once all have settled, is killed for good."""
    caught_later: bool = False
    """Whether something may be there when its launch is stopped: another net is waited for, which must catch it."""
    visit: bool = False
    """Whether everything that is ready must answer through the gateway."""
    local: bool = False
    phases: tuple[str, ...] = ()
    """What the first launch must have said, in this order; nothing in particular where it is empty."""
    patience: float = 40
    """Seconds until everything must have recovered, and again until everything must have stopped."""
    reach_seconds: float = 1.0
    """A boundary that is not reached within this is not waited for: the kill comes anyway."""
    spare: bool = False
    """Whether there is a second backend, called `spare`, on the same cloud."""
    account: str = ""
    """The kind of connection that the cloud asks for and the person has; empty where it asks for none."""
    over: str = "fake"
    """The provider of the cloud."""
    disconnect_at: float | None = None
    """At this second the person disconnects it: nothing new begins, what runs is ended all the same, its secret goes."""
    broken: str = ""

    def with_slack(self, slack: float) -> Plan:
        """The same for a slower computer: waits that must outlast what is done meanwhile are longer."""
        waits = {"lease_seconds": LEASE_SECONDS, **self.settings}
        settings = {name: value * slack if name in PATIENT else value for name, value in waits.items()}
        return replace(self, patience=self.patience * slack, lists_within=self.lists_within * slack, settings=settings)

    @property
    def parts(self) -> tuple[str, ...]:
        return PARTS[self.shape]


def drawn(seed: int, *, local: bool = False) -> Plan:
    """The schedule of this seed; the same for ever, as long as this file is the same."""
    dice = random.Random(f"{seed} {local}")
    shape = dice.choices(tuple(PARTS), weights=(5, 4, 1))[0]
    account, disconnect_at = ("", None) if local else _account(random.Random(f"{seed} account"))
    spare = not local and not account
    wishes = _wishes(dice)
    trouble = random.Random(f"{seed} trouble")
    jumps = () if local else _jumps(trouble)
    return Plan(
        seed=seed,
        shape=shape,
        wishes=wishes if local else _with_money(wishes, random.Random(f"{seed} money"), spare=spare),
        spare=spare,
        kills=tuple(_kill(dice, shape) for _ in range(dice.randint(1, 5))),
        faults=() if local else (*_faults(dice), *_revoked(trouble)),
        jumps=jumps,
        options={} if local else {**_options(dice), "credential_seconds": trouble.choice(CREDENTIALS)},
        # A clock that jumps makes lists believed and leases lost too early: then the sweep is there to catch it.
        sweep=dice.random() < 0.6 or any(jump.whose == "broker" for jump in jumps),
        caught_later=any(jump.whose == "broker" for jump in jumps),
        visit=dice.random() < 0.3,
        local=local,
        account=account,
        disconnect_at=disconnect_at,
    )


def drawn_over_aws(seed: int) -> Plan:
    """The same over the double of AWS: its faults are of AWS's own actions, and every launch is on a person's account."""
    dice = random.Random(f"{seed} aws")
    plan, trouble = drawn(seed), random.Random(f"{seed} aws trouble")
    revoked = tuple(
        Fault(call=call, name="bad_credential", times=trouble.randint(1, 3), at=round(trouble.uniform(0.5, 3), 3))
        for call in ("GetSessionToken", "DescribeInstances", "TerminateInstances")
        if trouble.random() < 0.1
    )
    return replace(
        plan,
        over="aws",
        account="access_key",
        disconnect_at=round(trouble.uniform(0.5, 4), 3) if trouble.random() < 0.3 else None,
        wishes=tuple(replace(wish, stop_at=wish.stop_at and 3 * wish.stop_at, hours=1) for wish in plan.wishes),
        kills=tuple(replace(kill, after=3 * kill.after, count=2 * kill.count) for kill in plan.kills),
        faults=(*(_fault(dice, AWS_FAULTS) for _ in range(dice.choice((0, 1, 2, 2, 3)))), *revoked),
        options={"list_seconds": dice.choice((0, 0, 0.4)), "end_seconds": dice.choice((0, 0.5))},
        settings={"lease_seconds": 5, "boot_minutes": 8 / 60, "build_minutes": 12 / 60, "silence_minutes": 8 / 60},
        lists_within=1.5,
    )


def drawn_over_openstack(seed: int) -> Plan:
    """The same over a real OpenStack, where each call takes a second; its clock is this computer's, and never jumps."""
    dice = random.Random(f"{seed} openstack")
    plan, trouble = drawn(seed), random.Random(f"{seed} openstack trouble")
    outside = random.Random(f"{seed} addresses")
    addresses = outside.random() < 0.3
    of_addresses = (_fault(outside, ADDRESS_FAULTS),) if addresses else ()
    revoked = tuple(
        Fault(call=call, name=name, times=trouble.randint(1, 4), at=round(trouble.uniform(1, 12), 3))
        for call, name in REVOKED
        if trouble.random() < 0.1
    )
    return replace(
        plan,
        over="openstack",
        spare=False,
        account=dice.choice(("application_credential", "application_credential", "oidc")),
        disconnect_at=round(trouble.uniform(1, 15), 3) if trouble.random() < 0.25 else None,
        wishes=tuple(_slower(wish) for wish in plan.wishes),
        kills=tuple(replace(kill, after=12 * kill.after, pause=3 * kill.pause) for kill in plan.kills),
        faults=(
            *(_fault(dice, OPENSTACK_FAULTS) for _ in range(dice.choice((1, 2, 2, 3, 4)))),
            *revoked,
            *of_addresses,
        ),
        jumps=tuple(replace(jump, at=6 * jump.at) for jump in plan.jumps if jump.whose == "broker"),
        options={"list_seconds": dice.choice((0, 0, 0, 2)), "addresses": addresses},
        settings=OPENSTACK_SETTINGS if plan.sweep else {**OPENSTACK_SETTINGS, "sweep_seconds": 10**6},
        lists_within=OPENSTACK_LISTS_WITHIN,
        reach_seconds=6,
        patience=120,
    )


def _slower(wish: Wish) -> Wish:
    money = {name: value for name, value in wish.money.items() if name != "elsewhere"}
    return replace(wish, at=4 * wish.at, stop_at=wish.stop_at and 7 * wish.stop_at, money=money)


def _account(dice: random.Random) -> tuple[str, float | None]:
    """By dice of its own: what else a seed draws stays what it was."""
    kind = dice.choices(("", "keyless", "kept"), weights=(5, 2, 3))[0]
    disconnects = kind and dice.random() < 0.5
    return kind, round(dice.uniform(0.1, 1.5), 3) if disconnects else None


def _wishes(dice: random.Random) -> tuple[Wish, ...]:
    return tuple(_wish(dice, first=number == 0) for number in range(dice.choice((1, 1, 2, 2, 3))))


def _with_money(wishes: tuple[Wish, ...], dice: random.Random, *, spare: bool) -> tuple[Wish, ...]:
    """By dice of its own as well. A name has the same parameters each time, or it could not be asked for twice."""
    by_name = {name: _money(dice, spare=spare) for name in "ab"}
    return tuple(replace(wish, money=by_name[wish.name]) for wish in wishes)


def _money(dice: random.Random, *, spare: bool) -> dict[str, Any]:
    """A budget that buys several machines, or one, or none; a hedge; somewhere else to go."""
    money: dict[str, Any] = {}
    if dice.random() < 0.4:
        money["budget"] = dice.choice(("5", "0.5", "0.07", "0.01"))
    if dice.random() < 0.3:
        money["hedge"] = True
    if dice.random() < 0.3 and spare:
        money["elsewhere"] = ["spare"]
    if dice.random() < 0.2:
        money["prefer"] = "ready"
    return money


def _wish(dice: random.Random, *, first: bool) -> Wish:
    at = 0.0 if first else dice.uniform(0, 1)
    stop_at = at + dice.uniform(0, 1.2) if dice.random() < 0.4 else None
    hours = 0.6 / 3600 if dice.random() < 0.08 else 1  # over in no time
    return Wish(at=round(at, 3), name=dice.choice("aab"), stop_at=stop_at and round(stop_at, 3), hours=hours)


def _kill(dice: random.Random, shape: str) -> Kill:
    what = dice.choices(("boundary", "instant", "agent"), weights=(6, 2, 2))[0]
    part = dice.choice(("guardian", "worker", "server") if what == "agent" else PARTS[shape])
    after = dice.uniform(0, 0.5) if what != "boundary" else dice.uniform(0, 0.1)
    pause = dice.choice((0.0, 0.0, dice.uniform(0, 0.3)))
    count = dice.randint(1, BOUNDARIES)
    return Kill(what=what, part=part, after=round(after, 3), count=count, pause=round(pause, 3), draw=dice.random())


def _faults(dice: random.Random) -> tuple[Fault, ...]:
    return tuple(_fault(dice, FAULTS) for _ in range(dice.choice((0, 1, 1, 2, 3))))


def _fault(dice: random.Random, among: tuple[Fault, ...]) -> Fault:
    wrong = dice.choice(among)
    times = dice.randint(1, wrong.times)
    return replace(wrong, times=TEN if wrong.times == TEN else times)


def _revoked(dice: random.Random) -> tuple[Fault, ...]:
    """For a while the account lets nobody in: what was signed in with before is refused too."""
    if dice.random() > 0.15:
        return ()
    at, times = round(dice.uniform(0.1, 1.5), 3), dice.randint(1, 6)
    return tuple(Fault(call=call, name="bad_credential", times=times, at=at) for call in CALLS)


def _jumps(dice: random.Random) -> tuple[Jump, ...]:
    """A computer that slept, a clock that was put right."""
    whose: list[Literal["cloud", "broker"]] = [each for each in ("cloud", "broker") if dice.random() < 0.12]  # type: ignore[misc]
    return tuple(
        Jump(whose=each, at=round(dice.uniform(0, 1.5), 3), seconds=dice.choice((2, 90, 3700, 26 * 3600)))
        for each in whose
    )


def _wrong(call: str, name: str, times: int = 1, **settings: Any) -> Fault:
    return Fault(call=call, name=name, times=times, settings=settings)


CALLS = ("sign_in", "provision", "describe", "terminate", "instances")
CREDENTIALS = (10**6, 10**6, 10**6, 301, 0.5)
"""Seconds that one is good for: for ever; a second longer than the broker wants it to be; less than a launch takes."""

FAULTS = (
    _wrong("provision", "lost_response", 3),
    _wrong("provision", "lost_response", 1, late=SLOW),
    _wrong("provision", "lost_request", 2),
    _wrong("provision", "duplicate", 2),
    _wrong("provision", "slow", 1, seconds=SLOW),
    _wrong("provision", "slow", 1, seconds=SLOW, when="after"),
    _wrong("provision", "garbled"),
    _wrong("provision", "throttled", 3),
    _wrong("provision", "unavailable", 3),
    _wrong("provision", "no_capacity", 3),
    _wrong("provision", "quota"),
    _wrong("provision", "permission"),
    _wrong("provision", "half_created", 2),
    _wrong("provision", "half_created", 1, answer="unavailable"),
    _wrong("provision", "half_created", 1, answer="quota"),
    _wrong("provision", "hidden", 2, seconds=SLOW),
    _wrong("provision", "unknown", 1, seconds=SLOW),
    _wrong("provision", "slow_boot", 2, seconds=SLOW),
    _wrong("provision", "never_dials"),
    _wrong("provision", "build_fails", 2),
    _wrong("provision", "dies", 2, seconds=0.1),
    _wrong("provision", "dies", 1, seconds=0.6),
    _wrong("provision", "dies", 1, seconds=0.4, leaves=["disk"]),
    _wrong("provision", "bad_credential"),
    _wrong("provision", "slow_boot", 1, seconds=4 * SLOW),
    _wrong("terminate", "lost_response", 2),
    _wrong("terminate", "duplicate", 2),
    _wrong("terminate", "unavailable", TEN),
    _wrong("terminate", "throttled", TEN),
    _wrong("terminate", "ignored", TEN),
    _wrong("terminate", "bad_credential", 3),
    _wrong("terminate", "lost_request", 2),
    _wrong("terminate", "ignored", 2),
    _wrong("terminate", "slow_end", 2, seconds=SLOW),
    _wrong("terminate", "slow", 1, seconds=SLOW),
    _wrong("terminate", "throttled", 3),
    _wrong("terminate", "permission"),
    _wrong("describe", "unavailable", 3),
    _wrong("describe", "garbled"),
    _wrong("describe", "lost_response", 3),
    _wrong("describe", "throttled", 3),
    _wrong("describe", "bad_credential", 2),
    _wrong("instances", "throttled", 3),
    _wrong("instances", "duplicate", 2),
    _wrong("instances", "bad_credential", 3),
    _wrong("instances", "lost_response", 2),
    _wrong("offers", "unavailable", 2),
    _wrong("offers", "throttled", 3),
    _wrong("sign_in", "throttled", 3),
    _wrong("sign_in", "lost_response", 2),
    _wrong("sign_in", "bad_credential"),
)
"""What a seed may draw; `times` is the most."""


AWS_FAULTS = (
    _wrong("RunInstances", "lost_response", 3),
    _wrong("RunInstances", "duplicate", 2),
    _wrong("RunInstances", "silent", 2),
    _wrong("RunInstances", "half_created", 2),
    _wrong("RunInstances", "no_capacity", 3),
    _wrong("RunInstances", "quota"),
    _wrong("RunInstances", "permission"),
    _wrong("RunInstances", "bad_credential"),
    _wrong("RunInstances", "unavailable", 3),
    _wrong("CreateSecurityGroup", "lost_response", 2),
    _wrong("CreateSecurityGroup", "duplicate", 2),
    _wrong("CreateSecurityGroup", "unavailable", 3),
    _wrong("CreateSecurityGroup", "permission"),
    _wrong("DeleteSecurityGroup", "unavailable", TEN),
    _wrong("DeleteSecurityGroup", "lost_response", 2),
    _wrong("TerminateInstances", "unavailable", TEN),
    _wrong("TerminateInstances", "lost_response", 2),
    _wrong("TerminateInstances", "duplicate", 2),
    _wrong("TerminateInstances", "silent", 2),
    _wrong("TerminateInstances", "bad_credential", 3),
    _wrong("DescribeInstances", "unavailable", 3),
    _wrong("DescribeInstances", "lost_response", 3),
    _wrong("DescribeInstances", "bad_credential", 2),
    _wrong("DescribeVolumes", "unavailable", 3),
    _wrong("DescribeNetworkInterfaces", "unavailable", 3),
    _wrong("DescribeSecurityGroups", "lost_response", 3),
    _wrong("DescribeInstanceTypes", "unavailable", 2),
    _wrong("GetParameters", "unavailable", 2),
    _wrong("GetSessionToken", "unavailable", 3),
    _wrong("GetSessionToken", "lost_response", 2),
    _wrong("machine", "never_dials", 2),
    _wrong("machine", "build_fails", 1, message="The build failed."),
    _wrong("machine", "dies", 2, seconds=0.1),
    _wrong("machine", "dies", 1, seconds=0.8),
    _wrong("machine", "taken_away", 1, seconds=0.5),
)
"""The same over AWS, by its own actions."""


OPENSTACK_LISTS_WITHIN = 8
OPENSTACK_SETTINGS = {
    "lease_seconds": 15,
    "boot_minutes": 25 / 60,
    "build_minutes": 25 / 60,
    "silence_minutes": 20 / 60,
    "sweep_seconds": 5,
    "heartbeat_seconds": 1,
}
REVOKED = (("sign_in", "refused"), ("machines", "bad_token"), ("delete", "bad_token"), ("claims", "bad_token"))

OPENSTACK_FAULTS = (
    _wrong("buy", "lost_response", 3),
    _wrong("buy", "lost_response", 2),
    _wrong("buy", "lost_request", 2),
    _wrong("buy", "duplicate", 2),
    _wrong("buy", "slow", 1, seconds=2),
    _wrong("buy", "unavailable", 3),
    _wrong("buy", "busy", 3),
    _wrong("buy", "no_room", 2),
    _wrong("buy", "forbidden"),
    _wrong("buy", "bad_token"),
    _wrong("claim", "lost_response", 2),
    _wrong("claim", "lost_request", 2),
    _wrong("claim", "duplicate", 2),
    _wrong("claim", "busy", 3),
    _wrong("say", "lost_response", 2),
    _wrong("say", "unavailable", 2),
    _wrong("firewall", "lost_response", 2),
    _wrong("firewall", "duplicate", 2),
    _wrong("firewall", "unavailable", 3),
    _wrong("firewall", "bad_token"),
    _wrong("delete", "unavailable", TEN),
    _wrong("delete", "busy", TEN),
    _wrong("delete", "lost_response", 2),
    _wrong("delete", "lost_request", 2),
    _wrong("delete", "duplicate", 2),
    _wrong("delete", "bad_token", 3),
    _wrong("no_firewall", "unavailable", TEN),
    _wrong("no_firewall", "lost_response", 2),
    _wrong("give_back", "unavailable", TEN),
    _wrong("give_back", "lost_response", 2),
    _wrong("give_back", "duplicate", 2),
    _wrong("machines", "busy", 3),
    _wrong("machines", "lost_response", 3),
    _wrong("machines", "bad_token", 2),
    _wrong("claims", "unavailable", 3),
    _wrong("firewalls", "lost_response", 3),
    _wrong("sizes", "busy", 2),
    _wrong("sign_in", "busy", 3),
    _wrong("sign_in", "lost_response", 2),
    _wrong("sign_in", "refused", 2),
    _wrong("project", "quota", instances=1),
    _wrong("project", "quota", instances=0),
    _wrong("project", "limits", security_group=2),
    _wrong("project", "limits", port=1),
    _wrong("machine", "never_dials", 2),
    _wrong("machine", "build_fails", 1, message="The build failed."),
    _wrong("machine", "dies", 2, seconds=0.3),
    _wrong("machine", "dies", 1, seconds=4),
    _wrong("machine", "taken_away", 1, seconds=3),
)
"""The same over a real OpenStack, by what is asked of it (`openstack_cloud.REQUESTS`)."""
ADDRESS_FAULTS = (
    _wrong("card", "lost_response", 2),
    _wrong("card", "duplicate", 2),
    _wrong("card", "unavailable", 2),
    _wrong("card", "forbidden"),
    _wrong("address", "lost_response", 2),
    _wrong("address", "duplicate", 2),
    _wrong("address", "busy", 3),
    _wrong("no_card", "unavailable", TEN),
    _wrong("no_card", "lost_response", 2),
    _wrong("no_address", "unavailable", TEN),
    _wrong("no_address", "bad_token", 2),
    _wrong("project", "limits", floatingip=0),
)
"""Besides, where each machine gets an address."""


def _options(dice: random.Random) -> dict[str, Any]:
    return {
        "list_seconds": dice.choice((0, 0, 0.2)),
        "end_seconds": dice.choice((0, 0, 0.1)),
        "power_off": dice.choice(("delete", "delete", "keep")),
        "usual_seconds": 0.3,
    }
