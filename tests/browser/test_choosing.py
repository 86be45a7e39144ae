"""Choosing where to run, in a real browser: ten places of which some are silent, a link that limits them, a stranger's link."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from broker import connections, people, service, settings
from providers.fake import FakeCloud
from providers.fake.driver import KINDS
from tests.browser.conftest import DESK, PHONE, picture, wide_enough
from tests.browser.shared import APP, World, elsewhere, running

__all__ = ["elsewhere"]  # a fixture, found by its name

TALL = {**DESK, "height": 1500}
HANG_SECONDS = 30
USABLE_MS = 300
LOADS = 5
BYTES_MOST = 100_000
SENT = (
    "Object.fromEntries(performance.getEntries().filter(one => 'encodedBodySize' in one)"
    ".map(one => [new URL(one.name).pathname, one.encodedBodySize]))"
)
USABLE = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
HUNGRY = {**APP, ".binder/resources.yaml": "required: {memory: 4G}\nrecommended: {cpu: 2}\n"}
GREEDY = {**APP, ".binder/resources.yaml": "required: {memory: 16G}\n"}
PLACES = {
    "campus": "Campus cloud",
    "lab": "Lab cluster",
    "north": "Cloud North",
    "south": "Cloud South",
    "east": "Cloud East",
    "jetstream": "Jetstream2",
    "lost": "Cloud West",
    "silent": "Old cluster",
    "failing": "New cluster",
}


@pytest.fixture(scope="module")
def choice(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A broker with ten places: this computer, five clouds of its operator's, one where the person has an account of their
    own, two that hang, and one that fails."""
    folder = tmp_path_factory.mktemp("choosing")
    with FakeCloud.start() as good, FakeCloud.start() as hanging, FakeCloud.start() as failing:
        hanging.fault("offers", "slow", times=None, seconds=HANG_SECONDS)
        failing.fault("offers", "unavailable", times=None)
        clouds = {"lost": hanging, "silent": hanging, "failing": failing}
        backends = [{"name": "local", "title": "This computer", "provider": "local"}]
        for name, title in PLACES.items():
            told = {"kinds": "kept" if name == "jetstream" else "none", "timeout": "45"}
            more = {"most": {"memory_mb": 8192}} if name == "lab" else {}
            cloud = clouds.get(name, good)
            backends.append(
                {
                    "name": name,
                    "title": title,
                    "provider": "fake",
                    "configuration": {**cloud.configuration, **told},
                    **more,
                }
            )
        with running(browser, folder, {"ANYBINDER_BACKENDS": json.dumps(backends)}) as world:
            at = service.build(settings.Settings(home=folder / "home"), migrate=False)
            connections.connect(at, people.LOCAL, "backend:jetstream", [KINDS["kept"]], "kept", {"key": "the-fake-key"})
            at.close()
            yield world
            hanging.clear()


def test_a_first_visit_to_ten_places_is_small(choice: World) -> None:
    with choice.person() as signed_in, choice.visitor(storage_state=signed_in.context.storage_state()) as fresh:
        page = fresh.new_page()
        page.goto(choice.url, wait_until="load")
        expect(place(page, "Campus cloud")).to_contain_text("at most $")
        told = page.evaluate(SENT)
        print(f"{sum(told.values())} bytes in {len(told)} requests: {told}")
        assert 10_000 < sum(told.values()) < BYTES_MOST


def place(page: Page, title: str) -> object:
    return page.locator(".place").filter(has=page.get_by_label(title, exact=True))


def test_with_two_clouds_silent_and_one_failing_the_page_is_usable_at_once(choice: World) -> None:
    repo = choice.repository("o/hungry", HUNGRY)
    with choice.person(viewport=TALL) as page:
        took = []
        for _ in range(LOADS):
            page.goto(f"{choice.url}/?repo={repo}")
            took.append(page.evaluate(USABLE))
            expect(page.get_by_label("This computer", exact=True)).to_be_checked()
        print(f"usable after {statistics.median(took):.0f} ms (of {', '.join(f'{each:.0f}' for each in took)})")
        assert min(took) < USABLE_MS, took
        expect(place(page, "Campus cloud")).to_contain_text("at most $")
        expect(place(page, "Jetstream2")).to_contain_text("on your own account")
        expect(place(page, "New cluster")).to_contain_text("It could not be asked: ")
        for silent in ("Cloud West", "Old cluster"):
            expect(place(page, silent)).to_contain_text(re.compile(rf"{silent} has not answered for \d+ s\."))
        expect(page.locator("#asks")).to_have_text(
            "This repository asks for at least 4 GB of memory, and recommends 2 processors."
        )
        picture(page, "choice")
        # Nothing of that is in the way: a place is chosen and launched meanwhile.
        page.get_by_label("Campus cloud", exact=True).check()
        expect(page.locator("#ends")).to_contain_text("It ends after 12 hours at the latest")
        page.get_by_role("button", name="Launch").click()
        page.wait_for_url("**/launches/*")
        launch = page.url.rpartition("/")[2]
        choice.broker.api("DELETE", f"/api/launches/{launch}")


def test_what_is_too_large_for_a_place_is_said_there_and_what_fits_is_chosen(choice: World) -> None:
    repo = choice.repository("o/greedy", GREEDY)
    with choice.person() as page:
        page.goto(f"{choice.url}/?repo={repo}&backend=lab")
        expect(place(page, "Lab cluster")).to_contain_text(
            "This repository needs 16 GB of memory: too much for this place, where a session has at most 8 GB of memory."
        )
        expect(page.get_by_label("Lab cluster", exact=True)).to_be_disabled()
        expect(page.get_by_role("radio", checked=True).first).to_be_enabled()


def test_a_size_that_a_place_does_not_have_cannot_be_chosen_with_it(choice: World) -> None:
    with choice.person() as page:
        page.goto(f"{choice.url}/?backend=lab")
        large = page.get_by_label("Large", exact=True)
        expect(large).to_be_disabled()
        page.get_by_label("Campus cloud", exact=True).check()
        expect(large).to_be_enabled()
        large.check()
        expect(place(page, "Campus cloud")).to_contain_text("$0.40 an hour")


def names(page: Page) -> list[str]:
    return page.locator(".place-title").all_inner_texts()


@pytest.mark.parametrize("scripts", [True, False])
def test_sorting_works_with_and_without_javascript(choice: World, scripts: bool) -> None:
    with choice.person(java_script_enabled=scripts) as page:
        page.goto(f"{choice.url}/?repo=o/r&sort=price")
        assert names(page)[0] == "This computer"
        page.get_by_role("link", name="soonest ready").click()
        expect(page.get_by_role("link", name="soonest ready")).to_have_attribute("aria-current", "true")
        if not scripts:
            assert "sort=soonest" in page.url
        expect(page.get_by_label("Repository", exact=True)).to_have_value("o/r")


def test_without_javascript_a_button_says_what_the_repository_needs(choice: World) -> None:
    repo = choice.repository("o/greedy", GREEDY)
    with choice.person(java_script_enabled=False) as page:
        page.goto(choice.url)
        page.get_by_label("Repository", exact=True).fill(repo)
        page.get_by_role("button", name="See what this repository needs").click()
        expect(page.locator("#asks")).to_have_text("This repository asks for at least 16 GB of memory.")
        expect(page.get_by_label("Lab cluster", exact=True)).to_be_disabled()


def test_a_link_with_a_fixed_set_of_places_shows_those_and_says_so(choice: World) -> None:
    with choice.person() as page:
        page.goto(f"{choice.url}/?repo=o/r&backends=campus,east&backend=east")
        assert sorted(names(page)) == ["Campus cloud", "Cloud East"]
        expect(page.get_by_label("Cloud East", exact=True)).to_be_checked()
        expect(page.get_by_text("This link offers 2 of 10 places.")).to_be_visible()
        picture(page, "choice-limited")
        page.get_by_role("link", name="See all places").click()
        expect(page.locator(".place-title")).to_have_count(10)
        expect(page.get_by_label("Repository", exact=True)).to_have_value("o/r")


def test_the_place_of_last_time_is_marked(choice: World) -> None:
    with choice.person() as page:
        page.goto(f"{choice.url}/?repo={choice.repository('o/app', APP)}&backend=north")
        page.get_by_role("button", name="Launch").click()
        page.wait_for_url("**/launches/*")
        choice.broker.api("DELETE", f"/api/launches/{page.url.rpartition('/')[2]}")
        page.goto(choice.url)
        expect(page.get_by_label("Cloud North", exact=True)).to_be_checked()
        expect(place(page, "Cloud North")).to_contain_text("you chose it last time")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_choice_fits_a_phone(choice: World, scheme: str) -> None:
    with choice.person(viewport=PHONE, color_scheme=scheme) as page:
        page.goto(f"{choice.url}/?repo={choice.repository('o/hungry', HUNGRY)}")
        expect(place(page, "Campus cloud")).to_contain_text("at most $")
        wide_enough(page)
        if scheme == "dark":
            page.evaluate("document.querySelector('fieldset.places').scrollIntoView({behavior: 'instant'})")
            picture(page, "choice-phone")


def test_a_strangers_link_at_ones_own_expense_is_asked_about(choice: World) -> None:
    repo = choice.repository("o/strange", APP)
    with choice.person() as page:
        page.goto(f"{choice.url}/?repo={repo}&backend=jetstream")
        expect(page.get_by_label("Jetstream2", exact=True)).to_be_checked()
        expect(place(page, "Jetstream2")).to_contain_text("at most $")
        page.get_by_role("button", name="Launch").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Run this in your account?")
        expect(page.get_by_text("It can keep the machine busy that you pay for")).to_be_visible()
        page.locator("summary", has_text="What it cannot do there").click()
        expect(page.get_by_text("No key, token or sign-in of yours is in the session")).to_be_visible()
        picture(page, "trust")
        page.get_by_role("link", name="Change something").click()
        expect(page.get_by_label("Repository", exact=True)).to_have_value(repo)
        page.get_by_role("button", name="Launch").click()  # the form still knows whose link it was
        page.get_by_label("Do not ask again for this repository").check()
        page.get_by_role("button", name="Run it").click()
        page.wait_for_url("**/launches/*")
        choice.broker.api("DELETE", f"/api/launches/{page.url.rpartition('/')[2]}")
        page.goto(f"{choice.url}/?repo={repo}&backend=jetstream&name=again")
        page.get_by_role("button", name="Launch").click()
        page.wait_for_url("**/launches/*")
        choice.broker.api("DELETE", f"/api/launches/{page.url.rpartition('/')[2]}")


def test_the_choice_by_keyboard_and_nothing_moves_under_it(choice: World) -> None:
    with choice.person() as page:
        page.goto(f"{choice.url}/?repo={choice.repository('o/hungry', HUNGRY)}&backend=campus")
        expect(place(page, "Cloud East")).to_contain_text("at most $")
        page.get_by_label("Campus cloud", exact=True).focus()
        before = names(page)
        page.keyboard.press("ArrowDown")
        moved = page.locator(":focus")
        expect(moved).to_be_checked()
        assert moved.get_attribute("value") != "campus"
        page.keyboard.press("Shift+Tab")  # back to the last of the links that sort
        expect(page.locator(":focus")).to_have_text("soonest ready")
        assert names(page) == before
        page.keyboard.press("Enter")
        expect(page.locator(":focus")).to_have_attribute("aria-current", "true")
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_attribute("name", "backend")


def test_a_server_of_ones_own_that_is_found_later_comes_to_the_list(choice: World) -> None:
    """Its cloud tells of it while the page is open; what has gone since leaves the list."""
    shown = choice.broker.api("GET", "/api/places").json()["places"]
    mine = {**shown[0], "name": "north/server:1", "title": "Cloud North: thesis", "session": "nothing more to pay",
            "reasons": ["nothing is bought"], "closed": None, "news": "", "sizes": []}  # fmt: skip
    order = ["local", "north/server:1"]
    events = (("place", mine), ("order", order), ("end", {}))
    body = "".join(f"event: {name}\ndata: {json.dumps(content)}\n\n" for name, content in events)
    with choice.person() as page:
        page.route("**/api/places/stream*", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
        page.goto(f"{choice.url}/?backend=local")
        expect(page.locator(".place-title")).to_have_count(2)
        page.get_by_label("Cloud North: thesis", exact=True).check()
        expect(place(page, "Cloud North: thesis")).to_contain_text("nothing is bought")
        assert page.evaluate(
            "new Set([...document.querySelectorAll('[id]')].map(one => one.id)).size"
        ) == page.evaluate("document.querySelectorAll('[id]').length")


FRAMED = """([url, fields]) => new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.name = "framed";
    document.body.append(frame);
    frame.onload = () => setTimeout(done, 200);
    if (!fields) { frame.src = url; return }
    const form = document.createElement("form");
    form.method = "post"; form.action = url; form.target = "framed";
    for (const [name, value] of Object.entries(fields)) {
        const field = document.createElement("input");
        field.name = name; field.value = value; form.append(field);
    }
    document.body.append(form);
    form.submit();
})"""


@pytest.mark.parametrize("how", ["a link", "a form"])
def test_the_trust_page_cannot_be_framed(choice: World, elsewhere: int, how: str) -> None:
    repo = choice.repository("o/framed", APP)
    with choice.person() as page:
        context: BrowserContext = page.context
        stranger = context.new_page()
        stranger.goto(f"http://localhost:{elsewhere}/")  # of the same site: cookies come along
        fields = {"repo": repo, "backend": "local"} if how == "a form" else None
        url = f"{choice.url}/launch" if fields else f"{choice.url}/?repo={repo}&backend=local"
        stranger.evaluate(FRAMED, [url, fields])
        frame = next(each for each in stranger.frames if each.name == "framed")
        assert frame.url.startswith("chrome-error://") or "Another page tried" in frame.content()
        assert frame.locator("button").count() == 0
    assert not any(one["repo"] == repo for one in choice.launches())
