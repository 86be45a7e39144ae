"""What a person is asked before somebody's code runs where something of theirs is at stake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from broker import backends, consents, placement, repos, threats
from broker.forwarding import choosing
from broker.people import Person
from broker.service import Service
from broker.web import places, views


@dataclass(frozen=True, kw_only=True)
class Stake:
    """One place that it may run at."""

    situation: threats.Situation
    judged: Sequence[threats.Judgement]

    @property
    def dangers(self) -> list[threats.Judgement]:
        """What could happen there."""
        return [each for each in self.judged if each.applies]

    @property
    def safe(self) -> list[threats.Judgement]:
        """What cannot."""
        return [each for each in self.judged if not each.applies]

    @property
    def switches(self) -> list[str]:
        """What removes the dangers, each once."""
        return list(dict.fromkeys(each.switch for each in self.dangers))


def stakes(service: Service, person: Person, filled: views.Filled, found: repos.Resolved) -> list[Stake]:
    """The place that was chosen, and of those to go on to each where something more is at stake. Asks no cloud."""
    name, _, server = filled.typed["backend"].partition("/")
    here = [other for other in (name, *filled.elsewhere) if not choosing.is_peer(service, other)]
    backend = placement.choose(service, person, here[0] or None)  # at a peer nothing of theirs is at stake
    costs = {
        place.name: places.session(place)
        for place in placement.places(service, person, filled.question(service, person))
    }
    first = _stake(consents.situation(service, person, found, backend, server), costs.get(backend.name, ""))
    others = [
        _stake(consents.situation(service, person, found, backends.named(service, other)), costs.get(other, ""))
        for other in here[1:]
        if other != backend.name
    ]
    agreed = threats.at_stake(first.situation)
    return [first, *(each for each in others if not threats.at_stake(each.situation) <= agreed)]


def _stake(situation: threats.Situation, cost: str) -> Stake:
    known = cost if cost.startswith("at most") else ""
    situation = replace(situation, cost=known)
    return Stake(situation=situation, judged=threats.judged(situation))
