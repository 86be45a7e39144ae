"""Running git as a child that gets little, may take little, and is gone afterwards with all its own children."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from broker.repos import errors
from providers.sentences import say

LONGEST_OUTPUT = 8_000_000
"""Bytes of output; a list of 100,000 references is about 7 MB."""
LOOK_SECONDS = 0.1
"""How often the clock and the size of what was fetched are looked at."""

INHERITED = (
    *("PATH", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"),
    *("http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"),
)
QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ASKPASS": "true",
    "SSH_ASKPASS": "true",
    "GIT_OPTIONAL_LOCKS": "0",
    "HOME": "/dev/null",  # no .netrc: the passwords in it are not for strangers' hosts
    "XDG_CONFIG_HOME": "/dev/null",
    "LC_ALL": "C",
}
OPTIONS = (
    *("-c", "credential.helper="),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "protocol.version=2"),
    *("-c", "gc.auto=0"),
    *("-c", "maintenance.auto=false"),
    *("-c", "fetch.recurseSubmodules=false"),
    *("-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=20"),
)


@dataclass(frozen=True, kw_only=True)
class Done:
    """How git ended and what it said."""

    code: int
    out: str
    complaint: str
    raw: bytes = b""
    """What it printed, before it was taken for text."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one run may take."""

    seconds: float
    folder: Path | None = None
    """What grows while git works."""
    megabytes: int = 0


def git(arguments: Sequence[str], *, environment: Mapping[str, str], limits: Limits, fds: Sequence[int] = ()) -> Done:
    """Run it. Raises HostTimeout or TooBig as soon as a limit is passed; nothing it started is left then.

    `fds`: descriptors that it and its children inherit.
    """
    until = time.monotonic() + limits.seconds
    process = start(arguments, environment, fds)
    try:
        out, complaint = collect(process, until, limits)
        code = process.wait(timeout=max(0.1, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise errors.HostTimeout from None
    finally:
        end(process)
    return Done(code=code, out=out.decode(errors="replace"), complaint=complaint.decode(errors="replace"), raw=out)


def start(arguments: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]) -> subprocess.Popen[bytes]:
    """git with pipes, in a session of its own so that its children can be ended with it."""
    try:
        return subprocess.Popen(
            ["git", *OPTIONS, *arguments],
            cwd="/",  # in nobody's repository
            env={**inherited(), **QUIET, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=fds,
        )
    except FileNotFoundError:
        raise errors.HostUnavailable("git is not installed where this broker runs. Install it and try again.") from None


def collect(process: subprocess.Popen[bytes], until: float, limits: Limits) -> tuple[bytes, bytes]:
    """Both outputs to their end. Raises HostTimeout or TooBig before that where a limit is passed."""
    read: dict[IO[bytes], bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}  # type: ignore[dict-item]
    with selectors.DefaultSelector() as ready:
        for pipe in read:
            ready.register(pipe, selectors.EVENT_READ)
        while ready.get_map():
            for key, _ in ready.select(LOOK_SECONDS):
                chunk = os.read(key.fd, 65536)
                read[key.fileobj] += chunk  # type: ignore[index]
                if not chunk:
                    ready.unregister(key.fileobj)
            look(until, limits, sum(map(len, read.values())))
    out, complaint = read.values()
    return bytes(out), bytes(complaint)


def look(until: float, limits: Limits, printed: int) -> None:
    """Raises where a limit is passed."""
    if time.monotonic() > until:
        raise errors.HostTimeout
    if printed > LONGEST_OUTPUT:
        raise errors.TooBig(
            say("This repository has more references than this broker can look through. Use a smaller one.")
        )
    if limits.folder and size(limits.folder) > limits.megabytes * 1_000_000:
        raise errors.TooBig


def size(folder: Path) -> int:
    """Bytes in this folder. Files come and go while git works."""
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for found in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += found.lstat().st_size
    return total


def end(process: subprocess.Popen[bytes]) -> None:
    """After this nothing of it runs, and its pipes are closed."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def inherited() -> dict[str, str]:
    """What a child needs of this process's environment: where programs and certificates are, and the proxy."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}  # noqa: TID251 - no setting of ours


@functools.cache
def version() -> tuple[int, int]:
    """Of the git on this computer. Raises HostUnavailable where there is none."""
    done = git(["version"], environment={}, limits=Limits(seconds=10))
    found = re.search(r"(\d+)\.(\d+)", done.out)
    return (int(found[1]), int(found[2])) if found else (0, 0)
