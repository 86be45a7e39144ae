"""Hosts with an API that names commits: it is asked first, and git beside it where it is busy or down."""

from __future__ import annotations

import json
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar

from broker.repos import base, errors, http, naming, remotes, urls
from broker.repos.asking import Asking
from providers.sentences import say

GIT = "git ls-remote"
GUESSES = 6
"""Questions to an API at most to find where the name of a branch ends; nobody nests deeper in private repositories."""


class Forge(base.RepoProvider):
    """What GitHub, GitLab and Bitbucket have in common. A subclass says how its API is asked, and reads its answers."""

    one_home = True
    named: ClassVar[str]
    """The host, in sentences."""

    @abstractmethod
    def commit_by_api(self, spec: base.RepoSpec, asking: Asking) -> str:
        """The commit, at the cost of two questions at most. Raises RepoError."""

    @abstractmethod
    def web_url(self, spec: base.RepoSpec, commit: str, asking: Asking) -> str:
        """The page of the repository's files at this commit."""

    def clone_url(self, spec: base.RepoSpec, asking: Asking) -> str:
        """Where git finds it."""
        return f"{asking.url(self)}/{spec.repo}"

    def spec_at(self, spec: base.RepoSpec, commit: str) -> str:
        """BinderHub's string for this commit."""
        return self.spec(replace(spec, ref=commit))

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        if not spec.divided:
            spec, commit = self.divide(spec, asking)
            if commit:
                return self.resolved(spec, commit, GIT, asking)
        try:
            return self.resolved(spec, self.commit_by_api(spec, asking), f"{self.named} API", asking)
        except errors.RefNotFound:
            raise
        except (errors.RateLimited, errors.HostUnavailable) as refusal:
            return self.resolved(spec, self.commit_by_git(spec, asking, refusal), GIT, asking)
        except errors.NotFound as refusal:
            if asking.credential is None:
                raise
            # A token may open the repository and not the API: GitLab has them of one kind each.
            return self.resolved(spec, self.commit_by_git(spec, asking, refusal), GIT, asking)

    def commit_by_git(self, spec: base.RepoSpec, asking: Asking, refusal: errors.RepoError) -> str:
        """Raises this refusal where git knows no more than the API would say."""
        url = self.clone_url(spec, asking)
        try:
            if remotes.COMMIT.fullmatch(spec.ref):
                return asking.remotes.commit(url, spec.ref)
            commit = remotes.chosen(asking.remotes.refs(url, [spec.ref]), spec.ref)
        except errors.RefNotFound:
            raise
        except errors.NotFound:
            raise self.no_repository(spec) from None
        except (errors.HostUnavailable, errors.TooBig):
            raise refusal from None
        if commit:
            return commit
        raise refusal if remotes.SHORT.fullmatch(spec.ref) else self.no_ref(spec)

    def divide(self, spec: base.RepoSpec, asking: Asking) -> tuple[base.RepoSpec, str | None]:
        """Where the branch's name ends, and its commit where that came to light as well. git knows, at no cost of quota."""
        text = f"{spec.ref}/{spec.path}"
        try:
            refs = asking.remotes.refs(self.clone_url(spec, asking), remotes.openings(text))
        except (errors.NotFound, errors.HostUnavailable, errors.TooBig):
            return self.divide_by_api(spec, asking), None
        found = remotes.divided(refs, text)
        if found is None:
            raise self.no_ref(spec)
        ref, path = found
        return replace(spec, ref=ref, path=path, divided=True), remotes.chosen(refs, ref)

    def divide_by_api(self, spec: base.RepoSpec, asking: Asking) -> base.RepoSpec:
        """The same for repositories that only the token can see: the shortest beginning that the API knows."""
        for tried in divisions(spec):
            try:
                self.commit_by_api(tried, asking)
            except errors.RefNotFound:
                continue
            return tried
        raise self.no_ref(spec)

    def ask(
        self,
        address: str,
        asking: Asking,
        *,
        accept: str = "application/json",
        lasting: Callable[[http.Answer], bool] = http.missing,
    ) -> http.Answer:
        """One question to the API, with the token if there is one. `lasting`: refusals that hold for five minutes."""
        mine = asking.credential
        token = "" if mine else asking.token(self)
        answer = asking.http.ask_api(
            f"{self.api_url(asking)}/{address}",
            accept=accept,
            token=token,
            authorization=mine.authorization if mine else "",
            lasting=lasting,
        )
        if mine and answer.status == 401:
            raise errors.TokenRefused(
                say("%(named)s does not take your token any more. Connect your account there again.", named=self.named)
            )
        if mine and answer.status == 403 and "x-github-sso" in answer.headers:
            raise errors.TokenRefused(
                say(
                    "%(named)s wants your token to be authorized for the organization's single sign-on. Do so "
                    "among your tokens there.",
                    named=self.named,
                )
            )
        if answer.status == 401 and token:
            raise errors.HostUnavailable(
                say(
                    "%(named)s no longer accepts this broker's token. Tell whoever runs it to renew it.",
                    named=self.named,
                )
            )
        return answer

    def api_url(self, asking: Asking) -> str:
        """Where the API answers: as set, else where this kind of host has it beside its pages."""
        return asking.api(self)

    def no_repository(self, spec: base.RepoSpec) -> errors.NotFound:
        """Hosts do not say whether it is private or not there, so neither do we."""
        return errors.NotFound(
            f"{self.named} has no public repository {spec.repo}. Check the name, and that it is not private."
        )

    def no_ref(self, spec: base.RepoSpec) -> errors.RefNotFound:
        """The refusal for a repository that is there without what was asked for."""
        if spec.ref == "HEAD":
            return self.empty(spec)
        return errors.RefNotFound(
            f"{spec.repo} has no branch, tag or commit “{spec.ref}”. Check the name on {self.named}."
        )

    def empty(self, spec: base.RepoSpec) -> errors.RefNotFound:
        """The refusal for a repository without any commit."""
        return errors.RefNotFound(f"The repository {spec.repo} is empty. Push a first commit, then launch it.")

    def senseless(self, answer: http.Answer) -> errors.HostUnavailable:
        """The refusal for an answer that nobody described."""
        return errors.HostUnavailable(
            f"{self.named}'s answer makes no sense (status {answer.status}). Try again in a moment."
        )

    def read(self, answer: http.Answer, take: Callable[[Any], Any]) -> Any:
        """What `take` finds in this answer of JSON. Raises HostUnavailable where it is not there."""
        try:
            return take(json.loads(answer.body))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            raise self.senseless(answer) from None

    def counted(self, answer: http.Answer, commit: object) -> str:
        """This commit, if it is one. Raises HostUnavailable."""
        if isinstance(commit, str) and re.fullmatch(r"[0-9a-f]{64}", commit):
            raise errors.HostUnavailable(remotes.SHA_256)
        if not isinstance(commit, str) or not remotes.COMMIT.fullmatch(commit):
            raise self.senseless(answer)
        return commit

    def resolved(self, spec: base.RepoSpec, commit: str, via: str, asking: Asking) -> base.Resolved:
        """All that follows from the commit."""
        return base.Resolved(
            spec=spec,
            commit=commit,
            repo_url=self.clone_url(spec, asking),
            web_url=self.web_url(spec, commit, asking),
            slug=naming.slug(spec.repo),
            ref=spec.ref,
            path=spec.path,
            spec_string=f"{spec.provider}/{self.spec_at(spec, commit)}",
            via=via,
        )


def divisions(spec: base.RepoSpec) -> Iterable[base.RepoSpec]:
    """Each way to divide what may be branch and path, the shortest branch first."""
    text = f"{spec.ref}/{spec.path}"
    for ref in remotes.openings(text)[:GUESSES]:
        if ref and not ref.endswith("/"):
            yield replace(spec, ref=remotes.lowered(ref), path=text.removeprefix(ref).strip("/"), divided=True)


def first_that_exists(
    candidates: Iterable[base.RepoSpec], look_up: Callable[[base.RepoSpec], base.Resolved], seconds: float
) -> base.Resolved:
    """The first of these repositories that is there, whether or not it has the reference. Raises what the first raised.

    No further one is tried after so many seconds.
    """
    until = time.monotonic() + seconds
    first: errors.RepoError | None = None
    for spec in candidates:
        try:
            return look_up(spec)
        except (errors.RefNotFound, errors.HostTimeout):
            raise
        except (errors.NotFound, errors.HostUnavailable) as refusal:
            first = first or refusal
        if time.monotonic() > until:
            break
    raise first or errors.NotFound


def owned(provider: base.RepoProvider, spec: str, owner: str, repository: Callable[[str, str], str]) -> base.RepoSpec:
    """`owner/name/ref`, where the reference may be left out and may hold slashes. Raises BadSpec, in the host's own words."""
    parts = spec.split("/", 2)
    if len(parts) < 2 or not parts[1]:
        raise errors.BadSpec(
            say(
                "“%(spec)s” names no repository. Write %(owner)s, and /branch behind it if you like.",
                spec=spec[:80],
                owner=owner,
            )
        )
    ref = urls.ref(urls.decoded(parts[2])) if len(parts) == 3 else "HEAD"
    named = repository(*map(urls.decoded, parts[:2]))
    return base.RepoSpec(provider=provider.prefix, repo=named, ref=remotes.lowered(ref))
