"""Parcels: what a machine fetches from its broker. Each is named by the digest of its content, so it can be nothing else.

They are public: our own programs, and `uv` as it lies beside our interpreter. Nothing in them is anybody's secret.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import platform
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from broker.environments import installing, programs

HERE = Path(__file__).parent
LOCK = HERE.parent / "deploy" / "requirements.lock"  # versions and digests; only a clone has it


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """One file, and what it is called where it is unpacked."""

    name: str
    sha256: str
    content: bytes | None = field(default=None, repr=False)
    """Its bytes, where they are made here; else it is read from `path`."""
    path: Path | None = None


@functools.cache
def named() -> Mapping[str, Parcel]:
    """All there are, by name: the same as long as this process runs. `uv-<machine>` and the locks only where we have them."""
    made = [_made(name, (HERE / name).read_bytes()) for name in ("machine.py", "agent.py", "guest.py")]
    made.append(_made("builder.tar.gz", _builder()))
    if uv := _uv():
        made.append(_lying(f"uv-{platform.machine()}", uv))
    if LOCK.exists():
        made += [_made("builder.lock", LOCK.read_bytes()), _made("uv.lock", _only("uv").encode())]
    return {parcel.name: parcel for parcel in made}


def by_digest(sha256: str) -> Parcel | None:
    """The one of this digest; None where there is none (any more): a broker that was updated has others."""
    return next((parcel for parcel in named().values() if parcel.sha256 == sha256), None)


def digests() -> dict[str, str]:
    """What a machine is told of them."""
    return {parcel.name: parcel.sha256 for parcel in named().values()}


def _made(name: str, content: bytes) -> Parcel:
    return Parcel(name=name, sha256=hashlib.sha256(content).hexdigest(), content=content)


def _lying(name: str, path: Path) -> Parcel:
    with path.open("rb") as file:
        return Parcel(name=name, sha256=hashlib.file_digest(file, "sha256").hexdigest(), path=path)


def _uv() -> Path | None:
    try:
        return Path(installing.uv_command()).resolve()
    except programs.Failed:
        return None


def _only(package: str) -> str:
    """This package's entry of the lock."""
    found = re.search(rf"^{package}==.*?(?=^\S|\Z)", LOCK.read_text(), re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def _builder() -> bytes:
    """The builder as an archive, the same to the byte for the same files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        ours = [HERE / name for name in ("__init__.py", "bringing.py", "machine.py")]
        for path in [*ours, *sorted((HERE / "environments").glob("*.py"))]:
            entry = tarfile.TarInfo(str(path.relative_to(HERE.parent)))
            content = path.read_bytes()
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)
