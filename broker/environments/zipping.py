"""A zip that is written while its files are read, to somebody who cannot be asked to go back.

Names become such as Windows can have. What is left out, cut or called otherwise is said in a file of the zip's own, its last.
"""

from __future__ import annotations

import io
import re
import stat
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

PIECE = 256 * 1024
LEVEL = 1  # a third of the time of zlib's usual level, for a tenth more bytes
NOTES = "ANYBINDER-LEFT-OUT.txt"
NOTES_MOST = 10_000  # lines
FIRST_YEAR, LAST_YEAR = 1980, 2107  # what a zip can say
UNFIT = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\\ud800-\udfff]')
"""What no name may hold on Windows, and bytes that are no text."""
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for itself."""


class Broken(Exception):
    """It cannot go on; `told` says why, for the broker to put into words."""

    def __init__(self, reason: str, **figures: Any) -> None:
        super().__init__(reason)
        self.told = {"reason": reason, **figures}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one zip may hold."""

    bytes: int
    files: int

    def check(self, size: int, files: int) -> None:
        """Raises Broken where it is more."""
        if size > self.bytes or files > self.files:
            raise Broken("too_large", bytes=size, files=files)


class Zip:
    """One zip, in one folder of that name. Holds a piece of one file at a time, and some hundred bytes for each name."""

    def __init__(self, to: Any, name: str, limits: Limits) -> None:
        """`to` need only take bytes by `write`."""
        self._to = _Counted(to)
        self._zip = zipfile.ZipFile(self._to, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL)
        self._name = name
        self._limits = limits
        self._notes: list[str] = []
        self.noted = self.files = self.bytes = 0

    def note(self, path: str, what: str) -> None:
        """Say this of a file. Of very many the first are said."""
        self.noted += 1
        if self.noted <= NOTES_MOST:
            self._notes.append(f"{shown(path)}: {what}")

    def folder(self, path: str, modified: float) -> None:
        """A folder, which may be empty."""
        made = self._entry(f"{path}/", modified, stat.S_IFDIR | 0o755)
        if made.filename not in self._zip.NameToInfo:
            made.external_attr |= 0x10  # what Windows knows a folder by
            self._zip.writestr(made, b"")

    def link(self, path: str, target: str, modified: float) -> None:
        """A link as a link: what it leads to may be anywhere."""
        self._counted(0)
        entry = self._named(path, modified, stat.S_IFLNK | 0o777)
        self._zip.writestr(entry, target.encode("utf-8", "surrogateescape"))

    def file(self, path: str, source: IO[bytes], *, size: int, modified: float, mode: int) -> None:
        """The first `size` bytes of a file. One that cannot be read to its end is cut there, and noted.

        Raises Broken where the zip holds too much.
        """
        entry = self._named(path, modified, stat.S_IFREG | (mode & 0o777))
        entry.file_size = size  # by which it is known whether its sizes need eight bytes
        self._counted(0)
        with self._zip.open(entry, "w") as target:
            trouble = self._copy(source, target, size)
        if trouble:
            self.note(path, trouble)

    def close(self) -> None:
        """Write what was noted, and the list of all that it holds."""
        if self.noted:
            entry = self._named(NOTES, time.time(), stat.S_IFREG | 0o644)
            self._zip.writestr(entry, self._said())
        self._zip.close()

    @contextmanager
    def whole(self) -> Iterator[Zip]:
        """Closed at the end; where it is broken off nothing more is written, so that nobody takes it for whole."""
        try:
            yield self
            self.close()
        finally:
            self._to.over = True

    def _copy(self, source: IO[bytes], target: IO[bytes], size: int) -> str:
        """What went wrong; empty for nothing."""
        left = size
        while left:
            try:
                piece = source.read(min(left, PIECE))
            except OSError as fault:
                return f"could be read in part only ({fault.strerror}); the rest is left out."
            if not piece:
                return "became shorter while it was packed."
            target.write(piece)
            left -= len(piece)
            self._counted(len(piece), files=0)
        return ""

    def _counted(self, size: int, files: int = 1) -> None:
        self.bytes += size
        self.files += files
        self._limits.check(self.bytes, self.files)

    def _entry(self, path: str, modified: float, mode: int) -> zipfile.ZipInfo:
        entry = zipfile.ZipInfo(f"{self._name}/{fitting(path)}", _moment(modified))
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = mode << 16
        return entry

    def _named(self, path: str, modified: float, mode: int) -> zipfile.ZipInfo:
        """An entry under a name of its own; the one that is called otherwise is noted."""
        entry = self._entry(path, modified, mode)
        first, number = entry.filename, 1
        while entry.filename in self._zip.NameToInfo:
            number += 1
            folder, slash, name = first.rpartition("/")
            stem, dot, kind = name.rpartition(".")
            entry.filename = f"{folder}{slash}{f'{stem} ({number}){dot}{kind}' if stem else f'{name} ({number})'}"
        called = entry.filename.removeprefix(f"{self._name}/")
        if called != path:
            self.note(path, f"is called {called} in here: not every system can have its name.")
        return entry

    def _said(self) -> str:
        more = self.noted - len(self._notes)
        rest = [f"… and {more} more."] if more else []
        return "\r\n".join([*HEADING, *self._notes, *rest, ""])


HEADING = (
    "What is not in this archive as it was in the session, and why. A name with a \\ in it is written as Python writes it.",
    "",
)


def fitting(path: str) -> str:
    """The same path with names that any system can have."""
    return "/".join(_fitting(name) if name else "" for name in path.split("/"))


def _fitting(name: str) -> str:
    name = UNFIT.sub("_", name)
    if name.endswith((".", " ")):
        name = f"{name[:-1]}_"
    return f"_{name}" if DEVICES.fullmatch(name) else name


def shown(path: str) -> str:
    """A path in one line of text."""
    plain = path.isprintable() and "\\" not in path
    return path if plain else path.encode("unicode_escape", "surrogateescape").decode("ascii", "replace")


def _moment(modified: float) -> tuple[int, int, int, int, int, int]:
    try:
        told = time.gmtime(modified)
    except (OverflowError, ValueError, OSError):
        told = time.gmtime(0)
    if not FIRST_YEAR <= told.tm_year <= LAST_YEAR:
        return FIRST_YEAR, 1, 1, 0, 0, 0
    return told.tm_year, told.tm_mon, told.tm_mday, told.tm_hour, told.tm_min, min(told.tm_sec, 59)


class _Counted(io.RawIOBase):
    """What a zip is written to: it cannot go back, and takes nothing more once it is over."""

    def __init__(self, to: Any) -> None:
        self._to = to
        self.over = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data) if self.over else int(self._to.write(bytes(data)))
