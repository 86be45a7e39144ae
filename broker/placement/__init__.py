"""Where a launch could run: the choice that a person is shown, and what a launch tries first.

listing   every place for one person and one question, with price, readiness and what is missing. Asks no cloud
ranking   which of them comes first (pure)
offers    which backend and which offer a launch takes
"""

from broker.placement.listing import places, ready_seconds
from broker.placement.offers import choose, next_offer, ranked
from broker.placement.place import ASKED_FOR, Place, Question
from broker.placement.ranking import ORDERS, ordered

__all__ = [
    "ASKED_FOR",
    "ORDERS",
    "Place",
    "Question",
    "choose",
    "next_offer",
    "ordered",
    "places",
    "ranked",
    "ready_seconds",
]
