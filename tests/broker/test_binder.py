"""`/build` as BinderHub's clients know it, and past it: resuming, ending, and one launch however often one asks."""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from broker import app, events, instances, launches, people, repos, sessions, settings
from broker.models import Launch, Phase, State
from broker.web import binder, tokens
from tests.broker.conftest import AGENT, Bench
from tests.broker.streams import Stream
from tests.waiting import until

DESK = {"backends": (settings.BackendSetting(name="desk", provider="fake"),), "binder_backend": "desk"}


class Hub:
    """A broker that `/build` may use, and what clients do to it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.app = app.create(bench.at)
        self.spec = f"git/{quote(bench.repo, safe='')}/HEAD"

    def build(self, spec: str = "", query: str = "", **told: str) -> Stream:
        return Stream(self.app, f"/build/{spec or self.spec}{query}", **told)

    def token(self, **told: Any) -> str:
        return tokens.issue(self.bench.at, **{"spec": self.spec, "origin": "localhost:8000", **told})

    def launches(self) -> list[Launch]:
        with self.bench.at.db.reading() as session:
            return list(session.scalars(sa.select(Launch)))

    def only(self) -> Launch:
        until(lambda: len(self.launches()) == 1, what="one launch")
        return self.launches()[0]

    def run(self, launch: Launch) -> None:
        """Take this launch to a running session."""
        bench = self.bench
        launches.advance(bench.at, launch.id)
        bench.enrol(launch)
        bench.report(launch, ("building", "Installing packages."), ("launching", "Starting Jupyter."), server="up")
        sessions.tunnelled(bench.at, launch.id)
        launches.advance(bench.at, launch.id)


@pytest.fixture
def make_hub(make_bench: Callable[..., Bench]) -> Callable[..., Hub]:
    return lambda **chosen: Hub(make_bench(**{**DESK, **chosen}))


@pytest.fixture
def hub(make_hub: Callable[..., Hub]) -> Hub:
    return make_hub()


# --- a launch -----------------------------------------------------------------------------------------------------------


def test_a_build_is_told_in_binderhubs_phases(hub: Hub) -> None:
    with hub.build() as stream:
        stream.until("waiting")
        hub.run(hub.only())
        told = stream.whole()
    assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert stream.headers["cache-control"] == "no-cache"
    assert told[0] == {"phase": "waiting", "message": "Waiting for build to start...\n"}
    assert [event["phase"] for event in told if event["phase"] != "waiting"] == ["building", "launching", "ready"]
    assert all(event["message"].endswith("\n") for event in told)


def test_ready_has_every_field_of_binderhubs_and_its_launch(hub: Hub) -> None:
    with hub.build() as stream:
        launch = hub.only()
        hub.run(launch)
        ready = stream.whole()[-1]
    url = f"http://127.0.0.1:8000/s/{launch.id}/"
    assert ready == {
        "phase": "ready",
        "message": f"server running at {url}\n",
        "image": launch.spec,
        "repo_url": hub.bench.repo,
        "token": sessions.launch_token(hub.bench.at, launch.id),
        "binder_ref_url": launch.web_url,
        "binder_launch_host": "http://localhost:8000/",
        "binder_request": f"v2/{hub.spec}",
        "binder_persistent_request": f"v2/{launch.spec}",
        "binder_client_ip": "127.0.0.1",
        "url": url,
        "launch": launch.id,
    }


def test_the_session_finds_the_same_in_its_variables(hub: Hub) -> None:
    with hub.build():
        launch = hub.only()
        told = instances.variables(launch)
    assert told["BINDER_REQUEST"] == f"v2/{hub.spec}"
    assert told["BINDER_PERSISTENT_REQUEST"] == f"v2/{launch.spec}"
    assert told["BINDER_LAUNCH_HOST"] == "http://localhost:8000/"
    assert told["BINDER_REPO_URL"] == hub.bench.repo


@pytest.mark.parametrize("header", ["origin", "sec_fetch_site"])
def test_a_page_is_told_the_sessions_own_origin(hub: Hub, header: str) -> None:
    with hub.build(**{header: "https://book.example"}) as stream:
        launch = hub.only()
        hub.run(launch)
        ready = stream.whole()[-1]
    assert ready["url"] == f"http://{launch.id}.localhost:8000/"


def test_a_served_hub_names_its_public_address(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(**DESK, public_url="https://hub.example.org", session_domain="sessions.example.net")
    # The tests' git server lies in a private network, which a served broker does not ask.
    bench.at = dataclasses.replace(bench.at, repos=repos.Resolver(settings.Settings(home=bench.at.settings.home)))
    hub = Hub(bench)
    with hub.build(host="hub.example.org") as stream:
        launch = hub.only()
        hub.run(launch)
        ready = stream.whole()[-1]
    assert ready["url"] == f"https://{launch.id}.sessions.example.net/"
    assert ready["binder_launch_host"] == "https://hub.example.org/"


def test_badge_base_url_is_the_launch_host(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(badge_base_url="https://mybinder.example/")
    with hub.build():
        assert hub.only().request["binder_launch_host"] == "https://mybinder.example/"


def test_the_image_is_named_once_it_is_known(hub: Hub) -> None:
    with hub.build() as stream:
        launch = hub.only()
        launches.advance(hub.bench.at, launch.id)
        hub.bench.enrol(launch)
        said = [{"phase": "built", "message": "Found built image, launching...", "image": "r/demo:1"}]
        report = {"order": hub.bench.order(launch).id, "first": 1, "events": said, "status": {}}
        instances.report(hub.bench.at, AGENT, instances.Report.model_validate(report))
        stream.until("built")
        assert stream.events[-1] == {
            "phase": "built",
            "message": "Found built image, launching...\n",
            "imageName": "r/demo:1",
        }


def test_a_build_alone_ends_with_the_image_and_no_session(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(build_only=True)
    with hub.build(query="?build_only=True") as stream:
        launch = hub.only()
        launches.advance(hub.bench.at, launch.id)
        hub.bench.enrol(launch)
        said = [{"phase": "built", "message": "Built.", "image": "r/demo:1"}]
        report = {"order": hub.bench.order(launch).id, "first": 1, "events": said, "status": {}}
        instances.report(hub.bench.at, AGENT, instances.Report.model_validate(report))
        ready = stream.whole()[-1]
    assert ready == {"phase": "ready", "message": "Done! The image is built.\n", "imageName": "r/demo:1"}


def test_a_failed_build_is_one_event_and_the_end(hub: Hub) -> None:
    with hub.build() as stream:
        launch = hub.only()
        launches.advance(hub.bench.at, launch.id)
        hub.bench.enrol(launch)
        hub.bench.report(launch, ("building", "Installing."), ("failed", "No package of that name."))
        told = stream.whole()
    assert [event["phase"] for event in told].count("failed") == 1
    assert told[-1] == {"phase": "failed", "message": "No package of that name.\n"}


def test_a_client_that_leaves_ends_nothing(hub: Hub) -> None:
    with hub.build() as stream:
        launch = hub.only()
        stream.cut()
    hub.run(launch)
    assert hub.only().state is State.READY


def test_a_client_that_leaves_during_the_look_up_is_waited_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go = threading.Event(), threading.Event()
    resolve = hub.bench.at.repos.resolve

    def slowly(*what: Any) -> Any:
        asked.set()
        assert go.wait(20)
        return resolve(*what)

    monkeypatch.setattr(hub.bench.at.repos, "resolve", slowly)
    with hub.build() as stream:
        assert asked.wait(20)
        stream.cut()
    go.set()
    assert hub.only().asked_from == "build"


def test_a_quiet_stream_says_that_it_is_alive(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert events.KEEPALIVE_SECONDS == 25
    monkeypatch.setattr(events, "KEEPALIVE_SECONDS", 0.01)
    with hub.build() as stream:
        hub.only()
        until(lambda: stream.blocks.count(":keepalive") > 2, what="keep-alives")


def test_a_slow_look_up_is_kept_alive_too(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEPALIVE_SECONDS", 0.01)
    go = threading.Event()
    resolve = hub.bench.at.repos.resolve
    monkeypatch.setattr(hub.bench.at.repos, "resolve", lambda *asked: go.wait(20) and resolve(*asked))
    with hub.build() as stream:
        until(lambda: stream.blocks.count(":keepalive") > 2, what="keep-alives")
        assert hub.launches() == []
        go.set()
        hub.only()


# --- resuming -----------------------------------------------------------------------------------------------------------


def test_a_stream_that_was_cut_goes_on_where_it_was(hub: Hub) -> None:
    with hub.build() as first:
        launch = hub.only()
        until(lambda: len(first.ids) >= 2, what="two lines")
    with hub.build(last_event_id=first.ids[1]) as second:
        hub.run(launch)
        second.whole()
    with hub.build(query="?again", last_event_id=first.ids[0]) as whole:
        whole.whole()
    assert [*first.ids[:2], *second.ids] == [first.ids[0], *whole.ids]
    assert len(hub.launches()) == 1


def test_a_stream_cut_before_the_launch_was_written_writes_it_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = threading.Barrier(3)
    request = launches.request

    def together(*told: Any) -> Any:
        at_once.wait(20)
        return request(*told)

    monkeypatch.setattr(launches, "request", together)
    with hub.build() as first:
        first.until("waiting")
        with hub.build(last_event_id=first.ids[0]) as second, hub.build(last_event_id=first.ids[0]) as third:
            launch = hub.only()
            hub.run(launch)
            assert [stream.whole()[-1]["launch"] for stream in (first, second, third)] == [launch.id] * 3


@pytest.mark.parametrize("ending", ["ready", "failed", "refused", "unresolved"])
def test_whoever_has_seen_the_end_is_told_not_to_come_back(make_hub: Callable[..., Hub], ending: str) -> None:
    hub = make_hub(rate_limit=1)
    told = {"accept": "text/html"} if ending == "refused" else {}
    spec = hub.spec.replace("HEAD", "nosuchbranch") if ending == "unresolved" else ""
    with hub.build(spec, **told) as stream:
        if ending in ("ready", "failed"):
            launch = hub.only()
        if ending == "ready":
            hub.run(launch)
        if ending == "failed":
            launches.stop(hub.bench.at, launch.id)
        stream.whole()
    with hub.build(spec, last_event_id=stream.ids[-1]) as again:
        assert again.whole() == []
    assert again.status == 204


def test_a_session_that_ended_meanwhile_is_not_told_as_ready(hub: Hub) -> None:
    with hub.build() as first:
        launch = hub.only()
        until(lambda: len(first.ids) >= 2, what="two lines")
    hub.run(launch)
    launches.stop(hub.bench.at, launch.id)
    with hub.build(last_event_id=first.ids[1]) as second:
        told = second.whole()
    assert told[-1] == {"phase": "failed", "message": "This session has ended. Launch the repository again.\n"}
    assert sessions.launch_token(hub.bench.at, launch.id) not in second.text


def test_nobody_can_name_a_line_of_another_stream(hub: Hub) -> None:
    with hub.build() as first:
        launch = hub.only()
        hub.run(launch)
        first.whole()
    launch_id, _, signature = first.ids[0].split(".")
    forged = [
        f"{launch_id}.0.{'0' * 64}",
        f"{launch_id}.0.",
        f"{launch_id}.0",
        "aaaaaaaaaaaa.0." + signature,
        launch_id,
        "1",
        "é",
        "'; drop table launches",
    ]
    for wrong in forged:
        with hub.build(last_event_id=wrong) as stream:
            stream.until("waiting")
            assert stream.ids[0].partition(".")[0] != launch_id
    with hub.build(spec=hub.spec.replace("HEAD", "main"), last_event_id=first.ids[0]) as stream:
        stream.until("waiting")
        assert stream.ids[0].partition(".")[0] != launch_id


# --- build tokens -------------------------------------------------------------------------------------------------------


def test_the_same_token_comes_back_to_the_same_launch(hub: Hub) -> None:
    query = f"?build_token={hub.token()}"
    with hub.build(query=query) as first, hub.build(query=query) as second:
        hub.run(hub.only())
        assert first.whole()[-1] == second.whole()[-1]
    with hub.build(query=query) as reloaded:
        assert reloaded.whole()[-1]["launch"] == hub.only().id


def test_a_good_token_is_not_counted(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(rate_limit=1)
    for _ in range(3):
        with hub.build(query=f"?build_token={hub.token()}") as stream:
            stream.until("waiting")
        assert "x-ratelimit-limit" not in stream.headers


@pytest.mark.parametrize("wrong", ["spec", "origin", "garbage", "empty"])
def test_a_bad_token_is_refused(hub: Hub, wrong: str) -> None:
    token = {
        "spec": hub.token(spec="gh/o/r/HEAD"),
        "origin": hub.token(origin="elsewhere.example"),
        "garbage": "x",
        "empty": "",
    }[wrong]
    with hub.build(query=f"?build_token={token}") as stream:
        told = stream.whole()
    assert told == [{"phase": "failed", "status_code": 403, "message": "Invalid build token\n"}]
    assert stream.status == 200
    assert hub.launches() == []


def test_a_token_is_made_out_to_the_page_that_asks(hub: Hub) -> None:
    token = hub.token(origin="book.example")
    with hub.build(query=f"?build_token={token}", origin="https://book.example") as stream:
        stream.until("waiting")
        assert hub.only()
    with hub.build(query=f"?build_token={token}", origin="https://other.example") as stream:
        assert stream.whole()[-1]["status_code"] == 403


def test_a_token_of_a_person_is_that_persons_launch(hub: Hub) -> None:
    with hub.build(query=f"?build_token={hub.token(person='local', backend='desk', launch_id='abcdefghijkl')}"):
        launch = hub.only()
    assert (launch.id, launch.person, launch.backend) == ("abcdefghijkl", "local", "desk")


def test_a_persons_key_makes_it_theirs_and_is_not_counted(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(rate_limit=1)
    for _ in range(2):
        with hub.build(authorization=f"token {hub.app.state.door.bearer}") as stream:
            until(lambda: hub.launches(), what="a launch")
        assert "x-ratelimit-limit" not in stream.headers
    assert {launch.person for launch in hub.launches()} == {"local"}


def test_a_wrong_key_is_refused_and_a_cookie_means_nothing(hub: Hub) -> None:
    with hub.build(authorization="Bearer wrong") as stream:
        assert stream.whole() == [{"phase": "failed", "status_code": 403, "message": "Forbidden\n"}]
    with hub.build(cookie=f"anybinder={hub.app.state.door.cookie()}"):
        assert hub.only().person == people.ANONYMOUS.id


# --- rate limit ---------------------------------------------------------------------------------------------------------


def test_requests_are_counted_and_refused_in_binderhubs_words(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(rate_limit=2, rate_limit_seconds=3600)
    left = []
    for _ in range(2):
        with hub.build() as stream:
            stream.until("waiting")
        left.append(stream.headers["x-ratelimit-remaining"])
    assert left == ["1", "0"]
    assert stream.headers["x-ratelimit-limit"] == "2"
    reset = int(stream.headers["x-ratelimit-reset"]) - dt.datetime.now(dt.UTC).timestamp()
    assert 3500 < reset <= 3600
    with hub.build() as stream:
        told = stream.whole()
    assert told == [
        {"phase": "failed", "status_code": 429, "message": "Rate limit exceeded. Try again in 3600 seconds.\n"}
    ]
    assert stream.status == 200
    assert stream.headers["x-ratelimit-remaining"] == "0"


def test_clients_are_counted_apart_and_a_stranger_cannot_pose_as_another(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(rate_limit=1, trusted_proxies=("10.0.0.1",))

    def passes(client: str, **told: str) -> bool:
        with hub.build("nope/x", client=client, **told) as stream:
            return "status_code" not in stream.whole()[-1]

    assert passes("192.0.2.1")
    assert not passes("192.0.2.1", x_forwarded_for="192.0.2.7")
    assert passes("10.0.0.1", x_forwarded_for="192.0.2.8")
    assert not passes("10.0.0.1", x_forwarded_for="192.0.2.99, 192.0.2.8")
    assert passes("2001:db8::1")
    assert not passes("2001:db8::2")  # one household
    assert passes("2001:db8:1::1")


def test_coming_back_is_not_counted(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(rate_limit=1)
    with hub.build() as stream:
        hub.only()
        until(lambda: len(stream.ids) >= 2, what="two lines")
    with hub.build(last_event_id=stream.ids[0]) as again:
        until(lambda: again.events, what="a line")
    assert "x-ratelimit-limit" not in again.headers


def test_no_limit_is_no_limit(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(rate_limit=0)
    for _ in range(12):
        with hub.build("nope/x") as stream:
            assert "x-ratelimit-limit" not in stream.headers
            assert "status_code" not in stream.whole()[-1]


# --- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "TEXT/Event-Stream",
        "text/html, text/event-stream",
        "text/event-stream;q=0.5, */*",
        "application/json;q=0.9,text/event-stream ; charset=utf-8",
        "text/html;text/event-stream",
    ],
)
def test_an_event_stream_may_stand_anywhere_in_accept(accept: str) -> None:
    assert binder.accepts_events(accept)


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/html", "text/*", "text/event-stream;q=0", "text/event-streams", ","]
)
def test_without_an_event_stream_in_accept_there_is_none(hub: Hub, accept: str) -> None:
    with hub.build(accept=accept) as stream:
        told = stream.whole()
    assert told == [{"phase": "failed", "status_code": 400, "message": "Missing Accept header: text/event-stream\n"}]
    assert stream.status == 200


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nope/x/y", "No provider found for prefix nope\n"),
        ("gh/a", 'Spec is not of the form "user/repo/ref", provided: "a". '),
        ("git/notaurl", ""),
    ],
)
def test_what_is_no_spec_gets_a_sentence(hub: Hub, spec: str, message: str) -> None:
    with hub.build(spec) as stream:
        told = stream.whole()
    assert told[-1]["phase"] == "failed"
    assert told[-1]["message"].startswith(message)
    assert len(told[-1]["message"]) > 20


def test_a_ref_that_is_not_there_is_said_in_binderhubs_words(hub: Hub) -> None:
    spec = hub.spec.replace("HEAD", "nosuchbranch")
    key = spec.replace("git/", "git:", 1)
    with hub.build(f"{spec}/") as stream:
        told = stream.whole()
    sentence = f"Could not resolve ref for {key}. Double check your URL and that your repo is public.\n"
    assert told[1:] == [{"phase": "failed", "message": sentence}]


def test_a_host_that_does_not_answer_is_said(hub: Hub) -> None:
    spec = f"git/{quote('http://127.0.0.1:9/x', safe='')}/HEAD"
    with hub.build(spec) as stream:
        told = stream.whole()
    assert told[-1]["message"].startswith(f"Error resolving ref for {spec.replace('git/', 'git:', 1)}: ")


def test_a_banned_repository_is_told_so(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(hosts={"git": settings.HostSetting(banned_specs=(".*demo.*",))})
    with hub.build() as stream:
        told = stream.whole()
    assert told[-1]["message"].endswith(" is not allowed to launch. Please contact admins for more info!\n")
    assert told[-1]["message"].startswith("Sorry, ")
    assert hub.launches() == []


def test_too_many_of_one_repository_is_told_so(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(hosts={"git": settings.HostSetting(per_repo_quota=1)})
    with hub.build():
        hub.only()
    with hub.build() as stream:
        told = stream.whole()
    assert told[-1] == {
        "phase": "failed",
        "message": f"Too many users running {hub.bench.repo}! Try again soon.\n",
    }


def test_a_hub_that_lets_nobody_in_says_so(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(backends=(settings.BackendSetting(name="desk", provider="fake", max_sessions=0),))
    hub.bench.at.backends["desk"] = replace_setting(hub.bench, max_sessions=0)
    with hub.build() as stream:
        assert stream.whole()[-1]["message"] == "Too many users on this BinderHub! Try again soon.\n"


def replace_setting(bench: Bench, **setting: Any) -> Any:
    found = bench.at.backends["desk"]
    return dataclasses.replace(found, setting=found.setting.model_copy(update=setting))


def test_a_full_hub_lets_wait_and_says_how_long(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub()
    hub.bench.at.backends["desk"] = replace_setting(hub.bench, max_sessions=1)
    with hub.build():
        hub.run(hub.only())
    with hub.build() as stream:
        until(lambda: len(hub.launches()) == 2, what="the second launch")
        (waiting,) = (launch for launch in hub.launches() if launch.state is State.WAITING)
        launches.advance(hub.bench.at, waiting.id)
        until(lambda: any("Everything is taken" in event["message"] for event in stream.events), what="a place")
        assert stream.events[-1]["phase"] == "waiting"
        hub.bench.clock.move(minutes=10)
        with hub.bench.at.db.transaction() as session:
            launch = launches.locked(session, waiting.id)
            assert launch is not None
            events.append(hub.bench.at, session, launch, "Still waiting.", phase=Phase.WAITING)
        now = hub.bench.clock.time
        until(lambda: hub.bench.launch(waiting.id).followed_at == now, what="the stream to say that somebody is there")


def test_a_hub_without_a_place_for_it_says_where_to_go(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(binder_backend="")
    with hub.build() as stream:
        told = stream.whole()
    assert told[-1]["message"] == (
        "This hub runs nothing straight from a link to /build. "
        f"Open http://localhost:8000/v2/{hub.spec} in a browser and choose where to run it.\n"
    )
    assert hub.launches() == []


def test_building_alone_is_refused_where_it_is_not_allowed(hub: Hub) -> None:
    with hub.build(query="?build_only=true") as stream:
        told = stream.whole()
    assert (told[0]["phase"], told[0]["status_code"]) == ("failed", 400)
    assert told[0]["message"].startswith("Building but not launching is not permitted when")


def test_a_banned_network_is_refused_everywhere_but_where_a_federation_looks(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(ban_networks={"192.0.2.0/24": "a noisy place", "2001:db8::/32": "another"})
    for client, label in (
        ("192.0.2.4", "a noisy place"),
        ("::ffff:192.0.2.4", "a noisy place"),
        ("2001:db8::1", "another"),
    ):
        with hub.build(client=client) as stream:
            assert stream.whole() == [
                {"phase": "failed", "status_code": 403, "message": f"Requests from {label} are not allowed\n"}
            ]
        for path, status in (
            ("/", 403),
            ("/api/repoproviders", 403),
            ("/metrics", 403),
            ("/health", 200),
            ("/versions", 200),
        ):
            with Stream(hub.app, path, client=client, accept="*/*") as answer:
                answer.ended.wait(20)
                assert answer.status == status, path
    with hub.build(client="198.51.100.1") as stream:
        stream.until("waiting")


def test_our_own_fault_is_one_event_with_a_reference(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("canary")

    monkeypatch.setattr(launches, "request", broken)
    with hub.build() as stream:
        told = stream.whole()
    assert (told[-1]["phase"], told[-1]["status_code"]) == ("failed", 500)
    assert "reference" in told[-1]["message"]
    assert "canary" not in stream.text


# --- launch tokens ------------------------------------------------------------------------------------------------------


@pytest.fixture
def ready(hub: Hub) -> Iterator[dict[str, Any]]:
    with hub.build() as stream:
        hub.run(hub.only())
        yield stream.whole()[-1]


def ask(hub: Hub, method: str, path: str, token: str) -> Stream:
    with Stream(hub.app, path, method=method, authorization=f"Bearer {token}") as answer:
        assert answer.ended.wait(20)
    return answer


def test_the_token_of_a_launch_shows_follows_and_ends_that_launch(hub: Hub, ready: dict[str, Any]) -> None:
    path, token = f"/api/launches/{ready['launch']}", ready["token"]
    assert '"state":"ready"' in ask(hub, "GET", path, token).text
    assert "ready" in ask(hub, "GET", f"{path}/events", token).text
    assert ask(hub, "DELETE", path, token).status == 202
    assert hub.only().stop_wanted


def test_the_token_of_a_launch_opens_nothing_else(hub: Hub, ready: dict[str, Any]) -> None:
    other = hub.bench.request()
    token = ready["token"]
    for method, path in (
        ("GET", f"/api/launches/{other.id}"),
        ("DELETE", f"/api/launches/{other.id}"),
        ("GET", f"/api/launches/{other.id}/events"),
        ("GET", "/api/launches"),
        ("POST", "/api/keys"),
        ("POST", "/api/reap"),
        ("GET", "/api/backends"),
    ):
        assert ask(hub, method, path, token).status == 401, path
