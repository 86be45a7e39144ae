"""Makes the virtual environment of this clone. `deploy/setup` calls it, with any Python from 3.11 on.

Standard library only. Of two at once the second waits, and finds nothing left to do. What is said goes to stderr.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent
VENV = CLONE / ".venv"
PYTHON = VENV / "bin" / "python"
UV = VENV / "bin" / "uv"
STAMP = VENV / "setup"  # copies of what the environment was made from; `clone` is written last
PROJECT = CLONE / "pyproject.toml"
LOCK = CLONE / "deploy" / "requirements.lock"
TEST_LOCK = CLONE / "deploy" / "requirements-test.lock"

PIP_SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}
"""What a person or a campus has told pip, and the variable by which uv hears it: uv reads no pip configuration."""

NO_PIP = """\
This Python ({python}) cannot make virtual environments with pip. Install what is missing, then repeat the command:
  Debian, Ubuntu:  apt install python3-venv
  elsewhere:       a Python from its makers, or uv, on PATH"""


class SetupFailed(Exception):
    """Carries the sentence for the person."""


def main(arguments: Sequence[str]) -> int:
    try:
        with one_at_a_time():
            set_up(testing="--test" in arguments)
    except SetupFailed as failed:
        say(str(failed))
        return 1
    return 0


def set_up(*, testing: bool) -> None:
    """Leave `.venv` holding exactly what the lock names. One made for testing stays so: its lock is the larger."""
    lock = TEST_LOCK if testing or (STAMP / TEST_LOCK.name).exists() else LOCK
    inputs = (PROJECT, LOCK, TEST_LOCK) if lock is TEST_LOCK else (PROJECT, LOCK)
    if is_current(inputs):
        return
    started = time.monotonic()
    make_environment()
    get_uv()
    install(lock)
    write_stamp(inputs)
    say(f"Set up in {time.monotonic() - started:.1f} s.")


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """The kernel drops this lock when its holder dies, so that none is ever left behind."""
    VENV.mkdir(exist_ok=True)
    with (VENV / "setup.lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("This clone is being set up by another command; waiting for it …")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def is_current(inputs: Sequence[Path]) -> bool:
    with contextlib.suppress(OSError):
        return was_made_here() and all((STAMP / path.name).read_bytes() == path.read_bytes() for path in inputs)
    return False


def was_made_here() -> bool:
    """The programs in an environment name their Python by its full path: a clone that was moved needs a new one."""
    return (STAMP / "clone").read_text().strip() == str(CLONE) and works(PYTHON)


def make_environment() -> None:
    with contextlib.suppress(OSError):
        if was_made_here():
            (STAMP / "clone").unlink()
            return
    say(f"Making {VENV} with Python {sys.version.split()[0]} …")
    for part in ("bin", "include", "lib", "lib64", "setup"):
        found = VENV / part
        found.unlink() if found.is_symlink() else shutil.rmtree(found, ignore_errors=True)
    # Without pip: Debian's Python carries none, and making an environment with it takes seconds that uv does not need.
    if not run([sys.executable, "-I", "-m", "venv", "--without-pip", VENV], quiet=True):
        raise SetupFailed(NO_PIP.format(python=sys.executable))


def get_uv() -> None:
    """The very uv that the lock names, checked by its hash, by whichever installer this computer has."""
    pinned = uv_lines()
    version = pinned.split()[0].removeprefix("uv==")
    if works(UV, "--version", says=f"uv {version}"):
        return
    say(f"Getting uv {version} …")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write(pinned)
        listed.flush()
        wanted = ["install", "--quiet", "--require-hashes", "--no-deps", "--requirement", listed.name]
        if not any(install_with(wanted) for install_with in (outer_pip, own_pip, uv_on_path, pip_from_debian)):
            raise SetupFailed(NO_PIP.format(python=sys.executable))


def uv_lines() -> str:
    found = re.search(r"^uv==.*?(?=^\S)", LOCK.read_text() + "\n.", re.DOTALL | re.MULTILINE)
    if not found:
        raise SetupFailed(f"{LOCK} names no uv. Make it anew with deploy/lock.")
    return found.group()


def outer_pip(wanted: list[str]) -> bool:
    outer = [sys.executable, "-I", "-m", "pip"]
    return run([*outer, "--python", PYTHON, "--version"], quiet=True) and run([*outer, "--python", PYTHON, *wanted])


def own_pip(wanted: list[str]) -> bool:
    return run([PYTHON, "-I", "-m", "ensurepip"], quiet=True) and run([PYTHON, "-I", "-m", "pip", *wanted])


def uv_on_path(wanted: list[str]) -> bool:
    found = shutil.which("uv")
    return bool(found) and run([found, "pip", *wanted, "--python", PYTHON], environment=for_uv())


def pip_from_debian(wanted: list[str]) -> bool:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    package = f"python3.{sys.version_info.minor}-venv"
    say(f"Installing Debian's {package} …")
    get = ["apt-get", "--quiet", "--yes", "--no-install-recommends", "install", package]
    if not run(get, quiet=True) and not (run(["apt-get", "--quiet", "update"], quiet=True) and run(get, quiet=True)):
        return False
    return own_pip(wanted)


def install(lock: Path) -> None:
    """The locked packages with their bytecode, and nothing else; then this clone itself, without the network."""
    pins = lock.read_text()
    say(f"Installing {len(re.findall('^[a-z0-9]', pins, re.MULTILINE))} packages …")
    sync = ["sync", "--require-hashes", "--compile-bytecode", lock]
    itself = ["install", "--offline", "--no-deps", "--no-build-isolation", "--editable", CLONE]
    for command in (sync, itself):
        if not run([UV, "pip", command[0], "--quiet", "--python", PYTHON, *command[1:]], environment=for_uv()):
            raise SetupFailed(
                "The packages could not be installed, for the reason above. Repeat the command after mending it."
            )
    run([PYTHON, "-m", "compileall", "-q", *(CLONE / package for package in ("broker", "federation", "providers"))])


def for_uv() -> dict[str, str]:
    told = {PIP_SETTINGS[name]: " ".join(value.split()) for name, value in pip_settings() if name in PIP_SETTINGS}
    return told | dict(os.environ)  # noqa: TID251 (this runs before there is a broker/settings.py)


def pip_settings() -> list[tuple[str, str]]:
    """pip's own settings, from its files or `PIP_…` variables. None where there is no pip to ask."""
    ask = [sys.executable, "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(ask, capture_output=True, text=True, check=False)
    pairs = (line.partition("=") for line in listed.stdout.splitlines())
    return [(name.rpartition(".")[2], str(ast.literal_eval(value))) for name, _, value in pairs if value]


def write_stamp(inputs: Sequence[Path]) -> None:
    STAMP.mkdir(exist_ok=True)
    for path in inputs:
        shutil.copyfile(path, STAMP / path.name)
    (STAMP / "clone").write_text(f"{CLONE}\n")


def works(program: Path, *arguments: str, says: str = "") -> bool:
    try:
        asked = subprocess.run([program, *(arguments or ["-V"])], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return asked.returncode == 0 and asked.stdout.startswith(says)


def run(command: Sequence[str | Path], *, quiet: bool = False, environment: dict[str, str] | None = None) -> bool:
    """True where it succeeded. Its words go to stderr; it is asked to ask nothing."""
    said = subprocess.DEVNULL if quiet else sys.stderr
    env = (environment or dict(os.environ)) | {"DEBIAN_FRONTEND": "noninteractive"}  # noqa: TID251
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=env, check=False)
    except OSError:
        return False
    return ended.returncode == 0


def say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
