"""`git`: any repository that git can reach, by its address."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

from broker.repos import base, errors, naming, remotes, urls
from broker.repos.asking import Asking

HALF_DECODED = re.compile(r"([a-z][a-z0-9+.-]*:/|[^/@\s]+@[^/:\s]+:)", re.IGNORECASE)
PAGES = (
    ("-", "tree"),  # GitLab
    ("-", "blob"),
    ("-", "commits"),
    ("-", "commit"),
    ("-", "tags"),
    ("src", "branch"),  # Gitea, Forgejo, Codeberg
    ("src", "tag"),
    ("src", "commit"),
)
"""Of hosts anybody can run. What stands before these two segments is the repository, what follows a reference."""
FIXED = ("commit", "tags", "tag")


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
        address, ref = halves(spec)
        found = self.detect(urls.split(urls.clean(address)))
        return replace(found, ref=remotes.lowered(urls.ref(ref)), path="", divided=True) if ref else found

    def spec(self, spec: base.RepoSpec) -> str:
        return f"{quote(spec.repo, safe='')}/{quote(spec.ref, safe='')}"

    def detect(self, url: urls.Url) -> base.RepoSpec:
        if url.scheme not in (*remotes.PROTOCOLS, "file"):
            raise errors.NotAllowed(
                f"Repositories are not fetched by {url.scheme}://. Use the https address of this one."
            )
        if not url.segments:
            raise errors.BadSpec(
                "This is the address of a host, not of a repository. Open the repository, paste its address."
            )
        at = where_the_page_begins(url.segments)
        page = opened(list(url.segments[at + 1 :])) if at else {}
        return base.RepoSpec(provider=self.prefix, repo=url.address(at), **page)

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
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


def halves(spec: str) -> tuple[str, str]:
    """Address and reference, decoded. The address has no slash when encoded as BinderHub wants it.

    Links made by others encode half of it (`https%3A//host/o/r/main`), and proxies decode it whole: there the last
    segment is the reference, or what follows `.git/`.
    """
    first, _, rest = spec.partition("/")
    if not HALF_DECODED.fullmatch(urls.decoded(first) + "/") and not HALF_DECODED.match(first):
        return urls.decoded(first), urls.decoded(rest)
    plain = urls.decoded(spec)
    plain = re.sub(
        r"^([A-Za-z][A-Za-z0-9+.-]*):/+",
        lambda found: f"{found[1]}:///" if found[1] == "file" else f"{found[1]}://",
        plain,
    )
    address, found, ref = plain.partition(".git/")
    if found:
        return f"{address}.git", ref
    address, _, ref = plain.rpartition("/")
    return address, ref


def where_the_page_begins(segments: tuple[str, ...]) -> int | None:
    """How many segments are the repository; None where the whole address is."""
    for at in range(1, len(segments) - 2):
        if segments[at : at + 2] in PAGES:
            return at
    return None


def opened(page: list[str]) -> dict[str, Any]:
    """Reference and path of a page of GitLab or Gitea."""
    kind, *rest = page
    if kind in FIXED and kind != "commit":
        return {"ref": urls.ref("tags/" + "/".join(rest))}
    first, path = remotes.lowered(urls.ref(rest[0])), urls.path("/".join(rest[1:]))
    sure = not path or first == "HEAD" or kind == "commit" or remotes.COMMIT.fullmatch(first) is not None
    return {"ref": first, "path": path, "divided": sure}


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
