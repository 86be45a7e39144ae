"""What is kept between launches on one computer, images and built environments: what there is, and removing it.

Reads what `images` and `cache` have written, and asks the engine. Needs no running broker; several may look at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from broker.environments import cache, engines, fetching
from broker.environments.images import LABEL
from broker.environments.programs import Failed

JUST_USED = 60  # seconds from the moment that one is found until its server is seen to use it


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One image of an engine, or one environment of the process engine's cache."""

    kind: str
    """`image` or `environment`."""
    name: str
    repo: str
    commit: str
    key: str
    size: int
    """Bytes. An image's layers count for each that has them, though they are there once."""
    made_at: datetime
    used_at: datetime
    in_use: str
    """Why it cannot be removed now; empty where it can."""


def everything(folder: Path, engine: dict[str, Any] | None) -> list[Kept]:
    """What a backend keeps, longest unused first. Raises Failed where its engine does not answer."""
    found = [*environments(folder), *(images(folder, engine) if engine else [])]
    return sorted(found, key=lambda one: one.used_at)


def remove(one: Kept, folder: Path, engine: dict[str, Any] | None) -> None:
    """Remove it. What is gone already is success. Raises Failed where it is in use."""
    if one.in_use:
        raise Failed(f"{one.name} {one.in_use}")
    if one.kind == "environment":
        remove_environment(folder / one.name)
    elif engine:
        remove_image(one, folder, engine)


# --- images ---------------------------------------------------------------------------------------------------------


def images(folder: Path, engine: dict[str, Any]) -> Iterator[Kept]:
    """Those of the engine that a builder of ours has made, whichever broker's."""
    with engines.client(engine) as client:
        taken: dict[str, int] = {}
        for container in client.containers(all=True):
            taken[container["ImageID"]] = taken.get(container["ImageID"], 0) + 1
        for row in client.images(filters={"label": f"{LABEL}key"}):
            number = taken.get(row["Id"], 0)
            yield image(row, folder, f"is in use by {sessions(number)}." if number else "")


def image(row: dict[str, Any], folder: Path, in_use: str) -> Kept:
    labels = row.get("Labels") or {}
    key = str(labels[f"{LABEL}key"])
    made_at = datetime.fromtimestamp(row["Created"], UTC)
    names = [name for name in row.get("RepoTags") or [] if name != "<none>:<none>"]
    return Kept(
        kind="image",
        name=names[0] if names else row["Id"].removeprefix("sha256:")[:24],
        repo=labels.get(f"{LABEL}repo", ""),
        commit=labels.get(f"{LABEL}commit", ""),
        key=key,
        size=int(row["Size"]),
        made_at=made_at,
        used_at=last_use(folder, key) or made_at,
        in_use=in_use,
    )


def sessions(number: int) -> str:
    return "a session" if number == 1 else f"{number} sessions"


def last_use(folder: Path, key: str) -> datetime | None:
    """When a launch last found it, as far as this backend's cache knows."""
    with contextlib.suppress(OSError):
        return datetime.fromtimestamp((folder / "images" / f"{key[:24]}.used").stat().st_mtime, UTC)
    return None


def remove_image(one: Kept, folder: Path, engine: dict[str, Any]) -> None:
    import docker

    with engines.client(engine) as client:
        try:
            client.remove_image(one.name)
        except docker.errors.ImageNotFound:
            pass
        except docker.errors.APIError as refused:
            if refused.status_code != 409:
                raise
            raise Failed(f"{one.name} is in use.") from None
    for suffix in (".used", ".log"):
        (folder / "images" / one.key[:24]).with_suffix(suffix).unlink(missing_ok=True)


# --- environments ---------------------------------------------------------------------------------------------------


def environments(folder: Path) -> Iterator[Kept]:
    """Those in the cache; one without its last file was never finished."""
    with contextlib.suppress(FileNotFoundError):
        running = places_in_use(folder)
        for place in folder.iterdir():
            if re.fullmatch("[0-9a-f]{24}", place.name) and place.is_dir():
                yield environment(place, running)


def environment(place: Path, running: dict[Path, int]) -> Kept:
    made, record = place.stat().st_mtime, {}
    used = made
    with contextlib.suppress(OSError, ValueError):
        record = json.loads((place / "ok.json").read_text())
        used = (place / "ok.json").stat().st_mtime
    return Kept(
        kind="environment",
        name=place.name,
        repo=str(record.get("repo", "")) or "(not finished)",
        commit=head(place / "tree"),
        key=place.name,
        size=fetching.folder_size(place),
        made_at=datetime.fromtimestamp(made, UTC),
        used_at=datetime.fromtimestamp(used, UTC),
        in_use=why_in_use(place, running.get(place, 0), used if record else 0),
    )


def why_in_use(place: Path, number: int, used: float) -> str:
    if number:
        return f"is in use by {sessions(number)}."
    if not is_free(place):
        return "is being built."
    if time.time() - used < JUST_USED:
        return "was just given to a session, which is starting. Try again in a minute."
    return ""


def head(tree: Path) -> str:
    """The commit that is checked out; empty where the files came otherwise."""
    with contextlib.suppress(OSError):
        found = (tree / ".git/HEAD").read_text().strip()
        return found if re.fullmatch("[0-9a-f]{40,64}", found) else ""
    return ""


def places_in_use(folder: Path) -> dict[Path, int]:
    """Environments that a server of this user's runs from: it was told where Jupyter's files of the environment are."""
    import psutil

    found: dict[Path, int] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            told = process.environ().get("JUPYTER_PATH", "")
            place = Path(told).parent.parent.parent
            if place.parent == folder and "ANYBINDER_SOCKET" in process.environ():
                leader = os.getsid(process.pid)
                found[place] = found.get(place, 0) + (leader == process.pid or place not in found)
    return found


def is_free(place: Path) -> bool:
    """Whether nobody is building it."""
    with contextlib.suppress(FileNotFoundError), place.with_suffix(".lock").open("r") as lock:
        return cache.alone(lock)
    return True


def remove_environment(place: Path) -> None:
    """Under the builders' lock: nobody builds or finds it half removed, as its last file goes first."""
    with place.with_suffix(".lock").open("a") as lock:
        if not cache.alone(lock):
            raise Failed(f"{place.name} is being built.")
        (place / "ok.json").unlink(missing_ok=True)
        if place.exists():
            cache.remove(place)
