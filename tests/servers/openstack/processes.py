"""The processes of one bed: each with a log of its own, all ended at its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import servers
from tests.waiting import until

END_SECONDS = 20


class Processes:
    """Started by name. What is said goes to FOLDER/NAME.out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """In a session of its own, so that its children can be ended with it."""
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                list(command),
                env=dict(environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        servers.keep(self.running[name].pid)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.out"

    def check(self) -> None:
        """Fails with the log of the first that has ended."""
        for name, process in self.running.items():
            assert process.poll() is None, f"{name} has ended:\n{self.log(name).read_text()[-4000:]}"

    def until(self, condition, *, seconds: float, what: str) -> None:
        """Waits while all are alive."""

        def come() -> bool:
            self.check()
            return bool(condition())

        until(come, seconds=seconds, what=f"{what} (see {self.folder})")

    def end(self, *names: str, at_once: bool = False) -> None:
        """These, or all: asked first, and killed where they do not heed it, with their children."""
        ended = [self.running.pop(name) for name in names or tuple(self.running)]
        for process in ended:
            tell(process, signal.SIGKILL if at_once else signal.SIGTERM)
        for process in ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            tell(process, signal.SIGKILL)
            process.wait()
            servers.kept.discard(process.pid)


def tell(process: subprocess.Popen[bytes], told: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, told)
