"""What an identity provider says of a person beyond who they are: the groups, entitlements and affiliations that decide what
is open to them, found where the operator's setting says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from broker import people, settings

WORDS_MOST = 2000  # of one kind; more than any campus gives, few enough for a row
LONGEST = 500


def words(identity: settings.IdentitySetting, told: Mapping[str, Any]) -> dict[str, list[str]]:
    """The words of each kind (`people.WORDS`), in the provider's order, each once."""
    return {kind: _gathered(getattr(identity, kind), told) for kind in people.WORDS}


def lacking(identity: settings.IdentitySetting, told: Mapping[str, Any]) -> bool:
    """Whether something that we go by is not told, so that it is worth asking further."""
    return not name(told) or any(
        all(found(each, told) is None for each in getattr(identity, kind)) for kind in people.WORDS
    )


def name(told: Mapping[str, Any]) -> str:
    """What to call the person; empty where nothing is told."""
    given = (told.get(each) for each in ("name", "preferred_username", "nickname", "email"))
    return next((each.strip()[:200] for each in given if isinstance(each, str) and each.strip()), "")


def found(path: str, told: Mapping[str, Any]) -> Any:
    """The claim of this name, or inward along its dots; None where there is none. Names may have dots themselves."""
    if path in told:
        return told[path]
    here: Any = told
    for part in path.split("."):
        if not isinstance(here, Mapping) or part not in here:
            return None
        here = here[part]
    return here


def _gathered(paths: Sequence[str], told: Mapping[str, Any]) -> list[str]:
    each = [word for path in paths for word in _listed(found(path, told))]
    return list(dict.fromkeys(each))[:WORDS_MOST]


def _listed(value: Any) -> list[str]:
    given = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [word for word in given if isinstance(word, str) and 0 < len(word) <= LONGEST]
