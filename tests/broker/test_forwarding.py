"""Launches at peers: read to ready and entered there, failed over with a reason, watched, stopped, and never run twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from broker import connections, errors, launches, peers, people, placement, uses, wishes
from broker.forwarding import entering, hearing, rows
from broker.models import Forward, Launch, State
from tests.broker.conftest import Bench
from tests.broker.listening import Listening
from tests.doubles.binderhub_double import BUILT, BinderHubDouble
from tests.waiting import until

FULL = [{"phase": "failed", "message": "Too many users on this BinderHub! Try again soon.\n"}]
TOKEN = "ada-0123456789"


@pytest.fixture
def hub() -> Iterator[BinderHubDouble]:
    with BinderHubDouble() as double:
        yield double


@pytest.fixture
def other() -> Iterator[BinderHubDouble]:
    with BinderHubDouble() as double:
        yield double


@pytest.fixture
def bench(make_bench: Callable[..., Bench], hub: BinderHubDouble, other: BinderHubDouble) -> Iterator[Bench]:
    """Two peers, of which the first is asked first where it is named."""
    told = [
        {"name": "first", "title": "First", "url": hub.url},
        {"name": "second", "title": "Second", "url": other.url},
    ]
    made = make_bench(peers=told, binder_peers="relay")
    with Listening(made.at):
        yield made


def taken(bench: Bench, launch: Launch) -> Launch:
    """Every step that is due, until the launch is as far as it comes."""

    def settled() -> Launch | None:
        found = bench.advance(launch)
        return found if found.runs or found.state is State.STOPPED else None

    return until(settled, seconds=20, what="the launch to be ready or over")


def request(bench: Bench, **wish: Any) -> Launch:
    return bench.request(**{"backend": "first", **wish})


def tries(bench: Bench, launch: Launch) -> list[tuple[str, str]]:
    return [(each.peer, each.outcome) for each in rows.of_launch(bench.at, launch.id)]


def current(bench: Bench, launch: Launch) -> Forward:
    found = rows.current(bench.at, launch.id)
    assert found is not None
    return found


# --- to ready


def test_a_launch_is_read_to_ready_and_entered_there(bench: Bench, hub: BinderHubDouble) -> None:
    launch = taken(bench, request(bench, path="a b.ipynb"))
    assert (launch.state, launch.backend, launch.image) == (State.FORWARDED, "first", "registry/peer:abc")
    assert bench.phases(launch) == [
        "waiting",
        "waiting",
        "waiting",
        "fetching",
        "building",
        "built",
        "launching",
        "ready",
    ]
    assert "First is asked to run it; what is launched there becomes public record." in bench.said(launch)
    (spec,) = hub.builds
    assert spec == f"git/{quote(launch.repo_url, safe='')}/{launch.commit}"
    there = entering.entry(bench.at, launch)
    assert there is not None
    ((path, token),) = hub.sessions.items()
    assert there.with_token == f"{hub.url}{path}lab/tree/a%20b.ipynb?token={token}"
    assert there.opening("https://evil.example/").startswith(f"{hub.url}{path}https://evil.example/?token=")
    assert there.opening("../../hub/home") == f"{hub.url}{path}hub/home?token={token}"
    assert token not in str(bench.events(launch)) + repr(there)


def test_who_takes_a_lease_over_as_it_becomes_ready_leaves_it(bench: Bench, hub: BinderHubDouble) -> None:
    launch = taken(bench, request(bench))
    assert hearing.begin(bench.at, current(bench, launch).id) is None
    assert tries(bench, launch) == [("first", "")]
    assert taken(bench, launch).runs
    assert hub.launched == 1


def test_the_way_in_is_sealed_and_erased(bench: Bench, hub: BinderHubDouble) -> None:
    launch = taken(bench, request(bench))
    (token,) = hub.sessions.values()
    sealed = current(bench, launch).way_in
    assert sealed is not None
    assert token.encode() not in sealed
    launches.stop(bench.at, launch.id)
    assert taken(bench, launch).state is State.STOPPED
    assert [each.way_in for each in rows.of_launch(bench.at, launch.id)] == [None]


def test_many_lines_that_come_at_once_are_all_there_in_order(bench: Bench, hub: BinderHubDouble) -> None:
    hub.lines = [*BUILT[:2], *({"phase": "building", "message": f"line {number}"} for number in range(900)), "ready"]
    said = bench.said(taken(bench, request(bench)))
    assert [line for line in said if line.startswith("line ")] == [f"line {number}" for number in range(900)]


# --- on to the next


@pytest.mark.parametrize(
    ("lines", "outcome", "said"),
    [
        (FULL, "full", "First: Too many users on this BinderHub! Try again soon."),
        ([*BUILT[:3], "fail"], "build_failed", "First: Build failed, see the log."),
        ([*BUILT[:3], "hang"], "silent", "First: It has said nothing for too long."),
        ([*BUILT[:3], "cut"], "vanished", "First: It cannot be reached."),
        ([b"data: " + b"x" * 10_000_000], "not_believed", "First: It says more than any build does."),
        (
            [{"phase": "ready", "url": "http://10.0.0.1/user/a/", "token": "t"}],
            "not_believed",
            "not known to be its own",
        ),
    ],
)
def test_what_fails_there_goes_on_at_the_next_with_a_line(
    bench: Bench, hub: BinderHubDouble, other: BinderHubDouble, lines: list[Any], outcome: str, said: str
) -> None:
    hub.lines = lines
    launch = taken(bench, request(bench, path="x.ipynb"))
    assert tries(bench, launch) == [("first", outcome), ("second", "")]
    assert (launch.state, launch.backend, launch.path) == (State.FORWARDED, "second", "x.ipynb")
    log = bench.said(launch)
    assert any(said in line for line in log)
    assert "Second is asked to run it; what is launched there becomes public record." in log
    assert rows.RUNS_ON not in log
    assert (hub.launched, other.launched) == (0, 1)


def test_what_was_cut_while_it_was_started_may_run_on_and_that_is_said(bench: Bench, hub: BinderHubDouble) -> None:
    hub.lines = [*BUILT[:5], "cut"]
    launch = taken(bench, request(bench))
    assert tries(bench, launch) == [("first", "vanished"), ("second", "")]
    assert rows.RUNS_ON in bench.said(launch)


def test_who_is_turned_away_once_the_image_was_found_has_nothing_there(bench: Bench, hub: BinderHubDouble) -> None:
    hub.lines = [{"phase": "built", "message": "Found built image, launching...\n"}, *FULL]
    launch = taken(bench, request(bench))
    assert tries(bench, launch) == [("first", "full"), ("second", "")]
    assert rows.RUNS_ON not in bench.said(launch)


def test_where_none_is_left_it_fails_with_what_the_last_one_said(
    bench: Bench, hub: BinderHubDouble, other: BinderHubDouble
) -> None:
    hub.lines = other.lines = FULL
    launch = taken(bench, request(bench))
    assert (launch.state, launch.reason, launch.phase) == (State.STOPPED, "peers", "failed")
    assert "Too many users on this BinderHub!" in launch.message
    assert bench.phases(launch).count("failed") == 1


def test_a_build_that_failed_at_two_hubs_is_not_tried_at_a_third(
    make_bench: Callable[..., Bench], hub: BinderHubDouble, other: BinderHubDouble
) -> None:
    with BinderHubDouble() as third:
        hubs = {"first": hub, "second": other, "third": third}
        for each in hubs.values():
            each.lines = [*BUILT[:3], "fail"]
        bench = make_bench(peers=[{"name": name, "url": each.url} for name, each in hubs.items()])
        with Listening(bench.at):
            launch = taken(bench, request(bench))
    assert [outcome for _, outcome in tries(bench, launch)] == ["build_failed"] * 2
    assert launch.state is State.STOPPED


def test_after_the_peers_it_goes_on_to_the_backend_that_its_person_named(
    bench: Bench, hub: BinderHubDouble, other: BinderHubDouble
) -> None:
    hub.lines = other.lines = FULL
    launch = request(bench, elsewhere=["desk"])
    launch = until(lambda: found if (found := bench.advance(launch)).state is State.STARTING else None)
    assert launch.backend == "desk"
    assert bench.run(launch).state is State.READY


def test_from_a_backend_that_has_nothing_it_goes_on_to_a_peer(bench: Bench) -> None:
    bench.cloud.menu.clear()
    launch = bench.request(backend="desk", elsewhere=["second"])
    launch = taken(bench, launch)
    assert (launch.state, launch.backend) == (State.FORWARDED, "second")


def test_one_that_publishes_nothing_is_not_followed_by_one_that_does(
    make_bench: Callable[..., Bench], hub: BinderHubDouble, other: BinderHubDouble
) -> None:
    hub.lines = FULL
    quiet = {"name": "first", "url": hub.url, "publishes": False}
    bench = make_bench(peers=[quiet, {"name": "second", "url": other.url}])
    with Listening(bench.at):
        launch = taken(bench, request(bench))
    assert (launch.state, other.builds) == (State.STOPPED, [])


# --- never twice


def test_two_processes_read_no_stream_twice(bench: Bench, hub: BinderHubDouble) -> None:
    with Listening(bench.at), Listening(bench.at):
        assert taken(bench, request(bench)).state is State.FORWARDED
    assert (len(hub.builds), hub.launched) == (1, 1)


def test_a_try_whose_reader_died_is_not_asked_again_but_followed_by_another(bench: Bench, hub: BinderHubDouble) -> None:
    hub.lines = [*BUILT[:5], "hold", "ready"]
    launch = bench.advance(request(bench))
    until(lambda: "Launching server..." in bench.said(launch))
    forward = current(bench, launch)
    assert hearing.begin(bench.at, forward.id) is None  # as whoever finds its lease run out
    launch = taken(bench, launch)
    assert tries(bench, launch) == [("first", rows.INTERRUPTED), ("second", "")]
    assert rows.RUNS_ON in bench.said(launch)
    assert hub.launched == 0


def test_a_launch_has_one_open_try(bench: Bench) -> None:
    launch = taken(bench, request(bench))
    assert rows.open_try(bench.at, launch, "second", None).id == current(bench, launch).id
    with pytest.raises(sa.exc.IntegrityError), bench.at.db.transaction() as session:
        session.add(Forward(id="x", launch_id=launch.id, peer="second", opened_at=bench.clock()))


# --- its end


def test_a_session_there_is_stopped_and_stopped_is_said_once_it_answers_no_more(
    bench: Bench, hub: BinderHubDouble
) -> None:
    launch = taken(bench, request(bench))
    hub.obeys = False
    launches.stop(bench.at, launch.id)
    assert bench.advance(launch).state is State.STOPPING
    assert entering.entry(bench.at, bench.launch(launch.id)) is None
    hub.sessions.clear()
    bench.clock.move(seconds=10)
    assert bench.advance(launch).state is State.STOPPED
    assert bench.said(launch)[-1] == "Nothing of it is left."
    assert tries(bench, launch) == [("first", "ended")]


def test_what_does_not_end_is_left_to_its_hub_and_that_is_said(bench: Bench, hub: BinderHubDouble) -> None:
    launch = taken(bench, request(bench))
    hub.obeys = False
    launches.stop(bench.at, launch.id)
    assert bench.until_stopped(launch, looks=400).state is State.STOPPED
    assert "That hub ends it" in bench.said(launch)[-1]
    assert tries(bench, launch) == [("first", "left")]


def test_what_is_stopped_while_it_is_built_is_left_at_once(bench: Bench, hub: BinderHubDouble) -> None:
    hub.lines = [*BUILT[:3], "hang"]
    launch = bench.advance(request(bench))
    until(lambda: "building" in bench.phases(launch))
    launches.stop(bench.at, launch.id)
    assert bench.advance(launch).state is State.STOPPED
    assert tries(bench, launch) == [("first", "stopped")]


def test_what_is_stopped_while_it_is_started_is_ended_once_it_is_there(bench: Bench, hub: BinderHubDouble) -> None:
    hub.lines = [*BUILT[:5], "hold", "ready"]
    launch = bench.advance(request(bench))
    until(lambda: "launching" in bench.phases(launch))
    launches.stop(bench.at, launch.id)
    assert bench.advance(launch).state is State.STOPPING
    hub.go_on.set()
    until(lambda: current(bench, launch).ready_at)
    assert bench.until_stopped(launch).state is State.STOPPED
    assert (hub.launched, hub.sessions) == (1, {})


def test_a_session_that_ends_there_is_found_at_the_next_look(bench: Bench, hub: BinderHubDouble) -> None:
    launch = taken(bench, request(bench))
    asked = len(hub.asked)
    bench.clock.move(minutes=14)
    assert bench.advance(launch).state is State.FORWARDED
    assert len(hub.asked) == asked, "its hub takes every look for somebody who works there"
    hub.sessions.clear()
    bench.clock.move(minutes=2)
    launch = bench.until_stopped(launch)
    assert (launch.reason, launch.phase) == ("ended", "ready")


def test_an_idle_session_is_ended_and_one_in_use_is_not(bench: Bench, hub: BinderHubDouble) -> None:
    launch = taken(bench, request(bench))
    for _ in range(4):
        bench.clock.move(minutes=16)
        hub.last_activity = bench.clock().isoformat()
        assert bench.advance(launch).state is State.FORWARDED
    bench.clock.move(minutes=31)
    launch = bench.until_stopped(launch)
    assert (launch.reason, hub.sessions) == ("idle", {})


def test_one_look_without_an_answer_is_nothing_and_many_are_a_loss(bench: Bench, hub: BinderHubDouble) -> None:
    launch = taken(bench, request(bench))
    (path,) = hub.sessions
    hub.answers[f"{path}api/status"] = (503, {}, b"")
    bench.clock.move(minutes=16)
    assert bench.advance(launch).state is State.FORWARDED
    launch = bench.until_stopped(launch, looks=100)
    assert launch.reason == "lost"


def test_a_session_at_another_anybinder_need_be_no_jupyter(bench: Bench, hub: BinderHubDouble) -> None:
    ready = {"phase": "ready", "url": f"{hub.url}/s/abcdefghijkl/", "token": "t", "launch": "abcdefghijkl"}
    hub.lines, hub.launches = [*BUILT[:5], ready], {"abcdefghijkl": "ready"}
    launch = taken(bench, request(bench))
    bench.clock.move(minutes=16)
    hub.last_activity = bench.clock().isoformat()
    assert bench.advance(launch).state is State.FORWARDED
    launches.stop(bench.at, launch.id)
    assert bench.until_stopped(launch).state is State.STOPPED
    assert hub.launches == {"abcdefghijkl": "stopped"}


def test_its_hours_are_ours_to_count(bench: Bench, hub: BinderHubDouble) -> None:
    launch = taken(bench, request(bench, hours=0.1))
    bench.clock.move(minutes=7)
    launch = bench.until_stopped(launch)
    assert (launch.reason, hub.sessions) == ("expired", {})


# --- who may


def test_a_private_repository_never_goes_to_a_peer_that_publishes(bench: Bench, hub: BinderHubDouble) -> None:
    found = bench.at.repos.resolve(bench.at.repos.parse(bench.repo, None))
    private = wishes.replace(found, opened_with="connection")
    with pytest.raises(errors.NotForPeers):
        wishes.peer(bench.at, people.LOCAL, wishes.Wish(repo=bench.repo, backend="first"), private)
    assert hub.builds == []


def test_what_only_the_operators_token_opens_is_private_too(
    make_bench: Callable[..., Bench], hub: BinderHubDouble
) -> None:
    bench = make_bench(peers=[{"name": "first", "url": hub.url}], hosts={"git": {"token": "the-operators"}})
    found = bench.at.repos.resolve(bench.at.repos.parse(bench.repo, None))
    wish = wishes.Wish(repo=bench.repo, backend="first")
    assert wishes.peer(bench.at, people.LOCAL, wish, found)
    with pytest.raises(errors.NotForPeers):
        wishes.peer(bench.at, people.LOCAL, wish, wishes.replace(found, repo_url=f"{found.repo_url}-of-theirs"))


def test_a_peer_that_asks_for_a_token_gets_that_persons_and_nobody_else_does(
    make_bench: Callable[..., Bench], hub: BinderHubDouble, other: BinderHubDouble
) -> None:
    hub.tokens[TOKEN] = "ada"
    told = [{"name": "first", "url": hub.url, "anonymous": False}, {"name": "second", "url": other.url}]
    bench = make_bench(peers=told)
    with pytest.raises(errors.NoBackend, match="Connect a token of yours"):
        request(bench)
    kinds = peers.kinds(bench.at, people.LOCAL, "first")
    connections.connect(bench.at, people.LOCAL, peers.target_of("first"), kinds, "token", {"token": TOKEN})
    with Listening(bench.at):
        launch = taken(bench, request(bench))
        hub.lines = FULL
        after = taken(bench, request(bench, name="after"))
    assert hub.shown("/build") == [f"token {TOKEN}"] * 2
    assert TOKEN not in str(other.asked)
    assert (after.backend, after.connection_id) == ("second", None)
    assert [each.what for each in uses.of(bench.at, people.LOCAL)].count("launch") == 2
    launches.stop(bench.at, launch.id)
    assert bench.until_stopped(launch).state is State.STOPPED
    assert hub.sessions == {}


def test_a_token_of_ones_own_is_used_within_a_recent_sign_in_only(
    make_bench: Callable[..., Bench], hub: BinderHubDouble
) -> None:
    bench = make_bench(peers=[{"name": "first", "url": hub.url, "anonymous": False}])
    ada = people.Person(id="ada")
    kinds = peers.kinds(bench.at, ada, "first")
    connections.connect(bench.at, ada, peers.target_of("first"), kinds, "token", {"token": TOKEN})
    with pytest.raises(errors.SignInAgain):
        launches.request(bench.at, ada, wishes.Wish(repo=bench.repo, backend="first"))


def test_a_peer_that_is_down_full_or_drained_is_refused_with_the_reason(bench: Bench, hub: BinderHubDouble) -> None:
    peers.drain(bench.at, "first", draining=True)
    with pytest.raises(errors.NoBackend, match="takes no new sessions"):
        request(bench)
    peers.drain(bench.at, "first", draining=False)
    hub.total = 99
    peers.look(bench.at)
    with pytest.raises(errors.NoBackend, match="full at the moment"):
        request(bench)


def test_drained_peers_go_on_with_what_runs_there(bench: Bench, hub: BinderHubDouble) -> None:
    launch = taken(bench, request(bench))
    peers.drain(bench.at, "first", draining=True)
    bench.clock.move(minutes=16)
    assert bench.advance(launch).state is State.FORWARDED


def test_who_lies_is_rested_and_who_is_full_is_not_asked_for_a_while(bench: Bench, hub: BinderHubDouble) -> None:
    hub.lines = FULL
    taken(bench, request(bench))
    assert peers.named(bench.at, "first").condition(bench.clock()) == "full"
    bench.clock.move(minutes=5)
    hub.lines = [b"data: {]\n\n"]
    taken(bench, request(bench, name="again"))
    assert peers.named(bench.at, "first").condition(bench.clock()) == "resting"


def test_where_it_ran_before_it_goes_again(bench: Bench, hub: BinderHubDouble, other: BinderHubDouble) -> None:
    taken(bench, request(bench, backend="second"))
    for number in range(3):
        wish = wishes.Wish(repo=bench.repo, asked_from="build", name=f"n{number}")
        launch, _ = launches.request(bench.at, people.ANONYMOUS, wish)
        assert launch.backend == "second"


def test_the_command_line_and_scripts_get_the_way_in(bench: Bench, hub: BinderHubDouble) -> None:
    from broker.web import schemas

    launch = taken(bench, request(bench))
    shown = schemas.launch_json(bench.at, people.LOCAL, launch)
    ((path, token),) = hub.sessions.items()
    assert (shown["url"], shown["token"]) == (f"{hub.url}{path}", token)
    assert shown["peer"]["title"] == "First"
    assert "token" not in schemas.launch_json(bench.at, people.Person(id="eve"), launch)


def test_a_reader_that_is_ended_leaves_its_try_to_the_next(
    make_bench: Callable[..., Bench], hub: BinderHubDouble
) -> None:
    hub.lines = [*BUILT[:2], "hold", *BUILT[2:]]
    bench = make_bench(peers=[{"name": "first", "url": hub.url}])
    with Listening(bench.at):
        launch = bench.advance(request(bench))
        until(lambda: "fetching" in bench.phases(launch))
    hub.go_on.set()
    bench.clock.move(minutes=2)
    with Listening(bench.at):
        launch = taken(bench, launch)
    assert launch.state is State.FORWARDED
    assert [outcome for _, outcome in tries(bench, launch)] == [rows.INTERRUPTED, ""]


# --- among the places to run


def test_peers_are_places_beside_the_backends_with_whose_terms_apply(
    make_bench: Callable[..., Bench], hub: BinderHubDouble
) -> None:
    told = {"name": "first", "url": hub.url, "terms_url": "https://example.org/terms"}
    bench = make_bench(peers=[told, {"name": "second", "url": hub.url, "anonymous": False}])
    found = {place.name: place for place in placement.places(bench.at, people.LOCAL)}
    assert (found["first"].closed, found["first"].terms_url, found["first"].publishes) == (
        None,
        told["terms_url"],
        True,
    )
    assert (found["second"].connect, found["second"].needs) == ("/connect/peer/second", ("connect",))
    peers.drain(bench.at, "first", draining=True)
    found = {place.name: place for place in placement.places(bench.at, people.LOCAL)}
    assert "takes no new sessions" in str(found["first"].closed)
    assert "sign in" in {place.name: place for place in placement.places(bench.at, people.ANONYMOUS)}["first"].needs
