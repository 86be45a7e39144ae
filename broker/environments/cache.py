"""Built environments, kept: the second launch of a commit builds nothing.

An environment is kept in `<cache>/<key>/`: `venv`; `tree`, the working tree after `postBuild`; `home`, what `postBuild` left
in its home; and, written last, `ok.json`. Environments cannot be moved, so they are built where they stay, under a lock. The
key names the commit (or the key of a listing), which stands for all of the files, and everything of ours that has a say.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from broker.environments import fetching, installing, programs, session, wishes
from broker.environments.programs import tell

BUILDER = 1  # raise it where the same commit would now be built differently


def place_of(spec: dict[str, Any]) -> Path:
    """Where this environment is kept."""
    python = [*sys.version_info[:3], sys.platform, os.uname().machine]
    parts = [BUILDER, installing.BASE, files_of(spec), spec.get("subdir", ""), python]
    # Whoever knows a commit can say that a repository of theirs has it: that finds nothing of ours.
    if spec.get("private"):
        parts.append(["private", spec["private"], spec["repo_url"]])
    return Path(spec["cache"]) / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def files_of(spec: dict[str, Any]) -> str:
    """What stands for all files: the commit, or the key of a list of files. No list can pass for a commit."""
    content = spec.get("content") or {}
    return f"files:{content['key']}" if content.get("kind") == "files" else spec["commit"]


def found(spec: dict[str, Any]) -> Path | None:
    """The environment, where it has been built already. Starts no program and asks no network."""
    place = place_of(spec)
    if not (place / "ok.json").exists() or not (place / "venv/bin/python").exists():
        return None
    os.utime(place / "ok.json")  # so that the longest unused can be told
    tell("fetching", f"{version_of(spec)} of {spec['title']} has been built before")
    return place


def version_of(spec: dict[str, Any]) -> str:
    """`Commit 0123456789ab`, or the host's own version."""
    commit = spec["commit"]
    return f"Commit {commit[:12]}" if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", commit) else f"Version {commit[:60]}"


def build(spec: dict[str, Any]) -> Path:
    """Build it, alone: whoever asks for the same meanwhile waits and then finds it. A half-built one is built anew."""
    place = place_of(spec)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_builder(place):
        if ready := found(spec):
            return ready
        if place.exists():
            remove(place)
        place.mkdir(mode=0o700)
        (place / "home").mkdir(mode=0o700)
        began = time.monotonic()
        try:
            record = {"repo": programs.without_credentials(spec["repo_url"]), **build_in(place, spec)}
        except BaseException:
            remove(place)
            raise
        record["seconds"] = round(time.monotonic() - began, 2)
        draft = place / "ok.new"
        draft.write_text(json.dumps(record))
        draft.rename(place / "ok.json")
    return place


def build_in(place: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Fetch, install, run `postBuild`. Returns what a session has to know."""
    fetching.fetch(spec, place / "tree")
    root = wishes.within(place / "tree", place / "tree" / spec.get("subdir", ""))
    wish = wishes.read_repository(root)
    installing.install(wish, root, place, downloads=bool(spec.get("python_downloads")))
    if wish.post_build:
        installing.post_build(wish.post_build, root, place)
    return {
        "start": str(wish.start.relative_to(place / "tree")) if wish.start else None,
        "editable": session.editable_files(place),
    }


@contextlib.contextmanager
def only_builder(place: Path) -> Iterator[None]:
    """Hold the lock of this place; it goes with the process, however that ends."""
    with place.with_suffix(".lock").open("a") as file:
        said = 0.0
        while not alone(file):
            if time.monotonic() - said > 10:
                tell("building", "Waiting for the same build, which another session has begun")
                said = time.monotonic()
            programs.pause(0.1)
        yield


def alone(lock: IO[str]) -> bool:
    """Take this lock, unless somebody has it. It goes with the process, however that ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove(folder: Path) -> None:
    """Remove it, read-only folders inside included."""
    import shutil

    def unlock(function: Callable[[str], Any], path: str, _fault: object) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(path), 0o700)  # noqa: PTH101, PTH120
            os.chmod(path, 0o700, follow_symlinks=False) if not os.path.islink(path) else None  # noqa: PTH101, PTH114
            function(path)

    shutil.rmtree(folder, onerror=unlock)
