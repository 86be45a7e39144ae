"""The machines themselves: they boot as a cloud's do, and nothing of them is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.clouds import leftovers
from tests.conftest import wanted
from tests.doubles.machines import Machine, Machines, image, metadata
from tests.doubles.public_way import PublicWay
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)  # the first test makes the image
HELLO = "#cloud-config\nruncmd:\n- [sh, -c, 'id -un > /root/who; echo the user data has run']\n"
CLOUDS: dict[str, Callable[[str], metadata.Service]] = {
    "ec2": lambda user_data: metadata.Ec2("i-0123456789abcdef0", user_data, tags={"Name": "mine"}),
    "openstack": lambda user_data: metadata.OpenStack("0a1b2c3d-0000-4000-8000-000000000000", user_data),
}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_cloud_init_runs_the_user_data_that_the_metadata_service_gives(machines: Machines, cloud: str) -> None:
    machine = machines.start(CLOUDS[cloud](HELLO)).booted()
    assert machine.inside("cat /root/who") == "root"
    said = machine.inside("cloud-init status --long")
    assert "status: done" in said, said
    datasource = {"ec2": "DataSourceEc2", "openstack": "DataSourceOpenStack"}[cloud]
    assert datasource in machine.inside("cat /run/cloud-init/result.json")
    assert "the user data has run" in machine.console()
    assert any("user" in path and "data" in path and status == 200 for _, path, status in machine.service.asked)
    assert machine.inside("systemctl is-system-running --wait", seconds=60) == "running"
    machine.cut()


def test_ec2_tells_nothing_to_who_shows_no_token(machines: Machines) -> None:
    machine = machines.start(CLOUDS["ec2"](HELLO)).booted()
    ask = f"curl --silent --output /dev/null --write-out '%{{http_code}}' http://{metadata.ADDRESS}"
    assert machine.inside(f"{ask}/latest/user-data") == "401"
    token = f"$(curl -sX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://{metadata.ADDRESS}/latest/api/token)"
    assert machine.inside(f'{ask}/latest/user-data -H "X-aws-ec2-metadata-token: {token}"') == "200"
    machine.cut()


def test_it_reaches_the_broker_by_name_and_believes_its_certificate(tmp_path: Path) -> None:
    wanted(image.NEED)
    server = HTTPServer(("127.0.0.1", 0), Greeting)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with PublicWay("hub.uni.example", tmp_path) as way, Machines(way) as machines:
        way.port = server.server_port
        machine = machines.start(CLOUDS["ec2"](HELLO)).booted()
        assert machine.inside("curl --silent https://hub.uni.example/") == "hello"
        asked = "import urllib.request as u; print(u.urlopen('https://hub.uni.example/').read().decode())"
        assert machine.inside(f'python3 -c "{asked}"') == "hello"
        refused = machine.inside(f"curl --silent --show-error https://{machine.wire.gateway}/", check=False)
        assert "SSL" in refused or "certificate" in refused, refused
    server.shutdown()
    server.server_close()


class Greeting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *args: Any) -> None:
        pass


ENDS: dict[str, Callable[[Machine], Any]] = {
    "a timer of its own": lambda machine: machine.inside(
        "systemd-run --on-active=1 --timer-property=AccuracySec=100ms systemctl poweroff"
    ),
    "a hard poweroff": lambda machine: machine.inside("poweroff --force --force", check=False),
    "the button": lambda machine: machine.press_power(),
    "the power": lambda machine: machine.cut(),
}


@pytest.mark.parametrize("end", ENDS)
def test_when_it_has_ended_nothing_of_it_is_left_and_its_cloud_knows(machines: Machines, end: str) -> None:
    told: list[Machine] = []
    machine = machines.start(CLOUDS["openstack"](HELLO), on_end=told.append).booted()
    machine.inside("setsid sh -c 'while :; do sleep 1; done' >/dev/null 2>&1 &")
    inner = leftovers.namespaces(machine.pid)
    assert leftovers.of(machine, inner)
    ENDS[end](machine)
    machine.ended.wait(60)
    assert leftovers.of(machine, inner) == []
    until(lambda: told == [machine], what="its cloud was told once")
    assert machine.was_cut == (end == "the power")
    assert "the user data has run" in machine.console()


def test_it_ends_with_whoever_started_it_however_that_ends(machines: Machines) -> None:
    program = (
        "import time\n"
        "from tests.doubles.machines import Machines, metadata\n"
        "with Machines() as machines:\n"
        "    machine = machines.start(metadata.Ec2('i-1', ''))\n"
        "    print(machine.pid, machine.folder, machine.wire.name, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid, folder, name = process.stdout.readline().split()
        inner = leftovers.namespaces(int(pid))
        process.send_signal(signal.SIGKILL)
    until(lambda: not leftovers.named(name, Path(folder), inner), seconds=30, what="nothing is left")
