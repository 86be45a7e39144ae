"""From "never seen it" to "my AWS account is connected and checked", in a real Chromium and in front of a broker that is
reached by https as from anywhere: by a name, a certificate, and a proxy in between.

AWS is the double, which verifies tokens, trust and policies. Its console is not here: the link is opened, and what the
console would do with its address (the very template of the guide, the parameters of the link) is done by the test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from broker import settings
from providers.aws import guides
from providers.fake import FakeCloud
from tests.browser import accessible
from tests.browser.conftest import DESK, IMAGES, PHONE, SCREENSHOTS, picture, wide_enough
from tests.browser.test_pages import fits
from tests.doubles import git_repos
from tests.doubles.aws_double import ACCOUNT, Account, AwsDouble
from tests.doubles.git_server import GitServer
from tests.doubles.openid_double import OpenIdDouble
from tests.doubles.public_way import PublicWay
from tests.journeys.conftest import Broker
from tests.waiting import until

HUB, GIT = "hub.uni.example", "git.uni.example"
TEMPLATE = "https://uni-hub.s3.eu-central-1.amazonaws.com/anybinder-aws.yaml"
MISSING = "ec2:DescribeInstances"


REMEMBER = """document.querySelector("form.tell").addEventListener("submit", ({ target }) => setTimeout(() => {
    const button = target.querySelector("button"), said = target.querySelector("[data-said]");
    sessionStorage.setItem("shown", [button.textContent, button.ariaDisabled, said.textContent].join(" "));
}))"""


class World:
    """A broker with a public address, a campus that signs people in, and an AWS."""

    def __init__(
        self,
        broker: Broker,
        way: PublicWay,
        campus: OpenIdDouble,
        aws: AwsDouble,
        browser: Browser,
        git: GitServer,
    ) -> None:
        self.broker, self.way, self.campus, self.aws, self.browser, self.git = broker, way, campus, aws, browser, git
        self.account: Account = aws.account()
        self.complaints: list[str] = []

    def visitor(self, **options: Any) -> BrowserContext:
        """A browser of somebody who has never been here."""
        context = self.browser.new_context(
            **{
                "viewport": DESK,
                "locale": "en-GB",
                "proxy": {"server": self.way.proxy, "bypass": "127.0.0.1"},
                "ignore_https_errors": True,
                **options,
            }
        )
        context.set_default_timeout(20_000)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.route("https://*.console.aws.amazon.com/**", lambda route: route.fulfill(body="the console of AWS"))
        return context

    def person(self, context: BrowserContext) -> Page:
        """Signed in at the campus."""
        page = context.new_page()
        page.goto(f"{self.way.url}/connect")
        sign_in(page)
        return page


def sign_in(page: Page) -> None:
    """The campus asks nothing; where several could be chosen, it is."""
    if page.get_by_role("link", name="Campus").count():
        page.get_by_role("link", name="Campus").click()


@pytest.fixture(scope="module")
def world(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("connecting")
    (folder / "repos").mkdir()
    with (
        OpenIdDouble(title="Campus") as campus,
        GitServer(folder / "repos") as git,
        PublicWay(HUB, folder, others={GIT: git.port}) as way,
        AwsDouble() as aws,
        FakeCloud.start() as cloud,
    ):
        identity = campus.setting()
        told = {**identity.model_dump(mode="json"), "client_secret": identity.client_secret.get_secret_value()}
        place = {"name": "aws", "provider": "aws", "title": "AWS in Frankfurt"}
        place["configuration"] = {"region": aws.region, "endpoint_url": aws.url, "template_url": TEMPLATE}
        beside = {"name": "campus", "provider": "fake", "title": "Campus cloud"}
        beside["configuration"] = {**cloud.configuration, "kinds": "none"}
        environment = {
            "ANYBINDER_PUBLIC_URL": way.url,
            "ANYBINDER_HOSTS": json.dumps({"git": {"url": f"https://{GIT}"}}),
            "ANYBINDER_SESSION_DOMAIN": "sessions.uni-hub.example",
            "ANYBINDER_IDENTITIES": json.dumps([told]),
            "ANYBINDER_BACKENDS": json.dumps([place, beside]),
            "AWS_ACCESS_KEY_ID": "what-lies-about",
            "AWS_SECRET_ACCESS_KEY": "must-never-be-used",
            "GIT_SSL_CAINFO": str(way.certificates),
            **way.environment,
        }
        broker, way.port = Broker(folder / "home", environment), settings.free_port()
        aws.issuers.addresses[way.url] = f"http://127.0.0.1:{way.port}"
        broker.start("up", "--no-browser", "--port", str(way.port))
        try:
            broker.wait()
            yield World(broker, way, campus, aws, browser, git)
        finally:
            broker.close()


def whole(page: Page, name: str) -> None:
    """The whole page, for the documentation, at a desk."""
    if SCREENSHOTS:
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=IMAGES / f"{name}.png", animations="disabled", full_page=True)


def create_stack(world: World, link: str) -> str:
    """What the console does with this link when “Create stack” is pressed; the stack's name."""
    address = urlsplit(link)
    assert address.hostname == "eu-central-1.console.aws.amazon.com"
    path, _, query = address.fragment.partition("?")
    assert path == "/stacks/create/review"
    told = dict(parse_qsl(query))
    assert told.pop("templateURL") == TEMPLATE
    stack = told.pop("stackName")
    parameters = {name.removeprefix("param_"): value for name, value in told.items()}
    if world.account.client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]:
        parameters["TrustsIssuerAlready"] = "yes"  # as the template asks where somebody was here before
    world.account.deploy(guides.template(), stack, **parameters)
    return stack


def policies(world: World, change: str = "", into: str = "") -> None:
    """The owner of the account edits what the role for ending may do."""
    iam = world.account.client("iam")
    role = next(each["RoleName"] for each in iam.list_roles()["Roles"] if each["RoleName"].startswith("AnybinderReap"))
    document = json.dumps(iam.get_role_policy(RoleName=role, PolicyName="reap")["PolicyDocument"])
    assert change in document
    iam.put_role_policy(RoleName=role, PolicyName="reap", PolicyDocument=document.replace(change, into))


def test_from_never_seen_it_to_connected_and_checked(world: World) -> None:
    with world.visitor() as context:
        page = context.new_page()
        page.goto(f"{world.way.url}/?backend=aws")
        sign_in(page)
        expect(page.get_by_role("heading", level=1)).to_have_text("Launch a repository")
        page.goto(f"{world.way.url}/connect")
        expect(page.get_by_text("Not connected").first).to_be_visible()
        picture(page, "connect-1-choose")
        page.goto(f"{world.way.url}/?backend=aws")
        # From the form: the place asks for an account, and says where to connect it.
        whole(page, "connect-0-launch-form")
        page.get_by_label("Repository", exact=True).fill("somebody/notebooks")
        page.get_by_role("link", name="Connect your account").click()

        # One: what is handed over, what it may do, what to do.
        expect(page.get_by_role("heading", level=1)).to_contain_text("AWS in Frankfurt")
        whole(page, "connect-2-aws")
        with context.expect_page() as opened:
            page.get_by_role("link", name="Open AWS with everything filled in").click()
        console = opened.value
        link = console.url
        console.close()
        before = page.evaluate("document.activeElement.textContent")
        assert "Open AWS" in before

        # Too early: nothing trusts us yet, and the page says so and keeps what was typed.
        page.get_by_label("Account number").fill(ACCOUNT)
        page.get_by_role("button", name="Check", exact=True).click()
        expect(page.get_by_role("heading", name="did not let us in")).to_be_visible()
        whole(page, "connect-3-too-early")

        # Two: the link is followed to its end, and Check is pressed.
        stack = create_stack(world, link)
        page.get_by_role("button", name="Check again").click()
        expect(page.get_by_role("heading", name="Connected, and it works")).to_be_visible()
        expect(page.locator("#outcome")).to_be_focused()
        assert page.locator(".findings .bad").count() == 0
        assert page.locator(".findings .good").count() >= 6
        expect(page.locator("#outcome")).to_contain_text("assumed-role/AnybinderLaunch")
        whole(page, "connect-4-checked")

        # And back to the form, as it was.
        page.get_by_role("link", name="Back to your launch").click()
        expect(page.get_by_label("Repository", exact=True)).to_have_value("somebody/notebooks")
        expect(page.get_by_role("link", name="Your account there")).to_be_visible()

        # The list says so.
        page.get_by_role("link", name="Accounts", exact=True).click()
        expect(page.get_by_text("Connected and works")).to_be_visible()
        picture(page, "connect-9-list")

        missing_then_mended(world, page)
        leave(world, page, stack)
    assert world.complaints == []
    assert world.account.client("ec2").describe_instances()["Reservations"] == []  # checking buys nothing


def missing_then_mended(world: World, page: Page) -> None:
    policies(world, MISSING, "ec2:DescribeNothing")
    page.get_by_role("link", name="Manage").click()
    page.get_by_role("button", name="Check again").click()
    expect(page.get_by_role("heading", name="permission missing")).to_be_visible()
    row = page.locator(".findings .bad", has_text=MISSING)
    expect(row).to_have_count(1)
    expect(row.locator(".fix")).not_to_be_empty()
    whole(page, "connect-5-missing")
    policies(world, "ec2:DescribeNothing", MISSING)
    page.get_by_role("button", name="Check again").click()
    expect(page.get_by_role("heading", name="Connected, and it works")).to_be_visible()


def leave(world: World, page: Page, stack: str) -> None:
    page.get_by_role("link", name="What was done with your accounts").click()
    expect(page.get_by_role("row", name="Checked what it may do").first).to_be_visible()
    picture(page, "connect-8-uses")
    page.goto(f"{world.way.url}/connect/aws")
    page.get_by_role("link", name="Disconnect").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Disconnect AWS in Frankfurt?")
    picture(page, "connect-6-disconnect")
    page.get_by_role("button", name="Disconnect").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("AWS in Frankfurt is disconnected")
    expect(page.get_by_text(f"Delete the stack {stack}")).to_be_visible()
    picture(page, "connect-7-disconnected")
    world.account.delete(stack)
    page.get_by_role("link", name="Back to your accounts").click()
    expect(page.get_by_text("Not connected").first).to_be_visible()


@pytest.fixture
def connected(world: World) -> Iterator[str]:
    """The account trusts the broker for Ada, whatever she has told it yet; the stack's name."""
    with world.visitor() as context:
        page = world.person(context)
        page.goto(f"{world.way.url}/connect/aws/web_identity?change=1")
        link = page.get_by_role("link", name="Open AWS with everything filled in").get_attribute("href")
    stack = create_stack(world, link or "")
    yield stack
    world.account.delete(stack)


def test_the_same_on_a_phone(world: World, connected: str) -> None:
    with world.visitor(viewport=PHONE, device_scale_factor=2, has_touch=True, is_mobile=True) as context:
        page = world.person(context)
        wide_enough(page)
        page.get_by_role("listitem").filter(has_text="AWS in Frankfurt").get_by_role("link").click()
        wide_enough(page)
        if page.get_by_label("Account number").count():
            page.get_by_label("Account number").fill(ACCOUNT)
            page.get_by_role("button", name="Check", exact=True).click()
        expect(page.get_by_role("heading", name="Connected, and it works")).to_be_visible()
        wide_enough(page)
        page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
        picture(page, "connect-phone")


def test_with_the_keyboard_alone(world: World, connected: str) -> None:
    with world.visitor() as context:
        page = world.person(context)
        page.goto(f"{world.way.url}/connect/aws/web_identity?change=1")
        keys = 0
        while page.evaluate("document.activeElement.id") != "field-account":
            page.keyboard.press("Tab")
            keys += 1
            assert keys < 15, "the field is far away for a keyboard"
        page.keyboard.press("Control+a")
        page.keyboard.type(ACCOUNT[:5])
        page.keyboard.press("Enter")
        field = page.get_by_label("Account number")
        expect(page.get_by_role("alert")).to_contain_text("Account number does not look right")
        expect(field).to_be_focused()
        expect(field).to_have_value(ACCOUNT[:5])
        expect(field).to_have_attribute("aria-invalid", "true")
        page.keyboard.press("Control+a")
        page.keyboard.type(ACCOUNT)
        page.keyboard.press("Enter")
        expect(page.locator("#outcome")).to_be_focused()
        expect(page.get_by_role("heading", name="Connected, and it works")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("Launch something")


def check_anew(world: World, page: Page) -> None:
    """The account that is connected already, once more by its number."""
    page.goto(f"{world.way.url}/connect/aws/web_identity?change=1")
    page.get_by_label("Account number").fill(ACCOUNT)
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_role("heading", name="Connected, and it works")).to_be_visible()


def test_without_javascript(world: World, connected: str) -> None:
    with world.visitor(java_script_enabled=False) as context:
        page = world.person(context)
        check_anew(world, page)
        page.locator("summary", has_text="What it may do").click()
        page.get_by_role("link", name="Disconnect").click()
        page.get_by_role("button", name="Disconnect").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("is disconnected")


def test_a_wait_is_seen_and_one_press_is_one_check(world: World, connected: str) -> None:
    with world.visitor() as context:
        page = world.person(context)
        page.goto(f"{world.way.url}/connect/aws/web_identity?change=1")
        page.get_by_label("Account number").fill(ACCOUNT)
        # Playwright looks at no page that is on its way to another: the page remembers what it showed meanwhile.
        page.evaluate(REMEMBER)
        before = world.aws.calls.count(("AssumeRoleWithWebIdentity", ""))
        page.get_by_role("button", name="Check", exact=True).dblclick()
        expect(page.get_by_role("heading", name="Connected, and it works")).to_be_visible()
        shown = page.evaluate("sessionStorage.getItem('shown')")
        assert shown == "Asking Amazon Web Services… true This takes a few seconds, and a minute at most."
        assert world.aws.calls.count(("AssumeRoleWithWebIdentity", "")) - before == 2  # to launch, and to end


def test_ones_own_aws_is_picked_by_its_price(world: World, connected: str) -> None:
    """Sorted by price, the person's own account comes before the cloud of the hub. One machine is bought there, and ended."""
    git_repos.make_repo(world.git.root, "somebody/notebooks", {"index.ipynb": "{}"})
    ec2 = world.account.client("ec2")

    def machines() -> list[str]:
        found = [one for each in ec2.describe_instances()["Reservations"] for one in each["Instances"]]
        return [one["InstanceType"] for one in found if one["State"]["Name"] not in ("terminated", "shutting-down")]

    with world.visitor(viewport={**DESK, "height": 1300}) as context:
        page = world.person(context)
        check_anew(world, page)
        page.get_by_role("link", name="Launch something").click()
        page.get_by_label("Repository", exact=True).fill(f"https://{GIT}/somebody/notebooks")
        aws = page.locator(".place", has_text="AWS in Frankfurt")
        expect(aws).to_contain_text("on your own account")
        expect(page.locator(".place", has_text="Campus cloud")).to_contain_text("an hour")
        page.get_by_role("link", name="price", exact=True).click()
        expect(page.locator(".place-title").first).to_have_text("AWS in Frankfurt")
        page.get_by_label("AWS in Frankfurt", exact=True).check()
        expect(aws).to_contain_text("an hour")
        expect(page.get_by_text("Found:")).to_be_visible()
        picture(page, "choice-own-aws")
        page.get_by_role("button", name="Launch", exact=True).click()
        expect(page.locator(".meta")).to_contain_text("on AWS in Frankfurt")
        until(lambda: len(machines()) == 1, seconds=30, what=world.broker.log())
        page.get_by_role("button", name="Stop").click()
        until(lambda: machines() == [], seconds=60, what=world.broker.log())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_of_these_is_wider_than_its_screen(world: World, connected: str, scheme: str) -> None:
    with world.visitor(color_scheme=scheme, reduced_motion="reduce") as context:
        page = world.person(context)
        for path in (
            "/connect",
            "/connect/aws/web_identity?change=1",
            "/connect/aws/access_key",
            "/connect/repo/gh",
            "/account/uses",
        ):
            page.goto(world.way.url + path)
            fits(page)
            page.set_viewport_size(DESK)
        page.goto(f"{world.way.url}/connect/aws/access_key")
        page.get_by_label("Access key id").fill("AKIAIOSFODNN7EXAMPLE")
        page.get_by_label("Secret access key").fill("nosuchsecretofanybodysnosuchsecretofanyb")
        page.get_by_role("button", name="Check", exact=True).click()
        expect(page.get_by_role("heading", name="did not let us in")).to_be_visible()
        assert "nosuchsecretofanybodysnosuchsecretofanyb" not in page.content()
        fits(page)
        page.goto(f"{world.way.url}/connect/aws/disconnect")
        fits(page)
        page.get_by_role("button", name="Disconnect").click()
        fits(page)


@pytest.mark.parametrize("way", ["web_identity?change=1", "access_key"])
def test_nothing_is_in_anybodys_way_to_an_account(world: World, way: str) -> None:
    """What the pages of a cloud for trying out do not have: a link that fills its console in, a script, files, a narrower way."""
    with world.visitor() as context:
        page = world.person(context)
        page.goto(f"{world.way.url}/connect/aws/{way}")
        found = [*accessible.violations(page), *accessible.cut(page), *accessible.unseen_focus(page)]
        assert not found, "\n".join(found)


def test_a_script_is_copied_with_one_press(world: World) -> None:
    with world.visitor(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = world.person(context)
        page.goto(f"{world.way.url}/connect/aws/web_identity?change=1")
        page.locator("summary", has_text="Rather paste a script").click()
        page.get_by_role("button", name="Copy the script").click()
        expect(page.get_by_text("Copied.")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.replace("\r\n", "\n").strip() == page.locator("#script").input_value().strip()
        assert "aws cloudformation deploy" in copied
