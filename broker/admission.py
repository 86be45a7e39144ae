"""Whom a backend is open to, in words that an operator can read.

    open_to = ["signed in"]                                   everybody who has signed in (the default)
    open_to = ["group staff", "group course-101"]             whoever is in one of these groups
    open_to = ["entitlement urn:mace:example:compute"]        whoever has this entitlement
    open_to = ["affiliation member@uni.example"]              …this scoped affiliation; `*` stands for any letters
    open_to = ["provider campus"]                             whoever has signed in with this identity provider
    open_to = ["local"]                                       the one local person only

One that fits is enough. What a person's identity providers say of them is read at each sign-in and each renewal, and
counts for `token_days` from the last sign-in with that one.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from broker import errors
from broker.people import Person
from providers.sentences import listed, say

RULE = re.compile(r"signed in|local|(group|entitlement|affiliation|provider) (\S.*)")


def problem(rule: str) -> str | None:
    """What is wrong with these words; None where they can be understood."""
    if RULE.fullmatch(rule):
        return None
    return (
        f"“{rule}” is not understood. Write “signed in”, “local”, “group NAME”, “entitlement NAME”, "
        "“affiliation NAME@PLACE” or “provider NAME”."
    )


def admits(rules: Sequence[str], person: Person) -> bool:
    """Whether one of these rules fits this person. The one local person runs the broker, and is let in everywhere."""
    return person.local or (not person.anonymous and any(_fits(rule, person) for rule in rules))


def refusal(rules: Sequence[str], person: Person) -> str | None:
    """Why this person is not let in, in a sentence that says who is; None where they are."""
    if admits(rules, person):
        return None
    if person.anonymous:
        return say("Only people who are signed in may run things there.")
    return say(
        "It is open to others: %(rules)s. Ask whoever runs this broker to let you in.",
        rules=listed(rules, " or ") if rules else say("nobody"),
    )


def require_recent(
    person: Person, now: dt.datetime, *, minutes: float | None = None, level: str = "", title: str = "This place"
) -> None:
    """Raises SignInAgain where their sign-in is older than this, or of none of these levels (`acr`, spaces between).

    The one local person proves who they are by being at the machine; visitors have nothing to prove it with.
    """
    if person.local or person.anonymous:
        return
    since = person.signed_in_at
    if minutes is not None and (since is None or now - since > dt.timedelta(minutes=minutes)):
        raise errors.SignInAgain(
            say(
                "%(place)s asks for a sign-in that is not older than %(minutes)s minutes. Sign in again, then repeat this: "
                "with a new token.",
                place=title,
                minutes=float(minutes),
            )
            if person.token
            else say(
                "%(place)s asks for a sign-in that is not older than %(minutes)s minutes. Sign in again, then repeat this: "
                "nothing is lost.",
                place=title,
                minutes=float(minutes),
            ),
            max_age=int(minutes * 60),
            level=level,
        )
    if level and person.level not in level.split():
        raise errors.SignInAgain(
            say(
                "%(place)s asks for a stronger sign-in than yours (%(levels)s). Sign in again in that way, then repeat this: "
                "nothing is lost.",
                place=title,
                levels=" or ".join(level.split()),
            ),
            level=level,
        )


def _fits(rule: str, person: Person) -> bool:
    if rule == "signed in":
        return True
    kind, _, name = rule.partition(" ")
    has = {
        "group": person.groups,
        "entitlement": person.entitlements,
        "affiliation": person.affiliations,
        "provider": person.providers,
    }.get(kind, frozenset())
    if kind in ("affiliation", "entitlement"):
        return any(fnmatchcase(each.lower(), name.lower().replace("[", "[[]")) for each in has)
    return name in has or f"/{name}" in has  # Keycloak may say groups by their path
