"""Bringing what was asked for to this computer: a commit, by whatever way its server allows, or a list of files."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broker.environments import downloading, outward, programs, unlocking
from broker.environments.programs import Failed, tell

REFUSED = re.compile(r"authentication failed|returned error: 40[13]|could not read (username|password)", re.IGNORECASE)
ENTRIES = 1_000_000  # files of a repository; a tree of trees can claim any number


def fetch(spec: dict[str, Any], tree: Path) -> None:
    """The files in `tree`, as the spec says how they are got. Raises Failed."""
    kind = (spec.get("content") or {}).get("kind", "git")
    if kind == "image":
        raise Failed("This backend has no containers, so it cannot run an image. Choose one with containers.")
    if kind not in ("git", "files"):
        raise Failed(
            f"This backend does not know how to fetch {kind!r}. Choose another, or ask who runs it to update it."
        )
    with outward.only(inner_of(spec)):
        (downloading.fetch if kind == "files" else clone)(spec, tree)


def inner_of(spec: dict[str, Any]) -> list[str] | None:
    """What of private networks may be asked, for whoever asks from anywhere; None for all of it. A machine of the session's
    own has nothing to keep from it."""
    return spec.get("inner") if spec.get("engine") else None


def clone(spec: dict[str, Any], tree: Path) -> None:
    """The commit's files and nothing more in `tree`, submodules included. Raises Failed.

    A `key` is taken out of the spec, and gone when this ends: nothing that is run later can find it.
    """
    url, commit = spec["repo_url"], spec["commit"]
    check_url(url, allow_file=bool(spec.get("allow_file")))
    web_only = inner_of(spec) is not None
    if web_only and not url.lower().startswith(("http://", "https://")):
        raise Failed("Here repositories are only fetched by https. Use the https address of this one.")
    if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", commit):
        raise Failed(f"{commit} is not a commit.")
    tell("fetching", f"Fetching commit {commit[:12]} of {spec['title']}")
    limit, allow_file = int(spec["clone_megabytes"]) * 1_000_000, bool(spec.get("allow_file"))
    key = spec.pop("key", None)
    with unlocking.offered(key, url) as offer:
        git = Git(tree, limit=limit, allow_file=allow_file, web_only=web_only, offer=offer)
        tree.mkdir()
        git("init", "--quiet", "--template=")
        fetch_commit(git, url, commit)
        check_size(git, commit)
        git("checkout", "--quiet", "--detach", commit)
        git("remote", "add", "origin", re.sub(r"(\w+://)[^/@]+@", r"\1", url))
        if (tree / ".gitmodules").exists():
            fetch_submodules(git)


def check_url(url: str, *, allow_file: bool) -> None:
    """Raises Failed for any way to a repository but those that only fetch."""
    scheme = (
        url.partition("://")[0].lower() if "://" in url else "ssh" if re.match(r"[\w.-]+@[\w.-]+:", url) else "file"
    )
    if scheme not in ("http", "https", "git", "ssh", *(["file"] if allow_file else [])) or url.startswith("-"):
        raise Failed("The repository's address must begin with https, http, git or ssh.")


class Git:
    """Runs git on one working tree: no hooks, no prompts, no configuration of this computer, a limit on what it brings."""

    def __init__(
        self,
        tree: Path,
        *,
        limit: int,
        allow_file: bool,
        web_only: bool = False,
        offer: unlocking.Offer = unlocking.NOTHING,
    ) -> None:
        """`web_only`: no ssh, which would open for strangers what this computer's keys open, and which no proxy holds."""
        self.tree, self.limit, self.offer = tree, limit, offer
        self.env = {
            **programs.environment(),
            "HOME": str(tree.parent / "home"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
            "GIT_ALLOW_PROTOCOL": "http:https" + ("" if web_only else ":git:ssh") + (":file" if allow_file else ""),
            "GIT_LFS_SKIP_SMUDGE": "1",
            "LC_ALL": "C.UTF-8",
        }

    def __call__(self, *arguments: str) -> None:
        """Raises Failed, with git's last words."""
        status, last = self.attempt(*arguments)
        if status:
            raise Failed(f"The repository could not be fetched: {programs.last_words(last)}")

    def attempt(self, *arguments: str) -> tuple[int, list[str]]:
        offer = self.offer if arguments[0] in ("fetch", "submodule") else unlocking.NOTHING
        options = ("-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", "-c", "core.fsmonitor=false", *offer.options)
        show = programs.Sparse("fetching") if "--progress" in arguments else None
        argv = ["git", *options, *arguments]
        return programs.run(argv, env=self.env, cwd=self.tree, show=show, check=self._check, fds=offer.fds)

    def output(self, *arguments: str) -> Iterator[bytes]:
        """Its standard output in pieces."""
        import subprocess

        process = subprocess.Popen(["git", *arguments], env=self.env, cwd=self.tree, stdout=subprocess.PIPE)
        assert process.stdout is not None  # noqa: S101 -- for the type checker
        try:
            while piece := process.stdout.read(65536):
                yield piece
        finally:
            process.stdout.close()
            process.kill()
            process.wait()

    def _check(self) -> None:
        if folder_size(self.tree / ".git") > self.limit:
            raise Failed(f"The repository brings more than {self.limit // 1_000_000} MB.")


def fetch_commit(git: Git, url: str, commit: str) -> None:
    """The commit alone where the server hands it out; else all branches and tags; else all that it has."""
    alone = [("--depth", "1", "--no-tags", "--", url, commit)]
    all_branches = [("--", url, "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")]
    everything = [("--", url, "+refs/*:refs/anybinder/*")]
    last: list[str] = []
    for arguments in alone + all_branches + everything:
        status, said = git.attempt("fetch", "--progress", *arguments)
        last = said if status else last
        if git.attempt("cat-file", "-e", commit + "^{commit}")[0] == 0:
            return
        if git.offer is not unlocking.NOTHING and any(map(REFUSED.search, said)):
            raise Failed(
                "The host does not take your token for this repository. Connect your account there again, then launch."
            )
    raise Failed(
        f"Commit {commit[:12]} could not be fetched: {programs.last_words(last) or 'the server does not have it.'}"
    )


def fetch_submodules(git: Git) -> None:
    tell("fetching", "Fetching submodules")
    update = ("submodule", "update", "--init", "--recursive", "--progress")
    status, last = git.attempt(*update, "--depth", "1")
    if status:
        status, last = git.attempt(*update)
    if status:
        raise Failed(f"A submodule could not be fetched: {programs.last_words(last)}")


def check_size(git: Git, commit: str) -> None:
    """Raises Failed where checking it out would write more than the limit: a small pack can hold any amount."""
    size, entries, rest = 0, 0, b""
    for piece in git.output("ls-tree", "-r", "-l", "-z", commit):
        *whole, rest = (rest + piece).split(b"\0")
        entries += len(whole)
        for entry in whole:
            told = entry.partition(b"\t")[0].split()[-1]
            size += int(told) if told.isdigit() else 0
        if size > git.limit:
            raise Failed(f"The repository's files have more than {git.limit // 1_000_000} MB.")
        if entries > ENTRIES:
            raise Failed(f"The repository has more than {ENTRIES} files.")


def folder_size(folder: Path) -> int:
    """Bytes of all files below it; what goes meanwhile does not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 -- Path costs ten times as much here
    return total
