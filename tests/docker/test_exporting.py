"""What is in a container comes out of it as a zip: the engine is asked, nothing is run inside."""

from __future__ import annotations

import io
import json
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from broker.environments import exporting, zipping
from tests.broker.test_archiving import TOP, Packing, names, notes
from tests.servers import docker
from tests.waiting import until

WISH = {"name": TOP.strip("/"), "bytes_most": 10**9, "files_most": 1000}
MADE = r"""
cd ~
mkdir -p .cache/pip .local/lib/python3 .local/share/jupyter data/deep
echo x > .cache/pip/wheel; echo x > .local/lib/python3/installed.py; echo kept > .local/share/jupyter/settings
echo 'my notebook' > index.ipynb; echo deep > data/deep/er.csv; printf z > "$(printf 'späte\nBlüte: 1.txt')"
ln -s /etc/passwd out; ln -s index.ipynb in; mkfifo pipe; ln index.ipynb other-name; mkdir empty
echo secret > closed; chmod 0 closed
"""


@pytest.fixture
def order(engine: docker.Engine, jupyter: str, given: Path) -> Iterator[str]:
    """A session's container, with somebody's work in its home, and a folder of ours."""
    made = f"exporting-{time.monotonic_ns()}"
    shared = ("--volume", f"{given}:/given", "--entrypoint", "sleep")
    engine.docker("run", "--detach", "--init", "--name", f"anybinder-{made}", *shared, jupyter, "600")
    engine.docker("exec", f"anybinder-{made}", "sh", "-c", MADE)
    yield made
    engine.docker("rm", "--force", f"anybinder-{made}")


@pytest.fixture
def given(tmp_path: Path) -> Path:
    made = tmp_path / "given"
    made.mkdir()
    made.chmod(0o777)
    return made


@pytest.fixture
def pack(engine: docker.Engine, order: str, tmp_path: Path) -> Iterator[Callable[..., Packing]]:
    """Begins to pack. Ended before the container: while it is read the engine ends nothing of it."""
    started: list[Packing] = []

    def start(name: str = order, **wish: Any) -> Packing:
        started.append(Packing(tmp_path, {**WISH, **wish}, engine={"kind": "docker", "url": engine.url}, order=name))
        return started[-1]

    yield start
    for each in started:
        each.end()


def stuck(packing: Packing) -> None:
    """It has begun, and waits for somebody who reads."""
    assert packing.frame()[0] == b"b"
    sleeping = psutil.STATUS_SLEEPING
    until(lambda: psutil.Process(packing.process.pid).status() == sleeping, what="nobody reads, so it waits")


def test_the_folder_that_people_work_in_comes_out_whole(
    engine: docker.Engine, order: str, pack: Callable[..., Packing]
) -> None:
    packing = pack()
    found = packing.whole()
    assert packing.process.wait(10) == 0
    assert found.testzip() is None
    assert found.read(TOP + "index.ipynb") == found.read(TOP + "other-name") == b"my notebook\n"
    assert found.read(TOP + "data/deep/er.csv") == b"deep\n"
    assert found.read(TOP + "closed") == b"secret\n", "the engine reads what the session's user has closed to itself"
    assert found.read(TOP + "out") == b"/etc/passwd"
    kept = names(found)
    assert {"empty/", "späte_Blüte_ 1.txt", ".local/share/jupyter/settings", "in"} <= kept
    assert not [name for name in kept if name.startswith((".cache", ".local/lib", "pipe"))]
    said = notes(found)
    assert ".cache: is left out" in said
    assert ".cache/pip" not in said
    assert "pipe: is left out" in said
    assert "out: is a link that leads out" in said


def test_it_ends_at_once_when_nobody_wants_it_and_the_container_can_be_ended(
    engine: docker.Engine, order: str, pack: Callable[..., Packing]
) -> None:
    engine.docker("exec", f"anybinder-{order}", "sh", "-c", "head -c 60000000 /dev/urandom > ~/large")
    going = pack()
    stuck(going)
    going.socket.close()
    assert going.process.wait(5) == 0
    engine.docker("stop", "--time", "1", f"anybinder-{order}")


def test_what_is_too_much_is_found_on_the_way_and_broken_off(
    engine: docker.Engine, order: str, pack: Callable[..., Packing]
) -> None:
    engine.docker("exec", f"anybinder-{order}", "sh", "-c", "head -c 9000000 /dev/urandom > ~/large")
    going = pack(bytes_most=5_000_000)
    frame = going.frame()
    while frame[0] in (b"b", b"d"):
        frame = going.frame()
    assert (frame[0], json.loads(frame[1])["reason"]) == (b"r", "too_large")


def test_a_file_that_becomes_shorter_while_it_is_read_costs_no_other(
    engine: docker.Engine, order: str, pack: Callable[..., Packing], given: Path
) -> None:
    """The engine's own tar ends there without a word: it is asked again for what came behind."""
    shell = ("exec", f"anybinder-{order}", "sh", "-c")
    engine.docker(*shell, "head -c 30000000 /dev/urandom > ~/data/changes; echo last > ~/z-last")
    waits = "until [ -e /given/go ]; do sleep 0.1; done; echo short > ~/data/changes; touch /given/done"
    engine.docker("exec", "--detach", *shell[1:], waits)
    going = pack()
    stuck(going)
    (given / "go").touch()
    until((given / "done").exists, what="it has become shorter")
    held = io.BytesIO()
    while (frame := going.frame())[0] == b"d":
        held.write(frame[1])
    assert frame[0] == b"e", frame
    found = zipfile.ZipFile(held)
    assert found.read(TOP + "z-last") == b"last\n"
    assert found.read(TOP + "index.ipynb") == b"my notebook\n"
    assert found.namelist().count(TOP + "index.ipynb") == 1
    assert "data/changes: became shorter while it was packed" in notes(found)


def test_a_container_without_such_a_folder_is_said_to_have_none(
    engine: docker.Engine, order: str, pack: Callable[..., Packing]
) -> None:
    name = f"{order}-bare"
    engine.docker(
        "create", "--name", f"anybinder-{name}", "--workdir", "/", "--env", "HOME=/nowhere", engine.base_image
    )
    going = pack(name)
    kind, told = going.frame()
    assert (kind, json.loads(told)) == (b"r", {"reason": "nothing"})
    engine.docker("rm", "--force", f"anybinder-{name}")


def test_a_tar_that_was_cut_is_not_taken_for_whole() -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as made:
        for name in ("home", "home/a", "home/b"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if name == "home" else tarfile.REGTYPE
            entry.size = 0 if name == "home" else 1000
            made.addfile(entry, io.BytesIO(b"\0" * 1000))
    whole = held.getvalue()

    def read(data: bytes) -> tuple[list[str], bool]:
        tar = exporting.Tar(iter([data[at : at + zipping.PIECE] for at in range(0, len(data), zipping.PIECE)]))
        return [member.name for member in tar.members()], tar.whole

    assert read(whole) == (["home", "home/a", "home/b"], True)
    for size in (0, 512, 1024, 1500, 2048, 3072, 4096):
        assert read(whole[:size])[1] is False, size
