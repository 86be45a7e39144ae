"""`gist`: small repositories of GitHub's that have no branches, only revisions."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from broker.repos import base, errors, forges, github, http, naming, remotes, urls
from broker.repos.asking import Asking
from providers.sentences import say

GIST = re.compile(r"[0-9a-f]{20,40}|[0-9]{1,20}", re.ASCII)
NEWEST = ("HEAD", "master", "main")
NOBODY = "anonymous"
"""Stands for the owner where an address names none; the API says who it is."""
HOSTS = ("gist.github.com", "gist.githubusercontent.com")
ACCEPT = "application/vnd.github+json"


class Gist(base.RepoProvider):
    """`owner/id`, and a revision behind it if not the newest."""

    prefix = "gist"
    one_home = True
    title = "GitHub Gist"
    url = "https://gist.github.com"
    repo_label = "Gist ID (username/gistId) or URL"
    repo_example = "example: https://gist.github.com/username/8a658f7f63b13768d1e75fa2464f5092"
    validate_regex = r"[^\/]+\/[^\/]+(\/[^\/]+)?"
    detect_regex = base.below("gist.github.com")

    def parse(self, spec: str) -> base.RepoSpec:
        parts = [urls.decoded(part) for part in spec.split("/", 2)]
        if len(parts) < 2 or not parts[1]:
            raise errors.BadSpec(
                say("“%(spec)s” names no gist. Write owner/id, as in the address of its page.", spec=spec[:80])
            )
        ref = urls.ref(parts[2]) if len(parts) == 3 else "HEAD"
        return base.RepoSpec(provider=self.prefix, repo=gist(parts[0], parts[1]), ref=revision(ref))

    def spec(self, spec: base.RepoSpec) -> str:
        return f"{spec.repo}/{base.quoted(spec.ref)}"

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        parts = own_segments(url)
        if parts is None:
            return None
        if parts and GIST.fullmatch(parts[0].removesuffix(".git")) and not (parts[1:] and GIST.fullmatch(parts[1])):
            parts = (NOBODY, *parts)
        if len(parts) < 2:
            raise errors.BadSpec(
                say("This page of GitHub Gist belongs to no gist. Open the gist and paste its address.")
            )
        owner, name, *page = parts
        return base.RepoSpec(provider=self.prefix, repo=gist(owner, name), **opened(page))

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        try:
            row, via = self.looked_up(spec, asking), "GitHub API"
            commit = self.commit(row, spec, asking)
        except (errors.RateLimited, errors.HostUnavailable) as refusal:
            row, via = self.remembered(spec, asking, refusal), forges.GIT
            commit = self.commit_by_git(spec, asking, refusal)
        owner = (row.get("owner") or {}).get("login") or spec.repo.partition("/")[0]
        return self.resolved(replace(spec, repo=gist(owner, spec.repo.partition("/")[2])), commit, via, asking)

    def looked_up(self, spec: base.RepoSpec, asking: Asking) -> dict[str, Any]:
        """What the API says of it. Raises RepoError, also for one that is secret."""
        answer = asking.http.ask_api(self.address(spec, asking), accept=ACCEPT, token=token(self, asking))
        if answer.status == 401:
            raise errors.HostUnavailable(
                say("GitHub no longer accepts this broker's token. Tell whoever runs it to renew it.")
            )
        if answer.status in (403, 404, 410, 422, 451):
            raise errors.NotFound(say("GitHub has no gist %(repo)s. Check its address.", repo=spec.repo))
        return self.read(answer)

    def read(self, answer: http.Answer) -> dict[str, Any]:
        try:
            row = json.loads(answer.body)
            public, _ = row["public"], row["history"][0]["version"]
        except (ValueError, TypeError, KeyError, IndexError):
            raise errors.HostUnavailable(
                say("GitHub's answer makes no sense (status %(status)s). Try again in a moment.", status=answer.status)
            ) from None
        if not public:  # its owner did not want it found; a launch would show it in logs and lists
            raise errors.NotAllowed(
                say("This gist is secret, and is not launched here. Ask its owner to make it public.")
            )
        return row

    def commit(self, row: dict[str, Any], spec: base.RepoSpec, asking: Asking) -> str:
        """The revision. The list holds the newest only, so one that is not in it is asked for by itself."""
        versions = [str(each.get("version")) for each in row["history"]]
        if spec.ref == "HEAD":
            return versions[0]
        found = [each for each in versions if remotes.SHORT.fullmatch(spec.ref) and each.startswith(spec.ref)]
        if spec.ref in versions or len(found) == 1:
            return spec.ref if spec.ref in versions else found[0]
        if remotes.COMMIT.fullmatch(spec.ref):
            address = f"{self.address(spec, asking)}/{spec.ref}"
            if asking.http.ask_api(address, accept=ACCEPT, token=token(self, asking)).status == 200:
                return spec.ref
        raise no_revision(spec)

    def remembered(self, spec: base.RepoSpec, asking: Asking, refusal: errors.RepoError) -> dict[str, Any]:
        """What the API said of it before. git alone cannot tell a secret gist from a public one, so none is opened blindly."""
        answer = asking.http.known(self.address(spec, asking), accept=ACCEPT, token=token(self, asking))
        if answer is None:
            raise refusal
        return self.read(answer)

    def commit_by_git(self, spec: base.RepoSpec, asking: Asking, refusal: errors.RepoError) -> str:
        address = self.clone_url(spec, asking)
        try:
            if remotes.COMMIT.fullmatch(spec.ref):
                return asking.remotes.commit(address, spec.ref)
            found = asking.remotes.refs(address, ["HEAD"]) if spec.ref == "HEAD" else {}
        except (errors.HostUnavailable, errors.TooBig):
            raise refusal from None
        if "HEAD" in found:
            return found["HEAD"]
        raise refusal

    def address(self, spec: base.RepoSpec, asking: Asking) -> str:
        api = asking.api(self) or base.providers["gh"].api_url(asking)
        return f"{api}/gists/{spec.repo.partition('/')[2]}"

    def clone_url(self, spec: base.RepoSpec, asking: Asking) -> str:
        return f"{asking.url(self)}/{spec.repo}.git"

    def resolved(self, spec: base.RepoSpec, commit: str, via: str, asking: Asking) -> base.Resolved:
        """All that follows from the revision."""
        return base.Resolved(
            spec=spec,
            commit=commit,
            repo_url=self.clone_url(spec, asking),
            web_url=f"{asking.url(self)}/{spec.repo}/{commit}",
            slug=naming.slug("gist-" + spec.repo.partition("/")[2]),
            ref=spec.ref,
            path=spec.path,
            spec_string=f"{self.prefix}/{spec.repo}/{commit}",
            via=via,
        )


def token(provider: Gist, asking: Asking) -> str:
    """Its own, or GitHub's where the API is GitHub's."""
    return asking.token(provider) or ("" if asking.api(provider) else asking.token(base.providers["gh"]))


def own_segments(url: urls.Url) -> tuple[str, ...] | None:
    """The segments as gist.github.com would have them; None if this is no address of a gist."""
    if url.host in HOSTS:
        return url.segments
    if url.host in github.MIRRORS and url.segments[:1] == ("gist",):
        return url.segments[1:]
    return None


def gist(owner: str, name: str) -> str:
    """`owner/id`, as GitHub spells such. Raises BadSpec."""
    name = name.removesuffix(".git").lower()
    if not github.OWNER.fullmatch(owner) or not GIST.fullmatch(name):
        raise errors.BadSpec(
            say(
                "“%(owner)s/%(name)s” cannot be a gist. Write owner/id, as in the address of its page.",
                owner=owner[:80],
                name=name[:80],
            )
        )
    return f"{owner}/{name}"


def revision(ref: str) -> str:
    """A gist has one branch, whatever links call it."""
    return "HEAD" if ref in NEWEST else remotes.lowered(ref)


def opened(page: list[str]) -> dict[str, Any]:
    """Revision and file of a page below the gist's own."""
    match page:
        case ["raw", sha, *rest] if remotes.COMMIT.fullmatch(sha.lower()):
            return {"path": urls.path("/".join(rest))}  # these digits are of the file, not of a revision
        case [sha, *_] if remotes.COMMIT.fullmatch(sha.lower()):
            return {"ref": sha.lower()}
        case [("raw" | "revisions" | "forks" | "stargazers"), *rest]:
            return {"path": urls.path("/".join(rest))}
        case [file]:
            return {"path": urls.path(file)}  # as nbviewer and Colab write it
    return {}


def no_revision(spec: base.RepoSpec) -> errors.RefNotFound:
    """The refusal that says what to write instead."""
    return errors.RefNotFound(
        f"The gist {spec.repo} has no revision “{spec.ref}”. Write all 40 digits of one, or none for the newest."
    )
