"""A world whose cloud is a real OpenStack with real machines: Nova starts QEMU, and Debian boots in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser

from tests.clouds import launching
from tests.clouds import openstack as campus
from tests.clouds.world import Site, site
from tests.doubles.machines import Machine
from tests.doubles.openstack_gate import OpenStackGate
from tests.openstack.conftest import BROKER
from tests.openstack.projects import Project
from tests.openstack_boot import guest
from tests.servers.openstack import bed, configuration
from tests.servers.openstack.bridge import Bridge

IMAGE, NETWORK = "Featured-Debian12", "wired"
QEMU = "qemu-system-x86_64"


@dataclass(kw_only=True)
class Real(campus.Campus):
    """Machines are Nova's own; nothing here can look into one but by what it says and does."""

    bridge: Bridge

    def open(self) -> None:
        """From now on machines find the broker, and the repositories: until then nobody is at the addresses of their names."""
        self.bridge.lead(self.bridge.gateway, 443, self.site.way.open(self.bridge.gateway))
        self.site.stack.callback(self.site.way.shut, self.bridge.gateway)

    def machines(self) -> list[Machine]:
        return []

    def console(self, server: str) -> str:
        """All that its serial console has said, as Nova tells its operator."""
        told = self.cloud.ask("POST", f"/servers/{server}/action", {"os-getConsoleOutput": {}}, of="compute").json()
        return str(told["output"]).replace("\r\n", "\n")

    def processes(self) -> list[str]:
        """What QEMU emulates at the moment, by the folders of its files."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if words and QEMU in words[0] and any(str(self.cloud.folder) in word for word in words):
                    found.append(f"{process.pid}")
        return found

    def left(self) -> list[str]:
        return super().left() + [f"QEMU {each}" for each in self.processes()]


@contextlib.contextmanager
def running(browser: Browser, folder: Path, **more: str) -> Iterator[Real]:
    """In this empty folder; `more` are settings of its broker. Two minutes, or one from a saved state."""
    debian = guest.made()
    with site(folder) as at:
        bridge = at.stack.enter_context(Bridge())
        gate = at.stack.enter_context(OpenStackGate(bridge.gateway, at.way.identity(bridge.gateway)))
        with campus.reaching(at.way.environment):
            cloud = at.stack.enter_context(bed.running(gate.in_front_of, on=bridge))
        publish(cloud, debian, dict.fromkeys(at.way.names, bridge.gateway), at)
        project = Project(cloud)
        cloud.wired(project.id, bridge, NETWORK)
        broker = at.broker(place(cloud, at), more)
        yield Real(site=at, broker=broker, browser=browser, cloud=cloud, gate=gate, project=project, bridge=bridge)


def place(cloud: bed.Cloud, at: Site) -> dict[str, Any]:
    """The backend, as an operator would set it."""
    told = {
        "auth_url": cloud.url, "region": configuration.REGION, "identity_provider": BROKER,
        "ca_file": str(at.way.certificates), "image": IMAGE, "network": NETWORK, "config_drive": "yes",
    }  # fmt: skip
    return {"name": "openstack", "provider": "openstack", "title": Real.title, "configuration": told}


def publish(cloud: bed.Cloud, debian: guest.Guest, names: Mapping[str, str], at: Site) -> None:
    """The stock image of this cloud, with its kernel and its ramdisk."""
    ramdisk = debian.ramdisk(names, at.way.certificates, at.folder / "ramdisk")
    parts = {
        "kernel_id": cloud.image("kernel", debian.kernel, "aki"),
        "ramdisk_id": cloud.image("ramdisk", ramdisk, "ari"),
    }
    drives = {"hw_cdrom_bus": "scsi", "hw_scsi_model": "virtio-scsi"}
    cloud.image(IMAGE, debian.disk, "qcow2", os_command_line=guest.COMMAND_LINE, **parts, **drives)


def begun(world: Real, page: Any, repo: str, files: Mapping[str, Any]) -> str:
    """A launch of these files; its id."""
    world.repository(repo, files)
    launching.fill(world, page, repo)
    progress = launching.begin(page)
    page.goto("about:blank")  # a page that draws takes what the machine could use
    return progress.partition("/launches/")[2].partition("?")[0].strip("/")
