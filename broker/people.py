"""Who asks: the one local person, who holds the key in the state folder, or somebody nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.models import Launch


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who asks. `id` is stable and unique; it is what rows are keyed on."""

    id: str
    local: bool = False
    """The one local person, at their own machine: may run what runs as themselves."""
    anonymous: bool = False
    """Nobody we know: runs on `binder_backend` only, owns nothing, and enters by the token of the launch."""
    launch: str = ""
    """They showed the token of this one launch: they may see it and stop it, whoever asked for it, and nothing else."""


LOCAL = Person(id="local", local=True)
ANONYMOUS = Person(id="anonymous", anonymous=True)
"""All who are not signed in, as one: an address that was kept would be a record of who ran what."""


def of(person_id: str) -> Person:
    """The person of an id that we wrote down ourselves, in a row or a token."""
    known = {person.id: person for person in (LOCAL, ANONYMOUS)}
    return known.get(person_id) or Person(id=person_id)


def bearer(launch_id: str) -> Person:
    """Whoever showed the token of this launch."""
    return Person(id="anonymous", anonymous=True, launch=launch_id)


def owns(person: Person, launch: Launch) -> bool:
    """Whether it is theirs to enter: they asked for it, or showed its token."""
    return launch.id == person.launch if person.anonymous else launch.person == person.id
