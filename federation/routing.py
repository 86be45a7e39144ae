"""Which peer is asked first. Pure: a key and what is known of the peers go in, an order comes out.

Weighted rendezvous hashing: every key has its own order of all peers, a peer that comes or goes moves only the keys that
are its own, and shares follow the weights. What is nearly full comes after all that is not, so that one much wanted
repository spills over instead of waiting at one hub; where its image is known to be, it goes before the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

TIGHT = 0.1  # with less of its places free, a peer comes after those with more
SPAN = 2**64


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A peer that may be asked, as far as the choice goes."""

    name: str
    weight: float = 1.0
    room: float | None = None
    """The share of its places that is free; None where it does not say."""
    known: bool = True
    """It was seen to be well lately."""
    has_image: bool = False
    """What is to be run was run there before, so that its image is probably still there."""


def order(key: str, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those with a weight, the best first. The same key has the same order everywhere, on every day."""
    ranked = [
        ((_is_tight(each), not each.known, not each.has_image, -score(key, each)), each.name, each)
        for each in candidates
        if each.weight > 0
    ]
    return [each for _, _, each in sorted(ranked, key=lambda item: item[:2])]


def score(key: str, candidate: Candidate) -> float:
    """How much this key leans to this peer; above 0."""
    digest = hashlib.blake2b(f"{key}\0{candidate.name}".encode(), digest_size=8).digest()
    share = (int.from_bytes(digest) + 0.5) / SPAN  # never 0 and never 1
    return candidate.weight * _room_factor(candidate.room) / -math.log(share)


def _is_tight(candidate: Candidate) -> bool:
    return candidate.room is not None and candidate.room < TIGHT


def _room_factor(room: float | None) -> float:
    """In steps, so that a key does not wander with every session that comes and goes."""
    if room is None or room >= 0.5:
        return 1.0
    return 0.5 if room >= 0.25 else 0.25
