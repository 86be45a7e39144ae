"""Machines that are really bought and really boot: two beside one another, seen test after test, in this order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.clouds import launching
from tests.clouds.world import SESSIONS
from tests.conftest import wanted
from tests.openstack_boot import guest, world
from tests.openstack_boot.world import Real
from tests.servers.openstack import bed, hypervisor
from tests.waiting import until

pytestmark = pytest.mark.timeout(1200)
BOOT_SECONDS = 900  # in software, on two shared cores
SILENCE_MINUTES = "4"  # an agent that is emulated, on a busy computer, needs more than a minute for its first report
APP = {
    "start": "#!/bin/sh\nexec python app.py\n",
    "app.py": (
        "import http.server, os, socketserver, subprocess\n"
        "class App(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        asked = ['systemctl', 'show', '--property=ActiveState,NextElapseUSecRealtime', 'anybinder-end.timer']\n"
        "        body = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout\n"
        "        self.send_response(200)\n"
        "        self.send_header('content-type', 'text/plain')\n"
        "        self.send_header('content-length', str(len(body)))\n"
        "        self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "    def log_message(self, *words): pass\n"
        "class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): pass\n"
        "Server(os.environ['ANYBINDER_SOCKET'], App).serve_forever()\n"
    ),
}
"""Needs nothing, and tells what the machine's own systemd says of the dead-man switch."""


@dataclass
class Launches:
    """Of one person. One is stopped, the other is left alone."""

    real: Real
    page: Page
    stopped: str
    alone: str

    def ask(self, path: str) -> Any:
        """As the page of the launch would."""
        return self.page.request.get(f"{self.real.url}/api/launches/{path}").json()

    def said(self, launch: str) -> str:
        """What the broker reads on the console, with the credential of the launch; empty where the cloud takes too long."""
        return str(self.ask(f"{launch}/console").get("text", ""))

    def state(self, launch: str) -> str:
        return str(self.ask(launch)["state"])

    def until_said(self, launch: str, words: str) -> None:
        def come() -> bool:
            assert self.state(launch) != "stopped", self.ask(launch)
            return words in self.said(launch)

        until(come, seconds=BOOT_SECONDS, what=f"it says “{words}”")


@pytest.fixture(scope="module")
def real(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    for need in (guest.NEED, bed.NEED, hypervisor.NEED):
        wanted(need)
    folder = tmp_path_factory.mktemp("boot")
    with world.running(browser, folder, ANYBINDER_SILENCE_MINUTES=SILENCE_MINUTES) as made:
        yield made


@pytest.fixture(scope="module")
def launches(real: Real) -> Iterator[Launches]:
    with real.person() as page:
        ids = [world.begun(real, page, "app.git", APP) for _ in range(2)]
        yield Launches(real, page, *ids)


def test_a_machine_that_does_not_reach_its_broker_says_so_on_its_console(launches: Launches) -> None:
    """By then its end is arranged. Once the broker is there, it goes on."""
    launches.until_said(launches.stopped, "the broker is not reached")
    lines = [line for line in launches.said(launches.stopped).splitlines() if "anybinder: [" in line]
    assert "[0 s] goes off at" in lines[0], lines
    launches.real.open()
    launches.until_said(launches.stopped, "starting the agent")


@pytest.mark.parametrize("which", ["stopped", "alone"])
def test_its_session_answers_through_the_tunnel(real: Real, launches: Launches, which: str) -> None:
    launch = getattr(launches, which)
    until(lambda: launches.state(launch) in ("ready", "stopped"), seconds=BOOT_SECONDS, what="it is ready")
    assert launches.state(launch) == "ready", launches.said(launch)[-3000:]
    page = launches.page
    page.goto(f"{real.url}/launches/{launch}/open")
    page.wait_for_url(f"https://*.{SESSIONS}/**", timeout=60_000)
    told = page.locator("body").inner_text()
    page.goto("about:blank")
    assert "ActiveState=active" in told, told
    assert "NextElapseUSecRealtime=" in told.replace("NextElapseUSecRealtime=\n", ""), told


def test_stopped_is_a_machine_less(real: Real, launches: Launches) -> None:
    launching.stop(launches.page, f"{real.url}/launches/{launches.stopped}")
    launches.page.goto("about:blank")
    until(lambda: launches.state(launches.stopped) == "stopped", seconds=120, what="it is stopped")
    assert [each["status"] for each in real.cloud.machines()] == ["ACTIVE"]
    until(lambda: len(real.processes()) == 1, what="the other one's QEMU runs, and no more")


def test_a_machine_that_is_left_alone_deletes_itself(real: Real) -> None:
    """The broker is killed and stays dead: what deletes the machine is in the machine."""
    (machine,) = real.cloud.machines()
    real.broker.kill(real.broker.processes[-1])
    until(lambda: not real.cloud.machines(), seconds=700, what=real.console(machine["id"])[-2000:])
    until(lambda: not real.processes(), what="no QEMU runs")


def test_every_request_was_one_that_the_cloud_knows(real: Real) -> None:
    assert not real.invalid(), "\n".join(real.invalid())
    assert real.complaints == []
