"""Links whose repository, branch or commit is gone: what is said of them, and what can be opened instead."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from broker import app, lapsed, launches, people, settings, wishes
from broker.web import builder
from tests.broker.conftest import Bench
from tests.doubles import git_repos
from tests.doubles.data_hosts import SwhDouble

HERE = "http://localhost:8000"
OWN = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}
NEVER = "0123456789abcdef0123456789abcdef01234567"
ADA = people.Person(id="ada")


@pytest.fixture
def swh() -> Iterator[SwhDouble]:
    """Software Heritage, which has archived nothing yet."""
    with SwhDouble() as double:
        yield double


@pytest.fixture
def bench(make_bench: Callable[..., Bench], swh: SwhDouble) -> Bench:
    """A hub that remembers no look-up, and lets visitors in."""
    hosts = {"swh": settings.HostSetting(api=swh.api, url=swh.url)}
    return make_bench(hosts=hosts, resolve_cache_seconds=0, binder_backend="desk")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The repository itself."""
    return tmp_path / "repos" / "demo"


def launched(bench: Bench, ref: str = "main", person: people.Person = people.LOCAL) -> str:
    """The commit of a launch that somebody asks for now."""
    wish = wishes.Wish(repo=bench.repo, ref=ref, backend="desk")
    return launches.request(bench.at, person, wish)[0].commit


def rewrite(bare: Path, branch: str = "main") -> str:
    """The newest commit, once the history of this branch was written anew and what went before thrown away."""
    git_repos.git(bare, "update-ref", "-d", f"refs/heads/{branch}")
    newest = git_repos.add_commit(bare, {"README.md": "Anew"}, branch="main")
    git_repos.git(bare, "gc", "--quiet", "--prune=now")
    return newest


def look(bench: Bench, ref: str, person: people.Person = people.LOCAL) -> lapsed.Lapsed:
    found = lapsed.look(bench.at, person, bench.repo, ref)
    assert found is not None
    return found


def told(bench: Bench, ref: str, *, signed_in: bool = True, **typed: str) -> tuple[str, dict[str, str]]:
    """What scripts are told: the sentence, and where each way leads."""
    with browser(bench, signed_in=signed_in) as client:
        answer = client.get("/link/instead", params={"repo": bench.repo, "ref": ref, **typed}).json()
    return answer["sentence"], {way["title"]: way["link"] for way in answer["ways"]}


def browser(bench: Bench, *, signed_in: bool = True) -> TestClient:
    made = TestClient(app.create(bench.at), base_url=HERE, headers={"accept": "text/html"}, follow_redirects=False)
    if signed_in:
        made.cookies.set("anybinder", made.app.state.door.cookie())  # type: ignore[attr-defined]
    return made


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", ["main", "HEAD", ""])
def test_what_is_there_has_not_lapsed(bench: Bench, ref: str) -> None:
    assert lapsed.look(bench.at, people.LOCAL, bench.repo, ref) is None
    assert told(bench, ref) == ("", {})


def test_a_host_that_is_away_says_nothing_of_the_link(bench: Bench) -> None:
    assert lapsed.look(bench.at, people.LOCAL, "http://127.0.0.1:1/o/r") is None
    assert lapsed.look(bench.at, people.LOCAL, "no repository") is None


def test_a_commit_that_was_thrown_away(bench: Bench, bare: Path) -> None:
    old = launched(bench)
    newest = rewrite(bare)
    found = look(bench, old)
    assert (found.pinned, found.gone) == (True, False)
    assert found.meant is not None
    assert found.meant.commit == old
    assert found.last is None
    assert found.newest is not None
    assert found.newest.commit == newest
    sentence, ways = told(bench, old, path="a.ipynb", memory="2G")
    assert f"This hub opened commit {old[:7]}" in sentence
    assert "on 21 November 2026" in sentence
    (link,) = ways.values()
    assert link.startswith("/v2/git/")
    assert f"{newest}?labpath=a.ipynb&memory=2G&choose=1" in link


def test_the_last_launch_is_offered_while_it_is_there(bench: Bench, bare: Path) -> None:
    kept = launched(bench)
    git_repos.add_commit(bare, {"README.md": "Two"})
    bench.clock.move(hours=1)
    later = launched(bench)
    assert later != kept
    found = look(bench, NEVER)
    assert found.last is not None
    assert (found.last.commit, found.meant) == (later, None)
    assert list(told(bench, NEVER)[1]) == [f"Open commit {later[:7]}"]


def test_a_branch_that_was_deleted_is_what_it_was_when_it_was_last_opened(bench: Bench, bare: Path) -> None:
    git_repos.add_commit(bare, {"README.md": "Draft"}, branch="draft", parent=git_repos.branch_tip(bare, "main"))
    commit = launched(bench, "draft")
    git_repos.git(bare, "update-ref", "refs/heads/kept", commit)
    git_repos.git(bare, "update-ref", "-d", "refs/heads/draft")
    sentence, ways = told(bench, "draft")
    assert f"it was commit {commit[:7]}" in sentence
    assert list(ways) == [
        f"Open commit {commit[:7]}",
        f"Open the newest commit, {git_repos.branch_tip(bare, 'main')[:7]}",
    ]  # type: ignore[index]


def test_software_heritage_has_the_same_files(bench: Bench, bare: Path, swh: SwhDouble) -> None:
    old = launched(bench)
    rewrite(bare)
    swh.directory("d" * 40, b"")
    swh.revision(old, "d" * 40)
    ways = told(bench, old)[1]
    assert ways[f"Open commit {old[:7]} from Software Heritage"] == f"/v2/swh/swh:1:rev:{old}?choose=1"
    assert len(ways) == 2


def test_a_repository_that_is_gone_is_opened_from_the_archive(bench: Bench, bare: Path, swh: SwhDouble) -> None:
    commit = launched(bench)
    shutil.rmtree(bare)
    swh.directory("d" * 40, b"")
    swh.revision(commit, "d" * 40)
    sentence, ways = told(bench, "")
    assert "Since then it was removed, renamed, or made private" in sentence or "is not there" in sentence
    assert list(ways) == [f"Open commit {commit[:7]} from Software Heritage"]


def test_a_repository_that_nobody_ever_saw(bench: Bench, bare: Path) -> None:
    shutil.rmtree(bare)
    sentence, ways = told(bench, "main")
    assert "is not there" in sentence
    assert ways == {}


# --- whose launches are told ------------------------------------------------------------------------------------------


def test_nobody_is_told_what_others_launched(bench: Bench) -> None:
    commit = launched(bench)
    for other in (ADA, people.ANONYMOUS):
        found = look(bench, NEVER, other)
        assert (found.last, found.meant) == (None, None)
    assert look(bench, NEVER).last is not None
    assert commit[:7] not in told(bench, NEVER, signed_in=False)[0]


def test_what_visitors_launched_is_told_to_all(bench: Bench) -> None:
    commit = launched(bench, person=people.ANONYMOUS)
    found = look(bench, NEVER, ADA)
    assert found.last is not None
    assert found.last.commit == commit


def test_another_repository_whose_name_begins_alike_is_not_meant(bench: Bench, tmp_path: Path) -> None:
    git_repos.make_repo(tmp_path / "repos", "demo-two", {"README.md": "x"})
    launches.request(bench.at, people.LOCAL, wishes.Wish(repo=f"{bench.repo}-two", backend="desk"))
    assert look(bench, NEVER).last is None


def test_a_visitor_has_only_so_much_looked_up(bench: Bench) -> None:
    with browser(bench, signed_in=False) as client:
        asked = {"repo": bench.repo, "ref": NEVER}
        for _ in range(builder.LOOKS):
            assert client.get("/link/instead", params=asked).json()["sentence"]
        assert client.get("/link/instead", params=asked).json() == {"sentence": "", "ways": []}


# --- pages ------------------------------------------------------------------------------------------------------------


def test_the_form_says_so_after_it_was_sent(bench: Bench, bare: Path) -> None:
    old = launched(bench)
    newest = rewrite(bare)
    with browser(bench) as client:
        answer = client.post("/launch", data={"repo": bench.repo, "ref": old, "backend": "desk"}, headers=OWN)
    assert answer.status_code == 404
    assert f"This hub opened commit {old[:7]}" in answer.text
    assert f"Open the newest commit, {newest[:7]}" in answer.text


def test_the_page_of_a_link_says_so_without_a_script(bench: Bench, bare: Path) -> None:
    old = launched(bench, person=people.ANONYMOUS)
    newest = rewrite(bare)
    with browser(bench, signed_in=False) as client:
        address = f"/v2/git/{bench.repo.replace(':', '%3A').replace('/', '%2F')}/{old}?labpath=a.ipynb"
        token = re.search(r'name="build_token" value="([^"]+)"', client.get(address).text)
        assert token is not None
        answer = client.post(address, data={"build_token": token[1]}, headers=OWN)
    assert f"This hub opened commit {old[:7]}" in answer.text
    links = [html.unescape(each) for each in re.findall(r'<li><a href="(/v2/[^"]+)"', answer.text)]
    assert [link.partition("/v2/")[2].endswith(f"{newest}?labpath=a.ipynb") for link in links] == [True]


def test_the_builder_says_so(bench: Bench, bare: Path) -> None:
    old = launched(bench)
    rewrite(bare)
    with browser(bench) as client:
        page = client.get("/link", params={"repo": bench.repo, "ref": old}).text
    assert "opens nothing at the moment" in page
    assert f"This hub opened commit {old[:7]}" in page
