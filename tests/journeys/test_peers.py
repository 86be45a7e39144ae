"""From a repository to a session at another hub, in both sizes: handed over, failed over, stopped, and broken off by a crash."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.doubles.binderhub_double import BUILT, BinderHubDouble
from tests.journeys.conftest import Broker
from tests.waiting import until

Repos = tuple[str, Callable[[str, dict[str, Any]], str]]


@pytest.fixture
def hubs() -> Iterator[list[BinderHubDouble]]:
    with BinderHubDouble() as first, BinderHubDouble() as second:
        yield [first, second]


def test_a_launch_runs_at_a_peer_until_it_is_stopped(
    hubs: list[BinderHubDouble], either_size: Broker, repos: Repos
) -> None:
    url, make = repos
    make("paper", {"index.ipynb": "{}"})
    for name, hub in zip(("first", "second"), hubs, strict=True):
        either_size.run("peers", "add", hub.url, "--name", name)
    hubs[0].lines = [*BUILT[:3], "fail"]
    ready = either_size.launch(f"{url}/paper", "--on", "first", "--name", "away", "--path", "index.ipynb")
    ((path, token),) = hubs[1].sessions.items()
    assert (ready["phase"], ready["url"], ready["token"]) == ("ready", f"{hubs[1].url}{path}", token)
    there = either_size.api("GET", f"/launches/{ready['launch']}/open", follow_redirects=False)
    assert "It runs at" in there.text, "another hub than the one that was chosen"
    there = either_size.api("GET", f"/launches/{ready['launch']}/open?seen=1", follow_redirects=False)
    assert there.headers["location"] == f"{hubs[1].url}{path}lab/tree/index.ipynb?token={token}"
    assert httpx.get(there.headers["location"]).status_code == 200
    log = either_size.run("logs", "away").stdout
    assert "Build failed, see the log." in log
    assert "second" in either_size.run("peers", "list").stdout
    either_size.run("stop", "away")
    assert [hub.sessions for hub in hubs] == [{}, {}]
    assert [hub.launched for hub in hubs] == [0, 1]


def test_a_broker_that_is_killed_says_what_may_run_on_and_asks_anew(
    hubs: list[BinderHubDouble], start_broker: Callable[..., Broker], repos: Repos
) -> None:
    url, make = repos
    make("paper", {"index.ipynb": "{}"})
    broker = start_broker()
    hub, _ = hubs
    hub.lines = [*BUILT[:5], "hold", "ready"]
    broker.run("peers", "add", hub.url, "--name", "only")
    asked = {"repo": f"{url}/paper", "backend": "only", "consent": True}
    launch = broker.api("POST", "/api/launches", json=asked).json()["id"]
    until(lambda: broker.api("GET", f"/api/launches/{launch}").json()["phase"] == "launching")
    broker.kill(broker.processes[0], signal.SIGKILL)
    hub.go_on.set()
    (broker.home / "broker.json").unlink()
    broker.start("up", "--no-browser", "--port", "0")
    broker.wait()
    until(lambda: broker.api("GET", f"/api/launches/{launch}").json()["phase"] == "ready", seconds=30)
    log = broker.run("logs", launch).stdout
    assert "What it may have started there goes on until that hub ends it." in log
    assert len(hub.builds) == 2
