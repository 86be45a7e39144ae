"""A server that its person made on a real OpenStack: chosen on the form, begun by the line in its shell, and left as it was."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.shared import APP
from tests.clouds import launching, openstack
from tests.clouds.openstack import OpenStack
from tests.clouds.world import picture
from tests.conftest import wanted
from tests.doubles.machines import Machine, image
from tests.servers.openstack import bed
from tests.waiting import until

pytestmark = pytest.mark.timeout(1800)
BIRTH = "#cloud-config\nusers:\n- name: ada\n  shell: /bin/bash\n"
HOME = "/home/ada"
MINE = re.compile("Your server “mine”")
FILES = {
    "start": "#!/bin/sh\nexec python app.py\n",
    "app.py": APP["app.py"]
    .replace("import http", "import getpass, http")
    .replace("self.path.split('?')[0]", "getpass.getuser()"),
}
"""An app that needs nothing installed, and says who it is."""


@pytest.fixture(scope="module")
def world(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStack]:
    wanted(image.NEED)
    wanted(bed.NEED)
    with openstack.running(browser, tmp_path_factory.mktemp("own")) as made:
        yield made


@pytest.fixture(scope="module")
def server(world: OpenStack) -> str:
    """As its person makes one on the dashboard; its id. It has git, as they have installed it."""
    cloud = world.cloud
    flavors = cloud.ask("GET", "/flavors/detail", of="compute").json()["flavors"]
    images = cloud.ask("GET", "/v2/images", of="image").json()["images"]
    told = {
        "name": "mine",
        "flavorRef": next(each["id"] for each in flavors if each["disk"] and each["ram"] < 5000),
        "imageRef": next(each["id"] for each in images if each["visibility"] == "public"),
        "networks": [{"uuid": world.project.network}],
        "user_data": base64.b64encode(BIRTH.encode()).decode(),
    }
    token = cloud.token(world.project.user, project_id=world.project.id)
    made = str(cloud.ask("POST", "/servers", {"server": told}, token=token, of="compute").json()["server"]["id"])
    until(lambda: made in world.booting.all, seconds=120, what="it has power")
    machine = world.booting.all[made].booted()
    machine.inside("command -v git || (apt-get -qq update && apt-get -qq install --yes git)", seconds=300)
    return made


def pasted(machine: Machine, line: str) -> str:
    """In the shell of somebody who has logged in to it."""
    return machine.inside(f"export HOME={HOME}; bash -c {shlex.quote(line)}", user="ada")


def choose(world: OpenStack, page: Page) -> None:
    """The form, once the cloud has said what there is."""

    def offered() -> bool:
        page.goto(world.url)
        return page.get_by_label(MINE).count() == 1

    until(offered, seconds=180, what="the form has it")
    page.get_by_label("Repository", exact=True).fill(world.repository("hello.git", FILES))
    page.locator("label", has_text=MINE).first.click()
    expect(page.get_by_label(MINE).first).to_be_checked()


def test_it_is_run_on_and_left_as_it_was(world: OpenStack, server: str) -> None:
    machine, before = world.booting.all[server], shown(world, server)
    at_home = machine.inside(f"find {HOME}")
    with world.person() as page:
        choose(world, page)
        picture(page, "own-server-1-choice", whole=True)
        progress = launching.begin(page)
        box = page.get_by_label("For the shell of your server")
        expect(box).to_be_visible(timeout=180_000)
        picture(page, "own-server-2-line")
        line = box.input_value()
        assert "the session starts here, as ada" in pasted(machine, line)
        outcome = page.get_by_role("heading", name=re.compile("hello from|This launch failed"))
        expect(outcome).to_be_visible(timeout=launching.READY_MS)
        expect(outcome).to_have_text("hello from ada")
        assert "pasted here before" in machine.inside(f"export HOME={HOME}; {line}", user="ada", check=False)
        assert ".anybinder" in machine.inside(f"ls -A {HOME}")
        launching.stop(page, progress)
        expect(page.get_by_text("Nothing of it is left").first).to_be_attached(timeout=180_000)
    until(lambda: not machine.inside("pgrep --uid ada", check=False), seconds=60, what="its processes have ended")
    until(lambda: machine.inside(f"find {HOME}") == at_home, seconds=30, what="its folder is gone")
    assert machine.running and shown(world, server) == before and before["status"] == "ACTIVE"
    assert [each for each in world.left() if each.startswith("/")] == []
    assert world.complaints == [] and world.invalid() == []


def shown(world: OpenStack, server: str) -> dict[str, object]:
    """All that Nova says of it."""
    return dict(world.cloud.ask("GET", f"/servers/{server}", of="compute").json()["server"])
