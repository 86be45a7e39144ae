"""Signing in and out in a browser: every step, everything that can go wrong at it, and what is typed meanwhile."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import httpx
import hypothesis
import pytest
from fastapi.testclient import TestClient

from broker import app
from broker.openid import asking
from broker.web import login
from tests.broker.conftest import Bench, Clock
from tests.doubles.openid_double import OpenIdDouble, query_of

HERE = "http://localhost:8000"
OWN = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}
PAGE = {"Accept": "text/html"}


@pytest.fixture
def campus(clock: Clock) -> Iterator[OpenIdDouble]:
    with OpenIdDouble(now=clock) as double:
        yield double


@pytest.fixture
def hub(make_bench: Callable[..., Bench], campus: OpenIdDouble) -> Bench:
    return make_bench(identities=(campus.setting(),))


def browser_of(bench: Bench) -> TestClient:
    return TestClient(
        app.create(bench.at), base_url=HERE, raise_server_exceptions=False, follow_redirects=False, headers=PAGE
    )


@pytest.fixture
def browser(hub: Bench) -> Iterator[TestClient]:
    with browser_of(hub) as made:
        yield made


def test_somebody_signs_in_and_goes_on_where_they_were(browser: TestClient, campus: OpenIdDouble) -> None:
    back = campus.sign_in(browser, path="/login/campus?next=/sessions")
    assert (back.status_code, back.headers["location"]) == (303, "/sessions")
    assert browser.get("/sessions").status_code == 200


# --- the way there --------------------------------------------------------------------------------------------------


def test_a_page_that_needs_somebody_leads_to_signing_in_and_back(browser: TestClient, campus: OpenIdDouble) -> None:
    first = browser.get("/sessions?a=b")
    assert (first.status_code, first.headers["location"]) == (303, "/login?next=%2Fsessions%3Fa%3Db")
    second = browser.get(first.headers["location"])
    assert second.headers["location"].startswith("/login/campus?next=")  # one provider: nothing to choose
    assert campus.sign_in(browser, path=second.headers["location"]).headers["location"] == "/sessions?a=b"


def test_a_script_is_told_and_not_led(browser: TestClient) -> None:
    answer = browser.get("/api/launches", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (401, "not_signed_in")
    assert f"{HERE}/login" in answer.json()["detail"]
    assert browser.get("/api/launches").status_code == 401


def test_without_providers_everything_is_as_it_was(make_bench: Callable[..., Bench]) -> None:
    with browser_of(make_bench()) as browser:
        told = browser.get("/sessions")
        assert (told.status_code, "anybinder up" in told.text) == (401, True)
        assert "anybinder up" in browser.get("/login").text
        assert browser.get("/login/campus").status_code == 404


def test_the_local_person_needs_no_provider(browser: TestClient) -> None:
    browser.cookies.set("anybinder", browser.app.state.door.cookie())  # type: ignore[attr-defined]
    assert browser.get("/sessions").status_code == 200
    assert browser.get("/login").status_code == 200  # whom else to sign in as is for them to choose


def test_what_was_typed_is_kept_by_signing_in(browser: TestClient, campus: OpenIdDouble, hub: Bench) -> None:
    typed = {"repo": hub.repo, "ref": "main", "path": "a b.ipynb", "backend": "desk"}
    page = browser.post("/launch", data=typed, headers=OWN)
    assert page.status_code == 401
    way = re.search(r'class="button" href="([^"]+)"', page.text)
    assert way is not None
    back = campus.sign_in(browser, path=html.unescape(way[1]))
    form = browser.get(back.headers["location"])
    assert form.status_code == 200
    assert all(f'value="{value}"' in form.text for value in (hub.repo, "main", "a b.ipynb"))


def test_a_launch_link_travels_as_well(browser: TestClient, campus: OpenIdDouble) -> None:
    link = "/v2/gh/owner/name/main?labpath=a%2Fb.ipynb"
    assert campus.sign_in(browser, path=f"/login/campus?{urlencode({'next': link})}").headers["location"] == link


def test_more_than_a_cookie_holds_is_let_go(browser: TestClient, campus: OpenIdDouble) -> None:
    longest = "/?repo=" + "x" * (login.NEXT_MOST - 7)
    begun = browser.get(f"/login/campus?{urlencode({'next': longest})}")
    cookie = begun.headers["set-cookie"]
    assert len(cookie.partition(";")[0]) < 4000
    assert campus.sign_in(browser, path=f"/login/campus?{urlencode({'next': longest})}").headers["location"] == longest
    assert (
        campus.sign_in(browser, path=f"/login/campus?{urlencode({'next': longest + 'x'})}").headers["location"] == "/"
    )


def test_of_several_providers_one_is_chosen(make_bench: Callable[..., Bench], campus: OpenIdDouble) -> None:
    other = campus.setting(name="orcid", title="ORCID", issuer="https://orcid.example")
    with browser_of(make_bench(identities=(campus.setting(), other))) as browser:
        page = browser.get("/login?next=/sessions")
        assert page.status_code == 200
        assert re.findall(r'href="(/login/[^"]+)">([^<]+)<', page.text) == [
            ("/login/campus?next=%2Fsessions", "Campus"),
            ("/login/orcid?next=%2Fsessions", "ORCID"),
        ]


def test_many_tabs_sign_in_beside_each_other(browser: TestClient, campus: OpenIdDouble) -> None:
    began = [browser.get(f"/login/campus?next=/sessions?tab={tab}").headers["location"] for tab in range(3)]
    for tab, address in reversed(list(enumerate(began))):
        back = browser.get(campus.visit(address))
        assert back.headers["location"] == f"/sessions?tab={tab}"


def test_the_cookies_of_attempts_do_not_pile_up(browser: TestClient, campus: OpenIdDouble) -> None:
    for _ in range(12):
        browser.get("/login/campus")
    assert len([name for name in browser.cookies if name.startswith("anybinder-login-")]) == login.ATTEMPTS_MOST
    assert campus.sign_in(browser).status_code == 303


# --- where to go afterwards -----------------------------------------------------------------------------------------

ELSEWHERE = (
    "https://evil.example/",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/ /evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.example",
    "http:evil.example",
    "@evil.example",
    ":1@evil.example/",
    "",
    "?x",
    "/%2f/../%5c\\evil.example",
    "//localhost:8000/",
    "/login",
    "/login/campus",
    "/x/../login/campus",
    "/%6cogin",
    "/LOGIN?x",
    "/logout",
    "/.//evil.example",
    "/x/..//evil.example",
    "/\u2028/x",
    "/\x00",
    "//[",
)


@pytest.mark.parametrize("asked", ELSEWHERE)
def test_nobody_is_led_elsewhere(asked: str, browser: TestClient, campus: OpenIdDouble) -> None:
    back = campus.sign_in(browser, path=f"/login/campus?{urlencode({'next': asked})}")
    assert urljoin(f"{HERE}/", back.headers["location"]) == f"{HERE}/"


def test_elsewhere_is_in_no_link_of_the_page_either(make_bench: Callable[..., Bench], campus: OpenIdDouble) -> None:
    other = campus.setting(name="orcid", issuer="https://orcid.example")
    with browser_of(make_bench(identities=(campus.setting(), other))) as browser:
        assert "evil" not in browser.get("/login?next=//evil.example").text


@hypothesis.given(
    hypothesis.strategies.text(max_size=60) | hypothesis.strategies.from_regex(r"[/\\.:@?#%a-z\t\n ]{0,20}")
)
@hypothesis.settings(deadline=None)
def test_wherever_next_leads_is_here(asked: str) -> None:
    found = login.safe_next(asked)
    for base in (f"{HERE}/", f"{HERE}/login/campus/callback?code=x"):
        # browsers take `\` for `/`, and drop tabs and newlines, before they look at an address
        seen = urlsplit(urljoin(base, found.replace("\\", "/")))
        assert (seen.scheme, seen.netloc) == ("http", "localhost:8000")
    assert found.startswith("/")
    assert not found.startswith(("//", "/login", "/logout"))
    assert not set(found) & {"\\", "\t", "\r", "\n", "\0"}
    assert login.safe_next(found) == found


# --- only who began it, only once -----------------------------------------------------------------------------------


def test_a_login_csrf_signs_nobody_in(hub: Bench, browser: TestClient, campus: OpenIdDouble) -> None:
    """Somebody begins in their own browser, and has the victim's browser finish it."""
    with browser_of(hub) as attacker:
        planted = campus.visit(attacker.get("/login/campus").headers["location"], "bob")
        victim = browser.get(planted)
        assert_refused(victim, "not begun in this browser")
        assert browser.get("/sessions").status_code == 303
        assert campus.count("/token") == 0  # the code was not spent either


def test_a_stolen_state_is_worth_nothing(hub: Bench, browser: TestClient, campus: OpenIdDouble) -> None:
    """Somebody who has seen the victim's address finishes it first, in their own browser, with their own attempt."""
    address = browser.get("/login/campus").headers["location"]
    back = campus.visit(address)
    with browser_of(hub) as thief:
        assert_refused(thief.get(back), "not begun in this browser")
        thief.get("/login/campus")
        assert_refused(thief.get(back), "not begun in this browser")
        assert thief.get("/sessions").status_code == 303
    assert browser.get(back).headers["location"] == "/"


def test_another_attempts_answer_does_not_fit(browser: TestClient, campus: OpenIdDouble) -> None:
    """A code of bob's in an answer that carries the state of ada's attempt: the provider's own checks refuse it."""
    mine = browser.get("/login/campus").headers["location"]
    other = browser.get("/login/campus").headers["location"]
    theirs = query_of(campus.visit(other, "bob"))
    stolen = {**theirs, "state": query_of(mine)["state"]}
    assert_refused(browser.get(f"/login/campus/callback?{urlencode(stolen)}"), "did not accept")


def test_the_cookie_of_one_attempt_opens_no_other(browser: TestClient, campus: OpenIdDouble, hub: Bench) -> None:
    one, other = (query_of(browser.get("/login/campus").headers["location"])["state"] for _ in range(2))
    names = [login.attempt_cookie(hub.at.settings, state) for state in (one, other)]
    moved = browser.cookies[names[0]]
    browser.cookies.clear()
    browser.cookies.set(names[1], moved)
    assert_refused(browser.get(f"/login/campus/callback?code=x&state={other}"), "not begun in this browser")


def test_an_answer_is_taken_once(browser: TestClient, campus: OpenIdDouble) -> None:
    back = campus.visit(browser.get("/login/campus").headers["location"])
    assert browser.get(back).status_code == 303
    assert_refused(browser.get(back), "not begun in this browser")


def test_an_answer_that_comes_after_ten_minutes_is_late(
    browser: TestClient, campus: OpenIdDouble, clock: Clock
) -> None:
    back = campus.visit(browser.get("/login/campus").headers["location"])
    clock.move(minutes=10, seconds=1)
    assert_refused(browser.get(back), "ten minutes")


@pytest.mark.parametrize("query", ["", "?code=x", "?state=x", "?state=x&code=y", "?error=access_denied", "?state=%00"])
def test_an_answer_to_nothing_is_a_page_that_says_so(browser: TestClient, query: str) -> None:
    assert_refused(browser.get(f"/login/campus/callback{query}"), "not begun in this browser")


@pytest.mark.parametrize("damaged", ["", "x", "é", "AAAA", "A" * 3000])
def test_a_damaged_cookie_is_as_none(browser: TestClient, hub: Bench, damaged: str) -> None:
    name = login.attempt_cookie(hub.at.settings, "x")
    headers = {**PAGE, "Cookie": f"{name}={damaged}".encode()}
    assert_refused(browser.get("/login/campus/callback?state=x&code=y", headers=headers), "not begun in this browser")


def test_an_attempt_at_one_provider_is_not_finished_at_another(
    make_bench: Callable[..., Bench], campus: OpenIdDouble
) -> None:
    other = campus.setting(name="other", issuer="https://other.example")
    with browser_of(make_bench(identities=(campus.setting(), other))) as browser:
        back = campus.visit(browser.get("/login/campus").headers["location"])
        assert_refused(browser.get(back.replace("/campus/", "/other/")), "not begun in this browser")


# --- cookies and headers --------------------------------------------------------------------------------------------


def test_the_cookies_are_as_strict_as_they_can_be(make_bench: Callable[..., Bench], campus: OpenIdDouble) -> None:
    served = make_bench(
        identities=(campus.setting(),), public_url="https://hub.example", session_domain="sessions.example"
    )
    with TestClient(app.create(served.at), base_url="https://hub.example", follow_redirects=False) as browser:
        begun = browser.get("/login/campus")
        attempt = begun.headers["set-cookie"]
        assert attempt.startswith("__Host-anybinder-login-")
        assert campus.asked == []
        address = begun.headers["location"]
        assert query_of(address)["redirect_uri"] == "https://hub.example/login/campus/callback"
        back = browser.get(campus.visit(address))
        cookies = back.headers.get_list("set-cookie")
        signed_in = next(each for each in cookies if each.startswith("__Host-anybinder="))
        for cookie in (attempt, signed_in):
            assert {"HttpOnly", "Path=/", "SameSite=lax", "Secure"} <= set(cookie.split("; "))
            assert "domain" not in cookie.lower()
        assert any(each.startswith("__Host-anybinder-login-") and "Max-Age=0" in each for each in cookies)


def test_on_this_computer_the_cookies_have_no_prefix(browser: TestClient, campus: OpenIdDouble) -> None:
    campus.sign_in(browser)
    assert set(browser.cookies) == {"anybinder-sign-in"}


def test_a_secret_that_was_planted_before_is_worth_nothing_after(
    hub: Bench, browser: TestClient, campus: OpenIdDouble
) -> None:
    campus.sign_in(browser, "bob")
    planted = browser.cookies["anybinder-sign-in"]
    campus.sign_in(browser, "ada")
    assert browser.cookies["anybinder-sign-in"] != planted
    with browser_of(hub) as attacker:
        attacker.cookies.set("anybinder-sign-in", planted)
        assert attacker.get("/sessions").status_code == 303


def test_a_secret_made_up_by_somebody_is_never_taken_over(browser: TestClient, campus: OpenIdDouble) -> None:
    browser.cookies.set("anybinder-sign-in", "made-up", domain="localhost.local")
    campus.sign_in(browser)
    assert "made-up" not in browser.cookies.values() or browser.get("/sessions").status_code == 200
    browser.cookies.clear()
    browser.cookies.set("anybinder-sign-in", "made-up")
    assert browser.get("/sessions").status_code == 303


def test_no_page_of_signing_in_is_kept_or_tells_another_its_address(browser: TestClient, campus: OpenIdDouble) -> None:
    address = browser.get("/login/campus").headers["location"]
    seen = [
        browser.get("/login"),
        browser.get("/login?again=1"),
        browser.get("/login/campus"),
        browser.get("/login/campus/callback?code=secret&state=x"),
        browser.get(campus.visit(address)),
        browser.get("/login/campus/loggedout"),
        browser.post("/logout", headers=OWN),
        browser.get("/sessions"),
    ]
    for answer in seen:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_no_token_code_or_secret_is_in_what_browsers_and_logs_see(
    browser: TestClient, campus: OpenIdDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    address = browser.get("/login/campus").headers["location"]
    back = campus.visit(address)
    answer = browser.get(back)
    refused = browser.get(back)
    page = browser.get("/")
    shown = "\n".join([str(answer.headers), refused.text, str(refused.headers), page.text, *capfd.readouterr()])
    secrets = [*campus.tokens, campus.client_secret, query_of(address)["state"], query_of(address)["nonce"]]
    assert len(secrets) > 5
    assert not [secret for secret in secrets if secret in shown]


# --- what goes wrong ------------------------------------------------------------------------------------------------


def assert_refused(answer: Any, sentence: str, status: int | None = None) -> None:
    """A page with that sentence and a way to try again, and nobody signed in by it."""
    assert answer.status_code == (status or answer.status_code)
    assert 400 <= answer.status_code < 600
    assert sentence in html.unescape(answer.text)
    assert re.search(r'class="button" href="/(login|account)[^"]*"', answer.text)
    assert "anybinder-sign-in" not in answer.headers.get("set-cookie", "")


@pytest.mark.parametrize("step", ["discovery", "jwks", "token", "userinfo"])
def test_a_provider_that_is_down_is_a_page_and_a_way_to_try_again(
    browser: TestClient, campus: OpenIdDouble, step: str
) -> None:
    campus.faults[step] = "error"
    answer = campus.sign_in(browser, path="/login/campus?next=/sessions")
    assert_refused(answer, "Campus does not answer as it should", 503)
    campus.faults.clear()
    way = re.search(r'class="button" href="([^"]+)"', answer.text)
    assert way is not None
    assert campus.sign_in(browser, path=html.unescape(way[1])).headers["location"] == "/sessions"


def test_keys_that_hang_are_a_page_too(
    browser: TestClient, campus: OpenIdDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.5)
    campus.faults["jwks"] = "hang"
    assert_refused(campus.sign_in(browser), "does not answer as it should right now (its keys)", 503)


def test_whoever_cancels_is_not_signed_in(browser: TestClient, campus: OpenIdDouble) -> None:
    campus.says_error = "access_denied"
    assert_refused(campus.sign_in(browser), "you cancelled", 403)
    assert browser.get("/sessions").status_code == 303


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"nonce": "other"}, "another attempt"),
        ({"aud": "other"}, "not meant for this broker"),
        ({"iss": "https://evil.example"}, "not meant for this broker"),
        ({"exp": 1}, "more than five minutes"),
    ],
)
def test_an_answer_that_cannot_be_believed_is_a_page(
    browser: TestClient, campus: OpenIdDouble, wrong: dict[str, Any], sentence: str
) -> None:
    campus.tamper = lambda told: {**told, **wrong}
    assert_refused(campus.sign_in(browser), sentence, 502)
    assert browser.get("/sessions").status_code == 303


def test_a_clock_that_is_off_by_more_than_five_minutes_is_a_page(browser: TestClient, campus: OpenIdDouble) -> None:
    campus.skew = 302
    assert_refused(campus.sign_in(browser), "more than five minutes", 502)
    campus.skew = 300
    assert campus.sign_in(browser).headers["location"] == "/"


def test_whoever_is_signed_in_stays_so_when_signing_in_anew_fails(browser: TestClient, campus: OpenIdDouble) -> None:
    campus.sign_in(browser)
    campus.faults["token"] = "error"
    assert campus.sign_in(browser).status_code == 503
    assert browser.get("/sessions").status_code == 200


def test_an_unknown_provider_is_said_to_be(browser: TestClient) -> None:
    assert browser.get("/login/nobody").status_code == 404
    assert_refused(browser.get("/login/nobody/callback?state=x&code=y"), "no such way to sign in", 404)


# --- signing out ----------------------------------------------------------------------------------------------------


def test_signing_out_ends_it_here_and_leads_to_the_provider(browser: TestClient, campus: OpenIdDouble) -> None:
    campus.sign_in(browser)
    secret = browser.cookies["anybinder-sign-in"]
    page = browser.post("/logout", headers=OWN)
    assert page.status_code == 200
    away = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', page.text)
    assert away is not None
    asked = query_of(html.unescape(away[1]))
    assert asked["post_logout_redirect_uri"] == f"{HERE}/login/campus/loggedout"
    httpx.get(html.unescape(away[1]), follow_redirects=False)
    assert campus.sessions == {}
    assert browser.get("/login/campus/loggedout").status_code == 200
    browser.cookies.set("anybinder-sign-in", secret)  # a cookie somebody has kept
    assert browser.get("/sessions").status_code == 303


def test_signing_out_while_the_provider_is_down_ends_it_here_and_says_so(
    browser: TestClient, campus: OpenIdDouble, clock: Clock
) -> None:
    campus.sign_in(browser)
    clock.move(minutes=6)
    campus.faults["discovery"] = "error"
    page = browser.post("/logout", headers=OWN)
    assert (page.status_code, "may still be signed in there" in page.text) == (200, True)
    assert browser.get("/sessions").status_code == 303


def test_signing_out_at_a_provider_without_a_page_for_it_says_what_to_do(
    browser: TestClient, campus: OpenIdDouble
) -> None:
    campus.discovery_says = {"end_session_endpoint": None}
    campus.sign_in(browser)
    assert "sign out there too" in browser.post("/logout", headers=OWN).text


def test_another_page_cannot_sign_anybody_out(browser: TestClient, campus: OpenIdDouble) -> None:
    campus.sign_in(browser)
    assert browser.post("/logout", headers={"Origin": "https://evil.example"}).status_code == 403
    assert browser.post("/logout").status_code == 403
    assert browser.get("/sessions").status_code == 200


def test_signing_out_leaves_the_local_person_alone(browser: TestClient, campus: OpenIdDouble) -> None:
    browser.cookies.set("anybinder", browser.app.state.door.cookie())  # type: ignore[attr-defined]
    campus.sign_in(browser)
    answer = browser.post("/logout", headers=OWN)
    assert not [each for each in answer.headers.get_list("set-cookie") if each.startswith("anybinder=")]
    assert browser.get("/sessions").status_code == 200


def test_the_provider_signs_somebody_out_behind_their_back(
    hub: Bench, browser: TestClient, campus: OpenIdDouble
) -> None:
    with browser_of(hub) as second, browser_of(hub) as somebody:
        campus.sign_in(browser)
        campus.sign_in(second)
        campus.sign_in(somebody, "bob")
        sid = next(iter(campus.sessions))
        told = browser.post("/login/campus/backchannel", data={"logout_token": campus.logout_token(sid=sid)})
        assert (told.status_code, told.headers["cache-control"]) == (200, "no-store")
        assert [each.get("/sessions").status_code for each in (browser, second, somebody)] == [303, 200, 200]
        token = campus.logout_token(sub="ada-1")
        assert second.post("/login/campus/backchannel", data={"logout_token": token}).status_code == 200
        assert [each.get("/sessions").status_code for each in (browser, second, somebody)] == [303, 303, 200]


def test_a_browser_whose_session_was_never_named_is_signed_out_with_its_person(
    browser: TestClient, campus: OpenIdDouble
) -> None:
    campus.tamper = lambda told: {name: value for name, value in told.items() if name != "sid"}
    campus.sign_in(browser)
    for who, status in (("bob-1", 200), ("ada-1", 303)):
        token = campus.logout_token(sub=who, sid="a-name-of-the-providers-own")
        assert browser.post("/login/campus/backchannel", data={"logout_token": token}).status_code == 200
        assert browser.get("/sessions").status_code == status


def test_a_log_out_that_is_not_the_providers_ends_nothing(browser: TestClient, campus: OpenIdDouble) -> None:
    campus.sign_in(browser)
    for sent in ({}, {"logout_token": "x"}, {"logout_token": campus.logout_token(sub="ada-1", aud="other")}):
        answer = browser.post("/login/campus/backchannel", data=sent)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert browser.post("/login/nobody/backchannel", data={}).status_code == 400
    assert browser.get("/sessions").status_code == 200


def test_only_the_back_channel_is_open_to_those_who_do_not_say_where_they_come_from(browser: TestClient) -> None:
    for path in ("/login/campus/backchannel/", "/login/a/b/backchannel", "/login/CAMPUS/backchannel", "/logout"):
        assert browser.post(path).status_code == 403
