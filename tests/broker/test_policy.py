"""Which repositories may run: BinderHub's rules, and its sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker import backends, errors, launches, people, settings, wishes
from broker.models import Launch
from broker.repos.errors import BadSpec
from providers import base
from tests.broker.conftest import Bench
from tests.doubles import git_repos
from tests.doubles.desk_cloud import DeskCloud


@pytest.fixture
def ruled(make_bench: Callable[..., Bench]) -> Callable[..., Bench]:
    """A bench whose backend, and whose kind of host, have these rules."""

    def make(host: dict[str, Any] | None = None, **place: Any) -> Bench:
        bench = make_bench(hosts={"git": host or {}})
        setting = settings.BackendSetting(name="desk", provider="fake", **place)
        bench.at.backends["desk"] = replace(bench.at.backends["desk"], setting=setting)
        return bench

    return make


def test_without_rules_everything_may_run(ruled: Callable[..., Bench]) -> None:
    assert ruled().request()


@pytest.mark.parametrize("pattern", [r".*demo", r"HTTP", r"^http%3A%2F%2F127"])
def test_a_banned_spec_is_refused_in_binderhubs_words(ruled: Callable[..., Bench], pattern: str) -> None:
    bench = ruled({"banned_specs": [pattern]})
    with pytest.raises(errors.SpecBanned) as caught:
        bench.request()
    assert str(caught.value).startswith("Sorry, http")
    assert str(caught.value).endswith(" is not allowed to launch. Please contact admins for more info!")
    assert caught.value.status_code == 403


def test_only_what_is_allowed_may_run_where_something_is(ruled: Callable[..., Bench]) -> None:
    with pytest.raises(errors.SpecBanned):
        ruled({"allowed_specs": ["somebody/.*"]}).request()
    assert ruled({"allowed_specs": ["somebody/.*", ".*demo.*"]}).request()


def test_banned_goes_before_allowed(ruled: Callable[..., Bench]) -> None:
    with pytest.raises(errors.SpecBanned):
        ruled({"allowed_specs": [".*"], "banned_specs": [".*demo"]}).request()


def test_a_backend_has_rules_of_its_own_and_sees_the_prefix(ruled: Callable[..., Bench]) -> None:
    with pytest.raises(errors.SpecBanned):
        ruled(allowed_specs=["gh/"]).request()
    assert ruled(allowed_specs=["git/"]).request()


def test_a_ban_of_a_commit_holds_whatever_name_leads_to_it(ruled: Callable[..., Bench]) -> None:
    commit = ruled().request().commit
    with pytest.raises(errors.SpecBanned):
        ruled({"banned_specs": [f".*/{commit}"]}).request(ref="main", name="again")


def test_more_sessions_of_one_repository_than_its_quota_are_refused(ruled: Callable[..., Bench]) -> None:
    bench = ruled({"per_repo_quota": 2})
    first = bench.request()
    bench.request()
    with pytest.raises(errors.RepoQuota, match=r"Too many users running http.*/demo! Try again soon\."):
        bench.request()
    launches.stop(bench.at, first.id)
    bench.until_stopped(first)
    assert bench.request()


@pytest.mark.parametrize(
    ("rules", "quota"),
    [
        ({"per_repo_quota": 1, "per_repo_quota_higher": 3, "high_quota_specs": [".*demo.*"]}, 3),
        ({"per_repo_quota": 1, "spec_config": [{"pattern": ".*demo", "config": {"quota": 2}}]}, 2),
        ({"per_repo_quota": 1, "spec_config": [{"pattern": "other", "config": {"quota": 9}}]}, 1),
    ],
)
def test_the_quota_depends_on_the_repository(ruled: Callable[..., Bench], rules: dict[str, Any], quota: int) -> None:
    bench = ruled(rules)
    for _ in range(quota):
        bench.request()
    with pytest.raises(errors.RepoQuota):
        bench.request()


def test_a_quota_of_none_at_all_is_zero(ruled: Callable[..., Bench]) -> None:
    bench = ruled({"per_repo_quota": 1, "spec_config": [{"pattern": ".*demo", "config": {"quota": 0}}]})
    assert [bench.request() for _ in range(3)]


def test_reconnecting_is_no_further_session(ruled: Callable[..., Bench]) -> None:
    bench = ruled({"per_repo_quota": 1})
    assert bench.request(name="a").id == bench.request(name="a").id


def test_the_same_chosen_id_is_the_same_launch(bench: Bench) -> None:
    chosen = "abcdefghijkl"
    launched = [bench.request(launch_id=chosen) for _ in range(3)]
    assert {one.id for one in launched} == {chosen}
    other = people.Person(id="somebody")
    with pytest.raises(errors.NotFound):
        launches.request(bench.at, other, wishes.Wish(repo=bench.repo, backend="desk", launch_id=chosen))


def test_visitors_nobody_knows_run_on_the_backend_named_for_them_only(make_bench: Callable[..., Bench]) -> None:
    wish = wishes.Wish(repo="o/r", backend="desk")
    bench = make_bench()
    with pytest.raises(errors.NoBackend, match="signed in"):
        launches.request(bench.at, people.ANONYMOUS, replace(wish, repo=bench.repo))
    open_bench = make_bench(binder_backend="desk")
    launch, _ = launches.request(open_bench.at, people.ANONYMOUS, replace(wish, repo=bench.repo, backend=None))
    assert launch.backend == "desk"
    with pytest.raises(errors.NotFound):
        launches.get(open_bench.at, people.ANONYMOUS, launch.id)
    assert launches.get(open_bench.at, people.bearer(launch.id), launch.id).id == launch.id
    assert launches.listed(open_bench.at, people.ANONYMOUS) == []


def test_nobody_unknown_runs_as_the_person_who_runs_the_broker(make_bench: Callable[..., Bench]) -> None:
    cloud = DeskCloud()
    cloud.on_this_computer = True
    bench = make_bench(cloud, binder_backend="desk")
    with pytest.raises(errors.NoBackend, match="stranger's code"):
        launches.request(bench.at, people.ANONYMOUS, wishes.Wish(repo=bench.repo))
    with bench.at.db.reading() as session:
        assert session.query(Launch).count() == 0


def test_a_drained_backend_takes_nothing_new(ruled: Callable[..., Bench]) -> None:
    bench = ruled(max_sessions=0)
    assert "no new sessions" in (backends.named(bench.at, "desk").closed_to(bench.at, people.LOCAL) or "")
    with pytest.raises(errors.NoBackend):
        bench.request()


def test_the_repository_says_how_much_it_needs(bench: Bench, tmp_path: Path) -> None:
    files = {".binder/resources.yaml": "required: {memory: 4G}\nrecommended: {cpu: 2}\n"}
    git_repos.make_repo(tmp_path / "repos", "needy", files)
    needy = bench.repo.replace("/demo", "/needy")
    launch = bench.request(repo=needy, memory_mb=1024)
    assert (launch.memory_mb, launch.cpu) == (4096, 2)
    assert "so it gets that instead of 1024" in bench.said(launch)[1]
    bench.advance(launch)
    assert bench.cloud.asked[-1] == base.Resources(memory_mb=4096, cpu=2, hours=launch.hours)


def test_a_resource_file_that_cannot_be_read_is_said_before_anything_runs(bench: Bench, tmp_path: Path) -> None:
    git_repos.make_repo(tmp_path / "repos", "needy", {"binder/resources.yaml": "required: {memory: lots}"})
    with pytest.raises(BadSpec, match=r"binder/resources.yaml .* “lots”"):
        bench.request(repo=bench.repo.replace("/demo", "/needy"))


def test_what_no_offer_has_is_said_with_its_size(bench: Bench) -> None:
    bench.cloud.menu = []
    launch = bench.until_stopped(bench.request(memory_mb=64_000, cpu=16))
    assert (
        launch.message == "Nothing there has 16 processors, 64000 MB of memory. Ask for less, or choose another place."
    )


def test_a_visitors_repository_does_not_choose_how_much_it_gets(
    make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    setting = settings.BackendSetting(name="desk", provider="fake", resources={"memory_mb": 1000}, most={"cpu": 2})
    bench = make_bench(binder_backend="desk")
    bench.at.backends["desk"] = replace(bench.at.backends["desk"], setting=setting)
    git_repos.make_repo(tmp_path / "repos", "greedy", {"binder/resources.yaml": "recommended: {memory: 64G, cpu: 64}"})
    greedy = wishes.Wish(repo=bench.repo.replace("/demo", "/greedy"))
    launch, _ = launches.request(bench.at, people.ANONYMOUS, greedy)
    assert (launch.memory_mb, launch.cpu) == (1000, 2)
    assert "A session there has at most 1000 MB of memory, so it gets that instead of 65536." in bench.said(launch)
    mine, _ = launches.request(bench.at, people.LOCAL, greedy)
    assert (mine.memory_mb, mine.cpu) == (65536, 2)


def test_a_repository_that_requires_more_than_there_is_is_told_so(ruled: Callable[..., Bench], tmp_path: Path) -> None:
    bench = ruled(most={"memory_mb": 2048})
    git_repos.make_repo(tmp_path / "repos", "large", {"binder/resources.yaml": "required: {memory: 4G}"})
    with pytest.raises(errors.NoBackend, match="requires 4096 MB of memory; a session there has at most 2048"):
        bench.request(repo=bench.repo.replace("/demo", "/large"))
