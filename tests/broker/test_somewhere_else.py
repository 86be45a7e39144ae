"""What failed is run somewhere else with one click, and what runs is opened elsewhere; what was typed is kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient

from broker import app, backends, launches, people, settings, wishes
from broker.models import Launch
from providers import errors as clouds
from tests.broker import guests
from tests.broker.conftest import Bench
from tests.doubles.binderhub_double import BinderHubDouble
from tests.doubles.desk_cloud import DeskCloud

HERE = "http://localhost:8000"


class AsMe(DeskCloud):
    """Where code runs as the person."""

    confined = False


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """The desk, another place like it, and one where code runs as the person."""
    made = make_bench()
    others = {"shelf": DeskCloud(), "own": AsMe()}
    for name, cloud in others.items():
        setting = settings.BackendSetting(name=name, provider="fake")
        made.at.backends[name] = backends.Backend(name=name, title=name.title(), provider=cloud, setting=setting)
    return made


def failed(bench: Bench, **wish: object) -> Launch:
    bench.cloud.refuse("provision", clouds.QuotaExceeded("The quota of 4 processors is reached."))
    launch = bench.advance(bench.request(**wish))
    assert launch.reason == "quota"
    bench.clock.move(seconds=1)  # what is launched next is the newest
    return launch


def newest(bench: Bench) -> Launch:
    return launches.listed(bench.at, people.LOCAL, limit=1)[0]


def test_a_failure_says_why_and_what_helps_and_offers_the_other_places(bench: Bench, client: TestClient) -> None:
    page = client.get(f"/launches/{failed(bench).id}").text
    assert "The quota of 4 processors is reached." in page
    assert "ask its cloud for a higher limit" in page
    assert set(re.findall(r'name="backend" value="(\w+)"', page)) == {"shelf", "own"}


def test_one_click_runs_it_there_with_all_that_was_typed(bench: Bench, client: TestClient) -> None:
    launch = failed(bench, path="a b.ipynb", name="mine", hours=2, memory_mb=3000, budget="5", prefer="ready")
    answer = client.post(f"/launches/{launch.id}/elsewhere", data={"backend": "shelf"})
    again = newest(bench)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/launches/{again.id}")
    kept = ("repo_url", "commit", "path", "hours", "memory_mb", "budget", "currency", "prefer")
    assert [getattr(again, name) for name in kept] == [getattr(launch, name) for name in kept]
    assert (again.backend, again.name) == ("shelf", "mine" if launch.state == "stopped" else "mine-2")


def test_where_something_is_at_stake_it_is_asked_and_nothing_starts(bench: Bench, client: TestClient) -> None:
    launch = failed(bench)
    answer = client.post(f"/launches/{launch.id}/elsewhere", data={"backend": "own"})
    assert answer.status_code == 200
    assert "runs as you" in answer.text
    assert newest(bench).id == launch.id


def test_a_place_that_there_is_not_is_refused_in_the_form(bench: Bench, client: TestClient) -> None:
    launch = failed(bench, path="kept.ipynb")
    answer = client.post(f"/launches/{launch.id}/elsewhere", data={"backend": "nowhere"})
    assert answer.status_code in (400, 409)
    assert 'value="kept.ipynb"' in answer.text
    assert newest(bench).id == launch.id


def test_somebody_elses_launch_is_none_of_theirs(bench: Bench, client: TestClient) -> None:
    grace = people.known(bench.at, guests.person(bench.at, "Grace"))
    theirs = launches.request(bench.at, grace, wishes.Wish(repo=bench.repo, backend="desk"))[0]
    for method in ("GET", "POST"):
        there = f"/launches/{theirs.id}/elsewhere"
        assert client.request(method, there, data={"backend": "shelf"}).status_code == 404


def test_what_runs_is_opened_elsewhere_by_the_form_with_another_place_marked(bench: Bench, client: TestClient) -> None:
    launch = bench.ready(path="index.ipynb")
    assert f'href="/launches/{launch.id}/elsewhere"' in client.get(f"/launches/{launch.id}").text
    link = client.get(f"/launches/{launch.id}/elsewhere").headers["location"]
    asked = parse_qs(urlsplit(link).query)
    assert asked["path"] == ["index.ipynb"]
    assert asked["backend"][0] != "desk"
    assert "linked" not in asked
    launches.stop(bench.at, launch.id)
    ended = bench.until_stopped(launch)
    assert f'href="/launches/{ended.id}/elsewhere"' in client.get(f"/launches/{ended.id}").text


def test_a_peer_is_offered_with_whose_terms_apply(make_bench: Callable[..., Bench]) -> None:
    with BinderHubDouble() as hub:
        bench = make_bench(peers=[{"name": "hub", "url": hub.url, "terms_url": "https://hub.example/terms"}])
        made = app.create(bench.at)
        headers = {"Authorization": f"Bearer {made.state.door.bearer}", "Accept": "text/html"}
        with TestClient(made, base_url=HERE, headers=headers, follow_redirects=False) as client:
            launch = failed(bench)
            page = client.get(f"/launches/{launch.id}").text
            assert 'name="backend" value="hub"' in page
            assert "https://hub.example/terms" in page
            assert client.post(f"/launches/{launch.id}/elsewhere", data={"backend": "hub"}).status_code == 303
            assert newest(bench).backend == "hub"
