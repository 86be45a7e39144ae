"""What packs a session's files, as the process that the agent starts, with the other end of its socket in our hands."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import broker.environments
from broker.environments import exporting, zipping
from tests.waiting import until

BUILDER = (sys.executable, "-I", str(Path(broker.environments.__file__).parent), "--archive")
WISH = {"name": "stars-2026-11-28", "bytes_most": 10**9, "files_most": 1000}
TOP = f"{WISH['name']}/"
ODD = ("späte Blüte.txt", "two\nlines.txt", "a:b*c?.csv", "CON.txt", "ends with a dot.", "back\\slash", "n" * 200)


class Packing:
    """One packing process."""

    def __init__(self, home: Path, wish: dict[str, Any], *, engine: Any = None, order: str = "o") -> None:
        self.socket, its = socket.socketpair()
        self.socket.settimeout(60)
        self.process = subprocess.Popen(BUILDER, stdin=subprocess.PIPE, stdout=its.fileno(), cwd=home)
        its.close()
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"home": str(home), "engine": engine, "order": order}).encode())
        self.process.stdin.close()
        self.socket.sendall(json.dumps(wish).encode() + b"\n")

    def frame(self) -> tuple[bytes, bytes]:
        """The next one."""
        kind, size = struct.unpack(">cI", self.read(5))
        return kind, self.read(size)

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self.socket.recv(size - len(found))
            assert piece, "it ended too early"
            found += piece
        return found

    def whole(self) -> zipfile.ZipFile:
        """All that it sends, to its end."""
        kind, _ = self.frame()
        assert kind == b"b"
        held = io.BytesIO()
        while (frame := self.frame())[0] == b"d":
            held.write(frame[1])
        assert frame[0] == b"e", frame
        assert self.socket.recv(1) == b""
        return zipfile.ZipFile(held)

    def end(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """The working folder."""
    made = tmp_path / "repo"
    made.mkdir()
    return made


@pytest.fixture
def pack(tmp_path: Path, repo: Path) -> Iterator[Any]:
    started: list[Packing] = []

    def start(**wish: Any) -> Packing:
        started.append(Packing(tmp_path, {**WISH, **wish}))
        return started[-1]

    yield start
    for each in started:
        each.end()


def names(found: zipfile.ZipFile) -> set[str]:
    return {name.removeprefix(TOP) for name in found.namelist()}


def notes(found: zipfile.ZipFile) -> str:
    return found.read(TOP + zipping.NOTES).decode()


def test_files_folders_and_the_commits_are_in_it_in_one_folder(pack, repo: Path) -> None:
    for path in (".git/HEAD", "index.ipynb", "data/deep/er.csv"):
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        (repo / path).write_text(f"of {path}")
    (repo / "empty").mkdir()
    (repo / "run.sh").write_text("#!/bin/sh\n")
    (repo / "run.sh").chmod(0o755)
    found = pack().whole()
    assert found.testzip() is None
    assert all(name.startswith(TOP) for name in found.namelist())
    assert names(found) == {
        ".git/",
        ".git/HEAD",
        "data/",
        "data/deep/",
        "data/deep/er.csv",
        "empty/",
        "index.ipynb",
        "run.sh",
    }
    assert found.read(TOP + "index.ipynb") == b"of index.ipynb"
    assert found.getinfo(TOP + "run.sh").external_attr >> 16 == stat.S_IFREG | 0o755


def test_names_that_windows_cannot_have_are_called_otherwise_and_that_is_said(pack, repo: Path) -> None:
    for name in ODD:
        (repo / name).write_text(name)
    (repo / "a_b_c_.csv").write_text("another")
    (Path(os.fsdecode(os.fsencode(repo) + b"/not \xff text"))).write_text("bytes")
    found = pack().whole()
    kept = names(found)
    assert {
        "späte Blüte.txt",
        "n" * 200,
        "_CON.txt",
        "back_slash",
        "ends with a dot_",
        "two_lines.txt",
        "not _ text",
    } <= kept
    assert {found.read(TOP + "a_b_c_.csv"), found.read(TOP + "a_b_c_ (2).csv")} == {b"another", b"a:b*c?.csv"}
    assert "two\\nlines.txt: is called two_lines.txt" in notes(found)
    assert not any(zipping.UNFIT.search(name.replace("/", "")) for name in kept)


def test_links_stay_links_and_one_that_leads_out_is_said(pack, repo: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not to be packed")
    (repo / "inside.txt").write_text("x")
    for name, target in {
        "out": "../secret",
        "far": "/etc/passwd",
        "in": "inside.txt",
        "dangling": "nowhere",
        "up": "..",
    }.items():
        (repo / name).symlink_to(target)
    found = pack().whole()
    assert b"not to be packed" not in b"".join(found.read(name) for name in found.namelist())
    assert found.read(TOP + "far") == b"/etc/passwd"
    assert stat.S_ISLNK(found.getinfo(TOP + "in").external_attr >> 16)
    said = notes(found)
    assert all(f"{name}: is a link that leads out" in said for name in ("out", "far", "up"))
    assert "in: " not in said
    assert "dangling" not in said


def test_pipes_sockets_and_devices_are_left_out_and_hang_nothing(pack, repo: Path) -> None:
    os.mkfifo(repo / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(repo / "s"))
    (repo / "kept").write_text("x")
    found = pack().whole()
    assert names(found) == {"kept", zipping.NOTES}
    assert "pipe: is left out" in notes(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_cannot_be_read_is_left_out_and_said(tmp_path: Path, repo: Path) -> None:
    (repo / "mine").write_text("x")
    (repo / "closed").write_text("y")
    (repo / "shut").mkdir()
    for name in ("closed", "shut"):
        (repo / name).chmod(0)
    held = io.BytesIO()
    worker = os.fork()
    if worker == 0:  # as somebody whom modes stop
        status = 1
        try:
            from broker.environments import archiving

            opened = os.open(repo, os.O_RDONLY)  # the folders above are the test's own
            os.setgid(65534)
            os.setuid(65534)
            limits = zipping.Limits(bytes=10**6, files=100)
            zipped = zipping.Zip(held, "x", limits)
            with zipped.whole():
                archiving.pack_folder(Path(f"/proc/self/fd/{opened}"), zipped, limits, lambda: None)
            said = zipfile.ZipFile(held)
            left_out = said.read(f"x/{zipping.NOTES}").decode()
            if said.read("x/mine") == b"x" and "closed: is left out" in left_out and "shut: is left out" in left_out:
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0


def test_a_file_that_changes_meanwhile_breaks_nothing(pack, repo: Path) -> None:
    for name in ("grows", "shrinks", "vanishes", "z-last"):
        (repo / name).write_bytes(os.urandom(3_000_000))
    going = pack()
    assert going.frame()[0] == b"b"
    until(
        lambda: psutil.Process(going.process.pid).status() == psutil.STATUS_SLEEPING, what="nobody reads, so it waits"
    )
    with (repo / "grows").open("ab") as file:
        file.write(b"more" * 1000)
    os.truncate(repo / "shrinks", 10)
    (repo / "vanishes").unlink()
    held = io.BytesIO()
    while (frame := going.frame())[0] == b"d":
        held.write(frame[1])
    assert frame[0] == b"e"
    found = zipfile.ZipFile(held)
    assert found.testzip() is None
    assert found.getinfo(TOP + "z-last").file_size == 3_000_000
    said = notes(found)
    assert "grows: was written to while it was packed" in said
    assert "vanishes: is left out" in said


def test_what_is_too_much_is_refused_before_it_begins(pack, repo: Path) -> None:
    (repo / "big").write_bytes(b"x" * 2000)
    kind, told = pack(bytes_most=1999).frame()
    assert (kind, json.loads(told)) == (b"r", {"reason": "too_large", "bytes": 2000, "files": 1})
    for number in range(3):
        (repo / f"{number}").touch()
    assert pack(files_most=3).frame()[0] == b"r"
    assert pack(files_most=4).frame()[0] == b"b"


def test_what_becomes_too_much_on_the_way_is_broken_off_and_no_zip() -> None:
    held = io.BytesIO()
    zipped = zipping.Zip(held, "x", zipping.Limits(bytes=100, files=10))
    with pytest.raises(zipping.Broken), zipped.whole():
        zipped.file("f", io.BytesIO(b"x" * 200), size=200, modified=0, mode=0o600)
    del zipped
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(held)


def test_it_ends_at_once_when_nobody_wants_it_any_more(pack, repo: Path) -> None:
    (repo / "big").write_bytes(os.urandom(5_000_000))
    going = pack()
    assert going.frame()[0] == b"b"
    going.socket.close()
    assert going.process.wait(5) == 0


def test_its_memory_does_not_grow_with_the_files(pack, repo: Path) -> None:
    with (repo / "large").open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(1_000_000))
    going = pack()
    most, size = 0, 0
    process = psutil.Process(going.process.pid)
    while (frame := going.frame())[0] != b"e":
        size += len(frame[1])
        most = max(most, process.memory_info().rss)
    assert size > 100_000_000
    assert most < 60_000_000


@pytest.mark.parametrize(
    ("config", "folder"),
    [
        ({"WorkingDir": "/home/jovyan/work", "Env": ["HOME=/root"]}, "/home/jovyan/work"),
        ({"WorkingDir": "/", "Env": ["HOME=/home/rstudio"]}, "/home/rstudio"),
        ({"WorkingDir": "", "Env": None}, "/home"),
    ],
)
def test_people_work_where_the_image_starts_its_server(config: dict[str, Any], folder: str) -> None:
    assert str(exporting.folder_of(config)) == folder
