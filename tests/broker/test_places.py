"""The choice as JSON and as a stream: what is known at once, and the rest as it comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from broker import app, menus, people, settings, subjects
from broker.web import places, views
from providers import errors as clouds
from tests.broker.conftest import Bench
from tests.doubles import git_repos

HOST = {"Host": "localhost:8000"}


@pytest.fixture
def client(bench: Bench) -> Iterator[TestClient]:
    """The local person's command line."""
    made = app.create(bench.at)
    with TestClient(made, headers={**HOST, "Authorization": f"Bearer {made.state.door.bearer}"}) as each:
        yield each


def streamed(bench: Bench, **typed: str) -> list[tuple[str, Any]]:
    """All events of one stream."""

    async def follow() -> list[str]:
        return [each async for each in places._events(bench.at, people.LOCAL, views.Filled(**typed))]

    found = []
    for text in asyncio.run(follow()):
        name, content = text.strip().split("\n")
        found.append((name.removeprefix("event: "), json.loads(content.removeprefix("data: "))))
    return found


def test_it_is_answered_at_once_and_asks_nobody(bench: Bench, client: TestClient) -> None:
    told = client.get("/api/places", params={"repo": bench.repo}).json()
    assert (told["repo"], told["asking"]) == (None, True)
    assert [place["session"] for place in told["places"]] == ["asking for its price"]
    assert bench.cloud.calls == []


def test_the_stream_goes_on_until_all_is_known(bench: Bench) -> None:
    events = streamed(bench, repo=bench.repo)
    names = [name for name, _content in events]
    assert (names[0], names[-1]) == ("place", "end")
    assert [content["session"] for name, content in events if name == "place"][-1] == "at most $7.00"
    (repo,) = [content for name, content in events if name == "repo"]
    assert repo["commit"]
    assert not repo["trouble"]
    assert subjects.known(bench.at, people.LOCAL, bench.repo) is not None


def test_the_stream_of_what_is_known_ends_at_once(bench: Bench) -> None:
    streamed(bench)
    calls = list(bench.cloud.calls)
    assert [name for name, _content in streamed(bench)] == ["place", "order", "end"]
    assert bench.cloud.calls == calls


def test_a_refusal_is_told_and_the_stream_ends(bench: Bench) -> None:
    bench.cloud.refuse("offers", clouds.PermissionMissing("The permission ec2:Describe is missing."))
    events = streamed(bench)
    assert [content["news"] for name, content in events if name == "place"][-1].startswith("It refused: ")
    assert events[-1][0] == "end"


def test_a_repository_that_is_not_there_is_told(bench: Bench) -> None:
    events = streamed(bench, repo=f"{bench.repo}-and-gone")
    (repo,) = [content for name, content in events if name == "repo"]
    assert repo["trouble"]
    assert not repo["asks"]


def test_what_the_repository_asks_for_is_told_and_asked_for(bench: Bench, tmp_path: Any) -> None:
    address = bench.repo.rpartition("/")[0]
    needs = {".binder/resources.yaml": "required: {memory: 4G}\nrecommended: {cpu: 2}\n"}
    git_repos.make_repo(tmp_path / "repos", "hungry", needs)
    events = streamed(bench, repo=f"{address}/hungry")
    (repo,) = [content for name, content in events if name == "repo"]
    assert repo["asks"] == ("This repository asks for at least 4 GB of memory, and recommends 2 processors.")
    assert (bench.cloud.asked[-1].memory_mb, bench.cloud.asked[-1].cpu) == (4096, 2)


def test_what_cannot_be_read_is_not_asked_for(bench: Bench, client: TestClient) -> None:
    for typed in ({"memory": "lots"}, {"hours": "-1"}, {"size": "gigantic"}, {"sort": "beauty"}):
        assert client.get("/api/places", params=typed).status_code == 200
    menus.fill(bench.at)
    assert {each.memory_mb for each in bench.cloud.asked} == {None}


def test_a_size_is_what_its_setting_says(bench: Bench, client: TestClient) -> None:
    client.get("/api/places", params={"size": "medium", "memory": "3G"})
    menus.fill(bench.at)
    assert [(each.cpu, each.memory_mb) for each in bench.cloud.asked] == [(2, 3072)]


def test_the_choice_of_before_is_marked(bench: Bench, client: TestClient) -> None:
    streamed(bench)
    assert places.LAST not in client.get("/api/places").json()["places"][0]["reasons"]
    bench.request()
    assert places.LAST in client.get("/api/places").json()["places"][0]["reasons"]


def test_the_stream_is_for_people_who_are_signed_in(bench: Bench) -> None:
    with TestClient(app.create(bench.at), headers=HOST) as anyone:
        assert anyone.get("/api/places/stream").status_code == 401
        assert anyone.get("/api/places", headers={"Authorization": "Bearer wrong"}).status_code == 401


# --- what anybody is told ---------------------------------------------------------------------------------------------


def strangers(bench: Bench, **asked: str) -> dict[str, Any]:
    with TestClient(app.create(bench.at), headers=HOST) as anyone:
        answer = anyone.get("/api/places", params=asked)
    assert answer.status_code == 200
    told: dict[str, Any] = answer.json()
    return told


def test_anybody_is_told_of_the_place_for_visitors(make_bench: Callable[..., Bench]) -> None:
    (place,) = strangers(make_bench(binder_backend="desk"))["places"]
    assert (place["name"], place["needs"]) == ("desk", [])


def test_anybody_is_told_of_places_for_who_signs_in(bench: Bench) -> None:
    (place,) = strangers(bench)["places"]
    assert (place["name"], place["needs"]) == ("desk", ["sign in"])


@pytest.mark.parametrize("rules", [("group staff",), ("local",), ("provider campus",), ()])
def test_nobody_is_told_of_places_for_some(bench: Bench, rules: tuple[str, ...]) -> None:
    setting = settings.BackendSetting(name="desk", provider="fake", open_to=rules)
    bench.at.backends["desk"] = replace(bench.at.backends["desk"], setting=setting)
    assert strangers(bench)["places"] == []


def test_a_stranger_is_told_nothing_of_anybodys(bench: Bench, client: TestClient) -> None:
    bench.request()
    subjects.look(bench.at, people.LOCAL, bench.repo)
    told = strangers(bench, repo=bench.repo)
    assert told["repo"] is None
    assert set(told["places"][0]) == set(places.STRANGERS)
    assert places.LAST not in told["places"][0]["reasons"]
    assert places.LAST in client.get("/api/places").json()["places"][0]["reasons"]


def test_strangers_have_the_clouds_asked_once(bench: Bench) -> None:
    for memory in ("1G", "2G", "3G"):
        strangers(bench, memory=memory, repo="o/r", cpu="2")
        for thread in menus.begin(bench.at):
            thread.join()
    assert len(bench.at.menus) + len(bench.at.menus_asked) + len(bench.at.menus_wanted) == 1


def test_a_link_that_names_only_what_is_for_some_offers_nothing(bench: Bench) -> None:
    assert strangers(bench, backends="staff")["places"] == []
    assert [place["name"] for place in strangers(bench, backends="desk,staff")["places"]] == ["desk"]


def test_what_happens_at_the_end_is_said(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(idle_minutes=20, max_hours=3)
    ((_, place), *_rest) = streamed(bench)
    assert place["ends"] == (
        "It ends after 3 hours at the latest, and after 20 minutes without use. "
        "What is in it is then deleted: download what you want to keep before."
    )
