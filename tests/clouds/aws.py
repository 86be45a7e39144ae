"""A world whose cloud is AWS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from playwright.sync_api import Browser, Page, expect

from providers.aws import guides
from tests.clouds import world
from tests.clouds.booting import BootingAws
from tests.doubles.aws_double import ACCOUNT, Account, AwsDouble
from tests.doubles.machines import Machine, Machines

TEMPLATE = "https://uni-hub.s3.eu-central-1.amazonaws.com/anybinder-aws.yaml"


@dataclass(kw_only=True)
class Aws(world.World):
    """Machines boot as EC2's."""

    aws: AwsDouble
    account: Account
    booting: BootingAws
    title = "AWS in Frankfurt"
    pictures = "cloud"

    def connect(self, page: Page) -> None:
        """What the console does with the link of the page: it creates the stack of the very template that we give people."""
        page.goto(f"{self.url}/connect/aws/web_identity?change=1")
        link = page.get_by_role("link", name="Open AWS with everything filled in").get_attribute("href")
        told = dict(parse_qsl(urlsplit(link or "").fragment.partition("?")[2]))
        parameters = {name.removeprefix("param_"): value for name, value in told.items() if name.startswith("param_")}
        self.account.deploy(guides.template(), told["stackName"], **parameters)
        page.get_by_label("Account number").fill(ACCOUNT)
        page.get_by_role("button", name="Check", exact=True).click()
        expect(page.get_by_role("heading", name="Connected, and it works")).to_be_visible()

    def machines(self) -> list[Machine]:
        return list(self.booting.all.values())

    def left(self) -> list[str]:
        ec2 = self.account.client("ec2")
        ours: Any = [{"Name": "tag-key", "Values": ["anybinder-broker"]}]
        found = [
            each["InstanceId"]
            for reservation in ec2.describe_instances(Filters=ours)["Reservations"]
            for each in reservation["Instances"]
            if each["State"]["Name"] != "terminated"
        ]
        found += [each["VolumeId"] for each in ec2.describe_volumes(Filters=ours)["Volumes"]]
        found += [
            each["NetworkInterfaceId"] for each in ec2.describe_network_interfaces(Filters=ours)["NetworkInterfaces"]
        ]
        found += [each["GroupId"] for each in ec2.describe_security_groups(Filters=ours)["SecurityGroups"]]
        return found + [machine.service.id for machine in self.machines() if machine.running]

    def invalid(self) -> list[str]:
        return self.aws.broken


@contextlib.contextmanager
def running(browser: Browser, folder: Path, **more: str) -> Iterator[Aws]:
    """In this empty folder; `more` are settings of its broker."""
    with world.site(folder) as site:
        aws = site.stack.enter_context(AwsDouble(ticks=True))
        machines = site.stack.enter_context(Machines(site.way))
        booting = site.stack.enter_context(BootingAws(aws, machines))
        aws.issuers.addresses[site.way.url] = f"http://127.0.0.1:{site.way.port}"
        configuration = {"region": aws.region, "endpoint_url": aws.url, "template_url": TEMPLATE}
        place = {"name": "aws", "provider": "aws", "title": Aws.title, "configuration": configuration}
        broker = site.broker(place, more)
        yield Aws(site=site, broker=broker, browser=browser, aws=aws, account=aws.account(), booting=booting)
