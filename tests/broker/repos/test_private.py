"""Private repositories: opened for who has a right to them, and for nobody else, not even by what is remembered.

Ada may read `o/secret`, Bob may not; both have a token that the host knows. All three kinds of host have the API and git.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from broker import repos
from broker.environments import unlocking
from broker.repos import credentials, errors
from tests.doubles.bitbucket_double import BitbucketDouble
from tests.doubles.git_server import GitServer, add_commit, make_repo
from tests.doubles.github_double import GitHubDouble
from tests.doubles.gitlab_double import GitLabDouble
from tests.waiting import until

ADA, BOB = "ghp_ada-may-read-this", "ghp_bob-may-not-read-it"
Make = Callable[..., repos.Resolver]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One host with a private repository, and what asks it."""

    prefix: str
    host: Any
    resolver: repos.Resolver
    commit: str
    root: Path

    def opener(self, secret: str | None, uses: list[repos.RepoSpec] | None = None) -> credentials.Opener:
        def open_with(spec: repos.RepoSpec) -> credentials.Credential | None:
            if uses is not None:
                uses.append(spec)
            return self.credential(secret) if secret else None

        return open_with

    def credential(self, secret: str) -> credentials.Credential:
        return credentials.Credential(
            prefix=self.prefix, connection_id=f"of {secret[4:7]}", origin=self.host.url, user="oauth2", secret=secret
        )

    def spec(self, ref: str = "HEAD") -> repos.RepoSpec:
        return repos.RepoSpec(provider=self.prefix, repo="o/secret", ref=ref)

    def resolve(self, secret: str | None, ref: str = "HEAD") -> repos.Resolved:
        return self.resolver.resolve(self.spec(ref), self.opener(secret))

    def refusal(self, secret: str | None, ref: str = "HEAD") -> str:
        with pytest.raises(errors.NotFound) as refused:
            self.resolve(secret, ref)
        return str(refused.value)


KINDS = {"gh": (GitHubDouble, "o/secret"), "gl": (GitLabDouble, "o/secret.git"), "bb": (BitbucketDouble, "o/secret")}


@pytest.fixture(params=["gh", "gl", "bb", "git"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, resolver: Make) -> Iterator[Scene]:
    prefix, root = request.param, tmp_path / "private"
    double, name = KINDS.get(prefix, (GitServer, "o/secret"))
    commit = make_repo(root, name, {"README.md": "nobody's business", "binder/resources.toml": "[required]\n"})
    with double(root) as host:
        host.private.add("o/secret")
        host.rights.update({ADA: {"o/secret"}, BOB: set()})
        chosen = {"url": host.url, **({"api": host.api} if prefix != "git" else {})}
        made = resolver(hosts={prefix: chosen})
        scene = Scene(prefix=prefix, host=host, resolver=made, commit=commit, root=root / name)
        if prefix == "git":
            spec = repos.RepoSpec(provider="git", repo=f"{host.url}/o/secret")
            scene = OfGit(prefix=prefix, host=host, resolver=made, commit=commit, root=root / name, at=spec)
        yield scene


@dataclass(frozen=True, kw_only=True)
class OfGit(Scene):
    """The same by the address of the repository."""

    at: repos.RepoSpec

    def spec(self, ref: str = "HEAD") -> repos.RepoSpec:
        return replace(self.at, ref=ref)


def test_who_has_a_right_gets_the_commit_and_the_files_and_nobody_else_learns_of_them(scene: Scene) -> None:
    found = scene.resolve(ADA)
    assert (found.commit, found.opened_with) == (scene.commit, "of ada")
    assert ADA not in found.repo_url + found.web_url + found.spec_string + repr(found)
    files = scene.resolver.read(found, ["README.md"], scene.opener(ADA))
    assert files == {"README.md": b"nobody's business"}
    for secret in (BOB, None):
        assert scene.commit not in scene.refusal(secret)
        with pytest.raises(errors.NotFound):
            scene.resolver.read(found, ["README.md"], scene.opener(secret))
    assert scene.resolve(ADA, "main").commit == scene.commit


def test_what_one_learned_is_not_remembered_for_another(scene: Scene) -> None:
    """Asked in every order, also within the seconds for which answers are kept."""
    private = [scene.refusal(BOB), scene.refusal(None)]
    for secret in (ADA, BOB, ADA, None, BOB):
        if secret == ADA:
            assert scene.resolve(ADA).commit == scene.commit
        else:
            assert scene.refusal(secret) in private
    assert len(scene.resolver._recent) == len(scene.resolver._read) == 0
    newer = add_commit(scene.root, {"README.md": "newer"})
    assert scene.resolve(ADA).commit == newer  # nor for herself: she may have lost the right meanwhile
    scene.host.rights[ADA].clear()
    scene.refusal(ADA)


def test_a_repository_that_is_not_there_and_one_that_is_private_are_told_in_the_same_words(scene: Scene) -> None:
    hidden = scene.refusal(BOB)
    nowhere = replace(scene.spec(), repo=scene.spec().repo.replace("o/secret", "o/nowhere"))
    with pytest.raises(errors.NotFound) as refused:
        scene.resolver.resolve(nowhere, scene.opener(BOB))
    absent = str(refused.value).replace("nowhere", "secret")
    assert hidden == absent
    # Nor does a reference, right or wrong, or a commit that somebody heard of, tell anything.
    for ref in ("main", "no-such-branch", scene.commit, "0" * 40, scene.commit[:8]):
        assert scene.refusal(BOB, ref).replace(ref, "") == hidden.replace(ref, "")
        assert scene.refusal(None, ref) in hidden


def test_at_one_time_each_gets_what_they_may(scene: Scene) -> None:
    """Twenty at once, while the host holds its answers back: flights are shared by those who ask for everybody only."""
    scene.host.gate.clear()
    with ThreadPoolExecutor(20) as pool:
        asked = [(secret, pool.submit(scene.resolve, secret)) for secret in (ADA, BOB) * 10]
        until(lambda: scene.host.requests, what="a first question")
        scene.host.gate.set()
        for secret, answer in asked:
            if secret == ADA:
                assert answer.result().commit == scene.commit
            else:
                assert isinstance(answer.exception(), errors.NotFound)


def test_public_repositories_are_looked_up_without_anybodys_right(scene: Scene) -> None:
    scene.host.private.clear()
    uses: list[repos.RepoSpec] = []
    found = scene.resolver.resolve(scene.spec(), scene.opener(ADA, uses))
    assert found.opened_with == "" and not uses and not scene.host.shown
    scene.resolver.read(found, ["README.md"], scene.opener(ADA, uses))
    assert not uses and not scene.host.shown


def test_a_right_is_shown_to_its_own_host_and_after_the_public_question(scene: Scene) -> None:
    scene.resolve(ADA)
    assert "Authorization" not in scene.host.headers[0]
    assert {secret for _, _, secret in scene.host.shown} == {ADA}
    assert all(ADA not in path for _, path in scene.host.requests)


def test_no_cookie_of_an_answer_to_one_person_goes_with_the_question_of_another(scene: Scene) -> None:
    scene.host.cookie = "session=of-ada"
    scene.resolve(ADA)
    scene.refusal(BOB)
    scene.refusal(None)
    with_cookies = [each["Authorization"] for each in scene.host.headers if "Cookie" in each]
    assert all("Bearer " + ADA in each for each in with_cookies)


def test_a_redirect_elsewhere_takes_no_right_along(scene: Scene, tmp_path: Path) -> None:
    """A host that sends on to another, before or after it was shown who asks: the other is shown nothing."""
    with GitServer(scene.root.parent.parent) as other:
        other.require = ("somebody", "else")  # it asks for a right
        scene.host.private.clear()
        scene.host.redirects.update({f"/{name}": f"{other.url}/{name}" for name in ("o", "api", "2.0")})
        with pytest.raises(errors.RepoError):
            scene.resolve(ADA)
        assert other.requests and not other.shown
    with GitServer(scene.root.parent.parent) as other:
        other.require = ("somebody", "else")
        scene.host.private.add("o/secret")
        with pytest.raises(errors.RepoError):
            scene.resolve(ADA)
        assert not other.shown


def test_a_token_that_is_no_longer_good_is_said_to_its_owner(scene: Scene) -> None:
    del scene.host.rights[ADA]
    with pytest.raises((errors.TokenRefused, errors.NotFound)) as refused:
        scene.resolve(ADA)
    assert ADA not in str(refused.value)
    if scene.prefix != "git":
        assert isinstance(refused.value, errors.TokenRefused)
        assert "again" in str(refused.value)


def test_while_git_works_the_secret_is_in_no_command_line_no_environment_and_no_file(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at while the host holds its answer back, and afterwards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    address = f"{scene.host.url}/{scene.root.parent.name}/{scene.root.name}"
    with ThreadPoolExecutor(1) as pool, scene.resolver.asking_with(scene.credential(ADA)) as asking:
        assert asking.remotes.refs(address, ["main"])
        assert scene.host.shown
        scene.host.gate.clear()
        seen = len(scene.host.requests)
        again = pool.submit(asking.remotes.refs, address, ["main"])
        until(lambda: len(scene.host.requests) > seen, what="git asking")
        children = psutil.Process().children(recursive=True)
        assert any("git" in child.name() for child in children)
        for child in children:
            told = Path(f"/proc/{child.pid}/cmdline").read_bytes() + Path(f"/proc/{child.pid}/environ").read_bytes()
            assert ADA.encode() not in told
        assert not [path for path in folder.rglob("*") if path.is_file() and ADA.encode() in path.read_bytes()]
        scene.host.gate.set()
        assert again.result()
    assert not list(folder.iterdir())


def test_the_helper_answers_for_its_own_host_only() -> None:
    key = unlocking.Key(origin="https://git.example:8443", user="ada", secret="the secret of ada")
    assert "the secret" not in repr(key)
    with unlocking.offered(key, "https://git.example:8443/o/secret") as offer:
        asked = {
            "protocol=https\nhost=git.example:8443\npath=o/secret.git\n": f"username=ada\npassword={key.secret}\n",
            "protocol=https\nhost=git.example:8443\npath=O/near\n": f"username=ada\npassword={key.secret}\n",
            "protocol=https\nhost=git.example:8443\npath=other/secret\n": "",
            "protocol=https\nhost=git.example:8443\npath=o2/secret\n": "",
            "protocol=https\nhost=git.example:8443\npath=o/../ada/secret\n": "",
            "protocol=https\nhost=git.example:8443\npath=o/%2e%2e/ada/secret\n": "",
            "protocol=https\nhost=git.example:8443\n": "",
            "protocol=http\nhost=git.example:8443\npath=o/secret\n": "",
            "protocol=https\nhost=git.example\npath=o/secret\n": "",
            "protocol=https\nhost=evil.example\npath=o/secret\n": "",
        }
        for question, answer in asked.items():
            assert unlocking.answer(offer.fds[0], question) == answer
        fd = offer.fds[0]
        words = ["git", *offer.options, "credential", "fill"]
        environment = {"PATH": os.environ["PATH"], "GIT_TERMINAL_PROMPT": "0", "HOME": "/nowhere"}
        for host, code in (("git.example:8443", 0), ("git.example", 128)):
            done = subprocess.run(
                words,
                input=f"protocol=https\nhost={host}\npath=o/secret\n\n".encode(),
                capture_output=True,
                pass_fds=offer.fds,
                env=environment,
                check=False,
            )
            assert done.returncode == code
            assert (key.secret.encode() in done.stdout) is (code == 0)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)


def test_a_gitlab_token_that_opens_git_only_is_enough(tmp_path: Path, resolver: Make) -> None:
    commit = make_repo(tmp_path / "private", "o/secret.git", {"README.md": "x"})
    with GitLabDouble(tmp_path / "private") as gitlab:
        gitlab.private.add("o/secret")
        gitlab.rights[ADA] = {"o/secret"}
        gitlab.scopes[ADA] = ["read_repository"]
        made = resolver(hosts={"gl": {"api": gitlab.api, "url": gitlab.url}})
        credential = credentials.Credential(
            prefix="gl", connection_id="c", origin=gitlab.url, user="oauth2", secret=ADA
        )
        found = made.resolve(made.parse(f"{gitlab.url}/o/secret/-/tree/main/notebooks"), lambda _: credential)
        assert (found.commit, found.via, found.ref, found.path) == (commit, "git ls-remote", "main", "notebooks")
