"""What a container cannot do: reach this computer or another container, gain rights, or lead the agent astray."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from broker import agent
from tests.servers import docker
from tests.waiting import until

REACHED = "reached you"


@contextlib.contextmanager
def listening(address: str = "0.0.0.0") -> Iterator[int]:
    """A server of this computer that says who was reached."""
    code = (
        "import socket, sys\n"
        f"s = socket.create_server(({address!r}, 0)); print(s.getsockname()[1], flush=True)\n"
        "while True:\n"
        f"    c, _ = s.accept(); c.recv(4096); c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n{REACHED}'); c.close()\n"
    )
    with subprocess.Popen(["python3", "-c", code], stdout=subprocess.PIPE, text=True) as server:
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def addresses() -> set[str]:
    """This computer's own IPv4 addresses, the bridges' included."""
    said = subprocess.run(["ip", "-4", "-json", "address"], capture_output=True, text=True, check=True).stdout
    return {each["local"] for device in json.loads(said) for each in device["addr_info"]}


def ask(one, url: str) -> str:
    return one.inside(f"curl --silent --show-error --max-time 5 {url}")


def test_a_container_does_not_reach_this_computer(session, app):
    one = session(app).up()
    with listening() as port:
        assert len(addresses()) >= 3
        for address in addresses() | {"host.docker.internal", "0.0.0.0"}:
            assert REACHED not in ask(one, f"http://{address}:{port}/"), address
    broker = one.broker.url.rpartition(":")[2]
    gateway = next(iter(one.facts()["NetworkSettings"]["Networks"].values()))["Gateway"]
    assert "curl: (" in ask(one, f"http://{gateway}:{broker}/")


@pytest.mark.parametrize("address", ["169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "100.100.100.200",
                                     "168.63.129.16", "10.0.0.1", "192.168.0.1"])  # fmt: skip
def test_a_container_reaches_no_metadata_and_no_private_network(shared, address):
    assert "curl: (7)" in ask(shared, f"http://{address}/"), "refused at once"


def test_a_container_reaches_the_internet(shared):
    mirror = docker.mirrors()[docker.RELEASE].rstrip("/")
    assert "Suite:" in ask(shared, f"--location {mirror}/dists/{docker.RELEASE}/Release | head -5")


@pytest.fixture(scope="module")
def shared(engine, app, tmp_path_factory):
    """One fenced container for many questions; made by the network's own means, without a session around it."""
    from broker.environments import engines, network

    told = {"url": engine.url, "network": "fenced"}
    with engines.client(told) as client:
        name = network.ensure(client, told)
    made = engine.docker("run", "--detach", "--network", name, engine.base_image, "sleep", "600")
    yield SimpleNamespace(inside=lambda command: engine.docker("exec", made, "sh", "-c", command, check=False))
    engine.docker("rm", "--force", made)


def test_a_build_does_not_reach_this_computer_either(engine, shared):
    made = ["run", "--rm", engine.base_image, "sh", "-c"]
    with listening() as port:
        for address in addresses():
            said = engine.docker(*made, f"curl -sS --max-time 5 http://{address}:{port}/", check=False)
            assert "curl: (7)" in said, address
    assert "curl: (7)" in engine.docker(*made, "curl -sS --max-time 5 http://169.254.169.254/", check=False)


def test_two_containers_do_not_reach_each_other(session, app):
    one, other = session(app).up(), session(app).up()
    address = next(iter(other.facts()["NetworkSettings"]["Networks"].values()))["IPAddress"]
    assert other.get("/") == "hello from 3000"
    assert "curl: (" in ask(one, f"http://{address}:3000/")
    assert "curl: (" in ask(one, f"http://{other.container}:3000/")
    assert one.inside("ls /run/anybinder") == ""


@pytest.mark.root
def test_another_user_of_this_computer_does_not_reach_a_container(session, app):
    one = session(app).up()
    host, port = json.loads((one.runtime / "target").read_text())["tcp"]
    nobody = pwd.getpwnam("nobody").pw_uid
    asked = ["curl", "-sS", "--max-time", "5", f"http://{host}:{port}/"]
    said = subprocess.run(asked, user=nobody, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert "curl: (7)" in said.stdout
    assert one.get("/") == "hello from 3000"


def test_jupyter_needs_no_network_at_all(session, jupyter):
    one = session(jupyter, network="none").up()
    assert one.broker.status["kind"] == "jupyter"
    assert one.inside("ls /sys/class/net").split() == ["lo"]


def test_a_session_may_reach_a_private_address_that_the_operator_names(session, app):
    (own,) = [each for each in addresses() if each == primary()]
    one = session(app, network_allowed=f"{own}, 10.9.8.0/24").up()
    with listening() as port:
        assert ask(one, f"http://{own}:{port}/") == REACHED


def primary() -> str:
    said = subprocess.run(
        ["ip", "-4", "-json", "route", "get", "192.0.2.255"], capture_output=True, text=True, check=True
    )
    return json.loads(said.stdout)[0]["prefsrc"]


def test_a_container_has_no_rights_that_it_can_do_without(session, jupyter, app):
    plain, root = session(jupyter).up(), session(app).up()
    for one in (plain, root):
        assert one.facts()["HostConfig"]["Privileged"] is False
        assert one.inside("grep NoNewPrivs /proc/1/status").split()[-1] == "1"
        (bound,) = one.facts()["Mounts"]
        assert bound["Destination"] == "/run/anybinder"
    rights = [int(one.inside("grep CapBnd /proc/1/status").split()[-1], 16) for one in (plain, root)]
    assert rights[0] == 0
    assert rights[1] & (1 << 13 | 1 << 12 | 1 << 21 | 1 << 27) == 0, (
        "no raw sockets, no networks, no mounts, no devices"
    )


def test_a_link_in_place_of_its_socket_leads_the_agent_nowhere(tmp_path):
    """The container may write where its socket is: to another socket of this computer, it must not lead."""
    folder = Path("/tmp") / f"abx-{os.getpid()}"
    folder.mkdir(mode=0o700)
    try:
        with (
            contextlib.closing(socket.socket(socket.AF_UNIX)) as precious,
            contextlib.closing(socket.socket(socket.AF_UNIX)) as own,
        ):
            precious.bind(str(folder / "engine.sock"))
            precious.listen()
            (folder / "c").mkdir()
            (folder / "target").write_text(json.dumps({"unix": str(folder / "c/s")}))
            (folder / "c/s").symlink_to(folder / "engine.sock")
            with pytest.raises(OSError):
                asyncio.run(connect(folder))
            (folder / "c/s").unlink()
            own.bind(str(folder / "c/s"))
            own.listen()
            asyncio.run(connect(folder))
    finally:
        subprocess.run(["rm", "-r", folder], check=True)


async def connect(folder: Path) -> None:
    """As the agent does."""
    boot = SimpleNamespace(runtime=str(folder), home=str(folder), tcp_servers=False)
    served = SimpleNamespace(boot=boot, user=None, session={"server_token": "t"}, spec={})
    server = agent.Server(served, {"argv": []})
    assert server._is_there()
    transport, _ = await server.connect(asyncio.Protocol)
    transport.close()
    await asyncio.sleep(0)
    (folder / "target").unlink()
    with pytest.raises(ConnectionRefusedError):  # what had its address has ended: the address may be another's
        await server.connect(asyncio.Protocol)
    (folder / "target").write_text(json.dumps({"unix": str(folder / "c/s")}))


def rules() -> list[str]:
    return subprocess.run(["iptables", "-S"], capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_fence_comes_first_and_is_there_once(shared):
    from broker.environments import network

    other = ["FORWARD", "-i", "anybf+", "-m", "comment", "--comment", "another", "-j", "ACCEPT"]
    subprocess.run(["iptables", "-I", *other], check=True)
    try:
        network.make_fence([], network.name_servers())
        network.make_fence([], network.name_servers())
        assert next(rule for rule in rules() if "anybf+" in rule and "FORWARD" in rule).endswith("-j ANYBINDER")
        assert "curl: (7)" in ask(shared, "http://10.0.0.1/")
    finally:
        subprocess.run(["iptables", "-D", *other], check=True)
    assert len([rule for rule in rules() if rule == "-A INPUT -i anybf+ -j ANYBINDER-HOST"]) == 1


def test_the_fence_can_be_taken_away(shared):
    from broker.environments import network

    network.remove_fence()
    assert "ANYBINDER" not in " ".join(rules())
    network.make_fence([], network.name_servers())
    assert "curl: (7)" in ask(shared, "http://10.0.0.1/")


def test_a_network_that_the_fence_does_not_hold_for_is_replaced(engine, shared, monkeypatch):
    from broker.environments import engines, network

    monkeypatch.setitem(network.NETWORKS, "fenced", "anybinder-other")
    engine.docker("network", "create", "anybinder-other")
    told = {"kind": "docker", "url": engine.url, "network": "fenced"}
    monkeypatch.setattr(network, "bridge_of", lambda _: "anybftest")  # its own name has a bridge already
    with engines.client(told) as client:
        network.ensure(client, told)
    try:
        assert '"com.docker.network.bridge.name": "anybftest"' in engine.docker("network", "inspect", "anybinder-other")
    finally:
        engine.docker("network", "rm", "anybinder-other")


def test_several_at_once_make_one_network(engine):
    from broker.environments import engines, network

    told = {"url": engine.url, "network": "open"}
    faults: list[BaseException] = []

    def make() -> None:
        try:
            with engines.client(told) as client:
                network.ensure(client, told)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    until(lambda: engine.docker("network", "ls", "-q", "--filter", "name=anybinder-open").count("\n") == 0)
