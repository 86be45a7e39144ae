"""The launch form for who is not signed in: where visitors may launch, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from broker import app, backends, settings
from broker.models import Launch
from tests.broker import guests
from tests.broker.conftest import Bench
from tests.doubles.binderhub_double import BinderHubDouble
from tests.doubles.desk_cloud import DeskCloud

HERE = "http://localhost:8000"
PAGE = {"Origin": HERE, "Accept": "text/html"}


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A hub with a place for visitors, one for whoever signs in, and one for staff alone."""
    made = make_bench(binder_backend="desk", identities=(guests.IDENTITY,))
    for name, rules in (("members", ("signed in",)), ("staff", ("group staff",))):
        setting = settings.BackendSetting(name=name, provider="fake", open_to=rules)
        made.at.backends[name] = backends.Backend(name=name, title=name.title(), provider=DeskCloud(), setting=setting)
    return made


@pytest.fixture
def visitor(bench: Bench) -> Iterator[TestClient]:
    with TestClient(app.create(bench.at), base_url=HERE, headers=PAGE, follow_redirects=False) as client:
        yield client


def test_a_visitor_finds_the_form_with_what_is_open_and_what_signing_in_would_open(
    visitor: TestClient, bench: Bench
) -> None:
    page = visitor.get("/")
    assert page.status_code == 200
    assert re.findall(r'name="backend"[^>]*value="(\w+)"', page.text) == ["desk", "members"]
    assert "Only people who are signed in may run things there." in page.text
    assert 'href="/login?next=' in page.text
    assert "Staff" not in page.text
    assert 'name="size"' not in page.text
    assert bench.cloud.calls == []


def test_a_visitors_launch_goes_the_way_of_a_launch_link(visitor: TestClient, bench: Bench) -> None:
    form = {
        "repo": "https://github.com/o/r",
        "ref": "main",
        "path": "a b/index.ipynb",
        "backend": "desk",
        "consent": "x",
    }
    answer = visitor.post("/launch", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/v2/gh/o/r/main?labpath=a+b%2Findex.ipynb")
    lab = visitor.post("/launch", data={"repo": "o/r", "path": "/lab"})
    assert lab.headers["location"] == "/v2/gh/o/r/HEAD?urlpath=lab"
    there = visitor.post("/launch", data={"repo": bench.repo}).headers["location"]
    assert "Start a session of this repository" in visitor.get(there).text


@pytest.mark.parametrize("repo", ["", "no repository"])
def test_what_is_no_repository_is_said_in_the_form(visitor: TestClient, repo: str) -> None:
    page = visitor.post("/launch", data={"repo": repo})
    assert page.status_code == 400
    assert 'id="repo-problem"' in page.text


def test_the_choice_is_told_to_visitors_and_looks_nothing_up_for_them(visitor: TestClient, bench: Bench) -> None:
    told = visitor.get("/api/places/stream", params={"repo": bench.repo, "cpu": "64"}).text
    assert set(re.findall(r'"name": "(\w+)"', told)) == {"desk", "members"}
    assert {each.cpu for each in bench.cloud.asked} == {None}
    assert bench.at.subjects == {}


def test_a_visitor_runs_at_the_peer_that_they_chose(make_bench: Callable[..., Bench]) -> None:
    with BinderHubDouble() as first, BinderHubDouble() as second:
        told = [{"name": f"hub-{number}", "url": hub.url} for number, hub in enumerate((first, second))]
        bench = make_bench(peers=told, binder_peers="relay")
        for chosen in ("hub-1", "hub-0"):
            with TestClient(app.create(bench.at), base_url=HERE, headers=PAGE, follow_redirects=False) as client:
                assert f'value="{chosen}"' in client.get("/").text
                there = client.post("/launch", data={"repo": bench.repo, "backend": chosen}).headers["location"]
                page = client.get(there).text
                token = re.search(r'name="build_token" value="([^"]+)"', page)
                assert token
                assert client.post(there, data={"build_token": token[1]}).status_code == 303
            with bench.at.db.reading() as session:
                newest = session.scalars(sa.select(Launch).order_by(Launch.created_at.desc(), Launch.id)).all()
            assert chosen in [launch.backend for launch in newest]
        assert len(newest) == 2


def test_another_page_still_starts_nothing(visitor: TestClient) -> None:
    answer = visitor.post("/launch", data={"repo": "o/r"}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/api/places/stream"), ("POST", "/launch")])
def test_where_visitors_may_not_launch_they_are_asked_to_sign_in(
    make_bench: Callable[..., Bench], method: str, path: str
) -> None:
    with TestClient(app.create(make_bench().at), base_url=HERE, headers=PAGE) as client:
        assert client.request(method, path, data={"repo": "o/r"}).status_code == 401
    hub = make_bench(binder_backend="desk")
    with TestClient(app.create(hub.at), base_url=HERE, headers={**PAGE, "Authorization": "Bearer wrong"}) as client:
        assert client.request(method, path, data={"repo": "o/r"}).status_code == 401
