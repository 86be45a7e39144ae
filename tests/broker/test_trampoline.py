"""Any Binder link opened here: what is understood, where it leads, and that it leads nowhere else and starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from broker import app, repos
from broker.models import Launch
from broker.web import links, trampoline
from tests.broker.conftest import Bench

HERE = "localhost:8000"
BINDER = "https://mybinder.org/v2/gh/binder-examples/requirements/HEAD"
HERE_TOO = "/v2/gh/binder-examples/requirements/HEAD"
GIT = "git/https%3A%2F%2Fhost.example%2Fo%2Fr/main"
UNDERSTOOD = {
    BINDER: f"{HERE_TOO}?choose=1",
    f"{BINDER}?urlpath=lab%2Ftree%2Fa%20b.ipynb": f"{HERE_TOO}?urlpath=lab%2Ftree%2Fa%20b.ipynb&choose=1",
    "https://notebooks.gesis.org/binder/v2/gl/a%2Fb/feature%2Fx?labpath=x": "/v2/gl/a%2Fb/feature%2Fx?labpath=x&choose=1",
    "https://hub.example/build/zenodo/10.5281/zenodo.7": "/v2/zenodo/10.5281/zenodo.7?choose=1",
    f"https://mybinder.org/v2/{GIT}": f"/v2/{GIT}?choose=1",
    "https://mybinder.org/repo/owner/name/notebooks/a.ipynb": "/v2/gh/owner/name/master?urlpath=%2Fnotebooks%2Fa.ipynb&choose=1",
    "mybinder.org/v2/gh/o/r/HEAD": "/v2/gh/o/r/HEAD?choose=1",
    "https:/mybinder.org/v2/gh/o/r/HEAD": "/v2/gh/o/r/HEAD?choose=1",  # as some proxies leave it
    f"[![Binder](https://mybinder.org/badge_logo.svg)]({BINDER})": f"{HERE_TOO}?choose=1",
    f'<a href="{BINDER}?a=1&amp;b=2">': f"{HERE_TOO}?a=1&b=2&choose=1",
    "https://github.com/o/r/blob/main/x.ipynb": "/?repo=https%3A%2F%2Fgithub.com%2Fo%2Fr%2Fblob%2Fmain%2Fx.ipynb&linked=1",
    "o/r": "/?repo=o%2Fr&linked=1",
    "https://other.example/?repo=o%2Fr&path=a.ipynb": "/?repo=o%2Fr&path=a.ipynb&linked=1",
}
NONE = (
    "https://mybinder.org/",
    "https://mybinder.org/about",
    "https://mybinder.org/v2/nope/x",
    "https://mybinder.org/v2/gh/o",
    "https://mybinder.org/v2/gh/../../launches",
    "https://mybinder.org/v2/gh/%2e%2e/x/y",
    "gh/o/r/HEAD\r\nset-cookie: x",
    "https://user:secret@github.com/o/r",
    "javascript:alert(1)",
    "data:text/html,x",
    "//evil.example/x",
    "\\\\evil.example\\x",
    "just words",
    "x" * 3000,
)


@pytest.fixture
def anyone(bench: Bench) -> Iterator[TestClient]:
    """A browser in which nobody is signed in."""
    with browser(bench) as client:
        yield client


def browser(bench: Bench, *, signed_in: bool = False) -> TestClient:
    made = TestClient(
        app.create(bench.at), base_url=f"http://{HERE}", headers={"accept": "text/html"}, follow_redirects=False
    )
    if signed_in:
        made.cookies.set("anybinder", made.app.state.door.cookie())  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(("link", "there"), UNDERSTOOD.items())
def test_a_link_of_any_hub_leads_to_the_form(bench: Bench, link: str, there: str) -> None:
    anyone = browser(bench, signed_in=True)
    quoted = quote(link, safe="")
    ways = [f"/go?link={quoted}"]
    if link[0] not in "[<":  # the text of a badge is pasted, and no address
        ways += [f"/go/{quoted}", f"/go/{link}"]
    for way in ways:
        answer = anyone.get(way)
        assert (answer.status_code, answer.headers["location"]) == (303, there), way


@pytest.mark.parametrize("link", NONE)
def test_what_is_no_link_is_said_to_be_none(anyone: TestClient, link: str) -> None:
    answer = anyone.get(f"/go?link={quote(link, safe='')}")
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert 'aria-invalid="true"' in answer.text
    assert "set-cookie" not in answer.headers


@given(
    st.text(max_size=60),
    st.sampled_from(["", "https://h/v2/gh/", "//", "/\\", "https://h/v2/", "https://h/build/git/"]),
)
def test_it_leads_to_this_hub_and_nowhere_else(text: str, before: str) -> None:
    try:
        there = links.way(before + text)
    except repos.RepoError:
        return
    assert there.startswith(("/v2/", "/?repo="))
    assert there.isascii()
    assert there.isprintable()
    assert " " not in there
    assert urlsplit(there)[:2] == ("", "")
    assert not {".", ".."} & set(there.partition("?")[0].split("/"))


def test_a_visitor_finds_the_form_and_nothing_is_started(make_bench: Callable[..., Bench]) -> None:
    """Not even where visitors' links start by themselves: that page is not the one it leads to."""
    bench = make_bench(binder_backend="desk")
    with browser(bench) as visitor:
        shown = visitor.get("/go/https://mybinder.org/v2/gh/o/r/v1?urlpath=rstudio/", follow_redirects=True)
    assert shown.status_code == 200
    assert 'name="repo" value="o/r"' in shown.text
    assert 'name="path" value="/rstudio/"' in shown.text
    assert "/build/" not in shown.text
    with bench.at.db.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Launch)) == 0


def test_where_visitors_may_not_launch_one_signs_in_first(anyone: TestClient) -> None:
    answer = anyone.get("/go/https://mybinder.org/v2/gh/o/r/v1", follow_redirects=True)
    assert answer.status_code == 401
    assert "repo=o%2Fr" in str(answer.url)


def test_who_is_signed_in_finds_the_form_filled_in(bench: Bench) -> None:
    with browser(bench, signed_in=True) as client:
        shown = client.get(f"/go/{BINDER}?labpath=index.ipynb", follow_redirects=True)
    assert shown.status_code == 200
    assert 'value="binder-examples/requirements"' in shown.text
    assert 'value="index.ipynb"' in shown.text
    assert 'value="desk"' in shown.text


def test_the_page_explains_itself_and_has_a_bookmarklet(anyone: TestClient) -> None:
    page = anyone.get("/go")
    assert page.status_code == 200
    assert "Nothing is started" in page.text
    assert "javascript:location.href=" in page.text


def test_the_bookmarklet_sends_the_page_that_is_open() -> None:
    script = trampoline.bookmarklet("https://hub.example/")
    assert script == "javascript:location.href='https://hub.example/go?link='+encodeURIComponent(location.href);"


def test_what_was_typed_is_still_there_after_a_refusal(anyone: TestClient) -> None:
    answer = anyone.get("/go", params={"link": "<b>no link"})
    assert 'value="&lt;b&gt;no link"' in answer.text


def test_a_query_that_was_not_encoded_belongs_to_the_link(bench: Bench) -> None:
    client = browser(bench, signed_in=True)
    there = client.get("/go/https%3A%2F%2Fmybinder.org%2Fv2%2Fgh%2Fo%2Fr%2FHEAD%3Furlpath%3Dlab?hours=1").headers[
        "location"
    ]
    assert parse_qs(urlsplit(there).query) == {"urlpath": ["lab"], "hours": ["1"], "choose": ["1"]}
