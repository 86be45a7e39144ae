"""What opens a person's private repositories: connecting it, checking it, and who gets it when a launch is fetched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from broker import bootstrap, connections, errors, instances, launches, people, repo_access, sessions, wishes
from broker import uses as table_of_uses
from broker.models import Connection, State
from broker.repos import errors as repo_errors
from tests.broker.conftest import AGENT, Bench
from tests.doubles.bitbucket_double import BitbucketDouble
from tests.doubles.git_repos import make_repo
from tests.doubles.github_double import GitHubDouble
from tests.doubles.gitlab_double import GitLabDouble
from tests.doubles.private_repos import REPO, connect_token, private_host

TOKEN = "github_pat_of-ada-and-nobody-else"
ADA, BOB = people.Person(id="ada"), people.Person(id="bob")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[GitHubDouble]:
    with private_host(tmp_path, TOKEN) as double:
        yield double


@pytest.fixture
def at(make_bench: Callable[..., Bench], host: GitHubDouble) -> Bench:
    return make_bench(hosts={"gh": {"api": host.api, "url": host.url}})


def ask(at: Bench, person: people.Person, repo: str = REPO, **wish: Any) -> Any:
    return launches.request(at.at, person, wishes.Wish(repo=repo, backend="desk", consent=True, **wish))[0]


def uses(at: Bench, person: people.Person = ADA) -> list[tuple[str, str | None, str]]:
    return [(use.what, use.launch_id, use.outcome) for use in reversed(table_of_uses.of(at.at, person))]


def starting(at: Bench) -> Any:
    """A launch of the private repository whose machine is there."""
    connect_token(at.at, ADA, TOKEN)
    launch = ask(at, ADA)
    launches.advance(at.at, launch.id)
    return launches.get(at.at, ADA, launch.id)


# --- looking up -----------------------------------------------------------------------------------------------------


def test_only_who_has_connected_an_account_with_the_right_launches_it(at: Bench, host: GitHubDouble) -> None:
    connection = connect_token(at.at, ADA, TOKEN)
    launch = ask(at, ADA)
    assert launch.repo_connection_id == connection.id
    assert uses(at) == [("look up", None, "")]
    with pytest.raises(repo_errors.NotFound, match=r"connect your own account at GitHub .* first"):
        ask(at, BOB)
    host.rights["github_pat_of-bob"] = set()
    connect_token(at.at, BOB, "github_pat_of-bob")
    with pytest.raises(repo_errors.NotFound, match="Your own account does not see it either"):
        ask(at, BOB)
    with pytest.raises(repo_errors.NotFound):
        repo_access.resolve(at.at, people.ANONYMOUS, at.at.repos.parse(REPO))


def test_a_public_repository_needs_nothing_and_uses_nothing(at: Bench, host: GitHubDouble) -> None:
    connect_token(at.at, ADA, TOKEN)
    assert ask(at, ADA, "o/open").repo_connection_id is None
    assert not uses(at) and not host.shown


def test_a_link_to_build_opens_nothing_with_anybodys_right(at: Bench, host: GitHubDouble) -> None:
    connect_token(at.at, ADA, TOKEN)
    with pytest.raises(repo_errors.NotFound):
        ask(at, ADA, asked_from="build")
    assert not host.shown


def test_a_visitor_has_no_way_to_connect(at: Bench) -> None:
    assert repo_access.kinds(at.at, people.ANONYMOUS, "gh") == ()
    with pytest.raises(errors.BrokerError):
        connect_token(at.at, people.ANONYMOUS, TOKEN)


def test_one_token_opens_the_same_host_by_its_address_too(at: Bench, host: GitHubDouble) -> None:
    connection = connect_token(at.at, ADA, TOKEN)
    spec = at.at.repos.parse(f"git/{host.url.replace('/', '%2F')}%2Fo%2Fsecret/main")
    assert (spec.provider, repo_access.prefix_of(at.at, spec)) == ("git", "gh")
    assert repo_access.resolve(at.at, ADA, spec).opened_with == connection.id
    elsewhere = at.at.repos.parse("https://git.elsewhere.example/o/secret")
    assert repo_access.prefix_of(at.at, elsewhere) == ""


def test_a_refused_token_is_said_and_remembered(at: Bench, host: GitHubDouble) -> None:
    connection = connect_token(at.at, ADA, TOKEN)
    host.rights.clear()
    with pytest.raises(repo_errors.TokenRefused, match="Connect your account there again"):
        ask(at, ADA)
    found = connections.get(at.at, ADA, connection.id)
    assert found.works is False
    assert "again" in found.trouble


# --- what is offered ------------------------------------------------------------------------------------------------


def test_every_host_says_the_least_that_is_enough_and_how_it_is_withdrawn(bench: Bench) -> None:
    assert list(repo_access.listed(bench.at)) == ["gh", "gl", "bb"]
    for prefix in repo_access.listed(bench.at):
        (kind,) = repo_access.kinds(bench.at, ADA, prefix)
        assert kind.secret is not None
        guide = repo_access.guide(bench.at, ADA, prefix, kind.name)
        assert guide.link.startswith("https://")
        assert len(guide.can) == 3
        assert "https://" in guide.revoke[0]
        assert "read" in kind.secret.help.lower()
    with pytest.raises(errors.NotFound):
        repo_access.guide(bench.at, ADA, "gh", "linked")


def test_a_host_of_the_operators_own_is_offered_by_its_name_unless_it_is_reached_in_the_clear(
    make_bench: Callable[..., Bench],
) -> None:
    own = make_bench(
        hosts={
            "gl": {"url": "https://git.uni.example", "api": "https://git.uni.example/api/v4"},
            "git": {"url": "https://forge.uni.example"},
            "bb": {"url": "http://bitbucket.uni.example"},
        }
    ).at
    titles = {"gh": "GitHub", "gl": "GitLab (git.uni.example)", "git": "Git (forge.uni.example)"}
    assert repo_access.listed(own) == titles
    assert repo_access.kinds(own, ADA, "bb") == ()
    assert repo_access.guide(own, ADA, "gl", "token").link.startswith("https://git.uni.example/-/user_settings/")
    assert [field.name for field in repo_access.kinds(own, ADA, "git")[0].fields] == ["user", "token"]


def test_the_account_that_the_identity_provider_keeps_comes_first(make_bench: Callable[..., Bench]) -> None:
    campus = {"name": "campus", "title": "Campus", "issuer": "https://id.uni.example", "client_id": "x"}
    at = make_bench(identities=[{**campus, "linked": {"gh": "github"}}]).at
    known = people.Person(id="ada", providers=frozenset({"campus"}))
    assert [kind.name for kind in repo_access.kinds(at, known, "gh")] == ["linked", "token"]
    assert [kind.name for kind in repo_access.kinds(at, known, "gl")] == ["token"]
    assert [kind.name for kind in repo_access.kinds(at, ADA, "gh")] == ["token"]
    assert "Campus keeps the token" in repo_access.guide(at, known, "gh", "linked").steps[0]


# --- checking -------------------------------------------------------------------------------------------------------


def test_checking_github_says_who_it_is_and_what_is_too_much(at: Bench, host: GitHubDouble) -> None:
    connection = connect_token(at.at, ADA, TOKEN)
    found = repo_access.check(at.at, ADA, connection.id)
    assert (found.works, found.who, found.trouble) == (True, "owner-of-git", "")
    assert found.ends_at is not None
    assert [row["name"] for row in found.findings] == ["Contents: Read-only"]
    host.scopes[TOKEN] = "repo, admin:org, read:user"
    broad = repo_access.check(at.at, ADA, connection.id)
    assert broad.works
    assert broad.findings[1]["name"] == "More than is needed: admin:org, repo"
    host.scopes[TOKEN] = "gist"
    narrow = repo_access.check(at.at, ADA, connection.id)
    assert narrow.works is False
    assert "repo" in narrow.trouble
    host.rights.clear()
    gone = repo_access.check(at.at, ADA, connection.id)
    assert (gone.works, gone.who) == (False, "")
    assert "Make a new one" in gone.trouble
    assert [what for what, _, _ in uses(at)] == ["check"] * 4
    with pytest.raises(errors.NotFound):
        repo_access.check(at.at, BOB, connection.id)


def test_checking_gitlab_and_bitbucket(tmp_path: Path, make_bench: Callable[..., Bench]) -> None:
    make_repo(tmp_path / "others", "o/secret.git", {"README.md": "x"})
    make_repo(tmp_path / "others", "o/secret", {"README.md": "x"})
    mine, api_token = "glpat-of-ada-alone", "ATATT-of-ada-alone"
    with GitLabDouble(tmp_path / "others") as gitlab, BitbucketDouble(tmp_path / "others") as bitbucket:
        for each in (gitlab, bitbucket):
            each.private.add("o/secret")
            each.rights.update({mine: {"o/secret"}, api_token: {"o/secret"}})
        at = make_bench(
            hosts={
                "gl": {"url": gitlab.url, "api": gitlab.api},
                "bb": {"url": bitbucket.url, "api": bitbucket.api},
            }
        ).at
        gl = connect_token(at, ADA, mine, "gl")
        for scopes, works, who in (
            (["read_repository", "read_user"], True, "owner-of-glp"),
            (["read_repository"], True, "Anybinder"),
            (["read_user"], False, "owner-of-glp"),
            (["api"], True, "owner-of-glp"),
        ):
            gitlab.scopes[mine] = scopes
            found = repo_access.check(at, ADA, gl.id)
            assert (found.works, found.who) == (works, who)
        assert "api" in found.findings[1]["name"]
        target, kinds = repo_access.target_of("bb"), repo_access.kinds(at, ADA, "bb")
        typed = {"email": "ada@uni.example", "token": api_token}
        bb = connections.connect(at, ADA, target, kinds, "token", typed)
        found = repo_access.check(at, ADA, bb.id)
        assert (found.works, found.who) == (True, "Ada")
        assert found.findings[1]["name"] == "More than is needed: write:repository:bitbucket"
        spec = at.repos.parse("bb/o/secret/main")
        assert repo_access.resolve(at, ADA, spec).opened_with == bb.id
        credential = repo_access.credential_for(at, ADA, spec)
        assert credential is not None
        assert (credential.user, credential.api_user) == ("x-bitbucket-api-token-auth", "ada@uni.example")
        of_repo = connections.connect(at, ADA, target, kinds, "token", {"token": mine})
        assert repo_access.resolve(at, ADA, spec).opened_with == of_repo.id
        assert repo_access.check(at, ADA, of_repo.id).who == "an access token"


# --- the one clone --------------------------------------------------------------------------------------------------


def test_the_agent_is_given_it_once_it_enrols_and_again_only_while_it_has_said_nothing(
    at: Bench, host: GitHubDouble
) -> None:
    launch = starting(at)
    answer = at.enrol(launch)
    assert answer["key"] == {"origin": host.url, "user": "x-access-token", "secret": TOKEN}
    assert len(answer["spec"]["private"]) == 32
    assert TOKEN not in json.dumps({name: value for name, value in answer.items() if name != "key"})
    assert at.enrol(launch)["key"] == answer["key"]  # the answer was lost
    at.report(launch, ("fetching", "Fetching"))
    assert "key" not in at.enrol(launch)
    assert [what for what, which, _ in uses(at) if which == launch.id] == ["clone", "clone"]
    with pytest.raises(errors.EnrolmentRefused):
        at.enrol(launch, agent="another agent" + AGENT)


def test_an_agent_whose_server_runs_is_given_nothing_though_it_never_said_a_line(at: Bench) -> None:
    launch = starting(at)
    at.enrol(launch)
    at.report(launch, server="up", kind="jupyter")
    assert "key" not in at.enrol(launch)


def test_it_is_in_no_column_but_its_sealed_one_and_in_no_event_or_boot_data(at: Bench, home: Path) -> None:
    launch = starting(at)
    at.enrol(launch)
    at.report(launch, ("fetching", "Fetching"), server="up", kind="jupyter")
    order = at.order(launch)
    assert TOKEN not in json.dumps(at.events(launch))
    assert TOKEN not in str(bootstrap.boot(at.at, order).config)
    for path in home.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    with at.at.db.reading() as session:
        rows = [str(row) for table in Connection.metadata.sorted_tables for row in session.execute(sa.select(table))]
    assert not [row for row in rows if TOKEN in row]


def test_a_launch_whose_right_cannot_be_had_ends_with_the_reason(at: Bench) -> None:
    launch = starting(at)
    with at.at.db.transaction() as session:
        session.execute(sa.update(Connection).values(secret=None))
    with pytest.raises(errors.EnrolmentRefused):
        at.enrol(launch)
    ended = at.until_stopped(launch)
    assert (ended.state, ended.reason) == (State.STOPPED, "repo_token")
    assert "again" in ended.message
    assert uses(at)[-1][2] == ended.message


def test_a_public_launch_is_given_nothing(at: Bench) -> None:
    connect_token(at.at, ADA, TOKEN)
    launch = ask(at, ADA, "o/open")
    launches.advance(at.at, launch.id)
    answer = at.enrol(launches.get(at.at, ADA, launch.id))
    assert "key" not in answer
    assert answer["spec"]["private"] == ""


def test_it_is_given_to_no_other_host_than_its_own(at: Bench) -> None:
    launch = starting(at)
    launch.repo_url = "https://evil.example/o/secret"
    with pytest.raises(repo_errors.TokenRefused):
        repo_access.for_clone(at.at, launch)


def test_still_needed_is_about_the_order_that_asks(at: Bench) -> None:
    launch = starting(at)
    assert repo_access.still_needed(at.order(launch))
    token = bootstrap.enrolment_token(at.at, at.order(launch).id)
    said = instances.Enrolment(order=at.order(launch).id, agent=AGENT, nonce="00")
    assert instances.enrol(at.at, token, said)["key"]["secret"] == TOKEN


def test_a_linked_account_without_a_token_is_said(make_bench: Callable[..., Bench], host: GitHubDouble) -> None:
    campus = {"name": "campus", "issuer": "https://id.uni.example", "client_id": "x", "linked": {"gh": "github"}}
    at = make_bench(identities=[campus], hosts={"gh": {"api": host.api, "url": host.url}})
    known = people.Person(id="ada", providers=frozenset({"campus"}))
    kinds = repo_access.kinds(at.at, known, "gh")
    connection = connections.connect(at.at, known, repo_access.target_of("gh"), kinds, "linked", {})
    with pytest.raises(repo_errors.TokenRefused, match="no token of yours for GitHub"):
        ask(at, known)
    checked = repo_access.check(at.at, known, connection.id)
    assert checked.works is False
    assert not host.shown


def test_after_disconnecting_the_secret_is_kept_until_what_was_begun_has_been_fetched(at: Bench) -> None:
    launch = starting(at)
    connection = connections.find(at.at, ADA.id, repo_access.target_of("gh"))
    assert connection is not None
    connections.disconnect(at.at, ADA, connection.id)
    with pytest.raises(repo_errors.NotFound):
        ask(at, ADA)  # nothing new
    assert at.enrol(launch)["key"]["secret"] == TOKEN
    at.report(launch, ("launching", "Starting"), server="up", kind="jupyter")
    sessions.tunnelled(at.at, launch.id)
    assert connections.erase_unneeded(at.at) == 0
    launches.advance(at.at, launch.id)
    assert launches.get(at.at, ADA, launch.id).state is State.READY
    assert connections.erase_unneeded(at.at) == 1
    with at.at.db.reading() as session:
        assert session.get_one(Connection, connection.id).secret is None
