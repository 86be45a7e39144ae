"""A broker with no compute of its own as the entrance of a federation: `/build` relayed or redirected, `/health`, `/versions`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from broker import app, peers, settings
from broker.models import Launch, State
from tests.broker.conftest import Bench
from tests.broker.listening import Listening
from tests.broker.streams import Stream
from tests.doubles.binderhub_double import BUILT, BinderHubDouble
from tests.waiting import until

FULL = [{"phase": "failed", "message": "Too many users on this BinderHub! Try again soon.\n"}]
SPEC = "/build/gh/owner/name/HEAD"


@pytest.fixture
def hubs() -> Iterator[list[BinderHubDouble]]:
    with BinderHubDouble() as first, BinderHubDouble() as second:
        yield [first, second]


@pytest.fixture
def make(make_bench: Callable[..., Bench], hubs: list[BinderHubDouble]) -> Callable[..., Bench]:
    def made(how: str = "relay", **more: Any) -> Bench:
        told = [{"name": f"hub-{number}", "url": hub.url} for number, hub in enumerate(hubs)]
        return make_bench(peers=told, binder_peers=how, cors_allow_origin="*", rate_limit=0, **more)

    return made


def client(bench: Bench) -> TestClient:
    return TestClient(app.create(bench.at), base_url="http://localhost:8000", follow_redirects=False)


def advanced(bench: Bench) -> None:
    """Every launch, every step that is due."""
    with bench.at.db.reading() as session:
        found = [each.id for each in session.query(Launch).where(Launch.state != State.STOPPED)]
    for launch_id in found:
        bench.advance(bench.launch(launch_id))


def spec(bench: Bench) -> str:
    found = bench.at.repos.resolve(bench.at.repos.parse(bench.repo, None))
    return f"/build/{found.spec_string}"


def read(bench: Bench, target: str) -> tuple[Stream, list[dict[str, Any]]]:
    """A stream to its end."""
    stream = Stream(app.create(bench.at), target)
    until(lambda: (advanced(bench), stream.ended.is_set())[1], seconds=20)
    return stream, stream.events


def test_a_launch_is_relayed_with_the_peers_own_events(make: Callable[..., Bench], hubs: list[BinderHubDouble]) -> None:
    bench = make()
    with Listening(bench.at):
        _, events = read(bench, spec(bench))
    theirs = [event for event in events if event["phase"] in ("fetching", "building", "built", "launching")]
    assert [event["phase"] for event in theirs] == ["fetching", "building", "built", "launching"]
    assert theirs[0]["message"] == "Picked Git content provider.\n"
    assert theirs[2]["imageName"] == "registry/peer:abc"
    (hub,) = (each for each in hubs if each.sessions)
    ((path, token),) = hub.sessions.items()
    assert (events[-1]["phase"], events[-1]["url"], events[-1]["token"]) == ("ready", f"{hub.url}{path}", token)
    assert events[-1]["binder_persistent_request"] == "v2/gh/o/r/abc"


def test_whoever_reads_a_relayed_launch_is_failed_over_and_sees_one_end(
    make: Callable[..., Bench], hubs: list[BinderHubDouble]
) -> None:
    bench = make()
    hubs[0].lines = [*BUILT[:2], "cut"]
    hubs[1].lines = [*BUILT[:2], "cut"]
    with Listening(bench.at):
        _, events = read(bench, spec(bench))
    assert [event["phase"] for event in events].count("failed") == 1
    assert events[-1]["phase"] == "failed"
    assert [len(hub.builds) for hub in hubs] == [1, 1]


def test_a_client_is_redirected_with_cors_to_a_peer_that_knows_its_host(
    make: Callable[..., Bench], hubs: list[BinderHubDouble]
) -> None:
    bench = make("redirect")
    peers.look(bench.at)
    answer = client(bench).get(f"{SPEC}?x=1", headers={"accept": "text/event-stream", "origin": "https://book.example"})
    assert answer.status_code == 307
    assert answer.headers["location"] in [f"{hub.url}{SPEC}" for hub in hubs]
    assert answer.headers["access-control-allow-origin"] == "*"
    same = client(bench).get("/build/gh/owner/name/other", headers={"accept": "text/event-stream"})
    assert same.headers["location"].rpartition("/")[0] == answer.headers["location"].rpartition("/")[0]
    unknown = client(bench).get("/build/osf/abcde", headers={"accept": "text/event-stream"})
    assert (unknown.status_code, "room" in unknown.text) == (200, True)


def test_nobody_is_redirected_to_a_peer_that_is_down(make: Callable[..., Bench], hubs: list[BinderHubDouble]) -> None:
    bench = make("redirect")
    hubs[0].well = False
    for _ in range(3):
        peers.look(bench.at)
    names = [f"/build/gh/owner/name{number}/HEAD" for number in range(10)]
    found = [client(bench).get(name, headers={"accept": "text/event-stream"}).headers["location"] for name in names]
    assert {there.partition("/build/")[0] for there in found} == {hubs[1].url}


def test_health_and_versions_are_those_of_the_peers(make: Callable[..., Bench], hubs: list[BinderHubDouble]) -> None:
    bench = make()
    peers.look(bench.at)
    found = client(bench).get("/health").json()
    quota = found["checks"][2]
    assert (quota["service"], quota["total_pods"], quota["quota"], quota["ok"]) == ("Pod quota", 6, 200, True)
    assert found["checks"][-1] == {"service": "Peers", "ok": True, "usable": 2, "of": 2}
    assert client(bench).get("/versions").json() == hubs[0].versions
    hubs[0].versions = {"binderhub": "2"}
    peers.look(bench.at)
    assert "anybinder" in client(bench).get("/versions").json()["binderhub"]


def test_an_entrance_without_a_peer_that_is_well_says_that_it_is_not(
    make: Callable[..., Bench], hubs: list[BinderHubDouble]
) -> None:
    bench = make()
    for hub in hubs:
        hub.well = False
    for _ in range(3):
        peers.look(bench.at)
    answer = client(bench).get("/health")
    assert (answer.status_code, answer.json()["checks"][-1]["usable"]) == (503, 0)


def test_a_visitor_sees_which_hubs_may_run_it_and_whose_terms_apply(make_bench: Callable[..., Bench]) -> None:
    told = {"name": "hub", "title": "Our hub", "url": "http://127.0.0.1:9", "terms_url": "https://example.org/terms"}
    bench = make_bench(peers=[told], binder_peers="relay")
    page = client(bench).get("/v2/gh/owner/name/HEAD").text
    assert 'href="https://example.org/terms"' in page
    assert "data-build" in page


def test_what_another_hub_sends_on_is_not_sent_on_again(make: Callable[..., Bench]) -> None:
    bench = make()
    sent = {"accept": "text/event-stream", "x-anybinder-hop": "1"}
    assert "not sent on again" in client(bench).get(SPEC, headers=sent).text


def test_a_broker_without_any_backend_works(make: Callable[..., Bench], hubs: list[BinderHubDouble]) -> None:
    bench = make(backends=())
    bench.at.backends.clear()
    with Listening(bench.at):
        _, events = read(bench, spec(bench))
    assert events[-1]["phase"] == "ready"
    assert client(bench).get("/health").status_code == 200
    assert client(bench).get("/v2/gh/owner/name/HEAD").status_code == 200


def test_without_the_setting_links_go_nowhere_by_themselves(make: Callable[..., Bench]) -> None:
    bench = make("")
    answer = client(bench).get(spec(bench), headers={"accept": "text/event-stream"})
    assert "choose where to run it" in answer.text
    assert settings.Settings(home=bench.at.settings.home).binder_peers == ""
