"""A machine with our user data: what it does, what it tells, how it ends, and what its session cannot reach."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from broker import bootstrap, parcels
from providers import base
from tests.doubles.broker_double import ENROLMENT_TOKEN, BrokerDouble, Refused
from tests.doubles.machines import Machine, Machines, metadata
from tests.waiting import until

pytestmark = pytest.mark.timeout(600)
HERE = "10.213.255.253"  # of this computer, for the machines to dial
BUILDER = """\
import json, os, sys
spec = json.load(open(sys.argv[1])); os.unlink(sys.argv[1])
server = {"argv": [sys.executable, "-c", spec["server"]], "env": {}}
print(json.dumps({"phase": "built", "message": "The environment is ready", "server": server}), flush=True)
"""
SERVER = """\
import http.server, os, socketserver
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "5"); self.end_headers(); self.wfile.write(b"hello")
    def address_string(self): return "somebody"
class Server(socketserver.ThreadingUnixStreamServer): pass
Server(os.environ["ANYBINDER_SOCKET"], Hello).serve_forever()
"""
"""A session in a second, without an index."""
USER = "anybinder"
DEAD_MAN_KEY = "may-delete-this-server-and-nothing-else"


class World:
    """A broker, and machines with what that broker's orders are told at birth."""

    def __init__(self, machines: Machines, broker: BrokerDouble) -> None:
        self.machines, self.broker = machines, broker
        tiny = with_builder(BUILDER)
        self.files = {**parcels.digests(), "builder.tar.gz": hashlib.sha256(tiny).hexdigest()}
        broker.files = {each.sha256: each.content or each.path.read_bytes() for each in parcels.named().values()}
        broker.files[self.files["builder.tar.gz"]] = tiny

    def start(self, *, minutes: float = 30, service: type[metadata.Service] = metadata.Ec2, **told: Any) -> Machine:
        """`told` changes what its boot configuration says."""
        now = dt.datetime.now(dt.UTC)
        order = SimpleNamespace(id=self.broker.order, until=now + dt.timedelta(minutes=minutes), created_at=now)
        chosen = SimpleNamespace(boot_minutes=told.pop("boot_minutes", 2), silence_minutes=15)
        keys = SimpleNamespace(token=lambda *_: ENROLMENT_TOKEN, public=self.broker.broker_key)
        at = SimpleNamespace(agent_url=self.broker.url, settings=chosen, keys=keys)
        config = {**bootstrap.boot(at, order).config, "files": self.files, "linger_seconds": 0, **told}
        text = bootstrap.user_data(at, order, config)
        return self.machines.start(service(f"i-{self.broker.order}", text))

    def running(self, **options: Any) -> Machine:
        """One whose session answers."""
        machine = self.start(**options)
        over = lambda: not machine.running or self.broker.messages("failed")  # noqa: E731
        until(lambda: self.broker.status()["server"] == "up" or over(), seconds=240, what="its session answers")
        assert self.broker.status()["server"] == "up", (self.broker.events[-5:], machine.console()[-3000:])
        return machine


def with_builder(program: str) -> bytes:
    """The builder's archive with this in the builder's place."""
    real = parcels.named()["builder.tar.gz"].content
    packed = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(real)) as whole, tarfile.open(fileobj=packed, mode="w:gz") as tiny:
        for entry in whole:
            if "environments" not in entry.name:
                tiny.addfile(entry, whole.extractfile(entry))
        entry = tarfile.TarInfo("broker/environments/__main__.py")
        entry.size = len(program.encode())
        tiny.addfile(entry, io.BytesIO(program.encode()))
    return packed.getvalue()


@pytest.fixture(scope="module")
def here() -> Iterator[str]:
    subprocess.run(["ip", "address", "add", f"{HERE}/32", "dev", "lo"], check=False)
    yield HERE
    subprocess.run(["ip", "address", "del", f"{HERE}/32", "dev", "lo"], check=False)


@contextmanager
def standing(machines: Machines, here: str) -> Iterator[World]:
    before = len(machines.all)
    spec = {"content": {"kind": "files", "key": "k"}, "title": "o/r", "env": {}, "build_seconds": 300, "server": SERVER}
    broker = BrokerDouble(spec, host=here)
    try:
        yield World(machines, broker)
    finally:
        for machine in machines.all[before:]:
            machine.cut()
        broker.close()


@pytest.fixture
def world(machines: Machines, here: str) -> Iterator[World]:
    with standing(machines, here) as world:
        yield world


@pytest.fixture(scope="module")
def served(machines: Machines, here: str) -> Iterator[tuple[World, Machine]]:
    """One whose session answers, for those who change nothing of it."""
    with standing(machines, here) as world:
        yield world, world.running()


# --- the plain way --------------------------------------------------------------------------------------------------


def test_it_boots_enrols_and_serves_as_nobody_and_tells_each_step(served: tuple[World, Machine]) -> None:
    world, machine = served
    world.broker.take().close()
    said = [line for line in machine.console().splitlines() if "anybinder: [" in line]
    assert "cannot be made" not in machine.console()
    steps = ("goes off at", "asks its broker", "starting the agent")
    assert [step for step in steps if not any(step in line for line in said)] == [], machine.console()
    assert sorted(set(machine.inside("ps -o user= -C python3").split())) == [USER, "root"]
    assert "anybinder-end.timer" in machine.inside("systemctl list-timers --all")


def test_what_ends_well_ends_the_machine(world: World) -> None:
    machine = world.running()
    world.broker.command = "stop"
    until(lambda: not machine.running, seconds=60, what=machine.console())


# --- what its session cannot reach ----------------------------------------------------------------------------------

ASK = f"curl --silent --show-error --max-time 5 -X PUT http://{metadata.ADDRESS}/latest/api/token"


@pytest.mark.parametrize("service", [metadata.Ec2, metadata.OpenStack], ids=["ec2", "openstack"])
def test_a_session_reaches_no_metadata(world: World, service: type[metadata.Service]) -> None:
    machine = world.running(service=service)
    machine.inside(ASK)  # root does: cloud-init needs it
    before = len(machine.service.asked)
    refused = machine.inside(ASK, user=USER, check=False)
    assert "curl: (7)" in refused, refused
    assert len(machine.service.asked) == before


FENCES = {
    "nft": "nft delete table inet anybinder",
    "iptables": "iptables -F OUTPUT",
    "routes": "while ip rule del pref 90; do true; done",
}


@pytest.mark.parametrize("alone", FENCES)
def test_each_fence_holds_by_itself(world: World, alone: str) -> None:
    """Images differ in what they have of these."""
    machine = world.running()
    for name, command in FENCES.items():
        if name != alone:
            machine.inside(command, check=False)
    assert "curl: (7)" in machine.inside(ASK, user=USER, check=False)
    machine.inside(FENCES[alone], check=False)
    assert "curl: (7)" not in machine.inside(ASK, user=USER, check=False), "so it was this one"


EVERY_FILE = "grep -rlsF -e {0} / --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev; true"
EVERY_PROCESS = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; true"


def test_a_session_reads_no_secret_of_the_machine(served: tuple[World, Machine]) -> None:
    world, machine = served
    assert machine.inside(EVERY_FILE.format(ENROLMENT_TOKEN), seconds=120), "root finds it, in what cloud-init keeps"
    assert machine.inside(EVERY_FILE.format(ENROLMENT_TOKEN), user=USER, seconds=120) == ""
    told = machine.inside(EVERY_PROCESS, user=USER)
    assert [secret for secret in (ENROLMENT_TOKEN, world.broker.agent) if secret in told] == []


def test_a_session_gets_into_nothing_of_the_agents(served: tuple[World, Machine]) -> None:
    _, machine = served
    attempts = {
        "its memory": "dd if=/proc/$(pgrep -of agent.py)/mem bs=1 count=1",
        "its open files": "ls /proc/$(pgrep -of agent.py)/fd",
        "its folder": "ls /var/lib/anybinder/agent",
        "what cloud-init keeps": "ls /var/lib/cloud /run/cloud-init",
        "its processes": "kill -9 $(pgrep -of agent.py)",
        "the switch": "systemctl stop anybinder-end.timer",
        "the unit": "systemctl stop anybinder",
        "root, by sudo": "sudo -n id",
        "the fence": "nft flush ruleset",
    }
    said = {
        name: machine.inside(f"{command} && echo THROUGH", user=USER, check=False) for name, command in attempts.items()
    }
    assert [name for name, words in said.items() if words.endswith("THROUGH")] == []
    assert machine.running


def test_a_link_in_place_of_its_socket_leads_the_agent_nowhere(world: World) -> None:
    machine = world.running()
    machine.inside("rm /run/anybinder/s/s.sock; ln -s /run/dbus/system_bus_socket /run/anybinder/s/s.sock", user=USER)
    with pytest.raises(Refused):
        world.broker.take()


def test_an_address_of_a_sessions_own_choice_leads_the_agent_nowhere(world: World) -> None:
    machine = world.running()
    told = json.dumps({"tcp": [metadata.ADDRESS, 80]})
    machine.inside(f"echo '{told}' >/run/anybinder/s/target", user=USER)
    leg = world.broker.take()
    leg.send(b"GET /latest/ HTTP/1.0\r\n\r\n")
    assert b"hello" in leg.receive_all()


# --- its end, whatever happens --------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["agent.py", "machine.py"])
def test_whichever_of_its_programs_is_killed_the_machine_goes_off(world: World, victim: str) -> None:
    machine = world.running()
    machine.inside(f"pkill -9 -f {victim}", check=False)
    until(lambda: not machine.running, seconds=60, what=machine.console())


def test_the_switch_of_the_first_line_needs_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its programs are stopped, so that the timer alone is left."""
    monkeypatch.setattr(bootstrap, "GRACE", dt.timedelta(seconds=10))
    machine = world.running(minutes=0.5)
    machine.inside("systemctl kill --signal=STOP anybinder")
    until(lambda: not machine.running, seconds=90, what=machine.console())


def test_a_machine_that_starts_again_goes_off(world: World) -> None:
    machine = world.running()
    machine.inside("cloud-init single --name bootcmd --frequency always", check=False)
    until(lambda: not machine.running, seconds=60, what=machine.console())


class Cloud(BaseHTTPRequestHandler):
    """Takes a key for a token, and with the token deletes a server; answers the first with an error."""

    asked: ClassVar[list[tuple[str, str, str]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        self.asked.append((self.command, self.path, body or self.headers.get("X-Auth-Token", "")))
        self.send_response(503 if len(self.asked) == 1 else 201)
        self.send_header("X-Subject-Token", "for-this-once")
        self.send_header("content-length", "0")
        self.end_headers()

    do_DELETE = do_POST  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def cloud(here: str) -> Iterator[str]:
    Cloud.asked.clear()
    server = ThreadingHTTPServer((here, 0), Cloud)
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://{here}:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def dead_man(cloud: str) -> dict[str, Any]:
    requests = (
        base.Request(method="POST", url=f"{cloud}/auth", body=DEAD_MAN_KEY, keep={"X-Auth-Token": "X-Subject-Token"}),
        base.Request(method="DELETE", url=f"{cloud}/servers/1"),
    )
    return {"requests": [asdict(each) for each in requests], "ends_at": "2027-01-01T00:00:00+00:00"}


@pytest.mark.parametrize("end", ["the broker falls silent", "its agent is killed"])
def test_a_machine_deletes_itself_where_going_off_is_not_enough(world: World, cloud: str, end: str) -> None:
    world.broker.dead_man = dead_man(cloud)
    world.broker.silence_seconds = 8
    machine = world.running()
    until(lambda: world.broker.reports[-1].get("dead_man"), what="the agent has it")
    assert machine.inside(EVERY_FILE.format(DEAD_MAN_KEY), seconds=120) == "", "it is in no file, not even for root"
    assert DEAD_MAN_KEY not in machine.inside(EVERY_PROCESS)
    if end == "its agent is killed":
        machine.inside("pkill -9 -f agent.py", check=False)
    else:
        world.broker.close()
    until(lambda: not machine.running, seconds=90, what=machine.console())
    assert Cloud.asked[-2:] == [("POST", "/auth", DEAD_MAN_KEY), ("DELETE", "/servers/1", "for-this-once")]
    assert "has deleted itself" in machine.console()
    assert DEAD_MAN_KEY not in machine.console()


# --- what keeps it from its session ---------------------------------------------------------------------------------


def ends_saying(machine: Machine, sentence: str) -> None:
    until(lambda: not machine.running, seconds=120, what=machine.console())
    assert sentence in machine.console()


def test_a_broker_that_is_not_reached_is_told_on_the_console(world: World) -> None:
    world.broker.close()
    ends_saying(world.start(boot_minutes=0.1), "failed: the broker is not reached")


def test_a_program_that_is_not_the_one_ordered_is_not_run(world: World) -> None:
    world.broker.files[world.files["machine.py"]] = b"print('anybinder: taken over')"
    machine = world.start(boot_minutes=0.1)
    ends_saying(machine, "failed: what the broker sent is not what was ordered: its digest is wrong")
    assert "taken over" not in machine.console()


def test_a_refused_enrolment_is_told_on_the_console(world: World) -> None:
    world.broker.answers["/agent/enrol"] = [403]
    ends_saying(world.start(), "the broker refuses the enrolment (403)")


# --- an image by name ---------------------------------------------------------------------------------------------

APP = json.dumps(["python3", "-m", "http.server", "3000"])
PROGRAMS = "bin/sh bin/ls usr/bin/curl usr/bin/env usr/bin/python3"
PARTS = f"{PROGRAMS} usr/lib/python3.11 $(cd /; ldd {PROGRAMS} | grep -o '/[^ :]*' | sort -u)"
"""Of the machine's own root: enough to serve, and to try what a session may not."""


def test_an_image_is_run_behind_a_fence_and_nothing_that_builds_is_installed(world: World) -> None:
    """No registry is asked: the image is there before the agent is let in."""
    world.files = parcels.digests()
    world.broker.spec |= {
        "content": {"kind": "image", "image": "app:1"}, "commit": "0" * 64, "repo_url": "docker://app", "inner": [],
        "private": "", "build_only": False, "clone_megabytes": 100,
    }  # fmt: skip
    world.broker.answers["/agent/enrol"] = [503] * 1000
    machine = world.start()
    until(lambda: "starting the agent" in machine.console(), seconds=120, what="its agent is at the door")
    machine.inside("python3 -I /var/lib/anybinder/machine.py --bring image", seconds=240)
    machine.inside(f"tar -C / -ch {PARTS} | docker import -c 'CMD {APP}' -c 'EXPOSE 3000' - app:1", seconds=240)
    world.broker.answers.clear()
    until(lambda: world.broker.status()["server"] == "up" or world.broker.messages("failed"), seconds=240)
    assert world.broker.status()["server"] == "up", world.broker.events

    inside = f"docker exec anybinder-{world.broker.order} sh -c"
    assert machine.inside(f"{inside} 'curl --version'").startswith("curl 7")
    before = len(machine.service.asked)
    assert "curl: (7)" in machine.inside(f"{inside} '{ASK}'", check=False)
    assert len(machine.service.asked) == before
    for place in ("/var/lib/cloud", "/var/lib/anybinder", "/run/anybinder/s", "/var/run/docker.sock"):
        assert "No such file" in machine.inside(f"{inside} 'ls {place}'", check=False)
    assert (
        machine.inside("command -v git; ls /var/lib/anybinder/bin /var/lib/anybinder/repo2docker 2>/dev/null; true")
        == ""
    )
