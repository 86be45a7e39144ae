"""Each failure that a person can meet on a cloud: what they read, and that nothing is left of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.clouds import aws, launching
from tests.clouds.aws import Aws
from tests.clouds.world import picture
from tests.conftest import wanted
from tests.doubles.machines import image
from tests.waiting import until

pytestmark = pytest.mark.timeout(600)
MANY = 40  # more than a launch asks
FAILED_MS = 180_000


@dataclass(frozen=True)
class Failure:
    """How AWS comes to refuse, and what the person is told."""

    arrange: Callable[[Aws], object]
    sentence: str
    budget: str = ""


def runs(status: int, code: str, said: str = "") -> Callable[[Aws], object]:
    return lambda world: world.aws.fail("RunInstances", status, code, said, times=MANY)


def cut_off(world: Aws) -> None:
    world.booting.cut_off = True


def forbid(world: Aws) -> None:
    change(world, "ec2:RunInstances", "ec2:RunNothing")


def allow(world: Aws) -> None:
    change(world, "ec2:RunNothing", "ec2:RunInstances")


def change(world: Aws, this: str, into: str) -> None:
    """The owner of the account edits what the role for launching may do."""
    iam = world.account.client("iam")
    role = next(
        each["RoleName"] for each in iam.list_roles()["Roles"] if each["RoleName"].startswith("AnybinderLaunch")
    )
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = json.dumps(iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"])
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document.replace(this, into))


FAILURES = {
    "capacity": Failure(
        runs(500, "InsufficientInstanceCapacity", "We currently do not have sufficient t3.small capacity."),
        "AWS has no such machine free there right now",
    ),
    "quota": Failure(
        runs(
            400, "VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of 0 allows."
        ),
        "quota",
    ),
    "permission": Failure(forbid, "ec2:RunInstances is not permitted"),
    "credential": Failure(runs(400, "RequestExpired", "Request has expired."), "The credential has ended"),
    "image": Failure(
        runs(400, "InvalidAMIID.NotFound", "The image id '[ami-0abc]' does not exist"),
        "The image that machines start from is gone",
    ),
    "silent": Failure(
        cut_off, "was started but never reported. It has been ended; try again, or somewhere else. The last it said: “"
    ),
    "budget": Failure(lambda world: None, "budget of this launch is", budget="0.001"),
}


@pytest.fixture(scope="module")
def world(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    wanted(image.NEED)
    folder = tmp_path_factory.mktemp("failures")
    with aws.running(browser, folder, ANYBINDER_BOOT_MINUTES="2", ANYBINDER_ATTEMPTS="1") as made:
        yield made


@pytest.fixture(scope="module")
def page(world: Aws) -> Iterator[Page]:
    with world.person() as page:
        yield page


@pytest.fixture(autouse=True)
def mended(world: Aws) -> Iterator[None]:
    """After each test nothing goes wrong any more."""
    yield
    world.aws.clear()
    world.booting.cut_off = False
    allow(world)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_told_in_a_sentence_and_leaves_nothing(world: Aws, page: Page, name: str) -> None:
    failure = FAILURES[name]
    failure.arrange(world)
    launching.fill(world, page)
    if failure.budget:
        page.locator("summary", has_text="More").click()
        page.get_by_label("Budget").fill(failure.budget)
    page.get_by_role("button", name="Launch").click()
    expect(page.get_by_role("link", name="Try again")).to_be_visible(timeout=FAILED_MS)
    expect(page.locator("main")).to_contain_text(
        re.compile(re.escape(failure.sentence), re.IGNORECASE), timeout=FAILED_MS
    )
    picture(page, f"cloud-fails-{name}")
    until(lambda: world.left() == [], seconds=120, what="nothing is left")
