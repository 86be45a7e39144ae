"""Three hubs with a real JupyterHub behind each, as peers of a real broker: forwarded, drained, failed over, refused, stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker import people, service, settings
from tests.doubles.private_repos import REPO, connect_token, private_host
from tests.journeys.conftest import Broker, compute, repos, start_broker
from tests.servers import hub as hubs
from tests.waiting import until

__all__ = ["repos", "start_broker"]
pytestmark = pytest.mark.timeout(600)
NAMES = ("first", "second", "third")
NOTEBOOK = {"index.ipynb": "{}", "data.txt": "42\n"}
READ = "import pathlib; print(int(pathlib.Path('data.txt').read_text()) + 1)"

Repos = tuple[str, Callable[[str, dict[str, Any]], str]]


@pytest.fixture(scope="module")
def three() -> Iterator[dict[str, hubs.Hub]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(hubs.running()) for name in NAMES}


@pytest.fixture
def broker(three: dict[str, hubs.Hub], start_broker: Callable[..., Broker]) -> Broker:
    told = [hub.setting(name) for name, hub in three.items()]
    for hub in three.values():
        hub.front.builds.clear()
        hub.front.refuses, hub.front.quota = False, 100
    return start_broker(ANYBINDER_PEERS=json.dumps(told))


@pytest.fixture
def paper(repos: Repos) -> str:
    url, make = repos
    make("paper", NOTEBOOK)
    return f"{url}/paper"


def asked(three: dict[str, hubs.Hub]) -> list[str]:
    return [name for name, hub in three.items() if hub.front.builds]


def test_a_launch_is_forwarded_a_cell_computes_there_and_it_is_stopped(
    broker: Broker, three: dict[str, hubs.Hub], paper: str
) -> None:
    ready = broker.launch(paper, "--on", "second", "--name", "away", "--path", "index.ipynb")
    hub = three["second"]
    assert ready["url"].startswith(f"{hub.url}/user/")
    assert compute(ready, READ).strip() == "43"
    (user,) = hub.front.running
    there = broker.api("GET", f"/launches/{ready['launch']}/open", follow_redirects=False).headers["location"]
    assert there.startswith(f"{hub.url}/user/{user}/")
    assert httpx.get(f"{ready['url']}api/status").status_code == 403, "its token opens it, and nothing else does"
    broker.run("stop", "away")
    until(lambda: not answers(ready), seconds=30, what="its server to have ended")
    assert broker.api("GET", f"/api/launches/{ready['launch']}").json()["state"] == "stopped"
    until(lambda: hub.front.running == [], seconds=60, what="the hub to have seen that its server ended")


def test_a_full_hub_hands_on_to_the_next(broker: Broker, three: dict[str, hubs.Hub], paper: str) -> None:
    three["first"].front.refuses = True
    ready = broker.launch(paper, "--on", "first", "--name", "on", "--path", "index.ipynb")
    served = next(name for name, hub in three.items() if ready["url"].startswith(f"{hub.url}/"))
    assert served != "first"
    assert compute(ready, READ).strip() == "43"
    assert asked(three) == sorted({"first", served})
    log = broker.run("logs", "on").stdout
    assert "First: Too many users on this BinderHub! Try again soon." in log
    assert f"Ready at {served.title()}." in log
    broker.run("stop", "on")


def test_a_hub_that_says_it_is_full_is_not_asked(broker: Broker, three: dict[str, hubs.Hub], paper: str) -> None:
    broker.launch(paper, "--on", "first", "--name", "last", "--path", "index.ipynb")
    three["first"].front.quota = len(three["first"].front.running)
    broker.run("peers", "check", "first")
    refused = broker.run("launch", paper, "--on", "first", "--name", "more", code=1)
    assert "It is full at the moment." in refused.stderr
    assert len(three["first"].front.builds) == 1
    broker.run("stop", "last")


def test_a_drained_hub_takes_nothing_new_and_keeps_what_runs(
    broker: Broker, three: dict[str, hubs.Hub], paper: str
) -> None:
    ready = broker.launch(paper, "--on", "third", "--name", "stays", "--path", "index.ipynb")
    broker.run("peers", "drain", "third")
    refused = broker.run("launch", paper, "--on", "third", "--name", "new", code=1)
    assert "takes no new sessions" in refused.stderr
    assert compute(ready, READ).strip() == "43"
    assert len(three["third"].front.builds) == 1
    broker.run("peers", "undrain", "third")
    broker.run("stop", "stays")
    assert not answers(ready)


def test_a_private_repository_is_refused_to_a_hub_that_publishes(
    three: dict[str, hubs.Hub], start_broker: Callable[..., Broker], home: Path, tmp_path: Path
) -> None:
    for hub in three.values():
        hub.front.builds.clear()
    with private_host(tmp_path, "github_pat_of-a-person-4711", NOTEBOOK) as host:
        hosts = json.dumps({"gh": {"api": host.api, "url": host.url}})
        broker = start_broker(
            ANYBINDER_HOSTS=hosts, ANYBINDER_PEERS=json.dumps([hub.setting(name) for name, hub in three.items()])
        )
        at = service.build(settings.Settings(home=home, hosts=json.loads(hosts)), migrate=False)
        try:
            connect_token(at, people.LOCAL, "github_pat_of-a-person-4711")
        finally:
            at.close()
        refused = broker.run("launch", REPO, "--on", "first", code=1)
    assert "public" in refused.stderr
    assert asked(three) == []


def answers(ready: dict[str, Any]) -> bool:
    """Whether a server of this launch answers behind its hub."""
    found = httpx.get(f"{ready['url']}api/status", headers={"Authorization": f"token {ready['token']}"})
    return found.status_code == 200
