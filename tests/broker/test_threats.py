"""What is at stake, what is asked, and what an answer is good for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from broker import (
    app,
    backends,
    connections,
    consents,
    errors,
    launches,
    menus,
    people,
    repos,
    settings,
    threats,
    wishes,
)
from broker.models import Consent
from providers.fake.driver import KINDS
from tests.broker import guests
from tests.broker.conftest import Bench
from tests.doubles import git_repos
from tests.doubles.desk_cloud import DeskCloud

HERE = "http://localhost:8000"
ADA = "ada0000000000000"
FREE = threats.Situation(where="Campus")
PAID = replace(FREE, where="AWS", own_account=True)
AS_YOU = replace(FREE, where="this computer", confined=False)
EXPENSE = {threats.Threat.WASTE, threats.Threat.NETWORK}


# --- pure -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("situation", "stake"),
    [(FREE, set()), (PAID, EXPENSE), (AS_YOU, threats.EVERYTHING)],
    ids=["free", "paid", "as you"],
)
def test_what_is_at_stake(situation: threats.Situation, stake: set[threats.Threat]) -> None:
    assert threats.at_stake(situation) == stake


def test_each_of_the_six_is_judged_in_a_sentence_and_what_applies_has_a_switch() -> None:
    for confined, account, server, cost in product((True, False), (True, False), (True, False), ("", "at most $0.56")):
        one = threats.Situation(where="AWS", confined=confined, own_account=account, own_server=server, cost=cost)
        judged = threats.judged(one)
        assert [each.threat for each in judged] == list(threats.Threat)
        for each in judged:
            assert re.fullmatch(r"[A-Z].*\.", each.sentence)
            assert bool(each.switch) is each.applies


def test_what_it_can_cost_is_said() -> None:
    judged = threats.judged(replace(PAID, cost="at most $0.56"))
    assert any("at most $0.56" in each.sentence for each in judged if each.threat is threats.Threat.WASTE)


@pytest.mark.parametrize(
    ("situation", "linked", "asked"),
    [
        (FREE, True, False),
        (FREE, False, False),
        (PAID, True, True),
        (PAID, False, False),
        (replace(PAID, own_code=True), True, False),
        (AS_YOU, True, True),
        (AS_YOU, False, True),
        (replace(AS_YOU, own_code=True), False, True),
    ],
)
def test_it_is_asked_where_something_is_at_stake_and_never_where_nothing_is(
    situation: threats.Situation, linked: bool, asked: bool
) -> None:
    assert threats.must_ask(situation, linked=linked) is asked


def test_a_row_reads_back_what_was_written_and_minds_no_strange_word() -> None:
    for one in (FREE, PAID, AS_YOU):
        assert threats.read(threats.written(threats.at_stake(one))) == threats.at_stake(one)
    assert threats.read("waste moths") == {threats.Threat.WASTE}


# --- what is remembered -------------------------------------------------------------------------------------------------


class Lent(DeskCloud):
    """A cloud on the desk that people bring their own accounts to."""

    kinds = (KINDS["kept"],)


class AtHome(DeskCloud):
    """Machines that are this computer."""

    on_this_computer = True


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    made = make_bench(Lent(), identities=(guests.IDENTITY,), sign_in_idle_hours=24, resolve_cache_seconds=0)
    connections.connect(made.at, people.known(made.at, ADA), "backend:desk", Lent.kinds, "kept", {"key": "a-key"})
    return made


@pytest.fixture
def ada(bench: Bench) -> Iterator[TestClient]:
    with TestClient(app.create(bench.at), base_url=HERE, headers={"Origin": HERE, "Accept": "text/html"}) as client:
        client.cookies.set("anybinder-sign-in", guests.cookie(bench.at))
        yield client


def follow(bench: Bench, **wish: object) -> str:
    """Somebody else's link, launched by Ada; the commit."""
    wanted = wishes.Wish(**{"repo": bench.repo, "backend": "desk", "linked": True, **wish})
    return launches.request(bench.at, people.known(bench.at, ADA), wanted)[0].commit


def newer(tmp_path: Path) -> None:
    """Whoever wrote it goes on."""
    repo = tmp_path / "repos" / "demo"
    git_repos.add_commit(repo, {"more.md": "more"}, parent=git_repos.branch_tip(repo, "main"))


def test_a_strangers_link_is_asked_about_where_one_pays_oneself(bench: Bench) -> None:
    with pytest.raises(errors.ConsentNeeded):
        follow(bench)
    assert follow(bench, linked=False, name="typed")


def test_agreeing_is_good_for_that_commit(bench: Bench, tmp_path: Path) -> None:
    found = bench.at.repos.resolve(repos.RepoSpec.parse(bench.repo))
    with pytest.raises(errors.ConsentNeeded):
        follow(bench, consent="0" * 40)
    assert follow(bench, consent=found.commit) == found.commit
    assert follow(bench, name="again") == found.commit
    newer(tmp_path)
    with pytest.raises(errors.ConsentNeeded):
        follow(bench, name="newer")


def test_what_came_by_a_link_is_asked_about_at_each_commit_whatever_leads_to_it_later(
    bench: Bench, tmp_path: Path
) -> None:
    """“Launch again” on a page of ours is no word about what its author has written since."""
    commit = follow(bench, consent=True)
    assert follow(bench, linked=False, name="again") == commit
    newer(tmp_path)
    with pytest.raises(errors.ConsentNeeded):
        follow(bench, linked=False, name="newer")


def test_who_types_an_address_or_names_it_to_a_program_is_not_taken_for_having_followed_a_link(
    bench: Bench, tmp_path: Path
) -> None:
    follow(bench, consent=True, linked=False)
    newer(tmp_path)
    assert follow(bench, linked=False, name="newer")


def test_who_does_not_want_to_be_asked_again_is_not_for_this_repository(bench: Bench, tmp_path: Path) -> None:
    first = follow(bench, consent=True, lasting_consent=True)
    newer(tmp_path)
    assert follow(bench, name="newer") != first
    git_repos.make_repo(tmp_path / "repos", "other", {"README.md": "Other"})
    with pytest.raises(errors.ConsentNeeded):
        follow(bench, repo=bench.repo.replace("/demo", "/other"))


def test_more_at_stake_is_asked_about_again(bench: Bench) -> None:
    found = bench.at.repos.resolve(repos.RepoSpec.parse(bench.repo))
    ada = people.known(bench.at, ADA)
    consents.require(bench.at, ada, found, PAID, given=True, linked=True, lasting=True)
    consents.require(bench.at, ada, found, FREE, linked=True)
    with pytest.raises(errors.ConsentNeeded):
        consents.require(bench.at, ada, found, AS_YOU)
    consents.require(bench.at, ada, found, AS_YOU, given=found.commit)
    for less in (PAID, AS_YOU):
        assert consents.covered(bench.at, ada, found, less)


def test_what_runs_as_the_person_is_never_agreed_to_for_whatever_comes(bench: Bench) -> None:
    found = bench.at.repos.resolve(repos.RepoSpec.parse(bench.repo))
    ada = people.known(bench.at, ADA)
    consents.require(bench.at, ada, found, AS_YOU, given=True, lasting=True)
    consents.require(bench.at, ada, found, PAID, given=True, linked=True, lasting=True)
    later = replace(found, commit="f" * 40)
    assert consents.covered(bench.at, ada, later, PAID)
    assert not consents.covered(bench.at, ada, later, AS_YOU)
    with bench.at.db.transaction() as session:  # even if a row said so
        row = Consent(person=ADA, repo_url=found.repo_url, commit="*", at=bench.at.now())
        row.threats = threats.written(threats.EVERYTHING)
        session.merge(row)
    assert not consents.covered(bench.at, ada, later, AS_YOU)


# --- the page -----------------------------------------------------------------------------------------------------------


def test_the_page_says_what_could_happen_and_what_removes_it(bench: Bench, ada: TestClient) -> None:
    form = {"repo": bench.repo, "backend": "desk", "linked": "1"}
    ada.get("/")
    menus.fill(bench.at)
    page = ada.post("/launch", data=form)
    assert "Run this in your account?" in page.text
    assert "It can keep the machine busy that you pay for, until it ends: at most $7.00." in page.text
    assert "Set a shorter time limit or a budget" in page.text
    assert "No key, token or sign-in of yours is in the session" in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    commit = re.search(r'name="consent" value="(\w+)"', page.text)
    assert commit
    answer = ada.post("/launch", data={**form, "consent": commit[1], "lasting": "yes"}, follow_redirects=False)
    assert answer.status_code == 303
    with bench.at.db.reading() as session:
        kept = session.get(Consent, (ADA, launches.listed(bench.at, people.of(ADA))[0].repo_url, "*"))
        assert kept is not None and kept.threats == "network waste"


def test_where_nothing_is_at_stake_nobody_is_asked(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    made = app.create(bench.at)
    with TestClient(made, base_url=HERE, headers={"Origin": HERE}) as client:
        client.cookies.set("anybinder", made.state.door.cookie())
        form = {"repo": bench.repo, "backend": "desk", "linked": "1"}
        assert client.post("/launch", data=form, follow_redirects=False).status_code == 303


@pytest.mark.parametrize(
    ("site", "linked"), [("same-origin", False), ("cross-site", True), ("none", True), (None, True)]
)
def test_a_form_that_no_page_of_ours_filled_in_is_somebody_elses(
    bench: Bench, ada: TestClient, site: str | None, linked: bool
) -> None:
    told = {"sec-fetch-site": site} if site else {}
    page = ada.get("/", params={"repo": bench.repo}, headers=told).text
    assert ('name="linked" value="1"' in page) is linked
    assert 'name="linked"' not in ada.get("/", headers=told).text
    if linked:  # what leads on from it, and back, says so as well
        assert "linked=1" in page or "linked%3D1" in page


def test_a_launch_link_is_somebody_elses_whoever_follows_it(bench: Bench, ada: TestClient) -> None:
    spec = bench.at.repos.resolve(repos.RepoSpec.parse(bench.repo)).spec_string
    page = ada.get(f"/v2/{spec}", headers={"sec-fetch-site": "same-origin"}).text
    assert 'name="linked" value="1"' in page


def test_a_place_to_go_on_to_where_more_is_at_stake_is_named(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    setting = settings.BackendSetting(name="home", provider="fake")
    bench.at.backends["home"] = backends.Backend(name="home", title="Home", provider=AtHome(), setting=setting)
    made = app.create(bench.at)
    with TestClient(made, base_url=HERE, headers={"Origin": HERE}) as client:
        client.cookies.set("anybinder", made.state.door.cookie())
        page = client.post("/launch", data={"repo": bench.repo, "backend": "desk", "elsewhere": "home"}).text
    assert "Should it go on to this computer" in page
    assert "It can read your files on this computer and send them anywhere." in page
    assert 'name="lasting"' not in page
