"""The container engine (Docker, or Podman's Docker interface), asked through the Python package `docker`."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from broker.environments.programs import Failed

if TYPE_CHECKING:
    import docker

SECONDS = 60  # for one answer; an engine whose disk is busy may take as long to make or remove a container
MISSING = "Containers need the Python package “docker”: install anybinder[container] on this backend."


@contextlib.contextmanager
def client(engine: dict[str, Any], *, seconds: float | None = SECONDS) -> Iterator[docker.APIClient]:
    """A connection for one thread. Raises Failed, with what to do, where the engine is out of reach or says no."""
    try:
        import docker
        from requests.exceptions import RequestException
    except ImportError:
        raise Failed(MISSING) from None
    try:
        knock(engine["url"])
        with contextlib.closing(docker.APIClient(base_url=engine["url"], version="auto", timeout=seconds)) as opened:
            yield opened
    except docker.errors.APIError as refused:
        raise Failed(f"The container engine refused: {refused.explanation or refused}") from refused
    except (docker.errors.DockerException, RequestException, OSError) as trouble:
        raise Failed(
            f"The container engine does not answer at {engine['url']}. Whoever runs this backend should see that it runs "
            f"and that the broker's user may open its socket ({type(trouble).__name__})."
        ) from trouble


def knock(url: str) -> None:
    """Raises OSError where nobody listens; the package leaves a socket open then."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as door:
        door.settimeout(SECONDS)
        door.connect(url.removeprefix("unix://"))


def name_of(order: str) -> str:
    """What the container of this order is called: one order cannot have two."""
    return f"anybinder-{order}"


def remove(opened: docker.APIClient, order: str) -> None:
    """End and remove every container of this order, whoever made it. Removing what is gone is success."""
    import docker

    for found in opened.containers(all=True, filters={"label": f"anybinder-order={order}"}):
        try:
            opened.remove_container(found["Id"], v=True, force=True)
        except docker.errors.APIError as refused:
            if refused.status_code not in (404, 409):  # gone already, or somebody else is at it
                raise
