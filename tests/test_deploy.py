"""`deploy/up` on a fresh clone. Its packages come from the package index, or from uv's cache."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parent.parent
NEEDED = ("broker", "federation", "providers", "deploy", "pyproject.toml", "README.md", "LICENSE")
JUNK = shutil.ignore_patterns("__pycache__", ".venv", "*.egg-info")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that two people have set up at the same moment."""
    folder = tmp_path_factory.mktemp("deploy") / "a clone"
    folder.mkdir()
    for name in NEEDED:
        copy = shutil.copytree if (CLONE / name).is_dir() else shutil.copy
        copy(CLONE / name, folder / name, **({"ignore": JUNK} if (CLONE / name).is_dir() else {}))
    both = [
        subprocess.Popen([folder / "deploy" / "setup"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in "12"
    ]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [stdout for stdout, _ in said] == [b"", b""]
    assert sum(b"Set up in" in stderr for _, stderr in said) == 1
    return folder


def up(clone: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [clone / "deploy" / "up", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]


def test_the_second_time_it_only_runs_the_command(clone):
    ended = up(clone, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("Usage: anybinder")


def test_the_exit_status_is_the_commands_own(clone, tmp_path):
    ended = up(clone, "no-such-command", cwd=tmp_path)
    assert ended.returncode == 2
    assert "No such command" in ended.stderr


def test_options_alone_are_those_of_up(clone):
    ended = up(clone, "--no-browser", "--no-such-option")
    assert ended.returncode == 2
    assert "Usage: anybinder up" in ended.stderr


def test_a_clone_that_was_moved_sets_itself_up_again(clone, tmp_path):
    moved = tmp_path / "moved"
    clone.rename(moved)
    try:
        ended = up(moved, "--help")
        assert ended.returncode == 0, ended.stderr
        assert f"Making {moved}/.venv" in ended.stderr
    finally:
        moved.rename(clone)


def test_a_package_that_is_not_what_was_locked_is_refused(clone, tmp_path):
    lock = clone / "deploy" / "requirements.lock"
    good = lock.read_text()
    lines = good.splitlines(keepends=True)
    first = next(at for at, line in enumerate(lines) if line.startswith("typer=="))
    wrong = f"    --hash=sha256:{'0' * 64}\n"
    lock.write_text("".join([*lines[: first + 1], wrong, *after_hashes(lines[first + 1 :])]))
    shutil.rmtree(clone / ".venv" / "setup")
    try:
        ended = up(clone, "--help")
        assert ended.returncode == 1
        assert "hash" in ended.stderr.lower()
        assert "could not be installed" in ended.stderr
        assert not (clone / ".venv" / "setup" / "clone").exists()
    finally:
        lock.write_text(good)


def after_hashes(lines: list[str]) -> list[str]:
    return lines[next(at for at, line in enumerate(lines) if not line.startswith("    --hash")) :]


def test_without_a_python_it_says_what_to_install(clone, tmp_path):
    for tool in ("sh", "dirname", "cmp"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    shutil.rmtree(clone / ".venv", ignore_errors=True)
    ended = up(clone, "--help", env={"PATH": str(tmp_path)})
    assert ended.returncode == 1
    assert "Python 3.11 or newer" in ended.stderr
