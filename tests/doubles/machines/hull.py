"""Runs one machine: makes its namespaces, waits for its end or for its power to be cut, and leaves nothing of it.

    python hull.py FOLDER ROOT DEVICE GUEST GATEWAY [NAME=VALUE …]

Its standard input is the power: when that closes, because the double cut it or because whoever started us is dead, the
machine's PID 1 is killed, and with it all that is in its namespaces. Standard library only: it also runs without ours.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
HIERARCHIES = ("cpu", "cpuacct", "memory", "pids", "devices", "freezer", "systemd", "unified")
INSIDE = Path(__file__).with_name("inside.sh")
NETWORK = Path(__file__).with_name("network.py")


def main(folder: Path, root: str, device: str, guest: str, gateway: str, *environment: str) -> int:
    groups = [CGROUPS / name / f"anybinder-{device}" for name in HIERARCHIES if (CGROUPS / name).is_dir()]
    terminal, console = os.openpty()
    try:
        enter(groups)
        shell = started(folder, root, device, console, environment)
        os.close(console)
        threading.Thread(target=keep, args=(terminal, folder / "console"), daemon=True).start()
        init = first_process(shell)
        connect(init, device, guest, gateway)
        (folder / "pid.new").write_text(str(init))
        (folder / "go").touch()
        (folder / "pid.new").rename(folder / "pid")
        wait(shell, init)
    finally:
        leave(groups)
        subprocess.run([sys.executable, "-I", str(NETWORK), device], check=False)
        for name in ("upper", "work", "root"):
            shutil.rmtree(folder / name, ignore_errors=True)
    return 0


def enter(groups: list[Path]) -> None:
    """So that the machine's cgroups begin here."""
    for group in groups:
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(os.getpid()))


def started(
    folder: Path, root: str, device: str, console: int, environment: tuple[str, ...]
) -> subprocess.Popen[bytes]:
    command = [
        *("unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net", "--fork", "--kill-child"),
        *("sh", str(INSIDE), str(folder), root, os.ttyname(console), device, *environment),
    ]
    return subprocess.Popen(command, stdin=console, stdout=console, stderr=console, start_new_session=True)


def first_process(shell: subprocess.Popen[bytes]) -> int:
    """The process that is PID 1 in there: the one child of `unshare`."""
    children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children")
    while shell.poll() is None:
        with contextlib.suppress(OSError):
            if found := children.read_text().split():
                return int(found[0])
        time.sleep(0.005)
    raise SystemExit("the machine did not begin")


def connect(init: int, device: str, guest: str, gateway: str) -> None:
    """Its end of the wire. Set from here: it has no DHCP server to ask."""
    there = ("nsenter", "--target", str(init), "--net", "ip")
    for words in (
        ("ip", "link", "set", f"{device}g", "netns", str(init)),
        (*there, "link", "set", "lo", "up"),
        (*there, "link", "set", f"{device}g", "name", "eth0"),
        (*there, "address", "add", f"{guest}/30", "dev", "eth0"),
        (*there, "link", "set", "eth0", "up"),
        (*there, "route", "add", "default", "via", gateway),
    ):
        subprocess.run(words, check=True)


def wait(shell: subprocess.Popen[bytes], init: int) -> None:
    """Until it has ended, or has no power any more."""
    ended = os.pidfd_open(init)
    ready = select.select([ended, 0], [], [])[0]
    if ended not in ready:
        with contextlib.suppress(ProcessLookupError):
            os.kill(init, signal.SIGKILL)
    shell.wait()
    os.close(ended)


def keep(terminal: int, path: Path) -> None:
    """What is said on the console, until nobody has it open."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while words := os.read(terminal, 65536):
            file.write(words)


def leave(groups: list[Path]) -> None:
    for group in groups:
        with contextlib.suppress(OSError):
            (group.parent / "cgroup.procs").write_text(str(os.getpid()))
        for path in sorted(group.rglob("*/"), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
