"""`anybinder download`: the files of a session, on their way to a file of the person's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from broker import client
from broker.cli import give_up, say

BROKEN = "The download was broken off, and is not whole. `anybinder logs` says why, where that is known."
STANDARD_OUTPUT = Path("-")


def download(at: client.Client, launch_id: str, to: Path | None) -> None:
    """Write it there, or in this folder under its own name. What is not whole is removed; what is there already is kept."""
    called, pieces = at.archive(launch_id)
    if to == STANDARD_OUTPUT:
        _write(pieces, sys.stdout.buffer)
        return
    path = to or Path(called)
    with _new(path) as file:
        size = _write(pieces, file)
    say(f"{path}: {size / 1e6:.1f} MB")


@contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """A file that was not there, and is not afterwards where it did not become whole."""
    try:
        file = path.open("xb")
    except FileExistsError:
        give_up(f"{path} is there already. Choose another name with --to.")
    except OSError as fault:
        give_up(f"{path} cannot be written: {fault.strerror}.")
    whole = False
    try:
        with file:
            yield file
        whole = True
    except OSError as fault:
        give_up(f"{path} cannot be written: {fault.strerror}.")
    finally:
        if not whole:
            path.unlink(missing_ok=True)


def _write(pieces: Iterator[bytes], file: BinaryIO) -> int:
    """How many bytes there were."""
    size = 0
    try:
        for piece in pieces:
            size += file.write(piece)
    except client.Broken:
        give_up(BROKEN)
    return size
