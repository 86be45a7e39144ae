"""Containers of this computer's engine that belong to orders: found and removed by their labels, whoever made them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from providers.base import Tag
from providers.errors import InvalidOrder, ProviderUnavailable

SECONDS = 12  # for one answer: a verb may need three, and has 45 s
MISSING = "A container engine needs the Python package “docker”: install anybinder[container]."
BUSY = (404, 409)  # gone already, or somebody else is removing it


@dataclass(frozen=True, kw_only=True)
class Container:
    """One, as the engine lists it."""

    id: str
    order: str
    labels: dict[str, str]
    name: str

    @property
    def tag(self) -> Tag | None:
        return Tag.from_labels(self.labels)


@dataclass(frozen=True, kw_only=True)
class Containers:
    """Every call asks the engine. Raises ProviderUnavailable where it does not answer; then nothing is known."""

    url: str

    def check(self) -> None:
        """Raises ProviderUnavailable, with what to do, unless the engine answers."""
        with self._client() as client:
            client.ping()

    def everything(self) -> list[Container]:
        """All that carry an order's label, running or not."""
        return self._listed("anybinder-order")

    def of(self, order_id: str) -> list[Container]:
        """Those of one order; at most one, unless something went wrong."""
        return self._listed(f"anybinder-order={order_id}")

    def remove(self, order_id: str) -> None:
        """Kill and remove those of one order. Removing what is gone is success."""
        import docker

        with self._client() as client:
            for each in self._listed(f"anybinder-order={order_id}"):
                try:
                    client.remove_container(each.id, v=True, force=True)
                except docker.errors.APIError as refused:
                    if refused.status_code not in BUSY:
                        raise

    def _listed(self, label: str) -> list[Container]:
        with self._client() as client:
            return [_container(row) for row in client.containers(all=True, filters={"label": label})]

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        try:
            import docker
            from requests.exceptions import RequestException
        except ImportError:
            raise InvalidOrder(MISSING) from None
        try:
            _knock(self.url)
            with contextlib.closing(docker.APIClient(base_url=self.url, version="auto", timeout=SECONDS)) as client:
                yield client
        except (docker.errors.DockerException, RequestException, OSError) as trouble:
            raise ProviderUnavailable(
                f"The container engine does not answer at {self.url}. See that it runs and that this user may open its "
                f"socket, or name another in the backend's engine_url ({_reason(trouble)})."
            ) from trouble


def _knock(url: str) -> None:
    """Raises OSError where nobody listens; the package leaves a socket open then."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as door:
        door.settimeout(SECONDS)
        door.connect(url.removeprefix("unix://"))


def _container(row: dict[str, Any]) -> Container:
    labels = row.get("Labels") or {}
    name = (row.get("Names") or ["/"])[0].lstrip("/") or row["Id"][:12]
    return Container(id=row["Id"], order=labels.get("anybinder-order", ""), labels=labels, name=name)


def _reason(trouble: Exception) -> str:
    """A word or two: their own texts are exceptions in exceptions, and name our inner parts."""
    while trouble.__cause__ or trouble.__context__:
        trouble = trouble.__cause__ or trouble.__context__  # type: ignore[assignment]
    return str(getattr(trouble, "strerror", None) or getattr(trouble, "explanation", None) or type(trouble).__name__)


def usual_url(kind: str) -> str:
    """Where the engine listens unless it was told otherwise."""
    if kind == "docker":
        return "unix:///var/run/docker.sock"
    return (
        "unix:///run/podman/podman.sock" if os.getuid() == 0 else f"unix:///run/user/{os.getuid()}/podman/podman.sock"
    )
