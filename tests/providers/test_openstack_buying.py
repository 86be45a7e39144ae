"""What OpenStack is asked when it buys, and what its answers mean, without a cloud. Real services: tests/openstack."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import pytest
from keystoneauth1 import access

from providers import base
from providers.base import InstanceState, Resources
from providers.errors import (
    BadCredential,
    InvalidOrder,
    NoCapacity,
    PermissionMissing,
    ProviderError,
    ProviderUnavailable,
    QuotaExceeded,
)
from providers.openstack import (
    OpenStackProvider,
    claims,
    clouds,
    images,
    labels,
    looking,
    needs,
    offers,
    parts,
    servers,
)
from providers.openstack.clouds import Cloud
from providers.openstack.keystone import Cloudy
from providers.openstack.services import Services
from tests.providers.test_openstack import TOKEN, TRUST, Listener, listener, reply

__all__ = ["listener"]  # the fixture

NOW = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)
TAG = base.Tag(broker="b1b2b3b4", launch="l1", order="o1", until=NOW)
ORDER = base.Order(
    id="o1",
    offer=base.Offer(id="f1", title="m3.quad"),
    tag=TAG,
    boot=base.Boot(user_data="#cloud-config\n# é\n", config={}, agent=""),
)
WANTED = servers.Wanted(flavor="f1", image="i1", network="n1", group="g1")
JETSTREAM = clouds.presets()["jetstream2"]


# --- what is offered ------------------------------------------------------------------------------------------------


def offered(
    cloud: Cloud = JETSTREAM, *, room: dict[str, int] | None = None, volume_gb: int = 0, **told: Any
) -> base.Offer:
    flavor = {"id": "f1", "name": "m3.quad", "vcpus": 4, "ram": 15360, "disk": 20, **told}
    return offers.offer_of(flavor, cloud, room=room or {}, zone="", volume_gb=volume_gb)


def test_a_flavor_costs_what_the_clouds_own_page_says_and_says_whose_word_that_is():
    offer = offered()
    assert (offer.price_per_hour, offer.currency) == (Decimal(4), "SU")
    assert "Instance Flavors" in offer.price_source and offer.price_as_of == "2026-11-28"
    assert offered(name="r3.large", vcpus=64).price_per_hour == Decimal(128)


def test_what_nobody_has_told_is_unknown_and_never_free():
    assert offered(name="g3.medium").price_per_hour is None
    assert offered(Cloud(auth_url="https://elsewhere.example/v3")).price_per_hour is None


def test_every_rate_of_a_preset_says_who_said_it_and_when():
    for name, cloud in clouds.presets().items():
        for rate in cloud.rates:
            assert rate.source and dt.date.fromisoformat(rate.as_of), name
            assert rate.price(2) is None or rate.price(2) > 0, name


def test_a_flavor_without_a_disk_boots_from_a_volume_and_the_order_remembers_how_large():
    offer = offered(disk=0)
    assert offer.resources.disk_gb == offers.BOOT_VOLUME_GB
    assert offers.meant(offer.id) == ("f1", offers.BOOT_VOLUME_GB)
    assert offers.meant(offered(volume_gb=80).id) == ("f1", 80)
    assert offers.meant(offered().id) == ("f1", 0)


@pytest.mark.parametrize(
    ("room", "says"),
    [
        ({}, ""),
        ({"machines": 1, "vCPUs": 4, "MiB of memory": 15360}, ""),
        ({"machines": 0}, "room for 0 more machines only"),
        ({"machines": 9, "vCPUs": 3}, "room for 3 more vCPUs only"),
    ],
)
def test_what_is_beyond_the_quota_is_offered_and_says_so(room, says):
    assert says in offered(room=room).beyond and bool(says) == bool(offered(room=room).beyond)


def test_what_is_offered_is_large_enough():
    has = Resources(cpu=4, memory_mb=15360, disk_gb=20)
    assert offers.fits(has, Resources()) and offers.fits(has, Resources(cpu=4, memory_mb=8192))
    assert not offers.fits(has, Resources(gpu=1))


# --- what is asked --------------------------------------------------------------------------------------------------


def test_the_creating_call_carries_the_tag_and_nothing_that_was_not_meant():
    told = servers.body(ORDER, WANTED)
    assert base.Tag.from_labels(told["metadata"]) == TAG
    assert base64.b64decode(told["user_data"]).decode() == ORDER.boot.user_data
    assert set(told) == {
        "name", "flavorRef", "imageRef", "metadata", "user_data", "networks", "security_groups"
    }  # fmt: skip
    assert told["name"] == "anybinder-o1" and labels.order_of(told["name"]) == "o1"


def test_a_boot_volume_is_deleted_with_its_machine():
    told = servers.body(ORDER, dataclasses.replace(WANTED, volume_gb=40, config_drive=True))
    (volume,) = told["block_device_mapping_v2"]
    assert volume["delete_on_termination"] is True and volume["volume_size"] == 40 and volume["uuid"] == "i1"
    assert told["imageRef"] == "" and told["config_drive"] is True


def test_a_zone_is_named_where_one_is_configured():
    zoned = dataclasses.replace(ORDER, offer=dataclasses.replace(ORDER.offer, zone="nova"))
    assert servers.body(zoned, WANTED)["availability_zone"] == "nova"


def test_user_data_is_as_long_as_nova_takes_and_no_longer():
    most = dataclasses.replace(ORDER.boot, user_data="x" * servers.USER_DATA_MOST)
    told = servers.body(dataclasses.replace(ORDER, boot=most), WANTED)
    assert len(told["user_data"]) <= 65_535 < len(base64.b64encode(b"x" * (servers.USER_DATA_MOST + 1)))
    longer = dataclasses.replace(ORDER.boot, user_data="é" * servers.USER_DATA_MOST)
    with pytest.raises(InvalidOrder, match="OpenStack takes 49149"):
        servers.body(dataclasses.replace(ORDER, boot=longer), WANTED)


def test_a_tag_fits_into_a_description_and_comes_back():
    long = dataclasses.replace(TAG, broker="b" * 32, launch="l" * 32, order="o" * 32)
    assert len(labels.text(long)) <= 255 and labels.of_text(labels.text(long)) == long
    assert labels.of_text("Default security group") is None and labels.of_text("") is None


def test_whatever_is_asked_for_has_its_rule():
    """What the driver's modules ask, word by word; `{…}` stands for an id."""
    asked = {f"{need.service} {need.method} {need.path}" for need in needs.NEEDS}
    for line in (
        "compute GET /servers/detail", "compute POST /servers", "compute DELETE /servers/{server_id}",
        "image POST /images", "image PATCH /images/{image_id}", "image DELETE /images/{image_id}",
        "network POST /security-groups", "network DELETE /security-groups/{security_group_id}", "network PUT /ports/{port_id}",
    ):  # fmt: skip
        assert line in asked


def test_addresses_have_rules_of_their_own_where_the_operator_wants_them_and_nowhere_else():
    usual = OpenStackProvider({"preset": "jetstream2"}).guide("application_credential", TRUST, {})
    told = OpenStackProvider({"preset": "jetstream2", "floating_network": "public"})
    with_addresses = told.guide("application_credential", TRUST, {})
    assert "floatingips" not in usual.script and '"POST", "path": "/v2.0/floatingips"' in with_addresses.script
    assert "make networks or addresses" in usual.cannot[-1] and "addresses" not in with_addresses.cannot[-1]


@pytest.mark.parametrize("purpose", [None, *base.Purpose])
def test_who_only_cleans_up_looks_for_cards_and_addresses_too_though_it_may_make_none(purpose: base.Purpose | None):
    endpoint = {"interface": "public", "region_id": "IU", "region": "IU", "url": "https://network.example/v2.0"}
    told = {
        "catalog": [{"type": "network", "name": "neutron", "endpoints": [endpoint]}],
        "application_credential": {"id": "a1", "access_rules": needs.rules(purpose=purpose, addresses=True)},
    }
    known = access.AccessInfoV3({"token": told}, "token")
    assert parts._kinds(Services(Cloudy(JETSTREAM), known)) == list(parts.KINDS)


# --- how it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "task", "state", "says"),
    [
        ("BUILD", "spawning", InstanceState.PENDING, ""),
        ("ACTIVE", None, InstanceState.RUNNING, ""),
        ("ACTIVE", "deleting", InstanceState.STOPPING, "is deleting it"),
        ("REBOOT", None, InstanceState.RUNNING, ""),
        ("SHUTOFF", None, InstanceState.STOPPING, "does not end its bill"),
        ("SHELVED_OFFLOADED", None, InstanceState.STOPPING, "its disk is kept"),
        ("ERROR", None, InstanceState.STOPPING, "had no room for it: No valid host was found"),
        ("DELETED", None, InstanceState.GONE, ""),
        ("SOMETHING_NEW", None, InstanceState.STOPPING, "says SOMETHING_NEW"),
    ],
)
def test_states_of_nova(status, task, state, says):
    told = {"status": status, "OS-EXT-STS:task_state": task, "fault": {"message": "No valid host was found. "}}
    found, detail = servers.state_of(told)
    assert found is state and says in detail


def claim(state: claims.State = claims.State.BEGUN, seconds_ago: float = 0, number: int = 0) -> claims.Claim:
    asked = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds_ago)
    return claims.Claim(id="c1", tag=TAG, number=number, asked=asked, holder="h", state=state)


@pytest.mark.parametrize(
    ("taken", "state", "says"),
    [
        ([{}], InstanceState.PENDING, "being asked for"),
        ([{"seconds_ago": claims.SETTLE_SECONDS + 1}], InstanceState.STOPPING, "No machine came"),
        ([{"state": claims.State.OVER}, {"number": 1}], InstanceState.PENDING, "being asked for"),
        ([{"state": claims.State.BOUGHT}], InstanceState.STOPPING, "was deleted"),
    ],
)
def test_an_order_without_a_machine(taken, state, says):
    found = looking.instance_of(looking.Held(claims=[claim(**each) for each in taken]))
    assert found.state is state and says in found.detail and found.tag == TAG and found.id == "anybinder-o1"


# --- what is answered -----------------------------------------------------------------------------------------------


def catalogued(listener: Listener) -> base.Credential:
    kinds = ("compute", "image", "network")
    published = [
        {"type": kind, "name": kind, "endpoints": [
            {"interface": "public", "region": "", "region_id": "", "url": f"{listener.url}/{kind}/v2"}]}
        for kind in kinds
    ]  # fmt: skip
    told = {"token": {**TOKEN["token"], "catalog": published}}
    return base.Credential(who="ada", secret={"token": "canary-of-a-token", "told": json.dumps(told)})


NOVA = '{"forbidden": {"code": 403, "message": "%s"}}'


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (403, NOVA % "Quota exceeded for instances: Requested 1, but already used 3 of 3 instances", QuotaExceeded,
         "“Quota exceeded for instances: Requested 1, but already used 3 of 3 instances”"),
        (403, NOVA % "Policy doesn't allow os_compute_api:servers:index to be performed.", PermissionMissing,
         "compute GET /compute/v2/servers/detail (“Policy doesn't allow os_compute_api:servers:index to be performed”)"),
        (409, '{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: [\'security_group\']."}}',
         QuotaExceeded, "security_group"),
        (413, '{"message": "You are above your limit", "code": "413"}', QuotaExceeded, "above your limit"),
        (500, NOVA % "No valid host was found.", ProviderUnavailable, "answers 500"),
        (400, NOVA % "No valid host was found. There are not enough hosts available.", NoCapacity, "has no room"),
        (400, '{"badRequest": {"code": 400, "message": "Flavor 4242 could not be found."}}', InvalidOrder, "Flavor 4242"),
        (401, '{"error": {"code": 401, "message": "The request you have made requires authentication."}}',
         BadCredential, "it has ended, or it was revoked"),
        (429, "{}", ProviderUnavailable, "answers 429"),
        (503, "<html>down</html>", ProviderUnavailable, "answers 503"),
        (302, "", ProviderUnavailable, "has moved"),
        (200, "<html>welcome</html>", ProviderUnavailable, "is no OpenStack"),
        (200, '{"servers": {}}', ProviderUnavailable, "makes no sense"),
    ],
)  # fmt: skip
def test_what_a_refusal_means_is_said_in_the_clouds_own_words(listener, status, body, error, says):
    listener.answer = lambda request: reply(request, status, body.encode())
    with pytest.raises(ProviderError) as refused:
        listener.provider.describe(catalogued(listener), "anybinder-o1")
    assert type(refused.value) is error and says in str(refused.value)
    assert "canary" not in str(refused.value)


def test_a_missing_access_rule_is_named_with_what_to_do(listener):
    narrow = catalogued(listener)
    told = json.loads(narrow.secret["told"])
    told["token"]["application_credential"]["access_rules"] = [
        {"service": "compute", "method": "GET", "path": "/compute/v2/flavors/detail"}
    ]
    listener.answer = lambda request: reply(request, 401, b'{"error": {"message": "no"}}')
    narrow = dataclasses.replace(narrow, secret={**narrow.secret, "told": json.dumps(told)})
    with pytest.raises(PermissionMissing, match='"path": "/compute/v2/servers/detail"'):
        listener.provider.describe(narrow, "anybinder-o1")


def test_a_project_that_is_shown_no_such_service(listener):
    bare = base.Credential(who="ada", secret={"token": "t", "told": json.dumps(TOKEN)})
    with pytest.raises(PermissionMissing, match="no service “compute”"):
        listener.provider.offers(bare, Resources())


def test_a_token_is_sent_to_no_service_in_clear_text(listener):
    strict = OpenStackProvider({"auth_url": "https://cloud.example.org:5000/v3"})
    with pytest.raises(PermissionMissing, match="without encryption"):
        strict.describe(catalogued(listener), "anybinder-o1")
    assert listener.asked == []


def test_what_a_neutron_tells_page_by_page_is_read_to_its_end(listener):
    """Some give a hundred at a time; a firewall on the second page is left behind, and said to be gone, by who reads one."""
    others = [{"id": f"g{number}", "description": "somebody's own"} for number in range(3)]
    pages = {
        "": {"security_groups": others, "security_groups_links": [{"rel": "next", "href": "…"}]},
        "g2": {"security_groups": [{"id": "g3", "description": labels.text(TAG)}], "security_groups_links": []},
    }

    def answer(request: Any) -> None:
        path, _, query = request.path.partition("?")
        name = path.rpartition("/")[2]
        if name == "security-groups":
            return reply(request, 200, json.dumps(pages["".join(parse_qs(query).get("marker", []))]).encode())
        names = {"images": "images", "detail": "servers", "ports": "ports", "floatingips": "floatingips"}
        return reply(request, 200, json.dumps({names[name]: []}).encode())

    listener.answer = answer
    (found,) = listener.provider.instances(catalogued(listener), TAG.broker)
    assert (found.tag, found.parts) == (TAG, ("security group g3",))


@pytest.mark.parametrize("out", ["image", "network"])
def test_a_machine_is_deleted_although_what_keeps_its_other_things_is_out_of_order(listener, out):
    """It alone costs money: a Glance that is down for a day must not be a day's bill."""
    deleted = []
    machine = {
        "id": "s1",
        "metadata": TAG.as_labels(),
        "status": "ACTIVE",
        "created": "2026-11-28T12:00:00Z",
        "OS-EXT-STS:task_state": None,
    }

    def answer(request: Any) -> None:
        path = request.path.partition("?")[0]
        if path.startswith(f"/{out}/"):
            return reply(request, 503, b"{}")
        if request.command == "DELETE":
            deleted.append(path.rpartition("/v2")[2])
            return reply(request, 204, b"")
        name = path.rpartition("/")[2]
        listed = {"detail": {"servers": [machine]}, "images": {"images": []}, "ports": {"ports": []}}
        return reply(request, 200, json.dumps(listed[name]).encode())

    listener.answer = answer
    with pytest.raises(ProviderUnavailable, match="answers 503"):
        listener.provider.terminate(catalogued(listener), "anybinder-o1", "o1")
    assert deleted == ["/servers/s1"]


def test_a_list_that_never_ends_is_given_up(listener):
    server = {"id": "s1", "metadata": {}}
    page = {"servers": [server], "servers_links": [{"rel": "next", "href": "…"}]}
    listener.answer = lambda request: reply(request, 200, json.dumps(page).encode())
    with pytest.raises(ProviderUnavailable, match="does not end"):
        listener.provider.describe(catalogued(listener), "anybinder-o1")


@pytest.mark.parametrize("volume", ["much", "-1", "4.5"])
def test_a_boot_volume_is_a_number_of_gb(volume):
    with pytest.raises(InvalidOrder, match="number of GB"):
        OpenStackProvider({"preset": "jetstream2", "volume_gb": volume})


# --- what a machine starts from, and where ----------------------------------------------------------------------------

IMAGES = [
    {
        "id": "i1",
        "name": "Ubuntu 24.04",
        "visibility": "public",
        "created_at": "2026-01-01T00:00:00Z",
        "disk_format": "raw",
    },
    {
        "id": "i2",
        "name": "Ubuntu 24.04",
        "visibility": "public",
        "created_at": "2026-06-01T00:00:00Z",
        "disk_format": "raw",
    },
    {
        "id": "i3",
        "name": "Ubuntu 24.04",
        "visibility": "shared",
        "created_at": "2026-09-01T00:00:00Z",
        "disk_format": "raw",
    },
    {
        "id": "i4",
        "name": "Ubuntu 24.04",
        "visibility": "public",
        "created_at": "2026-09-01T00:00:00Z",
        "disk_format": "aki",
    },
    {
        "id": "i5",
        "name": "My own",
        "visibility": "private",
        "created_at": "2026-09-01T00:00:00Z",
        "disk_format": "qcow2",
    },
]
OUTSIDE = {"id": "n0", "name": "public", "router:external": True, "project_id": "operators"}
MINE, MINE_TOO = ({"id": each, "name": each, "project_id": "p1"} for each in ("n1", "n2"))
SHARED = {"id": "n3", "name": "shared", "project_id": "operators"}


class Project:
    """A listener as a project with these images and networks, where a first claim is met by a refusal."""

    def __init__(self, listener: Listener, images: list[dict[str, Any]], networks: list[dict[str, Any]]) -> None:
        self.listener, self.lists = listener, {"images": images, "networks": networks}
        listener.answer = self.answer

    def answer(self, request: Any) -> None:
        name = request.path.partition("?")[0].rpartition("/")[2]
        if request.command == "POST":
            self.claimed = True
            reply(request, 403, b'{"message": "You are not authorized to complete add_image action."}')
        else:
            reply(request, 200, json.dumps({name: self.lists[name]}).encode())

    def refuses(self, **configuration: str) -> str:
        provider = OpenStackProvider({"auth_url": f"{self.listener.url}/v3", **configuration})
        with pytest.raises(ProviderError) as refused:
            provider.provision(catalogued(self.listener), ORDER)
        return str(refused.value)


def test_an_image_that_is_gone_has_its_own_sentence_and_nothing_is_made(listener):
    project = Project(listener, IMAGES, [MINE])
    assert "no image called “Debian 99” any more" in project.refuses(image="Debian 99")
    assert "no stock image of Debian or Ubuntu" in Project(listener, IMAGES[2:], [MINE]).refuses()


def test_a_project_whose_users_may_make_no_records_in_glance_is_told_so(listener):
    said = Project(listener, IMAGES, [MINE]).refuses()
    assert "image POST /image/v2/images (“You are not authorized to complete add_image action”)" in said


@pytest.mark.parametrize(
    ("networks", "name", "says"),
    [
        ([], "", "has no network of its own"),
        ([OUTSIDE], "", "has no network of its own"),
        ([MINE, MINE_TOO], "", "has 2 networks of its own. There are: n1, n2"),
        ([MINE], "n9", "has no network called “n9”. There are: n1"),
        ([MINE, SHARED], "", "add_image"),
        ([SHARED], "", "add_image"),
        ([OUTSIDE, MINE], "public", "add_image"),
        ([MINE, {**MINE_TOO, "name": "auto_allocated_network"}], "", "add_image"),
    ],
)
def test_the_network_is_the_one_that_is_meant_or_there_is_a_sentence(listener, networks, name, says):
    assert says in Project(listener, IMAGES, networks).refuses(network=name)


@pytest.mark.parametrize(("name", "image"), [("", "i2"), ("My own", "i5"), ("i1", "i1")])
def test_the_newest_stock_image_that_the_cloud_itself_publishes_or_the_configured_one(listener, name, image):
    Project(listener, IMAGES, [])
    with listener.provider._services(catalogued(listener)) as services:
        assert images.chosen(services, name, "")["id"] == image


@pytest.mark.parametrize(
    ("status", "at_once"), [(429, True), (503, True), (500, False), (502, False), (504, False)]
)  # fmt: skip
def test_only_a_request_that_was_turned_away_lets_the_next_caller_buy_at_once(listener, status, at_once):
    """What stands before Nova answers 502 and 504 for what Nova goes on with: a second request would be a second machine."""
    said = []

    def answer(request: Any) -> None:
        name = request.path.partition("?")[0].rpartition("/")[2]
        if request.command == "PATCH":
            said.extend(json.loads(request.rfile.read(int(request.headers["content-length"]))))
            return reply(request, 200, b"{}")
        if request.command == "GET":
            return reply(request, 200, json.dumps({name: {"images": IMAGES, "networks": [MINE]}[name]}).encode())
        if name == "servers":
            return reply(request, status, b"")
        return reply(request, 201, json.dumps({"id": "c1", "security_group": {"id": "g1"}}).encode())

    listener.answer = answer
    with pytest.raises(ProviderUnavailable, match=f"answers {status}"):
        listener.provider.provision(catalogued(listener), ORDER)
    assert [each["value"] for each in said] == (["over"] if at_once else [])
