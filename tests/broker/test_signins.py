"""Browsers that are signed in: how long, where, what renews them, and when they must prove it again."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from broker import (
    api_tokens,
    app,
    backends,
    errors,
    launches,
    openid,
    people,
    resealing,
    sealing,
    settings,
    signins,
    tasks,
    wishes,
)
from broker.models import Login, SignIn
from broker.openid import asking
from tests.broker.conftest import Bench, Clock
from tests.doubles.desk_cloud import DeskCloud
from tests.doubles.openid_double import OpenIdDouble

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


def asks(hub: Bench, browser: TestClient) -> people.Person | None:
    """Who this browser is."""
    return signins.person_of(hub.at, browser.cookies["anybinder-sign-in"])


def only(hub: Bench) -> SignIn:
    with hub.at.db.reading() as session:
        return session.scalars(sa.select(SignIn)).one()


def count(hub: Bench) -> int:
    with hub.at.db.reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(SignIn)) or 0


# --- how long -------------------------------------------------------------------------------------------------------


def test_a_browser_that_is_not_seen_for_long_is_signed_out(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, clock: Clock
) -> None:
    campus.sign_in(browser)
    clock.move(hours=1, minutes=59)
    assert browser.get("/sessions").status_code == 200
    clock.move(hours=1, minutes=59)
    assert browser.get("/sessions").status_code == 200
    clock.move(hours=2, minutes=1)
    assert browser.get("/sessions").status_code == 303


def test_a_sign_in_ends_however_busy_it_is(hub: Bench, browser: TestClient, campus: OpenIdDouble, clock: Clock) -> None:
    campus.sign_in(browser)
    for _ in range(11):
        clock.move(hours=1)
        assert browser.get("/sessions").status_code == 200
    clock.move(hours=1, seconds=1)
    assert browser.get("/sessions").status_code == 303


def test_what_is_over_is_deleted_with_what_renewed_it(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, clock: Clock
) -> None:
    campus.sign_in(browser)
    assert only(hub).grant is not None
    clock.move(hours=1)
    assert signins.purge(hub.at) == 0
    clock.move(hours=2)
    tasks.keep(hub.at)
    assert count(hub) == 0


def test_a_provider_that_is_taken_out_of_the_settings_signs_nobody_in_any_more(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, make_bench: Callable[..., Bench]
) -> None:
    campus.sign_in(browser)
    later = make_bench(identities=(campus.setting(issuer="https://other.example"),))
    assert asks(later, browser) is None


# --- where ----------------------------------------------------------------------------------------------------------


def test_a_person_sees_where_they_are_signed_in_and_ends_it(hub: Bench, campus: OpenIdDouble, clock: Clock) -> None:
    with browser_of(hub) as desk, browser_of(hub) as phone, browser_of(hub) as somebody:
        campus.sign_in(desk, headers={"User-Agent": "Firefox on a desk"})
        clock.move(minutes=2)
        phone.headers["User-Agent"] = "A phone"
        campus.sign_in(phone)
        campus.sign_in(somebody, "bob")
        ada, bob = asks(hub, desk), asks(hub, somebody)
        assert ada is not None
        assert bob is not None
        assert [each.browser for each in signins.of(hub.at, ada)][-1] != "A phone" or len(signins.of(hub.at, ada)) == 2
        theirs = next(each for each in signins.of(hub.at, ada) if each.browser == "A phone")
        with pytest.raises(errors.NotFound):
            signins.end(hub.at, bob, theirs.id)
        signins.end(hub.at, ada, theirs.id)
        assert asks(hub, phone) is None
        with pytest.raises(errors.NotFound):
            signins.end(hub.at, ada, theirs.id)
        campus.sign_in(phone)
        assert signins.end_elsewhere(hub.at, ada) == 1
        assert (asks(hub, desk) is None, asks(hub, phone) is None) == (False, True)
        assert signins.end_all(hub.at, ada) == 1
        assert (asks(hub, desk) is None, asks(hub, somebody) is None) == (True, False)


def test_the_secret_of_a_cookie_is_kept_nowhere(hub: Bench, browser: TestClient, campus: OpenIdDouble) -> None:
    campus.sign_in(browser)
    kept = hub.at.settings.home.joinpath("anybinder.sqlite").read_bytes()
    kept += b"".join(each.read_bytes() for each in hub.at.settings.home.glob("anybinder.sqlite-*"))
    for secret in (browser.cookies["anybinder-sign-in"], *campus.tokens):
        assert secret.encode() not in kept


# --- what renews them -----------------------------------------------------------------------------------------------


def test_a_group_that_somebody_has_left_counts_no_more_after_some_minutes(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, clock: Clock
) -> None:
    campus.sign_in(browser)
    campus.people["ada"]["groups"] = ["alumni"]
    clock.move(minutes=4)
    assert asks(hub, browser).groups == {"staff"}  # type: ignore[union-attr]
    clock.move(minutes=2)
    assert asks(hub, browser).groups == {"alumni"}  # type: ignore[union-attr]
    assert campus.count("/token") == 2
    clock.move(minutes=6)
    assert asks(hub, browser) is not None  # the provider's refresh tokens are good once each
    assert campus.count("/token") == 3


def test_a_sign_in_that_the_provider_has_ended_ends_here(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, clock: Clock
) -> None:
    campus.sign_in(browser)
    campus.revoked = True
    clock.move(minutes=6)
    assert browser.get("/sessions").status_code == 303
    assert count(hub) == 0


@pytest.mark.parametrize("step", ["discovery", "token", "userinfo", "jwks"])
@pytest.mark.parametrize("fault", ["down", "error", "hang", "garbage"])
def test_a_provider_that_cannot_be_reached_ends_nothing(
    hub: Bench,
    browser: TestClient,
    campus: OpenIdDouble,
    clock: Clock,
    step: str,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fault == "hang":
        monkeypatch.setattr(asking, "RENEWAL_SECONDS", 0.4)
    campus.sign_in(browser)
    campus.faults[step] = fault
    clock.move(minutes=6)
    assert browser.get("/sessions").status_code == 200
    asked = len(campus.requests)
    assert browser.get("/sessions").status_code == 200
    assert len(campus.requests) == asked  # not at each request, either


def test_a_provider_that_gives_nothing_to_renew_with_is_not_asked(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, clock: Clock
) -> None:
    campus.refreshes = False
    campus.sign_in(browser)
    clock.move(minutes=6)
    assert asks(hub, browser) is not None
    assert campus.count("/token") == 1


def test_a_renewal_that_names_somebody_else_ends_it(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, clock: Clock
) -> None:
    campus.sign_in(browser)
    campus.tamper = lambda told: {**told, "sub": "bob-2"}
    clock.move(minutes=6)
    assert asks(hub, browser) is None


def test_many_requests_at_once_renew_once(hub: Bench, browser: TestClient, campus: OpenIdDouble, clock: Clock) -> None:
    campus.sign_in(browser)
    clock.move(minutes=6)
    secret = browser.cookies["anybinder-sign-in"]
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(signins.person_of(hub.at, secret))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.id for each in found] == [found[0].id] * 8
    assert campus.count("/token") == 2


def test_an_access_token_of_the_person_is_fresh_and_asked_for_once(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, clock: Clock
) -> None:
    campus.sign_in(browser)
    token = openid.access_token(hub.at, only(hub))
    assert token in campus.tokens
    assert openid.access_token(hub.at, only(hub)) == token
    clock.move(minutes=5)
    assert openid.access_token(hub.at, only(hub)) != token
    openid.forget_spent(hub.at)
    campus.revoked = True
    clock.move(minutes=5)
    with pytest.raises(errors.SignInAgain):
        openid.access_token(hub.at, only(hub))


def test_without_a_grant_there_is_no_access_token(hub: Bench, browser: TestClient, campus: OpenIdDouble) -> None:
    campus.refreshes = False
    campus.sign_in(browser)
    with pytest.raises(errors.SignInAgain):
        openid.access_token(hub.at, only(hub))


def test_what_renews_a_sign_in_moves_to_a_new_sealing_key(
    hub: Bench, browser: TestClient, campus: OpenIdDouble
) -> None:
    campus.sign_in(browser)
    ring = hub.at.settings.home / "sealing.keys"
    ring.write_text(f"{sealing.new_line()}\n{ring.read_text()}")
    assert resealing.reseal(hub.at).done["sign_ins"] == 1
    assert openid.access_token(hub.at, only(hub)) in campus.tokens


# --- proving it again -----------------------------------------------------------------------------------------------


@pytest.fixture
def strict(make_bench: Callable[..., Bench], campus: OpenIdDouble) -> Bench:
    """A broker whose one place asks for a sign-in of at most ten minutes, of the level “gold”."""
    setting = settings.BackendSetting(name="desk", provider="fake", sign_in_minutes=10, sign_in_level="gold platinum")
    bench = make_bench(identities=(campus.setting(),))
    bench.at.backends["desk"] = backends.Backend(name="desk", title="Desk", provider=DeskCloud(), setting=setting)
    return bench


def test_a_place_that_asks_for_more_leads_to_proving_it_and_back_to_the_form(
    strict: Bench, campus: OpenIdDouble, clock: Clock
) -> None:
    typed = {"repo": strict.repo, "ref": "", "path": "a.ipynb", "backend": "desk", "name": "notes"}
    with browser_of(strict) as browser:
        campus.sign_in(browser)
        page = browser.post("/launch", data=typed, headers=OWN)
        assert (page.status_code, "stronger sign-in" in page.text) == (401, True)
        back = campus.sign_in(browser, path=way(page.text))
        assert campus.asked[-1]["acr_values"] == "gold platinum"
        form = browser.get(back.headers["location"])
        assert all(f'value="{value}"' in form.text for value in (strict.repo, "a.ipynb", "notes"))
        assert asks(strict, browser).level == "gold platinum"  # type: ignore[union-attr]


def test_a_sign_in_of_too_long_ago_is_asked_for_again(strict: Bench, campus: OpenIdDouble, clock: Clock) -> None:
    campus.level = "gold"
    typed = {"repo": strict.repo, "backend": "desk", "name": "notes"}
    with browser_of(strict) as browser:
        campus.sign_in(browser)
        clock.move(minutes=11)
        campus.authenticated_ago = 660
        page = browser.post("/launch", data=typed, headers=OWN)
        assert (page.status_code, "not older than 10 minutes" in html.unescape(page.text)) == (401, True)
        campus.sign_in(browser, path=way(page.text))
        assert campus.asked[-1]["max_age"] == "600"
        campus.tamper = lambda told: {**told, "acr": "gold"}
        campus.sign_in(browser, path=way(page.text))
        assert browser.post("/launch", data=typed, headers=OWN).status_code == 303


def test_whoever_signed_in_yesterday_is_asked_anew_by_the_provider(
    hub: Bench, campus: OpenIdDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the provider would say again and again that it was yesterday."""

    def refused(*_: Any) -> None:
        raise errors.SignInAgain

    campus.authenticated_ago = 24 * 3600
    with browser_of(hub) as browser:
        campus.sign_in(browser)
        assert not people.recent(hub.at, asks(hub, browser))  # type: ignore[arg-type]
        monkeypatch.setattr(launches, "request", refused)
        page = browser.post("/launch", data={"repo": "x"}, headers=OWN)
        campus.sign_in(browser, path=way(page.text))
        assert people.recent(hub.at, asks(hub, browser))  # type: ignore[arg-type]


def test_scripts_are_told_to_sign_in_again(strict: Bench, campus: OpenIdDouble) -> None:
    with browser_of(strict) as browser:
        campus.sign_in(browser)
        sent = {"repo": strict.repo, "backend": "desk"}
        answer = browser.post("/api/launches", json=sent, headers={**OWN, "Accept": "application/json"})
        assert (answer.status_code, answer.json()["reason"]) == (401, "sign_in_again")


def test_a_token_of_long_ago_proves_nothing_when_its_owner_signs_in(
    make_bench: Callable[..., Bench], campus: OpenIdDouble, clock: Clock
) -> None:
    setting = settings.BackendSetting(name="desk", provider="fake", sign_in_minutes=10)
    bench = make_bench(identities=(campus.setting(),))
    bench.at.backends["desk"] = backends.Backend(name="desk", title="Desk", provider=DeskCloud(), setting=setting)
    with browser_of(bench) as browser:
        for minutes, status in ((0, 201), (11, 401), (0, 201)):
            clock.move(minutes=minutes)
            campus.sign_in(browser)
            who = asks(bench, browser)
            assert who is not None
            if status == 201:
                text = api_tokens.create(bench.at, who, name="script", scopes=["launch"])[1]
            shown = {"Authorization": f"Bearer {text}", "Accept": "application/json"}
            answer = browser.post("/api/launches", json={"repo": bench.repo, "backend": "desk"}, headers=shown)
            assert (answer.status_code, "with a new token" in answer.text) == (status, status == 401)


def test_the_local_person_proves_it_by_being_there(strict: Bench) -> None:
    assert launches.request(strict.at, people.LOCAL, wishes.Wish(repo=strict.repo, backend="desk"))[1]


def way(page: str) -> str:
    """Where the button of this page leads."""
    found = re.search(r'class="button" href="([^"]+)"', page)
    assert found is not None
    return html.unescape(found[1])


def test_a_link_that_asks_for_nonsense_asks_for_nothing(browser: TestClient, campus: OpenIdDouble) -> None:
    for asked in (
        {"max_age": "-1"},
        {"max_age": "x"},
        {"max_age": "9" * 30},
        {"acr_values": "x" * 300},
        {"acr_values": "\n"},
    ):
        assert campus.sign_in(browser, path=f"/login/campus?{urlencode(asked)}").status_code == 303
        assert "max_age" not in campus.asked[-1]
        assert "acr_values" not in campus.asked[-1]


def test_a_login_keeps_what_was_last_said(hub: Bench, browser: TestClient, campus: OpenIdDouble) -> None:
    campus.people["ada"] |= {"entitlements": "urn:x"}
    campus.sign_in(browser)
    with hub.at.db.reading() as session:
        login = session.scalars(sa.select(Login)).one()
    assert login.claims == {"groups": ["staff"], "entitlements": ["urn:x"], "affiliations": []}
