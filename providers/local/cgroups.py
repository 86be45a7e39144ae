"""Control groups, where this computer permits them: a memory limit, a limit on processes, and who belongs together.

Version 2 where a part of the tree is ours (systemd user sessions delegate one), version 1 as root. Elsewhere there are
none, and the instance goes without.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
LIMITS_V2 = {"memory": "memory.max", "pids": "pids.max"}
LIMITS_V1 = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}


def make(name: str, limits: dict[str, int]) -> list[Path]:
    """Make what may be made, with the limits it takes; the groups to put the first process in."""
    return [folder for folder in _paths(name) if _made(folder, limits)]


def remove(folders: list[Path]) -> None:
    """Remove the groups that are empty. Removing what is gone is success."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _made(folder: Path, limits: dict[str, int]) -> bool:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return False
    for kind, value in limits.items():
        for name in {LIMITS_V1[kind], LIMITS_V2[kind]}:
            with contextlib.suppress(OSError):
                (folder / name).write_text(str(value))
    return True


def _paths(name: str) -> list[Path]:
    ours = _memberships()
    found = [ROOT / kind / ours[kind].lstrip("/") / name for kind in LIMITS_V1 if kind in ours]
    if not found and (ROOT / "cgroup.controllers").exists() and "" in ours:
        found = [ROOT / ours[""].lstrip("/") / name]
    return found


def _memberships() -> dict[str, str]:
    """Controller to our own group; the empty name is version 2's. Lines look like `4:memory:/user.slice`."""
    with contextlib.suppress(OSError):
        lines = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
        return {kind: path for _, kinds, path in lines for kind in kinds.split(",")}
    return {}
