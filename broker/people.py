"""Who asks. Today: the one local person, who holds the key in the state folder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody signed in. `id` is stable and unique; it is what rows are keyed on."""

    id: str
    local: bool = False
    """The one local person, at their own machine: may run what runs as themselves."""


LOCAL = Person(id="local", local=True)
