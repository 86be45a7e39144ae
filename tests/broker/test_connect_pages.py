"""Connecting an account, page by page, as a browser without JavaScript has it."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import quote, urlencode

import pytest
from fastapi.testclient import TestClient

from broker import api_tokens, app, backends, connections, identity, openid, people, probe, settings, signins
from broker.models import Profile
from providers import base
from providers import errors as clouds
from tests.broker.conftest import Bench
from tests.doubles.accounts_cloud import AccountsCloud
from tests.doubles.desk_cloud import DeskCloud
from tests.doubles.hub_double import HubDouble

OWN = {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
NUMBER, KEY = "123456789012", "not-to-be-seen"
BACK = "/?repo=owner%2Fname&backend=desk"
HUB = "https://hub.example"
CAMPUS = settings.IdentitySetting(name="campus", issuer="https://idp.example", client_id="anybinder")


@pytest.fixture
def cloud() -> AccountsCloud:
    return AccountsCloud()


@pytest.fixture
def desk(make_bench: Callable[..., Bench], cloud: AccountsCloud) -> Bench:
    return make_bench(cloud, identities=(CAMPUS,))


@pytest.fixture
def browser(desk: Bench) -> Iterator[TestClient]:
    """The local person's, as it is without JavaScript."""
    with sit_down(desk) as made:
        made.cookies.set("anybinder", made.app.state.door.cookie())  # type: ignore[attr-defined]
        yield made


def sit_down(desk: Bench) -> TestClient:
    made = TestClient(app.create(desk.at), base_url="http://localhost:8000", raise_server_exceptions=False)
    made.headers.update(OWN)
    return made


def words(text: str) -> str:
    return " ".join(html.unescape(text).split())


def tell(browser: TestClient, kind: str = "keyless", **typed: str) -> str:
    """Fill in the form and follow where it leads."""
    answer = browser.post(f"/connect/desk/{kind}", data={"account": NUMBER, **typed})
    assert answer.status_code == 200, answer.text
    return words(answer.text)


# --- the way there --------------------------------------------------------------------------------------------------


def test_the_list_says_how_everything_is(browser: TestClient, cloud: AccountsCloud) -> None:
    assert "Not connected" in words(browser.get("/connect").text)
    tell(browser)
    page = words(browser.get("/connect").text)
    assert "Connected and works" in page
    assert "Checked just now" not in page.replace("Checked <time", "")  # it is a time that goes on
    assert "last used <time" in page
    cloud.missing = {"desk:End"}
    browser.post("/connect/desk/check")
    assert "something is wrong" in words(browser.get("/connect").text)


def test_the_best_way_is_shown_and_the_others_are_behind_it(browser: TestClient, desk: Bench) -> None:
    page = words(browser.get("/connect/desk").text)
    assert "Nothing secret is handed over" in page
    for word in ("start machines", "see them", "end them", "read your files", "see your bills"):
        assert word in page
    assert 'href="/connect/desk/kept"' in page
    assert 'type="password"' not in page
    subject = identity.subject(desk.at, "local", "backend:desk")
    assert f"https://cloud.example/create?sub=launch:{subject}" in page
    assert f"cloud trust --sub launch:{subject}" in page


def test_a_check_shows_permission_by_permission_what_was_found(browser: TestClient, cloud: AccountsCloud) -> None:
    cloud.missing = {"desk:End"}
    page = tell(browser)
    assert "1 permission missing" in page
    assert "Allow <code>desk:End</code> in the role." in page
    assert "It cannot be tried without buying something" in page
    cloud.missing = set()
    page = words(browser.post("/connect/desk/check").text)
    assert "Connected, and it works" in page
    assert "missing" not in page.partition('id="outcome"')[2].partition("</section>")[0]


def test_what_is_told_appears_in_the_guide_afterwards(browser: TestClient) -> None:
    assert f"account={NUMBER}" in tell(browser)


def test_a_field_that_does_not_fit_is_said_beside_it_and_the_rest_is_kept(browser: TestClient) -> None:
    answer = browser.post("/connect/desk/kept", data={"account": "12", "key": KEY})
    assert answer.status_code == 400
    assert 'id="account-problem" role="alert"' in answer.text
    assert 'value="12"' in answer.text
    assert KEY not in answer.text
    again = browser.post("/connect/desk/kept", data={"account": NUMBER, "key": ""})
    assert (again.status_code, f'value="{NUMBER}"' in again.text) == (400, True)
    assert "Secret key is needed" in words(again.text)


def test_a_secret_is_never_shown_and_stays_when_left_empty(browser: TestClient, desk: Bench) -> None:
    assert KEY not in tell(browser, "kept", key=KEY)
    page = browser.get("/connect/desk/kept?change=1").text
    assert KEY not in page
    assert "Leave it empty to keep the one that is kept." in words(page)
    assert 'type="password" value="" autocomplete="off"' in page
    tell(browser, "kept", account="999999999999", key="")
    found = connections.of(desk.at, people.LOCAL)[0]
    assert (connections.opened(desk.at, found), found.settings) == (KEY, {"account": "999999999999"})


def test_a_cloud_that_is_away_is_said_and_nothing_typed_is_lost(browser: TestClient, cloud: AccountsCloud) -> None:
    cloud.refuse("sign_in", clouds.ProviderUnavailable("The desk is away. Try again later."))
    answer = browser.post("/connect/desk/keyless", data={"account": NUMBER})
    assert answer.status_code == 502
    assert "The desk is away. Try again later." in words(answer.text)
    assert f'value="{NUMBER}"' in answer.text


def test_a_refusal_is_a_finding_with_what_to_do(browser: TestClient, cloud: AccountsCloud) -> None:
    cloud.refused = {base.Purpose.LAUNCH: "It trusts nobody yet. Create the stack first."}
    page = tell(browser)
    assert "Accounts Cloud did not let us in" in page
    assert "It trusts nobody yet. Create the stack first." in page


def test_checks_are_not_for_pressing_without_end(browser: TestClient) -> None:
    tell(browser)
    answers = [browser.post("/connect/desk/check").status_code for _ in range(13)]
    assert answers.count(429) == 2
    assert "too often" in words(browser.post("/connect/desk/check").text)


def test_a_file_to_read_comes_as_a_file(browser: TestClient) -> None:
    answer = browser.get("/connect/desk/keyless/files/trust.yaml")
    assert answer.text == "Trust: <&>\n"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert browser.get("/connect/desk/keyless/files/passwd").status_code == 404


@pytest.mark.parametrize("path", ["/connect/moon", "/connect/desk/moon", "/connect/repo/moon"])
def test_what_is_not_there_is_not_there(browser: TestClient, path: str) -> None:
    assert browser.get(path).status_code == 404


# --- back to the launch ---------------------------------------------------------------------------------------------


def test_the_form_leads_to_connecting_and_connecting_leads_back(browser: TestClient) -> None:
    home = html.unescape(browser.get(BACK).text)
    assert f'href="/connect/desk?next={quote(BACK, safe="")}"' in home
    assert "Connect your account" in home
    page = browser.get(f"/connect/desk?next={quote(BACK, safe='')}").text
    assert f'name="next" value="{html.escape(BACK)}"' in page
    page = tell(browser, next=BACK)
    assert f'href="{BACK}">Back to your launch' in page
    assert "Your account there" in html.unescape(browser.get(BACK).text)


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/logout", "/x\ny"],
)
def test_it_leads_back_nowhere_else(browser: TestClient, elsewhere: str) -> None:
    page = tell(browser, next=elsewhere)
    assert "evil.example" not in page
    assert "Back to your launch" not in page
    assert "alert(1)" not in browser.get("/connect/desk", params={"next": elsewhere}).text


# --- disconnecting --------------------------------------------------------------------------------------------------


def test_disconnecting_says_what_runs_and_how_to_revoke(browser: TestClient, desk: Bench) -> None:
    tell(browser, "kept", key=KEY)
    launch = desk.ready()
    asked = words(browser.get("/connect/desk/disconnect").text)
    assert "1 session still runs on it" in asked
    assert launch.name in asked
    assert "erased as soon as the last of these sessions has ended" in asked
    done = words(browser.post("/connect/desk/disconnect").text)
    assert "is disconnected" in done
    assert "Delete the trust of launch:" in done
    assert "Not connected" in words(browser.get("/connect").text)
    assert browser.post("/connect/desk/disconnect", follow_redirects=False).status_code == 303


def test_what_was_done_is_listed_in_words_by_the_page(browser: TestClient, desk: Bench) -> None:
    tell(browser)
    page = words(browser.get("/account/uses").text)
    assert page.count("Checked what it may do") == 2
    assert "Desk" in page
    found = connections.of(desk.at, people.LOCAL)[0]
    for number in range(60):
        connections.used(desk.at, found, "launch", launch_id="abcdefghijkl", outcome=f"refused <{number}>")
    page = browser.get("/account/uses").text
    assert page.count("/launches/abcdefghijkl") == 50
    assert "&lt;59&gt;" in page
    assert 'href="/account/uses?before=13">Older' in page
    older = browser.get("/account/uses?before=13").text
    assert "&lt;9&gt;" in older
    assert "Older" not in older


# --- who may --------------------------------------------------------------------------------------------------------


def person(desk: Bench, browser: TestClient, person_id: str = "ada", hours_ago: float = 0) -> people.Person:
    """Somebody who has signed in, at this browser."""
    when = desk.clock() - dt.timedelta(hours=hours_ago)
    with desk.at.db.transaction() as session:
        session.merge(Profile(id=person_id, name="Ada", created_at=when, signed_in_at=when))
    vouched = openid.Vouched(issuer="https://idp.example", subject=person_id, authenticated_at=when)
    _row, secret = signins.begin(desk.at, person_id, vouched, "a test")
    browser.cookies.set("anybinder-sign-in", secret)
    return people.known(desk.at, person_id)


def test_each_person_has_their_own(desk: Bench, browser: TestClient) -> None:
    tell(browser)
    with sit_down(desk) as hers:
        person(desk, hers)
        assert "Not connected" in words(hers.get("/connect").text)
        assert hers.post("/connect/desk/check").status_code == 404
        assert hers.get("/api/connections").json()[0]["connected"] is False
        assert 'href="/connect/desk/ambient"' not in hers.get("/connect/desk").text


def test_visitors_and_tokens_connect_nothing(desk: Bench, browser: TestClient) -> None:
    with sit_down(desk) as nobody:
        for path in ("/connect", "/connect/desk", "/account/uses"):
            answer = nobody.get(path, follow_redirects=False)
            assert answer.status_code in (303, 401)
            assert "Accounts Cloud" not in answer.text
        answer = nobody.post("/connect/desk/keyless", data={"account": NUMBER}, follow_redirects=False)
        assert answer.status_code in (303, 401)
        made = api_tokens.create(desk.at, people.LOCAL, name="script", scopes=("read", "launch"))
        nobody.headers["Authorization"] = f"Bearer {made[1]}"
        assert nobody.post("/connect/desk/keyless", data={"account": NUMBER}).status_code == 403
        assert nobody.post("/connect/desk/disconnect").status_code == 403
        assert nobody.get("/api/connections").status_code == 200
    assert connections.of(desk.at, people.LOCAL) == []


def test_another_page_connects_nothing(browser: TestClient, desk: Bench) -> None:
    for path in ("/connect/desk/keyless", "/connect/desk/check", "/connect/desk/disconnect"):
        answer = browser.post(path, data={"account": NUMBER}, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403
    assert connections.of(desk.at, people.LOCAL) == []


def test_a_place_for_others_is_not_shown(make_bench: Callable[..., Bench], cloud: AccountsCloud) -> None:
    desk = make_bench(cloud, identities=(CAMPUS,))
    theirs = settings.BackendSetting(name="desk", provider="fake", open_to=("group staff",))
    desk.at.backends["desk"] = backends.Backend(name="desk", title="Desk", provider=cloud, setting=theirs)
    with sit_down(desk) as hers:
        person(desk, hers)
        assert hers.get("/connect/desk").status_code == 404


def test_a_place_that_needs_no_account_is_not_among_them(make_bench: Callable[..., Bench]) -> None:
    desk = make_bench(DeskCloud())
    with sit_down(desk) as browser:
        browser.cookies.set("anybinder", browser.app.state.door.cookie())  # type: ignore[attr-defined]
        assert [each["target"] for each in browser.get("/api/connections").json() if "desk" in each["target"]] == []
        assert "/connect/desk" not in browser.get("/").text


# --- off this machine -----------------------------------------------------------------------------------------------


class FarAway(AccountsCloud):
    dials_loopback = False


def far(make_bench: Callable[..., Bench], trouble: str | None, **chosen: str) -> Bench:
    desk = make_bench(FarAway(), **chosen)
    desk.at.probes[HUB] = probe.Seen(at=desk.clock(), trouble=trouble)
    return desk


def test_without_a_public_address_keyless_is_grey_and_other_ways_work(make_bench: Callable[..., Bench]) -> None:
    with sit_down(far(make_bench, None)) as browser:
        browser.cookies.set("anybinder", browser.app.state.door.cookie())  # type: ignore[attr-defined]
        page = words(browser.get("/connect/desk/keyless").text)
        assert "ANYBINDER_PUBLIC_URL" in page
        assert 'name="account"' not in page
        refused = browser.post("/connect/desk/keyless", data={"account": NUMBER})
        assert (refused.status_code, "ANYBINDER_PUBLIC_URL" in refused.text) == (400, True)
        assert "A limited credential" in words(browser.get("/connect/desk").text)  # the best that is open
        assert "Connected, and it works" in tell(browser, "kept", key=KEY)
        assert "Connected, and it works" in words(browser.post("/connect/desk/ambient").text)


def test_an_address_that_does_not_lead_here_is_said_on_the_page(make_bench: Callable[..., Bench]) -> None:
    desk = far(make_bench, "The certificate of hub.example is refused.")
    served = replace(desk.at, settings=desk.at.settings.model_copy(update={"public_url": HUB}))
    assert (
        backends.named(served, "desk").closed_to(served, people.LOCAL) == "The certificate of hub.example is refused."
    )
    desk.at.probes[HUB] = probe.Seen(at=desk.clock(), trouble=None)
    assert backends.named(served, "desk").closed_to(served, people.LOCAL) is None


# --- for programs ---------------------------------------------------------------------------------------------------


def test_the_list_as_json_tells_no_secret(browser: TestClient, desk: Bench) -> None:
    tell(browser, "kept", key=KEY)
    answer = browser.get("/api/connections")
    told = answer.json()[0]
    assert KEY not in answer.text
    assert NUMBER not in answer.text
    now = desk.clock().isoformat()
    assert told == {
        "target": "backend:desk",
        "title": "Desk",
        "page": "/connect/desk",
        "connected": True,
        "kind": "kept",
        "tier": "kept",
        "who": "desk",
        "works": True,
        "trouble": "",
        "checked_at": now,
        "ends_at": None,
        "used_at": now,
    }


def test_a_credential_that_has_ended_says_so(browser: TestClient, cloud: AccountsCloud, desk: Bench) -> None:
    cloud.reaches = desk.clock() + dt.timedelta(hours=1)
    tell(browser, "kept", key=KEY)
    desk.clock.move(hours=2)
    assert "Its credential has ended" in words(browser.get("/connect/desk").text)
    assert "Its credential has ended" in words(browser.get("/connect").text)


def test_a_sign_in_of_long_ago_is_asked_for_again_and_leads_back(desk: Bench, cloud: AccountsCloud) -> None:
    with sit_down(desk) as hers:
        person(desk, hers, hours_ago=0)
        desk.clock.move(hours=1)
        when = desk.clock() - dt.timedelta(hours=13)
        with desk.at.db.transaction() as session:
            session.merge(Profile(id="ada", name="Ada", created_at=when, signed_in_at=when))
        answer = hers.post("/connect/desk/keyless", data={"account": NUMBER, "next": BACK}, follow_redirects=False)
        assert answer.status_code == 303
        back = "/connect/desk?" + urlencode({"next": BACK})
        assert answer.headers["location"] == "/login?" + urlencode({"again": "1", "next": back})
        assert f'value="{NUMBER}"' in hers.get("/connect/desk").text  # it was kept


def test_another_hub_is_connected_as_a_place_and_a_host_are(make_bench: Callable[..., Bench]) -> None:
    token = "6b392d948205462497c93c766aa16ec0"
    with HubDouble() as hub:
        hub.scopes[token] = ["servers!user", "access:servers!user"]
        with sit_down(make_bench(peers=[{"name": "physics", "url": hub.url, "title": "Physics"}])) as browser:
            browser.cookies.set("anybinder", browser.app.state.door.cookie())  # type: ignore[attr-defined]
            assert "Other hubs" in browser.get("/connect").text
            shown = browser.post("/connect/peer/physics/token", data={"token": token}).text
            assert "Connected, and it works" in shown
            assert token not in shown
            assert f"{hub.url}/hub/token" in browser.post("/connect/peer/physics/disconnect").text
