"""The working folder of a session in a container, packed from what the engine gives out of it.

The engine is asked for a tar of the folder: nothing is run inside, so it needs no program of the image's, and who looks is not
bound by what the session's user may read. While it is being read the engine keeps the container for it: a stop waits, so the
agent ends us first.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from broker.environments import archiving, engines, zipping
from broker.environments.zipping import Broken

if TYPE_CHECKING:
    import docker

TRIES = 3
LINKS_MOST = 1000  # files that are another's second name: each is asked for by itself
TRAILER, PADDED = 1024, 20 * 512  # how a whole tar ends: two empty blocks, and as many as its maker fills up with
HOME = "/home"
OURS = (".cache", ".conda", ".npm", ".local/lib", ".local/share/jupyter/runtime", ".local/share/Trash")
"""Below the folder: what programs keep to be sooner ready, what was installed, what was thrown away."""


def pack(engine: dict[str, Any], order: str, zipped: zipping.Zip, begin: Callable[[], None]) -> None:
    """Every file of the session's working folder; `begin` is called once there is one. Raises Broken, and Failed where the
    engine does not give it."""
    with engines.client(engine, seconds=None) as client:
        Export(client, engines.name_of(order), zipped).pack(begin)


class Export:
    """One container's folder. What was packed is packed once, however often the engine is asked."""

    def __init__(self, client: docker.APIClient, container: str, zipped: zipping.Zip) -> None:
        self._client = client
        self._container = container
        self._zipped = zipped
        self._root = folder_of(client.inspect_container(container)["Config"])
        self._done: set[int] = set()
        self._second: list[tuple[str, str]] = []

    def pack(self, begin: Callable[[], None]) -> None:
        """A file that became shorter while the engine read it ends its tar there: then it is asked again for the rest."""
        tar = self._tar(self._root)
        begin()
        for _ in range(TRIES):
            if self._all(tar):
                break
            tar = self._tar(self._root)
        else:
            raise Broken("changing")
        for number, (path, first) in enumerate(self._second):
            self._pack_second(path, first, wanted=number < LINKS_MOST)

    def _tar(self, path: PurePosixPath) -> Tar:
        """Raises Broken where there is no such thing."""
        import docker

        try:
            pieces, _about = self._client.get_archive(self._container, str(path), chunk_size=zipping.PIECE)
        except (docker.errors.NotFound, UnicodeEncodeError):
            raise Broken("nothing") from None
        return Tar(pieces)

    def _all(self, tar: Tar) -> bool:
        """Whether it came to its end."""
        for member in tar.members():
            path = member.name.partition("/")[2]
            if path and hash(path) not in self._done:
                self._done.add(hash(path))
                self._pack(tar, path, member)
        return tar.whole

    def _pack(self, tar: Tar, path: str, member: tarfile.TarInfo) -> None:
        if any(path == each or path.startswith(f"{each}/") for each in OURS):
            if path in OURS:
                self._zipped.note(path, "is left out: programs keep there what they can get or make again.")
        elif member.isdir():
            self._zipped.folder(path, member.mtime)
        elif member.issym():
            archiving.pack_link(path, member.linkname, member.mtime, self._zipped)
        elif member.islnk():
            self._second.append((path, member.linkname.partition("/")[2]))
        elif member.isreg():
            self._pack_file(tar, path, member)
        else:
            self._zipped.note(path, "is left out: it is no file but a pipe or a device.")

    def _pack_file(self, tar: Tar, path: str, member: tarfile.TarInfo) -> None:
        source: Any = Source(tar.content(member))
        self._zipped.file(path, source, size=member.size, modified=member.mtime, mode=member.mode)

    def _pack_second(self, path: str, first: str, *, wanted: bool) -> None:
        """The second name of a file that was packed under its first, as a file of its own."""
        if not wanted:
            self._zipped.note(path, f"is left out: it is another name of {zipping.shown(first)}.")
            return
        try:
            tar = self._tar(self._root / first)
        except Broken:
            self._zipped.note(path, f"is left out: it was another name of {zipping.shown(first)}, which is gone.")
            return
        for member in tar.members():
            if member.isreg():
                self._pack_file(tar, path, member)


def folder_of(config: dict[str, Any]) -> PurePosixPath:
    """Where people work in it: where its server is started, as repo2docker and Jupyter's images have it, else its home."""
    told = dict(each.partition("=")[::2] for each in config.get("Env") or [])
    for place in (config.get("WorkingDir"), told.get("HOME")):
        if place and place.startswith("/") and PurePosixPath(place) != PurePosixPath("/"):
            return PurePosixPath(place)
    return PurePosixPath(HOME)


class Tar:
    """A tar as the engine sends it: read once, a piece at a time. Read it to its end before the engine is asked for more of the
    container."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._stream = Stream(pieces)
        self._tar: Any = None
        self.whole = False
        """Whether it was read to its end, and that end is one."""

    def members(self) -> Iterator[tarfile.TarInfo]:
        """One after the other: what is in one is read before the next is asked for. Ends early where the tar does."""
        end = 0
        try:
            with tarfile.open(fileobj=cast("Any", self._stream), mode="r|", bufsize=zipping.PIECE) as self._tar:
                for member in self._tar:
                    yield member
                    self._tar.members = []  # it would keep them all
                end = self._tar.offset
        except tarfile.ReadError:
            return
        self._stream.drain()
        self.whole = TRAILER <= self._stream.total - end <= PADDED and not self._stream.tail.strip(b"\0")

    def content(self, member: tarfile.TarInfo) -> Any:
        """Of a file that is the newest member."""
        return self._tar.extractfile(member)


class Source:
    """A file of a tar that may end too early."""

    def __init__(self, content: Any) -> None:
        self._content = content
        self.cut = False

    def read(self, size: int) -> bytes:
        """As of a file: nothing where there is no more."""
        try:
            piece: bytes = self._content.read(size)
        except tarfile.ReadError:
            piece = b""
        self.cut = self.cut or not piece
        return piece


class Stream:
    """Pieces as a file that can only be read on."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""
        self.total = 0
        self.tail = b""
        """The last bytes that there were."""

    def read(self, size: int) -> bytes:
        """So many bytes, or what there is up to the end."""
        taken = []
        while size and (self._held or self._more()):
            taken.append(self._held[:size])
            self._held = self._held[size:]
            size -= len(taken[-1])
        return b"".join(taken)

    def drain(self) -> None:
        """Read what is left, and forget it."""
        while self._more():
            self._held = b""

    def _more(self) -> bool:
        for piece in self._pieces:
            self._held = piece
            self.total += len(piece)
            self.tail = (self.tail + piece)[-TRAILER:]
            return True
        return False
