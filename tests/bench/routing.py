"""What a choice among peers costs, and how well it spreads and sticks: ours beside plain rendezvous hashing and random.

    python -m tests.bench.routing [--quick] [--plot docs/images/routing.svg]

A hundred thousand launches of repositories that are wanted as unevenly as on a public hub, over fifty peers of different
weights that are half full on the whole. Each session lasts for as many launches as make that so.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from federation import routing
from federation.routing import Candidate

PEERS, LAUNCHES, REPOSITORIES = 50, 100_000, 20_000
PLACES = 100  # of a peer of weight 1
BUSY = 0.5
SKEW = 1.1  # of Zipf's law: the most wanted repository has about a tenth of all launches
STYLE = (
    "text { font: 12px sans-serif; fill: #57606a } "
    ".ours { fill: #1f6feb } .rendezvous { fill: #8b949e } .random { fill: #d29922 } "
    "@media (prefers-color-scheme: dark) { text { fill: #b1bac4 } .ours { fill: #58a6ff } .rendezvous { fill: #6e7681 } "
    ".random { fill: #e3b341 } }"
)
MEASURES = ("image there", "turned away", "fullest peer")
MOVES = ("one goes", "one comes", "one drains", "one fills")
"""What happens to one peer of 50: the share of repositories whose first peer is another then."""
MOVED_KEYS = 20_000


@dataclass
class Hub:
    """A peer with its sessions and images."""

    name: str
    weight: float
    running: int = 0
    images: set[str] = field(default_factory=set)

    @property
    def places(self) -> int:
        return int(PLACES * self.weight)

    @property
    def candidate(self) -> Candidate:
        return Candidate(name=self.name, weight=self.weight)

    def known_for(self, key: str) -> Candidate:
        """With all that a broker knows of it."""
        room = 1 - self.running / self.places
        return Candidate(name=self.name, weight=self.weight, room=room, has_image=key in self.images)


Order = Callable[[str, list[Hub], random.Random], list[str]]


def ours(key: str, hubs: list[Hub], _: random.Random) -> list[str]:
    return [each.name for each in routing.order(key, [hub.known_for(key) for hub in hubs])]


def rendezvous(key: str, hubs: list[Hub], _: random.Random) -> list[str]:
    return [each.name for each in routing.order(key, [hub.candidate for hub in hubs])]


def at_random(_: str, hubs: list[Hub], dice: random.Random) -> list[str]:
    return [hub.name for hub in sorted(hubs, key=lambda hub: dice.random() ** (1 / hub.weight), reverse=True)]


WAYS: dict[str, Order] = {"ours": ours, "rendezvous": rendezvous, "random": at_random}


def played(way: Order, launches: int) -> dict[str, float]:
    """What became of so many launches, by these choices."""
    dice = random.Random(1)
    hubs = [Hub(name=f"hub-{number}", weight=dice.choice((0.5, 1, 1, 2))) for number in range(PEERS)]
    by_name = {hub.name: hub for hub in hubs}
    lasts = int(sum(hub.places for hub in hubs) * BUSY)
    running: deque[Hub] = deque()
    there = refused = 0
    fullest, spent = 0.0, 0.0
    for key in wanted(launches, dice):
        if len(running) >= lasts:
            running.popleft().running -= 1
        began = time.perf_counter()
        names = way(key, hubs, dice)
        spent += time.perf_counter() - began
        for name in names:
            hub = by_name[name]
            if hub.running < hub.places:
                break
            refused += 1
        there += key in hub.images
        hub.images.add(key)
        hub.running += 1
        running.append(hub)
        fullest = max(fullest, hub.running / hub.places) if len(running) >= lasts else fullest
    return {
        "microseconds": 1e6 * spent / launches,
        "image there": there / launches,
        "turned away": refused / launches,
        "fullest peer": fullest,
    }


def moved(way: Order, count: int) -> dict[str, float]:
    """The share of repositories that move, after each of MOVES; `most`: how many times its fair share the fullest peer has."""
    dice = random.Random(2)
    hubs = [Hub(name=f"hub-{number}", weight=1) for number in range(PEERS)]
    keys = [f"https://github.com/owner-{number}/name" for number in range(count)]
    before = [way(key, hubs, dice)[0] for key in keys]
    tight = Hub(name="hub-0", weight=1, running=int(0.95 * PLACES))
    after = {"one goes": hubs[:-1], "one comes": [*hubs, Hub(name="new", weight=1)]}
    after |= {"one drains": hubs[1:], "one fills": [tight, *hubs[1:]]}
    most = max(Counter(before).values()) / (count / PEERS)
    return {"most": most} | {name: _moved(way, keys, before, hubs, dice) for name, hubs in after.items()}


def _moved(way: Order, keys: list[str], before: list[str], hubs: list[Hub], dice: random.Random) -> float:
    return sum(way(key, hubs, dice)[0] != was for key, was in zip(keys, before, strict=True)) / len(keys)


def wanted(launches: int, dice: random.Random) -> list[str]:
    shares = list(itertools.accumulate(1 / rank**SKEW for rank in range(1, REPOSITORIES + 1)))
    picks = (bisect.bisect(shares, dice.random() * shares[-1]) for _ in range(launches))
    return [f"https://github.com/owner-{pick}/name" for pick in picks]


def plotted(found: dict[str, dict[str, float]]) -> str:
    """Bars, as SVG: each measure, three ways."""
    bars, at = [], 40
    for measure in (*MEASURES, *MOVES):
        bars.append(f'<text x="{at + 70}" y="215" text-anchor="middle">{measure}</text>')
        for way, values in found.items():
            height = 160 * min(1.0, values[measure])
            bars.append(f'<rect x="{at}" y="{195 - height:.1f}" width="40" height="{height:.1f}" class="{way}"/>')
            bars.append(f'<text x="{at + 20}" y="{190 - height:.1f}" text-anchor="middle">{values[measure]:.0%}</text>')
            at += 46
        at += 50
    legend = [
        f'<rect x="{40 + 110 * place}" y="228" width="12" height="12" class="{way}"/>'
        f'<text x="{58 + 110 * place}" y="238">{way}</text>'
        for place, way in enumerate(found)
    ]
    body = "\n".join([f"<style>{STYLE}</style>", *bars, *legend])
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1360 250">\n{body}\n</svg>\n'


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plot", type=Path)
    told = parser.parse_args(arguments)
    launches = LAUNCHES // 20 if told.quick else LAUNCHES
    print(f"{launches:,} launches over {PEERS} peers\n")
    print(f"{'':12}{'µs a choice':>12}" + "".join(f"{name:>14}" for name in MEASURES))
    found = {}
    for way, order in WAYS.items():
        found[way] = values = played(order, launches)
        print(f"{way:12}{values['microseconds']:12.0f}" + "".join(f"{values[name]:14.1%}" for name in MEASURES))
    keys = MOVED_KEYS // 20 if told.quick else MOVED_KEYS
    print(f"\n{keys:,} repositories that move to another peer of {PEERS}; most at one peer, of its fair share\n")
    print(f"{'':12}" + "".join(f"{name:>14}" for name in MOVES) + f"{'most':>14}")
    for way, order in WAYS.items():
        found[way] |= moved(order, keys)
        print(f"{way:12}" + "".join(f"{found[way][name]:14.1%}" for name in (*MOVES, "most")))
    if told.plot:
        told.plot.write_text(plotted(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
