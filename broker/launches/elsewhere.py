"""Going on to another backend that the person has named, once theirs has nothing for the launch."""

from __future__ import annotations

from broker import backends, connections, errors, orders, people, placement
from broker.forwarding import choosing
from broker.launches.outcomes import Next
from broker.models import Launch, Phase, State
from broker.service import Service
from providers import errors as clouds

BEFORE_READY = (State.WAITING, State.PLACED, State.AUTHORIZED, State.STARTING, State.FORWARDED)
ENDS_A_BACKEND = (
    errors.NoBackend,
    errors.NoOfferLeft,
    errors.PeersFailed,
    errors.BudgetExceeded,
    errors.CredentialTooShort,
    clouds.QuotaExceeded,
    clouds.BadCredential,
    clouds.PermissionMissing,
    clouds.ProviderUnavailable,  # for as long as a launch waits for a cloud
)
"""What another backend may mend. A build that failed, or a machine that was lost in the middle of one, is none of it."""
FINAL = tuple(each.reason for each in (clouds.QuotaExceeded, clouds.BadCredential, clouds.PermissionMissing))
"""What a cloud says to one offer and would say to every other."""


def go_on(service: Service, launch: Launch, error: Exception) -> Next | None:
    """To the next place that its person named and can use; None where there is none, or something may still be open here."""
    if launch.state not in BEFORE_READY or not isinstance(error, ENDS_A_BACKEND):
        return None
    if not launch.elsewhere or orders.opened(service, launch):
        return None
    person = people.known(service, launch.person)
    for at, name in enumerate(launch.elsewhere):
        left = launch.elsewhere[at + 1 :]
        try:
            if choosing.is_peer(service, name):
                return _to_peer(service, launch, person, name, error, left=left)
            backend = placement.choose(service, person, name)
        except errors.BrokerError:
            continue  # it has closed since, or their account there does not work any more
        return _moved(service, launch, person, backend, error, left=left)
    return None


def _to_peer(
    service: Service, launch: Launch, person: people.Person, name: str, error: Exception, *, left: list[str]
) -> Next:
    """The step that asks there follows at once. Raises NoBackend, NotForPeers where it has closed since."""
    option = choosing.chosen(service, person, name, choosing.of_launch(launch))
    columns = {
        "backend": name,
        "connection_id": option.connection.id if option.connection else None,
        "elsewhere": left,
        "offer": "",
        "idle_minutes": service.settings.idle_minutes,
        "seated_at": None,
        "message": "",
    }
    say = f"{error} It goes on at “{option.known.peer.title}”, as you wished."
    return Next(state=State.WAITING, phase=Phase.WAITING, say=say, columns=columns)


def _moved(
    service: Service,
    launch: Launch,
    person: people.Person,
    backend: backends.Backend,
    error: Exception,
    *,
    left: list[str],
) -> Next:
    """It asks for a seat there as one that has just come, and takes that backend's limits."""
    connection = connections.for_backend(service, person, backend)
    columns = {
        "backend": backend.name,
        "connection_id": connection.id if connection else None,
        "elsewhere": left,
        "offer": "",
        "hours": min(launch.hours, backend.longest(service)),
        "idle_minutes": backend.idle_minutes(service),
        "seated_at": None,
        "message": "",
    }
    say = f"{error} It goes on at “{backend.title}”, as you wished."
    return Next(state=State.WAITING, phase=Phase.WAITING, say=say, columns=columns)
