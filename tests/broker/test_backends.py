"""Where a launch may run: never a stranger's code as the operator, never a machine that could not report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pydantic
import pytest

from broker import backends, consents, errors, people, placement, probe, repos, service, settings
from tests.broker.conftest import Bench
from tests.doubles.desk_cloud import DeskCloud

SOMEBODY = people.Person(id="https://idp.example|42")


class AtHome(DeskCloud):
    """Runs as whoever runs the broker."""

    on_this_computer = True


class FarAway(DeskCloud):
    """A real cloud: its machines cannot dial 127.0.0.1."""

    dials_loopback = False


HUB = "https://hub.example"


def served(bench: Bench) -> service.Service:
    """On a server whose public address was found to lead to it."""
    bench.at.probes[HUB] = probe.Seen(at=bench.at.now(), trouble=None)
    return replace(bench.at, settings=bench.at.settings.model_copy(update={"public_url": HUB}))


def test_this_computer_is_offered_to_the_one_local_person(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(AtHome())
    assert placement.choose(bench.at, people.LOCAL, "desk").name == "desk"


def test_this_computer_is_never_offered_on_a_served_broker(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(AtHome())
    for person in (people.LOCAL, SOMEBODY):
        with pytest.raises(errors.NoBackend, match="stranger's code"):
            placement.choose(served(bench), person, "desk")


def test_a_broker_that_listens_beyond_loopback_counts_as_served(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(AtHome(), host="0.0.0.0")
    with pytest.raises(errors.NoBackend, match="stranger's code"):
        placement.choose(bench.at, people.LOCAL, "desk")


def test_this_computer_is_nobody_elses(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(AtHome())
    with pytest.raises(errors.NoBackend, match="Only the person at this computer"):
        placement.choose(bench.at, SOMEBODY, "desk")


def test_a_machine_elsewhere_needs_an_address_it_can_dial(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FarAway())
    with pytest.raises(errors.NoBackend, match="ANYBINDER_PUBLIC_URL"):
        placement.choose(bench.at, people.LOCAL, "desk")
    assert placement.choose(served(bench), people.LOCAL, "desk").name == "desk"


def test_what_is_closed_is_listed_last_with_its_reason(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(FarAway())
    setting = settings.BackendSetting(name="home", provider="local")
    bench.at.backends["home"] = backends.Backend(name="home", title="Home", provider=AtHome(), setting=setting)
    first, last = placement.places(bench.at, people.LOCAL)
    assert (first.name, first.closed) == ("home", None)
    assert last.closed is not None


def test_readiness_is_what_it_took_lately(bench: Bench) -> None:
    assert placement.places(bench.at, people.LOCAL)[0].ready_seconds is None
    launch = bench.advance(bench.request())
    bench.clock.move(seconds=7)
    bench.enrol(launch)
    bench.report(launch, server="up", kind="app")
    from broker import sessions

    sessions.tunnelled(bench.at, launch.id)
    bench.advance(launch)
    assert placement.places(bench.at, people.LOCAL)[0].ready_seconds == pytest.approx(7)


def test_what_runs_as_the_person_asks_once_for_each_commit(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(AtHome())
    with pytest.raises(errors.ConsentNeeded):
        bench.request()
    commit = bench.at.repos.resolve(repos.RepoSpec.parse(bench.repo)).commit
    with pytest.raises(errors.ConsentNeeded):
        bench.request(consent="0" * 40)
    assert bench.request(consent=commit).commit == commit
    assert bench.request().commit == commit


def test_a_consent_is_one_persons_own(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(AtHome())
    bench.request(consent=True)
    found = bench.at.repos.resolve(repos.RepoSpec.parse(bench.repo))
    desk = backends.named(bench.at, "desk")
    for person, agreed in ((people.LOCAL, True), (SOMEBODY, False)):
        situation = consents.situation(bench.at, person, found, desk)
        assert consents.covered(bench.at, person, found, situation) is agreed


def test_an_uninstalled_provider_is_named_with_those_that_are_there(home: Path) -> None:
    at = service.build(settings.Settings(home=home, backends=(settings.BackendSetting(name="x", provider="moon"),)))
    with pytest.raises(errors.BadRequest, match=r"“moon”.*not installed.*local"):
        backends.offered(at)
    at.close()


@pytest.mark.parametrize("url", ["http://hub.example", "hub.example", "ftp://hub.example"])
def test_a_public_address_is_https(home: Path, url: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="https://"):
        settings.Settings(home=home, public_url=url)


def test_an_unknown_setting_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    (home / "config.toml").write_text("idle_minuts = 3\n")
    monkeypatch.setenv("ANYBINDER_HOME", str(home))
    with pytest.raises(pydantic.ValidationError, match="idle_minuts"):
        settings.Settings()


def test_the_environment_wins_over_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    (home / "config.toml").write_text("idle_minutes = 3\nmax_hours = 2\n")
    monkeypatch.setenv("ANYBINDER_IDLE_MINUTES", "4")
    chosen = settings.Settings()
    assert (chosen.idle_minutes, chosen.max_hours) == (4, 2)


def test_a_state_folder_that_others_can_enter_is_closed(home: Path) -> None:
    home.mkdir(mode=0o755)
    settings.private_folder(home)
    assert home.stat().st_mode & 0o077 == 0
