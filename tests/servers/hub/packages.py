"""JupyterHub in a virtual environment of its own, and its proxy beside it: they must not meet ours."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
from pathlib import Path

from tests.servers.openstack import packages

FOLDER = packages.CLONE / ".work" / "hub"
LOCK = Path(__file__).with_name("packages.lock")
"""Made by `lock`, of what `packages.in` asks for."""
PROXY = "configurable-http-proxy@5.3.0"
INSTALL_SECONDS = 300


def environment() -> tuple[Path, Path]:
    """The folder of programs of this virtual environment, and the proxy's program; made where missing or of another lock."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(LOCK.read_bytes() + PROXY.encode()).hexdigest()
    with (FOLDER / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        stamp = FOLDER / "made-from"
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            _make()
            stamp.write_text(wanted)
    return FOLDER / "venv" / "bin", FOLDER / "node_modules" / ".bin" / "configurable-http-proxy"


def _make() -> None:
    packages.uv("venv", "--quiet", "--clear", str(FOLDER / "venv"))
    at = ("--python", str(FOLDER / "venv" / "bin" / "python"))
    packages.uv("pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode", *at, str(LOCK))
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(FOLDER), PROXY]
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
