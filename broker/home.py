"""Where the state folder is, without the cost of reading all settings: for commands that only talk to a running broker."""

from __future__ import annotations

import os
from pathlib import Path


def default_home() -> Path:
    """The state folder: `ANYBINDER_HOME`, or the place the operating system keeps such things."""
    if chosen := os.environ.get("ANYBINDER_HOME"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "anybinder"
