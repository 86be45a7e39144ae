"""Images that lie elsewhere: brought to the engine and taken from it, both by the engine itself.

The engine speaks with registries, so what it is set up with (mirrors, certificates, registries without TLS) holds here too.
Nobody's credentials are used but those that the backend names for its own registry: a stranger's repository can name any
image there is, and shall not get one by the name of the person who runs the broker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from broker.environments import programs
from broker.environments.programs import Failed, Sparse, tell

SECONDS = 600  # between two words of the engine while it transfers; the builder as a whole is bounded by the agent


def image(client: Any, name: str) -> dict[str, Any] | None:
    """What the engine knows of an image that it has."""
    from docker import errors

    try:
        return dict(client.inspect_image(name))
    except errors.ImageNotFound:
        return None


def pull(client: Any, engine: dict[str, Any], name: str) -> None:
    """Bring it here, telling how far it is once a second. Raises Failed with the registry's reason."""
    show = Sparse("fetching")
    sizes: dict[str, tuple[int, int]] = {}
    repository, tag = parts(name)
    for said in words(client.pull, repository, tag, engine=engine, name=name):
        layer, progress = said.get("id"), said.get("progressDetail") or {}
        if layer and progress.get("total") and said.get("status") == "Downloading":
            sizes[layer] = (int(progress.get("current") or 0), int(progress["total"]))
            done, total = (sum(each) // 1_000_000 for each in zip(*sizes.values(), strict=True))
            show(f"Got {done} of {total} MB")


def push(client: Any, engine: dict[str, Any], name: str) -> None:
    """Hand it to its registry. Raises Failed with the registry's reason."""
    repository, tag = parts(name)
    for _said in words(client.push, repository, tag, engine=engine, name=name):
        pass


def words(verb: Any, repository: str, tag: str, *, engine: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """What the engine says while it transfers. Raises Failed: at the start or in the middle, it is the same to us."""
    import requests
    from docker import errors

    try:
        for said in verb(repository, tag=tag, stream=True, decode=True, auth_config=login(engine, name)):
            if "error" in said:
                raise Failed(reason(said["error"]))
            yield said
    except (errors.DockerException, requests.RequestException, OSError) as fault:
        raise Failed(reason(fault)) from None


def login(engine: dict[str, Any], name: str) -> dict[str, Any]:
    """For the backend's own registry what the engine's client configuration has; else none, which is said by an empty one."""
    from docker import auth

    host = (engine.get("registry") or "").partition("/")[0]
    if not host or name.partition("/")[0] != host:
        return {}
    path = programs.docker_config(engine) / "config.json"
    known = auth.load_config(config_path=str(path)) if path.exists() else auth.AuthConfig({})
    return dict(known.resolve_authconfig(host) or {})


def parts(name: str) -> tuple[str, str]:
    """(repository, tag or digest): a colon in the first part is a port."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")


def brought(client: Any, engine: dict[str, Any], name: str) -> str:
    """An image by its digest, which is all that is wanted: found here, or pulled. Raises Failed."""
    if image(client, name) is None:
        tell("fetching", f"Fetching the image {name}")
        try:
            pull(client, engine, name)
        except Failed as fault:
            raise Failed(f"The image {name} could not be fetched: {fault}") from None
    return name


def reason(fault: object) -> str:
    """The engine's words without its frames."""
    text = str(getattr(fault, "explanation", None) or fault)
    text = re.sub(r"^Error response from daemon: |^Error while fetching server API version: ", "", text)
    return re.sub(r"\s+", " ", text)[:500]
