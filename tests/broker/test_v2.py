"""Launch links: what their page holds for BinderHub's clients, whom it lets do what, and where a token never goes."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from starlette.datastructures import QueryParams

from broker import app, backends, launches, people, repos, sessions, settings
from broker.models import Launch, State
from broker.web import building, tokens, v2
from tests.broker.conftest import Bench
from tests.doubles.desk_cloud import DeskCloud

HERE = "localhost:8000"
OWN = {"Origin": f"http://{HERE}", "Sec-Fetch-Site": "same-origin"}
KEYS = {
    "aboutMessage",
    "badgeBaseUrl",
    "bannerHtml",
    "baseUrl",
    "binderVersion",
    "buildToken",
    "logoUrl",
    "logoWidth",
    "repoProviders",
}
ROOT = "http://abcdefghijkl.localhost:8000/"
TOKEN = "t" * 64
EVIL = (
    "https://evil.example/x",
    "HTTPS://evil.example/x",
    "//evil.example/x",
    "///evil.example/x",
    "\\\\evil.example/x",
    "/\\evil.example/x",
    "\\/evil.example",
    "\t//evil.example",
    "ht\ntps://evil.example",
    " https://evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "http:evil.example",
    "../../hub/home",
    "..%2f..%2fhub",
    "%2e%2e/%2e%2e/hub",
    "lab/../../../hub",
    "@evil.example",
    ":1@evil.example/",
    "http://[evil",
    "https://abcdefghijkl.localhost:8000@evil.example/",
)


@pytest.fixture
def hub(make_bench: Callable[..., Bench]) -> Bench:
    """A broker whose one place is also what strangers' links run on."""
    return make_bench(binder_backend="desk")


@pytest.fixture
def anyone(hub: Bench) -> Iterator[TestClient]:
    """The browser of somebody who is not signed in."""
    with browser(hub) as made:
        yield made


def browser(bench: Bench, *, signed_in: bool = False) -> TestClient:
    made = TestClient(
        app.create(bench.at), base_url=f"http://{HERE}", raise_server_exceptions=False, follow_redirects=False
    )
    made.headers["accept"] = "text/html"
    if signed_in:
        made.cookies.set("anybinder", made.app.state.door.cookie())  # type: ignore[attr-defined]
    return made


def strangers(bench: Bench) -> list[Launch]:
    """What was launched by nobody we know."""
    with bench.at.db.reading() as session:
        return list(session.scalars(sa.select(Launch).where(Launch.person == people.ANONYMOUS.id)))


def spec(bench: Bench, ref: str = "main") -> str:
    return f"git/{quote(bench.repo, safe='')}/{ref}"


def config(page: str) -> dict[str, Any]:
    """As upstream's clients read it: the first script of the head."""
    head = page.partition("</head>")[0]
    found = re.search(r"<script>(.*?)</script>", head, re.DOTALL)
    assert found and head.index("<script") == found.start()
    told: dict[str, Any] = json.loads(found[1].strip().removeprefix("window.pageConfig = ").removesuffix(";"))
    return told


# --- the page that clients parse ------------------------------------------------------------------------------------


def test_the_first_script_is_the_configuration_with_exactly_binderhubs_keys(anyone: TestClient, hub: Bench) -> None:
    page = anyone.get(f"/v2/{spec(hub)}")
    assert page.status_code == 200
    told = config(page.text)
    assert set(told) == KEYS
    assert told["baseUrl"] == "/"
    assert told["badgeBaseUrl"] == f"http://{HERE}/"
    assert told["repoProviders"] == repos.display()
    assert '<div class="reading wide" id="root"' in page.text


@pytest.mark.parametrize("signed_in", [True, False])
def test_the_policy_allows_that_one_script_and_no_other(hub: Bench, signed_in: bool) -> None:
    with browser(hub, signed_in=signed_in) as visitor:
        page = visitor.get(f"/v2/{spec(hub)}?choose=1")
    policy = page.headers["content-security-policy"]
    script = re.search(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "unsafe" not in policy
    assert page.text.count("<script>") == 1


def test_nothing_in_the_configuration_ends_its_script(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(
        binder_backend="desk", about_message="</script><script>alert(1)</script>", banner_html="<b>x</b>"
    )
    with browser(bench) as visitor:
        page = visitor.get(f"/v2/{spec(bench)}").text
    assert config(page)["aboutMessage"] == "</script><script>alert(1)</script>"
    assert '<div class="banner"><b>x</b></div>' in page
    assert "<script>alert" not in page


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("https://my.host", "my.host", "my.host"),
        ("https://my.origin", "my.host", "my.origin"),
        (None, "my.host", "my.host"),
    ],
)
def test_a_build_token_is_for_this_spec_and_the_page_that_asks(
    anyone: TestClient, hub: Bench, origin: str | None, host: str, expected: str
) -> None:
    headers = {"Host": host, **({"Origin": origin} if origin else {})}
    token = config(anyone.get(f"/v2/{spec(hub)}", headers=headers).text)["buildToken"]
    assert tokens.read(hub.at, token, spec=spec(hub), origin=expected).launch_id
    with pytest.raises(tokens.BadToken):
        tokens.read(hub.at, token, spec=spec(hub, "other"), origin=expected)
    with pytest.raises(tokens.BadToken):
        tokens.read(hub.at, token, spec=spec(hub), origin="elsewhere.example")


def test_under_another_name_nothing_but_the_link_is_shown(anyone: TestClient, hub: Bench) -> None:
    assert anyone.get("/", headers={"Host": "my.host"}).status_code == 421
    assert anyone.post(f"/v2/{spec(hub)}", headers={"Host": "my.host"}).status_code == 421


def test_the_title_says_host_and_spec(anyone: TestClient, hub: Bench) -> None:
    page = anyone.get("/v2/gh/owner/name/feature/x").text
    assert '<meta property="og:title" content="GitHub: owner/name/feature/x">' in page
    assert "<title>GitHub: owner/name/feature/x · Anybinder</title>" in page
    assert '<meta name="description"' in page


def test_head_answers_as_get_without_a_body(anyone: TestClient, hub: Bench) -> None:
    answer = anyone.head(f"/v2/{spec(hub)}")
    assert (answer.status_code, answer.text) == (200, "")


@pytest.mark.parametrize("path", ["/v2/nope/o/r/main", "/v2/gh/", "/v2/gh", "/v2/", "/v2/%67%68x/o/r"])
def test_what_is_no_link_is_not_found(anyone: TestClient, path: str) -> None:
    assert anyone.get(path).status_code == 404


def test_an_unknown_host_is_told_which_are_known(anyone: TestClient) -> None:
    page = anyone.get("/v2/nope/o/r/main").text
    assert "“nope”" in page
    assert "gh (GitHub)" in page


@pytest.mark.parametrize("signed_in", [True, False])
@pytest.mark.parametrize("wrong", ["gh/only-an-owner", "gh/o/r/a..b", "gh/o/r/a%00b", "git/notanaddress/main"])
def test_a_link_that_cannot_be_read_says_why(hub: Bench, wrong: str, signed_in: bool) -> None:
    with browser(hub, signed_in=signed_in) as visitor:
        page = visitor.get(f"/v2/{wrong}")
    assert page.status_code == 400
    assert config(page.text)["buildToken"]
    sentence = re.search(r'class="(?:problem|lede)"[^>]*>([^<]+)', page.text)
    assert sentence and len(sentence[1]) > 20


def test_asking_starts_nothing(anyone: TestClient, hub: Bench) -> None:
    anyone.get(f"/v2/{spec(hub)}")
    assert launches.listed(hub.at, people.LOCAL) == strangers(hub) == []


# --- what it opens --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ""),
        ("labpath=a%20b/c.ipynb", "doc/tree/a%20b/c.ipynb"),
        ("labpath=/a/b/", "doc/tree/a/b"),
        ("filepath=a.ipynb", "tree/a.ipynb"),
        ("filepath=a?b%23c", "tree/a%3Fb%23c"),
        ("urlpath=lab/tree/x.ipynb", "lab/tree/x.ipynb"),
        ("urlpath=/rstudio/", "rstudio/"),
        ("urlpath=shiny/bus-dashboard/", "shiny/bus-dashboard/"),
        ("urlpath=lab&filepath=b.ipynb&labpath=a.ipynb", "doc/tree/a.ipynb"),
        ("urlpath=lab&filepath=b.ipynb", "tree/b.ipynb"),
        ("labpath=&urlpath=lab", "lab"),
        (
            "urlpath=git-pull%3Frepo%3Dhttps%253A%252F%252Fgithub.com%252Fo%252Fr%26urlpath%3Dlab%252Ftree%252Fr%252Fa.ipynb%26branch%3Dmain",
            "git-pull?repo=https%3A%2F%2Fgithub.com%2Fo%2Fr&urlpath=lab%2Ftree%2Fr%2Fa.ipynb&branch=main",
        ),
    ],
)
def test_a_link_opens_what_binderhub_would_open(query: str, expected: str) -> None:
    assert v2.opens(QueryParams(query)) == expected


@pytest.mark.parametrize("name", v2.OPENERS)
@pytest.mark.parametrize("evil", EVIL)
def test_a_token_never_leaves_its_session(evil: str, name: str) -> None:
    there = urlsplit(v2.entered(ROOT, v2.opens(QueryParams({name: evil})), TOKEN))
    assert f"{there.scheme}://{there.netloc}/" == ROOT
    assert ".." not in there.path.split("/")
    assert there.query == f"token={TOKEN}"


@pytest.mark.parametrize("path", EVIL)
def test_nor_does_it_where_the_path_was_checked_by_nobody(path: str) -> None:
    there = urlsplit(v2.entered(ROOT, path, TOKEN))
    assert f"{there.scheme}://{there.netloc}/" == ROOT


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", f"{ROOT}?token={TOKEN}"),
        ("rstudio/", f"{ROOT}rstudio/?token={TOKEN}"),
        ("git-pull?repo=https%3A%2F%2Fx", f"{ROOT}git-pull?repo=https%3A%2F%2Fx&token={TOKEN}"),
        ("lab#part", f"{ROOT}lab?token={TOKEN}#part"),
    ],
)
def test_the_token_stands_behind_the_query_and_before_the_fragment(path: str, expected: str) -> None:
    assert v2.entered(ROOT, path, TOKEN) == expected


# --- who is signed in -----------------------------------------------------------------------------------------------


@pytest.fixture
def person(bench: Bench) -> Iterator[TestClient]:
    with browser(bench, signed_in=True) as made:
        yield made


def value(page: str, name: str) -> str:
    found = re.search(rf'<input [^>]*name="{name}" value="([^"]*)"', page)
    assert found, name
    return found[1]


def test_the_form_is_filled_in_as_the_link_says(person: TestClient, bench: Bench) -> None:
    page = person.get(
        f"/v2/{spec(bench, 'v1')}?labpath=a/b.ipynb&cpu=2&memory=4G&disk=20G&gpu=1&hours=3&name=course&backend=desk"
    )
    assert page.status_code == 200
    found = {
        name: value(page.text, name)
        for name in ("repo", "ref", "path", "cpu", "memory", "disk", "gpu", "hours", "name")
    }
    assert found == {
        "repo": bench.repo,
        "ref": "v1",
        "path": "a/b.ipynb",
        "cpu": "2",
        "memory": "4G",
        "disk": "20G",
        "gpu": "1",
        "hours": "3",
        "name": "course",
    }
    assert 'role="alert"' not in page.text
    assert config(page.text)["buildToken"]


@pytest.mark.parametrize(
    ("link", "repo", "ref"),
    [
        ("gh/o/r/HEAD", "o/r", ""),
        ("gh/o/r/feature/x", "o/r", "feature/x"),
        ("git/https%3A%2F%2Fgit.example%2Fo%2Fr/main", "https://git.example/o/r", "main"),
        # Where the address of the repository ends is for its host to say: it is left as it came.
        ("git/https%3A//git.example/o/r/main", "git/https%3A//git.example/o/r/main", ""),
    ],
)
def test_the_repository_is_shown_as_one_would_type_it(person: TestClient, link: str, repo: str, ref: str) -> None:
    page = person.get(f"/v2/{link}").text
    assert (value(page, "repo"), value(page, "ref")) == (repo, ref)


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("cpu=many", "cpu", "number of processors"),
        ("cpu=-1", "cpu", "number of processors"),
        ("memory=lots", "memory", "4G or 512M"),
        ("disk=big", "disk", "20G"),
        ("gpu=some", "gpu", "GPUs"),
        ("hours=0", "hours", "hours"),
        ("name=no%20blanks", "name", "letters, digits"),
        ("backend=mars", "backend", "“mars”"),
        ("backends=mars,desk", "backend", "“mars”"),
        ("labpath=../../etc", "path", "leads out"),
        ("urlpath=https://evil.example", "path", "left out"),
    ],
)
def test_what_a_link_says_wrongly_is_said_beside_its_field_and_kept(
    person: TestClient, bench: Bench, query: str, field: str, words: str
) -> None:
    page = person.get(f"/v2/{spec(bench)}?{query}").text
    sentence = re.search(rf'id="{field}-problem" role="alert">([^<]*)', page)
    assert sentence and words in sentence[1]
    if field not in ("backend", "path"):
        assert value(page, field)
    assert value(page, "repo") == bench.repo


def test_several_problems_are_all_told(person: TestClient, bench: Bench) -> None:
    page = person.get(f"/v2/{spec(bench)}?cpu=x&memory=y&hours=z&name=%20!").text
    assert page.count('role="alert"') == 4
    assert page.count("autofocus") == 1


def test_a_link_may_limit_the_places(make_bench: Callable[..., Bench]) -> None:
    bench = two_places(make_bench)
    with browser(bench, signed_in=True) as person:
        assert places(person.get(f"/v2/{spec(bench)}").text) == ["desk", "other"]
        assert places(person.get(f"/v2/{spec(bench)}?backends=other").text) == ["other"]
        assert places(person.get(f"/v2/{spec(bench)}?backends=other,desk&backend=desk").text) == ["desk", "other"]
        assert places(person.get(f"/v2/{spec(bench)}?backends=gone").text) == ["desk", "other"]


def test_the_limit_outlives_a_form_that_was_refused(make_bench: Callable[..., Bench]) -> None:
    bench = two_places(make_bench)
    form = {"repo": bench.repo, "backends": "other", "backend": "other", "memory": "lots"}
    with browser(bench, signed_in=True) as person:
        page = person.post("/launch", data=form, headers=OWN)
    assert page.status_code == 422
    assert places(page.text) == ["other"]
    assert value(page.text, "backends") == "other"


def two_places(make_bench: Callable[..., Bench], **chosen: Any) -> Bench:
    also = settings.BackendSetting(name="other", provider="fake")
    bench = make_bench(backends=(settings.BackendSetting(name="desk", provider="fake"), also), **chosen)
    bench.at.backends["other"] = backends.Backend(name="other", title="Other", provider=DeskCloud(), setting=also)
    return bench


def places(page: str) -> list[str]:
    return re.findall(r'name="backend" id="place-\d" value="(\w+)"', page)


def test_what_the_form_sends_is_what_the_launch_has(person: TestClient, bench: Bench) -> None:
    form = {"repo": bench.repo, "memory": "4G", "disk": "20G", "cpu": "2", "gpu": "1", "hours": "3", "backend": "desk"}
    answer = person.post("/launch", data=form, headers=OWN)
    assert answer.status_code == 303
    (launch,) = launches.listed(bench.at, people.LOCAL)
    assert (launch.cpu, launch.memory_mb, launch.disk_gb, launch.gpu, launch.hours) == (2, 4096, 20, 1, 3)
    assert launch.asked_from == "page"


def test_money_and_other_places_are_asked_for_in_the_form(make_bench: Callable[..., Bench]) -> None:
    bench = two_places(make_bench)
    form = {"repo": bench.repo, "backend": "desk", "budget": "2.50", "prefer": "ready", "spot": "true", "hedge": "true",
            "elsewhere": ["other"]}  # fmt: skip
    with browser(bench, signed_in=True) as person:
        assert person.post("/launch", data=form, headers=OWN).status_code == 303
        (launch,) = launches.listed(bench.at, people.LOCAL)
        told = person.get(f"/api/launches/{launch.id}").json()
        page = person.get(f"/launches/{launch.id}").text
    asked = (launch.budget, launch.currency, launch.prefer, launch.spot, launch.hedged, launch.elsewhere)
    assert asked == (Decimal("2.5"), "USD", "ready", True, True, ["other"])
    assert {name: told[name] for name in ("budget", "prefer", "spot", "hedge", "elsewhere")} == {
        "budget": "2.5", "prefer": "ready", "spot": True, "hedge": True, "elsewhere": ["other"],
    }  # fmt: skip
    assert "budget=2.5+USD&amp;prefer=ready&amp;spot=true&amp;hedge=true&amp;elsewhere=other" in page


@pytest.mark.parametrize(
    ("field", "typed", "sentence"),
    [
        ("budget", "a lot", "This is no budget. Write it like 2.50"),
        ("prefer", "luck", "Offers are tried by price, or by how soon"),
        ("elsewhere", "moon", "“moon” cannot be gone on to: There is no backend called “moon”."),
    ],
)
def test_what_cannot_be_is_said_at_its_field_and_stays_typed(
    person: TestClient, bench: Bench, field: str, typed: str, sentence: str
) -> None:
    page = person.post("/launch", data={"repo": bench.repo, "backend": "desk", field: typed}, headers=OWN)
    assert page.status_code in (400, 422)
    assert sentence in html.unescape(page.text)
    assert '<details class="more" open>' in page.text


# --- who is not, and who has no choice ------------------------------------------------------------------------------


def test_a_visitor_is_led_to_the_stream(anyone: TestClient, hub: Bench) -> None:
    page = anyone.get(f"/v2/{spec(hub)}?urlpath=rstudio").text
    token = config(page)["buildToken"]
    assert f'data-build="/build/{spec(hub)}?build_token={token}"' in page
    assert 'data-opens="rstudio"' in page


def test_without_a_place_for_visitors_the_page_says_what_to_do(bench: Bench) -> None:
    with browser(bench) as visitor:
        page = visitor.get(f"/v2/{spec(bench)}")
    assert page.status_code == 401
    assert "Sign in to run this" in page.text
    assert "anybinder up" in page.text
    assert config(page.text)["repoProviders"]


def test_a_place_that_takes_nobody_says_so(make_bench: Callable[..., Bench]) -> None:
    setting = settings.BackendSetting(name="desk", provider="fake", max_sessions=0)
    bench = make_bench(binder_backend="desk")
    bench.at.backends["desk"] = backends.Backend(name="desk", title="Desk", provider=DeskCloud(), setting=setting)
    with browser(bench) as visitor:
        assert "no new sessions" in visitor.get(f"/v2/{spec(bench)}").text


def test_who_is_signed_in_and_has_no_choice_is_led_there_as_themselves(hub: Bench) -> None:
    with browser(hub, signed_in=True) as person:
        page = person.get(f"/v2/{spec(hub)}").text
        told = tokens.read(hub.at, config(page)["buildToken"], spec=spec(hub), origin=HERE)
        assert (told.person, told.backend) == ("local", "desk")
        assert 'name="repo"' in person.get(f"/v2/{spec(hub)}?choose=1").text
        assert 'name="repo"' in person.get(f"/v2/{spec(hub)}?memory=4G").text


def test_who_is_signed_in_and_may_choose_gets_the_form(make_bench: Callable[..., Bench]) -> None:
    bench = two_places(make_bench, binder_backend="desk")
    with browser(bench, signed_in=True) as person:
        assert 'name="repo"' in person.get(f"/v2/{spec(bench)}").text
        assert "data-build" in person.get(f"/v2/{spec(bench)}?backends=desk").text
        assert 'name="repo"' in person.get(f"/v2/{spec(bench)}?backends=other").text


def test_a_visitor_who_wants_another_place_is_told_to_sign_in(anyone: TestClient, hub: Bench) -> None:
    page = anyone.get(f"/v2/{spec(hub)}?choose=1")
    assert page.status_code == 401
    assert "Sign in to choose" in page.text
    assert "data-build" not in page.text


def test_a_visitor_is_told_that_sizes_are_not_theirs_to_choose(anyone: TestClient, hub: Bench) -> None:
    page = anyone.get(f"/v2/{spec(hub)}?memory=64G&cpu=32").text
    assert "cpu, memory" in page
    assert "sign in to choose" in page


# --- without JavaScript ---------------------------------------------------------------------------------------------


def press(client: TestClient, bench: Bench, query: str = "", **headers: str) -> Any:
    token = config(client.get(f"/v2/{spec(bench)}{query}").text)["buildToken"]
    return client.post(f"/v2/{spec(bench)}{query}", data={"build_token": token}, headers={**OWN, **headers})


def ready(bench: Bench, launch_id: str) -> None:
    """Its session is running."""
    launches.advance(bench.at, launch_id)
    found = launches.get(bench.at, people.bearer(launch_id), launch_id)
    bench.enrol(found)
    bench.report(found, server="up", kind="jupyter")
    sessions.tunnelled(bench.at, launch_id)
    launches.advance(bench.at, launch_id)
    assert launches.get(bench.at, people.bearer(launch_id), launch_id).state is State.READY


def test_a_button_takes_none_of_the_threads_that_everything_else_has(
    anyone: TestClient, hub: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty strangers who name hosts that answer slowly would keep everybody else waiting."""
    threads: list[str] = []

    def slow(*_: object) -> None:
        threads.append(threading.current_thread().name)
        raise building.Failed("It takes too long.")

    monkeypatch.setattr(building, "requested", slow)
    assert "It takes too long." in press(anyone, hub).text
    assert threads[0].startswith("build")


def test_a_button_launches_and_leads_through_a_page_into_the_session(anyone: TestClient, hub: Bench) -> None:
    sent = press(anyone, hub, "?urlpath=rstudio/")
    assert sent.status_code == 303
    there = sent.headers["location"]
    page = anyone.get(there)
    assert page.status_code == 200
    assert '<meta http-equiv="refresh" content="2">' in page.text
    (launch,) = strangers(hub)
    assert launch.backend == "desk"
    ready(hub, launch.id)
    into = anyone.get(there)
    assert into.status_code == 303
    token = sessions.launch_token(hub.at, launch.id)
    assert into.headers["location"] == f"http://{launch.id}.localhost:8000/rstudio/?token={token}"
    assert into.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("evil", ["https://evil.example/x", "//evil.example", "\\\\evil.example", "../../hub/home"])
def test_the_button_sends_no_token_elsewhere(anyone: TestClient, hub: Bench, evil: str) -> None:
    there = press(anyone, hub, f"?urlpath={quote(evil, safe='')}").headers["location"]
    (launch,) = strangers(hub)
    ready(hub, launch.id)
    into = urlsplit(anyone.get(there).headers["location"])
    assert into.netloc == f"{launch.id}.localhost:8000"


def test_pressing_twice_is_one_launch(anyone: TestClient, hub: Bench) -> None:
    token = config(anyone.get(f"/v2/{spec(hub)}").text)["buildToken"]
    sent = [anyone.post(f"/v2/{spec(hub)}", data={"build_token": token}, headers=OWN) for _ in range(2)]
    assert len({one.headers["location"] for one in sent}) == 1
    assert len(strangers(hub)) == 1


def test_another_page_can_press_nothing(anyone: TestClient, hub: Bench) -> None:
    refused = press(anyone, hub, Origin="https://evil.example", **{"Sec-Fetch-Site": "cross-site"})
    assert refused.status_code == 403
    assert strangers(hub) == []


def test_a_page_that_was_open_for_too_long_is_shown_afresh(anyone: TestClient, hub: Bench) -> None:
    page = anyone.get(f"/v2/{spec(hub)}").text
    hub.clock.move(minutes=10)
    again = anyone.post(f"/v2/{spec(hub)}", data={"build_token": config(page)["buildToken"]}, headers=OWN)
    assert again.status_code == 403
    assert "open for too long" in again.text
    token = config(again.text)["buildToken"]
    assert anyone.post(f"/v2/{spec(hub)}", data={"build_token": token}, headers=OWN).status_code == 303


def test_what_cannot_be_launched_is_said_on_the_page(anyone: TestClient, hub: Bench) -> None:
    link = f"/v2/{spec(hub, 'no-such-branch')}"
    token = config(anyone.get(link).text)["buildToken"]
    page = anyone.post(link, data={"build_token": token}, headers=OWN)
    assert page.status_code == 400
    assert "Could not resolve ref" in page.text


def test_the_page_of_a_launch_opens_by_its_own_address_only(anyone: TestClient, hub: Bench) -> None:
    there = press(anyone, hub).headers["location"]
    launch_id, mark = there.split("/")[2:]
    assert anyone.get(f"/visits/{launch_id}/{'0' * 64}").status_code == 404
    assert anyone.get(f"/visits/{'a' * 12}/{mark}").status_code == 404
    assert anyone.get(f"/launches/{launch_id}").status_code == 401


def test_a_visitor_may_stop_it(anyone: TestClient, hub: Bench) -> None:
    there = press(anyone, hub).headers["location"]
    assert anyone.post(f"{there}/stop", headers=OWN).status_code == 303
    (launch,) = strangers(hub)
    assert launch.stop_wanted
    assert anyone.post(there.replace("/visits/", "/visits/x"), headers=OWN).status_code in (404, 405)
