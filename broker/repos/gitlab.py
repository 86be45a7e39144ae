"""`gl`: gitlab.com, or the GitLab that the settings name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from broker.repos import base, errors, forges, http, remotes, urls
from broker.repos.asking import Asking
from providers.sentences import say

PART = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,254}", re.ASCII)
DEEPEST = 22
"""A project in a group with twenty levels of subgroups, GitLab's own limit."""
OWN_PAGES = ("explore", "users", "help", "dashboard", "search", "groups", "-", "api", "admin", "profile")
"""Begin addresses of gitlab.com that are of no project."""
RESERVED = ("tree", "blob", "raw", "blame", "commits", "find_file")
"""No project or group is called so; addresses of before 2019 have these without `-` before them."""


class GitLab(forges.Forge):
    """Projects in groups within groups. BinderHub's string has them as one segment: `group%2Fproject/ref`."""

    prefix = "gl"
    title = "GitLab"
    named = "GitLab"
    url = "https://gitlab.com"
    repo_label = "GitLab repository name or URL"
    repo_example = "example: https://gitlab.com/group/subgroup/project or group/subgroup/project"
    url_encode = True
    validate_regex = r"[^\/]+\/.+"
    detect_regex = base.below("gitlab.com")

    def parse(self, spec: str) -> base.RepoSpec:
        first, _, rest = spec.partition("/")
        name = urls.decoded(first)
        if "/" in name:
            ref = remotes.lowered(urls.ref(urls.decoded(rest)))
            return base.RepoSpec(provider=self.prefix, repo=project(name.split("/")), ref=ref)
        return self.all_decoded(urls.decoded(spec).split("/"))

    def all_decoded(self, parts: list[str]) -> base.RepoSpec:
        """`group/project/main`, as proxies and people write it: only GitLab knows where the project ends."""
        if len(parts) < 3:
            return base.RepoSpec(provider=self.prefix, repo=project(parts))
        at = next((at for at in range(len(parts) - 1, 2, -1) if is_project(parts[:at])), 2)
        ref = remotes.lowered(urls.ref("/".join(parts[at:])))
        return base.RepoSpec(provider=self.prefix, repo=project(parts[:at]), ref=ref, located=at == 2)

    def spec(self, spec: base.RepoSpec) -> str:
        return f"{quote(spec.repo, safe='')}/{quote(spec.ref, safe='')}"

    def detect(self, url: urls.Url) -> base.RepoSpec | None:
        """The pages people launch from: of a branch, a file, a commit, a merge request, a tag."""
        if url.host not in ("gitlab.com", "www.gitlab.com"):
            return None
        parts = list(url.segments)
        at = next((at for at, part in enumerate(parts) if part == "-" or (at > 1 and part in RESERVED)), len(parts))
        if at < 2 or parts[0] in OWN_PAGES:
            raise errors.BadSpec(
                say("This page of GitLab belongs to no project. Open the project and paste its address.")
            )
        page = parts[at + 1 :] if parts[at : at + 1] == ["-"] else parts[at:]
        return base.RepoSpec(provider=self.prefix, repo=project(parts[:at]), **opened(page))

    def api_url(self, asking: Asking) -> str:
        return asking.api(self) or f"{asking.url(self)}/api/v4"

    def clone_url(self, spec: base.RepoSpec, asking: Asking) -> str:
        return f"{super().clone_url(spec, asking)}.git"

    def web_url(self, spec: base.RepoSpec, commit: str, asking: Asking) -> str:
        return f"{asking.url(self)}/{spec.repo}/-/tree/{commit}"

    def resolve(self, spec: base.RepoSpec, asking: Asking) -> base.Resolved:
        if not spec.located:
            look_up = super().resolve
            seconds = asking.settings.git_seconds
            return forges.first_that_exists(endings(spec), lambda each: look_up(each, asking), seconds)
        return super().resolve(spec, asking)

    def commit_by_api(self, spec: base.RepoSpec, asking: Asking) -> str:
        address = f"projects/{quote(spec.repo, safe='')}/repository/commits/{quote(spec.ref, safe='')}"
        answer = self.ask(address, asking, lasting=no_project)
        if answer.status == 200:
            return self.counted(answer, self.read(answer, lambda row: row["id"]))
        if answer.status == 404 and not no_project(answer):
            raise self.no_ref(spec)
        if answer.status in (401, 403, 404):
            raise self.no_repository(spec)
        if answer.status == 400:
            raise self.no_ref(spec)
        raise self.senseless(answer)


def no_project(answer: http.Answer) -> bool:
    """True where GitLab says that the project is not there, or not for us; it says so of commits as well."""
    return answer.status == 404 and b"Commit" not in answer.body and b"Repository" not in answer.body


def is_project(parts: list[str]) -> bool:
    """True for what GitLab allows as the path of a project."""
    return (
        2 <= len(parts) <= DEEPEST
        and all(PART.fullmatch(part) and not part.endswith(".") for part in parts)
        and not parts[-1].endswith((".git", ".atom"))
    )


def project(parts: list[str]) -> str:
    """`group/subgroup/project`, as GitLab spells such. Raises BadSpec."""
    parts = [*parts[:-1], parts[-1].removesuffix(".git")]
    if not is_project(parts):
        raise errors.BadSpec(
            say("“%(names)s” cannot be a project on GitLab. Write group/project.", names="/".join(parts)[:80])
        )
    return "/".join(parts)


def opened(page: list[str]) -> dict[str, Any]:
    """Reference and path of a page below the project's own. Pages without either open the default branch."""
    match page:
        case ["tree" | "blob" | "raw" | "blame" | "edit" | "commits" | "find_file", *rest] if rest:
            return remotes.undivided(rest)
        case ["commit", sha, *_]:
            return {"ref": urls.ref(sha.lower())}
        case ["tags", *rest] if rest:
            return {"ref": urls.ref("tags/" + "/".join(rest))}
        case ["merge_requests", number, *_] if number.isdecimal():
            return {"ref": f"refs/merge-requests/{number}/head"}
    return {}


def endings(spec: base.RepoSpec) -> Iterator[base.RepoSpec]:
    """The projects this may mean, the deepest first."""
    parts = f"{spec.repo}/{spec.ref}".split("/")
    for at in range(spec.repo.count("/") + 1, 1, -1):
        yield replace(spec, repo="/".join(parts[:at]), ref="/".join(parts[at:]), located=True)
