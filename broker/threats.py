"""What could happen to a person who runs somebody's code at one place: six threats, each with what removes it. Pure.

They are those of Binder's own list (2016): a malicious repository, image or collaborator can act within the session, waste
compute, abuse the network, leak what is stored, corrupt it, and act with whatever credentials it finds.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from providers.sentences import say, template


class Threat(enum.StrEnum):
    """What a malicious repository could do. The words are kept in rows: they are not to change."""

    ACTIONS = "actions"
    WASTE = "waste"
    NETWORK = "network"
    LEAK = "leak"
    CORRUPT = "corrupt"
    CREDENTIALS = "credentials"


EVERYTHING = frozenset(Threat)
"""What is at stake where code runs as the person."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Who wrote it, where it runs, as whom, and at whose expense."""

    where: str
    """The place, as a sentence goes on with it: `this computer`, `your server`, `AWS us-west-2`."""
    confined: bool = True
    """In a container or on a machine of its own, out of reach of what is the person's."""
    own_account: bool = False
    """On an account of the person's, who pays."""
    own_server: bool = False
    """On a server of the person's own: its cloud tells whoever asks there about it."""
    own_code: bool = False
    """The person wrote it themselves, as far as anybody knows."""
    cost: str = ""
    """The most that it can come to, in words; empty where nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One threat in one situation."""

    threat: Threat
    applies: bool
    sentence: str
    """What could happen; or why it cannot."""
    switch: str = ""
    """What removes it, where it applies."""


def judged(situation: Situation) -> list[Judgement]:
    """All six, in the same order each time."""
    return [
        Judgement(
            threat=threat,
            applies=bool(found),
            sentence=found or SAFE[threat],
            switch=_switch(situation, threat) if found else "",
        )
        for threat in Threat
        for found in [_danger(situation, threat)]
    ]


def at_stake(situation: Situation) -> frozenset[Threat]:
    """Those that apply."""
    return frozenset(each.threat for each in judged(situation) if each.applies)


def must_ask(situation: Situation, *, linked: bool) -> bool:
    """Whether the person has to agree first: always where it runs as them; at their expense where somebody else's link asks for
    it, and the code is somebody else's. Never where nothing is at stake."""
    if not situation.confined:
        return True
    return linked and not situation.own_code and bool(at_stake(situation))


def written(threats: Iterable[Threat]) -> str:
    """As a row keeps them."""
    return " ".join(sorted(threats))


def read(text: str) -> frozenset[Threat]:
    """The same back; words that are no threat any more are left out."""
    return frozenset(Threat(word) for word in text.split() if word in list(Threat))


# --- within ---------------------------------------------------------------------------------------------------------

SAFE = {
    Threat.ACTIONS: say("It runs in a container or on a machine of its own, which is deleted at the end."),
    Threat.WASTE: say("It costs you nothing, and whoever runs the place limits how much it gets."),
    Threat.NETWORK: say("It uses the network of the place, and not yours."),
    Threat.LEAK: say("No files of yours are there, but those that you bring into the session."),
    Threat.CORRUPT: say("It works on a copy of the repository, and on no files of yours."),
    Threat.CREDENTIALS: say("No key, token or sign-in of yours is in the session, but what you type into it."),
}
OF_ITS_OWN = say("Choose a place where it gets a container or a machine of its own.")
AS_YOU = {
    Threat.ACTIONS: template("It runs as you on %(where)s: it can do there whatever you can do."),
    Threat.WASTE: template("It can use up the processors, the memory and the disk of %(where)s."),
    Threat.NETWORK: template(
        "It can use your network: the internet under your address, and whatever else %(where)s reaches."
    ),
    Threat.LEAK: template("It can read your files on %(where)s and send them anywhere."),
    Threat.CORRUPT: template("It can change and delete your files on %(where)s."),
    Threat.CREDENTIALS: template(
        "It can use whatever you are signed in to on %(where)s: keys, tokens, cloud accounts."
    ),
}
OF_A_SERVER = template(
    "It can use whatever you are signed in to on %(where)s, and read what the cloud tells that server about itself, "
    "its user data among it."
)
AT_YOUR_EXPENSE = {
    Threat.WASTE: (
        say("It can keep the machine busy that you pay for, until it ends."),
        say("Set a shorter time limit or a budget, or choose a place that costs you nothing."),
    ),
    Threat.NETWORK: (
        say("It can reach any address on the internet, and others see an address of your account."),
        say("Choose a place that is not in your account."),
    ),
}


def _danger(situation: Situation, threat: Threat) -> str:
    """What could happen; empty where it cannot."""
    if not situation.confined:
        said = OF_A_SERVER if situation.own_server and threat is Threat.CREDENTIALS else AS_YOU[threat]
        return say(said, where=situation.where)
    if not situation.own_account or threat not in AT_YOUR_EXPENSE:
        return ""
    if threat is Threat.WASTE and situation.cost:
        return say("It can keep the machine busy that you pay for, until it ends: %(cost)s.", cost=situation.cost)
    return AT_YOUR_EXPENSE[threat][0]


def _switch(situation: Situation, threat: Threat) -> str:
    return OF_ITS_OWN if not situation.confined else AT_YOUR_EXPENSE.get(threat, ("", ""))[1]
