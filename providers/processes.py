"""Processes that belong to one instance: started detached, found again by a mark, ended to the last.

The mark is the environment variable `ANYBINDER_INSTANCE`, which children inherit. A process can wash it off; so its
descent, its session and its control group are looked at as well, wherever the computer shows them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

MARK = "ANYBINDER_INSTANCE"

HANDED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
HANDED_ON_PREFIXES = ("LC_", "SSL_CERT_", "GIT_SSL_", "PIP_", "UV_")
EXEC_LOOKS = 30  # a millisecond apart: an exec takes some, when the computer is busy and the program is on a slow disk
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")

# The agent must be nobody's child here, or it would stay a zombie when this process lives on and be killed with it
# when it does not; and it must be in its control groups before it runs its first line, also if we are killed meanwhile.
DETACH = """while [ "$1" != -- ]; do { echo $$ > "$1/cgroup.procs"; } 2>/dev/null; shift; done; shift; "$@" &"""


def environment(mark: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a started agent sees of ours: where programs and certificates are, the proxies, and its mark. No setting."""
    ours = {name: value for name, value in os.environ.items() if _is_handed_on(name)}  # noqa: TID251 - handed on, not read
    return {**ours, **(extra or {}), MARK: mark}


def _is_handed_on(name: str) -> bool:
    return name in HANDED_ON or name.startswith(HANDED_ON_PREFIXES) or name.lower() in PROXIES


def start_detached(
    argv: Sequence[str], *, mark: str, log: Path, extra: Mapping[str, str] | None = None, cgroups: Sequence[Path] = ()
) -> None:
    """Start it in a session of its own, without input, its output appended to `log`. Returns once it is forked."""
    script = ["/bin/sh", "-c", DETACH, "sh", *map(str, cgroups), "--", *argv]
    with log.open("ab") as output:
        subprocess.run(
            script,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(mark, extra),
            cwd=log.parent,
            start_new_session=True,
            check=True,
            timeout=10,
        )


def living(pid: int) -> psutil.Process | None:
    """The process of this number, where one lives."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid)
    return None


def marked(mark: str) -> list[psutil.Process]:
    """Every living process that carries this mark. Zombies carry none: they own nothing and run nothing."""
    return [process for process, found in everyone_marked() if found == mark]


def everyone_marked() -> list[tuple[psutil.Process, str]]:
    """Every living process that carries a mark and that we may look at, with its mark."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if mark := mark_of(pid):
                found.append((psutil.Process(pid), mark))
    return found


def mark_of(pid: int) -> str | None:
    """The mark this process carries; None where it has none, is gone, or is not ours to look at."""
    folder = Path(f"/proc/{pid}")
    try:
        if not folder.exists():
            return psutil.Process(pid).environ().get(MARK)
        raw = _environ(folder)
    except (OSError, psutil.Error):
        return None
    prefix = f"{MARK}=".encode()
    return next((line[len(prefix) :].decode() for line in raw.split(b"\0") if line.startswith(prefix)), None)


def _environ(folder: Path) -> bytes:
    """Raises OSError where there is none: a thread of the kernel, a zombie, or not ours to look at.

    A process that is just exchanging its program (exec) shows neither environment nor command line: look again.
    """
    for _ in range(EXEC_LOOKS):
        if raw := (folder / "environ").read_bytes():
            return raw
        if (folder / "cmdline").read_bytes() or not (folder / "exe").readlink():
            return (folder / "environ").read_bytes()  # it may have come between our two looks
        threading.Event().wait(0.001)
    return b""


def was_told(process: psutil.Process, text: str) -> bool:
    """Whether this is in its command line."""
    try:
        return text in " ".join(process.cmdline())
    except psutil.Error:
        return False


def belonging(mark: str, root: psutil.Process | None = None, cgroups: Iterable[Path] = ()) -> set[psutil.Process]:
    """Every living process with this mark, below `root`, in its session or in these control groups, without `root`."""
    found = set(marked(mark))
    for folder in cgroups:
        found |= _in_cgroup(folder)
    if root is not None:
        with contextlib.suppress(psutil.Error, OSError):
            found |= set(root.children(recursive=True)) | _in_session(os.getsid(root.pid))
    return {process for process in found if process != root and process.pid != os.getpid() and is_alive(process)}


def _in_cgroup(folder: Path) -> set[psutil.Process]:
    found = set()
    with contextlib.suppress(OSError):
        for line in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(psutil.Error):
                found.add(psutil.Process(int(line)))
    return found


def _in_session(session: int) -> set[psutil.Process]:
    if session == os.getsid(0):
        return set()  # started without a session of its own: ours is not to be ended
    found = set()
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(pid) == session:
                found.add(psutil.Process(pid))
    return found


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs: not ended, not replaced by another of the same number, not a zombie."""
    with contextlib.suppress(psutil.Error, ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # where we are process 1, the dead of others wait for us
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def kill(mark: str, root: psutil.Process | None = None, cgroups: Sequence[Path] = (), passes: int = 20) -> bool:
    """Kill all that belongs together; True once nothing of it lives. Does not wait: call again where it says False.

    `root` is frozen first and killed last: its descendants' reaper, it keeps those in sight that detach themselves.
    """
    _send(root, signal.SIGSTOP)
    for _ in range(passes):
        found = belonging(mark, root, cgroups)
        if not found:
            break
        for process in found:
            _send(process, signal.SIGKILL)
    _send(root, signal.SIGKILL)
    return not belonging(mark, None, cgroups) and not (root is not None and is_alive(root))


def _send(process: psutil.Process | None, number: int) -> None:
    """psutil compares start times first, so that a number used again is never hit."""
    if process is not None:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
