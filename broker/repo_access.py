"""Private repositories, opened with the right of the person who asks: their own token, or the one that their identity provider
keeps for them.

It is asked for where a look-up for everybody found nothing, used for that look-up or that one clone, and written down each
time (`uses`). It is shown to the host that it is for and to nobody else.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from broker import addresses, connections, errors, linked, people, repo_hosts, repos
from broker.environments import unlocking
from broker.models import Connection, Launch, Order
from broker.repos import credentials
from broker.repos import errors as repo_errors
from broker.service import Service
from providers import base
from providers import errors as clouds
from providers.sentences import say

LINKED, TOKEN = "linked", "token"


# --- what can be connected ------------------------------------------------------------------------------------------


def target_of(prefix: str) -> str:
    """What a connection with this host is called in the table."""
    return f"repo:{prefix}"


def listed(service: Service) -> dict[str, str]:
    """The hosts that can be connected, by prefix, each with what people call it. In the order in which they are offered."""
    return {prefix: title(service, prefix) for prefix in repo_hosts.HOSTS if _origin(service, prefix)}


def title(service: Service, prefix: str) -> str:
    """`GitHub`, or `GitLab (git.uni.example)` where it is one of the operator's choice."""
    host, url = repo_hosts.HOSTS[prefix], _url(service, prefix)
    if url == repos.providers[prefix].url:
        return host.named
    return f"{host.named} ({urlsplit(url).netloc})"


def kinds(service: Service, person: people.Person, prefix: str) -> tuple[base.Kind, ...]:
    """The ways in which this person can connect this host, the best first; none where they cannot, or it is not known."""
    host = repo_hosts.HOSTS.get(prefix)
    if host is None or person.anonymous or not _origin(service, prefix):
        return ()
    linked = base.Kind(
        name=LINKED, title=say("The %(named)s account that you have linked", named=host.named), tier=base.Tier.DELEGATED
    )
    token = base.Kind(name=TOKEN, title=say("A token that you make for this"), tier=base.Tier.KEPT, fields=host.fields)
    return (linked, token) if _keeper(service, person, prefix) else (token,)


def guide(service: Service, person: people.Person, prefix: str, kind: str) -> base.Guide:
    """What a person is told and does to connect by this kind. Raises NotFound."""
    found = next((each for each in kinds(service, person, prefix) if each.name == kind), None)
    if found is None:
        raise errors.NotFound(say("There is no such way to connect. Choose one of those on the page."))
    host, url = repo_hosts.HOSTS[prefix], _url(service, prefix)
    keeper = _keeper(service, person, prefix)
    return repo_hosts.guide(host, found, url=url, public=repos.providers[prefix].url, signs_in=keeper)


def check(service: Service, person: people.Person, connection_id: str) -> Connection:
    """Ask the host whose it is and what it may do; what it said is kept in the row that comes back.

    A refusal is a finding, not an error. Raises NotFound, SignInAgain, HostUnavailable, RateLimited.
    """
    found = connections.get(service, person, connection_id)
    prefix = found.target.partition(":")[2]
    told: dict[str, Any] = {"checked_at": service.now()}
    try:
        credential = unlocked(service, found, "check")
        with service.repos.asking_with(credential) as asking:
            provider = repos.providers[prefix]
            api = provider.api_url(asking) if isinstance(provider, repos.Forge) else ""
            said = repo_hosts.HOSTS[prefix].who(api, asking)
    except repo_errors.TokenRefused as refusal:
        said = repo_hosts.Found(who="", refused=str(refusal))
    lacking = [each for each in said.findings if each.works is False]
    trouble = said.refused or " ".join(f"It may not do what is needed: {each.name}. {each.fix}" for each in lacking)
    told |= {"who": said.who, "ends_at": said.ends_at, "works": not trouble, "trouble": trouble}
    told["findings"] = connections.told(said.findings)
    connections.note(service, found, **told)
    return connections.get(service, person, connection_id)


# --- opening --------------------------------------------------------------------------------------------------------


class Opener:
    """`repos.credentials.Opener` for one person and one request: what opens a host is got, and written down, once."""

    def __init__(self, service: Service, person: people.Person) -> None:
        self._service, self._person = service, person
        self._got: dict[str, credentials.Credential | None] = {}

    def __call__(self, spec: repos.RepoSpec) -> credentials.Credential | None:
        """Raises TokenRefused, SignInAgain."""
        prefix = prefix_of(self._service, spec)
        if prefix not in self._got:
            self._got[prefix] = credential_for(self._service, self._person, spec)
        return self._got[prefix]


def resolve(
    service: Service, person: people.Person, spec: repos.RepoSpec, opener: Opener | None = None
) -> repos.Resolved:
    """What it is right now, with this person's own right where it is not there for everybody. Nobody's for visitors.

    Whether a repository is private or not there is told to nobody without a right to it. Raises RepoError, SignInAgain.
    """
    try:
        return service.repos.resolve(spec, opener or Opener(service, person))
    except repo_errors.TokenRefused as refusal:
        connection = connections.find(service, person.id, target_of(prefix_of(service, spec)))
        if connection:
            connections.note(service, connection, works=False, trouble=str(refusal))
        raise
    except repo_errors.RefNotFound:
        raise
    except repo_errors.NotFound as refusal:
        raise repo_errors.NotFound(f"{refusal}{_hint(service, person, spec)}") from None


def credential_for(
    service: Service, person: people.Person, spec: repos.RepoSpec, what: str = "look up"
) -> credentials.Credential | None:
    """What opens this repository for this person, if they have connected its host. Each use is written down.

    Nothing for visitors. Raises TokenRefused where it is connected and cannot be had, SignInAgain.
    """
    prefix = prefix_of(service, spec)
    if person.anonymous or not prefix:
        return None
    connection = connections.find(service, person.id, target_of(prefix))
    return unlocked(service, connection, what) if connection else None


def for_clone(service: Service, launch: Launch) -> credentials.Credential | None:
    """What opens the repository of this launch, for the one agent that fetches it; None where everybody may.

    Raises TokenRefused, SignInAgain, errors of the identity provider.
    """
    if launch.repo_connection_id is None:
        return None
    connection = connections.row(service, launch.repo_connection_id)
    if connection is None or connection.person != launch.person:
        raise repo_errors.TokenRefused(
            say("What opened this repository is gone. Connect your account again, then launch again.")
        )
    credential = unlocked(service, connection, "clone", launch.id)
    if not credential.key.opens(launch.repo_url):
        raise repo_errors.TokenRefused(
            say("The repository is not at the host that your account is for. Launch it again.")
        )
    return credential


def still_needed(order: Order) -> bool:
    """Whether an agent that enrols may yet be given what opens the repository.

    The answer to its first request may get lost, so the same agent may ask again. Once it has said anything at all it has
    had the answer, and it is not repeated: whoever steals an agent's words later learns nothing.
    """
    return order.agent_events == 0 and order.server == "none"


def unlocked(
    service: Service, connection: Connection, what: str, launch_id: str | None = None
) -> credentials.Credential:
    """The connection as a credential, its use written down. Raises TokenRefused, SignInAgain, Unsealable."""
    prefix = connection.target.partition(":")[2]
    origin = _origin(service, prefix)
    try:
        if prefix not in repo_hosts.HOSTS or not origin:
            raise repo_errors.TokenRefused(say("Nothing is opened at that host any more. Ask who runs this broker."))
        secret = _secret(service, connection, prefix, launch_id)
    except (errors.BrokerError, clouds.ProviderError) as refusal:
        connections.used(service, connection, what, launch_id=launch_id, outcome=str(refusal))
        raise
    connections.used(service, connection, what, launch_id=launch_id)
    return repo_hosts.credential(
        repo_hosts.HOSTS[prefix],
        origin=origin,
        connection_id=connection.id,
        settings=connection.settings,
        secret=secret,
    )


def prefix_of(service: Service, spec: repos.RepoSpec) -> str:
    """The host that this repository is at, among those that can be connected; empty where it is at none of them."""
    if spec.provider != "git":
        return spec.provider if spec.provider in repo_hosts.HOSTS and _origin(service, spec.provider) else ""
    origin = unlocking.origin_of(spec.repo)
    return next((prefix for prefix in listed(service) if _origin(service, prefix) == origin), "")


# --- within ---------------------------------------------------------------------------------------------------------


def _secret(service: Service, connection: Connection, prefix: str, launch_id: str | None) -> str:
    if connection.kind == TOKEN:
        try:
            return connections.opened(service, connection)
        except clouds.BadCredential as refusal:
            raise repo_errors.TokenRefused(str(refusal)) from None
    person = people.known(service, connection.person)
    if token := linked.token_for(service, person, prefix, launch_id=launch_id):
        return token
    raise repo_errors.TokenRefused(
        say(
            "Your identity provider has no token of yours for %(named)s. Link that account there, sign in "
            "again, and try once more.",
            named=repo_hosts.HOSTS[prefix].named,
        )
    )


def _url(service: Service, prefix: str) -> str:
    """Where this host's pages and clones are; empty where nobody has said."""
    return (service.settings.repo_host(prefix).url or repos.providers[prefix].url).rstrip("/")


def _origin(service: Service, prefix: str) -> str:
    """Where its repositories may be opened with a secret: by https, or on this computer. Empty where they may not."""
    chosen = service.settings.repo_host(prefix)
    url = _url(service, prefix) if prefix in repos.providers else ""
    told = [urlsplit(each) for each in (url, chosen.api) if each]
    return unlocking.origin_of(url) if url and all(map(addresses.takes_secrets, told)) else ""


def _keeper(service: Service, person: people.Person, prefix: str) -> str:
    """The identity provider of this person's that keeps their own tokens of this host; empty where none does."""
    found = (each for each in service.settings.identities if each.name in person.providers and each.linked.get(prefix))
    return next((each.called for each in found), "")


def _hint(service: Service, person: people.Person, spec: repos.RepoSpec) -> str:
    """What somebody could do about a repository that is not there for them."""
    prefix = prefix_of(service, spec)
    if not prefix or person.anonymous or connections.find(service, person.id, target_of(prefix)):
        return ""
    return say(" If it is private, connect your own account at %(title)s first.", title=title(service, prefix))
