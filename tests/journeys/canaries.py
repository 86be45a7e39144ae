"""Looking for secrets wherever a running broker could have left them: files, raw tables, command lines, environments, memory of
the dead."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import psutil

IDS = re.compile(r"(?<![a-z0-9])(?:[a-z2-7]{16}|[a-z2-7]{12}|[0-9a-f]{40,64})(?![a-z0-9])")
"""Orders, launches, commits: places are called the same each time."""
SMALL = 64 * 1024


def spellings(secret: str | bytes) -> set[bytes]:
    """As it is, quoted for an address, in hexadecimal, and in base64 wherever it may begin in what was encoded."""
    raw = secret.encode() if isinstance(secret, str) else secret
    found = {raw, binascii.hexlify(raw), quote(raw, safe="").encode()}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        # what depends on its neighbours is left away: the first letters, and the last
        inner = encoded[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return {each for each in found if len(each) >= 16}


def files(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below, by what it is called here."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield f"{name}/{path.relative_to(folder)}", path


def in_files(name: str, folder: Path, *, since: float = 0) -> Iterator[tuple[str, bytes]]:
    """All that lies in this folder: tables with their logs as raw bytes, sealed columns too.

    What was not touched `since` and is larger than a secret's surroundings ever are (other people's packages) is left away.
    """
    for place, path in files(name, folder):
        try:
            about = path.stat()
            if about.st_size < SMALL or max(about.st_mtime, about.st_ctime) >= since:
                yield place, path.read_bytes()
        except OSError:
            continue  # gone meanwhile


def in_processes() -> Iterator[tuple[str, bytes]]:
    """What every process of this computer was started with, but this one's."""
    for process in psutil.process_iter():
        if process.pid == psutil.Process().pid:
            continue
        folder = Path(f"/proc/{process.pid}")
        try:
            what = called((folder / "cmdline").read_bytes())
            for part in ("cmdline", "environ"):
                yield f"{part} of {what}", (folder / part).read_bytes()
        except OSError:
            continue


def called(line: bytes) -> str:
    words = [word.decode(errors="replace") for word in line.split(b"\0") if word]
    programs = [word for word in words if word.endswith(".py") or not word.startswith("-")]
    return " ".join(Path(word).name for word in programs[:3]) or "nothing"


def found(secrets: Mapping[str, str | bytes], places: Iterable[tuple[str, bytes]]) -> set[tuple[str, str]]:
    """Which secret is found where. Everything that is to be searched is searched for all of them."""
    wanted = {name: spellings(secret) for name, secret in secrets.items()}
    assert all(wanted.values()), "a secret too short to look for"
    return {
        (name, IDS.sub("<id>", place))
        for place, content in places
        for name, words in wanted.items()
        if any(word in content for word in words)
    }
