"""A machine of the fake cloud: it boots by starting the real agent as a process, and takes all of it along when it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PYTHON = (sys.executable, "-I", "-S")  # isolated and without site packages: starts in half the time
BUILDER = str(Path(__file__).with_name("build.py"))
KILL_PASSES = 2000
CONSOLE_BYTES = 64 * 1024


class Machine:
    """Its disk is a folder, its console a file in it. Methods may be called in any order, `boot` once."""

    def __init__(self, name: str, folder: Path) -> None:
        self._mark = f"{folder.name}.{name}"
        self._home, self._runtime, self._cache = folder / "m" / name, folder / "r" / name, folder / "cache"
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self, told: Mapping[str, Any], options: tuple[str, ...], ended: Callable[[int], None]) -> None:
        """Start the agent with what it was told. `ended` is called with its exit status, unless we end it."""
        for folder in (self._home, self._runtime, self._cache):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        boot = self._home / "boot.json"
        boot.touch(mode=0o600)
        self._mark = told["config"].get("order", self._mark)  # the agent marks all that it starts with its order
        boot.write_text(json.dumps({**told["config"], **self._surroundings(told["builder"], options)}))
        from providers import processes  # late: the cloud is up sooner without it

        with self._console.open("ab") as console:
            self._process = subprocess.Popen(
                [*PYTHON, told["agent"], str(boot)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd=self._home,
                env=processes.environment(self._mark),
                start_new_session=True,
            )
        threading.Thread(target=self._wait, args=(self._process, ended), daemon=True).start()

    def _surroundings(self, builder: list[str] | None, options: tuple[str, ...]) -> dict[str, Any]:
        folders = {"home": str(self._home), "runtime": str(self._runtime), "cache": str(self._cache)}
        return {**folders, "builder": builder or [*PYTHON, BUILDER, *options]}

    @property
    def _console(self) -> Path:
        return self._home / "console.log"

    def _wait(self, process: subprocess.Popen[bytes], ended: Callable[[int], None]) -> None:
        status = process.wait()
        if self._process is process:
            ended(status)

    @property
    def pid(self) -> int | None:
        """The agent's process; None before it has started and after its end."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def console(self) -> str:
        """The end of what the agent has written."""
        if not self._console.exists():
            return ""
        return self._console.read_bytes()[-CONSOLE_BYTES:].decode(errors="replace")

    def cut_power(self) -> None:
        """Kill everything on it, at once. Its disk stays."""
        process, self._process = self._process, None
        if process is None:
            return
        from providers import processes

        root = processes.living(process.pid) if process.poll() is None else None
        for _ in range(KILL_PASSES):
            if processes.kill(self._mark, root):
                break
            threading.Event().wait(0.002)
        process.wait()

    def erase(self) -> None:
        """Cut the power and remove its disk."""
        self.cut_power()
        for folder in (self._home, self._runtime):
            shutil.rmtree(folder, ignore_errors=True)
