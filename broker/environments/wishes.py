"""What a repository asks for, read from its files by repo2docker's rules, and what `uv` cannot give."""

from __future__ import annotations

import os
import re
from pathlib import Path

from broker.environments.programs import Failed, NeedsContainers

FILE_BYTES = 1_000_000


class Wish:
    """What the repository's files ask for. Files are named as they stand below `root`."""

    def __init__(self) -> None:
        self.requirements: Path | None = None
        self.project = False
        self.python: str | None = None
        self.python_from = ""
        self.post_build: Path | None = None
        self.start: Path | None = None


NEEDS = (
    ("Dockerfile", "a container image of its own"),
    ("Project.toml", "Julia"),
    ("JuliaProject.toml", "Julia"),
    ("REQUIRE", "Julia"),
    ("default.nix", "Nix"),
    ("install.R", "R"),
    ("environment.yml", "conda"),
    ("environment.yaml", "conda"),
    ("Pipfile", "Pipenv"),
    ("Pipfile.lock", "Pipenv"),
    ("apt.txt", "system packages"),
)
"""What `uv` cannot build, in the order in which repo2docker looks for it."""


def read_repository(root: Path) -> Wish:
    """What its files ask for, by repo2docker's rules. Raises Failed where that takes more than `uv`, or is unclear.

    `binder/` or `.binder/`, where there is one, holds all the files that count, and a package in the root is then not
    installed; otherwise the root holds them.
    """
    folder = binder_folder(root)
    refuse_what_needs_containers(root, folder)
    return read_python(root, folder)


def read_python(root: Path, folder: Path) -> Wish:
    """What a Python environment needs, the same whichever engine makes it. Raises Failed where a file is unclear."""
    wish = Wish()
    wish.requirements = file_in(root, folder / "requirements.txt")
    wish.post_build = file_in(root, folder / "postBuild")
    wish.start = file_in(root, folder / "start")
    requires_python = None
    if folder == root:
        wish.project, requires_python = read_package(root)
    read_runtime(wish, root, folder, requires_python)
    return wish


def binder_folder(root: Path) -> Path:
    """The folder whose files count. Raises Failed where there are two."""
    here = [name for name in ("binder", ".binder") if (root / name).is_dir()]
    if len(here) == 2:
        raise Failed("The repository has both a binder and a .binder folder; it must have one of them only.")
    return within(root, root / here[0]) if here else root


def refuse_what_needs_containers(root: Path, folder: Path) -> None:
    needs = (*NEEDS, ("DESCRIPTION", "R")) if folder == root else NEEDS
    for name, need in needs:
        file = file_in(root, folder / name)
        if file and (name != "apt.txt" or lines_of(file)):
            raise NeedsContainers(needs_containers(file.relative_to(root), need))
    runtime = file_in(root, folder / "runtime.txt")
    if runtime and runtime_of(runtime)[0].lower() == "r":
        raise NeedsContainers(needs_containers(runtime.relative_to(root), "R"))


def needs_containers(file: Path, need: str) -> str:
    return f"{file} asks for {need}. This backend builds Python environments only: choose one with containers."


def read_package(root: Path) -> tuple[bool, str | None]:
    """Whether the root is a Python package to be installed, and the Pythons it says it works with."""
    import tomllib

    file = file_in(root, root / "pyproject.toml")
    try:
        project = tomllib.loads(text_of(file)) if file else {}
    except tomllib.TOMLDecodeError as fault:
        raise Failed(f"pyproject.toml cannot be read: {fault}.") from None
    package = "project" in project and "build-system" in project
    requires = project.get("project", {}).get("requires-python")
    return package or file_in(root, root / "setup.py") is not None, requires


def read_runtime(wish: Wish, root: Path, folder: Path, requires_python: str | None) -> None:
    """`runtime.txt` names the Python, else the package does, else it is the builder's own."""
    if requires_python:
        wish.python, wish.python_from = requires_python, "pyproject.toml"
    file = file_in(root, folder / "runtime.txt")
    if file is None:
        return
    name, version = runtime_of(file)
    if name.lower() == "r":  # without a date repo2docker takes it for no wish; with one, it is not asked for Python
        return
    if name != "python" or not re.fullmatch(r"\d+(\.\d+){0,2}(-\d{4}-\d\d-\d\d)?|\d{4}-\d\d-\d\d", version):
        raise Failed(
            f"{file.relative_to(root)} must say something like python-3.11; it says {text_of(file).strip()[:60]!r}."
        )
    if asked := re.match(r"\d+\.\d+(\.\d+)?", version):
        wish.python, wish.python_from = asked[0], str(file.relative_to(root))


def runtime_of(file: Path) -> tuple[str, str]:
    """Its name and what follows."""
    name, _, version = text_of(file).strip().partition("-")
    return name, version


def file_in(root: Path, path: Path) -> Path | None:
    """The file, where there is one. Raises Failed where it is a link that leads out of the repository."""
    if not os.path.lexists(path):
        return None
    real = within(root, path)
    if not real.is_file():
        return None
    return real


def within(root: Path, path: Path) -> Path:
    """The real path, which is inside the repository. Raises Failed where it is not."""
    real, top = path.resolve(), root.resolve()
    if real != top and top not in real.parents:
        raise Failed(f"{path.name} is a link that leads out of the repository.")
    return real


def text_of(file: Path) -> str:
    """Its text. Raises Failed where it is larger than any such file need be."""
    if file.stat().st_size > FILE_BYTES:
        raise Failed(f"{file.name} is larger than a megabyte.")
    return file.read_text("utf-8", "replace")


def lines_of(file: Path) -> list[str]:
    """Its lines without comments."""
    return [line for line in (line.partition("#")[0].strip() for line in text_of(file).splitlines()) if line]
