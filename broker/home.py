"""Where the state folder is, and how a private file gets into it, without the cost of reading all settings: for commands
that only talk to a running broker."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path


def default_home() -> Path:
    """The state folder: `ANYBINDER_HOME`, or the place the operating system keeps such things."""
    if chosen := os.environ.get("ANYBINDER_HOME"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "anybinder"


def write_private(path: Path, text: str) -> None:
    """Put this text there, whole or not at all, for the owner only. It is on the disk when this returns."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)  # one left by a kill keeps whatever mode it had
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_private_once(path: Path, text: str) -> None:
    """The same, unless something is there already; of two that write at once one wins, and nobody sees half of it."""
    fresh = path.with_name(f".{path.stem}-{os.getpid()}-{threading.get_ident()}")
    write_private(fresh, text)
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def leave_no_core() -> None:
    """Should this process die, no image of its memory is left behind: every secret in use would stand in it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
