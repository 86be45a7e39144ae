"""What a person can connect an account of theirs with: backends that ask for one, hosts of private repositories, other hubs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from broker import admission, backends, connections, errors, identity, menus, peers, probe, repo_access
from broker.models import Connection
from broker.people import Person
from broker.service import Service
from providers import base
from providers.sentences import say

PLAINLY = {
    base.Tier.KEYLESS: (
        say("Nothing secret is handed over"),
        say(
            "Your account is told to trust this broker, which proves each time who asks. Nothing secret leaves your account or "
            "is kept here, and you can take the trust back there at any time."
        ),
    ),
    base.Tier.DELEGATED: (
        say("A limited credential of its own, with an end"),
        say(
            "You make a credential for this broker alone, which may do little and ends by itself. It is kept here, sealed."
        ),
    ),
    base.Tier.KEPT: (
        say("A key of yours, kept here sealed"),
        say(
            "You hand over a key that can do what you can do with it, until you revoke it. It is kept here, sealed. "
            "Take this way only where no other works."
        ),
    ),
    base.Tier.AMBIENT: (
        say("What this computer is signed in with"),
        say("It uses what you are signed in with on this computer anyway. Nothing is kept."),
    ),
}
"""What is handed over, in a few words and in plain ones."""
LINKED = (
    say("Your own rights there, by the account you sign in with"),
    say(
        "Each time it is needed, your identity provider is asked for the token that it keeps for your linked account. "
        "Nothing secret is kept here."
    ),
)
"""The same of the one kind that is nobody's tier: the token is another's to keep."""
ELSEWHERE = {"repo": repo_access, "peer": peers}
"""What is no backend: each says what is `listed`, its `kinds`, a `guide`, and does the `check`."""
WHAT = {"repo": say("Private repositories"), "peer": say("Another hub")}


@dataclass(frozen=True, kw_only=True)
class Way:
    """One kind of connection, as one person may use it now."""

    kind: base.Kind
    closed: str | None
    """Why it cannot be used at the moment, in a sentence that says what to do; None where it can."""

    @property
    def short(self) -> str:
        """What is handed over, in a few words."""
        return self._words[0]

    @property
    def plainly(self) -> str:
        """The same in plain sentences."""
        return self._words[1]

    @property
    def _words(self) -> tuple[str, str]:
        linked = self.kind.tier is base.Tier.DELEGATED and not self.kind.secret
        return LINKED if linked else PLAINLY[self.kind.tier]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something that an account can be connected with, and this person's connection there."""

    name: str
    """In our addresses: `/connect/<name>`; a repository host is `repo/<prefix>`, a peer `peer/<name>`."""
    word: str
    """In the table: `backend:<name>`, `repo:<prefix>` or `peer:<name>`."""
    title: str
    what: str
    """What kind of thing it is: "Amazon Web Services"."""
    ways: tuple[Way, ...]
    """Best first."""
    connection: Connection | None
    sort: str = "backend"
    """`backend`, `repo` or `peer`."""
    note: str = ""
    """What else is to be known of it, in a sentence."""

    @property
    def key(self) -> str:
        """Its name among those of its sort."""
        return self.word.partition(":")[2]

    def way(self, kind: str = "") -> Way:
        """The one of this kind; without, the one in use, else the best that is open. Raises NotFound."""
        wanted = kind or (self.connection.kind if self.connection else "")
        found = next((way for way in self.ways if way.kind.name == wanted), None)
        if found is None and kind:
            raise errors.NotFound(say("There is no such way to connect there. Choose one of those on its page."))
        return found or next((way for way in self.ways if way.closed is None), self.ways[0])


def listed(service: Service, person: Person) -> list[Target]:
    """All that this person can connect with, in the operator's order, and what they have connected already. Asks no cloud."""
    theirs = {found.target: found for found in connections.of(service, person)}
    places = [each for each in backends.offered(service) if each.asks_for_account]
    shown = [each for each in places if admission.admits(each.setting.open_to, person) or _word(each) in theirs]
    found = [_of_backend(service, person, each, theirs.get(_word(each))) for each in shown]
    for sort, module in ELSEWHERE.items():
        found += [_elsewhere(service, person, sort, *each, theirs) for each in module.listed(service).items()]
    return [target for target in found if target.ways]


def named(service: Service, person: Person, name: str) -> Target:
    """The one of this name. Raises NotFound, also where it is not for this person."""
    for target in listed(service, person):
        if target.name == name:
            return target
    raise errors.NotFound(
        say("There is nothing of that name to connect an account with. Choose something from the list.")
    )


def connect(service: Service, person: Person, target: Target, kind: str, typed: Mapping[str, str]) -> Connection:
    """See `connections.connect`. Raises BadField, and BadRequest with the reason where this way is closed."""
    way = target.way(kind)
    if way.closed:
        raise errors.BadRequest(way.closed)
    return connections.connect(service, person, target.word, [each.kind for each in target.ways], kind, typed)


def check(service: Service, person: Person, target: Target) -> Connection:
    """See `connections.check`. Raises NotFound where nothing is connected, BadRequest where this way is closed."""
    if target.connection is None:
        raise errors.NotFound(say("Nothing is connected there yet. Connect your account first."))
    if closed := target.way(target.connection.kind).closed:
        raise errors.BadRequest(closed)
    if target.sort in ELSEWHERE:
        return ELSEWHERE[target.sort].check(service, person, target.connection.id)
    found = connections.check(service, person, target.connection.id)
    if found.works:
        menus.want(service, backends.named(service, target.key), found)  # the form is where people go next
    return found


def guide(service: Service, person: Person, target: Target, way: Way) -> base.Guide:
    """What the person is told and does, made of what they have told already. Asks nobody."""
    if target.sort in ELSEWHERE:
        return ELSEWHERE[target.sort].guide(service, person, target.key, way.kind.name)
    known = target.connection if target.connection and target.connection.kind == way.kind.name else None
    subject = target.connection.subject if target.connection else identity.subject(service, person.id, target.word)
    provider = backends.named(service, target.key).provider
    return provider.guide(way.kind.name, identity.trust(service, subject), dict(known.settings) if known else {})


def titles(service: Service, person: Person) -> dict[str, str]:
    """What each of this person's connections is called, by id; those of before as well."""
    known = {_word(each): each.title for each in backends.offered(service)}
    for module in ELSEWHERE.values():
        known |= {module.target_of(name): title for name, title in module.listed(service).items()}
    query = sa.select(Connection.id, Connection.target).where(Connection.person == person.id)
    with service.db.reading() as session:
        return {found: known.get(target, target) for found, target in session.execute(query)}


def _of_backend(service: Service, person: Person, backend: backends.Backend, found: Connection | None) -> Target:
    admitted = admission.refusal(backend.setting.open_to, person)
    return Target(
        name=backend.name,
        word=_word(backend),
        title=backend.title,
        what=backend.provider.title,
        ways=tuple(
            Way(kind=kind, closed=admitted or _closed(service, backend, kind)) for kind in backend.kinds_for(person)
        ),
        connection=found,
        note=admitted or "",
    )


def _elsewhere(
    service: Service, person: Person, sort: str, name: str, title: str, theirs: Mapping[str, Connection]
) -> Target:
    module = ELSEWHERE[sort]
    word = module.target_of(name)
    return Target(
        name=f"{sort}/{name}",
        word=word,
        title=title,
        what=WHAT[sort],
        ways=tuple(Way(kind=kind, closed=None) for kind in module.kinds(service, person, name)),
        connection=theirs.get(word),
        sort=sort,
    )


def _closed(service: Service, backend: backends.Backend, kind: base.Kind) -> str | None:
    """A kind that trades our tokens needs us to be found by the cloud that tests them."""
    if backend.provider.assertion(base.Connection(kind=kind.name), {}) is None or backend.provider.dials_loopback:
        return None
    return probe.refusal(service)


def _word(backend: backends.Backend) -> str:
    return connections.target_of(backend.name)
