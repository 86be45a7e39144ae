"""Which peers there are, how they stand by all that was seen of them, and the commands that say so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
from click.testing import Result
from typer.testing import CliRunner

from broker import errors, peers, settings
from broker.cli import app
from federation import errors as refusals
from federation.health import Condition
from tests.broker.conftest import Bench
from tests.doubles.binderhub_double import BinderHubDouble


@pytest.fixture
def hub() -> Iterator[BinderHubDouble]:
    with BinderHubDouble() as double:
        yield double


@pytest.fixture
def bench(make_bench: Callable[..., Bench], hub: BinderHubDouble) -> Bench:
    return make_bench(peers=[{"name": "physics", "url": hub.url}])


def condition(bench: Bench, name: str = "physics") -> Condition:
    return peers.named(bench.at, name).condition(bench.clock())


def test_a_round_finds_how_they_are(bench: Bench, hub: BinderHubDouble) -> None:
    assert condition(bench) is Condition.UNKNOWN
    assert peers.look(bench.at) == 1
    found = peers.named(bench.at, "physics")
    assert (condition(bench), found.standing.quota, found.providers[0]) == (Condition.OPEN, 100, "gh")
    hub.well = False
    for _ in range(3):
        peers.look(bench.at)
    assert condition(bench) is Condition.DOWN
    assert "JupyterHub API" in peers.named(bench.at, "physics").standing.why


def test_what_launches_met_there_counts(bench: Bench) -> None:
    peers.look(bench.at)
    with bench.at.db.transaction() as session:
        peers.experienced(bench.at, session, "physics", refusals.Full("Too many users", seconds=300))
        peers.experienced(bench.at, session, "no-more", refusals.Full())
    assert condition(bench) is Condition.FULL
    bench.clock.move(minutes=6)
    assert condition(bench) is Condition.OPEN


def test_peers_are_added_drained_and_removed(bench: Bench, hub: BinderHubDouble) -> None:
    peers.add(bench.at, settings.PeerSetting(name="chem", url=hub.url, weight=2))
    assert [each.name for each in peers.known(bench.at)] == ["physics", "chem"]
    peers.drain(bench.at, "chem", draining=True)
    assert condition(bench, "chem") is Condition.DRAINING
    peers.drain(bench.at, "chem", draining=False)
    assert condition(bench, "chem") is Condition.UNKNOWN
    peers.remove(bench.at, "chem")
    with pytest.raises(errors.NotFound):
        peers.drain(bench.at, "chem", draining=True)
    with pytest.raises(errors.BadRequest, match="settings name"):
        peers.remove(bench.at, "physics")


def test_a_place_to_run_has_one_name(bench: Bench, hub: BinderHubDouble) -> None:
    for name, said in (("desk", "backend"), ("physics", "settings")):
        with pytest.raises(errors.BadRequest, match=said):
            peers.add(bench.at, settings.PeerSetting(name=name, url=hub.url))
    with pytest.raises(pydantic.ValidationError, match="'local'"):
        settings.Settings(home=bench.at.settings.home, peers=[{"name": "local", "url": hub.url}])


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"url": "http://hub.example.org"}, "https"),
        ({"origins": ["https://*"]}, "origin"),
        ({"terms_url": "javascript:alert(1)"}, "page"),
        ({"build_token_secret": "no hex"}, "hexadecimal"),
        ({"weight": -1}, "greater"),
    ],
)
def test_what_cannot_be_a_peer_is_refused(told: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        settings.PeerSetting(**{"name": "a", "url": "https://hub.example.org", **told})


# --- the commands


def command(*words: str, code: int = 0) -> Result:
    """`anybinder peers …`, in this process."""
    ended = CliRunner().invoke(app, ["peers", *words])
    assert ended.exit_code == code, (words, ended.output)
    return ended


def test_the_commands_tell_a_person_what_is_so(home: Path, hub: BinderHubDouble) -> None:
    added = command("add", hub.url, "--name", "physics", "--terms", "https://example.org/terms")
    assert "BinderHub 1.0.0; 3 of 100 places are taken" in added.stderr
    assert "physics" in command("list").stdout
    command("drain", "physics")
    (row,) = map(json.loads, command("list", "--json").stdout.splitlines())
    assert (row["condition"], row["total"], row["version"]) == ("draining", 3, "1.0.0")
    command("undrain", "physics")
    command("check")
    hub.well = False
    assert "not well" in command("check", "physics", code=1).stderr
    command("remove", "physics")
    assert "No peer is known" in command("list").stderr
    assert "no peer called “physics”" in command("remove", "physics", code=1).stderr
    assert "https://" in command("add", "http://hub.example.org", code=2).stderr
    assert "local" in command("add", hub.url, "--name", "local", code=1).stderr
