"""`gh`: GitHub, by its API, and by git where the API is busy or down."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from broker.repos import base, errors, forges, http, remotes, urls
from broker.repos.asking import Asking
from providers.sentences import say

OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)
SHA_TYPE = "application/vnd.github.sha"
"""Has GitHub answer with the 40 digits alone, and not with the list of all files changed."""
HOSTS = ("github.com", "www.github.com", "ssh.github.com")
MIRRORS = {"nbviewer.org": "github", "nbviewer.jupyter.org": "github", "colab.research.google.com": "github"}
"""Sites whose addresses carry one of GitHub's behind this first segment."""
RAW_HOST = "raw.githubusercontent.com"


class GitHub(forges.Forge):
    """Repositories on GitHub, or on the GitHub Enterprise that the settings name."""

    prefix = "gh"
    title = "GitHub"
    named = "GitHub"
    api = "https://api.github.com"
    url = "https://github.com"
    repo_label = "GitHub repository name or URL"
    repo_example = "example: yuvipanda/requirements or https://github.com/yuvipanda/requirements"
    validate_regex = r"[^\/]+\/[^\/]+\/.+"
    detect_regex = base.below("github.com")

    def parse(self, spec: str) -> base.RepoSpec:
        return forges.owned(self, spec, "owner/name", repository)

    def spec(self, spec: base.RepoSpec) -> str:
        return f"{spec.repo}/{base.quoted(spec.ref)}"

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        """The pages people launch from: of a branch, a file, a commit, a pull request, a release."""
        parts = own_segments(url)
        if parts is None:
            return None
        if len(parts) < 2:
            raise errors.BadSpec(
                say("This page of GitHub belongs to no repository. Open the repository and paste its address.")
            )
        owner, name, *page = parts
        return base.RepoSpec(provider=self.prefix, repo=repository(owner, name), **opened(page))

    def api_url(self, asking: Asking) -> str:
        chosen = asking.settings.repo_host(self.prefix)
        if chosen.api or not chosen.url:
            return asking.api(self)
        return f"{asking.url(self)}/api/v3"  # where GitHub Enterprise has it

    def web_url(self, spec: base.RepoSpec, commit: str, asking: Asking) -> str:
        return f"{self.clone_url(spec, asking)}/tree/{commit}"

    def commit_by_api(self, spec: base.RepoSpec, asking: Asking) -> str:
        answer = self.ask(f"repos/{spec.repo}/commits/{quote(spec.ref, safe='/')}", asking, accept=SHA_TYPE)
        commit = answer.body.decode("latin-1").strip()
        if answer.status == 200 and remotes.COMMIT.fullmatch(commit):
            return commit
        if answer.status == 422 and spec.ref.startswith("refs/"):
            return self.commit_by_git(spec, asking, self.no_ref(spec))
        raise self.refusal(answer, spec)

    def divide_by_api(self, spec: base.RepoSpec, asking: Asking) -> base.RepoSpec:
        text = f"{spec.ref}/{spec.path}"
        found = remotes.divided(self.matching_refs(spec, asking), text)
        if found is None:
            raise self.no_ref(spec)
        return replace(spec, ref=found[0], path=found[1], divided=True)

    def matching_refs(self, spec: base.RepoSpec, asking: Asking) -> dict[str, str]:
        """The branches and tags that begin like this one."""
        refs: dict[str, str] = {}
        for kind in ("heads", "tags"):
            address = f"repos/{spec.repo}/git/matching-refs/{kind}/{quote(spec.ref, safe='')}"
            answer = self.ask(address, asking, accept="application/vnd.github+json")
            if answer.status != 200:
                raise self.refusal(answer, spec)
            refs |= self.read(answer, lambda rows: {row["ref"]: row["object"]["sha"] for row in rows})
        return refs

    def refusal(self, answer: http.Answer, spec: base.RepoSpec) -> errors.RepoError:
        """What the API means by this status."""
        if answer.status == 422:
            return self.no_ref(spec)
        if answer.status == 409:
            return self.empty(spec)
        if answer.status in (401, 403, 404, 410, 451):
            return self.no_repository(spec)
        return self.senseless(answer)


def own_segments(url: urls.Url) -> tuple[str, ...] | None:
    """The segments as github.com would have them; None if this is no address of GitHub's."""
    if url.host in HOSTS:
        return url.segments
    if url.host == RAW_HOST and len(url.segments) > 3:
        return (*url.segments[:2], "blob", *url.segments[2:])
    if MIRRORS.get(url.host, "-") in url.segments[:1]:
        return url.segments[1:]
    return None


def opened(page: list[str]) -> dict[str, Any]:
    """Reference and path of a page below the repository's own. Pages without either open the default branch."""
    match page:
        case ["tree" | "blob" | "raw" | "blame" | "edit" | "commits", *rest] if rest:
            return remotes.undivided(rest)
        case ["commit", sha, *_] | ["pull", _, "commits", sha, *_]:
            return {"ref": urls.ref(sha.lower())}
        case ["pull", number, *_] if number.isdecimal():
            return {"ref": f"refs/pull/{number}/head"}
        case ["releases", "tag", *rest] if rest:
            return {"ref": urls.ref("tags/" + "/".join(rest))}
    return {}


def repository(owner: str, name: str) -> str:
    """`owner/name`, as GitHub spells such. Raises BadSpec."""
    name = name.removesuffix(".git")
    if not OWNER.fullmatch(owner) or not NAME.fullmatch(name) or name in (".", "..") or name.endswith(".git"):
        raise errors.BadSpec(
            say(
                "“%(owner)s/%(name)s” cannot be a repository on GitHub. Write owner/name.",
                owner=owner[:80],
                name=name[:80],
            )
        )
    return f"{owner}/{name}"
