"""The bed itself: what it would be worth nothing without."""

from __future__ import annotations

import base64

import pytest

from providers.contract import new_id
from tests.doubles.openstack_machines import OpenStackMachines
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("bed")


@pytest.fixture(scope="module")
def token(bed, project):
    return bed.token(project.user, project_id=project.id)


@pytest.fixture
def buy(bed, project, token):
    """A machine of this flavor, as Nova answers; deleted at the end."""
    bought = []

    def buy(flavor, told="hello"):
        flavors = bed.ask("GET", "/flavors", token=token, of="compute").json()["flavors"]
        images = bed.ask("GET", "/v2/images", token=token, of="image").json()["images"]
        wanted = {
            "name": "one",
            "flavorRef": next(each["id"] for each in flavors if each["name"] == flavor),
            "imageRef": images[0]["id"],
            "networks": [{"uuid": project.network}],
            "metadata": {"anybinder-order": new_id()},
            "user_data": base64.b64encode(told.encode()).decode(),
        }
        made = bed.ask("POST", "/servers", {"server": wanted}, token=token, of="compute").json()["server"]
        bought.append(made["id"])
        return made["id"]

    yield buy
    for machine in {each["id"] for each in bed.machines(project_id=project.id)} & set(bought):
        bed.ask("DELETE", f"/servers/{machine}", of="compute")


def test_what_a_machine_is_told_is_told_to_what_boots_it_and_so_is_its_end(bed, token, buy):
    heard = []
    with OpenStackMachines(bed, started=heard.append, deleted=heard.append) as machines:
        bought = buy("m3.tiny", "#cloud-config\n")
        until(lambda: heard, seconds=60, what="it is told")
        machine = heard.pop()
        assert (machine.id, machine.user_data) == (bought, "#cloud-config\n")
        assert set(machine.metadata) == {"anybinder-order"} and "cloud-config" not in repr(machine)
        machines.power_off(machine)
        off = ["SHUTOFF"]
        until(
            lambda: [each["status"] for each in bed.machines() if each["id"] == bought] == off, seconds=60, what="off"
        )
        bed.ask("DELETE", f"/servers/{bought}", token=token, of="compute")
        until(lambda: heard, seconds=60, what="its end is told")
        assert heard == [machine]


def test_what_no_host_has_room_for_is_accepted_and_then_fails(bed, buy):
    bought = buy("m3.toobig")

    def failed():
        return [each for each in bed.machines() if each["id"] == bought and each["status"] == "ERROR"]

    fault = until(failed, seconds=60, what="it has failed")[0]["fault"]
    assert fault["message"].startswith("No valid host was found.")
