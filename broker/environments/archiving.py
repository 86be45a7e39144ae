"""Packing a session's working folder for whoever downloads it: `environments --archive`, once a download, started by the agent.

Standard output is a socket, at whose other end is the broker. It sends one line of JSON (`name`, `bytes_most`, `files_most`) and
gets frames: a letter, four bytes of size, and so many bytes.

    b   it begins; from here on it is a zip        r   it is refused or broken off, and why, as JSON
    d   bytes of the zip                           e   its end: it is whole

Whoever is at the other end may leave at any time: that ends this process at once.
"""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from broker.environments import zipping
from broker.environments.programs import Failed
from broker.environments.zipping import Broken

FRAME = 128 * 1024
NICE = 10  # whoever works in the session goes first
WISH_BYTES = 4096


def serve(told: dict[str, Any]) -> int:
    """Pack what the agent tells of (`home`, `engine`, `order`) for the socket that is our standard output."""
    os.nice(NICE)
    with socket.socket(fileno=1) as asking:
        wish = _wish(asking)
        end_when_left(asking)
        frames = Frames(asking)
        try:
            pack(told, wish, frames)
            frames.say(b"e")
        except Broken as broken:
            frames.say(b"r", broken.told)
        except Failed as failure:
            print(failure, file=sys.stderr, flush=True)  # noqa: T201 -- to the agent's log; it may name this computer's paths
            frames.say(b"r", {"reason": "engine"})
    return 0


def pack(told: dict[str, Any], wish: dict[str, Any], frames: Frames) -> None:
    """All of it, as a zip in these frames. Raises Broken, Failed."""
    limits = zipping.Limits(bytes=wish["bytes_most"], files=wish["files_most"])
    zipped = zipping.Zip(frames, wish["name"], limits)
    with zipped.whole():
        if told.get("engine"):
            from broker.environments import exporting

            exporting.pack(told["engine"], told["order"], zipped, frames.begin)
        else:
            pack_folder(Path(told["home"]) / "repo", zipped, limits, frames.begin)
    frames.flush()


def pack_folder(root: Path, zipped: zipping.Zip, limits: zipping.Limits, begin: Callable[[], None]) -> None:
    """Every file below it. Links stay links; what is neither file, folder nor link is noted, as is what cannot be read.

    `begin` is called once it is known that all of it is within the limits. Raises Broken.
    """
    if not root.is_dir():
        raise Broken("nothing")
    measure(root, limits)
    begin()
    for path, found in walk(root, zipped.note):
        if stat.S_ISDIR(found.st_mode):
            zipped.folder(path, found.st_mtime)
        elif stat.S_ISLNK(found.st_mode):
            _pack_link(root, path, found, zipped)
        elif stat.S_ISREG(found.st_mode):
            _pack_file(root, path, zipped)
        else:
            zipped.note(path, "is left out: it is no file but a pipe, a socket or a device.")


def measure(root: Path, limits: zipping.Limits) -> None:
    """Raises Broken where all of it is more than may be packed."""
    size = files = 0
    for _path, found in walk(root, lambda _path, _why: None):
        if not stat.S_ISDIR(found.st_mode):
            files += 1
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    limits.check(size, files)


def walk(root: Path, trouble: Callable[[str, str], None]) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below it, in order, with its path from there; a folder before what is in it. No link is followed."""
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as fault:
            trouble(folder or ".", f"is left out: it cannot be opened ({fault.strerror}).")
            continue
        inside = []
        for entry in found:
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as fault:
                trouble(path, f"is left out: it cannot be looked at ({fault.strerror}).")
                continue
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                inside.append(path)
        pending += reversed(inside)


def _pack_file(root: Path, path: str, zipped: zipping.Zip) -> None:
    """As long as it is when it is opened: what is written to it later is not in the archive."""
    try:
        opened = os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        zipped.note(path, f"is left out: it cannot be read ({fault.strerror}).")
        return
    with os.fdopen(opened, "rb", buffering=0) as source:
        before = os.fstat(opened)
        if not stat.S_ISREG(before.st_mode):
            zipped.note(path, "is left out: it became something else while it was packed.")
            return
        zipped.file(path, source, size=before.st_size, modified=before.st_mtime, mode=before.st_mode)
        after = os.fstat(opened)
    if (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size):
        zipped.note(path, "was written to while it was packed: it may be in part old and in part new.")


def _pack_link(root: Path, path: str, found: os.stat_result, zipped: zipping.Zip) -> None:
    try:
        target = os.readlink(root / path)  # noqa: PTH115 -- as it is, and not made into a path
    except OSError as fault:
        zipped.note(path, f"is left out: it cannot be read ({fault.strerror}).")
        return
    pack_link(path, target, found.st_mtime, zipped)


def pack_link(path: str, target: str, modified: float, zipped: zipping.Zip) -> None:
    """The link itself, and a word where it leads out of what is packed."""
    zipped.link(path, target, modified)
    there = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120 -- a name, no file
    if os.path.isabs(target) or there == ".." or there.startswith("../"):  # noqa: PTH117
        zipped.note(path, f"is a link that leads out of the folder: {zipping.shown(target)} is not in here.")


class Frames:
    """What is said to the broker. A zip can be written to it."""

    def __init__(self, to: socket.socket) -> None:
        self._to = to
        self._held = bytearray()

    def begin(self) -> None:
        """From now on it is a zip."""
        self.say(b"b")

    def say(self, kind: bytes, told: dict[str, Any] | None = None) -> None:
        """A frame that is no part of the zip."""
        self._send(kind, json.dumps(told or {}).encode())

    def write(self, data: bytes) -> int:
        """More of the zip."""
        self._held += data
        if len(self._held) >= FRAME:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """All of the zip that was written so far."""
        if self._held:
            self._send(b"d", self._held)
            self._held = bytearray()

    def _send(self, kind: bytes, content: bytes | bytearray) -> None:
        try:
            self._to.sendall(struct.pack(">cI", kind, len(content)))
            self._to.sendall(content)
        except OSError:
            os._exit(0)  # nobody is there any more


def end_when_left(asking: socket.socket) -> None:
    """End this process as soon as nobody is at the other end, whatever it is at."""

    def watch() -> None:
        hanging_up = select.poll()
        hanging_up.register(asking.fileno(), getattr(select, "POLLRDHUP", select.POLLHUP))
        hanging_up.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _wish(asking: socket.socket) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        piece = asking.recv(WISH_BYTES - len(line))
        if not piece:
            os._exit(0)  # whoever asked has left
        line += piece
    wish: dict[str, Any] = json.loads(line)
    return wish
