"""What the operators of a cloud would make in it, named as in Jetstream2."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.servers.openstack.bed import Cloud

FLAVORS = (  # name, cores, MB of memory, GB of disk; the last fits no host
    ("m3.tiny", 1, 3072, 20),
    ("m3.small", 2, 6144, 20),
    ("m3.quad", 4, 15360, 20),
    ("r3.diskless", 2, 4096, 0),
    ("m3.toobig", 100_000, 15360, 20),
)
IMAGES = ("Featured-Ubuntu24", "Featured-Ubuntu22", "Featured-Debian12", "Featured-RockyLinux9")
SMALL_FLAVORS = (("m3.micro", 1, 1024, 4),)
"""For machines that boot on this computer."""
NETWORK = "auto_allocated_network"
EXTERNAL = "public"


def catalogue(
    cloud: Cloud, direct: Mapping[str, str], published: Mapping[str, str], versions: Mapping[str, str]
) -> None:
    """`public` for people and `internal` for the services among themselves, at this start's ports."""
    services = {each["type"]: each["id"] for each in cloud.ask("GET", "/services").json()["services"]}
    found = {
        (each["service_id"], each["interface"]): each for each in cloud.ask("GET", "/endpoints").json()["endpoints"]
    }
    for kind in direct:
        if kind not in services:
            made = cloud.ask("POST", "/services", {"service": {"type": kind, "name": kind}}).json()
            services[kind] = made["service"]["id"]
        for interface, roots in (("public", published), ("internal", direct)):
            told = {"service_id": services[kind], "interface": interface, "url": roots[kind] + versions[kind],
                    "region_id": "RegionOne"}  # fmt: skip
            if there := found.get((services[kind], interface)):
                cloud.ask("PATCH", f"/endpoints/{there['id']}", {"endpoint": told})
            else:
                cloud.ask("POST", "/endpoints", {"endpoint": told})
    user, project = (cloud.ask("GET", f"/{what}?name=admin").json()[what][0]["id"] for what in ("users", "projects"))
    cloud.ask("PUT", f"/projects/{project}/users/{user}/roles/{cloud.role('service')}")


def images(cloud: Cloud) -> None:
    """Four kilobytes each: nothing boots from them."""
    for name in IMAGES:
        told = {"name": name, "disk_format": "raw", "container_format": "bare", "visibility": "public",
                "min_disk": 10, "architecture": "x86_64"}  # fmt: skip
        made = cloud.ask("POST", "/v2/images", told, of="image").json()
        cloud.ask("PUT", f"/v2/images/{made['id']}/file", of="image", content=name.encode().ljust(4096))


def networks(cloud: Cloud) -> None:
    """One to the world. A project's own is allocated when it is first asked for, as `auto-allocated-topology` does."""
    told = {"name": EXTERNAL, "router:external": True, "is_default": True, "provider:network_type": "flat",
            "provider:physical_network": "public"}  # fmt: skip
    network = cloud.ask("POST", "/v2.0/networks", {"network": told}, of="network").json()["network"]["id"]
    pool = {"start": "203.0.113.10", "end": "203.0.113.200"}
    subnet = {"network_id": network, "name": EXTERNAL, "ip_version": 4, "cidr": "203.0.113.0/24",
              "gateway_ip": "203.0.113.1", "enable_dhcp": False, "allocation_pools": [pool]}  # fmt: skip
    cloud.ask("POST", "/v2.0/subnets", {"subnet": subnet}, of="network")
    pool = {"name": "shared", "prefixes": ["10.0.0.0/8"], "default_prefixlen": 24, "shared": True, "is_default": True}
    cloud.ask("POST", "/v2.0/subnetpools", {"subnetpool": pool}, of="network")


def sizes(cloud: Cloud, flavors: Iterable[tuple[str, int, int, int]] = FLAVORS) -> None:
    for name, cores, memory, disk in flavors:
        told = {"name": name, "vcpus": cores, "ram": memory, "disk": disk}
        cloud.ask("POST", "/flavors", {"flavor": told}, of="compute")


def small_sizes(cloud: Cloud) -> None:
    sizes(cloud, SMALL_FLAVORS)


def ports(cloud: Cloud) -> list[str]:
    """The ids of all, of whatever project."""
    return [str(each["id"]) for each in cloud.ask("GET", "/v2.0/ports?fields=id", of="network").json()["ports"]]


def computes(cloud: Cloud, since: dt.datetime) -> bool:
    """Whether there is a host that runs machines and has said so since then, by the word of Nova itself.

    A state that was saved a moment ago has one that was up then.
    """
    hosts: list[dict[str, Any]] = cloud.ask("GET", "/os-services?binary=nova-compute", of="compute").json()["services"]
    said = [each for each in hosts if each["state"] == "up" and each["updated_at"]]
    return any(dt.datetime.fromisoformat(each["updated_at"]).replace(tzinfo=dt.UTC) > since for each in said)
