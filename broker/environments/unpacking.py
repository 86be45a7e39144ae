"""Unpacking somebody else's archive: zip, or tar with or without compression.

Nothing is written through a link, as links are made last, and each must then lead to somewhere inside. What an archive says
of its size is not believed: what comes out of it is counted.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from broker.environments.programs import Failed

ENTRIES = 200_000
PIECE = 1 << 18
HEADERS = 4096  # bytes around one entry of a tar: its header, an extended one, padding
LITTER = ("__MACOSX", ".DS_Store")
BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, OSError),
)
"""What Python's own readers of archives raise for damaged ones."""


def unpack(archive: Path, tree: Path, *, limit: int) -> None:
    """What is in it, in `tree`, without the folder around everything where there is one. Raises Failed.

    What is no archive is put into `tree` as it is.
    """
    inner = tree.with_name(f"{tree.name}.new")
    inner.mkdir()
    target = Target(inner, limit=limit)
    try:
        if zipfile.is_zipfile(archive):
            from_zip(archive, target)
        elif compression := kind_of(archive):
            from_tar(archive, compression, target)
        else:
            archive.rename(inside(inner, archive.name))
        target.make_links()
    except BROKEN as fault:
        raise Failed(f"{archive.name} cannot be unpacked: {str(fault)[:200] or 'it is damaged'}.") from None
    top = only_folder(inner)
    (top or inner).rename(tree)
    if top:
        shutil.rmtree(inner)
    check_links(tree, target.links, inside_folder=top.name if top else "")


class Target:
    """Where it goes. Counts files and bytes."""

    def __init__(self, root: Path, *, limit: int) -> None:
        self.root, self.limit, self.size, self.entries = root, limit, 0, 0
        self.links: list[tuple[str, str]] = []

    def place(self, name: str) -> Path | None:
        """The path of the next entry; None for what an operating system left in passing."""
        self.entries += 1
        if self.entries > ENTRIES:
            raise Failed(f"The archive has more than {ENTRIES} entries.")
        if any(part in LITTER for part in name.split("/")):
            return None
        return inside(self.root, name)

    def folder(self, name: str) -> None:
        if (path := self.place(name)) is not None:
            self.make(path)

    def make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise Failed("The archive has a file and a folder of one name.") from None

    def file(self, name: str, content: Any, *, executable: bool) -> None:
        path = self.place(name)
        if path is None:
            return
        self.make(path.parent)
        if path.is_dir():
            raise Failed("The archive has a file and a folder of one name.")
        path.unlink(
            missing_ok=True
        )  # of two files of one name the later counts, and an earlier one's twin keeps its own
        with path.open("xb") as file:
            while piece := content.read(PIECE):
                self.size += len(piece)
                if self.size > self.limit:
                    raise Failed(f"The archive unpacks to more than {self.limit // 1_000_000} MB.")
                file.write(piece)
        path.chmod(0o755 if executable else 0o644)

    def twin(self, name: str, of: str) -> None:
        """A hard link: a file that is there already under another name."""
        source = inside(self.root, of)
        if not source.is_file():
            raise Failed("The archive names a file that is not in it.")
        with source.open("rb") as content:
            self.file(name, content, executable=os.access(source, os.X_OK))

    def link(self, name: str, to: str) -> None:
        if self.place(name) is not None:
            self.links.append((name, to))

    def make_links(self) -> None:
        """Last of all. One that leads out lexically is refused here; `check_links` looks at where it really leads."""
        for name, to in self.links:
            path = inside(self.root, name)
            if not to or to.startswith("/") or "\0" in to:
                raise Failed(leads_out(name))
            if parents_are_links(path, self.root) or os.path.lexists(path):
                raise Failed("The archive has a link and a file of one name.")
            self.make(path.parent)
            path.symlink_to(to)


def from_zip(archive: Path, target: Target) -> None:
    with zipfile.ZipFile(archive) as file:
        for entry in file.infolist():
            mode = entry.external_attr >> 16
            if entry.flag_bits & 1:
                raise Failed(f"{archive.name} is protected by a password. Publish it without.")
            if entry.is_dir():
                target.folder(entry.filename)
            elif stat.S_ISLNK(mode):
                with file.open(entry) as content:
                    target.link(entry.filename, content.read(4096).decode("utf-8", "surrogateescape"))
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise Failed(f"{archive.name} holds what is no file, folder or link.")
            else:
                with file.open(entry) as content:
                    target.file(entry.filename, content, executable=bool(mode & 0o111))


def kind_of(archive: Path) -> str:
    """`gz`, `bz2`, `xz` or `plain` for a tar; empty for what is none."""
    for compression in ("gz", "bz2", "xz", "plain"):
        try:
            with decompressed(archive, compression) as content:
                begin = content.read(512)
        except BROKEN:
            continue
        if begin[257:262] == b"ustar" or (len(begin) == 512 and old_tar(begin)):
            return compression
    return ""


def old_tar(begin: bytes) -> bool:
    """Before 1988 headers had no mark, but they had the same sum."""
    try:
        return bool(tarfile.TarInfo.frombuf(begin, "utf-8", "surrogateescape").name)
    except tarfile.TarError:
        return False


def decompressed(archive: Path, compression: str) -> BinaryIO:
    makers: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open, "plain": open}
    return makers[compression](archive, "rb")


def from_tar(archive: Path, compression: str, target: Target) -> None:
    with decompressed(archive, compression) as content, opened(Counted(content, target)) as file:
        for entry in file:
            if entry.isdir():
                target.folder(entry.name)
            elif entry.issym():
                target.link(entry.name, entry.linkname)
            elif entry.islnk():
                target.twin(entry.name, entry.linkname)
            elif entry.isfile():
                target.file(entry.name, file.extractfile(entry), executable=bool(entry.mode & 0o111))
            elif entry.type != tarfile.XGLTYPE:
                raise Failed(f"{archive.name} holds what is no file, folder or link.")


def opened(content: Any) -> tarfile.TarFile:
    """As a stream: what was read is not read again, so what is counted is what was unpacked."""
    return tarfile.open(fileobj=content, mode="r|", bufsize=PIECE)


class Counted:
    """The decompressed tar. A small file can unpack to any number of headers, which are no files yet."""

    def __init__(self, content: BinaryIO, target: Target) -> None:
        self.content, self.target, self.size = content, target, 0

    def read(self, size: int) -> bytes:
        piece = self.content.read(size)
        self.size += len(piece)
        if self.size > self.target.size + self.target.limit + HEADERS * self.target.entries + PIECE:
            raise Failed(f"The archive unpacks to more than {self.target.limit // 1_000_000} MB.")
        return piece


def inside(root: Path, name: str) -> Path:
    """The path of this name below the folder. Raises Failed for a name that leads out of it, or is none."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts and name.startswith("."):
        return root
    if name.startswith("/") or not parts or ".." in parts or "\\" in name or "\0" in name:
        raise Failed(leads_out(name))
    if any(len(os.fsencode(part)) > 255 for part in parts) or len(parts) > 100:
        raise Failed("The name of a file is longer than this computer can write.")
    return root.joinpath(*parts)


def leads_out(name: str) -> str:
    """The sentence."""
    return f"{ascii(name)[1:81]} leads out of its folder, so nothing of this is unpacked."


def only_folder(folder: Path) -> Path | None:
    """The one folder in it that holds everything, if that is so."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink() else None


def parents_are_links(path: Path, root: Path) -> bool:
    return any(parent.is_symlink() for parent in ancestors(path, root))


def ancestors(path: Path, root: Path) -> Iterator[Path]:
    for parent in path.parents:
        if parent == root:
            return
        yield parent


def check_links(tree: Path, links: list[tuple[str, str]], *, inside_folder: str) -> None:
    """Raises Failed where one really leads out, by way of others or not."""
    top = tree.resolve()
    for name, _ in links:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        path = tree.joinpath(*(parts[1:] if inside_folder else parts))
        real = Path(os.path.realpath(path))
        if real != top and top not in real.parents:
            raise Failed(leads_out(name))
