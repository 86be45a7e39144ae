"""`anybinder launch` on a terminal: the bar, the question at Ctrl-C, and what becomes of the session."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.journeys.conftest import COMMAND, Broker
from tests.journeys.test_launch import PLAIN_APP
from tests.waiting import until

Repos = tuple[str, Callable[[str, dict[str, Any]], str]]
CTRL_C = b"\x03"


class Terminal:
    """A command on a terminal of its own, and what it has shown so far."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.near, far = pty.openpty()
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(far)
        self.shown = ""

    def see(self, text: str, seconds: float = 120) -> None:
        """Read until this stands there."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < deadline, f"never saw {text!r}:\n{self.shown}"
            self._read()

    def _read(self) -> None:
        if select.select([self.near], [], [], 0.1)[0]:
            try:
                self.shown += os.read(self.near, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"it ended early:\n{self.shown}") from None

    def type(self, keys: bytes) -> None:
        os.write(self.near, keys)

    def end(self, seconds: float = 60) -> int:
        """Its exit status. What it shows is read to the end, so that it never waits for us and we miss nothing."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self.near], [], [], 0.05)[0]:
                try:
                    self.shown += os.read(self.near, 65536).decode(errors="replace")
                except OSError:
                    break  # nobody has the far end any more
            elif self.process.poll() is not None:
                break
        return self.process.wait(5)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.near)


def take_terminal() -> None:
    """So that a Ctrl-C typed on it becomes a signal, and is heeded: whoever runs us in the background had it ignored."""
    import fcntl
    import signal
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def attended(home: Path, repos: Repos, built_before: dict[str, str]) -> Iterator[tuple[Terminal, Broker]]:
    """A launch that is ready, on a terminal, with a broker of its own."""
    url, make = repos
    make("app", PLAIN_APP)
    alone = Broker(home, {"ANYBINDER_PORT": "0", "TERM": "xterm", **built_before})
    terminal = Terminal([*COMMAND, "launch", f"{url}/app", "--name", "app", "--no-browser"], alone.environment)
    terminal.see("Ctrl-C to stop it or to leave it running.")
    broker = psutil.Process(alone.address["pid"])
    yield terminal, alone
    terminal.close()
    if alone.left():  # asked for nothing, it would start another broker, which waits a minute for its first launch
        alone.run("stop", "app")
        until(lambda: not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE, seconds=30)


def state_of(broker: Broker) -> str:
    return json.loads(broker.run("list", "--json").stdout)["state"]


def test_ctrl_c_then_s_stops(attended: tuple[Terminal, Broker]) -> None:
    terminal, broker = attended
    terminal.type(CTRL_C)
    terminal.see("Stop it, or leave it running?")
    terminal.type(b"s\n")
    assert terminal.end() == 130
    assert "Nothing of it is left." in terminal.shown
    assert broker.left() == []


def test_ctrl_c_then_l_leaves_it_running(attended: tuple[Terminal, Broker]) -> None:
    terminal, broker = attended
    terminal.type(CTRL_C)
    terminal.see("Stop it, or leave it running?")
    terminal.type(b"l\n")
    assert terminal.end() == 0
    assert "anybinder stop app" in terminal.shown
    assert state_of(broker) == "ready"


def test_ctrl_c_twice_stops(attended: tuple[Terminal, Broker]) -> None:
    terminal, broker = attended
    terminal.type(CTRL_C)
    terminal.see("Stop it, or leave it running?")
    terminal.type(CTRL_C)
    assert terminal.end() == 130
    assert broker.left() == []


def test_stopped_elsewhere_it_says_so_and_ends(attended: tuple[Terminal, Broker]) -> None:
    terminal, broker = attended
    broker.run("stop", "app")
    assert terminal.end() == 0
    assert "Nothing of it is left." in terminal.shown


def test_the_address_it_shows_opens_the_session(attended: tuple[Terminal, Broker]) -> None:
    terminal, _ = attended
    (address,) = [word for word in terminal.shown.split() if word.startswith("http://") and "token=" in word]
    assert ".localhost:" in address
