"""`git`: any repository that git can reach, by its address."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

from broker.repos import base, errors, forges, naming, remotes, urls
from broker.repos.asking import Asking
from providers.sentences import say

HALF_DECODED = re.compile(r"([a-z][a-z0-9+.-]*:/|[^/@\s]+@[^/:\s]+:)", re.IGNORECASE)
PAGES = (
    ("-", "tree"),  # GitLab
    ("-", "blob"),
    ("-", "raw"),
    ("-", "commits"),
    ("-", "commit"),
    ("-", "tags"),
    ("src", "branch"),  # Gitea, Forgejo, Codeberg
    ("src", "tag"),
    ("src", "commit"),
    ("raw", "branch"),
    ("raw", "tag"),
    ("raw", "commit"),
    ("releases", "tag"),
)
"""Of hosts anybody can run. What stands before these two segments is the repository, what follows a reference."""
SHORT_PAGES = ("tree", "blob", "commit")
"""The same in GitHub Enterprise, with one segment: where owner and repository stand before it."""
FIXED = ("tags", "tag")
TWO_SEGMENTS = ("github.com", "bitbucket.org", "codeberg.org", "gist.github.com")
"""Hosts on which every repository is `owner/name`."""


class Git(base.RepoProvider):
    """The last that is asked about a pasted address: it takes every one."""

    prefix = "git"
    title = "Git repository"
    repo_label = "Arbitrary git repository URL (http://git.example.com/repo)"
    repo_example = "example: http://git.example.com/repo"
    url_encode = True
    takes_every_address = True
    validate_regex = r"[^\/]+\/.+"

    def parse(self, spec: str) -> base.RepoSpec:
        address, ref, sure = halves(spec)
        found = self.detect(urls.split(urls.clean(address)))
        if not ref:
            return found
        return replace(found, ref=remotes.lowered(urls.ref(ref)), path="", divided=True, located=sure)

    def spec(self, spec: base.RepoSpec) -> str:
        return f"{quote(spec.repo, safe='')}/{quote(spec.ref, safe='')}"

    def detect(self, url: urls.Url) -> base.RepoSpec:
        if not url.scheme:
            raise errors.BadSpec(
                say("This is not the address of a repository. Paste the whole address, with https:// before it.")
            )
        if url.scheme not in (*remotes.PROTOCOLS, "file"):
            raise errors.NotAllowed(
                say(
                    "Repositories are not fetched by %(scheme)s://. Use the https address of this one.",
                    scheme=url.scheme,
                )
            )
        if not url.segments:
            raise errors.BadSpec(
                say("This is the address of a host, not of a repository. Open the repository, paste its address.")
            )
        if found := in_data_center(url):
            return base.RepoSpec(provider=self.prefix, **found)
        at, behind = where_the_page_begins(url.segments)
        page = opened(list(url.segments[behind:])) if at else {}
        return base.RepoSpec(provider=self.prefix, repo=url.address(at), **page)

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        if not spec.located:
            seconds = asking.settings.git_seconds
            return forges.first_that_exists(endings(spec), lambda each: self.look_up(each, asking), seconds)
        return self.look_up(spec, asking)

    def look_up(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        """The commit in a repository whose address is certain."""
        if remotes.COMMIT.fullmatch(spec.ref):
            return resolved(spec, asking.remotes.commit(spec.repo, spec.ref), "git fetch")
        names = [spec.ref] if spec.divided else remotes.openings(f"{spec.ref}/{spec.path}")
        refs = asking.remotes.refs(spec.repo, names)
        if not spec.divided:
            spec = divided(spec, refs)
        if commit := remotes.chosen(refs, spec.ref):
            return resolved(spec, commit, "git ls-remote")
        if remotes.COMMIT.fullmatch(spec.ref):
            return resolved(spec, asking.remotes.commit(spec.repo, spec.ref), "git fetch")
        raise no_ref(spec)


def halves(spec: str) -> tuple[str, str, bool]:
    """Address and reference, decoded, and whether it is certain where one ends.

    The address has no slash when encoded as BinderHub wants it. Links made by others encode half of it
    (`https%3A//host/o/r/main`), and proxies decode it whole: there only the host knows which segments are the repository.
    """
    first, _, rest = spec.partition("/")
    if not HALF_DECODED.fullmatch(urls.decoded(first) + "/") and not HALF_DECODED.match(first):
        return urls.decoded(first), urls.decoded(rest), True
    plain = urls.decoded(spec)
    plain = re.sub(
        r"^([A-Za-z][A-Za-z0-9+.-]*):/+",
        lambda found: f"{found[1]}:///" if found[1] == "file" else f"{found[1]}://",
        plain,
    )
    address, found, ref = plain.partition(".git/")
    if found:
        return f"{address}.git", ref, True
    scheme, _, place = plain.partition("://")
    host, *segments = place.split("/")
    if host.lower() in TWO_SEGMENTS:
        return f"{scheme}://{'/'.join([host, *segments[:2]])}", "/".join(segments[2:]), True
    address, _, ref = plain.rpartition("/")
    return address, ref, False


def endings(spec: base.RepoSpec) -> Iterator[base.RepoSpec]:
    """The repositories this may mean: the longest with a reference behind it first; last the whole, without one."""
    url = urls.split(spec.repo)
    for at in range(len(url.raw), 0, -1):
        ref = "/".join([*url.segments[at:], spec.ref])
        with contextlib.suppress(errors.BadSpec):
            yield replace(spec, repo=url.address(at), ref=urls.ref(ref), located=True)
    yield replace(spec, repo=f"{spec.repo}/{quote(spec.ref)}", ref="HEAD", located=True)


def where_the_page_begins(segments: tuple[str, ...]) -> tuple[int | None, int]:
    """How many segments are the repository (None: all), and from which on the page says what it shows."""
    for at in range(1, len(segments) - 2):
        if segments[at : at + 2] in PAGES:
            return at, at + 1
    if len(segments) > 3 and segments[2] in SHORT_PAGES:
        return 2, 2
    return None, 0


def opened(page: list[str]) -> dict[str, Any]:
    """Reference and path of a page of GitLab, Gitea or GitHub Enterprise."""
    kind, *rest = page
    if kind in FIXED:
        return {"ref": urls.ref("tags/" + "/".join(rest))}
    return remotes.undivided(rest) | ({"divided": True} if kind == "commit" else {})


def in_data_center(url: urls.Url) -> dict[str, Any] | None:
    """What a page of Bitbucket Data Center shows: `projects/KEY/repos/name/browse/path?at=…`. None for all others."""
    parts = url.segments
    at = next((at for at, part in enumerate(parts[:-3]) if part in ("projects", "users")), None)
    if at is None or parts[at + 2] != "repos" or url.scheme not in ("http", "https"):
        return None
    owner = parts[at + 1].lower() if parts[at] == "projects" else f"~{parts[at + 1].lower()}"
    above = "/".join([url.address(at).rstrip("/"), "scm", quote(owner, safe="~"), quote(parts[at + 3], safe="")])
    path = urls.path("/".join(parts[at + 5 :])) if parts[at + 4 : at + 5] == ("browse",) else ""
    ref = dict(url.query).get("at", "")
    return {"repo": f"{above}.git", "ref": urls.ref(ref), "path": path}


def divided(spec: base.RepoSpec, refs: dict[str, str]) -> base.RepoSpec:
    """The same, with the branch that exists. Raises RefNotFound."""
    found = remotes.divided(refs, f"{spec.ref}/{spec.path}")
    if found is None:
        raise no_ref(spec)
    return replace(spec, ref=found[0], path=found[1], divided=True)


def no_ref(spec: base.RepoSpec) -> errors.RefNotFound:
    """The refusal that says what to write instead."""
    if spec.ref == "HEAD":
        return errors.RefNotFound("The repository is empty, or has no default branch. Push a commit, or name a branch.")
    if remotes.SHORT.fullmatch(spec.ref):
        return errors.RefNotFound(
            f"“{spec.ref}” is no branch or tag here. If it is a commit, write all its 40 digits: "
            "git servers do not complete them."
        )
    return errors.RefNotFound(f"The repository has no branch or tag “{spec.ref}”. Check the name, or leave it empty.")


def resolved(spec: base.RepoSpec, commit: str, via: str) -> base.Resolved:
    """All that follows from the commit."""
    last = spec.repo.rstrip("/").removesuffix(".git").split("//", 1)[-1]
    return base.Resolved(
        spec=spec,
        commit=commit,
        repo_url=spec.repo,
        web_url=spec.repo,
        slug=naming.slug("-".join(unquote(last).split("/")[-2:])),
        ref=spec.ref,
        path=spec.path,
        spec_string=f"{spec.provider}/{quote(spec.repo, safe='')}/{commit}",
        via=via,
    )
