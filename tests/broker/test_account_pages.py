"""The page of one's account, and what the header says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from broker import api_tokens, app, people, signins
from broker.web import account
from tests.broker import guests
from tests.broker.conftest import Bench

HERE = "http://localhost:8000"
PAGE = {"Accept": "text/html"}
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Mobile/15E148 Safari/604.1"
ADA = people.of("ada0000000000000")


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench(identities=(guests.IDENTITY, guests.OTHER))


@pytest.fixture
def make(bench: Bench) -> Iterator[Callable[..., TestClient]]:
    made = app.create(bench.at)

    def browser(secret: str = "", *, local: bool = False) -> TestClient:
        client = TestClient(made, base_url=HERE, headers={"Origin": HERE, **PAGE}, follow_redirects=False)
        if secret:
            client.cookies.set("anybinder-sign-in", secret)
        if local:
            client.cookies.set("anybinder", made.state.door.cookie())
        return client

    return browser


@pytest.fixture
def ada(make: Callable[..., TestClient], bench: Bench) -> TestClient:
    return make(guests.cookie(bench.at))


def header(client: TestClient, path: str = "/") -> str:
    page = client.get(path, follow_redirects=True).text
    return re.sub(r"<[^>]+>", " ", page[page.index("<nav") : page.index("</nav>")])


# --- the header -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/sessions", "/account", "/device", "/nothing"])
def test_the_header_says_who_one_is(ada: TestClient, path: str) -> None:
    words = header(ada, path)
    assert ("Accounts" in words, "Sign in" in words) == (True, False)
    assert ("Account " if path == "/nothing" else "Ada") in words


def test_it_says_you_to_the_one_local_person(make: Callable[..., TestClient]) -> None:
    assert "you" in header(make(local=True))


def test_it_greets_nobody_any_more_once_one_has_signed_out(ada: TestClient) -> None:
    page = ada.post("/logout").text
    assert ("Ada" in page, 'href="/login"' in page, 'href="/account"' in page) == (False, True, False)


def test_a_name_is_text(make: Callable[..., TestClient], bench: Bench) -> None:
    page = make(guests.cookie(bench.at, "<script>x")).get("/account").text
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page


def test_whoever_is_not_signed_in_is_offered_to(make: Callable[..., TestClient]) -> None:
    assert 'href="/login"' in make().get("/nothing").text


def test_without_identity_providers_nobody_is(make_bench: Callable[..., Bench]) -> None:
    with TestClient(app.create(make_bench().at), base_url=HERE, headers=PAGE) as client:
        page = client.get("/").text
    assert 'href="/login"' not in page
    assert 'href="/account"' not in page


def test_a_launch_link_of_a_visitor_asks_the_table_nothing(make: Callable[..., TestClient], bench: Bench) -> None:
    import sqlalchemy as sa

    said: list[str] = []
    sa.event.listen(bench.at.db.engine, "before_cursor_execute", lambda *told: said.append(told[2]))
    assert make().get("/v2/gh/o/r/HEAD").status_code == 401
    assert said == []


# --- where I am signed in -------------------------------------------------------------------------------------------


def test_every_browser_is_listed_and_this_one_marked(ada: TestClient, bench: Bench) -> None:
    guests.cookie(bench.at, agent=PHONE)
    guests.cookie(bench.at, "Bob", agent="Bob's browser")
    page = ada.get("/account").text
    assert ("Firefox on Linux" in page, "Safari on iPhone" in page, "Bob" in page) == (True, True, False)
    assert page.count("this one") == 2  # what is seen, and what the button is called


def test_one_browser_is_signed_out_and_the_others_stay(ada: TestClient, bench: Bench) -> None:
    other = guests.cookie(bench.at, agent=PHONE)
    found = next(one for one in signins.of(bench.at, ADA) if one.browser == PHONE)
    assert ada.post(f"/account/sign-ins/{found.id}/end").headers["location"] == "/account#where"
    assert guests.removed(bench.at, other)
    assert ada.get("/account").status_code == 200


def test_nobody_signs_somebody_else_out(ada: TestClient, bench: Bench) -> None:
    bobs = guests.cookie(bench.at, "Bob")
    theirs = signins.of(bench.at, people.of("bob0000000000000"))[0]
    assert ada.post(f"/account/sign-ins/{theirs.id}/end").status_code == 404
    assert not guests.removed(bench.at, bobs)


def test_everywhere_else_is_not_here(ada: TestClient, bench: Bench) -> None:
    other = guests.cookie(bench.at)
    ada.post("/account/sign-ins/end-elsewhere")
    assert guests.removed(bench.at, other)
    assert ada.get("/account").status_code == 200


def test_everywhere_is_here_too(ada: TestClient, bench: Bench) -> None:
    other = guests.cookie(bench.at)
    answer = ada.post("/account/sign-ins/end-all")
    assert (answer.headers["location"], guests.removed(bench.at, other)) == ("/", True)
    assert 'anybinder-sign-in=""' in answer.headers["set-cookie"]
    assert ada.get("/api/me").status_code == 401


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (guests.AGENT, "Firefox on Linux"),
        (PHONE, "Safari on iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36", "Chrome on Android"),
        ("curl/8", "A browser"),
        ("", "A browser"),
    ],
)
def test_browsers_are_called_as_people_call_them(agent: str, name: str) -> None:
    assert account.browser_name(agent) == name


# --- how I sign in --------------------------------------------------------------------------------------------------


def test_the_last_way_to_sign_in_cannot_be_removed(ada: TestClient) -> None:
    page = ada.get("/account").text
    assert "/account/logins/unlink" not in page
    assert 'href="/login/orcid?link=1&amp;next=/account"' in page
    answer = ada.post("/account/logins/unlink", data={"issuer": guests.ISSUER, "subject": "Ada"})
    assert answer.status_code == 400


def test_a_second_way_can_be_removed(ada: TestClient, bench: Bench) -> None:
    with bench.at.db.transaction() as session:
        from broker.models import Login

        now = bench.at.now()
        session.add(
            Login(
                issuer=guests.OTHER.issuer,
                subject="0000",
                person=ADA.id,
                name="Ada L",
                claims={},
                created_at=now,
                signed_in_at=now,
            )
        )
    page = ada.get("/account").text
    assert ("ORCID" in page, page.count("/account/logins/unlink")) == (True, 2)
    answer = ada.post("/account/logins/unlink", data={"issuer": guests.OTHER.issuer, "subject": "0000"})
    assert answer.headers["location"] == "/account#logins"
    assert "Ada L" not in ada.get("/account").text


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_a_token_is_shown_on_one_page_that_nothing_keeps(ada: TestClient) -> None:
    answer = ada.post("/account/tokens", data={"name": "nightly", "scope": ["read", "launch"], "days": "7"})
    text = re.findall(r"abt_[\w-]{20,}", answer.text)
    assert (answer.status_code, len(text), answer.headers["cache-control"]) == (200, 1, "no-store")
    page = ada.get("/account").text
    assert ("nightly" in page, text[0] in page) == (True, False)


def test_a_token_is_revoked_at_once(ada: TestClient, bench: Bench) -> None:
    token, text = api_tokens.create(bench.at, ADA, name="old", scopes=["read"])
    assert ada.post(f"/account/tokens/{token.id}/revoke").headers["location"] == "/account#tokens"
    assert api_tokens.person_of(bench.at, text) is None
    assert "old" not in re.findall(r'class="strong">(\w+)<', ada.get("/account").text)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ({"name": "mine", "scope": "read", "days": "many"}, "Days are a number"),
        ({"name": "mine", "scope": "read", "days": "999"}, "at most 30 days"),
        ({"name": "mine", "scope": "read", "days": "nan"}, "at most 30 days"),
        ({"name": "mine", "days": "7"}, "one or more of"),
        ({"name": "mine", "scope": "everything", "days": "7"}, "one or more of"),
    ],
)
def test_what_cannot_be_made_is_said_and_what_was_typed_kept(ada: TestClient, typed: dict[str, str], says: str) -> None:
    answer = ada.post("/account/tokens", data=typed)
    assert answer.status_code == 400
    assert says in re.search(r'role="alert">([^<]*)', answer.text)[1]  # type: ignore[index]
    assert 'value="mine"' in answer.text


def test_the_one_local_person_has_tokens_and_nothing_to_sign_in_with(make: Callable[..., TestClient]) -> None:
    local = make(local=True)
    page = local.get("/account").text
    assert ("API tokens" in page, "Where I am signed in" in page, "How I sign in" in page) == (True, False, False)
    assert local.post("/account/tokens", data={"name": "t", "scope": "read"}).status_code == 200
