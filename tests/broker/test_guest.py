"""The line that a person pastes, in a real shell of an ordinary user: what it starts, and that nothing of it stays."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from broker import bringing, machine, parcels, pasting
from tests.doubles.broker_double import ENROLMENT_TOKEN, BrokerDouble
from tests.waiting import until

PATH = "/usr/bin:/bin"
ORDINARY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
BUILDER = """\
import json, os, shutil, sys
assert ".anybinder" in (shutil.which("uv") or ""), os.environ["PATH"]
spec = json.load(open(sys.argv[1])); os.unlink(sys.argv[1])
server = {"argv": [sys.executable, "-c", spec["server"]], "env": {}}
print(json.dumps({"phase": "built", "message": "The environment is ready", "server": server}), flush=True)
"""
SERVER = """\
import http.server, os, socketserver, subprocess, sys
os.makedirs("closed/inner"); open("closed/file", "w").close(); os.chmod("closed/inner", 0); os.chmod("closed", 0o500)
os.symlink(os.environ["HOME"] + "/../../../..", "link")
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "5"); self.end_headers(); self.wfile.write(b"hello")
    def address_string(self): return "somebody"
class Server(socketserver.ThreadingUnixStreamServer): pass
Server(os.environ["ANYBINDER_SOCKET"], Hello).serve_forever()
"""
"""It leaves folders without the right to write or to look, a link to what is not its own, and a daemon."""


class Guest:
    """A server's shell, and the broker that its line leads to."""

    def __init__(self, home: Path) -> None:
        self.home = home
        spec = {"content": {"kind": "files", "key": "k"}, "title": "o/r", "env": {}, "server": SERVER}
        self.broker = BrokerDouble(spec)
        tiny = with_builder(BUILDER)
        self.broker.files = {each.sha256: each.content or each.path.read_bytes() for each in parcels.named().values()}
        self.broker.files[hashlib.sha256(tiny).hexdigest()] = tiny
        self._builder = parcels.named()["builder.tar.gz"].sha256, hashlib.sha256(tiny).hexdigest()

    @property
    def line(self) -> str:
        now = dt.datetime.now(dt.UTC)
        order = SimpleNamespace(id=self.broker.order, until=now + dt.timedelta(hours=1), created_at=now)
        chosen = SimpleNamespace(boot_minutes=2, silence_minutes=15)
        keys = SimpleNamespace(token=lambda *_: ENROLMENT_TOKEN, public=self.broker.broker_key)
        at = SimpleNamespace(agent_url=self.broker.url, settings=chosen, keys=keys)
        return pasting.line(at, order).replace(*self._builder)

    def paste(self, line: str = "", *, root: bool = False) -> subprocess.CompletedProcess[str]:
        """As its person does."""
        user = ORDINARY if os.geteuid() == 0 and not root else []
        shell = [*user, "env", "-i", f"HOME={self.home}", f"PATH={PATH}", "sh", "-c", line or self.line]
        return subprocess.run(shell, cwd="/", capture_output=True, text=True, timeout=60, check=False)

    def processes(self) -> list[psutil.Process]:
        """All that came of it."""
        found = []
        for each in psutil.process_iter():
            try:
                if each.environ().get("HOME", "").startswith(str(self.home)):
                    found.append(each)
            except psutil.Error:
                continue
        return found

    def up(self) -> None:
        said = self.paste()
        assert said.returncode == 0, said
        until(lambda: self.broker.status()["server"] == "up" or self.broker.messages("failed"), seconds=90,
              what="its session answers")  # fmt: skip
        assert self.broker.messages("failed") == []

    def left(self) -> list[str]:
        return [str(each.relative_to(self.home)) for each in self.home.rglob("*")]


@pytest.fixture
def guest() -> Iterator[Guest]:
    home = Path(tempfile.mkdtemp(prefix="abg-", dir="/tmp"))  # a socket's path has to be short
    if os.geteuid() == 0:
        shutil.chown(home, "nobody")
    made = Guest(home)
    yield made
    made.broker.command = "stop"
    until(lambda: not made.processes(), seconds=30, what="all has ended")
    made.broker.close()
    shutil.rmtree(home)


def with_builder(program: str) -> bytes:
    """The builder's archive with this in the builder's place."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(parcels.named()["builder.tar.gz"].content or b"")) as whole,
        tarfile.open(fileobj=packed, mode="w:gz") as tiny,
    ):
        for entry in whole:
            if "environments" not in entry.name:
                tiny.addfile(entry, whole.extractfile(entry))
        entry = tarfile.TarInfo("broker/environments/__main__.py")
        entry.size = len(program.encode())
        tiny.addfile(entry, io.BytesIO(program.encode()))
    return packed.getvalue()


def test_it_serves_as_its_person_and_at_the_end_nothing_of_it_is_left(guest: Guest) -> None:
    (guest.home / "thesis.txt").write_text("mine")
    guest.home.chmod(0o755)
    guest.up()
    leg = guest.broker.take()
    leg.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"200 OK" in leg.receive_exactly(15)
    leg.close()
    running = guest.processes()
    assert len(running) >= 4
    if os.geteuid() == 0:
        assert {each.username() for each in running} == {"nobody"}
    secrets = [ENROLMENT_TOKEN, guest.broker.agent or "-"]
    assert not [each for each in running if any(word in " ".join(each.cmdline()) for word in secrets)]
    assert sorted(each.name for each in guest.home.iterdir()) == [".anybinder", "thesis.txt"]
    guest.broker.command = "stop"
    until(lambda: not guest.processes(), seconds=60, what="all has ended")
    until(lambda: guest.left() == ["thesis.txt"], seconds=10, what="its folder is gone")
    assert guest.home.stat().st_mode & 0o777 == 0o755


def test_a_line_works_once(guest: Guest) -> None:
    guest.up()
    again = guest.paste()
    assert again.returncode == 1 and "this line was pasted here before" in again.stderr
    assert len(guest.broker.enrolments) == 1 and guest.broker.status()["server"] == "up"


def test_what_was_killed_is_swept_up_by_the_next(guest: Guest) -> None:
    guest.up()
    for each in guest.processes():
        each.send_signal(signal.SIGKILL)
    until(lambda: not guest.processes(), seconds=30, what="all is dead")
    before, after = guest.broker, Guest(guest.home)
    assert (guest.home / ".anybinder" / before.order).is_dir()
    try:
        assert after.paste().returncode == 0
        assert not (guest.home / ".anybinder" / before.order).exists()
    finally:
        after.broker.command = "stop"
        until(lambda: not after.processes(), seconds=60, what="all has ended")
        after.broker.close()


def test_whoever_answers_in_the_brokers_place_starts_nothing(guest: Guest) -> None:
    digest = parcels.named()["guest.py"].sha256
    guest.broker.files[digest] = b"print('something else')"
    said = guest.paste()
    assert said.returncode == 1 and "its digest is wrong" in said.stderr and "something else" not in said.stdout
    assert guest.left() == []


def test_a_broker_that_is_gone_is_a_sentence_and_nothing_is_left(guest: Guest) -> None:
    digest = parcels.named()["agent.py"].sha256
    del guest.broker.files[digest]
    said = guest.paste()
    assert said.returncode == 1 and "the session's programs are not to be had" in said.stderr
    assert guest.left() in ([], [".anybinder"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be root")
def test_root_is_asked_to_be_somebody_else(guest: Guest) -> None:
    said = guest.paste(root=True)
    assert said.returncode == 1 and "log in as an ordinary user" in said.stderr and guest.left() == []


def test_nothing_is_installed_and_no_container_is_started(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "GUEST", True)
    monkeypatch.setattr(machine, "HOME", str(tmp_path))
    (tmp_path / "parcels.json").write_text('{"files": {}}')
    monkeypatch.setitem(bringing.SIGNS, "git", "/nowhere/git")
    assert bringing.main(["git"]) == 1 and "sudo apt install git" in capsys.readouterr().out
    assert bringing.main(["images"]) == 1 and "nothing runs in containers" in capsys.readouterr().out
