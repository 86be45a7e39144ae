"""Real servers for the tests: where their programs are, how they are got, and who started what.

need.found()      the programs this computer has
need.fetch()      Debian's packages, where we are root on Debian or Ubuntu
keep(pid)         this process is meant to outlive the module that started it; `keep` nothing that a test could end
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

CI = os.environ.get("CI") == "true"
FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
)  # where packagers hide PostgreSQL's programs

kept: set[int] = set()


def keep(pid: int) -> int:
    """Say that this process is shared by several test modules: the check for left-over processes passes it by."""
    kept.add(pid)
    return pid


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something a suite needs on this computer: any one program of each group, and the packages that bring them."""

    title: str
    programs: tuple[tuple[str, ...], ...]
    packages: tuple[str, ...]

    def found(self) -> list[str] | None:
        """Where the programs are, one for each group; None where one is missing."""
        paths = [next(filter(None, map(program, group)), None) for group in self.programs]
        return None if None in paths else [path for path in paths if path]

    def fetch(self) -> bool:
        """Install the packages where that can be done without asking. True where the programs are there afterwards."""
        if self.found() is None and can_install():
            install(self.packages)
        return self.found() is not None


GIT = Need(title="git", programs=(("git",),), packages=("git",))
CLOUD_INIT = Need(title="cloud-init", programs=(("cloud-init",),), packages=("cloud-init",))
POSTGRES = Need(title="PostgreSQL", programs=(("postgres",), ("initdb",)), packages=("postgresql",))
REDIS = Need(title="Redis", programs=(("redis-server", "valkey-server"),), packages=("redis-server",))
CHROMIUM = Need(
    title="Chromium",
    programs=(("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),),
    packages=("chromium", "fonts-dejavu-core"),
)
NPM = Need(title="Node.js with npm", programs=(("node",), ("npm",)), packages=("nodejs", "npm"))


def fetch(needs: Collection[Need]) -> None:
    """All that is missing, in one go: for each go `apt-get` reads all that there is, and settles all that came."""
    wanted = {package for need in needs if need.found() is None for package in need.packages}
    if wanted and can_install():
        install(tuple(sorted(wanted)))


def program(name: str) -> str | None:
    if found := shutil.which(name):
        return found
    hidden = (folder / name for pattern in FOLDERS for folder in sorted(Path("/").glob(pattern[1:]), reverse=True))
    return next((str(path) for path in hidden if os.access(path, os.X_OK)), None)


def can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: tuple[str, ...]) -> None:
    """With Debian's `apt-get`. Servers that come along are not started: the tests start their own."""
    print(f"Installing {', '.join(packages)} …", flush=True)
    if not apt_get("install", *packages):
        refresh()
        apt_get("install", *packages)


@functools.cache
def refresh() -> None:
    apt_get("update")


def apt_get(verb: str, *packages: str) -> bool:
    # In run level 1 Debian's packages start no server.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    command = ["apt-get", "-qq", "--yes", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends", verb, *packages]
    ended = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        print(ended.stderr[-2000:], flush=True)
    return ended.returncode == 0
