"""Making the environment: one resolution by `uv`, then the repository's own `postBuild`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from broker.environments import programs, wishes
from broker.environments.programs import Failed, tell

BASE = ("ipykernel", "ipywidgets", "jupyterlab>=3.6,<5", "notebook>=6.5,<8", "pip>=23")
"""What every environment has besides its own requirements, resolved together with them. The ranges are wide so that a
repository which pins, say, an older JupyterLab gets its own."""


def install(wish: wishes.Wish, root: Path, place: Path, *, downloads: bool) -> None:
    """A virtual environment with the base, the requirements and the package, from one resolution. Raises Failed."""
    uv = Uv(place)
    python = find_python(wish, uv, downloads=downloads)
    status, last = uv.attempt("venv", "--quiet", "--no-project", "--python", python, str(place / "venv"), show=None)
    if status:
        raise Failed(f"No environment can be made with {python}: {programs.last_words(last)}")
    tell("building", "Installing packages")
    for wanted in installations(wish, root):
        # pip's own rule for several indexes: the best version wins, wherever it is
        options = ("--index-strategy", "unsafe-best-match", "--python", str(place / "venv/bin/python"))
        status, last = uv.attempt("pip", "install", *options, *wanted, cwd=root)
        if status:
            raise Failed(f"The packages cannot be installed: {explanation(last)}")


def installations(wish: wishes.Wish, root: Path, *, requirements: str | None = None) -> list[list[str]]:
    """The arguments of each `uv pip install`: one, but where hashes are demanded, which the base has none of.

    `requirements` is another path of the same file: that in an image.
    """
    own = ["-r", requirements or str(wish.requirements)] if wish.requirements else []
    own += [str(root)] if wish.project else []
    if wish.requirements and "--require-hashes" in wishes.text_of(wish.requirements):
        return [own, list(BASE)]
    return [[*own, *BASE]]


def find_python(wish: wishes.Wish, uv: Uv, *, downloads: bool) -> str:
    """Path of a Python as asked for; the builder's own where it will do. Raises Failed and names those that there are."""
    if wish.python is None:
        return os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    if found := uv.python(wish.python):
        return found
    if downloads:
        tell("building", f"Getting Python {wish.python}")
        if uv.attempt("python", "install", wish.python)[0] == 0 and (found := uv.python(wish.python)):
            return found
    have = ", ".join(uv.pythons()) or "none"
    raise Failed(f"{wish.python_from} asks for Python {wish.python}, which this computer does not have. It has {have}.")


class Uv:
    """Runs uv: it keeps its own cache and settings; what it builds sees a home of the build's own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.env = {
            **programs.environment(),
            **programs.variables("UV_"),
            "HOME": str(place / "home"),
            "UV_CACHE_DIR": programs.variable("UV_CACHE_DIR") or str(user_folder("XDG_CACHE_HOME", ".cache") / "uv"),
            "UV_PYTHON_DOWNLOADS": "manual",
            "UV_NO_PROGRESS": "1",
            "XDG_DATA_HOME": str(user_folder("XDG_DATA_HOME", ".local/share")),
        }
        settings = user_folder("XDG_CONFIG_HOME", ".config") / "uv/uv.toml"
        if settings.exists():
            self.env.setdefault("UV_CONFIG_FILE", str(settings))
        self.command = uv_command()

    def attempt(self, *arguments: str, cwd: Path | None = None, show: Any = ...) -> tuple[int, list[str]]:
        """(status, last lines)."""
        shown = programs.Plain("building") if show is ... else show
        return programs.run([self.command, *arguments], env=self.env, cwd=cwd or self.place, show=shown)

    def python(self, request: str) -> str | None:
        """Path of an installed Python that meets the request."""
        found = self._ask("python", "find", "--system", "--no-project", request)
        return found[0] if found else None

    def pythons(self) -> list[str]:
        """Versions of those that there are."""
        listed = " ".join(self._ask("python", "list", "--only-installed"))
        versions = {tuple(map(int, found)) for found in re.findall(r"\bcpython-(\d+)\.(\d+)\.(\d+)", listed)}
        return [".".join(map(str, version)) for version in sorted(versions)]

    def _ask(self, *arguments: str) -> list[str]:
        import subprocess

        # The builder's own Python first, and those that pyenv keeps where no path leads.
        own = os.path.dirname(os.path.realpath(sys.executable))  # noqa: PTH120
        kept = [str(path) for path in sorted(Path("~/.pyenv/versions").expanduser().glob("3.*/bin"))]
        env = {**self.env, "PATH": os.pathsep.join([own, self.env.get("PATH", os.defpath), *kept])}
        env["UV_PYTHON_PREFERENCE"] = "system"
        asked = subprocess.run(
            [self.command, *arguments], env=env, cwd=self.place, capture_output=True, text=True, check=False
        )
        return asked.stdout.splitlines() if asked.returncode == 0 else []


def uv_command() -> str:
    """Path of `uv`: beside our own interpreter, as the package of that name installs it, else on PATH."""
    import shutil

    beside = shutil.which("uv", path=os.path.dirname(sys.executable))  # noqa: PTH120
    command = beside or shutil.which("uv")
    if command is None:
        raise Failed("The command uv is missing on the computer that builds.")
    return command


def user_folder(variable: str, default: str) -> Path:
    return Path(programs.variable(variable) or Path.home() / default)


def post_build(script: Path, root: Path, place: Path) -> None:
    """Run it in the working tree, as repo2docker does. Raises Failed with its last lines."""
    tell("building", "Running postBuild")
    env = {
        **programs.environment(),
        **programs.repository_environment(place / "venv", root),
        "HOME": str(place / "home"),
    }
    try:
        status, last = programs.run(programs.script(script), env=env, cwd=root, show=programs.Plain("building"))
    except OSError as fault:
        raise Failed(f"postBuild cannot be run: {fault.strerror}.") from None
    if status:
        raise Failed(f"postBuild failed (exit status {status}). Its last lines: {' / '.join(last[-8:])}")


def explanation(lines: list[str]) -> str:
    """uv's account of why, without its frame and what it said before."""
    bare = [re.sub(r"[\u2500-\u25ff\u00d7]+", " ", line).strip() for line in lines]
    start = next((at for at, line in enumerate(bare) if line.startswith(("error:", "No solution", "Failed"))), 0)
    text = re.sub(r"\s+", " ", " ".join(bare[start:])).removeprefix("error: ")
    return text[:1500]
