"""`gh`: GitHub, by its API, and by git where the API is busy or down."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from broker.repos import base, errors, http, naming, remotes, urls
from broker.repos.asking import Asking

OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)
SHA_TYPE = "application/vnd.github.sha"
"""Has GitHub answer with the 40 digits alone, and not with the list of all files changed."""
HOSTS = ("github.com", "www.github.com", "ssh.github.com")
MIRRORS = {"nbviewer.org": "github", "nbviewer.jupyter.org": "github", "colab.research.google.com": "github"}
"""Sites whose addresses carry one of GitHub's behind this first segment."""
RAW_HOST = "raw.githubusercontent.com"
GIT = "git ls-remote"
API = "GitHub API"


class GitHub(base.RepoProvider):
    """Repositories on GitHub, or on the GitHub Enterprise that the settings name."""

    prefix = "gh"
    title = "GitHub"
    api = "https://api.github.com"
    url = "https://github.com"
    repo_label = "GitHub repository name or URL"
    repo_example = "example: yuvipanda/requirements or https://github.com/yuvipanda/requirements"
    validate_regex = r"[^\/]+\/[^\/]+\/.+"
    detect_regex = r"^(https?:\/\/github.com\/)(?<repo>[^\/]+\/[^\/]+)\/?$"

    def parse(self, spec: str) -> base.RepoSpec:
        parts = spec.split("/", 2)
        if len(parts) < 2 or not parts[1]:
            raise errors.BadSpec(
                f"“{spec[:80]}” names no repository. Write owner/name, and /branch behind it if you like."
            )
        ref = urls.ref(urls.decoded(parts[2])) if len(parts) == 3 else "HEAD"
        return base.RepoSpec(
            provider=self.prefix, repo=repository(*map(urls.decoded, parts[:2])), ref=remotes.lowered(ref)
        )

    def spec(self, spec: base.RepoSpec) -> str:
        return f"{spec.repo}/{base.quoted(spec.ref)}"

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        """The pages people launch from: of a branch, a file, a commit, a pull request, a release."""
        parts = own_segments(url)
        if parts is None:
            return None
        if len(parts) < 2:
            raise errors.BadSpec(
                "This page of GitHub belongs to no repository. Open the repository and paste its address."
            )
        owner, name, *page = parts
        return base.RepoSpec(provider=self.prefix, repo=repository(owner, name), **opened(page))

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        if not spec.divided:
            spec, commit = divide(spec, asking)
            if commit:
                return resolved(spec, commit, GIT, asking)
        try:
            return resolved(spec, commit_by_api(spec, asking), API, asking)
        except (errors.RateLimited, errors.HostUnavailable) as refusal:
            return resolved(spec, commit_by_git(spec, asking, refusal), GIT, asking)


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
            return undivided(rest)
        case ["commit", sha, *_] | ["pull", _, "commits", sha, *_]:
            return {"ref": urls.ref(sha.lower())}
        case ["pull", number, *_] if number.isdecimal():
            return {"ref": f"refs/pull/{number}/head"}
        case ["releases", "tag", *rest] if rest:
            return {"ref": urls.ref("tags/" + "/".join(rest))}
    return {}


def undivided(rest: list[str]) -> dict[str, Any]:
    """Where one segment is left, or a commit leads, no question is open."""
    first = urls.ref(rest[0])
    path = urls.path("/".join(rest[1:]))
    sure = not path or first == "HEAD" or remotes.COMMIT.fullmatch(first) is not None
    return {"ref": first, "path": path, "divided": sure}


def repository(owner: str, name: str) -> str:
    """`owner/name`, as GitHub spells such. Raises BadSpec."""
    name = name.removesuffix(".git")
    if not OWNER.fullmatch(owner) or not NAME.fullmatch(name) or name in ("", ".", ".."):
        raise errors.BadSpec(f"“{owner[:80]}/{name[:80]}” cannot be a repository on GitHub. Write owner/name.")
    return f"{owner}/{name}"


def commit_by_api(spec: base.RepoSpec, asking: Asking) -> str:
    """The commit, at the cost of one question at most. Raises RepoError."""
    answer = ask(f"repos/{spec.repo}/commits/{quote(spec.ref, safe='/')}", SHA_TYPE, asking)
    commit = answer.body.decode("latin-1").strip()
    if answer.status == 200 and remotes.COMMIT.fullmatch(commit):
        return commit
    if answer.status == 422 and spec.ref.startswith("refs/"):
        return commit_by_git(spec, asking, no_ref(spec))
    raise refusal(answer, spec)


def refusal(answer: http.Answer, spec: base.RepoSpec) -> errors.RepoError:
    """What the API means by this status."""
    if answer.status == 422:
        return no_ref(spec)
    if answer.status == 409:
        return errors.RefNotFound(f"The repository {spec.repo} is empty. Push a first commit, then launch it.")
    if answer.status in (403, 404, 410, 451):
        return no_repository(spec)
    return errors.HostUnavailable(f"GitHub's answer makes no sense (status {answer.status}). Try again in a moment.")


def commit_by_git(spec: base.RepoSpec, asking: Asking, refusal: errors.RepoError) -> str:
    """Raises this refusal where git knows no more than the API would say."""
    url = clone_url(spec, asking)
    try:
        if remotes.COMMIT.fullmatch(spec.ref):
            return asking.remotes.commit(url, spec.ref)
        commit = remotes.chosen(asking.remotes.refs(url, [spec.ref]), spec.ref)
    except errors.RefNotFound:
        raise
    except errors.NotFound:
        raise no_repository(spec) from None
    except (errors.HostUnavailable, errors.TooBig):
        raise refusal from None
    if commit:
        return commit
    raise refusal if remotes.SHORT.fullmatch(spec.ref) else no_ref(spec)


def divide(spec: base.RepoSpec, asking: Asking) -> tuple[base.RepoSpec, str | None]:
    """Where the branch's name ends, and its commit where that came to light as well. git knows, at no cost of quota."""
    text = f"{spec.ref}/{spec.path}"
    try:
        refs = asking.remotes.refs(clone_url(spec, asking), remotes.openings(text))
        by_git = True
    except (errors.NotFound, errors.HostUnavailable, errors.TooBig):
        refs, by_git = matching_refs(spec, asking), False
    found = remotes.divided(refs, text)
    if found is None:
        raise no_ref(spec)
    ref, path = found
    return replace(spec, ref=ref, path=path, divided=True), remotes.chosen(refs, ref) if by_git else None


def matching_refs(spec: base.RepoSpec, asking: Asking) -> dict[str, str]:
    """The branches and tags that begin like this one, for repositories that only the token can see."""
    refs: dict[str, str] = {}
    for kind in ("heads", "tags"):
        address = f"repos/{spec.repo}/git/matching-refs/{kind}/{quote(spec.ref, safe='')}"
        answer = ask(address, "application/vnd.github+json", asking)
        if answer.status != 200:
            raise refusal(answer, spec)
        try:
            refs |= {row["ref"]: row["object"]["sha"] for row in json.loads(answer.body)}
        except (ValueError, TypeError, KeyError):
            raise errors.HostUnavailable("GitHub's answer makes no sense. Try again in a moment.") from None
    return refs


def ask(address: str, accept: str, asking: Asking) -> http.Answer:
    """One question to the API, with the token if there is one."""
    host = base.providers[GitHub.prefix]
    answer = asking.http.ask_api(f"{asking.api(host)}/{address}", accept=accept, token=asking.token(host))
    if answer.status == 401:
        raise errors.HostUnavailable("GitHub no longer accepts this broker's token. Tell whoever runs it to renew it.")
    return answer


def no_repository(spec: base.RepoSpec) -> errors.NotFound:
    """GitHub does not say whether it is private or not there, so neither do we."""
    return errors.NotFound(f"GitHub has no public repository {spec.repo}. Check the name, and that it is not private.")


def no_ref(spec: base.RepoSpec) -> errors.RefNotFound:
    """The refusal for a repository that is there without what was asked for."""
    return errors.RefNotFound(f"{spec.repo} has no branch, tag or commit “{spec.ref}”. Check the name on GitHub.")


def clone_url(spec: base.RepoSpec, asking: Asking) -> str:
    """Where git finds it; also the address of its page."""
    return f"{asking.url(base.providers[GitHub.prefix])}/{spec.repo}"


def resolved(spec: base.RepoSpec, commit: str, via: str, asking: Asking) -> base.Resolved:
    """All that follows from the commit."""
    url = clone_url(spec, asking)
    return base.Resolved(
        spec=spec,
        commit=commit,
        repo_url=url,
        web_url=f"{url}/tree/{commit}",
        slug=naming.slug(spec.repo),
        ref=spec.ref,
        path=spec.path,
        spec_string=f"{spec.provider}/{spec.repo}/{commit}",
        via=via,
    )
