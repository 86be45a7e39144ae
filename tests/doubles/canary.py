"""Looking for a secret where it must not be: every file below a folder, every process's command line and environment.

with canary.watching(TOKEN) as watch: ...      # looks again and again meanwhile
assert watch.found == [] and "git" in watch.seen
assert canary.in_files(home, TOKEN) == []
"""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil

PROC = Path("/proc")


def spellings(secret: str, *users: str) -> list[bytes]:
    """The ways in which it could stand somewhere: as it is, for an address, by Basic with these users, reversed bytes not."""
    pairs = [base64.b64encode(f"{user}:{secret}".encode()) for user in users]
    return [secret.encode(), quote(secret, safe="").encode(), base64.b64encode(secret.encode()), *pairs]


def in_files(folder: Path, secret: str, *users: str) -> list[Path]:
    """Files below this folder that hold it, whatever they are."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and _has(path, spellings(secret, *users))]


def in_processes(secret: str, *users: str, seen: set[str] | None = None) -> list[str]:
    """`name: cmdline` or `name: environ` of each process here that shows it. `seen` learns all names."""
    found = []
    for process in psutil.process_iter(["name"]):
        if seen is not None:
            seen.add(process.info["name"] or "")
        for what in ("cmdline", "environ"):
            if _has(PROC / str(process.pid) / what, spellings(secret, *users)):
                found.append(f"{process.info['name']}: {what}")
    return found


class Watch:
    """What was found so far, and the names of all processes that were looked at."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.seen: set[str] = set()
        self.looks = 0


@contextlib.contextmanager
def watching(secret: str, *users: str) -> Iterator[Watch]:
    """Look at all processes, again and again, until the end."""
    watch, over = Watch(), threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            watch.found += in_processes(secret, *users, seen=watch.seen)
            watch.looks += 1

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def _has(path: Path, spelt: list[bytes]) -> bool:
    try:
        content = path.read_bytes()
    except (OSError, PermissionError):  # it has gone, or is no file to read
        return False
    return any(each in content for each in spelt)
