"""The packages of OpenStack, in a virtual environment of their own: they must not meet ours."""

from __future__ import annotations

import fcntl
import hashlib
import runpy
import subprocess
from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent.parent.parent
FOLDER = CLONE / ".work" / "openstack"
LOCK = Path(__file__).with_name("packages.lock")
"""Made by `lock`, of what `packages.in` asks for."""
INSTALL_SECONDS = 300


def environment() -> Path:
    """The Python of this virtual environment, made where it is missing or of another lock."""
    folder = FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        stamp = folder / "made-from"
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            uv("venv", "--quiet", "--clear", str(folder / "venv"))
            at = ("--python", str(folder / "venv" / "bin" / "python"))
            uv("pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode", *at, str(LOCK))
            stamp.write_text(wanted)
    return folder / "venv" / "bin" / "python"


def uv(*words: str) -> None:
    told = runpy.run_path(str(CLONE / "deploy" / "setup.py"))["for_uv"]()  # where packages come from here
    ended = subprocess.run(
        [CLONE / ".venv" / "bin" / "uv", *words],
        env=told,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
