"""Schedules, drawn from a seed: which peers there are, what each of them says, what is launched, and who is killed when."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.peers import lies

HONEST_SHARE = 0.25
FLAPS = 0.3
KILLS = 0.35
KILLERS = ("restart", "takeover", "beside")


@dataclass(frozen=True, kw_only=True)
class PeerPlan:
    """One hub."""

    answers: tuple[str, ...]
    """Names of LIES, one for each request, the last for all that follow; `honest` for none."""
    says: str
    """One of SAYS, of how it is."""
    session: str
    publishes: bool
    own_token: bool
    """It is asked with a token of the person's."""

    @property
    def honest(self) -> bool:
        return set(self.answers) == {"honest"} and self.says == "nothing wrong" and not self.session


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One schedule."""

    seed: int
    peers: tuple[PeerPlan, ...]
    launches: tuple[int, ...]
    """The peer that each is sent to first."""
    looks: int
    """How often peers are asked how they are, before anything is launched."""
    kill: tuple[int, int, int, str] | None
    """At which peer, request and line of its stream whoever listens is killed, and what comes then."""
    stops: bool
    """What runs at the end is stopped, else it is looked at a few times first."""


def drawn(seed: int, only: Sequence[str] = ()) -> Plan:
    """The schedule of this seed; `only`: the lies that it is made of."""
    chance = random.Random(f"peers {seed}")
    peers = tuple(_peer(chance, only) for _ in range(chance.randint(2, 4)))
    launches = tuple(chance.randrange(len(peers)) for _ in range(chance.randint(1, 3)))
    kill = None
    if chance.random() < KILLS:
        kill = (launches[0], 0, chance.randint(0, 5), chance.choice(KILLERS))
    looks = chance.choice((0, 0, 1, 1, 3))
    return Plan(
        seed=seed, peers=peers, launches=launches, looks=looks, kill=kill, stops=chance.random() < 0.5
    )  # fmt: skip


def _peer(chance: random.Random, only: Sequence[str]) -> PeerPlan:
    honest = chance.random() < HONEST_SHARE
    told = list(only or lies.LIES)
    answers = ["honest"] if honest else [chance.choice(told)]
    if not honest and chance.random() < FLAPS:
        answers += [chance.choice([*told, "honest"]) for _ in range(3)]
    return PeerPlan(
        answers=tuple(answers),
        says="nothing wrong" if honest or chance.random() < 0.4 else chance.choice(list(lies.SAYS)),
        session="" if honest else chance.choice(lies.SESSION_LIES),
        publishes=chance.random() < 0.7,
        own_token=not honest and chance.random() < 0.25,
    )


def of(lie: str, says: str = "nothing wrong") -> Plan:
    """One launch at a peer that tells this, with an honest one behind it."""
    honest = PeerPlan(answers=("honest",), says="nothing wrong", session="", publishes=True, own_token=False)
    liar = PeerPlan(answers=(lie,), says=says, session="", publishes=True, own_token=False)
    return Plan(seed=0, peers=(liar, honest), launches=(0,), looks=2, kill=None, stops=True)
