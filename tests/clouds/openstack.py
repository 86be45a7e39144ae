"""A world whose cloud is a real OpenStack: Keystone, Glance, Placement, Nova and Neutron; its machines boot in our double."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from providers.openstack import guides
from tests.clouds import world
from tests.clouds.booting import BootingOpenStack
from tests.doubles.machines import Machine, Machines
from tests.doubles.openstack_gate import OpenStackGate
from tests.openstack.conftest import BROKER
from tests.openstack.projects import Project
from tests.servers.openstack import bed, configuration, packages
from tests.servers.openstack.bed import Cloud

SUBJECT = re.compile(r"\b(?:launch|reap):[a-z2-7]{26}\b")


@dataclass(kw_only=True)
class Campus(world.World):
    """Whatever its machines boot in."""

    cloud: Cloud
    gate: OpenStackGate
    project: Project
    title = "The campus cloud"
    pictures = "cloud-openstack"

    def connect(self, page: Page) -> None:
        """The cloud's operators do what the page's script says: two subjects of one person, mapped into a project."""
        page.goto(f"{self.url}/connect/openstack/oidc?change=1")
        subjects = sorted(set(SUBJECT.findall(page.content())))
        assert [each.partition(":")[0] for each in subjects] == ["launch", "reap"], subjects
        group = self.cloud.new_group("people", self.project.id, "member")
        self.cloud.trust(BROKER, self.url, self.cloud.url, [guides.rule(subject, group) for subject in subjects])
        page.get_by_label("Project").fill(self.project.id)
        page.get_by_role("button", name="Check", exact=True).click()
        expect(page.get_by_role("heading", name="Connected, and it works")).to_be_visible()

    def left(self) -> list[str]:
        """Servers, ports, addresses, groups, disks and claims of the project that are ours."""
        token = self.cloud.token(self.project.user, project_id=self.project.id)
        found = [each["id"] for each in self.cloud.machines(project_id=self.project.id)]
        for path, of in (("/v2.0/ports", "network"), ("/v2.0/floatingips", "network"), ("/v2.0/security-groups", "network"),
                         ("/v2/images", "image")):  # fmt: skip
            listed = next(iter(self.cloud.ask("GET", path, token=token, of=of).json().values()))
            found += [f"{path} {each['id']}" for each in listed if "anybinder" in repr(each)]
        return found

    def invalid(self) -> list[str]:
        return self.gate.malformed()


@dataclass(kw_only=True)
class OpenStack(Campus):
    """Machines boot as Nova's, in our double."""

    booting: BootingOpenStack

    def machines(self) -> list[Machine]:
        return list(self.booting.all.values())

    def left(self) -> list[str]:
        return super().left() + [machine.service.id for machine in self.machines() if machine.running]


@contextlib.contextmanager
def running(browser: Browser, folder: Path, **more: str) -> Iterator[OpenStack]:
    """In this empty folder; `more` are settings of its broker."""
    with world.site(folder) as site:
        gate = site.stack.enter_context(OpenStackGate())
        with reaching(site.way.environment):
            cloud = site.stack.enter_context(bed.running(gate.in_front_of))
        machines = site.stack.enter_context(Machines(site.way))
        booting = site.stack.enter_context(BootingOpenStack(cloud, machines))
        told = {"auth_url": cloud.url, "region": configuration.REGION, "identity_provider": BROKER}
        place = {"name": "openstack", "provider": "openstack", "title": OpenStack.title, "configuration": told}
        broker = site.broker(place, more)
        project = Project(cloud)
        yield OpenStack(
            site=site, broker=broker, browser=browser, cloud=cloud, gate=gate, project=project, booting=booting
        )


@contextlib.contextmanager
def reaching(variables: dict[str, str]) -> Iterator[None]:
    """What is started meanwhile finds the way to the broker: Keystone reads its keys."""
    packages.environment()  # first, where it is not there yet: packages come from outside, where this way does not lead
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
