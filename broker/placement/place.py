"""A line of the choice, and what the choice is about."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from broker import repos, resources
from providers import base
from providers.sentences import Sentence, say

ASKED_FOR = (say("its price is being asked for"),)
OWN_SERVER = (
    say("nothing is bought: it costs what it costs you already"),
    say("you start it by pasting one line into its shell, and it goes on running afterwards"),
    say("the code can read your files there, and reach the cloud's metadata and your other processes"),
)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What places are asked about: nothing in particular, or a repository and what a person wants for it."""

    found: repos.Resolved | None = None
    """The repository, where that is known already."""
    asked: resources.Asked = resources.UNASKED
    """What it says that it needs."""
    wanted: base.Resources = resources.NOTHING
    """What the person wants, hours included; None is for others to say."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One line of the choice: where, for how much, how soon, or why not. A backend or a peer."""

    name: str
    """What a form, a link or `--on` says: the backend's, and behind a slash the offer where it is a server of the person's own.
    Peers and backends share one name space."""
    title: str
    closed: str | None = None
    """Why it cannot be chosen, in a sentence; None where it can."""
    connect: str = ""
    """Where this person connects or mends their own account; empty where none is needed or can be used."""
    connected: bool = False
    """They have an account of theirs connected there, whether it works or not."""
    confined: bool = True
    """False where it runs as the person, with all they may do."""
    own_account: bool = False
    """It runs on an account of the person's, who pays for it."""
    own: bool = False
    """A server of the person's own, which only they choose."""
    peer: bool = False
    """Another hub runs it."""
    publishes: bool = False
    """Launches there are public record."""
    terms_url: str = ""
    """Whose terms apply there; empty where they are this hub's."""
    privacy_url: str = ""
    """The same of how people's data are treated."""
    price_per_hour: Decimal | None = None
    """Of the cheapest that it offered lately; None where nobody knows."""
    price_for_session: Decimal | None = None
    """The most that the session can cost with it, getting ready included; None where nobody knows."""
    hours: float | None = None
    """How long the session may last there."""
    idle_minutes: float | None = None
    """After how long without use it ends there."""
    currency: str = "USD"
    price: tuple[str, ...] = ()
    """Its price in words: an hour, the most that a launch may come to, and who says so."""
    ready_seconds: float | None = None
    """Median of what it took lately, else the provider's guess; None where nobody can say."""
    built: bool = False
    """The image of this very commit is expected to be there."""
    reasons: tuple[str, ...] = ()
    """Why one would take it or not, in words, the weightiest first."""
    needs: tuple[str, ...] = ()
    """What a person does before it can run: `sign in`, `connect`, `agree`."""
    asking: bool = False
    """Its cloud is being asked at this moment: more is to come."""
    news: str = ""
    """What is the matter with its cloud, in a sentence: it is slow, or it refused."""
    sizes: tuple[str, ...] | None = None
    """Names of the plain sizes that can be had there; None where nobody knows."""


def ready_in(seconds: float) -> Sentence:
    """`ready in about 20 s`, `ready in about 3 min`: as exact as a guess is."""
    if seconds < 10:
        return say("ready in a few seconds")
    if seconds < 95:
        return say("ready in about %(seconds)s s", seconds=round(seconds / 5) * 5)
    return say("ready in about %(minutes)s min", minutes=round(seconds / 60))
