"""What is left of a machine on this computer."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tests.doubles.machines import Machine, network

KINDS = ("mnt", "net", "pid", "uts", "ipc", "cgroup")


def namespaces(pid: int) -> set[str]:
    """Those of this process that are not ours."""
    return {_namespace(pid, kind) for kind in KINDS} - {_namespace("self", kind) for kind in KINDS}


def _namespace(pid: int | str, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def of(machine: Machine, inner: set[str]) -> list[str]:
    """Of this machine, whose namespaces were these."""
    return named(machine.wire.name, machine.folder, inner)


def named(wire: str, folder: Path, inner: set[str]) -> list[str]:
    """Processes, mounts, devices, rules, cgroups and files."""
    found = [f"process {process.name}" for process in Path("/proc").glob("[0-9]*") if _inside(process, inner)]
    found += [f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]
    found += [
        f"device {device.name}"
        for device in Path("/sys/class/net").glob(f"{wire}*")
        if device.name in (wire, f"{wire}g")
    ]
    found += [f"rule {rule}" for rule in network.rules(wire)]
    found += [f"cgroup {group}" for group in Path("/sys/fs/cgroup").glob(f"*/anybinder-{wire}")]
    found += [f"folder {part}" for part in ("upper", "work", "root") if (folder / part).exists()]
    return found


def _inside(process: Path, inner: set[str]) -> bool:
    with contextlib.suppress(OSError):
        return any(str((process / "ns" / kind).readlink()) in inner for kind in KINDS)
    return False
