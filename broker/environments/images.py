"""Images, kept: what a launch needs is found here, found in the registry, or built once.

An image's name says what decides it: the repository and all of ours that has a say (before the colon), the commit (behind
it). So the same commit is never built twice on one engine, and where backends share a registry, never twice among them.
Images of private repositories stay on the engine that built them, under names that nobody else can know.
Whoever wants what is being built is told every line of that build.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from broker.environments import building, cache, engines, installing, programs, registry
from broker.environments.programs import Failed, tell

BUILDER = 1  # raise it where the same commit would now be built differently
LABEL = "org.anybinder."
LOGS_KEPT = 86400  # seconds; nobody waits for a build that long


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An image by what decides it."""

    name: str
    key: str
    """All of the digest of which the name has a part."""
    base: str
    labels: dict[str, str]
    folder: Path = field(repr=False)
    """Where this computer keeps what it knows of its images: locks, builds' lines, last uses."""

    @property
    def place(self) -> Path:
        """The stem of this image's files there."""
        return self.folder / self.key[:24]


def image_for(spec: dict[str, Any]) -> str:
    """The reference of an image that the engine has. Tells what it does; may take `build_seconds`. Raises Failed.

    May be repeated, and at once by many: one builds. Found here, it costs three requests to the engine.
    """
    engine, content = spec["engine"], spec.get("content") or {}
    with engines.client(engine, seconds=registry.SECONDS) as client:
        if content.get("kind") == "image":
            return registry.brought(client, engine, content["image"])
        wanted = wanted_by(spec, base_digest(client, engine))
        if found(client, wanted, spec):
            return wanted.name
        with turn(wanted) as log:
            if not found(client, wanted, spec):
                with kept(log):
                    make(client, wanted, spec)
        return wanted.name


def wanted_by(spec: dict[str, Any], base: str) -> Wanted:
    """Name, key and labels. The same wherever the same files, base image and versions are."""
    engine = spec["engine"]
    repo = programs.without_credentials(spec["repo_url"])
    content = cache.files_of(spec)
    subdir, kind = spec.get("subdir") or "", engine.get("builder") or "uv"
    versions = [BUILDER, *versions_of("jupyter-repo2docker", "uv")]
    folder = Path(spec["cache"]) / "images"
    decides = [repo, subdir, kind, versions, installing.BASE, base, platform.machine()]
    if spec.get("private"):
        decides.append([own_secret(folder), spec["private"]])
    key = digest([decides, content])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    labels = {"repo": repo, "commit": spec["commit"], "builder": f"{kind} {BUILDER}", "key": key, "created": now}
    name = f"{prefix(engine)}{slug(spec['title'])}-{digest(decides)[:12]}:{digest(content)[:12]}"
    return Wanted(
        name=name,
        key=key,
        base=base,
        labels={LABEL + label: value for label, value in labels.items()},
        folder=folder,
    )


def own_secret(folder: Path) -> str:
    """What only this computer knows. With it in their names, images of private repositories cannot be named by others: not as
    an image to run, and not as one to begin with (`FROM`)."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "private.key"
    if not path.exists():
        fresh = path.with_name(f"private-{os.getpid()}-{secrets.token_hex(4)}.new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # of two who come at once, one is first
        fresh.unlink()
    return path.read_text()


def versions_of(*names: str) -> list[str]:
    """Of packages that we build with. Raises Failed where one is missing."""
    try:
        return [metadata.version(name) for name in names]
    except metadata.PackageNotFoundError as missing:
        raise Failed(f"Images are built with {missing.name}: install anybinder[container] on this backend.") from None


def prefix(engine: dict[str, Any]) -> str:
    """What all of this backend's images begin with: its registry, and a folder there unless it names one itself."""
    place = (engine.get("registry") or "").strip("/")
    return f"{place}/" if "/" in place else f"{place}/anybinder/" if place else "anybinder/"


def slug(title: str) -> str:
    """As much of the title as an image's name may have: lower case, single separators."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-") or "repo"


def digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def base_digest(client: Any, engine: dict[str, Any]) -> str:
    """What the base image is at the moment, fetched where the engine has none: by its registry's name for it, which is the
    same on every computer, else by the engine's own. Raises Failed."""
    name = engine["base_image"]
    if (base := registry.image(client, name)) is None:
        tell("fetching", f"Fetching the base image {name}")
        try:
            registry.pull(client, engine, name)
        except Failed as fault:
            raise Failed(f"The base image {name} is not on this engine and cannot be fetched: {fault}") from None
        base = registry.image(client, name) or {}
    # An image that was pushed elsewhere has that registry's digest too: only that of its own name is the same everywhere.
    told = (one.partition("@") for one in base.get("RepoDigests") or [])
    own = [found for repository, _, found in told if plain(repository) == plain(registry.parts(name)[0])]
    return str(own[0] if own else base.get("Id") or name)


def plain(repository: str) -> str:
    """Without what engines leave out when they say a name back."""
    return repository.removeprefix("docker.io/").removeprefix("library/")


def found(client: Any, wanted: Wanted, spec: dict[str, Any]) -> bool:
    """Whether the engine has it. The label decides: a name has room for a part of the key only."""
    there = registry.image(client, wanted.name)
    labels = ((there or {}).get("Config") or {}).get("Labels") or {}
    if labels.get(f"{LABEL}key") != wanted.key:
        return False
    tell("fetching", f"{cache.version_of(spec)} of {spec['title']} has been built before")
    used(wanted)
    return True


def used(wanted: Wanted) -> None:
    """So that the longest unused can be told: engines do not remember."""
    with contextlib.suppress(OSError):
        wanted.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        wanted.place.with_suffix(".used").write_text(wanted.name)


def make(client: Any, wanted: Wanted, spec: dict[str, Any]) -> None:
    """From the registry where it has it, else built, and then handed to the registry. Raises Failed."""
    shared = bool(spec["engine"].get("registry")) and not spec.get("private")  # a registry shows what it has to others
    if shared and from_registry(client, wanted, spec):
        return
    building.build(spec, name=wanted.name, key=wanted.key, labels=wanted.labels)
    used(wanted)
    if shared:
        to_registry(client, wanted, spec["engine"])


def from_registry(client: Any, wanted: Wanted, spec: dict[str, Any]) -> bool:
    """Whether it came from there. A registry that is out of reach is a line: then it is built."""
    tell("fetching", f"Looking for {wanted.name}")
    try:
        registry.pull(client, spec["engine"], wanted.name)
    except Failed as fault:
        if not re.search("not found|unknown|no such|not exist", str(fault), re.IGNORECASE):
            tell("fetching", f"The registry does not help: {fault}")
        return False
    return found(client, wanted, spec)


def to_registry(client: Any, wanted: Wanted, engine: dict[str, Any]) -> None:
    """The image is here and can be used, whether or not others will find it."""
    tell("pushing", f"Pushing {wanted.name}")
    try:
        registry.push(client, engine, wanted.name)
    except Failed as fault:
        tell("pushing", f"The image stays on this engine only: the registry did not take it ({fault})")


# --- one builds, the others read along ------------------------------------------------------------------------------


@contextlib.contextmanager
def turn(wanted: Wanted) -> Iterator[IO[str]]:
    """Be the only one who makes this image; gives the file for its lines. Who waits tells the other's lines meanwhile, and
    fails as the other fails: a hundred who want what cannot be built shall not try a hundred times."""
    wanted.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = wanted.place.with_suffix(".log")
    with wanted.place.with_suffix(".lock").open("a") as lock, contextlib.closing(Reader(path)) as reader:
        while not cache.alone(lock):
            programs.pause(0.1)
            reader.read_on()
        if reader.waited:
            reader.read_on()
        if reader.failure:
            raise Failed(reader.failure)
        with fresh(path) as log:
            yield log


@contextlib.contextmanager
def fresh(path: Path) -> Iterator[IO[str]]:
    """A new file, so that who still reads the last one reads it to its end. Those of long ago go."""
    for each in path.parent.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):
            if each == path or time.time() - each.stat().st_mtime > LOGS_KEPT:
                each.unlink()
    with path.open("x") as log:
        yield log


@contextlib.contextmanager
def kept(log: IO[str]) -> Iterator[None]:
    """What is told goes to the file as well, and at the end how it ended. Without an end, somebody killed us."""
    programs.copies.append(log)
    try:
        yield
    except Failed as failure:
        programs.copies.remove(log)
        log.write(json.dumps({"ended": time.time(), "failure": programs.without_credentials(str(failure))}) + "\n")
        raise
    finally:
        if log in programs.copies:
            programs.copies.remove(log)


class Reader:
    """Tells another build's lines, from its first to its last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure = ""
        self.waited = False
        self._began = time.time()
        self._file: IO[str] | None = None
        self._rest = ""

    def read_on(self) -> None:
        """Tell what has come since; where that build is over and another has begun, both."""
        if not self.waited:
            self.waited = True
            tell("building", "The same version is being built for another session; this is what that says:")
        if self._file is None or self._replaced():
            self._drain()
            self._open()
        self._drain()

    def close(self) -> None:
        """Read no more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _replaced(self) -> bool:
        try:
            return self._file is not None and os.fstat(self._file.fileno()).st_ino != self.path.stat().st_ino
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        self.failure, self._rest = "", ""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            self._file = self.path.open()

    def _drain(self) -> None:
        if self._file is None:
            return
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in lines:
            said = json.loads(line)
            if "phase" in said:
                tell(said["phase"], said["message"])
            elif said["ended"] >= self._began:  # else a failure from before we came
                self.failure = said["failure"]
