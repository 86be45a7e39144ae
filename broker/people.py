"""Who asks: somebody known by their logins, the one local person, who holds the key in the state folder, or nobody we know."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from providers.sentences import say

if TYPE_CHECKING:
    from broker.models import Launch
    from broker.service import Service

WORDS = ("groups", "entitlements", "affiliations")
"""What identity providers say of a person beyond who they are, as a login keeps it."""


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
    name: str = ""
    """For showing only."""
    groups: frozenset[str] = frozenset()
    entitlements: frozenset[str] = frozenset()
    affiliations: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()
    """Names of the identity providers that vouch for them."""
    signed_in_at: dt.datetime | None = None
    """When they last proved who they are."""
    level: str = ""
    """The `acr` of the sign-in they ask with."""
    sign_in: str = ""
    """The sign-in they ask with (models.SignIn); empty for scripts."""
    scopes: frozenset[str] | None = None
    """What the API token they ask with may do; None: all that the person may."""
    token: str = ""
    """The API token they ask with (models.ApiToken), by its id."""

    def may(self, scope: str) -> bool:
        """Whether what they ask with may do this (api_tokens.SCOPES)."""
        return self.scopes is None or scope in self.scopes


LOCAL = Person(id="local", local=True, name=say("you"))
ANONYMOUS = Person(id="anonymous", anonymous=True)
"""All who are not signed in, as one: an address that was kept would be a record of who ran what."""


def of(person_id: str) -> Person:
    """The person of an id that we wrote down ourselves, in a row or a token; nothing more is known of them here."""
    known = {person.id: person for person in (LOCAL, ANONYMOUS)}
    return known.get(person_id) or Person(id=person_id)


def known(service: Service, person_id: str) -> Person:
    """The same with all that their logins say of them, as far as they signed in with them within `token_days`. One short look
    at the table."""
    from broker.models import Login, Profile  # models need nothing of this module; this module is needed by all

    if person_id in (LOCAL.id, ANONYMOUS.id):
        return of(person_id)
    with service.db.reading() as session:
        profile = session.get(Profile, person_id)
        logins = list(session.scalars(sa.select(Login).where(Login.person == person_id)))
    names = {identity.issuer: identity.name for identity in service.settings.identities}
    # What a provider said long ago may be true no more: whoever left it goes on signing in with another one.
    longest = max(dt.timedelta(days=service.settings.token_days), dt.timedelta(hours=service.settings.sign_in_hours))
    told = service.now() - longest
    trusted = [login for login in logins if login.issuer in names and login.signed_in_at >= told]
    said = {word: frozenset(each for login in trusted for each in login.claims.get(word, ())) for word in WORDS}
    return Person(
        id=person_id,
        name=profile.name if profile else "",
        signed_in_at=profile.signed_in_at if profile else None,
        providers=frozenset(names[login.issuer] for login in trusted),
        **said,
    )


def recent(service: Service, person: Person, within: dt.timedelta | None = None) -> bool:
    """Whether they proved who they are this lately. The local person does so by being at the machine."""
    limit = within or dt.timedelta(hours=service.settings.sign_in_hours)
    return person.local or (person.signed_in_at is not None and service.now() - person.signed_in_at <= limit)


def bearer(launch_id: str) -> Person:
    """Whoever showed the token of this launch."""
    return Person(id="anonymous", anonymous=True, launch=launch_id)


def owns(person: Person, launch: Launch) -> bool:
    """Whether it is theirs to enter: they asked for it, or showed its token."""
    return launch.id == person.launch if person.anonymous else launch.person == person.id
