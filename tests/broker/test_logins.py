"""People and their logins: who they are, what is open to them, and how two become one."""

from __future__ import annotations

import datetime as dt
import html
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from broker import (
    admission,
    api_tokens,
    app,
    connections,
    errors,
    launches,
    logins,
    openid,
    people,
    settings,
    signins,
    wishes,
)
from broker.models import (
    ApiToken,
    Connection,
    Consent,
    DeviceLogin,
    Launch,
    Login,
    Profile,
    SignIn,
    State,
    Use,
)
from tests.broker.conftest import Bench, Clock
from tests.doubles.openid_double import OpenIdDouble

HERE = "http://localhost:8000"
PAGE = {"Accept": "text/html"}


@pytest.fixture
def campus(clock: Clock) -> Iterator[OpenIdDouble]:
    with OpenIdDouble(now=clock) as double:
        yield double


@pytest.fixture
def orcid(clock: Clock) -> Iterator[OpenIdDouble]:
    with OpenIdDouble("orcid", now=clock) as double:
        double.people = {
            "ada": {"sub": "0000-0001", "name": "A. Lovelace", "email": "ada@uni.example"},
            "eve": {"sub": "ada-1", "name": "Eve", "email": "ada@uni.example"},
        }
        yield double


@pytest.fixture
def hub(make_bench: Callable[..., Bench], campus: OpenIdDouble, orcid: OpenIdDouble) -> Bench:
    return make_bench(identities=(campus.setting(), orcid.setting(title="ORCID")))


def browser_of(bench: Bench) -> TestClient:
    return TestClient(
        app.create(bench.at), base_url=HERE, raise_server_exceptions=False, follow_redirects=False, headers=PAGE
    )


@pytest.fixture
def browser(hub: Bench) -> Iterator[TestClient]:
    with browser_of(hub) as made:
        yield made


def asks(hub: Bench, browser: TestClient) -> people.Person:
    """Who this browser is."""
    found = signins.person_of(hub.at, browser.cookies["anybinder-sign-in"])
    assert found is not None
    return found


def rows(hub: Bench, kind: Any) -> list[Any]:
    with hub.at.db.reading() as session:
        return list(session.scalars(sa.select(kind)))


def vouched(hub: Bench, subject: str = "ada-1", issuer: str = "", **claims: Any) -> openid.Vouched:
    issuer = issuer or hub.at.settings.identities[0].issuer
    return openid.Vouched(issuer=issuer, subject=subject, authenticated_at=hub.clock(), claims=claims)


def person(hub: Bench, subject: str = "ada-1", issuer: str = "", **claims: Any) -> people.Person:
    return people.known(hub.at, logins.signed_in(hub.at, vouched(hub, subject, issuer, **claims)))


# --- who they are ---------------------------------------------------------------------------------------------------


def test_the_same_account_is_the_same_person_each_time(hub: Bench, browser: TestClient, campus: OpenIdDouble) -> None:
    campus.sign_in(browser)
    first = asks(hub, browser)
    browser.cookies.clear()
    campus.people["ada"] |= {"email": "new@uni.example", "name": "Ada King"}
    campus.sign_in(browser)
    again = asks(hub, browser)
    assert (again.id, again.name) == (first.id, "Ada King")
    assert len(rows(hub, Profile)) == 1


def test_nobody_is_known_by_an_email_address(hub: Bench, campus: OpenIdDouble, orcid: OpenIdDouble) -> None:
    with browser_of(hub) as one, browser_of(hub) as other:
        campus.sign_in(one)
        orcid.sign_in(other, "ada")
        assert asks(hub, one).id != asks(hub, other).id
    assert {profile.email for profile in rows(hub, Profile)} == {"ada@uni.example"}


def test_the_same_subject_elsewhere_is_somebody_else(hub: Bench, campus: OpenIdDouble, orcid: OpenIdDouble) -> None:
    with browser_of(hub) as one, browser_of(hub) as other:
        campus.sign_in(one)
        orcid.sign_in(other, "eve")
        assert asks(hub, one).id != asks(hub, other).id


def test_a_person_is_told_by_nothing_their_provider_says(hub: Bench) -> None:
    made = person(hub)
    assert "ada" not in made.id
    assert made.id not in ("local", "anonymous")


def test_somebody_who_comes_twice_at_once_is_one_person(hub: Bench) -> None:
    at_once(hub)


@pytest.mark.production
def test_somebody_who_comes_twice_at_once_is_one_person_on_postgresql(
    make_bench: Callable[..., Bench], postgres_url: str, campus: OpenIdDouble
) -> None:
    at_once(make_bench(identities=(campus.setting(),), database_url=postgres_url))


def at_once(hub: Bench) -> None:
    found: list[str] = []
    comes = [threading.Thread(target=lambda: found.append(person(hub).id)) for _ in range(6)]
    for each in comes:
        each.start()
    for each in comes:
        each.join()
    assert (len(found), len(set(found)), len(rows(hub, Profile))) == (6, 1, 1)


# --- what is open to them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "open_"),
    [
        ("signed in", True),
        ("local", False),
        ("group staff", True),
        ("group /staff", False),
        ("group course-101", True),
        ("group students", False),
        ("entitlement urn:mace:example:compute", True),
        ("entitlement urn:mace:example:*", True),
        ("entitlement urn:mace:other:*", False),
        ("affiliation member@uni.example", True),
        ("affiliation *@uni.example", True),
        ("affiliation *@other.example", False),
        ("provider campus", True),
        ("provider orcid", False),
    ],
)
def test_what_the_provider_says_decides_what_is_open(hub: Bench, rule: str, open_: bool) -> None:
    asked = person(
        hub,
        groups=["staff", "/course-101"],
        eduperson_entitlement="urn:mace:example:compute",
        eduperson_scoped_affiliation=["Member@uni.example"],
    )
    assert admission.admits([rule], asked) is open_


def test_what_a_person_may_use_is_on_their_page(
    make_bench: Callable[..., Bench], campus: OpenIdDouble, hub: Bench
) -> None:
    setting = settings.BackendSetting(name="desk", provider="fake", open_to=("group staff",))
    bench = make_bench(identities=(campus.setting(),))
    bench.at.backends["desk"] = replace(bench.at.backends["desk"], setting=setting)
    with browser_of(bench) as browser:
        campus.sign_in(browser, "bob")
        refused = browser.get("/")
        assert "It is open to others: group staff" in html.unescape(refused.text)
        campus.sign_in(browser, "ada")
        assert "It is open to others" not in browser.get("/").text


def test_claims_of_a_provider_that_is_no_longer_trusted_count_no_more(
    hub: Bench, make_bench: Callable[..., Bench], orcid: OpenIdDouble
) -> None:
    made = person(hub, groups=["staff"])
    assert made.groups == {"staff"}
    later = make_bench(identities=(orcid.setting(),))
    assert people.known(later.at, made.id).groups == frozenset()


# --- adding a login -------------------------------------------------------------------------------------------------


def test_what_a_provider_said_long_ago_opens_nothing_any_more(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, orcid: OpenIdDouble, clock: Clock
) -> None:
    """Who has left the campus still has their other login, and the campus says nothing of it."""
    campus.sign_in(browser)
    orcid.link(browser, "ada")
    for days, names in ((29, {"campus", "orcid"}), (2, {"orcid"})):
        clock.move(days=days)
        browser.cookies.clear()
        orcid.sign_in(browser, "ada")
        assert (asks(hub, browser).providers, bool(asks(hub, browser).groups)) == (names, "campus" in names)
    campus.sign_in(browser)
    assert asks(hub, browser).groups == {"staff"}


def test_a_login_is_added_by_signing_in_with_both(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, orcid: OpenIdDouble
) -> None:
    campus.sign_in(browser)
    before = asks(hub, browser)
    back = orcid.link(browser, "ada")
    assert (back.status_code, back.headers["location"]) == (303, "/account")
    assert orcid.asked[-1]["prompt"] == "login"  # not by a session that somebody else has planted there
    after = asks(hub, browser)
    assert (after.id, after.sign_in) == (before.id, before.sign_in)
    assert after.providers == {"campus", "orcid"}
    with browser_of(hub) as other:
        orcid.sign_in(other, "ada")
        assert asks(hub, other).id == before.id


def test_nobody_adds_a_login_without_being_signed_in(browser: TestClient, orcid: OpenIdDouble) -> None:
    answer = orcid.link(browser, "ada")
    assert answer.headers.get("location", "").startswith("/login") or answer.status_code == 401
    assert orcid.asked == []


def test_another_page_cannot_begin_to_add_a_login(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, orcid: OpenIdDouble
) -> None:
    campus.sign_in(browser)
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-site"}):
        answer = orcid.sign_in(browser, "eve", "/login/orcid?link=1", headers)
        assert (answer.status_code, "Another page tried" in answer.text) == (403, True)
    assert len(rows(hub, Login)) == 1


def test_a_login_is_not_added_to_whoever_is_signed_in_by_then(
    hub: Bench, browser: TestClient, campus: OpenIdDouble, orcid: OpenIdDouble
) -> None:
    campus.sign_in(browser, "ada")
    begun = browser.get("/login/orcid?link=1", headers={"Sec-Fetch-Site": "same-origin"})
    campus.sign_in(browser, "bob")
    answer = browser.get(orcid.visit(begun.headers["location"], "ada"))
    assert answer.status_code == 400
    assert not [login for login in rows(hub, Login) if login.issuer == orcid.issuer]


def test_the_one_local_person_has_no_logins(hub: Bench, browser: TestClient, orcid: OpenIdDouble) -> None:
    browser.cookies.set("anybinder", browser.app.state.door.cookie())  # type: ignore[attr-defined]
    assert orcid.link(browser, "ada").status_code == 403
    with pytest.raises(errors.NotAllowed):
        logins.link(hub.at, people.LOCAL, vouched(hub))


def test_adding_what_is_theirs_already_changes_nothing(hub: Bench) -> None:
    made = person(hub)
    assert logins.link(hub.at, made, vouched(hub)) is False
    assert len(rows(hub, Login)) == len(rows(hub, Profile)) == 1


def test_a_second_account_renames_nobody(hub: Bench, orcid: OpenIdDouble) -> None:
    ada = person(hub, name="Ada Lovelace")
    logins.link(hub.at, ada, vouched(hub, "0000-0001", orcid.issuer, name="alovelace"))
    assert people.known(hub.at, ada.id).name == "Ada Lovelace"
    assert person(hub, name="Ada King").name == "Ada King"


# --- two become one -------------------------------------------------------------------------------------------------


def launched(hub: Bench, who: people.Person, name: str) -> Launch:
    return launches.request(hub.at, who, wishes.Wish(repo=hub.repo, backend="desk", name=name))[0]


def connection(hub: Bench, who: people.Person, number: str, target: str) -> Connection:
    made = Connection(
        id=number,
        person=who.id,
        target=target,
        kind="keyless",
        subject=f"subject-{number}",
        settings={},
        created_at=hub.clock(),
    )
    with hub.at.db.transaction() as session:
        session.add(made)
    return made


def both(hub: Bench, orcid: OpenIdDouble) -> tuple[people.Person, people.Person]:
    return person(hub, "ada-1", name="Ada"), person(hub, "0000-0001", orcid.issuer, name="A. Lovelace")


def test_all_that_the_other_had_is_theirs(hub: Bench, orcid: OpenIdDouble) -> None:
    ada, other = both(hub, orcid)
    launch = launched(hub, other, "notes")
    linked = connection(hub, other, "c-other", "backend:desk")
    connections.used(hub.at, linked, "launch", launch_id=launch.id)
    _, token = api_tokens.create(hub.at, other, name="laptop", scopes=["read"])
    _, secret = signins.begin(hub.at, other.id, vouched(hub, "0000-0001", orcid.issuer), "Firefox")
    with hub.at.db.transaction() as session:
        session.add(Consent(person=other.id, repo_url="r", commit="c", at=hub.clock()))
        session.add(device_login(hub, other))
    assert logins.link(hub.at, ada, vouched(hub, "0000-0001", orcid.issuer)) is True
    for kind in (Launch, Connection, Consent, ApiToken, Use, SignIn, Login, DeviceLogin):
        assert {row.person for row in rows(hub, kind)} == {ada.id}, kind
    assert [profile.id for profile in rows(hub, Profile)] == [ada.id]
    assert api_tokens.person_of(hub.at, token).id == ada.id  # type: ignore[union-attr]
    assert signins.person_of(hub.at, secret).id == ada.id  # type: ignore[union-attr]
    assert launches.get(hub.at, people.known(hub.at, ada.id), launch.id).name == "notes"


@pytest.mark.production
def test_two_become_one_on_postgresql_as_well(
    make_bench: Callable[..., Bench], postgres_url: str, campus: OpenIdDouble, orcid: OpenIdDouble
) -> None:
    hub = make_bench(identities=(campus.setting(), orcid.setting()), database_url=postgres_url)
    test_all_that_the_other_had_is_theirs(hub, orcid)


@pytest.mark.production
def test_what_both_have_is_had_once_on_postgresql_as_well(
    make_bench: Callable[..., Bench], postgres_url: str, campus: OpenIdDouble, orcid: OpenIdDouble
) -> None:
    hub = make_bench(identities=(campus.setting(), orcid.setting()), database_url=postgres_url)
    ada, other = both(hub, orcid)
    for who in (ada, other):
        launched(hub, who, "notes")
        connection(hub, who, who.id[:12], "backend:desk")
        with hub.at.db.transaction() as session:
            session.add(Consent(person=who.id, repo_url="r", commit="c", at=hub.clock()))
    logins.link(hub.at, ada, vouched(hub, "0000-0001", orcid.issuer))
    assert len({launch.name for launch in rows(hub, Launch)}) == 2
    assert [bool(row.removed_at) for row in rows(hub, Connection)].count(False) == 1
    assert len(rows(hub, Consent)) == 1


def device_login(hub: Bench, who: people.Person) -> DeviceLogin:
    return DeviceLogin(
        digest=b"d" * 32,
        user_code="ABCD",
        asked_from="127.0.0.1",
        name="laptop",
        scopes="read",
        created_at=hub.clock(),
        ends_at=hub.clock() + dt.timedelta(minutes=5),
        person=who.id,
        refused=False,
    )


def test_two_running_launches_of_one_name_stay_two(hub: Bench, orcid: OpenIdDouble) -> None:
    ada, other = both(hub, orcid)
    mine, theirs = launched(hub, ada, "notes"), launched(hub, other, "notes")
    logins.link(hub.at, ada, vouched(hub, "0000-0001", orcid.issuer))
    named = {launch.id: launch.name for launch in rows(hub, Launch)}
    assert named[mine.id] == "notes"
    assert named[theirs.id].startswith("notes-")
    assert {launch.state for launch in rows(hub, Launch)} == {State.WAITING}


def test_a_name_as_long_as_may_be_can_still_be_told_apart(hub: Bench, orcid: OpenIdDouble) -> None:
    ada, other = both(hub, orcid)
    launched(hub, ada, "n" * 63)
    launched(hub, other, "n" * 63)
    logins.link(hub.at, ada, vouched(hub, "0000-0001", orcid.issuer))
    assert all(len(launch.name) <= 63 for launch in rows(hub, Launch))


def test_of_two_accounts_at_one_place_the_present_one_stays(hub: Bench, orcid: OpenIdDouble) -> None:
    ada, other = both(hub, orcid)
    mine, theirs = (connection(hub, who, who.id[:12], "backend:desk") for who in (ada, other))
    alone = connection(hub, other, "c-alone", "repo:gh")
    logins.link(hub.at, ada, vouched(hub, "0000-0001", orcid.issuer))
    found = {row.id: row for row in rows(hub, Connection)}
    assert found[mine.id].removed_at is None
    assert found[theirs.id].removed_at == hub.clock()  # what runs on it is still ended with it
    assert found[alone.id].removed_at is None
    assert {row.subject for row in found.values()} == {f"subject-{key}" for key in found}  # clouds know it as before


def test_what_both_have_agreed_to_is_agreed_to_once(hub: Bench, orcid: OpenIdDouble) -> None:
    ada, other = both(hub, orcid)
    with hub.at.db.transaction() as session:
        for who, commit in ((ada, "c"), (other, "c"), (other, "d")):
            session.add(Consent(person=who.id, repo_url="r", commit=commit, at=hub.clock()))
    logins.link(hub.at, ada, vouched(hub, "0000-0001", orcid.issuer))
    assert sorted((row.person, row.commit) for row in rows(hub, Consent)) == [(ada.id, "c"), (ada.id, "d")]


def test_a_merge_that_fails_changes_nothing(hub: Bench, orcid: OpenIdDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    ada, other = both(hub, orcid)
    launched(hub, other, "notes")

    def broken(*_: Any) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(logins, "_told", broken)
    with pytest.raises(RuntimeError):
        logins.link(hub.at, ada, vouched(hub, "0000-0001", orcid.issuer))
    assert {launch.person for launch in rows(hub, Launch)} == {other.id}
    assert len(rows(hub, Profile)) == 2


def test_the_browser_of_both_goes_on_as_one(hub: Bench, campus: OpenIdDouble, orcid: OpenIdDouble) -> None:
    with browser_of(hub) as one, browser_of(hub) as other:
        campus.sign_in(one)
        orcid.sign_in(other, "ada")
        orcid.link(one, "ada")
        assert asks(hub, one).id == asks(hub, other).id
        assert other.get("/sessions").status_code == 200


# --- taking one away ------------------------------------------------------------------------------------------------


def test_a_login_is_taken_away_with_what_was_signed_in_by_it(hub: Bench, orcid: OpenIdDouble) -> None:
    ada = person(hub)
    logins.link(hub.at, ada, vouched(hub, "0000-0001", orcid.issuer))
    _, secret = signins.begin(hub.at, ada.id, vouched(hub, "0000-0001", orcid.issuer), "")
    logins.unlink(hub.at, ada, orcid.issuer, "0000-0001")
    assert [login.subject for login in logins.of(hub.at, ada)] == ["ada-1"]
    assert signins.person_of(hub.at, secret) is None
    assert person(hub, "0000-0001", orcid.issuer).id != ada.id


def test_the_last_login_stays(hub: Bench) -> None:
    ada = person(hub)
    with pytest.raises(errors.BadRequest, match="only account"):
        logins.unlink(hub.at, ada, hub.at.settings.identities[0].issuer, "ada-1")


def test_nobody_takes_away_what_is_somebody_elses(hub: Bench, orcid: OpenIdDouble) -> None:
    ada, _other = both(hub, orcid)
    with pytest.raises(errors.NotFound):
        logins.unlink(hub.at, ada, orcid.issuer, "0000-0001")
