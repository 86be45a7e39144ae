"""Running other programs, with little of our own environment, and telling the agent what they say."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

MARK = "ANYBINDER_INSTANCE"  # the agent's: whoever sweeps after a crash finds the order's processes by it
PASSED_ON = (MARK, "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH")
NETWORK = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO"),
    *("GIT_SSL_CAPATH", "NODE_EXTRA_CA_CERTS", "http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
)


class Failed(Exception):
    """The build has failed; the sentence is for the person."""


class NeedsContainers(Failed):
    """The same: with containers it could be built."""


copies: list[TextIO] = []
"""Files that get what the agent is told, so that others who want the same can read along."""


proxies: dict[str, str] = {}
"""Variables that name the only way to the network, while there is one (`outward`)."""


def tell(phase: str, message: str, **more: Any) -> None:
    """One line for the agent. Credentials in URLs are blanked here, whoever says them."""
    line = json.dumps({"phase": phase, "message": without_credentials(message), **more})
    print(line, flush=True)
    for copy in copies:
        copy.write(f"{line}\n")
        copy.flush()


def without_credentials(text: str) -> str:
    """The same text with what stands before an @ in URLs blanked."""
    return re.sub(r"(\w://)[^/\s@]+@", r"\1***@", text)


def environment() -> dict[str, str]:
    """What other programs see of our own environment: where programs are, the language, and the way to the network."""
    return {name: os.environ[name] for name in (*PASSED_ON, *NETWORK) if name in os.environ} | proxies


def variable(name: str, default: str = "") -> str:
    """One variable of ours; the only way in which the builder reads them."""
    return os.environ.get(name) or default


def variables(prefix: str) -> dict[str, str]:
    """All of ours that begin so."""
    return {name: value for name, value in os.environ.items() if name.startswith(prefix)}


def docker_config(engine: dict[str, Any]) -> Path:
    """The folder of the engine's client configuration: logins and plugins."""
    return Path(engine.get("config") or variable("DOCKER_CONFIG") or Path.home() / ".docker")


class Plain:
    """Passes every line on."""

    def __init__(self, phase: str) -> None:
        self.phase = phase

    def __call__(self, line: str) -> None:
        tell(self.phase, line)


class Sparse(Plain):
    """Passes on one line a second: progress bars."""

    _last = 0.0

    def __call__(self, line: str) -> None:
        if time.monotonic() - self._last >= 1:
            self._last = time.monotonic()
            super().__call__(line)


def run(
    argv: list[str],
    *,
    env: dict[str, str],
    cwd: Path,
    show: Callable[[str], None] | None,
    check: Callable[[], None] | None = None,
    fds: Sequence[int] = (),
) -> tuple[int, list[str]]:
    """Run to the end: (exit status, the last lines of its output). `check` is called four times a second, may raise.

    What it raises ends the program and all in its process group.
    """
    import select
    import signal
    import subprocess

    process = subprocess.Popen(
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
        pass_fds=fds,
        preexec_fn=die_with_builder(),
    )
    assert process.stdout is not None  # noqa: S101 -- for the type checker
    output, last, rest = process.stdout.fileno(), [], b""
    try:
        while True:
            if check:
                check()
            if not select.select([output], [], [], 0.25)[0]:
                if process.poll() is not None:  # a daemon it left may hold the pipe for ever
                    break
                continue
            data = os.read(output, 65536)
            if not data:
                break
            *whole, rest = re.split(rb"[\r\n]+", (rest + data)[-1_000_000:])
            for line in (piece.decode("utf-8", "replace").rstrip() for piece in whole):
                last = [*last[-39:], line] if line else last
                if line and show:
                    show(line)
        if rest.strip():
            last.append(rest.decode("utf-8", "replace"))
        return process.wait(), [without_credentials(line)[:500] for line in last]
    finally:
        process.stdout.close()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def pause(seconds: float) -> None:
    """Wait; only for what the builder as a whole waits for."""
    import select  # `time.sleep` is barred from this package, for good reason: but here is no step to come back to

    select.select([], [], [], seconds)


def die_with_builder() -> Callable[[], object] | None:
    """For a child to do before its program: ask to be killed when the builder dies, where the system can (Linux).

    The builder's lock goes with it: what it started must not go on writing under the next one's hands.
    """
    import ctypes
    import signal

    if not sys.platform.startswith("linux"):
        return None
    control = ctypes.CDLL(None).prctl
    return lambda: control(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG


def last_words(lines: list[str]) -> str:
    """The last line that says something, without git's `fatal:`."""
    said = [line for line in lines if line.strip()]
    fatal = [line for line in said if line.startswith(("fatal:", "error:", "remote:"))]
    return re.sub(r"^\w+: ", "", (fatal or said or [""])[-1])


def script(path: Path) -> list[str]:
    """How to run a script of the repository, executable or not."""
    path.chmod(path.stat().st_mode | 0o700)
    with path.open("rb") as file:
        return [str(path)] if file.read(4).startswith((b"#!", b"\x7fELF")) else ["/bin/sh", str(path)]


def repository_environment(env: Path, root: Path) -> dict[str, str]:
    """The variables by which scripts written for repo2docker find their way."""
    return {
        "PATH": f"{env / 'bin'}{os.pathsep}{variable('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(env),
        "REPO_DIR": str(root),
        "NB_PYTHON_PREFIX": str(env),
        "KERNEL_PYTHON_PREFIX": str(env),
    }
